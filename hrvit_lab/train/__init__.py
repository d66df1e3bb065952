"""Short-budget training on real images: an accuracy proxy, labelled as such, never on the paper's axis."""

from hrvit_lab.network.seeding import seeded
from hrvit_lab.train.data import DATASETS, ImageData, load_dataset
from hrvit_lab.train.loop import Epoch, TrainingDiverged, TrainOptions, TrainResult, evaluate, fit

__all__ = [
    "DATASETS",
    "Epoch",
    "ImageData",
    "TrainOptions",
    "TrainResult",
    "TrainingDiverged",
    "evaluate",
    "fit",
    "load_dataset",
    "seeded",
]
