"""``hrvit-lab COMMAND …``, the same as ``python -m hrvit_lab COMMAND …`` and ``python -m hrvit_lab.COMMAND …``."""

import sys
from collections.abc import Sequence
from importlib import import_module

from hrvit_lab import __version__, cli
from hrvit_lab.errors import ConfigError, suggest

COMMANDS = {
    "study": "compare a family of networks: table, figures and report",
    "cost": "show parameters, MACs, activations and memory of a network",
    "latency": "compare the latency of networks",
    "train": "train a network, for a few epochs or by a recipe",
    "evaluate": "score a checkpoint on a data set",
    "export": "write a network to a file for PyTorch, ONNX Runtime or OpenVINO",
    "insight": "look inside a network: attention, receptive fields, features",
    "search": "search a space of networks for the best compromises",
    "data": "list the data sets, and check their files",
    "app": "explore results and build variants in the browser",
}
"""Names and descriptions of the commands. The package of that name has a ``__main__``."""

EXAMPLES = """\
examples:
  hrvit-lab cost hrvit_b1
  hrvit-lab latency hrvit_b1:deploy --against hrvit_b1 --threads 1
  hrvit-lab train hrvit_nano --data digits
  hrvit-lab study --list
  hrvit-lab study branch_sweep
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in COMMANDS:
        return import_module(f"hrvit_lab.{given[0]}.__main__").main(given[1:])
    return cli.run(lambda: _without_command(given))


def _without_command(given: Sequence[str]) -> int:
    if given and not given[0].startswith("-"):
        raise ConfigError(f"unknown command {given[0]!r}; {suggest(given[0], COMMANDS)}")
    parser().parse_args(given)
    parser().print_help()
    return 0


def parser() -> cli.Parser:
    """The command line without a command."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    parser = cli.Parser(
        "hrvit-lab",
        f"A workbench for HRViT (arXiv 2111.01236).\n\ncommands:\n{commands}\n\n"
        "Run 'hrvit-lab COMMAND --help' for the options of a command.",
        EXAMPLES,
    )
    parser.usage = "hrvit-lab COMMAND …"
    parser.add_argument("--version", action="version", version=f"hrvit-lab {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
