"""The Pareto set of a search as an ordinary study, so that report, plots and app show it and studies can measure it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hrvit_lab.config import diff
from hrvit_lab.environment import environment
from hrvit_lab.metrics import METRICS
from hrvit_lab.search.genome import Genome, Space
from hrvit_lab.search.run import Search
from hrvit_lab.study.files import spec_from, study_in_memory
from hrvit_lab.study.reporting import gather, plan_under
from hrvit_lab.study.results import STUDY_FILE
from hrvit_lab.study.space import expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.store import Store

if TYPE_CHECKING:
    from hrvit_lab.study.results import Results

MAX_SHOWN = 200


def shown(genomes: Mapping[str, Genome]) -> dict[str, Genome]:
    """At most ``MAX_SHOWN`` networks of a front, evenly spaced along it, with both ends."""
    names = list(genomes)
    places = np.unique(np.linspace(0, len(names) - 1, min(len(names), MAX_SHOWN)).round().astype(int))
    return {names[place]: genomes[names[place]] for place in places}


def study_of(search: Search, genomes: Mapping[str, Genome]) -> Spec:
    """A study of the base and these networks by name, with the search's objectives and constraints as its metrics."""
    variants: list[dict[str, Any]] = [{"name": search.base_name, "set": {}}]
    for name, genome in genomes.items():
        variants.append({"name": name, "set": changed_fields(search.space, genome)})
    named = dict.fromkeys(("params", "macs", *search.spec.objectives, *search.spec.constraints))
    metrics = [key for key in METRICS if key in named]
    fields: dict[str, Any] = {
        "title": search.spec.title, "question": search.spec.question, "base": dict(search.spec.base),
        "variants": variants, "compare_to": search.base_name, "metrics": metrics,
        "resolution": list(search.spec.resolution),
    }  # fmt: skip
    if search.spec.trainings is not None:
        parts = ("seeds", "data", "train", "recipe", "device", "trial_timeout_s")
        fields |= search.spec.trainings.model_dump(mode="json", include=set(parts), exclude_none=True)
    if pair := _tradeoff(search):
        fields["tradeoff"] = pair
    return spec_from(fields)


def changed_fields(space: Space, genome: Genome) -> dict[str, Any]:
    """The fields in which a network differs from the base of its space, for YAML."""
    changes = {field: after for field, (_, after) in diff(space.base, space.config(genome)).items()}
    changes.pop("name", None)
    plain: dict[str, Any] = _plain(changes)
    return plain


def results_of(
    search: Search, genomes: Mapping[str, Genome], conditions: Mapping[str, Any] | None = None
) -> "tuple[Results, list[tuple[str, str]]]":
    """The results of that study, and the failed trials. Costs are computed; trainings are read from the store.

    Args:
        conditions: the environment of the trainings; None: there are none.
    """
    spec = study_of(search, genomes)
    conditions = {**(conditions or environment("cpu")), STUDY_FILE: study_in_memory(spec)}
    expansion = expand(spec)
    planned = plan_under(conditions, spec, expansion)
    return gather(search.folder, spec, expansion, planned, Store(search.folder.parent), conditions)


def _tradeoff(search: Search) -> list[str] | None:
    """The first two objectives, if both are metrics that improve in the direction of the search."""
    first_two: Mapping[str, str] = dict(list(search.spec.objectives.items())[:2])
    agree = all(key in METRICS and METRICS[key].better == better for key, better in first_two.items())
    return list(first_two) if agree else None


def _plain(value: Any) -> Any:
    """Lists instead of tuples, for YAML."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
