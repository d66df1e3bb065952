"""The command line of ``hrvit-lab search``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from hrvit_lab import cli

EXAMPLES = """\
examples:
  hrvit-lab search --list
  hrvit-lab search cpu_nano
  hrvit-lab search cpu_nano --dry-run
  hrvit-lab search mine.yaml --evaluations 50000 --seeds 0,1,2

Nothing is trained or built: costs are computed in closed form. A search can be stopped at any time and started again;
more evaluations or seeds continue it. The result is an ordinary study, which 'hrvit-lab app' shows.

Exit code: 0 success, 2 invalid request, 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""

    def work() -> int:
        options = parser().parse_args(arguments)
        with cli.loading():
            from hrvit_lab.config import ConfigError  # imported here to keep --help fast
            from hrvit_lab.search.command import search, show_list

            console = cli.console()
        if options.list:
            return show_list(console)
        if options.search is None:
            raise ConfigError("no search given; give a name from --list, or a path that ends in .yaml")
        return search(options, console)

    return cli.run(work, interrupted="interrupted; finished generations are kept; run the same command again to resume")


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(
        "hrvit-lab search",
        "Search a space of networks for the best compromises between costs, by NSGA-II with random search beside it.",
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
    parser.add_argument("--dry-run", action="store_true", help="check the search and show its size; run nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
