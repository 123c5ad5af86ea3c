"""Tilted ellipses as masks: drawn, laid one over the other, boxed, and counted per token; for T x K of them at once.

An ellipse is five numbers: x / W, y / H, half axes a and b in units of H, and the angle of a in radians from the x
axis, clockwise on the screen (y points down). It is turned in pixels, so on a picture that is not square it keeps its
shape; W and H are only the picture's.

    u = (dx cos t + dy sin t) / a,  v = (-dx sin t + dy cos t) / b,  q = u^2 + v^2

with dx, dy from the middle to the middle of a pixel; q <= 1 inside. No matrix is inverted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

KINDS = ("hard", "soft", "opacity")


def check_ellipses(ellipses: Tensor, name: str = "ellipses") -> None:
    """Raises ValueError unless ``ellipses`` is a finite floating [..., 5] with half axes above 0."""
    if ellipses.ndim < 1 or ellipses.shape[-1] != 5 or not ellipses.is_floating_point():
        raise ValueError(
            f"{name}: got {ellipses.dtype} of shape {list(ellipses.shape)}; expected a floating point [..., 5]: x, y, "
            "a, b, angle."
        )
    if not bool(ellipses.isfinite().all()):
        raise ValueError(f"{name}: holds NaN or infinite numbers.")
    if ellipses.numel() and float(ellipses[..., 2:4].min()) <= 0:
        raise ValueError(
            f"{name}: the shortest half axis is {float(ellipses[..., 2:4].min()):g}; expected more than 0."
        )


def check_size(height: int, width: int) -> None:
    """Raises ValueError unless a picture has at least one pixel."""
    if min(height, width) < 1:
        raise ValueError(f"ellipses: the picture is {width}x{height} pixels; expected at least 1x1.")


def distances(ellipses: Tensor, height: int, width: int) -> Tensor:
    """q of every pixel's middle: 0 in the middle of an ellipse, 1 on it.

    Args:
        ellipses: [..., 5], see the top of this module.
        height, width: of the picture.

    Returns:
        float32 [..., height, width], on the device of ``ellipses``.

    Raises:
        ValueError: see check_ellipses; a picture without pixels.
    """
    check_ellipses(ellipses)
    check_size(height, width)
    x, y, a, b, angle = ellipses.float()[..., None, None].unbind(-3)
    dx = torch.arange(width, device=ellipses.device) + 0.5 - x * width
    dy = (torch.arange(height, device=ellipses.device)[:, None] + 0.5) - y * height
    cos, sin = angle.cos(), angle.sin()
    u = (dx * cos + dy * sin) / (a * height)
    v = (dy * cos - dx * sin) / (b * height)
    return u * u + v * v


def opacities(q: Tensor, kind: str) -> Tensor:
    """How much of a pixel an ellipse covers, float32 in 0..1, of its q.

    hard: 1 where q <= 1, else 0. soft: 1 well inside, 1/2 on the ellipse, sigmoid(8 (1 - q)) (BlobGAN's sigmoid of a
    size less q, steep). opacity: BlobCtrl's min(1, 2 sigmoid(-q)), 1 in the middle and 0.54 on the ellipse.

    Raises:
        ValueError: another kind.
    """
    if kind == "hard":
        return (q <= 1).float()
    if kind == "soft":
        return torch.sigmoid(8.0 * (1.0 - q))
    if kind == "opacity":
        return (2.0 * torch.sigmoid(-q)).clamp(max=1.0)
    raise ValueError(f"kind: got {kind!r}; expected one of {', '.join(KINDS)}.")


def composite(opacity: Tensor) -> Tensor:
    """How much of each pixel shows each blob, the last one on top, and the background: w_k = o_k prod_{j>k} (1 - o_j).

    Args:
        opacity: float [..., K, H, W], 0..1, from the bottom to the top; K may be 0.

    Returns:
        [..., K + 1, H, W] of the same dtype: the background first, then the blobs; of every pixel they add up to 1.
    """
    everything = opacity.new_ones(*opacity.shape[:-3], 1, *opacity.shape[-2:])
    # From the top down: what is left after the blobs above.
    left = torch.cat((everything, (1 - opacity).flip(-3)), -3).cumprod(-3).flip(-3)
    return torch.cat((left[..., :1, :, :], left[..., 1:, :, :] * opacity), -3)


def boxes(ellipses: Tensor, height: int, width: int) -> Tensor:
    """The tight upright box of each ellipse.

    Half its width is sqrt(a^2 cos^2 + b^2 sin^2), half its height sqrt(a^2 sin^2 + b^2 cos^2).

    Args:
        ellipses: [..., 5].
        height, width: of the picture; boxes are not cut at its borders.

    Returns:
        [..., 4] of the same dtype: left / width, top / height, right / width, bottom / height.

    Raises:
        ValueError: see check_ellipses.
    """
    check_ellipses(ellipses)
    check_size(height, width)
    x, y, a, b, angle = ellipses.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    across = torch.hypot(a * cos, b * sin) * (height / width)
    down = torch.hypot(a * sin, b * cos)
    return torch.stack((x - across, y - down, x + across, y + down), -1)


FINENESS = 8
"""Points across and down a token by which its covered share is counted."""


def token_masks(ellipses: Tensor, present: Tensor, height: int, width: int, aspect: float | None = None) -> Tensor:
    """Which tokens of a small grid belong to each ellipse: those of which more than half is covered.

    Of an ellipse that covers more than half of no token, the token that it covers most, so that thin ones do not
    vanish; of one outside the picture, none.

    Args:
        ellipses: [..., K, 5].
        present: bool [..., K]; the others belong to no token.
        height, width: of the grid of tokens.
        aspect: width of the picture by its height, where the tokens are not square; None = they are.

    Returns:
        bool [..., K, height, width].

    Raises:
        ValueError: see check_ellipses.
    """
    check_ellipses(ellipses)
    check_size(height, width)
    if aspect is not None:  # x and y are fractions of the picture, lengths are in its heights
        ellipses = _squeezed(ellipses, height, width, aspect)
    inside = distances(ellipses, height * FINENESS, width * FINENESS) <= 1
    share = inside.unflatten(-1, (width, FINENESS)).unflatten(-3, (height, FINENESS)).float().mean((-3, -1))
    most = share.amax((-2, -1), keepdim=True)
    found = torch.where(most > 0.5, share > 0.5, (share == most) & (most > 0))
    return found & present[..., None, None]


def _squeezed(ellipses: Tensor, height: int, width: int, aspect: float) -> Tensor:
    """Ellipses as they look on a grid whose tokens stand for pieces of the picture that are not square.

    A circle of the picture is an ellipse there: the quadratic form is stretched along x and taken apart again.
    """
    stretch = width / height / aspect
    if math.isclose(stretch, 1.0, rel_tol=1e-6):
        return ellipses
    x, y, a, b, angle = ellipses.double().unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    xx = stretch * stretch * ((a * cos).square() + (b * sin).square())
    yy = (a * sin).square() + (b * cos).square()
    xy = stretch * (a * a - b * b) * cos * sin
    middle, spread = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
    longer, shorter = (middle + spread).sqrt(), (middle - spread).clamp_min(1e-18).sqrt()
    return torch.stack((x, y, longer, shorter, torch.atan2(2 * xy, xx - yy) / 2), -1).to(ellipses.dtype)
