"""The motion of cut-out parts of a picture: the JSON that the Cut and Drag editor writes, and where it moves things.

Version 1, coordinates in fractions of the picture (x of its width, y of its height, (0, 0) = its top left corner)::

    {"version": 1,
     "objects": [                                          back to front
       {"id": "a1", "name": "rabbit",
        "polygon": [[x, y], ...],                          3 to 2000 points
        "pivot": [x, y],                                   default: the polygon's middle
        "keys": [{"frame": 0, "x": 0, "y": 0, "angle": 0, "scale": 1, "way": "linear"}, ...]}]}

x and y move the pivot; angle is in degrees, clockwise on the screen; scale is relative and the same in both directions.
Between keys x, y and angle travel evenly and scale by equal ratios, in the time that the key's way bends as in
``kernels/schedule.py``. Before the first and after the last key the object rests there; without keys it rests in place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .editor_json import (
    article,
    between_keys,
    read_frame,
    read_keys,
    read_list,
    read_number,
    read_text,
    read_way,
    short,
)

VERSION = 1
MOST_OBJECTS = 100
MOST_POINTS = 2000

_ID = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_LONGEST_NAME = 80
# Ranges of a key's numbers: low, high, default.
_RANGES = {"x": (-100, 100, 0.0), "y": (-100, 100, 0.0), "angle": (-36000, 36000, 0.0), "scale": (0.001, 1000, 1.0)}
_POINT_RANGE = (-1, 2)
_PIVOT_RANGE = (-10, 10)
_NO_AREA = 1e-9


@dataclass(frozen=True)
class MotionKey:
    """Where an object is at a frame: x, y (fractions of the picture), angle (degrees), scale; way: how it got there."""

    frame: int
    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0
    scale: float = 1.0
    way: str = "linear"


@dataclass(frozen=True)
class MotionObject:
    """One part of the picture: its outline and pivot in fractions of the picture, and its keys."""

    id: str
    polygon: tuple[tuple[float, float], ...]
    pivot: tuple[float, float]
    keys: tuple[MotionKey, ...] = ()
    name: str = ""

    def places(self, frames: int) -> Tensor:
        """float64 [frames, 4]: x, y (fractions), angle (degrees), scale at every frame."""
        if not self.keys:
            return torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64).expand(frames, 4).clone()
        values = torch.tensor([[key.x, key.y, key.angle, key.scale] for key in self.keys], dtype=torch.float64)
        before, after, part = between_keys(self.keys, frames)
        start, end, part = values[before], values[after], part[:, None]
        result = start + (end - start) * part
        result[:, 3:] = start[:, 3:] * (end[:, 3:] / start[:, 3:]) ** part
        return result


@dataclass(frozen=True)
class Motion:
    """What moves, back to front."""

    objects: tuple[MotionObject, ...] = ()


def parse_motion(text: str, frames: int, name: str = "motion") -> Motion:
    """Read the editor's JSON.

    Args:
        text: version 1 of the JSON at the top of this module; empty = nothing moves. Fields it does not know are
            ignored.
        frames: length of the clip; keys must lie in frames 0..frames - 1.
        name: how the messages call it, usually the input's name.

    Returns:
        The motion.

    Raises:
        ValueError: names the object and the key, what came and what was expected.
    """
    content = read_text(text, name, "Cut and Drag", "a motion", VERSION, f'{{"version": {VERSION}, "objects": [...]}}')
    if content is None:
        return Motion()
    objects = read_list(content, "objects", name)
    if len(objects) > MOST_OBJECTS:
        raise ValueError(f"{name}: there are {len(objects)} objects; at most {MOST_OBJECTS} can be moved.")
    parsed, seen = [], {}
    for number, entry in enumerate(objects, start=1):
        moved = _object(entry, number, frames, name)
        if moved.id in seen:
            raise ValueError(
                f'{name}: objects {seen[moved.id]} and {number} have the same id "{moved.id}"; ids must differ.'
            )
        seen[moved.id] = number
        parsed.append(moved)
    return Motion(tuple(parsed))


def middle(polygon: tuple[tuple[float, float], ...]) -> tuple[float, float]:
    """The centroid of a polygon's area; where that is not defined or not inside the points' box, their mean."""
    x0, y0 = polygon[0]
    twice, sum_x, sum_y = 0.0, 0.0, 0.0
    for (ax, ay), (bx, by) in pairwise([*polygon, polygon[0]]):
        ax, ay, bx, by = ax - x0, ay - y0, bx - x0, by - y0
        cross = ax * by - bx * ay
        twice += cross
        sum_x += (ax + bx) * cross
        sum_y += (ay + by) * cross
    columns, rows = zip(*polygon, strict=True)
    if abs(twice / 2) >= _NO_AREA:
        x, y = x0 + sum_x / (3 * twice), y0 + sum_y / (3 * twice)
        if min(columns) <= x <= max(columns) and min(rows) <= y <= max(rows):
            return x, y
    return sum(columns) / len(polygon), sum(rows) / len(polygon)


def _object(entry: object, number: int, frames: int, name: str) -> MotionObject:
    where = f"{name}: object {number}"
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {article(entry)}; expected an object with id, polygon and keys.")
    title = entry.get("name")
    title = "" if title is None else title
    if not isinstance(title, str) or len(title) > _LONGEST_NAME:
        came = f"{len(title)} characters long" if isinstance(title, str) else article(title)
        raise ValueError(f'{where}: "name" is {came}; expected a text of up to {_LONGEST_NAME} characters.')
    identity = entry.get("id")
    if not isinstance(identity, str) or not _ID.fullmatch(identity):
        raise ValueError(
            f'{where}: "id" is {short(identity)}; expected 1 to 40 letters, digits, underscores or hyphens.'
        )
    shown = title if title.isprintable() and title.strip() else identity
    where = f'{where} ("{shown}")'
    points = entry.get("polygon")
    if not isinstance(points, list):
        raise ValueError(f'{where}: "polygon" is {article(points)}; expected a list of points [x, y].')
    if not 3 <= len(points) <= MOST_POINTS:
        count = f"{len(points)} point{'' if len(points) == 1 else 's'}"
        raise ValueError(f"{where}: its polygon has {count}; expected 3 to {MOST_POINTS}.")
    polygon = tuple(
        _point(point, f"{where}: point {index} of its polygon", _POINT_RANGE)
        for index, point in enumerate(points, start=1)
    )
    pivot = entry.get("pivot")
    pivot = middle(polygon) if pivot is None else _point(pivot, f"{where}: its pivot", _PIVOT_RANGE)
    keys = read_keys(entry, where, lambda key, place: _key(key, place, frames))
    return MotionObject(identity, polygon, pivot, keys, title)


def _key(key: object, where: str, frames: int) -> MotionKey:
    if not isinstance(key, dict):
        raise ValueError(f"{where} is {article(key)}; expected an object with frame, x, y, angle, scale and way.")
    frame = read_frame(key, where, frames)
    numbers = {
        field: read_number(key.get(field, default), f'{where}: "{field}"', low, high)
        for field, (low, high, default) in _RANGES.items()
    }
    return MotionKey(frame, **numbers, way=read_way(key, where))


def _point(point: object, where: str, bounds: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2:
        raise ValueError(f"{where} is {short(point)}; expected [x, y].")
    x, y = (read_number(value, f"{where}: {axis}", *bounds) for axis, value in zip("xy", point, strict=True))
    return x, y
