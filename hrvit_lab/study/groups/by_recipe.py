"""Train the network of a trial by the recipe of its study."""

from pathlib import Path

from hrvit_lab.devices import find_device
from hrvit_lab.study.groups.group import ProbeInput
from hrvit_lab.train.recipe import changed
from hrvit_lab.train.trial import Trained, train_network


def train_by_recipe(inputs: ProbeInput) -> Trained:
    """Train the network of a trial with the trial's seed."""
    assert inputs.recipe is not None  # checked before any trial runs
    root = inputs.data.get("root")
    return train_network(
        inputs.recipe if inputs.seed == inputs.recipe.run.seed else changed(inputs.recipe, [("run.seed", inputs.seed)]),
        inputs.config,
        device=find_device(inputs.device),
        root=None if root is None else Path(root).expanduser(),
        on_step=inputs.on_step,
    )
