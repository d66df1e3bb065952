"""Segmentation scores after a training by a recipe on a small data set: a proxy for full training."""

from hrvit_lab.study.groups.group import Figures, Group, ProbeInput


def train(inputs: ProbeInput) -> Figures:
    """Train from scratch by the study's recipe. Returns the scores after the last step and the curves."""
    from hrvit_lab.study.groups.by_recipe import train_by_recipe

    trained = train_by_recipe(inputs)
    last = trained.rows[-1]
    return {**{key: last[f"eval_{key}"] for key in ("miou", "boundary_iou")}, "curves": trained.curves}


SEGMENTATION = Group(
    key="segmentation",
    label="training of a segmentation network with one seed",
    version=1,
    depends_on=("data", "recipe", "seed", "device", "torch"),
    probe=train,
)
