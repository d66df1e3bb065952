"""Images with masks: ``ROOT/images/train``, ``ROOT/masks/train``, the same with ``val``, and ``ROOT/classes.txt``.

The class list has one name per line; the first is label 0, and so on. Label 255 is ignored. An image and its mask have
the same name except for the suffix.
"""

from pathlib import Path

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.masks import MAX_CLASSES, MaskFiles, mask_files, own_labels, paired
from hrvit_lab.train.data.samples import need_root
from hrvit_lab.train.data.text_files import read_lines


def open_pairs(
    split: str,
    root: Path | None,
    *,
    images: str = "images/{split}",
    masks: str = "masks/{split}",
    classes: str = "classes.txt",
) -> MaskFiles:
    """Images with masks.

    Args:
        images, masks: folders relative to ``root``; ``{split}`` is replaced by train or val.
        classes: path of the class list, relative to ``root`` or absolute.
    """
    root = need_root("mask_folder", root)
    names = read_lines(root / classes)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise ConfigError(f"{root / classes} lists {len(names)} classes; segmentation supports 2 to {MAX_CLASSES}")
    folders = [root / folder.replace("{split}", split) for folder in (images, masks)]
    if outside := [folder for folder in folders if not folder.resolve().is_relative_to(root.resolve())]:
        raise ConfigError(f"{outside[0]} is not inside {root}; give folders inside the root")
    return mask_files(root, paired(root, *folders), names, own_labels(len(names)))
