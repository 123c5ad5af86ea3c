"""The same scenes as 360-degree panoramas.

The stage is a cylinder round the viewer: one stage unit to the side is 45 degrees, so what a flat picture shows fills
the middle quarter of the panorama, and the place goes on all the way round. A viewer may walk about in the cylinder.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from demo.world.backgrounds import PERIOD
from demo.world.render import Render, in_pieces, render_on_grid
from demo.world.scene import Scenes

RADIUS = PERIOD / (2 * math.pi)
"""The cylinder's radius in stage units."""

STEEPEST = math.radians(88.0)
"""Elevation beyond which the stage, which recedes to infinity at the poles, is held still."""


FARTHEST = 0.75
"""How far from the cylinder's axis a viewer may stand, of its radius."""


def cylinder_points(longitude: Tensor, viewer: Tensor) -> tuple[Tensor, Tensor]:
    """What a viewer sees who has left the cylinder's axis.

    Args:
        longitude: [W], radians, 0 straight ahead.
        viewer: [B, T, 2], how far to the right and ahead of the axis, of the radius.

    Returns:
        [B, T, W] each: the longitude, seen from the axis, of the point in that direction, -pi to pi; and how far it is
        away, of the radius.
    """
    right, ahead = viewer[..., :1], viewer[..., 1:]
    sideways, forward = longitude.sin(), longitude.cos()
    along = right * sideways + ahead * forward
    distance = (along.square() + 1 - right.square() - ahead.square()).sqrt() - along
    return torch.atan2(right + distance * sideways, ahead + distance * forward), distance


def render_panorama(
    scenes: Scenes, height: int = 128, layers: tuple[str, ...] = ("frames",), viewer: Tensor | None = None
) -> Render:
    """Render equirectangular panoramas, twice as wide as high.

    Column j is the longitude (j + 0.5) / W * 360 - 180 degrees, 0 straight ahead and growing to the right; row i is the
    elevation 90 - (i + 0.5) / H * 180. The camera's pan to the side turns the viewer; its pan up or down and its zoom
    are left out, since a panorama has neither.

    Args:
        scenes: B scenes of T frames.
        height: H in pixels, at least 16; W is 2 H.
        layers: as in ``render``; ``masks``, ``labels`` and the rest have the panorama's size.
        viewer: float32 [B, T, 2], how far to the right and ahead of the cylinder's axis the viewer stands in each
            frame, of the radius; None = on the axis. What lies ahead comes nearer where the viewer goes ahead, and what
            lies behind goes away; where the viewer goes to the right, what lies ahead moves to the left, and what lies
            behind to the right of who turns round to it.

    Raises:
        ValueError: the height is too small, a layer unknown, or a viewer too near to the cylinder.
    """
    if height < 16:
        raise ValueError(f"height is {height}; expected at least 16 pixels.")
    width, device = 2 * height, scenes.count.device
    longitude = ((torch.arange(width, device=device) + 0.5) / width * 2 - 1) * math.pi
    elevation = (0.5 - (torch.arange(height, device=device) + 0.5) / height) * math.pi
    elevation = elevation.clamp(-STEEPEST, STEEPEST)
    # A pixel is 1 wide and sec^2 tall on the stage; its edge ramp takes the mean of the two.
    size = RADIUS * math.pi / height
    pixel = size * (1 + 1 / torch.cos(elevation) ** 2) / 2
    viewer = torch.zeros(scenes.size, scenes.frames, 2, device=device) if viewer is None else viewer.to(device)
    if not bool((viewer.norm(dim=-1) <= FARTHEST).all()):  # NaN fails the comparison
        raise ValueError(f"viewer: it stands {float(viewer.norm(dim=-1).max()):g} from the axis; at most {FARTHEST}.")
    scenes = replace(scenes, camera=torch.cat((scenes.camera, viewer), -1))  # so that they are taken in pieces, too

    def draw(part: Scenes) -> Render:
        shape = (part.size, part.frames, height, width)
        around, distance = cylinder_points(longitude, part.camera[..., 3:])
        x = (around * RADIUS + part.camera[..., 0, None])[:, :, None].expand(shape)
        y = -torch.tan(elevation)[:, None] * RADIUS * distance[:, :, None]
        return render_on_grid(part, x, y, pixel[:, None] * distance[:, :, None], layers, wrap=True)

    return in_pieces(scenes, height * width, draw)
