"""``hrvit-lab app``: open the app in a browser.

Streamlit reads `.streamlit/config.toml` beside `main.py`: the app listens on localhost only, shows no traceback and
bounds uploads, wherever it is started. Options of Streamlit on the command line win.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hrvit_lab import cli
from hrvit_lab.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""

    def work() -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        own, of_streamlit = _split(given)
        options = parser().parse_args(own)
        if find_spec("streamlit") is None:
            raise ConfigError("the app needs streamlit; run pip install 'hrvit-lab[app]'")
        return subprocess.run(command(options, of_streamlit)).returncode

    return cli.run(work, interrupted="the app is closed")


def command(options: argparse.Namespace, of_streamlit: Sequence[str]) -> list[str]:
    """The command that starts the app, with further options of Streamlit."""
    script = Path(__file__).with_name("main.py")
    profile = [] if options.profile is None else [f"--profile={options.profile}"]
    return [
        sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(options.port), *of_streamlit,
        "--", f"--results={options.results}", f"--runs={options.runs}", *profile,
    ]  # fmt: skip


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Our arguments, and those of Streamlit after ``--``."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:place]), list(arguments[place + 1 :])


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser(
        "hrvit-lab app",
        "Open the app in a browser: results of studies, and a builder of variants. Only this machine can reach it.",
        "options of Streamlit follow after --; this lets other machines reach the app:\n"
        "  hrvit-lab app -- --server.address 0.0.0.0\n",
    )
    parser.add_argument(
        "--results", type=cli.path, default=Path("results"), metavar="DIR",
        help="folder with the results of studies (default: results)",
    )  # fmt: skip
    parser.add_argument(
        "--runs", type=cli.path, default=Path("runs"), metavar="DIR",
        help="folder with trainings and checkpoints (default: runs)",
    )  # fmt: skip
    parser.add_argument(
        "--profile", type=cli.path, metavar="DEVICE.json",
        help="a profile of 'hrvit-lab latency profile', from which Build predicts latency (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=cli.whole(1024, 65535), default=8501, metavar="N", help="local TCP port (default: 8501)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
