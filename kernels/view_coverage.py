"""Rings of square views that look at a whole sphere, and whether they see all of it.

Cameras are as in kernels/panorama.py: yaw to the right, then pitch upwards, degrees; the field of view is that of the
width, and views are as high as wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .panorama import CONVENTIONS, perspective_to_equirect

NARROWEST, WIDEST = 20.0, 150.0
"""Degrees a view can be wide: below, hundreds of them would be needed; above, its edges are stretched beyond use."""

MOST_VIEWS = 512
_ROWS, _COLUMNS = 360, 720
"""Directions that are looked at, half a degree apart."""

_GRID = (64, 128)
"""Rows and columns of directions, where each camera has a field of view of its own."""


def rings(count: int, fov: float, overlap: float, pitches: tuple[float, ...] = ()) -> tuple[Tensor, Tensor]:
    """Where the views of one ring, or of several above each other, look.

    Args:
        count: views in every ring, evenly round; 0 = as many in each as ``overlap`` asks for, fewer near the poles.
        fov: degrees, NARROWEST to WIDEST.
        overlap: 0 to 0.9, the share of a view that the next one sees, too; for what is left to it.
        pitches: of the rings, -90 to 90 degrees; none = as many as ``overlap`` asks for, evenly from -90 to 90
            degrees and half of what they are apart away from both.

    Returns:
        yaw and pitch, float32 [V] each, ring by ring in the order of the pitches, otherwise from the top down. Every
        second ring is turned by half a step. A ring at a pole, left to the overlap, is one view.

    Raises:
        ValueError: a value out of its range, or more than MOST_VIEWS views.
    """
    if not NARROWEST <= fov <= WIDEST:
        raise ValueError(f"fov: got {fov:g} degrees; expected {NARROWEST:g} to {WIDEST:g}")
    if not 0 <= overlap <= 0.9:
        raise ValueError(f"overlap: got {overlap:g}; expected 0 to 0.9")
    if not 0 <= count <= MOST_VIEWS:
        raise ValueError(f"count: got {count}; expected 0 to {MOST_VIEWS} views in a ring")
    for pitch in pitches:
        if not -90 <= pitch <= 90:
            raise ValueError(f"pitches: got {pitch:g} degrees; expected -90 (down) to 90 (up)")
    apart = fov * (1 - overlap)
    if not pitches:
        number = math.ceil(180 / apart - 1e-9)
        pitches = tuple(90 - (row + 0.5) * 180 / number for row in range(number))
    yaws, found = [], []
    for row, pitch in enumerate(pitches):
        views = count
        if views == 0:
            # Of a ring the circle through its views' middles is long, or the one nearer to the equator where half of
            # the next row's distance is; meridians come together towards the poles.
            nearest = max(0.0, abs(pitch) - apart / 2)
            views = max(1, math.ceil(360 * math.cos(math.radians(nearest)) / apart - 1e-9)) if abs(pitch) < 90 else 1
        start = -180 / views if row % 2 else 0.0
        for view in range(views):
            yaws.append((start + view * 360 / views + 180) % 360 - 180)
            found.append(pitch)
    if len(found) > MOST_VIEWS:
        raise ValueError(f"{len(found)} views; expected at most {MOST_VIEWS}. Less overlap or a wider view needs fewer")
    return torch.tensor(yaws, dtype=torch.float32), torch.tensor(found, dtype=torch.float32)


def uncovered(yaw: Tensor, pitch: Tensor, fov: float) -> list[tuple[float, float]]:
    """Latitudes that square views do not see all the way round.

    Args:
        yaw, pitch: [V] each, degrees.
        fov: degrees, above 0 and below 180.

    Returns:
        Bands (lowest, highest) in degrees from the south to the north, each with a direction that no view sees; []
        where every direction, half a degree apart, is seen.
    """
    latitude = torch.deg2rad((torch.arange(_ROWS) + 0.5) * 180 / _ROWS - 90)
    longitude = torch.deg2rad((torch.arange(_COLUMNS) + 0.5) * 360 / _COLUMNS)
    up, level = latitude.sin()[:, None], latitude.cos()[:, None]
    edge, seen = math.tan(math.radians(fov) / 2), torch.zeros(_ROWS, _COLUMNS, dtype=torch.bool)
    for turn, tilt in zip(torch.deg2rad(yaw).tolist(), torch.deg2rad(pitch).tolist(), strict=True):
        across, ahead = level * (longitude - turn).sin(), level * (longitude - turn).cos()
        depth = ahead * math.cos(tilt) + up * math.sin(tilt)
        height = up * math.cos(tilt) - ahead * math.sin(tilt)
        reach = depth * edge * (1 + 1e-6)
        seen |= (depth > 0) & (across.abs() <= reach) & (height.abs() <= reach)
    bands, step = [], 180 / _ROWS
    for row in (~seen.all(1)).nonzero()[:, 0].tolist():
        low, high = row * step - 90, (row + 1) * step - 90
        if bands and bands[-1][1] == low:
            bands[-1] = (bands[-1][0], high)
        else:
            bands.append((low, high))
    return bands


def check_coverage(yaw: Tensor, pitch: Tensor, fov: float) -> None:
    """Raises ValueError naming the latitudes that square views do not see all the way round."""
    bands = uncovered(yaw, pitch, fov)
    if bands:
        told = ", ".join(f"{low:g} to {high:g}" for low, high in bands)
        raise ValueError(
            f"{len(yaw)} views of {fov:g} degrees do not see the whole sphere: something at latitudes {told} degrees "
            "is in no view. Use more views, a wider fov, more overlap or other pitches"
        )


def seen_of_sphere(cameras: Sequence[tuple[float, float, float]]) -> float:
    """The part of all directions that cameras see together on Imagine360's grids, 0..1.

    Args:
        cameras: yaw, pitch and field of view of each, degrees; their pictures are square.
    """
    yaw, pitch, fov = torch.tensor(cameras, dtype=torch.float64).unbind(1)
    picture = torch.ones(1, 1, 2, 2)
    _, known = perspective_to_equirect(
        picture, yaw, pitch, torch.zeros_like(yaw), fov, *_GRID, mode="nearest", convention=CONVENTIONS[1]
    )
    latitude = torch.linspace(torch.pi / 2, -torch.pi / 2, _GRID[0])[:, None]
    weight = latitude.cos().clamp_min(1e-6).expand(_GRID)
    return float((known.amax(0) * weight).sum() / weight.sum())
