"""What the page "Run" offers, and the command lines of what is chosen. Nothing else reaches a command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hrvit_lab.app.processes import FOLDER, Request
from hrvit_lab.config import MAX_BRANCHES, PRESETS, TABLES, ConfigError
from hrvit_lab.files import user_path, write_atomically
from hrvit_lab.metrics import METRICS
from hrvit_lab.search.files import find_search, list_searches
from hrvit_lab.search.spec import SearchSpec, load_search
from hrvit_lab.study.files import (
    check_name,
    find_study,
    list_studies,
    load_study,
    named_after,
    spec_from,
    study_file,
    study_name,
)
from hrvit_lab.study.requirements import trains
from hrvit_lab.study.spec import AS_IS, EQUAL_MACS, Spec
from hrvit_lab.study.sweep import Sweep, prepare
from hrvit_lab.train.datasets import IN_MEMORY
from hrvit_lab.train.recipe import AnyRecipe, list_recipes, load_recipe

MAX_SEEDS, MAX_EPOCHS, MAX_IMAGES, MAX_TITLE = 20, 300, 60_000, 80
SIDES = (64, 32, 128)
FEW_IMAGES = 2000

AXES: Mapping[str, tuple[Any, ...]] = {
    "branches": tuple(range(1, MAX_BRANCHES + 1)),
    "attention": tuple(TABLES["attention"]),
    "ffn": tuple(TABLES["ffn"]),
    "fusion": tuple(TABLES["fusion"]),
    "shortcut": tuple(TABLES["shortcut"]),
    "window_sizes": (1, 2, 4, 7),
    "mlp_ratios": (1, 2, 3, 4),
    "width_scale": (0.5, 0.75, 1, 1.5, 2),
    "depth_scale": (0.5, 1, 2, 3),
}
"""Axes of a composed study, and the values to choose from."""

MEASURED = ("params", "macs", "activations", "latency_ms", "peak_memory_mib", "top1")
"""Metrics of a composed study."""

BASES = ("hrvit_nano", "hrvit_micro", *(name for name in PRESETS if name not in ("hrvit_nano", "hrvit_micro")))
DATA = tuple(name for name in IN_MEMORY if name != "folder")
"""Data sets that need no path."""

WITHOUT_FILES = ("fashion_mnist", "composites", "textures")
"""Data sets of recipes that need no path."""


class Composed(NamedTuple):
    """A small study: a base, one axis with its values, and what is measured.

    Attributes:
        values: of the axis, some of ``AXES``.
        seeds: number of trainings of a network.
        images: at most so many training images.
        equal_macs: whether widths are scaled until MACs equal the base's.
    """

    base: str
    axis: str
    values: tuple[Any, ...]
    metrics: tuple[str, ...]
    data: str
    side: int
    seeds: int
    epochs: int
    images: int
    equal_macs: bool
    title: str

    def spec(self) -> Spec:
        """The study.

        Raises:
            ConfigError: if a choice is not offered, or the study is invalid.
        """
        if not self.values or not self.metrics:
            raise ConfigError("choose at least one value and one metric")
        if self.base not in BASES or not set(self.values) <= set(AXES.get(self.axis, ())) or self.data not in DATA:
            raise ConfigError("this choice is not offered; choose from the lists")
        fields: dict[str, Any] = {
            "title": self.title.strip()[:MAX_TITLE] or self.default_title,
            "question": f"How does {words(self.axis)} change {', '.join(METRICS[key].label for key in self.metrics)}?",
            "base": {"preset": self.base, "num_classes": 10},
            "grid": {self.axis: list(self.values)},
            "match": [EQUAL_MACS if self.equal_macs else AS_IS],
            "metrics": list(self.metrics),
            "seeds": list(range(self.seeds)),
            "resolution": self.side,
            "data": {"name": self.data, "resolution": self.side},
            "train": {"epochs": self.epochs, "batch_size": 32, "train_limit": self.images},
            "latency": {"max_seconds": 1.5, "max_warmup_seconds": 2},
        }
        if "top1" in self.metrics and "macs" in self.metrics:
            fields["tradeoff"] = ["macs", "top1"]
        return spec_from(fields)

    @property
    def default_title(self) -> str:
        """A title that says what is compared."""
        values = ", ".join(map(str, self.values))
        return f"{words(self.axis)} {values} of {self.base}"[:MAX_TITLE].capitalize()


def words(axis: str) -> str:
    """An axis for reading."""
    return {"ffn": "FFN", "mlp_ratios": "FFN ratio", "window_sizes": "window size"}.get(axis, axis.replace("_", " "))


# -- studies ---------------------------------------------------------------------------------------------------


def studies() -> dict[str, str]:
    """Titles of the valid shipped studies, by name."""
    found = {}
    for name, path in list_studies().items():
        try:
            found[name] = load_study(path).title
        except ConfigError:
            continue
    return found


def shipped_sweep(name: str, seeds: int, epochs: int | None, results: Path) -> Sweep:
    """A shipped study, with another number of seeds and, for short trainings, of epochs.

    Raises:
        ConfigError: if it can't run here.
    """
    path = find_study(name)
    changes: list[tuple[str, Any]] = [("seeds", list(range(seeds)))]
    changes += [("train.epochs", epochs)] if epochs is not None else []
    return prepare(name, load_study(path, changes), study_file(path), results)


def shipped_request(name: str, seeds: int, epochs: int | None, results: Path) -> Request:
    """The request to run it."""
    sweep = shipped_sweep(name, seeds, epochs, results)
    arguments = [name, "--out", str(results)]
    spec = load_study(find_study(name))
    if trains(spec) and list(spec.seeds) != list(range(seeds)):
        arguments += ["--seeds", ",".join(map(str, range(seeds)))]
    if epochs is not None and epochs != spec.train.epochs:
        arguments += ["--set", f"train.epochs={epochs}"]
    return Request("study", sweep.folder.name, sweep.spec.title, "hrvit_lab.study", tuple(arguments), {})


def composed_sweep(spec: Spec, results: Path) -> Sweep:
    """The plan of a composed study. Writes nothing.

    Raises:
        ConfigError: if it can't run here.
    """
    path, text = _study_path(spec, results), spec.to_yaml()
    return prepare(path.stem, spec, study_file(path, text.encode()), results)


def composed_request(spec: Spec, results: Path) -> Request:
    """The request to run it. Its file is written into the folder of results.

    Raises:
        ConfigError: if it can't run here, or the folder can't be written.
    """
    sweep, path = composed_sweep(spec, results), _study_path(spec, results)
    about = {"file": path.name, "yaml": spec.to_yaml()}
    arguments = (str(path), "--out", str(results))
    request = Request("study", sweep.folder.name, spec.title, "hrvit_lab.study", arguments, about)
    return again(request, results)


def again(request: Request, results: Path) -> Request:
    """The request to continue a run. The file of a composed study is written again: it may be of a later one.

    Raises:
        ConfigError: if the file can't be written.
    """
    if "yaml" in request.extra:
        path = results / FOLDER / "studies" / Path(str(request.extra["file"])).name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, str(request.extra["yaml"]))
        except OSError as error:
            raise ConfigError(f"{results} can't be written: {error.strerror}; check its permissions") from None
    return request


def resume_request(folder: Path, title: str) -> Request | None:
    """The request to continue a study that was not started here; None if its name is not that of a shipped one."""
    if folder.name not in list_studies():
        return None
    return Request("study", folder.name, title, "hrvit_lab.study", (folder.name, "--out", str(folder.parent)), {})


def _study_path(spec: Spec, results: Path) -> Path:
    name = named_after(spec.title)
    check_name(name)
    return results / FOLDER / "studies" / f"{name}.yaml"


# -- trainings -------------------------------------------------------------------------------------------------


def recipes() -> dict[str, AnyRecipe]:
    """Recipes that can be run here, by name: those whose data needs no path, and that can be resumed."""
    found = {name: load_recipe(name) for name in list_recipes()}
    return {
        name: recipe
        for name, recipe in found.items()
        if recipe.data.name in WITHOUT_FILES and recipe.run.loop == "engine"
    }


def training_request(name: str, length: int, seed: int, runs: Path) -> Request:
    """The request to train by a recipe, for that number of epochs or iterations. The same one continues it.

    Raises:
        ConfigError: if the recipe is not offered.
    """
    recipe = recipes().get(name)
    if recipe is None:
        raise ConfigError(f"the recipe {name!r:.80} is not offered here; run hrvit-lab train in a terminal")
    setting, own = length_of(recipe)
    load_recipe(name, None, [(setting, length), ("run.seed", seed)])  # raises if the length is invalid
    changes = [f"{setting}={length}"] if length != own else []
    changes += [f"run.seed={seed}"] if seed != recipe.run.seed else []
    target = "-".join([name, f"seed{seed}", *([f"{length}{setting.rpartition('.')[2]}"] if length != own else [])])
    arguments = [name, "--out", str(runs / target), "--resume", "auto"]
    arguments += ["--set", ",".join(changes)] if changes else []
    return Request("training", target, recipe.title, "hrvit_lab.train", tuple(arguments), {})


def length_of(recipe: AnyRecipe) -> tuple[str, int]:
    """The setting of a recipe's length, and its value: epochs or iterations."""
    if recipe.schedule.epochs is not None:
        return "schedule.epochs", int(recipe.schedule.epochs)
    assert recipe.schedule.iterations is not None  # the recipe's schema promises one of them
    return "schedule.iterations", recipe.schedule.iterations


# -- searches --------------------------------------------------------------------------------------------------


def searches() -> dict[str, SearchSpec]:
    """The valid shipped searches whose files are all there, by name."""
    found = {}
    for name, path in list_searches().items():
        try:
            spec = load_search(path)
            profile = None if spec.profile is None else user_path(spec.profile)
        except ConfigError:
            continue
        if profile is None or profile.is_file():
            found[name] = spec
    return found


def search_request(name: str, evaluations: int | None, results: Path) -> Request:
    """The request to run a search, with another number of networks per run. The same one continues it.

    Raises:
        ConfigError: if the search is not offered.
    """
    spec = searches().get(name)
    if spec is None:
        raise ConfigError(f"the search {name!r:.80} is not offered here; run hrvit-lab search in a terminal")
    arguments = [name, "--out", str(results)]
    if evaluations is not None and spec.trainings is None and evaluations != spec.budget.evaluations:
        arguments += ["--evaluations", str(evaluations)]
    return Request("search", study_name(find_search(name)), spec.title, "hrvit_lab.search", tuple(arguments), {})
