"""Where the light of a relit picture comes from, and whether its character is still the same.

The network reader tells four directions only, too few for an error in degrees. Of a picture whose character is known
the light is found by drawing that character under lights from all round and taking the one that looks most alike.
"""

import math

import torch
from torch import Tensor

from demo.eval.reading import Reading
from demo.eval.story_report import AGREE, main_character
from demo.light_pairs import azimuth, with_azimuth
from demo.world.render import render
from demo.world.scene import Scenes

CANDIDATES = 24
"""Angles that are tried, 15 degrees apart; between the best one's neighbours a parabola tells the rest."""

TOLERANCE = 25.0
"""Degrees within which a light comes from where it was asked to."""

DARK = 0.05
"""Added to brightnesses before their logarithm: what is nearly black tells of no light."""

CHANCE = 2 * TOLERANCE / 360


@torch.no_grad()
def found_azimuth(pictures: Tensor, scenes: Scenes) -> Tensor:
    """float32 [B]: whence the light seems to come, radians as in light_pairs.azimuth.

    Compared are the logarithms of the brightnesses inside the character, less their mean: a picture that is darker
    altogether is no other light.

    Args:
        pictures: [B, 3, H, W], 0..1, on the scenes' device.
        scenes: what they show, of one frame; the light's height counts, its azimuth does not.
    """
    size = pictures.shape[-1]
    inside = (render(scenes, size, size, layers=("masks",)).masks[:, 0].sum(1) > 0.99).float()
    weight = inside / inside.sum((1, 2), keepdim=True).clamp_min(1)

    def shading(some: Tensor) -> Tensor:
        grey = (some.mean(1) + DARK).log()
        return (grey - (grey * weight).sum((1, 2), keepdim=True)) * inside

    seen = shading(pictures)
    angles = torch.arange(CANDIDATES, device=pictures.device) * (2 * math.pi / CANDIDATES) - math.pi
    errors = []
    for angle in angles:
        drawn = render(with_azimuth(scenes, angle.expand(scenes.size)), size, size).frames[:, 0]
        errors.append((shading(drawn) - seen).square().sum((1, 2)))
    errors = torch.stack(errors)  # [candidates, B], and the last is beside the first
    best = errors.argmin(0)
    before, least, after = (errors.gather(0, ((best + k) % CANDIDATES)[None])[0] for k in (-1, 0, 1))
    offset = (before - after) / (before - 2 * least + after).clamp_min(1e-12) / 2
    return angles[best] + offset.clamp(-0.5, 0.5) * (2 * math.pi / CANDIDATES)


def degrees_between(a: Tensor, b: Tensor) -> Tensor:
    """The angle between directions given in radians: 0..180 degrees."""
    return torch.rad2deg(torch.atan2((a - b).sin(), (a - b).cos()).abs())


def light_errors(pictures: Tensor, scenes: Scenes) -> Tensor:
    """float32 [B], degrees on the CPU: how far the light is from where the scenes have it."""
    return degrees_between(found_azimuth(pictures, scenes), azimuth(scenes)).cpu()


def kept(found: Reading, scenes: Scenes) -> dict[str, Tensor]:
    """bool [B] each: whether the reader's largest character has the shape and colour, and the reader's light fits."""
    seen = main_character(found)
    rows = {name: seen[name] == getattr(scenes, name)[:, 0].cpu() for name in AGREE}
    return {**rows, "light": found.light == scenes.light.cpu()}
