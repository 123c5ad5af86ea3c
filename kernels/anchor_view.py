"""The anchor of an outpainted panorama: the largest upright rectangle of it that a camera saw, and where it lies.

Tan et al.: Imagine360: Immersive 360 Video Generation from Perspective Anchor, 2024: what is seen of each frame is cut
out of the panorama as a picture of one size, and the network is told where the cut lay.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def largest_rectangles(masks: Tensor) -> Tensor:
    """The largest axis-aligned rectangle of each mask that holds nothing but ones.

    A row at a time, for every column: how far the ones reach up without a gap, and how far to both sides at least as
    high; the largest rectangle is the largest of these over all rows and columns.

    Args:
        masks: bool or numbers [T, H, W]; over 0.5 = inside.

    Returns:
        int64 [T, 4] on the CPU: top, left, height, width in pixels. Of several as large, the one that ends highest up,
        and of those the leftmost.

    Raises:
        ValueError: another shape, or a mask without anything inside.
    """
    if masks.ndim != 3 or 0 in masks.shape:
        raise ValueError(f"masks: got shape {list(masks.shape)}; expected [frames, height, width].")
    inside = (masks > 0.5).cpu()
    frames, height, width = inside.shape
    columns = torch.arange(width).expand_as(inside)
    # Of each row alone: the first column of the run that a column lies in, and the first one behind it.
    starts = torch.where(inside, 0, columns + 1).cummax(dim=2).values
    ends = torch.where(inside, width, columns).flip(2).cummin(dim=2).values.flip(2)
    reach, left = torch.zeros(2, frames, width, dtype=torch.int64)
    right = torch.full((frames, width), width)
    best, found = torch.zeros(frames, dtype=torch.int64), torch.zeros(frames, 4, dtype=torch.int64)
    for row in range(height):
        here = inside[:, row]
        reach = torch.where(here, reach + 1, 0)
        left = torch.where(here, torch.maximum(left, starts[:, row]), 0)
        right = torch.where(here, torch.minimum(right, ends[:, row]), width)
        area, column = (reach * (right - left)).max(dim=1)
        at = column[:, None]
        low, high, tall = left.gather(1, at)[:, 0], right.gather(1, at)[:, 0], reach.gather(1, at)[:, 0]
        found = torch.where((area > best)[:, None], torch.stack([row + 1 - tall, low, tall, high - low], 1), found)
        best = torch.maximum(best, area)
    if not bool(best.all()):
        raise ValueError(f"masks: nothing is inside mask {int((best == 0).nonzero()[0])}; expected some of it.")
    return found


def relative_positions(rectangles: Tensor, height: int, width: int) -> Tensor:
    """Where rectangles lie in a panorama, as Imagine360 is told.

    Args:
        rectangles: [T, 4] of largest_rectangles.
        height, width: of the panorama, pixels.

    Returns:
        float32 [T, 6], whole numbers: how far the rectangle's middle lies above and to the left of the panorama's
        (rounded towards zero), the rectangle's height and width, the panorama's height and width; pixels.
    """
    top, left, tall, wide = rectangles.double().unbind(1)
    above, before = (height / 2 - (2 * top + tall) / 2).trunc(), (width / 2 - (2 * left + wide) / 2).trunc()
    size = torch.tensor([height, width], dtype=torch.float64).expand(len(rectangles), 2)
    return torch.cat([torch.stack([above, before, tall, wide], 1), size], 1).float()


def anchor_pictures(panoramas: Tensor, rectangles: Tensor, height: int, width: int) -> Tensor:
    """The rectangles of panoramas as pictures of one size, whatever their aspect.

    Args:
        panoramas: float [T, C, H, W].
        rectangles: [T, 4] of largest_rectangles.
        height, width: of the pictures, pixels.

    Returns:
        [T, C, height, width], bilinear.

    Raises:
        ValueError: another number of rectangles than of panoramas.
    """
    if len(rectangles) != len(panoramas):
        raise ValueError(f"rectangles: got {len(rectangles)}; expected {len(panoramas)}, as many as panoramas.")
    cuts = [
        panorama[None, :, top : top + tall, left : left + wide]
        for panorama, (top, left, tall, wide) in zip(panoramas, rectangles.tolist(), strict=True)
    ]
    return torch.cat([F.interpolate(cut, (height, width), mode="bilinear") for cut in cuts])
