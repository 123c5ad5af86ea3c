"""Tilted ellipses as masks: drawn, laid one over the other, boxed, and counted per token; for T x K of them at once.

``raster`` draws and composites in one pass: in eager torch frame by frame, on CUDA by ``ellipses_triton``. ``backend``
forces one of them. The rest is eager torch.

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

from .noise_warp import Backend, choose_backend

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
    return _distances(coefficients(ellipses, height, width), height, width)


def coefficients(ellipses: Tensor, height: int, width: int) -> Tensor:
    """float32 [..., 6], in pixels: x, y of the middle; cos, sin of the angle over a; cos, sin over b. Not checked.

    They are worked out in float64 where the device has it, so that an angle and its opposite draw the same.
    """
    wide = ellipses if ellipses.device.type == "mps" else ellipses.double()
    x, y, a, b, angle = wide.unbind(-1)
    cos, sin = angle.cos() / height, angle.sin() / height
    return torch.stack((x * width, y * height, cos / a, sin / a, cos / b, sin / b), -1).float()


def _distances(rows: Tensor, height: int, width: int) -> Tensor:
    """See distances; of ``coefficients``. ``ellipses_triton`` rounds in the same places."""
    x, y, cos_a, sin_a, cos_b, sin_b = rows[..., None, None].unbind(-3)
    dx = torch.arange(width, device=rows.device) + 0.5 - x
    dy = (torch.arange(height, device=rows.device)[:, None] + 0.5) - y
    u = dx * cos_a + dy * sin_a
    v = dy * cos_b - dx * sin_b
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


def raster(
    ellipses: Tensor,
    present: Tensor | None,
    height: int,
    width: int,
    kind: str = "hard",
    composited: bool = False,
    dtype: torch.dtype = torch.float32,
    *,
    device: torch.device | str | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Ellipses drawn, and laid over each other if asked, in one pass: ``opacities`` or ``composite`` of ``distances``.

    Args:
        ellipses: [..., K, 5], see the top of this module; K may be 0. Checked where they lie: on a GPU that waits.
        present: bool [..., K]: which are there; the others cover nothing. None = all.
        height, width: of the picture.
        kind: one of KINDS.
        composited: whether the result says how much of a pixel shows each blob, and the background.
        dtype: float32 (computed so), float16, bfloat16, float64, or, of hard ones, bool and uint8 (0 and 1).
        device: where to draw; default: where the ellipses lie.
        backend: "auto", "eager" or "triton".

    Returns:
        [..., K, height, width], or composited [..., K + 1, height, width] with the background first, contiguous.

    Raises:
        ValueError: see check_ellipses; another kind or backend; a picture without pixels; a dtype that cannot hold it.
    """
    check_ellipses(ellipses)
    check_size(height, width)
    if ellipses.ndim < 2:
        raise ValueError(f"ellipses: got shape {list(ellipses.shape)}; expected [..., K, 5].")
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}; expected one of {', '.join(KINDS)}.")
    if not dtype.is_floating_point and (kind != "hard" or dtype not in (torch.bool, torch.uint8)):
        raise ValueError(f"dtype: {dtype} cannot hold {kind} ellipses; expected a floating point one.")
    if present is not None and (present.shape != ellipses.shape[:-1] or present.dtype != torch.bool):
        raise ValueError(
            f"present: got {present.dtype} of shape {list(present.shape)}; expected bool {list(ellipses.shape[:-1])}."
        )
    device = ellipses.device if device is None else torch.device(device)
    *before, count, _ = ellipses.shape
    frames = math.prod(before)
    rows = coefficients(ellipses, height, width).view(frames, count, 6)
    there = torch.ones(frames, count, dtype=torch.bool) if present is None else present.reshape(frames, count)
    result = torch.empty(frames, count + composited, height, width, dtype=dtype, device=device)
    if result.numel() and choose_backend(backend, device) == "triton":
        from .ellipses_triton import draw

        draw(rows, there.to(rows.device), kind, composited, result)
    else:
        for drawn, row, seen in zip(result, rows.to(device), there.to(device), strict=True):
            opacity = opacities(_distances(row, height, width), kind).mul_(seen[:, None, None])
            drawn.copy_(composite(opacity) if composited else opacity)
    return result.view(*before, count + composited, height, width)


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
