"""Pairs of pictures for training IC-Light's demonstration: the same characters under another light.

A pair is a foreground (characters alone on grey, under any light), perhaps a background, and what is wanted: the
foreground under the light that is asked for. In the toy world light falls on characters alone; here it also falls off
over the ground behind them, so that a background, or the map of lights that sampling starts from, tells whence it
comes, as it does in photographs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

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

SEEN = (0.5, 1.0)
"""How much of it (draw_pairs' strengths) a place has that is to show a light; below half of it people see none."""

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


def frames_apart(scenes: Scenes) -> Scenes:
    """The frames of B scenes as B T scenes of one frame, a scene's one after the other."""
    count, frames = scenes.size, scenes.frames
    timed = ("position", "radius", "angle", "camera")

    def apart(name: str) -> Tensor:
        value = getattr(scenes, name)
        return value.flatten(0, 1)[:, None] if name in timed else value.repeat_interleave(frames, 0)

    found = Scenes(**{item.name: apart(item.name) for item in fields(Scenes)})
    assert found.size == count * frames and found.frames == 1
    return found


def draw_pairs(
    scenes: Scenes,
    size: int,
    generator: torch.Generator,
    grey_share: float,
    length: int = 1,
    strengths: tuple[float, float] = (0.0, 1.0),
) -> Pictures:
    """Draws pairs.

    Args:
        scenes: of one frame, lit as is wanted; where they are.
        size: pixels.
        generator: on the CPU; the foregrounds' light and the ground's.
        grey_share: of the backgrounds that are grey.
        length: so many scenes in a row are a clip: its foreground has one light, its ground is of one kind.
        strengths: how much of DARKEST and BRIGHTEST the grounds of places have, from and to; 0 tells of no light.
    """
    device, count = scenes.light_direction.device, scenes.size // length

    def chance(low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.empty(count).uniform_(low, high, generator=generator)
        return drawn.repeat_interleave(length).to(device)

    drawn = render(scenes, size, size, layers=("frames", "masks"))
    frames, mask = drawn.frames[:, 0], drawn.masks[:, 0].sum(1, keepdim=True).clamp(0, 1)
    ground = render(replace(scenes, count=torch.zeros_like(scenes.count)), size, size).frames[:, 0]
    before = render(with_azimuth(scenes, chance(-math.pi, math.pi)), size, size).frames[:, 0]
    # Where characters are not, what is darker than the ground is their shadow.
    shadow = torch.where(mask < 0.5, (frames / ground.clamp_min(1 / 255)).clamp(0, 1).amin(1, keepdim=True), 1.0)
    strength = chance(*strengths)
    angles = azimuth(scenes)
    lit = ground * falloff(angles, size, size, 1 - (1 - DARKEST) * strength, 1 + (BRIGHTEST - 1) * strength)
    levels = (torch.full_like(angles, level) for level in GREY_LEVELS)
    grey = falloff(angles, size, size, *levels).expand_as(ground)
    background = torch.where((chance() < grey_share)[:, None, None, None], grey, lit.clamp(0, 1))
    wanted = frames * mask + background * shadow * (1 - mask)
    foreground = on_grey(before.movedim(1, -1), mask[:, 0]).movedim(-1, 1)
    return Pictures(wanted.clamp(0, 1), foreground, background, mask)


def light_maps(count: int, size: int, generator: torch.Generator) -> Tensor:
    """float32 [B, 3, H, W], 0..1: maps as relighting starts from, one or two lights of a colour each.

    Args:
        count: B.
        size: pixels.
        generator: on the CPU.
    """

    def light() -> Tensor:
        angles = torch.empty(count).uniform_(-math.pi, math.pi, generator=generator)
        darkest = torch.rand(count, generator=generator) / 2
        brightest = 1 - torch.rand(count, generator=generator) / 2
        colours = 1 - torch.rand(count, 3, generator=generator).square() * 0.8
        colours = torch.where(torch.rand(count, 1, generator=generator) < 0.5, 1.0, colours)
        return falloff(angles, size, size, darkest, brightest) * colours[:, :, None, None]

    second = (torch.rand(count, generator=generator) < 0.4).float()[:, None, None, None]
    return (light() + light() * second).clamp(0, 1)


@torch.no_grad()
def lit_pictures(scenes: Scenes, size: int, generator: torch.Generator) -> Tensor:
    """float32 [B, 3, size, size], 0..1: what relighting takes and makes, for an autoencoder to know it.

    Turn and turn about: a foreground on grey, a lit background, characters under that light, a map of light.

    Args:
        scenes: of one frame, where the pictures are to be.
        size: pixels.
        generator: on the CPU.
    """
    angles = torch.empty(scenes.size).uniform_(-math.pi, math.pi, generator=generator)
    scenes = with_azimuth(scenes, angles.to(scenes.light_direction.device))
    made = draw_pairs(scenes, size, generator, GREY_SHARE)
    maps = light_maps(scenes.size, size, generator).to(made.wanted.device)
    kind = (torch.arange(scenes.size, device=maps.device) % 4)[:, None, None, None]
    found = torch.where(kind == 0, made.foreground, made.background)
    return torch.where(kind == 2, made.wanted, torch.where(kind == 3, maps, found))


def encode_pairs(vae, pictures: Pictures, background: bool) -> tuple[Tensor, Tensor]:
    """Latents float16 of the wanted pictures [B, 4, h, w] and of what lies beside the noise [B, 4 or 8, h, w]."""
    given = [pictures.foreground, *([pictures.background] if background else [])]
    beside = torch.cat([encode_pictures(vae, coded(some, "official")) for some in given], 1)
    return encode_pictures(vae, pictures.wanted), beside


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
        return *encode_pairs(vae, pictures, background), tokens.to(device)

    return make


STILL_LIGHT = 0.35
"""Share of the clips whose light stands still; that of the others goes round by up to a whole turn."""


def clip_maker(
    vae, device: torch.device, size: int, seed: int
) -> Callable[[Scenes, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """A function of scenes of T frames and rows of tokens that makes clips to learn from, lit by a light that moves.

    That is as ``pair_maker`` gives it with backgrounds, with T between the number of clips and the channels.

    Args:
        vae: encodes the pictures.
        device: where.
        size: of the pictures.
        seed: of the lights.
    """
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def make(scenes: Scenes, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scenes = scenes.to(device)
        count, frames = scenes.size, scenes.frames
        moves = torch.rand(count, generator=generator) >= STILL_LIGHT
        turn = (torch.rand(count, generator=generator) * 2 - 1) * (2 * math.pi) * moves
        along = torch.linspace(-0.5, 0.5, frames)  # in the middle of the clip the light stands as captions say
        angles = azimuth(scenes)[:, None] + (turn[:, None] * along).to(device)
        lit = with_azimuth(frames_apart(scenes), angles.flatten())
        pictures = draw_pairs(lit, size, generator, GREY_SHARE, frames)
        clean, beside = (some.unflatten(0, (count, frames)) for some in encode_pairs(vae, pictures, True))
        return clean, beside, tokens.to(device)

    return make
