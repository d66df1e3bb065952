"""The command line of ``hrvit-lab search``, and of ``score``, ``quality`` and ``supernet`` after it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hrvit_lab import cli
from hrvit_lab.search.predictors import PREDICTORS
from hrvit_lab.study.engine_options import add_device, add_executor
from hrvit_lab.train.datasets import IN_MEMORY

EXAMPLES = """\
examples:
  hrvit-lab search --list
  hrvit-lab search cpu_nano
  hrvit-lab search cpu_nano --dry-run
  hrvit-lab search mine.yaml --evaluations 50000 --seeds 0,1,2
  hrvit-lab search segmenter_budget --executor slurm --gres gpu:1 --device cuda --time 2:00:00
  hrvit-lab search score hrvit_nano mit_b0 --predictors zico,naswot
  hrvit-lab search quality predictor_quality
  hrvit-lab search supernet nano_by_zico predictor_quality

Costs are computed in closed form. Networks are built only for predictors of accuracy, and trained only if the search
file has the section trainings; its networks are then proposed by a sampler of Optuna. A search can be stopped at any
time and started again; more evaluations, seeds or trainings continue it. The result is an ordinary study, which
'hrvit-lab app' shows.

Exit code: 0 success, 1 no network is within the constraints, a training failed or a worker was killed, 2 invalid
request, 130 interrupted.
"""


SCORE_EXAMPLES = """\
examples:
  hrvit-lab search score hrvit_nano hrvit_micro mit_b0
  hrvit-lab search score mine.yaml --data fashion_mnist --resolution 64 --predictors zico,naswot

Exit code: 0 success, 2 invalid request, 130 interrupted.
"""

SUPERNET_EXAMPLES = """\
examples:
  hrvit-lab search supernet nano_by_zico predictor_quality
  hrvit-lab search supernet mine.yaml my_study.yaml --epochs 60

The training can be stopped at any time; the same command continues it.

Exit code: 0 success, 1 the training diverged, 2 invalid request, 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""

    def work() -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        if given[:1] == ["score"]:
            return _score(given[1:])
        if given[:1] == ["quality"]:
            return _quality(given[1:])
        if given[:1] == ["supernet"]:
            return _supernet(given[1:])
        options = parser().parse_args(given)
        with cli.loading():
            from hrvit_lab.config import ConfigError  # imported here to keep --help fast
            from hrvit_lab.search.command import search, show_list

            console = cli.console()
        if options.list:
            return show_list(console)
        if options.search is None:
            raise ConfigError("no search given; give a name from --list, or a path that ends in .yaml")
        return search(options, console)

    return cli.run(work, interrupted="interrupted; finished work is kept; run the same command again to resume")


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(
        "hrvit-lab search",
        "Search a space of networks for the best trade-offs between costs, latency and accuracy, by NSGA-II and random "
        "search.",
        EXAMPLES,
    )
    parser.add_argument(
        "search", nargs="?", metavar="NAME|FILE.yaml", help="name of a search (see --list), or path of a search file"
    )
    parser.add_argument("--list", action="store_true", help="list the searches")
    parser.add_argument(
        "--evaluations", type=cli.whole(10, 10_000_000), metavar="N",
        help="networks that each run evaluates (default: that of the file)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=cli.listed(cli.seed), metavar="0,1,2", help="seeds of the runs (default: those of the file)"
    )
    parser.add_argument(
        "--out", type=cli.path, default=Path("results"), metavar="DIR", help="folder of all results (default: results)"
    )
    parser.add_argument(
        "--jobs", type=cli.whole(1, 1024), metavar="N", help="number of processes (default: one per CPU core)"
    )
    parser.add_argument("--retry-failed", action="store_true", help="train networks again whose training failed")
    parser.add_argument("--dry-run", action="store_true", help="check the search and show its size; run nothing")
    add_device(parser, "trainings", "that of the search file")
    add_executor(parser)
    return parser


def _score(arguments: Sequence[str]) -> int:
    options = score_parser().parse_args(arguments)
    with cli.loading():
        from hrvit_lab.search.score_command import score

    return score(options)


def score_parser() -> cli.Parser:
    """The command line of ``hrvit-lab search score``."""
    parser = cli.Parser(
        "hrvit-lab search score",
        "Score untrained networks by predictors of accuracy, beside their costs. Scores depend on the network, the "
        "seed and the images.",
        SCORE_EXAMPLES,
    )
    parser.add_argument("models", nargs="+", metavar="CONFIG", help="hrvit_nano, mine.yaml, timm:resnet18")
    parser.add_argument(
        "--predictors", type=cli.listed(cli.one_of(PREDICTORS, "predictor")), metavar="A,…",
        help=f"{', '.join(PREDICTORS)} (default: all that fit the networks)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=cli.one_of(IN_MEMORY, "data set"), default="digits",
        help=f"data set of the images: {', '.join(IN_MEMORY)} (default: digits)",
    )  # fmt: skip
    parser.add_argument("--root", type=cli.path, metavar="DIR", help="folder with the files of the data set")
    parser.add_argument(
        "--resolution", type=cli.size, default=(32, 32), metavar="N|HxW", help="input size in pixels (default: 32)"
    )
    parser.add_argument(
        "--batch-size", type=cli.whole(4, 4096), default=32, metavar="N",
        help="number of images, equally many of each class (default: 32)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=cli.seed, default=0, metavar="N", help="seed of initial weights and random inputs (default: 0)"
    )
    parser.add_argument("--csv", action="store_true", help="print CSV with exact values")
    return parser


def _quality(arguments: Sequence[str]) -> int:
    options = quality_parser().parse_args(arguments)
    with cli.loading():
        from hrvit_lab.search.quality_command import show_quality

    return show_quality(options)


def quality_parser() -> cli.Parser:
    """The command line of ``hrvit-lab search quality``."""
    parser = cli.Parser(
        "hrvit-lab search quality",
        "Score the networks of a finished study, and show how well each predictor ranks their accuracy: Kendall's tau, "
        "Spearman's rho, and partial tau at fixed parameters and MACs, with intervals.",
    )
    parser.add_argument("study", metavar="NAME|DIR", help="name of a finished study, or folder of its results")
    parser.add_argument(
        "--out", type=cli.path, default=Path("results"), metavar="DIR", help="folder of all results (default: results)"
    )
    parser.add_argument(
        "--into", type=cli.path, metavar="DIR",
        help="folder of the tables (default: predictors/ in the folder of the results)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=cli.whole(4, 4096), default=32, metavar="N",
        help="number of images, equally many of each class (default: 32)",
    )  # fmt: skip
    return parser


def _supernet(arguments: Sequence[str]) -> int:
    options = supernet_parser().parse_args(arguments)
    with cli.loading():
        from hrvit_lab.search.supernet_command import train_supernet

    return train_supernet(options)


def supernet_parser() -> cli.Parser:
    """The command line of ``hrvit-lab search supernet``."""
    parser = cli.Parser(
        "hrvit-lab search supernet",
        "Train one supernet over the space of a search: its networks share the weights of the largest one. Then score "
        "the networks of a study with inherited weights. 'hrvit-lab search quality' compares these scores with "
        "separate trainings. Data and training options are those of the study.",
        SUPERNET_EXAMPLES,
    )
    parser.add_argument("search", metavar="SEARCH|FILE.yaml", help="name of the search, or path of its file")
    parser.add_argument("study", metavar="STUDY|FILE.yaml", help="name of the study, or path of its file")
    parser.add_argument(
        "--epochs", type=cli.whole(1, 10_000), default=30, metavar="N",
        help="passes over the training images; each step trains 4 networks (default: 30)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=cli.seed, default=0, metavar="N",
        help="seed of initial weights, order of images, and drawn networks (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=cli.path, default=Path("results"), metavar="DIR", help="folder of all results (default: results)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
