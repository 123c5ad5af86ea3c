"""Scenes: which characters stand where, drawn from a seed, a whole batch at once.

Everything is drawn on the CPU, so that a seed means the same scenes on every machine.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.world.attributes import (
    ACCESSORIES,
    BACKGROUNDS,
    COLOURS,
    FACES,
    HELD_OUT,
    LIGHT_ANGLES,
    LIGHTS,
    MOTIONS,
    PATTERNS,
)
from demo.world.backgrounds import PERIOD

MAXIMUM_CHARACTERS = 4
MAXIMUM_FRAMES = 33

RADII = ((0.45, 0.62), (0.36, 0.46), (0.30, 0.38), (0.27, 0.33))
"""Smallest and largest radius in stage units, for one, two, three and four characters."""

TRIES = 24
"""Layouts drawn for each scene; the first whose characters keep their distance is taken, or else the best."""


@dataclass(frozen=True)
class Scenes:
    """A batch of B scenes of T frames with up to K = 4 characters; index k is the drawing order, 0 at the back.

    The stage: x to the right, y down; the default view shows -1..1 both ways on a square picture. Indices refer to the
    tuples of ``attributes``; where ``present`` is False they are 0 and mean nothing.
    """

    count: Tensor  # int64 [B], 1..4
    shape: Tensor  # int64 [B, K]
    colour: Tensor  # int64 [B, K]
    pattern: Tensor  # int64 [B, K]
    face: Tensor  # int64 [B, K]
    accessory: Tensor  # int64 [B, K]
    motion: Tensor  # int64 [B, K], MOTIONS; "still" in pictures
    position: Tensor  # float32 [B, T, K, 2], stage units
    radius: Tensor  # float32 [B, T, K], stage units
    angle: Tensor  # float32 [B, T, K], radians, positive turns clockwise on the screen
    background: Tensor  # int64 [B]
    background_shift: Tensor  # float32 [B], stage units by which the place is moved to the right
    light: Tensor  # int64 [B], LIGHTS
    light_direction: Tensor  # float32 [B, 3], unit vector to the light: x right, y down, z to the viewer
    camera: Tensor  # float32 [B, T, 3]: the stage point at the picture's centre (x, y), and the zoom

    @property
    def size(self) -> int:
        """B, the number of scenes."""
        return self.count.shape[0]

    @property
    def frames(self) -> int:
        """T."""
        return self.position.shape[1]

    @property
    def present(self) -> Tensor:
        """bool [B, K]: which characters there are."""
        return torch.arange(self.shape.shape[1], device=self.count.device) < self.count[:, None]

    def map(self, function) -> "Scenes":
        """The same scenes with ``function`` applied to every tensor."""
        return Scenes(**{field.name: function(getattr(self, field.name)) for field in dataclasses.fields(self)})

    def to(self, device: torch.device | str) -> "Scenes":
        """The same scenes on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def select(self, rows: Tensor | slice) -> "Scenes":
        """Some of the scenes."""
        return self.map(lambda tensor: tensor[rows])

    def at(self, frames: slice) -> "Scenes":
        """The same scenes with some of their frames."""
        timed = {name: getattr(self, name)[:, frames] for name in ("position", "radius", "angle", "camera")}
        return dataclasses.replace(self, **timed)


def concatenate(parts: list[Scenes]) -> Scenes:
    """One batch from several of equally many frames."""
    names = [field.name for field in dataclasses.fields(Scenes)]
    return Scenes(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def draw_identities(size: int, generator: torch.Generator, combinations: str) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, colour and pattern, each int64 [size, K]; no scene has two characters of one shape and colour."""
    allowed = {"train": ~HELD_OUT, "held_out": HELD_OUT, "all": torch.ones_like(HELD_OUT)}
    if combinations not in allowed:
        raise ValueError(f"combinations is {combinations!r}; expected one of {', '.join(allowed)}.")
    table = allowed[combinations].flatten().nonzero()[:, 0]

    def draw(rows: int) -> Tensor:
        return table[torch.randint(table.numel(), (rows, MAXIMUM_CHARACTERS), generator=generator)]

    drawn = draw(size)
    while True:
        look = (drawn // len(PATTERNS)).sort(dim=1).values
        clash = (look[:, 1:] == look[:, :-1]).any(dim=1).nonzero()[:, 0]
        if not clash.numel():
            break
        drawn[clash] = draw(clash.numel())
    colours = len(COLOURS) * len(PATTERNS)
    return drawn // colours, drawn % colours // len(PATTERNS), drawn % len(PATTERNS)


def draw_places(count: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions [B, K, 2] and radii [B, K] that leave every character in the picture and mostly in sight."""
    size = count.numel()
    bounds = torch.tensor(RADII)[count - 1]
    spread = torch.rand(size, TRIES, MAXIMUM_CHARACTERS, generator=generator)
    radius = bounds[:, None, None, 0] + (bounds[:, None, None, 1] - bounds[:, None, None, 0]) * spread
    place = uniform(generator, -1, 1, size, TRIES, MAXIMUM_CHARACTERS, 2)
    room = 0.97 - radius
    # What is worn on top needs room above.
    position = torch.stack((place[..., 0] * room, place[..., 1] * (room - 0.22 * radius) + 0.22 * radius), -1)
    pair = torch.triu_indices(MAXIMUM_CHARACTERS, MAXIMUM_CHARACTERS, 1)
    apart = torch.hypot(*(position[:, :, pair[0]] - position[:, :, pair[1]]).unbind(-1))
    gap = apart / (radius[:, :, pair[0]] + radius[:, :, pair[1]])
    absent = pair[1][None, None] >= count[:, None, None]
    worst = gap.masked_fill(absent, torch.inf).amin(dim=2)
    fits = worst >= 0.92
    choice = torch.where(fits.any(dim=1), fits.int().argmax(dim=1), worst.argmax(dim=1))
    rows = torch.arange(size)
    return position[rows, choice], radius[rows, choice]


def draw_motion(scenes: dict[str, Tensor], frames: int, generator: torch.Generator) -> None:
    """Replace the one frame in ``scenes`` by ``frames`` of them: every character has a motion, half the cameras too."""
    position, radius, angle = scenes["position"], scenes["radius"], scenes["angle"]
    size, _, characters = radius.shape
    scenes["motion"] = torch.randint(len(MOTIONS), (size, characters), generator=generator)
    along = torch.linspace(0, 1, frames)[None, :, None]
    reach = uniform(generator, 0.35, 0.75, size, 1, characters)
    kind = scenes["motion"][:, None]
    direction = {name: (kind == MOTIONS.index(name)).float() for name in MOTIONS}
    ease = along * along * (3 - 2 * along)
    start = ease - 0.5  # the middle of the way lies where the picture would have put the character
    dx = (direction["right"] - direction["left"]) * reach * start
    dy = (direction["down"] - direction["up"]) * reach * start
    scenes["position"] = position + torch.stack((dx, dy), -1)
    growth = direction["grows"] - direction["shrinks"]
    scenes["radius"] = radius * torch.exp(growth * start * 0.8)
    turn = torch.where(torch.rand(size, 1, characters, generator=generator) < 0.5, -1.0, 1.0)
    sway = uniform(generator, 0.0, 0.10, size, 1, characters) * torch.sin(2 * math.pi * along)
    scenes["angle"] = angle + direction["spins"] * turn * ease * math.pi + sway
    moving = (torch.rand(size, 1, 1, generator=generator) < 0.5).float()
    pan = uniform(generator, -0.45, 0.45, size, 1, 2) * ease
    zoom = torch.exp(uniform(generator, -0.25, 0.25, size, 1, 1) * ease)
    scenes["camera"] = torch.cat((pan * moving, 1 + (zoom - 1) * moving), -1)


def draw_scenes(
    count: int,
    seed: int,
    *,
    characters: int | tuple[float, ...] | None = None,
    frames: int = 1,
    combinations: str = "train",
    device: torch.device | str = "cpu",
) -> Scenes:
    """Draw ``count`` scenes.

    Args:
        count: how many, at least 1.
        seed: the same seed gives the same scenes, on every device.
        characters: 1..4 in every scene, or four weights of those numbers; None is (0.4, 0.35, 0.15, 0.1).
        frames: 1..33; a single frame is a still picture, more are a video in which characters and camera move.
        combinations: ``train`` leaves out the held-out looks, ``held_out`` shows only them, ``all`` shows both.
        device: where the result lies.

    Raises:
        ValueError: an argument is out of its range.
    """
    if count < 1 or not 1 <= frames <= MAXIMUM_FRAMES:
        raise ValueError(
            f"count is {count} and frames {frames}; expected count >= 1 and frames in 1..{MAXIMUM_FRAMES}."
        )
    if (isinstance(characters, int) and not 1 <= characters <= MAXIMUM_CHARACTERS) or (
        isinstance(characters, tuple) and len(characters) != MAXIMUM_CHARACTERS
    ):
        raise ValueError(f"characters is {characters}; expected 1..{MAXIMUM_CHARACTERS}, four weights or None.")
    generator = torch.Generator().manual_seed(seed)
    if isinstance(characters, int):
        number = torch.full((count,), characters)
    else:
        weights = torch.tensor(characters or (0.40, 0.35, 0.15, 0.10))
        number = torch.multinomial(weights, count, replacement=True, generator=generator) + 1
    shape, colour, pattern = draw_identities(count, generator, combinations)
    position, radius = draw_places(number, generator)
    grid = (count, MAXIMUM_CHARACTERS)
    light = torch.randint(len(LIGHTS), (count,), generator=generator)
    azimuth = torch.tensor(LIGHT_ANGLES)[light] + uniform(generator, -0.38, 0.38, count)
    height = uniform(generator, 0.50, 0.85, count)
    fields = {
        "count": number,
        "shape": shape,
        "colour": colour,
        "pattern": pattern,
        "face": torch.randint(len(FACES), grid, generator=generator),
        "accessory": torch.randint(len(ACCESSORIES), grid, generator=generator),
        "motion": torch.zeros(grid, dtype=torch.int64),
        "position": position[:, None],
        "radius": radius[:, None],
        "angle": (torch.randn(count, 1, MAXIMUM_CHARACTERS, generator=generator) * 0.16).clamp(-0.42, 0.42),
        "background": torch.randint(len(BACKGROUNDS), (count,), generator=generator),
        "background_shift": uniform(generator, 0, PERIOD, count),
        "light": light,
        "light_direction": torch.stack(
            (torch.cos(height) * torch.cos(azimuth), torch.cos(height) * torch.sin(azimuth), torch.sin(height)), -1
        ),
        "camera": torch.tensor([0.0, 0.0, 1.0]).expand(count, 1, 3).clone(),
    }
    if frames > 1:
        draw_motion(fields, frames, generator)
    here = torch.arange(MAXIMUM_CHARACTERS) < number[:, None]
    for name in ("shape", "colour", "pattern", "face", "accessory", "motion"):
        fields[name] = fields[name] * here
    return Scenes(**fields).to(device)


def repose(scenes: Scenes, seed: int, *, scenery: bool = True) -> Scenes:
    """The same characters (face and accessory too) in other places, sizes and angles, as still pictures.

    Args:
        scenes: the batch whose characters appear again.
        seed: of the new poses.
        scenery: whether background and light change too.
    """
    numbers = scenes.count.cpu()
    fresh = draw_scenes(scenes.size, seed, combinations="all")
    generator = torch.Generator().manual_seed(seed + 1)
    position, radius = draw_places(numbers, generator)
    changes = {"position": position[:, None], "radius": radius[:, None], "angle": fresh.angle, "camera": fresh.camera}
    if scenery:
        names = ("background", "background_shift", "light", "light_direction")
        changes |= {name: getattr(fresh, name) for name in names}
    device = scenes.count.device
    still = {"motion": torch.zeros_like(scenes.motion)}
    return dataclasses.replace(scenes, **{name: value.to(device) for name, value in changes.items()}, **still)


def still_camera(scenes: Scenes) -> Scenes:
    """The same scenes before a camera that does not move."""
    return dataclasses.replace(scenes, camera=torch.tensor([0.0, 0.0, 1.0]).expand_as(scenes.camera).clone())


def still_characters(scenes: Scenes) -> Scenes:
    """The same scenes with the characters as they are in the middle of the video, all the time."""
    middle = scenes.frames // 2
    frozen = {
        name: getattr(scenes, name)[:, middle : middle + 1].expand_as(getattr(scenes, name)).clone()
        for name in ("position", "radius", "angle")
    }
    return dataclasses.replace(scenes, motion=torch.zeros_like(scenes.motion), **frozen)
