"""Rings of perspective cameras that together see everything around a point.

Cameras are given by yaw (degrees, more looks further to the right) and pitch (degrees, more looks further up).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .cubemap import ANGLES

_AROUND = (-144.0, -72.0, 0.0, 72.0, 144.0)
_BETWEEN = (-180.0, -108.0, -36.0, 36.0, 108.0)


def icosahedron_views() -> tuple[Tensor, Tensor]:
    """Cameras that look at the centres of an icosahedron's faces, from its topmost faces down.

    Imagine360 denoises these 20 views, each 90 degrees wide. The first vertices are the poles, so the faces form four
    rings of five, 72 degrees apart.

    Returns:
        yaw, pitch: float32 [20] each, degrees; views 2 and 7 look straight ahead.
    """
    # Vertices: the poles, and two rings of five at latitudes of +-atan(1/2).
    ring = math.atan(0.5)
    side = 2 * math.cos(ring) * math.cos(math.radians(36.0))
    upper = math.degrees(math.atan2(1 + 2 * math.sin(ring), side))
    lower = math.degrees(math.atan2(math.sin(ring), side + math.cos(ring)))
    rings = ((upper, _AROUND), (lower, _AROUND), (-lower, _BETWEEN), (-upper, _BETWEEN))
    yaw = [around for _, ring_yaw in rings for around in ring_yaw]
    pitch = [height for height, ring_yaw in rings for _ in ring_yaw]
    return torch.tensor(yaw), torch.tensor(pitch)


def cube_views() -> tuple[Tensor, Tensor]:
    """Cameras that look at a cube's faces: ahead, to the right, behind, to the left, up, down.

    Six views of 90 degrees just see everything: a third of the work of the icosahedron's twenty.

    Returns:
        yaw, pitch: float32 [6] each, degrees.
    """
    yaw, pitch = torch.tensor(ANGLES).unbind(1)
    return yaw, pitch
