"""The folders whose results the app shows. Only the command line names them, never a page's address."""

import argparse
from pathlib import Path

from hrvit_lab.errors import ConfigError
from hrvit_lab.network.weight_files import SUFFIXES, WEIGHTS

REFERENCE = Path(__file__).resolve().parents[2] / "studies" / "measured"
"""Studies whose results come with the repository; absent from an installed package."""

SHORT = "train"
"""Folder of short trainings in that of results."""

TRAININGS = ("result.json", "recipe.yaml")
"""Files of which a training's folder has at least one; a training by a recipe begins with the second."""

CONFIG = "config.yaml"
MOST_LISTED = 200


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


def find_latencies(root: Path) -> dict[str, Path]:
    """Folders directly in `root` that `hrvit-lab latency --out` wrote, as `find_results`."""
    return _folders_with("latency.csv", root)


def find_trainings(runs: Path, results: Path) -> dict[str, Path]:
    """The folders of trainings by unique names, newest first: those directly in `runs`, and the short ones that
    `hrvit-lab train MODEL` writes to `train` in the folder of results."""
    short = results / SHORT
    roots = [runs, *([short] if short.resolve().is_relative_to(results.resolve()) else [])]
    folders = {path for root in roots for name in TRAININGS for path in _folders_with(name, root).values()}
    found: dict[str, Path] = {}
    for folder in sorted(folders, key=lambda path: (-_modified(path), str(path))):
        name = f"training {folder.name}" if is_by_recipe(folder) else f"short training {folder.name}"
        while name in found:
            name += f" in {folder.parent.name}"
        found[name] = folder
    return found


def find_networks(runs: Path, results: Path) -> dict[str, Path]:
    """Networks with weights by unique names, newest first, as `hrvit_lab.network.named.open_network` takes them.

    They are the folders of trainings, and other files of weights in folders directly in `runs` that have a config.yaml.
    Links that lead out of these folders don't count.
    """
    found = {name: folder for name, folder in find_trainings(runs, results).items() if _weights_of(folder)}
    folders = [folder for folder in _folders_with(CONFIG, runs).values() if folder not in found.values()]
    files = [file for folder in folders for file in folder.iterdir() if file.suffix in SUFFIXES and _is_inside(file)]
    newest = sorted(files, key=lambda file: (-file.stat().st_mtime_ns, str(file)))[:MOST_LISTED]
    return found | {f"weights {file.parent.name}/{file.name}": file for file in newest}


def _weights_of(folder: Path) -> Path | None:
    """The weights of a training with a config; None if there are none."""
    first = next((path for name in WEIGHTS if (path := folder / name).is_file()), None)
    return first if first is not None and _is_inside(first) and _is_inside(folder / CONFIG) else None


def _is_inside(file: Path) -> bool:
    """Whether it is a file, and no link that leads out of the folder above its own."""
    return file.is_file() and file.resolve().is_relative_to(file.parent.parent.resolve())


def is_by_recipe(folder: Path) -> bool:
    """Whether a training is one by a recipe, and not a short one."""
    return (folder / "recipe.yaml").exists()


def _modified(folder: Path) -> int:
    return max((path.stat().st_mtime_ns for name in TRAININGS if (path := folder / name).exists()), default=0)


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
