"""The photographs that scikit-image's wheel contains.

Those that it downloads are not used, nor JPEG files, whose pixels depend on the decoder.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hrvit_lab.errors import ConfigError
from hrvit_lab.train.data.image_files import open_image

if TYPE_CHECKING:
    from PIL.Image import Image


def read_photograph(name: str) -> "Image":
    """A photograph as RGB; ``name`` is that of its file without ``.png``.

    Raises:
        ConfigError: scikit-image is not installed, or without this file.
    """
    spec = find_spec("skimage")  # importing it takes a second, and only its files are needed
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0] if folders else "skimage") / "data" / f"{name}.png"
    if not path.is_file():
        raise ConfigError(f"the photograph {name}.png of scikit-image is missing ({path}); install scikit-image>=0.24")
    return open_image(path)
