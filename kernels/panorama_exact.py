"""Imagine360's own grids between panoramas and perspective views, as its networks were trained on them.

Both ends of every grid are pixels: a panorama's first and last column are the same direction, its first and last row
the poles, and a view's first and last pixels lie on its edges. The vertical field of view is height / width times the
horizontal one as an angle. A view's pixel number is (y + reach) / (2 reach) times its width, not width - 1. Cubic
weights are OpenCV's (a = -3/4), and what is read beyond an edge comes from the opposite one. Written from the method's
description; positions are in float64, and weights are not rounded to OpenCV's 1/32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CUBIC = -0.75


def _reaches(fov: float, height: int, width: int) -> tuple[float, float]:
    """Half the width and half the height of a view at distance 1."""
    vertical = height / width * fov
    if not vertical < 180:
        raise ValueError(
            f"fov: {fov:g} degrees across {width}x{height} pixels are {vertical:g} degrees down in Imagine360's way of "
            "counting; expected less than 180."
        )
    return math.tan(math.radians(fov) / 2), math.tan(math.radians(vertical) / 2)


def draw_views(images: Tensor, matrices: Tensor, fovs: list[float], mode: str, result: Tensor) -> None:
    """See ``panorama_eager.draw_views``.

    Raises:
        ValueError: a view that is 180 degrees high or more.
    """
    positions = None
    for number in range(len(result)):
        if positions is None or len(matrices) > 1:
            turn = min(number, len(matrices) - 1)
            sizes = (*result.shape[2:], *images.shape[2:])
            positions = panorama_positions(matrices[turn], fovs[turn], *sizes, images.device)
        result[number] = read_wrapped(images[min(number, len(images) - 1)][None], positions, mode)[0]


def draw_panoramas(
    images: Tensor, matrices: Tensor, fovs: list[float], mode: str, result: Tensor, seen: Tensor
) -> None:
    """See ``panorama_eager.draw_panoramas``.

    Raises:
        ValueError: a view that is 180 degrees high or more.
    """
    positions = known = None
    for number in range(len(result)):
        if positions is None or len(matrices) > 1:
            turn = min(number, len(matrices) - 1)
            sizes = (*result.shape[2:], *images.shape[2:])
            positions, known = view_positions(matrices[turn], fovs[turn], *sizes, images.device)
        read = read_wrapped(images[min(number, len(images) - 1)][None], positions, mode)
        result[number], seen[number] = torch.where(known, read[0], 0), known


def panorama_positions(
    matrix: Tensor, fov: float, height: int, width: int, rows: int, columns: int, device=None
) -> Tensor:
    """Where each pixel of a view reads a panorama.

    Args:
        matrix: float64 [3, 3], from the camera's directions to the world's, on the CPU.
        fov: horizontal, degrees.
        height, width: of the view.
        rows, columns: of the panorama.
        device: where to compute.

    Returns:
        float64 [2, height, width]: x, 0 to columns - 1, and y, 0 to rows - 1; on the device, where it has float64.

    Raises:
        ValueError: a view that is 180 degrees high or more.
    """
    across, down = _reaches(fov, height, width)
    x, y = _grid((-across, across, width), (down, -down, height), device)
    x, y, z = (a * x + b * y - c for a, b, c in matrix.tolist())
    longitude, latitude = torch.atan2(x, -z) / math.pi, torch.atan2(y, torch.hypot(x, z)) / (math.pi / 2)
    return torch.stack([(longitude + 1) * ((columns - 1) / 2), (1 - latitude) * ((rows - 1) / 2)])


def view_positions(
    matrix: Tensor, fov: float, height: int, width: int, rows: int, columns: int, device=None
) -> tuple[Tensor, Tensor]:
    """Where each texel of a panorama reads a view.

    Args:
        matrix, fov, device: as in ``panorama_positions``.
        height, width: of the panorama.
        rows, columns: of the view.

    Returns:
        float64 [2, height, width], x and y, 0 where the view does not reach; and bool [height, width]: where it does.

    Raises:
        ValueError: a view that is 180 degrees high or more.
    """
    across, down = _reaches(fov, rows, columns)
    longitude, latitude = _grid((-math.pi, math.pi, width), (math.pi / 2, -math.pi / 2, height), device)
    world = (latitude.cos() * longitude.sin(), latitude.sin().expand(-1, width), -latitude.cos() * longitude.cos())
    x, y, z = (sum(part * float(number) for part, number in zip(world, column, strict=True)) for column in matrix.T)
    ahead = z < 0
    depth = torch.where(ahead, -z, 1.0)
    x, y = x / depth, y / depth
    known = ahead & (x.abs() < across) & (y.abs() < down)
    positions = torch.stack([(x + across) / (2 * across) * columns, (down - y) / (2 * down) * rows])
    return torch.where(known, positions, 0.0), known.to(device)


def read_wrapped(images: Tensor, positions: Tensor, mode: str) -> Tensor:
    """Images [B, C, H, W] at positions [2, h, w] in pixels, where both axes wrap: [B, C, h, w] of the images' dtype.

    Args:
        images: floating.
        positions: float64.
        mode: "nearest" (halves go to the even neighbour), "bilinear" or "bicubic" (a = -3/4).
    """
    height, width = images.shape[2:]
    x, y = positions.flatten(1)
    columns, rows = _taps(x, width, mode, images.device), _taps(y, height, mode, images.device)
    flat = images.flatten(2)
    total = None
    for row, row_weight in rows:
        for column, column_weight in columns:
            value = flat[:, :, row * width + column]
            if mode != "nearest":
                value = value.float() * (row_weight * column_weight)
            total = value if total is None else total + value
    return total.to(images.dtype).unflatten(2, positions.shape[1:])


def _grid(across: tuple[float, float, int], down: tuple[float, float, int], device) -> tuple[Tensor, Tensor]:
    """float64 [1, w] and [h, 1], both ends included, on the device unless it lacks float64."""
    device = "cpu" if device is None or torch.device(device).type == "mps" else device
    x, y = (torch.linspace(*ends, dtype=torch.float64, device=device) for ends in (across, down))
    return x[None], y[:, None]


def _taps(position: Tensor, size: int, mode: str, device) -> list[tuple[Tensor, Tensor | None]]:
    """(index int64, weight float32 or None) of each pixel of an axis that takes part."""
    if mode == "nearest":
        return [(position.round().long().remainder(size).to(device), None)]
    first = position.floor()
    t = position - first
    offsets, weights = ((0, 1), (1 - t, t)) if mode == "bilinear" else ((-1, 0, 1, 2), _cubic(t))
    return [
        ((first.long() + offset).remainder(size).to(device), weight.float().to(device))
        for offset, weight in zip(offsets, weights, strict=True)
    ]


def _cubic(t: Tensor) -> tuple[Tensor, ...]:
    """Keys' weights of the four neighbours."""
    a, u = _CUBIC, 1 - t
    return (
        a * t * u * u,
        ((a + 2) * t - (a + 3)) * t * t + 1,
        ((a + 2) * u - (a + 3)) * u * u + 1,
        a * u * t * t,
    )
