"""Fine detail of one picture on the light of another: frequency separation, as retouchers know it.

A relit picture has the light that is wanted and loses print, text and texture. What is finer than a radius is taken
from the source, what is coarser stays.
"""

from __future__ import annotations

import math

from torch import Tensor

from .masks import check_mask

MODES = ("multiply", "add")
"""multiply: detail is the ratio to the blurred picture, so that it fades in shadows as it does in light. add: it is
the difference."""

SMALLEST = 1 / 255
"""Added to brightnesses before they are divided: below it there is no detail to tell from rounding."""

REACH = 3.0
"""Standard deviations that a blur's weights reach."""


def gaussian_blur(pictures: Tensor, radius: float) -> Tensor:
    """Pictures [B, H, W, C] blurred by a Gaussian; what lies outside is the mirrored inside, so a grey stays that grey.

    Args:
        radius: its standard deviation, pixels, over 0.
    """
    from kornia.filters import gaussian_blur2d

    # A mirrored edge is no wider than the picture.
    reaches = [min(math.ceil(REACH * radius), size - 1) for size in pictures.shape[1:3]]
    sizes = tuple(2 * reach + 1 for reach in reaches)
    return gaussian_blur2d(pictures.movedim(-1, 1), sizes, (radius, radius), border_type="reflect").movedim(1, -1)


def detail_transfer(
    relit: Tensor,
    source: Tensor,
    radius: float,
    *,
    mode: str = MODES[0],
    strength: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Puts the source's detail in the place of the relit picture's.

    With B a blur: add: relit + s ((source - B source) - (relit - B relit)); multiply: relit times
    ((source / B source) / (relit / B relit))^s.

    Args:
        relit, source: float32 [B, H, W, 3], 0..1.
        radius: what is finer counts as detail, pixels, over 0.
        mode: one of MODES.
        strength: s, 0 gives ``relit`` itself.
        mask: float32 [B or 1, H, W], 1 where the detail is wanted; None: everywhere.

    Returns:
        float32 [B, H, W, 3], 0..1.

    Raises:
        ValueError: sizes that differ, another mode, or a radius of 0 or less.
    """
    if relit.ndim != 4 or relit.shape[-1] != 3 or source.shape != relit.shape:
        raise ValueError(
            f"relit has shape {list(relit.shape)} and source {list(source.shape)}; expected two alike, [batch, height,"
            " width, 3]."
        )
    check_mask(mask, relit)
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}.")
    if not radius > 0:
        raise ValueError(f"radius is {radius}; expected a number over 0.")
    if strength == 0:
        return relit
    if mode == "add":
        detail = (source - gaussian_blur(source, radius)) - (relit - gaussian_blur(relit, radius))
        found = relit + strength * detail
    else:
        ratios = [(some + SMALLEST) / (gaussian_blur(some, radius) + SMALLEST) for some in (source, relit)]
        found = (relit + SMALLEST) * (ratios[0] / ratios[1]) ** strength - SMALLEST
    found = found.clamp(0, 1)
    return found if mask is None else relit + (found - relit) * mask[..., None].clamp(0, 1)
