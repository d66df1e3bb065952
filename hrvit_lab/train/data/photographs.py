"""Photographs contained in scikit-image's wheel.

Photographs that scikit-image downloads are not used, and neither are JPEG files, whose pixels depend on the decoder.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.image_files import open_image

if TYPE_CHECKING:
    from PIL.Image import Image


def read_photograph(name: str) -> "Image":
    """A photograph as RGB; ``name`` is the file name without ``.png``.

    Raises:
        ConfigError: if scikit-image or the file is missing.
    """
    spec = find_spec("skimage")  # not imported, which takes a second: only files are needed
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0] if folders else "skimage") / "data" / f"{name}.png"
    if not path.is_file():
        raise ConfigError(f"the photograph {name}.png of scikit-image is missing ({path}); install scikit-image>=0.24")
    return open_image(path)
