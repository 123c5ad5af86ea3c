"""Pairs of pictures for training IC-Light's demonstration: the same characters under another light.

A pair is a foreground (characters alone on grey, under any light), perhaps a background, and what is wanted: the
foreground under the light that is asked for. In the toy world light falls on characters alone; here it also falls off
over the ground behind them, so that a background, or the map of lights that sampling starts from, tells whence it
comes, as it does in photographs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from demo.training_data import encode_pictures
from demo.world.attributes import LIGHT_ANGLES
from demo.world.render import render
from demo.world.scene import Scenes
from kernels.pixel_coding import coded, on_grey

DARKEST, BRIGHTEST = 0.5, 1.25
"""What the ground is multiplied by at most, on the far side of the light and on its near side."""

GREY_LEVELS = (32 / 255, 224 / 255)
"""Of grey backgrounds, as IC-Light's own demonstration offers them."""

GREY_SHARE = 0.4
"""Of backgrounds that are given: the others are the world's places."""

ANY_ANGLE = 0.5
"""Share of the pairs lit from anywhere between the four directions, not from near one of them."""


def azimuth(scenes: Scenes) -> Tensor:
    """float32 [B]: where the light stands round the picture, radians, 0 to the right, positive clockwise."""
    return torch.atan2(scenes.light_direction[:, 1], scenes.light_direction[:, 0])


def with_azimuth(scenes: Scenes, angles: Tensor) -> Scenes:
    """The same scenes lit from elsewhere, from as high as before; ``light`` is the nearest of the four directions."""
    height = scenes.light_direction[:, 2]
    flat = (1 - height.square()).sqrt()
    direction = torch.stack((flat * angles.cos(), flat * angles.sin(), height), -1)
    away = torch.tensor(LIGHT_ANGLES, device=angles.device) - angles[:, None]
    return replace(scenes, light_direction=direction, light=away.cos().argmax(1))


def falloff(angles: Tensor, height: int, width: int, darkest: Tensor, brightest: Tensor) -> Tensor:
    """float32 [B, 1, H, W]: a straight gradient from the light's side, ``brightest``, to the other, both [B]."""
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=angles.device),
        torch.linspace(-1, 1, width, device=angles.device),
        indexing="ij",
    )
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    along = ((x * cos + y * sin) / (cos.abs() + sin.abs()) + 1) / 2
    low, high = darkest[:, None, None], brightest[:, None, None]
    return (low + (high - low) * along)[:, None]


@dataclass(frozen=True)
class Pictures:
    """B pairs, float32 [B, 3, H, W], 0..1."""

    wanted: Tensor
    foreground: Tensor  # on grey
    background: Tensor  # lit, without characters and their shadows
    mask: Tensor  # [B, 1, H, W], 1 where characters are


def draw_pairs(scenes: Scenes, size: int, generator: torch.Generator, grey_share: float) -> Pictures:
    """Draws pairs.

    Args:
        scenes: of one frame, lit as is wanted; where they are.
        size: pixels.
        generator: on the CPU; the foregrounds' light and the ground's.
        grey_share: of the backgrounds that are grey.
    """
    device, count = scenes.light_direction.device, scenes.size

    def chance(low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.empty(count).uniform_(low, high, generator=generator).to(device)

    drawn = render(scenes, size, size, layers=("frames", "masks"))
    frames, mask = drawn.frames[:, 0], drawn.masks[:, 0].sum(1, keepdim=True).clamp(0, 1)
    ground = render(replace(scenes, count=torch.zeros_like(scenes.count)), size, size).frames[:, 0]
    before = render(with_azimuth(scenes, chance(-math.pi, math.pi)), size, size).frames[:, 0]
    # Where characters are not, what is darker than the ground is their shadow.
    shadow = torch.where(mask < 0.5, (frames / ground.clamp_min(1 / 255)).clamp(0, 1).amin(1, keepdim=True), 1.0)
    strength = chance()
    angles = azimuth(scenes)
    lit = ground * falloff(angles, size, size, 1 - (1 - DARKEST) * strength, 1 + (BRIGHTEST - 1) * strength)
    levels = (torch.full_like(angles, level) for level in GREY_LEVELS)
    grey = falloff(angles, size, size, *levels).expand_as(ground)
    background = torch.where((chance() < grey_share)[:, None, None, None], grey, lit.clamp(0, 1))
    wanted = frames * mask + background * shadow * (1 - mask)
    foreground = on_grey(before.movedim(1, -1), mask[:, 0]).movedim(-1, 1)
    return Pictures(wanted.clamp(0, 1), foreground, background, mask)


def pair_maker(
    vae, device: torch.device, size: int, seed: int, background: bool
) -> Callable[[Scenes, Tensor], tuple[Tensor, ...]]:
    """A function of scenes and rows of tokens that makes what is learned from.

    That is latents float16 [N, 4, size/8, size/8] of the wanted pictures, those that lie beside the noise
    [N, 4 or 8, size/8, size/8] (foreground, and background if asked for), and tokens int16 [N, phrasings, 77].

    Args:
        vae: encodes the pictures.
        device: where.
        size: of the pictures.
        seed: of the lights.
        background: whether the background is given; then some are grey.
    """
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def make(scenes: Scenes, tokens: Tensor) -> tuple[Tensor, ...]:
        scenes = scenes.to(device)
        near = torch.tensor(LIGHT_ANGLES, device=device)[scenes.light]
        spread = (torch.rand(scenes.size, generator=generator) * 2 - 1).to(device) * (math.pi / 4)
        anywhere = (torch.rand(scenes.size, generator=generator) < ANY_ANGLE).to(device)
        scenes = with_azimuth(scenes, torch.where(anywhere, near + spread, azimuth(scenes)))
        pictures = draw_pairs(scenes, size, generator, GREY_SHARE if background else 0.0)
        beside = [coded(pictures.foreground, "official")]
        if background:
            beside.append(coded(pictures.background, "official"))
        beside = torch.cat([encode_pictures(vae, some) for some in beside], 1)
        return encode_pictures(vae, pictures.wanted), beside, tokens.to(device)

    return make
