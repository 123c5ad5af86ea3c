"""Filling the holes of a picture from what surrounds them, smoothly and without weights to load.

Push-pull interpolation (Gortler, Grzeszczuk, Szeliski, Cohen: The Lumigraph, SIGGRAPH 1996): the picture is averaged
down to one pixel, each level from what is known below it; on the way back every level takes from the coarser one what
it does not know itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NOTHING_KNOWN = 0.5
"""The grey that fills a picture of which nothing is known."""


def fill_holes(image: Tensor, weight: Tensor) -> Tensor:
    """Replace the unknown pixels of a picture.

    Args:
        image: float32 [C, H, W].
        weight: float32 [H, W] in 0..1: 1 = the pixel is known and stays as it is, bit for bit; 0 = it is replaced,
            whatever it holds (NaN too); between: a mixture.

    Returns:
        float32 [C, H, W]. Where no pixel is known at all: grey 0.5.

    Raises:
        ValueError: shapes that do not fit.
    """
    if image.ndim != 3 or weight.shape != image.shape[1:]:
        raise ValueError(
            f"weight: got {list(weight.shape)} for an image {list(image.shape)}; expected [C, H, W] and [H, W]."
        )
    weight = weight.to(torch.float32)[None]
    known = torch.where(weight > 0, image, 0.0)
    levels = [(known, weight)]
    while max(weight.shape[1:]) > 1:
        odd = (0, weight.shape[2] % 2, 0, weight.shape[1] % 2)
        both = F.pad(torch.cat([known * weight, weight]), odd)
        both = F.avg_pool2d(both[None], 2)[0] * 4.0
        total = both[-1:]
        known = both[:-1] / torch.where(total > 0, total, 1.0)
        weight = total.clamp(max=1.0)
        levels.append((known, weight))
    result = torch.where(weight > 0, known, NOTHING_KNOWN)
    for known, weight in levels[-2::-1]:
        height, width = weight.shape[1:]
        coarse = F.interpolate(result[None], scale_factor=2, mode="bilinear", align_corners=False)
        coarse = coarse[0, :, :height, :width]
        result = torch.where(weight >= 1, known, weight * known + (1.0 - weight) * coarse)
    return result
