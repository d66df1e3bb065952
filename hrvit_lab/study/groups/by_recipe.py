"""Train the network of a trial by the recipe of its study."""

from hrvit_lab.devices import find_device
from hrvit_lab.files import user_path
from hrvit_lab.study.groups.group import ProbeInput
from hrvit_lab.train.distributed import Ranks
from hrvit_lab.train.recipe import changed
from hrvit_lab.train.trial import Trained, train_network
from hrvit_lab.train.trial_processes import train_in_processes


def train_by_recipe(inputs: ProbeInput) -> Trained:
    """Train the network of a trial with the trial's seed, in this process or by several others."""
    assert inputs.recipe is not None  # checked before any trial runs
    recipe, config, steps = inputs.recipe, inputs.config, inputs.on_step
    if inputs.seed != recipe.run.seed:
        recipe = changed(recipe, [("run.seed", inputs.seed)])
    root = user_path(inputs.data["root"]) if "root" in inputs.data else None
    if inputs.processes > 1:
        return train_in_processes(inputs.processes, recipe, config, device=inputs.device, root=root, on_step=steps)
    return train_network(recipe, config, device=find_device(inputs.device), root=root, ranks=Ranks(), on_step=steps)
