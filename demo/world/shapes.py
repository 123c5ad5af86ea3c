"""Signed distances of the ten bodies, and where a face or an accessory sits on each.

Coordinates are the character's own: u to the right, v down, the body within about -1..1 in both. Distances are in the
same units, negative inside. They are exact or slightly too small, never too large, which is all that outlines need.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.world.attributes import SHAPES


@dataclass(frozen=True)
class Anchors:
    """Where things sit on a body, in character coordinates."""

    face: tuple[float, float]
    face_size: float
    top: float  # v at which a hat or crown rests
    neck: float  # v of a scarf
    neck_width: float  # half the width of the body there
    ear: tuple[float, float]  # where a bow is tied


ANCHORS = {
    "ball": Anchors((0.0, -0.05), 0.95, -0.80, 0.52, 0.72, (0.58, -0.66)),
    "cube": Anchors((0.0, -0.05), 0.95, -0.78, 0.48, 0.80, (0.58, -0.66)),
    "triangle": Anchors((0.0, 0.20), 0.72, -0.66, 0.62, 0.72, (0.36, -0.34)),
    "star": Anchors((0.0, -0.02), 0.72, -0.74, 0.42, 0.48, (0.52, -0.40)),
    "heart": Anchors((0.0, -0.12), 0.85, -0.56, 0.42, 0.46, (0.62, -0.62)),
    "drop": Anchors((0.0, 0.22), 0.80, -0.62, 0.62, 0.52, (0.44, -0.24)),
    "flower": Anchors((0.0, -0.02), 0.80, -0.78, 0.50, 0.66, (0.62, -0.58)),
    "cloud": Anchors((0.0, 0.05), 0.85, -0.58, 0.44, 0.86, (0.56, -0.40)),
    "ghost": Anchors((0.0, -0.22), 0.88, -0.80, 0.36, 0.72, (0.50, -0.66)),
    "cat": Anchors((0.0, 0.10), 0.88, -0.46, 0.62, 0.64, (0.66, -0.52)),
}


def rounded_box(u: Tensor, v: Tensor, half_width: float, half_height: float, rounding: float) -> Tensor:
    """Distance to a box round the origin; ``rounding`` is the corners' radius, within the half sizes."""
    x, y = u.abs() - (half_width - rounding), v.abs() - (half_height - rounding)
    outside = torch.hypot(x.clamp(min=0), y.clamp(min=0))
    return outside + torch.maximum(x, y).clamp(max=0) - rounding


def circle(u: Tensor, v: Tensor, centre_u: float, centre_v: float, radius: float) -> Tensor:
    """Distance to a disc."""
    return torch.hypot(u - centre_u, v - centre_v) - radius


def segment(u: Tensor, v: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """Distance to the line from ``start`` to ``end``, which has no width."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = (((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv)).clamp(0, 1)
    return torch.hypot(u - start[0] - along * du, v - start[1] - along * dv)


def polygon(u: Tensor, v: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """Distance to a closed polygon of any form: the nearest edge, its sign from the edges crossed."""
    distance = torch.full_like(u, torch.inf)
    inside = torch.zeros_like(u, dtype=torch.bool)
    for (u0, v0), (u1, v1) in zip(corners, corners[1:] + corners[:1], strict=True):
        distance = torch.minimum(distance, segment(u, v, (u0, v0), (u1, v1)))
        if v0 != v1:
            crosses = ((v >= v0) != (v >= v1)) & (u < (u1 - u0) * (v - v0) / (v1 - v0) + u0)
            inside = inside ^ crosses
    return torch.where(inside, -distance, distance)


def smooth_union(a: Tensor, b: Tensor, width: float) -> Tensor:
    """The nearer of two distances, with the crease between them filled over ``width``."""
    h = (width - (a - b).abs()).clamp(min=0) / width
    return torch.minimum(a, b) - h * h * (width / 4)


def ball(u: Tensor, v: Tensor) -> Tensor:
    return circle(u, v, 0, 0, 0.90)


def cube(u: Tensor, v: Tensor) -> Tensor:
    return rounded_box(u, v, 0.82, 0.82, 0.20)


def triangle(u: Tensor, v: Tensor) -> Tensor:
    return polygon(u, v, [(0.0, -0.78), (0.80, 0.66), (-0.80, 0.66)]) - 0.17


def star(u: Tensor, v: Tensor) -> Tensor:
    corners = []
    for point in range(10):
        angle, reach = point * math.pi / 5, 0.92 if point % 2 == 0 else 0.46
        corners.append((math.sin(angle) * reach, -math.cos(angle) * reach))
    return polygon(u, v, corners) - 0.11


def heart(u: Tensor, v: Tensor) -> Tensor:
    lobes = torch.minimum(circle(u, v, -0.42, -0.30, 0.50), circle(u, v, 0.42, -0.30, 0.50))
    tip = polygon(u, v, [(-0.70, 0.02), (0.0, 0.84), (0.70, 0.02), (0.0, -0.40)]) - 0.07
    return smooth_union(lobes, tip, 0.12)


def drop(u: Tensor, v: Tensor) -> Tensor:
    # A disc and the two lines that touch it and meet at the tip.
    radius, centre, tip = 0.66, 0.24, -0.92
    length = centre - tip
    touch = math.asin(radius / length)
    side, height = radius * math.cos(touch), centre - radius * math.sin(touch)
    cone = polygon(u, v, [(0.0, tip), (side, height), (-side, height)])
    return smooth_union(circle(u, v, 0, centre, radius), cone, 0.02) - 0.03


def flower(u: Tensor, v: Tensor) -> Tensor:
    petals = circle(u, v, 0, 0, 0.58)
    for petal in range(6):
        angle = (petal + 0.5) * math.pi / 3
        petals = smooth_union(petals, circle(u, v, math.cos(angle) * 0.60, math.sin(angle) * 0.60, 0.33), 0.05)
    return petals


def cloud(u: Tensor, v: Tensor) -> Tensor:
    body = rounded_box(u, v - 0.30, 0.94, 0.32, 0.32)
    for centre_u, centre_v, radius in ((-0.48, 0.02, 0.40), (0.08, -0.20, 0.48), (0.56, 0.06, 0.36)):
        body = smooth_union(body, circle(u, v, centre_u, centre_v, radius), 0.06)
    return body


def ghost(u: Tensor, v: Tensor) -> Tensor:
    body = torch.minimum(circle(u, v, 0, -0.20, 0.70), rounded_box(u, v - 0.26, 0.70, 0.46, 0.02))
    for centre in (-0.47, 0.0, 0.47):
        body = smooth_union(body, circle(u, v, centre, 0.72, 0.235), 0.03)
    return body


def cat(u: Tensor, v: Tensor) -> Tensor:
    head = torch.hypot(u * 0.88, v - 0.14) - 0.74
    ear = polygon(u.abs(), v, [(0.14, -0.46), (0.62, -0.86), (0.76, -0.12)]) - 0.07
    return smooth_union(head, ear, 0.06)


BODIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ball": ball, "cube": cube, "triangle": triangle, "star": star, "heart": heart,
    "drop": drop, "flower": flower, "cloud": cloud, "ghost": ghost, "cat": cat,
}  # fmt: skip


def by_kind(kinds: Tensor, count: int, draw: Callable[[int, Tensor], None]) -> None:
    """Call ``draw(kind, rows)`` once for every kind in 0..count-1 that occurs in ``kinds`` [N]."""
    for kind in range(count):
        rows = (kinds == kind).nonzero()[:, 0]
        if rows.numel():
            draw(kind, rows)


def signed_distance(shape: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Distance to each row's body.

    Args:
        shape: int64 [N], indices into SHAPES.
        u, v: float32 [N, H, W], character coordinates.

    Returns:
        float32 [N, H, W], negative inside.
    """
    distance = torch.empty_like(u)

    def draw(kind: int, rows: Tensor) -> None:
        distance[rows] = BODIES[SHAPES[kind]](u[rows], v[rows])

    by_kind(shape, len(SHAPES), draw)
    return distance
