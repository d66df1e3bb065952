"""``hrvit-lab study NAME``, ``… --list``, ``… report NAME``: sweep a study, and show what it found."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hrvit_lab import cli

EXAMPLES = """\
examples:
  hrvit-lab study --list
  hrvit-lab study branch_sweep
  hrvit-lab study branch_sweep --dry-run
  hrvit-lab study branch_sweep --seeds 0,1,2,3,4 --set train.epochs=20,base.window_sizes=7
  hrvit-lab study window_sweep --set "one_at_a_time.window_sizes=[1, [1, 2, 7, 7], 7]"
  hrvit-lab study mine.yaml --metrics params,macs,latency_ms --device cuda --out results
  hrvit-lab study report branch_sweep

A study can be stopped at any moment and started again: every trial is kept when it is done,
and only what is missing runs. Exit code: 0 all trials are ok, 1 some failed (listed with
reasons), 2 the request is invalid, 130 interrupted.
"""

KEPT = "interrupted; the trials that are done are kept, and the same command goes on from there"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""

    def work() -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        reports = given[:1] == ["report"]
        options = _report_parser().parse_args(given[1:]) if reports else _parser().parse_args(given)
        if reports:  # imported here: --help is quick, and a report needs nothing of what runs trials
            with cli.loading():
                from hrvit_lab.study.reporting import rebuild

                console = cli.console()
            return rebuild(options, console)
        with cli.loading():
            from hrvit_lab.study import command

            console = cli.console()
        return command.show_list(console) if options.list else command.sweep(options, console)

    return cli.run(work, interrupted=KEPT)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        "hrvit-lab study",
        "Sweep a study: measure every variant, and keep every trial.\n"
        "'report NAME' rebuilds table, figures and report from the kept trials.",
        EXAMPLES,
    )
    parser.add_argument("study", nargs="?", metavar="NAME|FILE.yaml", help="a study of --list, or a study file")
    parser.add_argument("--list", action="store_true", help="show the studies and what they ask")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE,…",
        help="change the study file: dotted keys, YAML values (train.epochs=2,grid.branches=[1, 2])",
    )  # fmt: skip
    parser.add_argument("--metrics", type=cli.listed(str), metavar="A,B", help="measure these instead of the study's")
    parser.add_argument(
        "--seeds",
        type=cli.listed(cli.seed),
        metavar="0,1,2",
        help="train with these seeds (a list, not a number of them)",
    )
    parser.add_argument("--device", type=cli.device, metavar="D", help="where to train and time: cpu, cuda, cuda:N")
    _add_out(parser)
    parser.add_argument(
        "--jobs", type=cli.whole(1, 1024), metavar="N", help="trainings at a time; default: a core each, one on a GPU"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would run and its cost; compute nothing")
    parser.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    parser.add_argument(
        "--again",
        type=cli.listed(str),
        metavar="GROUP,…",
        help="measure these again, whatever is kept: latency, memory, accuracy",
    )
    return parser


def _report_parser() -> cli.Parser:
    parser = cli.Parser(
        "hrvit-lab study report",
        "Rebuild a study's report from its kept trials, or from its folder.",
    )
    parser.add_argument("study", metavar="NAME", help="the study's name")
    _add_out(parser)
    parser.add_argument(
        "--into", type=cli.path, metavar="DIR", help="write the report there; default: the study's folder in --out"
    )
    return parser


def _add_out(parser: cli.Parser) -> None:
    parser.add_argument("--out", type=cli.path, default=Path("results"), metavar="DIR", help="default: results")


if __name__ == "__main__":
    sys.exit(main())
