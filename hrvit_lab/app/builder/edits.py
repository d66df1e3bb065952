"""What widgets do to the draft: pure functions from draft to draft."""

from collections.abc import Callable
from typing import Any, Literal

from hrvit_lab.app.builder.state import Draft, draft_of_preset
from hrvit_lab.config import PER_BRANCH, ConfigError, HRViTConfig, with_branches, with_stages, with_topology
from hrvit_lab.config.repair import Change, changed
from hrvit_lab.cost.budget import scale_to_budget


def set_entry(draft: Draft, change: Change) -> Draft:
    """Another value of a field or of one entry, or another size of the input."""
    if change.field == "resolution":
        return draft._replace(size=change.value)
    if change.field == "depths" and change.place:
        stage, branch = change.place
        return _set_blocks(draft, stage, branch, change.value)
    return draft._replace(fields=changed(draft.fields, change))


def set_all(draft: Draft, field: str, value: Any) -> Draft:
    """The same value for every branch."""
    return set_entry(draft, Change(field, (), (value,) * len(draft.fields[field])))


def _set_blocks(draft: Draft, stage: int, branch: int, blocks: int) -> Draft:
    """Blocks of a branch in a stage; 0 for a branch that is not in it. A branch of no stage is removed."""
    depths = [list(row) for row in draft.fields["depths"]]
    row = depths[stage]
    row += [0] * (branch + 1 - len(row))
    row[branch] = blocks
    while len(row) > 1 and row[-1] == 0:
        row.pop()
    fields = {**draft.fields, "depths": tuple(map(tuple, depths))}
    branches = max(map(len, depths))
    return draft._replace(fields=fields | {field: fields[field][:branches] for field in PER_BRANCH})


def set_topology(draft: Draft, topology: Literal["parallel", "pyramid"]) -> Draft:
    """The layout converted to the other topology."""
    return _transformed(draft, lambda config: with_topology(config, topology))


def set_branches(draft: Draft, branches: int) -> Draft:
    """Coarsest branches removed, or coarser ones added."""
    return _transformed(draft, lambda config: with_branches(config, branches))


def set_stages(draft: Draft, stages: int) -> Draft:
    """Last stages removed, or the last one repeated."""
    return _transformed(draft, lambda config: with_stages(config, stages))


def scale(draft: Draft, metric: str, limit: float) -> Draft:
    """Widths scaled to a budget."""
    return _transformed(draft, lambda config: scale_to_budget(config, metric, limit, draft.size))


def _transformed(draft: Draft, transform: Callable[[HRViTConfig], HRViTConfig]) -> Draft:
    """Raises:
    ConfigError: if the fields are not valid, or the transform is not possible.
    """
    try:
        config = HRViTConfig(**draft.fields)
    except ConfigError as error:
        raise ConfigError(f"Correct this first: {error}") from None
    return draft._replace(fields=transform(config).model_dump())


def start_from(draft: Draft, name: str) -> Draft:
    """A preset's fields; the input and the view stay."""
    return draft_of_preset(name)._replace(size=draft.size, cost=draft.cost, by=draft.by)
