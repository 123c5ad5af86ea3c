"""Lines of a picture, white on black: found without weights, or taken from a picture that is line art already.

Difference of Gaussians: Winnemoeller, Kyprianidis, Olsen, XDoG, 2012, with its soft threshold; adaptive threshold:
Bradley and Roth, 2007, with a soft edge. MangaNinja (Liu et al., CVPR 2025) wants such lines with all that is faint set
to 0, and hands them to its ControlNet as 2 x - 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .luma import split

METHODS = ("difference of Gaussians", "adaptive threshold")
POLARITIES = ("auto", "dark on light", "light on dark")
THRESHOLD = 0.24
"""MangaNinja's: what is no brighter is no line."""

SURROUND = 1.6
"""How much wider the second Gaussian is, near the ratio at which their difference is a Laplacian's."""

FAINT, STEEPNESS = 0.012, 14.0
"""Of the difference of Gaussians: how much darker than its surroundings a line is at least, and how soon all white."""

OFFSET, SOFTNESS = 0.05, 0.1
"""The same for the adaptive threshold."""

WINDOW = 12
"""Line widths that the adaptive threshold's surroundings are wide."""

LEAST_CONTRAST = 0.05
"""Between the ground and the lines of a picture that is line art already."""


def brightness(pictures: Tensor) -> Tensor:
    """float32 [B, 1, H, W]: luma of pictures [B, H, W, 3]."""
    return split(pictures, "YCbCr")[0]


def found_lines(pictures: Tensor, method: str, width: float = 1.0) -> Tensor:
    """Lines that a picture's dark strokes and edges make.

    Args:
        pictures: float32 [B, H, W, 3], 0..1.
        method: one of METHODS.
        width: of the lines, pixels, over 0.

    Returns:
        float32 [B, H, W], 0..1, 1 on a line.

    Raises:
        ValueError: another method, shape, or a width of 0 or less.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise ValueError(f"pictures has shape {list(pictures.shape)}; expected [batch, height, width, 3].")
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}.")
    if not width > 0:
        raise ValueError(f"width is {width}; expected a number over 0.")
    luma = brightness(pictures)
    if method == METHODS[0]:
        from .detail_transfer import gaussian_blur

        near, far = (gaussian_blur(luma.movedim(1, -1), width * factor)[..., 0] for factor in (0.5, 0.5 * SURROUND**2))
        return torch.tanh(STEEPNESS * (far - near - FAINT).clamp_min(0))
    side = max(3, 2 * round(WINDOW * width / 2) + 1)
    reach = min(side // 2, *(size - 1 for size in luma.shape[2:]))
    around = F.avg_pool2d(F.pad(luma, (reach,) * 4, mode="reflect"), 2 * reach + 1, stride=1)
    return ((around - luma - OFFSET) / SOFTNESS).clamp(0, 1)[:, 0]


def lines_of_line_art(pictures: Tensor, polarity: str = POLARITIES[0]) -> Tensor:
    """Lines of pictures that are line art: whatever the ground's brightness is becomes 0, the lines' becomes 1.

    Args:
        pictures: float32 [B, H, W, 3], 0..1, strokes on an even ground, in grey too.
        polarity: one of POLARITIES; "auto": the ground is what most of the picture is.

    Returns:
        float32 [B, H, W], 0..1, 1 on a line.

    Raises:
        ValueError: another polarity or shape, or a picture without contrast.
    """
    if pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise ValueError(f"pictures has shape {list(pictures.shape)}; expected [batch, height, width, 3].")
    if polarity not in POLARITIES:
        raise ValueError(f"polarity is {polarity!r}; expected one of {', '.join(POLARITIES)}.")
    flat = brightness(pictures).flatten(1)
    ground = flat.median(1, keepdim=True).values
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    dark = ground - low >= high - ground if polarity == "auto" else polarity == "dark on light"
    if not isinstance(dark, Tensor):
        dark = torch.full_like(ground, dark, dtype=torch.bool)
    reach = torch.where(dark, ground - low, high - ground)
    if bool((reach < LEAST_CONTRAST).any()):
        raise ValueError(
            f"a picture has no lines: its brightness differs by {float(reach.min()):.2f} from its ground's, expected at"
            f" least {LEAST_CONTRAST}."
        )
    away = torch.where(dark, ground - flat, flat - ground)
    return (away / reach).clamp(0, 1).view(pictures.shape[:3])


COLOURED = 0.06
"""From this mean difference between the channels on, of a picture or of what is on its ground, it is no line art."""

MOST_GROUND = 0.5
"""Share of line art that is as bright as its ground, at least."""


def is_line_art(picture: Tensor) -> bool:
    """Whether a picture float32 [H, W, 3], 0..1, looks like line art: hardly any colour, most of it an even ground.

    A blank picture does. A small coloured figure on white paper does not.
    """
    colour = picture.amax(-1) - picture.amin(-1)
    bright = brightness(picture[None])[0, 0]
    ground = (bright - bright.median()).abs() < LEAST_CONTRAST
    if float(ground.float().mean()) < MOST_GROUND or float(colour.mean()) >= COLOURED:
        return False
    drawn = colour[~ground]
    return not drawn.numel() or float(drawn.mean()) < COLOURED


def without_faint(lines: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Lines [B, H, W] with all that is no brighter than the threshold set to 0."""
    return torch.where(lines > threshold, lines, torch.zeros_like(lines))


def control_hint(lines: Tensor) -> Tensor:
    """What MangaNinja's ControlNet is given: [B, H, W, 3], -1 where nothing is and 1 on a line."""
    return (lines * 2 - 1)[..., None].expand(-1, -1, -1, 3)
