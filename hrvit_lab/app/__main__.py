"""``hrvit-lab app``: open the app in a browser."""

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
        options = parser().parse_args(arguments)
        if find_spec("streamlit") is None:
            raise ConfigError("the app needs streamlit; run pip install 'hrvit-lab[app]'")
        script = Path(__file__).with_name("main.py")
        command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(options.port)]
        profile = [] if options.profile is None else [f"--profile={options.profile}"]
        return subprocess.run([*command, "--", f"--results={options.results}", *profile]).returncode

    return cli.run(work, interrupted="the app is closed")


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser("hrvit-lab app", "Open the app in a browser: results of studies, and a builder of variants.")
    parser.add_argument(
        "--results", type=cli.path, default=Path("results"), metavar="DIR",
        help="folder with the results of studies (default: results)",
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
