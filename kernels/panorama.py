"""Panoramas and perspective views: each made from the other, and panoramas turned.

Directions, panoramas and their texels are those of ``equirectangular``: x right, y up, z to the viewer; the middle of a
panorama is straight ahead, -z. A camera has a yaw (degrees, above 0 it looks to the right), then a pitch (above 0 it
looks up), then a roll (above 0 it turns clockwise, seen from behind it, so that its picture turns anticlockwise), and
a horizontal field of view in degrees.

Two conventions say where the pixels of a picture lie:

- ``pixel centres``: a pixel is an area and its number that of its middle; square pixels, seen through a pinhole.
  Panoramas are read round their edges and over their poles.
- ``Imagine360 exact``: the grids of Imagine360's published warps, see ``panorama_exact``; for its networks, which were
  trained on them.

The reference is eager torch: ``panorama_eager`` and ``panorama_exact``. Bilinear pixel centres are faster through
``panorama_triton`` on CUDA and ``panorama_blocks`` on a CPU. ``backend`` forces "eager" or "triton".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import panorama_blocks, panorama_eager, panorama_exact
from .noise_warp import triton_is_available
from .panorama_eager import camera_directions as camera_directions

CONVENTIONS = ("pixel centres", "Imagine360 exact")
MODES = ("bilinear", "nearest", "bicubic")
_FUSED = (torch.float32, torch.float16, torch.bfloat16)

# Schedules are float32: turns this close (texels) to whole ones were meant to be whole.
_WHOLE = 1e-3


def camera_rotations(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Matrices from a camera's directions to the world's: yaw about y, after pitch about x, after roll about z.

    Args:
        yaw, pitch, roll: [T] each, degrees.

    Returns:
        float64 [T, 3, 3] on the CPU; exact at quarter turns, the same for whole turns more.

    Raises:
        ValueError: other shapes, different lengths, or values that are not finite.
    """
    shapes = [list(angle.shape) for angle in (yaw, pitch, roll)]
    if yaw.ndim != 1 or len(yaw) < 1 or shapes[0] != shapes[1] or shapes[0] != shapes[2]:
        raise ValueError(f"yaw, pitch and roll: got {shapes}; expected a value of each for every frame.")
    angles = torch.stack([yaw, pitch, roll]).detach().cpu().double()
    if not bool(angles.isfinite().all()):
        raise ValueError(f"yaw, pitch and roll: got {angles[~angles.isfinite()][0]:g}; expected degrees.")
    (cy, cp, cr), (sy, sp, sr) = _cos_and_sin(angles)
    entries = [
        cy * cr + sy * sp * sr, cy * sr - sy * sp * cr, -sy * cp,
        -cp * sr, cp * cr, -sp,
        sy * cr - cy * sp * sr, sy * sr + cy * sp * cr, cy * cp,
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def _cos_and_sin(degrees: Tensor) -> tuple[Tensor, Tensor]:
    """``affine.cos_and_sin`` of many: exact at quarter turns."""
    quarters = (degrees / 90).floor()
    rest = (degrees - 90 * quarters) * (math.pi / 180)
    cos, sin = rest.cos(), rest.sin()
    odd, half = quarters.remainder(2) == 1, torch.where(quarters.remainder(4) >= 2, -1.0, 1.0)
    return torch.where(odd, -sin, cos) * half, torch.where(odd, cos, sin) * half


def equirect_to_perspective(
    images: Tensor,
    yaw: Tensor,
    pitch: Tensor,
    roll: Tensor,
    fov: Tensor,
    height: int,
    width: int,
    *,
    mode: str = "bilinear",
    convention: str = CONVENTIONS[0],
    backend: str | None = None,
) -> Tensor:
    """What cameras in the middle of panoramas see.

    Args:
        images: float [B, C, H, W], panoramas.
        yaw, pitch, roll, fov: [T] each, degrees; 0 < fov < 180. T = B, or one of them is 1 and goes with all.
        height, width: of the views, pixels.
        mode: "bilinear", "nearest", or "bicubic" (Keys 1981, a = -1/2; exact: OpenCV's a = -3/4).
        convention: one of ``CONVENTIONS``.
        backend: None chooses; "eager" or "triton" force it.

    Returns:
        [max(B, T), C, height, width] of the images' dtype, on their device.

    Raises:
        ValueError: shapes or numbers that do not fit, a field of view out of range, an unknown choice.
    """
    matrices, fovs = _cameras(yaw, pitch, roll, fov)
    count = _check(images, len(matrices), height, width, mode, convention)
    result = _room(images, count, height, width)
    way = _way(backend, images, images.shape[3], mode, convention)
    way.draw_views(images, matrices, fovs, mode, result)
    return result


def perspective_to_equirect(
    images: Tensor,
    yaw: Tensor,
    pitch: Tensor,
    roll: Tensor,
    fov: Tensor,
    height: int,
    width: int,
    *,
    mode: str = "bilinear",
    convention: str = CONVENTIONS[0],
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Pictures of cameras laid into panoramas.

    Args:
        images: float [B, C, h, w], what the cameras saw.
        yaw, pitch, roll, fov: [T] each, degrees; 0 < fov < 180. T = B, or one of them is 1 and goes with all.
        height, width: of the panoramas, pixels.
        mode, convention, backend: as in ``equirect_to_perspective``.

    Returns:
        The panoramas [max(B, T), C, height, width] of the images' dtype, 0 where the camera did not look, and float32
        [max(B, T), height, width], 1 where it did.

    Raises:
        ValueError: as in ``equirect_to_perspective``.
    """
    matrices, fovs = _cameras(yaw, pitch, roll, fov)
    count = _check(images, len(matrices), height, width, mode, convention)
    result = _room(images, count, height, width)
    seen = torch.empty(count, height, width, dtype=torch.float32, device=images.device)
    _way(backend, images, width, mode, convention).draw_panoramas(images, matrices, fovs, mode, result, seen)
    return result, seen


def rotate_panorama(
    images: Tensor, yaw: Tensor, pitch: Tensor, roll: Tensor, *, mode: str = "bilinear", backend: str | None = None
) -> Tensor:
    """Panoramas as cameras see them that are turned: what a camera looks at comes to the middle.

    A yaw by whole texels alone moves the columns bit for bit.

    Args:
        images: float [B, C, H, W].
        yaw, pitch, roll: [T] each, degrees. T = B, or one of them is 1 and goes with all.
        mode, backend: as in ``equirect_to_perspective``.

    Returns:
        [max(B, T), C, H, W] of the images' dtype.

    Raises:
        ValueError: shapes or numbers that do not fit, an unknown choice.
    """
    matrices = camera_rotations(yaw, pitch, roll)
    height, width = images.shape[-2:]
    count = _check(images, len(matrices), height, width, mode, CONVENTIONS[0])
    result = _room(images, count, height, width)
    way = _way(backend, images, width, mode, CONVENTIONS[0])
    texels = (yaw.double() * (width / 360)).tolist()
    level = ((pitch == 0) & (roll == 0)).tolist()
    whole = [flat and abs(moved - round(moved)) < _WHOLE for flat, moved in zip(level, texels, strict=True)]
    if not any(whole):
        way.draw_views(images, matrices, None, mode, result)
        return result
    for number in range(count):
        turn = min(number, len(matrices) - 1)
        one = images[min(number, len(images) - 1)][None]
        if whole[turn]:
            result[number] = one[0].roll(-round(texels[turn]), dims=-1)
        else:
            way.draw_views(one, matrices[turn][None], None, mode, result[number][None])
    return result


def _cameras(yaw: Tensor, pitch: Tensor, roll: Tensor, fov: Tensor) -> tuple[Tensor, list[float]]:
    matrices = camera_rotations(yaw, pitch, roll)
    if list(fov.shape) != [len(matrices)]:
        raise ValueError(f"fov: got {list(fov.shape)}; expected a value for each of {len(matrices)} frames.")
    fovs = fov.tolist()
    for angle in fovs:
        if not 0 < angle < 180:
            raise ValueError(f"fov: got {angle:g} degrees; expected more than 0 and less than 180.")
    return matrices, fovs


def _check(images: Tensor, turns: int, height: int, width: int, mode: str, convention: str) -> int:
    """How many pictures there will be."""
    if images.ndim != 4 or not images.is_floating_point() or 0 in images.shape:
        raise ValueError(
            f"images: got {images.dtype} {list(images.shape)}; expected floating [batch, channels, height, width]."
        )
    if len(images) != turns and 1 not in (len(images), turns):
        raise ValueError(f"images: got {len(images)} for {turns} cameras; expected as many, or one of either.")
    if min(height, width) < 1:
        raise ValueError(f"height and width: got {height} and {width}; expected at least 1.")
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}; expected one of {', '.join(MODES)}.")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: got {convention!r}; expected one of {', '.join(CONVENTIONS)}.")
    return max(len(images), turns)


def _room(images: Tensor, count: int, height: int, width: int) -> Tensor:
    """An empty [count, C, height, width], with the channels of a pixel side by side where the images' are."""
    channels = images.shape[1]
    if channels > 1 and images.stride(1) == 1:
        return images.new_empty(count, height, width, channels).movedim(-1, 1)
    return images.new_empty(count, channels, height, width)


def _way(backend: str | None, images: Tensor, columns: int, mode: str, convention: str):
    """The module that draws.

    Args:
        columns: of the panoramas.
    """
    if backend not in (None, "eager", "triton"):
        raise ValueError(f"backend: got {backend!r}; expected None, eager or triton.")
    device = images.device.type
    simple = mode == "bilinear" and convention == CONVENTIONS[0] and columns % 2 == 0
    simple = simple and not (images.requires_grad and torch.is_grad_enabled())
    fused = simple and images.dtype in _FUSED and _extent(images) < 1 << 31  # its offsets are int32
    if backend == "triton" and not (fused and triton_is_available()):
        raise ValueError(
            "backend: triton draws bilinear panoramas of an even width in pixel centres, up to float32, without "
            f"gradients, where Triton can be imported; got {mode}, {columns} columns, {convention}, {images.dtype}."
        )
    if backend == "triton" or (backend is None and fused and device == "cuda" and triton_is_available()):
        from . import panorama_triton

        return panorama_triton
    if convention == CONVENTIONS[1]:
        return panorama_exact
    if backend is None and simple and device == "cpu" and images.dtype == torch.float32:
        return panorama_blocks
    return panorama_eager


def _extent(images: Tensor) -> int:
    """How far from a picture's first value its last one lies."""
    return sum((size - 1) * step for size, step in zip(images.shape[1:], images.stride()[1:], strict=True))
