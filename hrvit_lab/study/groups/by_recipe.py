"""Train the network of a trial by the recipe of its study."""

from pathlib import Path

from hrvit_lab.devices import find_device
from hrvit_lab.study.groups.group import ProbeInput
from hrvit_lab.train.recipe import changed
from hrvit_lab.train.trial import Trained, train_network


def train_by_recipe(asked: ProbeInput) -> Trained:
    """Train the network of a trial with the trial's seed."""
    assert asked.recipe is not None  # checked before any trial runs
    root = asked.data.get("root")
    return train_network(
        asked.recipe if asked.seed == asked.recipe.run.seed else changed(asked.recipe, [("run.seed", asked.seed)]),
        asked.config,
        device=find_device(asked.device),
        root=None if root is None else Path(root).expanduser(),
        on_step=asked.on_step,
    )
