"""The command line of ``hrvit-lab study``: run a study, plan it, show its state, list the studies, rebuild a report."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hrvit_lab import cli
from hrvit_lab.study.engine_options import add_device, add_executor

EXAMPLES = """\
examples:
  hrvit-lab study --list
  hrvit-lab study branch_sweep
  hrvit-lab study branch_sweep --dry-run
  hrvit-lab study branch_sweep --seeds 0,1,2,3,4 --set train.epochs=20
  hrvit-lab study window_sweep --set "grid.window_sizes=[1, [1, 2, 7, 7], 7]"
  hrvit-lab study mine.yaml --metrics params,macs,latency_ms --device cuda
  hrvit-lab study report branch_sweep
  hrvit-lab study plan branch_sweep --executor slurm --gres gpu:1 --device cuda
  hrvit-lab study branch_sweep --executor slurm --time 2:00:00 --slurm qos=low
  hrvit-lab study status branch_sweep

A study can be stopped at any time and started again. Every finished trial is kept, and only missing trials run.

Exit code: 0 all trials finished, 1 some failed (the reasons are listed), 2 invalid request, 130 interrupted.
"""

KEPT = "interrupted; finished trials are kept; run the same command again to resume"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""

    def work() -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        if given[:1] == ["report"]:  # imported here to keep --help fast; a report needs no module that runs trials
            options = report_parser().parse_args(given[1:])
            with cli.loading():
                from hrvit_lab.study.reporting import rebuild

                console = cli.console()
            return rebuild(options, console)
        if given[:1] == ["status"]:
            options = status_parser().parse_args(given[1:])
            with cli.loading():
                from hrvit_lab.study.status_command import show_status

                console = cli.console()
            return show_status(options, console)
        options = parser().parse_args([*given[1:], "--dry-run"] if given[:1] == ["plan"] else given)
        if options.list:
            with cli.loading():
                from hrvit_lab.study.listing import show_list

                console = cli.console()
            return show_list(options.out, console)
        with cli.loading():
            from hrvit_lab.study.command import sweep

            console = cli.console()
        return sweep(options, console)

    return cli.run(work, interrupted=KEPT)


def parser() -> cli.Parser:
    """The command line without ``report`` and ``status``; ``plan`` is the same as ``--dry-run``."""
    parser = cli.Parser(
        "hrvit-lab study",
        "Run a study: measure every variant, keep every trial, and write a table, figures and a report. "
        "'hrvit-lab study report NAME' rebuilds them from the kept trials, 'hrvit-lab study status NAME' shows what is "
        "queued, running, done and failed, and 'hrvit-lab study plan NAME' what would run.",
        EXAMPLES,
    )
    parser.add_argument(
        "study", nargs="?", metavar="NAME|FILE.yaml", help="name of a study (see --list), or path of a study file"
    )
    parser.add_argument(
        "--list", action="store_true", help="list the studies, with their numbers of variants and seeds"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE,…",
        help="override fields of the study file: dotted keys, YAML values (train.epochs=2,grid.branches=[1, 2]); "
        "can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", type=cli.listed(str), metavar="A,B", help="metrics to measure (default: those of the study file)"
    )
    parser.add_argument(
        "--seeds",
        type=cli.listed(cli.seed),
        metavar="0,1,2",
        help="seeds of the trainings, separated by commas (default: those of the study file)",
    )
    add_device(parser, "training and latency", "that of the study file")
    _add_out(parser)
    parser.add_argument(
        "--jobs",
        type=cli.whole(1, 1024),
        metavar="N",
        help="number of trainings that run at the same time (default: one per CPU core; 1 on a GPU)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the trials and the costs of the networks; run nothing"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    parser.add_argument(
        "--again",
        type=cli.listed(str),
        metavar="GROUP,…",
        help="measure these groups again and replace the kept trials: latency, memory, accuracy, segmentation",
    )
    add_executor(parser)
    return parser


def status_parser() -> cli.Parser:
    """The command line after ``status``."""
    parser = cli.Parser(
        "hrvit-lab study status",
        "Show which trials of a study are queued, running, done and failed, where and since when.",
    )
    parser.add_argument("study", type=Path, metavar="NAME", help="name of the study")
    _add_out(parser)
    parser.add_argument("--cancel", action="store_true", help="cancel the study's jobs of Slurm; finished trials stay")
    return parser


def report_parser() -> cli.Parser:
    """The command line after ``report``."""
    parser = cli.Parser(
        "hrvit-lab study report",
        "Rebuild the table, figures and report of a study from its kept trials, or from the files in its folder.",
    )
    parser.add_argument("study", metavar="NAME", help="name of the study")
    _add_out(parser)
    parser.add_argument(
        "--into", type=cli.path, metavar="DIR",
        help="folder of a copy, without names of hosts (default: the folder of the study in --out)",
    )  # fmt: skip
    return parser


def _add_out(parser: cli.Parser) -> None:
    parser.add_argument(
        "--out", type=cli.path, default=Path("results"), metavar="DIR", help="folder of all results (default: results)"
    )


if __name__ == "__main__":
    sys.exit(main())
