"""From pixels to what a network reads: the last step of every transform."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


class Normalise:
    """An image as float32 (3, H, W), (pixel / 255 − mean) / std: equal to torchvision's ToTensor and Normalize.

    Args:
        mean, std: of each channel, of pixels in 0…1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean_C11, self.std_C11 = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __call__(self, image_HWC: Image.Image | NDArray[np.uint8]) -> Tensor:
        """Normalise an RGB image, uint8 (H, W, 3), of Pillow or numpy."""
        x_CHW = torch.from_numpy(np.asarray(image_HWC).transpose(2, 0, 1).astype(np.float32))
        return x_CHW.div_(255).sub_(self.mean_C11).div_(self.std_C11).contiguous()
