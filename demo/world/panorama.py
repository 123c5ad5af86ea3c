"""The same scenes as 360-degree panoramas.

The stage is a cylinder round the viewer: one stage unit to the side is 45 degrees, so what a flat picture shows fills
the middle quarter of the panorama, and the place goes on all the way round.
"""

import math

import torch

from demo.world.backgrounds import PERIOD
from demo.world.render import Render, in_pieces, render_on_grid
from demo.world.scene import Scenes

RADIUS = PERIOD / (2 * math.pi)
"""The cylinder's radius in stage units."""

STEEPEST = math.radians(88.0)
"""Elevation beyond which the stage, which recedes to infinity at the poles, is held still."""


def render_panorama(scenes: Scenes, height: int = 128, layers: tuple[str, ...] = ("frames",)) -> Render:
    """Render equirectangular panoramas, twice as wide as high.

    Column j is the longitude (j + 0.5) / W * 360 - 180 degrees, 0 straight ahead and growing to the right; row i is the
    elevation 90 - (i + 0.5) / H * 180. The camera's pan to the side turns the viewer; its pan up or down and its zoom
    are left out, since a panorama has neither.

    Args:
        scenes: B scenes of T frames.
        height: H in pixels, at least 16; W is 2 H.
        layers: as in ``render``; ``masks``, ``labels`` and the rest have the panorama's size.

    Raises:
        ValueError: the height is too small or a layer unknown.
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

    def draw(part: Scenes) -> Render:
        shape = (part.size, part.frames, height, width)
        x = (longitude * RADIUS + part.camera[..., 0, None, None]).expand(shape)
        y = (-torch.tan(elevation) * RADIUS)[:, None].expand(shape)
        return render_on_grid(part, x, y, pixel[:, None].expand(shape), layers, wrap=True)

    return in_pieces(scenes, height * width, draw)
