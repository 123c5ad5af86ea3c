"""Normals of what four lights shine on: from the left, the right, above and below.

lllyasviel, IC-Light (2024), its demonstration's normal mode: a surface that faces a light is brighter than it is on the
mean of all four.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .masks import check_mask

SMALLEST = 1e-5
"""Added to brightnesses before they are divided."""

LEAST_LENGTH = 0.02
"""Of a pixel of a normal map that says a direction: an 8-bit grey, 127 or 128, is 0.007 long."""

SIGMA = 10.0
"""The demonstration's: how fast a normal turns away from the viewer."""


def normals_from_light(
    left: Tensor, right: Tensor, above: Tensor, below: Tensor, mask: Tensor | None = None, sigma: float = SIGMA
) -> Tensor:
    """Estimates normals.

    With d the relative difference of a picture from the mean of all four, u = (d_right - d_left) / 2 and
    v = (d_above - d_below) / 2, each averaged over the colours, and h = max(1 - u^2 - v^2, 0)^(sigma / 2), the normal
    is (u, v, h) at length 1. Where the mask is 0 it looks at the viewer: (0, 0, 1), mixed in between.

    Args:
        left, right, above, below: float32 [B, H, W, 3], 0..1: the same lit from there.
        mask: float32 [B or 1, H, W], 1 on the surface; None: everywhere.
        sigma: over 0; more makes the relief deeper.

    Returns:
        float32 [B, H, W, 3]: x to the right, y up, z to the viewer.

    Raises:
        ValueError: sizes that differ, or a sigma of 0 or less.
    """
    pictures = {"left": left, "right": right, "above": above, "below": below}
    for name, picture in pictures.items():
        if picture.ndim != 4 or picture.shape[-1] != 3 or picture.shape != left.shape:
            raise ValueError(
                f"{name} has shape {list(picture.shape)}; expected [batch, height, width, 3], as left has"
                f" {list(left.shape)}."
            )
    check_mask(mask, left)
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected a number over 0.")
    mean = (left + right + above + below) / 4 + SMALLEST
    u = ((right - left) / mean).mean(-1) / 2
    v = ((above - below) / mean).mean(-1) / 2
    h = (1 - u.square() - v.square()).clamp(min=0) ** (sigma / 2)
    normals = torch.nn.functional.normalize(torch.stack((u, v, h), -1), dim=-1)
    if mask is None:
        return normals
    share = mask[..., None].clamp(0, 1)
    return normals * share + normals.new_tensor([0.0, 0.0, 1.0]) * (1 - share)


def normal_picture(normals: Tensor) -> Tensor:
    """Normals -1..1 as pictures 0..1, as normal maps are: red to the right, green up, blue to the viewer."""
    return (normals + 1) / 2


def picture_normals(pictures: Tensor) -> Tensor:
    """Pictures 0..1 as normals of length 1, what ``normal_picture`` wrote.

    Grey, which has no direction, looks at the viewer: (0, 0, 1).
    """
    vectors = pictures * 2 - 1
    length = vectors.norm(dim=-1, keepdim=True)
    ahead = vectors.new_tensor([0.0, 0.0, 1.0])
    return torch.where(length > LEAST_LENGTH, vectors / length.clamp_min(LEAST_LENGTH), ahead)
