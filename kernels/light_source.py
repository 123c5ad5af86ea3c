"""Light maps drawn from lights: the JSON that the Light Source editor writes, and the pictures IC-Light starts from.

Version 1, coordinates in fractions of the picture (x of its width, y of its height, (0, 0) = its top left corner)::

    {"version": 1,
     "lights": [
       {"kind": "side", "angle": 180, "colour": "#ffffff", "intensity": 1, "keys": [...]},
       {"kind": "point", "x": 0.5, "y": 0.5, "radius": 0.25, "falloff": 1, "colour": [1, 0.8, 0.6], "intensity": 1,
        "keys": [{"frame": 0, "x": 0.1, "colour": "#ff8000", "way": "linear"}, ...]}]}

angle: where the light comes from, in degrees, 0 = the right, clockwise on the screen: 90 = below, 180 = the left, 270 =
above. colour: "#rrggbb", or red, green and blue in 0..1. Only the kind is needed; the rest is by default an angle of
180, x and y 0.5, radius 0.25, falloff 1, intensity 1, white, no keys. What a key does not say is as in its light.
Between keys every number and colour travels evenly, in the time that the key's way bends as in
``kernels/schedule.py``; before the first and after the last key it rests.

The pictures are those of IC-Light's demonstrations (lllyasviel 2024): 8-bit levels from a style's dark to its bright,
``linspace(bright, dark, W)`` for a light from the left, cut off to whole levels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from .affine import cos_and_sin
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
MOST_LIGHTS = 100
STYLES = {"fc": (0, 255), "fbc": (32, 224)}
"""8-bit levels (dark, bright): of the first picture for the fc and fcon files, of the background for the fbc file."""

SIDES = {"right": 0.0, "below": 90.0, "left": 180.0, "above": 270.0}
"""The angle of a light from each side."""

# Ranges of a light's numbers: low, high, default.
_SHARED = {"intensity": (0, 100, 1.0)}
_RANGES = {
    "side": {"angle": (-36000, 36000, 180.0), **_SHARED},
    "point": {
        "x": (-10, 10, 0.5),
        "y": (-10, 10, 0.5),
        "radius": (0.001, 10, 0.25),
        "falloff": (0.1, 10, 1.0),
        **_SHARED,
    },
}
_HEX = re.compile(r"#[0-9a-fA-F]{6}", re.ASCII)
_WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class LightKey:
    """What a light is like at a frame: its numbers by name and its colour; way: how it got there."""

    frame: int
    numbers: dict[str, float]
    colour: tuple[float, float, float] = _WHITE
    way: str = "linear"


@dataclass(frozen=True)
class Light:
    """One light: its kind, its numbers by name, its colour (red, green, blue in 0..1), and its keys."""

    kind: str
    numbers: dict[str, float]
    colour: tuple[float, float, float] = _WHITE
    keys: tuple[LightKey, ...] = ()

    def values(self, frames: int) -> tuple[dict[str, Tensor], Tensor]:
        """float64 [frames] of every number, by name, and float64 [frames, 3]: the colour at every frame."""
        names = list(_RANGES[self.kind])
        rows = torch.tensor(
            [[*(key.numbers[name] for name in names), *key.colour] for key in self.keys or (self,)],
            dtype=torch.float64,
        )
        if not self.keys:
            rows = rows.expand(frames, -1)
        else:
            before, after, part = between_keys(self.keys, frames)
            rows = rows[before] + (rows[after] - rows[before]) * part[:, None]
        return dict(zip(names, rows.unbind(1), strict=False)), rows[:, -3:]


def parse_lights(text: str, frames: int, name: str = "lights") -> tuple[Light, ...]:
    """Read the editor's JSON.

    Args:
        text: version 1 of the JSON at the top of this module; empty = no lights. Fields it does not know are ignored.
        frames: length of the clip; keys must lie in frames 0..frames - 1.
        name: how the messages call it, usually the input's name.

    Returns:
        The lights.

    Raises:
        ValueError: names the light and the key, what came and what was expected.
    """
    example = f'{{"version": {VERSION}, "lights": [...]}}'
    content = read_text(text, name, "Light Source", "lights", VERSION, example)
    if content is None:
        return ()
    lights = read_list(content, "lights", name)
    if len(lights) > MOST_LIGHTS:
        raise ValueError(f"{name}: there are {len(lights)} lights; at most {MOST_LIGHTS} can shine.")
    return tuple(_light(entry, f"{name}: light {number}", frames) for number, entry in enumerate(lights, start=1))


def light_maps(lights: tuple[Light, ...], frames: int, height: int, width: int, style: str = "fc") -> Tensor:
    """Draw the light that falls on a picture.

    With dark and bright the style's levels and v_k what light k gives a pixel, 0..1, a channel of colour c is

        floor(min(dark + (bright - dark) * sum_k v_k * intensity_k * c_k, bright)) / 255.

    A side light's v falls evenly along its direction, from 1 in the middle of the pixel of the picture that is nearest
    to it to 0 in that of the farthest. A point light's is (1 + (d / r)^2) ^ -falloff, with d the distance from its
    place and r its radius in shorter sides of the picture: falloff 1 is half as bright at r; 1.5 is what a lamp r
    above a matt sheet gives it.

    Args:
        lights: from ``parse_lights``; none = dark everywhere.
        frames, height, width: at least 1.
        style: one of ``STYLES``.

    Returns:
        float32 [frames, height, width, 3], 0..1, whole multiples of 1 / 255, on the CPU.

    Raises:
        ValueError: an unknown style, or a size or count below 1.
    """
    if style not in STYLES:
        raise ValueError(f"style: got {style!r}; expected one of {', '.join(STYLES)}.")
    if min(frames, height, width) < 1:
        raise ValueError(f"light maps: got {frames} frames of {width}x{height} pixels; expected at least 1 of each.")
    dark, bright = STYLES[style]
    moments = [light.values(frames) for light in lights]
    result = torch.empty(frames, height, width, 3)
    drawn = None
    for frame in range(frames):
        state = [
            ({name: float(values[frame]) for name, values in numbers.items()}, colours[frame].tolist())
            for numbers, colours in moments
        ]
        if state == drawn:  # nothing moved
            result[frame] = result[frame - 1]
            continue
        drawn = state
        level = torch.full((height, width, 3), float(dark), dtype=torch.float64)
        for light, (numbers, colour) in zip(lights, state, strict=True):
            draw = _DRAWN_BY[light.kind]
            given = draw(numbers, height, width, bright - dark) * numbers["intensity"]
            level += given[..., None] * torch.tensor(colour, dtype=torch.float64)
        result[frame] = level.clamp_(max=bright).floor_() / 255.0
    return result


def _side(numbers: dict[str, float], height: int, width: int, span: int) -> Tensor:
    """float64 [H, W]: span times v of a side light."""
    towards_x, towards_y = cos_and_sin(numbers["angle"])
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    reach = middle_x * abs(towards_x) + middle_y * abs(towards_y)
    x = torch.arange(width, dtype=torch.float64) - middle_x
    y = torch.arange(height, dtype=torch.float64) - middle_y
    away = reach - (x[None, :] * towards_x + y[:, None] * towards_y)
    # These operations in this order are numpy.linspace's, so that the four sides are its pictures bit for bit.
    return (span + away * (-span / (2 * reach) if reach > 0 else 0.0)).clamp(min=0.0)


def _point(numbers: dict[str, float], height: int, width: int, span: int) -> Tensor:
    """float64 [H, W]: span times v of a point light."""
    x = torch.arange(width, dtype=torch.float64) + (0.5 - numbers["x"] * width)
    y = torch.arange(height, dtype=torch.float64) + (0.5 - numbers["y"] * height)
    radius = numbers["radius"] * min(height, width)
    distance = (x.square()[None, :] + y.square()[:, None]) / (radius * radius)
    return span * (1.0 + distance) ** -numbers["falloff"]


_DRAWN_BY = {"side": _side, "point": _point}


def _light(entry: object, where: str, frames: int) -> Light:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {article(entry)}; expected an object with kind, colour, intensity and keys.")
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in _RANGES:
        raise ValueError(f'{where}: "kind" is {short(kind)}; expected one of {", ".join(_RANGES)}.')
    defaults = {name: default for name, (_, _, default) in _RANGES[kind].items()}
    light = Light(kind, _numbers(entry, where, kind, defaults), _colour(entry, where, _WHITE))
    return Light(
        kind, light.numbers, light.colour, read_keys(entry, where, lambda key, at: _key(key, at, frames, light))
    )


def _key(key: object, where: str, frames: int, light: Light) -> LightKey:
    if not isinstance(key, dict):
        fields = ", ".join(_RANGES[light.kind])
        raise ValueError(f"{where} is {article(key)}; expected an object with frame, {fields}, colour and way.")
    frame = read_frame(key, where, frames)
    numbers = _numbers(key, where, light.kind, light.numbers)
    return LightKey(frame, numbers, _colour(key, where, light.colour), read_way(key, where))


def _numbers(entry: dict, where: str, kind: str, defaults: dict[str, float]) -> dict[str, float]:
    return {
        name: read_number(entry.get(name, defaults[name]), f'{where}: "{name}"', low, high)
        for name, (low, high, _) in _RANGES[kind].items()
    }


def _colour(entry: dict, where: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    colour = entry.get("colour", default)
    where = f'{where}: "colour"'
    if isinstance(colour, str) and _HEX.fullmatch(colour):
        red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
        return red, green, blue
    if not isinstance(colour, (list, tuple)) or len(colour) != 3:
        raise ValueError(f'{where} is {short(colour)}; expected "#rrggbb", or [red, green, blue] in 0 to 1.')
    red, green, blue = (
        read_number(value, f"{where}: {channel}", 0, 1)
        for channel, value in zip(("red", "green", "blue"), colour, strict=True)
    )
    return red, green, blue
