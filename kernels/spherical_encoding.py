"""Sines and cosines of longitude and latitude, by which Imagine360's exchange blocks know where tokens look.

The frequencies of the narrowest blocks reach 2^79, so that what comes of them depends on how angles were rounded:
``dtype`` is the arithmetic of every step. The published weights were trained and used with bfloat16. Directions here
are (ahead, right, up), in the order in which the method adds them up, which bfloat16 shows too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .exchange_masks import Camera, Size, check_cameras

_WIDEST_OCTAVES = 80


def half_extents(fov: float, size: Size) -> tuple[float, float]:
    """How far a view reaches to the right and up at distance 1; its vertical field of view is linear in the angle."""
    height, width = size
    return math.tan(math.radians(fov) / 2), math.tan(math.radians(fov * height / width) / 2)


def camera_matrix(yaw: float, pitch: float) -> Tensor:
    """float32 [3, 3]: what the camera calls (ahead, right, up) -> what the panorama calls so."""
    a, b = math.radians(yaw), math.radians(pitch)
    turn = torch.tensor([[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0], [0.0, 0.0, 1.0]])
    lift = torch.tensor([[math.cos(b), 0.0, -math.sin(b)], [0.0, 1.0, 0.0], [math.sin(b), 0.0, math.cos(b)]])
    return turn @ lift


def frequency_bands(count: int) -> Tensor:
    """float32 [count]: the powers of 2 from 1 up; with more than 80 of them, powers of a base that grows slower."""
    base = 2.0 if count <= _WIDEST_OCTAVES else 5000.0 ** (2.5 / count)
    return torch.tensor([base**power for power in range(count)], dtype=torch.float32)


def panorama_angles(size: Size, dtype: torch.dtype = torch.float32) -> Tensor:
    """[H * W, 2]: longitude and latitude of a panorama's tokens, radians; both ends are included, up is positive.

    Args:
        size: (height, width), tokens.
        dtype: of every step.
    """
    height, width = size
    longitude = _evenly(-math.pi, math.pi, width, dtype).expand(height, width)
    latitude = _evenly(math.pi / 2, -math.pi / 2, height, dtype)[:, None].expand(height, width)
    return torch.stack([longitude, latitude], -1).flatten(0, 1)


def view_angles(cameras: Sequence[Camera], size: Size, dtype: torch.dtype = torch.float32) -> Tensor:
    """[V * h * w, 2]: longitude and latitude of the tokens of views, radians.

    Other than in ``panorama_angles`` down is positive: the published network was trained so.

    Args:
        cameras: (yaw, pitch, fov) of each view, degrees.
        size: (height, width) of a view, tokens.
        dtype: of every step.

    Raises:
        ValueError: see exchange_masks.check_cameras.
    """
    check_cameras(cameras)
    height, width = size
    angles = []
    for yaw, pitch, fov in cameras:
        right, up = half_extents(fov, size)
        y = _evenly(-right, right, width, dtype).expand(height, width)
        z = -_evenly(-up, up, height, dtype)[:, None].expand(height, width)
        x = torch.ones_like(y)
        rays = torch.stack([x, y, z], -1) / (x * x + y * y + z * z).sqrt()[..., None]
        ahead, right_of, above = (rays @ camera_matrix(yaw, pitch).T.to(dtype)).unbind(-1)
        angles.append(torch.stack([torch.atan2(right_of, ahead), -torch.asin(above.clamp(-1, 1))], -1).flatten(0, 1))
    return torch.cat(angles)


def spherical_encoding(angles: Tensor, bands: Tensor) -> Tensor:
    """The encoding of directions.

    Args:
        angles: [N, 2], longitude and latitude, radians; computed in its dtype.
        bands: [K], see frequency_bands.

    Returns:
        [N, 4 K]: sines of all multiples of the longitude, those of the latitude, then the cosines of both.
    """
    turns = angles[:, :, None] * bands.to(angles)
    return torch.cat([turns.sin(), turns.cos()], 1).flatten(1)


def _evenly(first: float, last: float, count: int, dtype: torch.dtype) -> Tensor:
    """[count] numbers, each reached from its nearer end, as PyTorch does on a GPU: in bfloat16 that shows."""
    start, stop = torch.tensor(first, dtype=dtype), torch.tensor(last, dtype=dtype)
    if count == 1:
        return start[None]
    step = (stop - start) / torch.tensor(count - 1, dtype=dtype)
    place = torch.arange(count)
    near, far = place.to(dtype), (count - 1 - place).to(dtype)
    return torch.where(place < count // 2, start + step * near, stop - step * far)
