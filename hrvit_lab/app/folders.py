"""The folders whose results the app shows. Only the command line names them, never a page's address."""

import argparse
from pathlib import Path

from hrvit_lab.errors import ConfigError

REFERENCE = Path(__file__).resolve().parents[2] / "studies" / "measured"
"""Studies whose results come with the repository; absent from an installed package."""


def results_root(arguments: list[str]) -> Path:
    """Where studies leave their results: `--results` of the command line, by default `results`."""
    return Path(_options(arguments).results)


def runs_root(arguments: list[str]) -> Path:
    """Where trainings leave their results: `--runs` of the command line, by default `runs`."""
    return Path(_options(arguments).runs)


def profile_path(arguments: list[str]) -> Path | None:
    """The latency profile that Build predicts from: `--profile` of the command line."""
    path: Path | None = _options(arguments).profile
    return path


def check_options(arguments: list[str]) -> None:
    """Check the options of the command line.

    Raises:
        ConfigError: if an option has no value.
    """
    _options(arguments)


def find_results(root: Path) -> dict[str, Path]:
    """Folders directly in `root` that hold a table, newest first; links that lead out of `root` don't count."""
    return _folders_with("table.csv", root)


def find_runs(root: Path) -> dict[str, Path]:
    """Folders directly in `root` that hold the result of a training, as `find_results`."""
    return _folders_with("result.json", root)


def _folders_with(name: str, root: Path) -> dict[str, Path]:
    files = [path for path in root.glob(f"*/{name}") if path.resolve().is_relative_to(root.resolve())]
    return {path.parent.name: path.parent for path in sorted(files, key=lambda path: -path.stat().st_mtime)}


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--profile", type=Path, default=None)
    try:
        return parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError as error:
        raise ConfigError(f"the app was started with invalid options: {error}; see hrvit-lab app --help") from None
