"""``hrvit-lab data list``: the data sets; ``hrvit-lab data check DATA``: read all of one, and name broken files."""

import sys
from collections.abc import Sequence

from hrvit_lab import cli
from hrvit_lab.errors import ConfigError, suggest

COMMANDS = {
    "list": "list the data sets, and where their files belong",
    "check": "read all of a data set, count its classes, and name broken files",
}
"""Names and descriptions of the commands."""

EXAMPLES = """\
examples:
  hrvit-lab data list
  hrvit-lab data check composites
  hrvit-lab data check cityscapes --root DIR
  hrvit-lab data check DIR --workers 8
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 (broken files), 2 (invalid request) or 130 (interrupted)."""

    def work() -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        if given and given[0] in COMMANDS:
            options = parser(given[0]).parse_args(given[1:])
            with cli.loading():
                from hrvit_lab.data import command  # imported here to keep --help fast

            return command.show_list() if given[0] == "list" else command.check(options)
        if given and not given[0].startswith("-"):
            raise ConfigError(f"unknown command {given[0]!r:.80}; {suggest(given[0], COMMANDS)}")
        parser().parse_args(given)
        parser().print_help()
        return 0

    return cli.run(work)


def parser(command: str | None = None) -> cli.Parser:
    """The arguments of a command, or of ``hrvit-lab data`` itself without one."""
    if command is None:
        width = max(map(len, COMMANDS))
        commands = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
        parser = cli.Parser("hrvit-lab data", f"Data sets.\n\ncommands:\n{commands}", EXAMPLES)
        parser.usage = "hrvit-lab data list | check …"
        return parser
    description = f"{COMMANDS[command][0].upper()}{COMMANDS[command][1:]}."
    parser = cli.Parser(f"hrvit-lab data {command}", description)
    if command == "check":
        parser.add_argument(
            "data",
            metavar="DATA",
            help="a name of hrvit-lab data list, or a folder, whose layout determines the data set",
        )
        parser.add_argument(
            "--root", type=cli.path, metavar="DIR",
            help="folder with the files of the data set (default: the usual place of the data set)",
        )  # fmt: skip
        parser.add_argument(
            "--workers", type=cli.whole(1, 256), default=1, metavar="N", help="processes that read files (default: 1)"
        )
        parser.add_argument("--download", action="store_true", help="fetch the data set first, if it can be fetched")
    return parser


if __name__ == "__main__":
    sys.exit(main())
