"""Where the two edges of a panorama meet: bringing that seam into the middle, a mask over it, and its error."""

from __future__ import annotations

import torch
from torch import Tensor


def seam_to_middle(images: Tensor) -> Tensor:
    """Pictures [..., W] rolled by half of their width: what were the first and the last column lie side by side."""
    return images.roll(images.shape[-1] // 2, dims=-1)


def seam_to_edges(images: Tensor) -> Tensor:
    """The inverse of ``seam_to_middle``, bit for bit, also at odd widths."""
    return images.roll(-(images.shape[-1] // 2), dims=-1)


def seam_mask(height: int, width: int, degrees: float, feather: float, *, middle: bool = True) -> Tensor:
    """White where the seam is.

    Args:
        height, width: of the panorama, pixels; its width is 360 degrees.
        degrees: how wide the seam is, both sides together, 0 to 360; above 0 at least the two columns that meet.
        feather: degrees on each side over which white goes to black in a straight line; 0 = a hard edge.
        middle: whether the seam lies in the middle (``seam_to_middle``) or at the edges.

    Returns:
        float32 [height, width], 0 to 1; all 0 with ``degrees`` 0.

    Raises:
        ValueError: a number out of range.
    """
    if min(height, width) < 1:
        raise ValueError(f"mask: got {width}x{height} pixels; expected at least 1x1.")
    if not 0 <= degrees <= 360:
        raise ValueError(f"degrees: got {degrees:g}; expected 0 to 360.")
    if not 0 <= feather <= 360:
        raise ValueError(f"feather: got {feather:g}; expected 0 to 360.")
    if degrees == 0:
        return torch.zeros(height, width)
    columns = torch.arange(width, dtype=torch.float64)
    away = torch.minimum(columns + 0.5, width - columns - 0.5)  # columns from the seam, at the edges
    half, soft = max(degrees / 720 * width, 0.5), feather / 360 * width
    row = ((half + soft - away) / soft).clamp(0, 1) if soft > 0 else (away <= half).double()
    row = torch.where(away <= half, 1.0, row).float()
    return (seam_to_middle(row) if middle else row).expand(height, width).clone()


def seam_error(images: Tensor) -> Tensor:
    """How much a seam shows: the step from the last to the first column over the mean step between columns.

    Args:
        images: float [..., C, H, W], at least two columns.

    Returns:
        float32 [...]: near 1 where the seam is like any other place, 0 where nothing changes there.

    Raises:
        ValueError: fewer columns.
    """
    if images.ndim < 3 or images.shape[-1] < 2:
        raise ValueError(f"images: got {list(images.shape)}; expected [..., channels, height, width >= 2].")
    images = images.float()
    across = (images[..., 0] - images[..., -1]).abs().mean((-2, -1))
    inside = images.diff(dim=-1).abs().mean((-3, -2, -1))
    return across / inside.clamp_min(1e-6)
