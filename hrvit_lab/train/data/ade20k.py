"""ADE20K of the MIT scene parsing challenge (arXiv 1608.05442): 150 classes, 20,210 and 2,000 images.

Its masks have the values 1 … 150 for classes and 0 for everything else. They are converted to labels 0 … 149; value 0
is ignored.
"""

from pathlib import Path

from hrvit_lab.train.data.masks import MaskFiles, label_table, mask_files, paired
from hrvit_lab.train.data.samples import IGNORED, need_root

FOLDER = "ADEChallengeData2016"
FOLDERS = {"train": "training", "val": "validation"}
CLASSES = tuple(
    """
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door,
    table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, armchair,
    seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, chest of drawers,
    counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table,
    pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
    countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel,
    light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, dirt track, apparel,
    pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt,
    canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven,
    ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture,
    hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin board, shower,
    radiator, glass, clock, flag
    """.replace("\n    ", " ").strip().split(", ")
)  # fmt: skip


def open_ade20k(split: str, root: Path | None) -> MaskFiles:
    """ADE20K.

    Args:
        root: the folder ``ADEChallengeData2016``, or its parent.
    """
    root = need_root("ade20k", root)
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    pairs = paired(root, root / "images" / FOLDERS[split], root / "annotations" / FOLDERS[split])
    table = label_table({0: IGNORED} | {number: number - 1 for number in range(1, len(CLASSES) + 1)})
    return mask_files(root, pairs, CLASSES, table)
