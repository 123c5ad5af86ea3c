"""The eight places: colour and contour lines as functions of the stage, which repeats every PERIOD units to the side.

The stage is a cylinder round the viewer, so the same functions give flat pictures and 360-degree panoramas.
"""

import math

import torch
from torch import Tensor

from demo.world.attributes import BACKGROUNDS
from demo.world.dress import coverage, over
from demo.world.shapes import by_kind, rounded_box

PERIOD = 8.0
"""Width of the whole stage: a flat picture, two units wide, looks at 90 of its 360 degrees."""


def wave(x: Tensor, turns: int, phase: float = 0.0) -> Tensor:
    """A sine that fits ``turns`` times into the stage."""
    return torch.sin(x * (2 * math.pi * turns / PERIOD) + phase)


def cells(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cut the stage into ``count`` columns: the column's number and the place in it, -1..1 of half its width."""
    scaled = (x % PERIOD) * (count / PERIOD)
    number = scaled.floor().clamp(max=count - 1)
    return number, (scaled - number) * 2 - 1


def scatter(number: Tensor, salt: float) -> Tensor:
    """A number in 0..1 for every cell number, the same on every device."""
    return ((number * 0.61803399 + salt * 0.7548777) % 1.0 + (number * number * 0.1316) % 1.0) % 1.0


class Canvas:
    """Paints one place: ``colour`` [N, 3, H, W] and ``line`` [N, H, W] at stage points x, y [N, H, W]."""

    def __init__(self, x: Tensor, y: Tensor, pixel: Tensor):
        self.x, self.y, self.pixel = x, y, pixel
        self.colour = torch.zeros(x.shape[0], 3, *x.shape[1:], device=x.device)
        self.line = torch.zeros_like(x)

    def rgb(self, values: tuple[float, float, float]) -> Tensor:
        return torch.tensor(values, device=self.x.device)[:, None, None]

    def fade(
        self, top: tuple[float, float, float], bottom: tuple[float, float, float], start: float, end: float
    ) -> None:
        """A vertical gradient over the whole picture, ``top`` above y = start, ``bottom`` below y = end."""
        amount = ((self.y - start) / (end - start)).clamp(0, 1)
        self.colour = over(self.colour + self.rgb(top) - self.colour, self.rgb(bottom), amount)

    def fill(
        self, distance: Tensor, colour: tuple[float, float, float], amount: float = 1.0, *, outline: bool = False
    ) -> None:
        """Paint where ``distance`` is negative."""
        covered = coverage(distance, self.pixel)
        self.colour = over(self.colour, self.rgb(colour), covered * amount)
        if outline:
            self.line = torch.maximum(self.line * (1 - covered), coverage(distance.abs() - 0.012, self.pixel))

    def dots(
        self, columns: int, spread: tuple[float, float], radius: float, colour: tuple[float, float, float], salt: float
    ) -> None:
        """One dot a column, at a height of its own within ``spread``."""
        number, place = cells(self.x, columns)
        width = PERIOD / columns / 2
        height = spread[0] + (spread[1] - spread[0]) * scatter(number, salt)
        offset = (scatter(number, salt + 3.3) - 0.5) * 0.9
        self.fill(torch.hypot((place - offset) * width, self.y - height) - radius, colour)


def meadow(c: Canvas) -> None:
    c.fade((0.56, 0.80, 0.97), (0.88, 0.96, 1.0), -1.2, 0.2)
    for centre, height, size in ((1.1, -0.62, 0.20), (3.6, -0.78, 0.16), (5.9, -0.55, 0.22)):
        along = (c.x - centre + PERIOD / 2) % PERIOD - PERIOD / 2
        puff = torch.hypot(along, c.y - height) - size
        puff = torch.minimum(puff, torch.hypot(along.abs() - size * 1.2, c.y - height - size * 0.35) - size * 0.62)
        c.fill(puff, (1.0, 1.0, 1.0), 0.85)
    c.fill(0.16 + 0.10 * wave(c.x, 3) + 0.05 * wave(c.x, 5, 1.0) - c.y, (0.67, 0.85, 0.55), outline=True)
    c.fill(0.50 + 0.08 * wave(c.x, 2, 2.0) + 0.03 * wave(c.x, 7) - c.y, (0.53, 0.77, 0.43), outline=True)
    c.dots(24, (0.66, 1.15), 0.040, (1.0, 0.93, 0.55), 0.2)
    c.dots(20, (0.68, 1.10), 0.036, (1.0, 1.0, 1.0), 0.7)


def beach(c: Canvas) -> None:
    c.fade((0.60, 0.86, 0.96), (0.97, 0.95, 0.86), -1.0, 0.1)
    c.fill(0.08 - c.y, (0.36, 0.70, 0.84), outline=True)
    c.fill((c.y - 0.24 - 0.015 * wave(c.x, 16)).abs() - 0.018, (0.62, 0.86, 0.93))
    c.fill(0.42 + 0.05 * wave(c.x, 4) + 0.02 * wave(c.x, 9, 1.0) - c.y, (0.99, 0.97, 0.92))
    c.fill(0.48 + 0.05 * wave(c.x, 4) + 0.02 * wave(c.x, 9, 1.0) - c.y, (0.95, 0.85, 0.64), outline=True)
    c.dots(18, (0.68, 1.1), 0.030, (0.86, 0.72, 0.52), 0.4)


def night(c: Canvas) -> None:
    c.fade((0.16, 0.18, 0.42), (0.42, 0.36, 0.64), -1.0, 0.7)
    c.dots(40, (-1.6, 0.0), 0.018, (1.0, 0.97, 0.80), 0.1)
    c.dots(28, (-1.4, 0.2), 0.026, (0.92, 0.92, 1.0), 0.6)
    along = (c.x - 0.9 + PERIOD / 2) % PERIOD - PERIOD / 2
    c.fill(torch.hypot(along, c.y + 0.66) - 0.17, (1.0, 0.95, 0.74), outline=True)
    c.fill(0.44 + 0.10 * wave(c.x, 3, 0.5) + 0.04 * wave(c.x, 6) - c.y, (0.25, 0.24, 0.48), outline=True)
    c.fill(0.66 + 0.07 * wave(c.x, 2, 3.0) - c.y, (0.20, 0.20, 0.40), outline=True)


def snow(c: Canvas) -> None:
    c.fade((0.70, 0.82, 0.94), (0.91, 0.94, 0.98), -1.0, 0.2)
    number, place = cells(c.x, 14)
    width, foot = PERIOD / 28, 0.36
    tall = 0.34 + 0.22 * scatter(number, 0.3)
    across = (place - (scatter(number, 0.9) - 0.5) * 0.4).abs() * width
    tree = torch.maximum((across * 2.6 - (c.y - foot + tall)) * 0.36, c.y - foot - 0.12)
    c.fill(tree, (0.55, 0.69, 0.72))
    c.fill(0.34 + 0.08 * wave(c.x, 3, 1.0) + 0.03 * wave(c.x, 7) - c.y, (0.90, 0.94, 0.99), outline=True)
    c.fill(0.60 + 0.07 * wave(c.x, 2) - c.y, (0.82, 0.88, 0.96), outline=True)
    c.dots(30, (-1.0, 0.9), 0.022, (1.0, 1.0, 1.0), 0.5)


def desert(c: Canvas) -> None:
    c.fade((0.98, 0.76, 0.55), (1.0, 0.92, 0.74), -1.0, 0.2)
    along = (c.x + 0.8 + PERIOD / 2) % PERIOD - PERIOD / 2
    c.fill(torch.hypot(along, c.y + 0.42) - 0.24, (1.0, 0.96, 0.80), outline=True)
    c.fill(0.20 + 0.14 * wave(c.x, 2, 1.0) + 0.06 * wave(c.x, 5) - c.y, (0.90, 0.68, 0.46), outline=True)
    c.fill(0.52 + 0.10 * wave(c.x, 3, 2.6) + 0.02 * wave(c.x, 8) - c.y, (0.84, 0.58, 0.37), outline=True)


def forest(c: Canvas) -> None:
    c.fade((0.78, 0.89, 0.76), (0.88, 0.94, 0.80), -1.0, 0.3)
    for count, half, colour, salt in ((22, 0.055, (0.66, 0.79, 0.66), 0.2), (13, 0.085, (0.50, 0.66, 0.53), 0.8)):
        number, place = cells(c.x, count)
        width = PERIOD / count / 2
        trunk = ((place - (scatter(number, salt) - 0.5) * 0.5) * width).abs() - half
        c.fill(trunk, colour, outline=count == 13)
    crown = -0.62 + 0.08 * wave(c.x, 13) + 0.05 * wave(c.x, 21, 1.0)
    c.fill(c.y - crown, (0.42, 0.60, 0.44), outline=True)
    c.fill(0.52 + 0.04 * wave(c.x, 6) + 0.02 * wave(c.x, 15, 1.0) - c.y, (0.44, 0.58, 0.36), outline=True)
    c.dots(22, (0.66, 1.1), 0.034, (0.62, 0.74, 0.48), 0.35)


def city(c: Canvas) -> None:
    c.fade((0.72, 0.78, 0.93), (0.99, 0.88, 0.84), -1.0, 0.4)
    for count, low, colour, salt in ((16, -0.35, (0.72, 0.70, 0.82), 0.15), (11, 0.0, (0.56, 0.55, 0.70), 0.55)):
        number, place = cells(c.x, count)
        width = PERIOD / count / 2
        top = low + 0.45 * scatter(number, salt)
        house = torch.maximum(place.abs() * width - width * 0.90, top - c.y)
        c.fill(house, colour, outline=count == 11)
        if count == 11:
            column = (place * 2.6 + 0.5) % 1.0 - 0.5
            row = (c.y / 0.20) % 1.0 - 0.5
            window = rounded_box(column * width / 2.6, row * 0.20, 0.036, 0.05, 0.01)
            inside = torch.maximum(torch.maximum(place.abs() * width - width * 0.70, top + 0.10 - c.y), window)
            c.fill(inside, (1.0, 0.92, 0.66))
    c.fill(0.62 - c.y, (0.62, 0.62, 0.68), outline=True)
    dash = torch.maximum((c.y - 0.84).abs() - 0.022, stripe_along(c.x, 16))
    c.fill(dash, (0.96, 0.95, 0.90))


def stripe_along(x: Tensor, count: int) -> Tensor:
    """Signed distance to ``count`` dashes round the stage, negative inside a dash."""
    return cells(x, count)[1].abs() * (PERIOD / count / 2) - PERIOD / count / 4


def room(c: Canvas) -> None:
    c.fade((0.95, 0.87, 0.79), (0.93, 0.82, 0.74), -1.0, 0.6)
    c.fill(stripe_along(c.x, 20), (0.97, 0.91, 0.84))
    for centre in (0.0, 4.0):
        along = (c.x - centre + PERIOD / 2) % PERIOD - PERIOD / 2
        frame = rounded_box(along, c.y + 0.42, 0.50, 0.38, 0.04)
        c.fill(frame - 0.07, (0.99, 0.98, 0.95), outline=True)
        c.fill(frame, (0.66, 0.84, 0.96), outline=True)
        c.fill(torch.maximum(torch.minimum(along.abs(), (c.y + 0.42).abs()) - 0.025, frame), (0.99, 0.98, 0.95))
    c.fill(0.56 - c.y, (0.99, 0.97, 0.93), outline=True)
    c.fill(0.63 - c.y, (0.79, 0.60, 0.44), outline=True)
    plank = torch.minimum((c.y - 0.80).abs(), (c.y - 1.05).abs()) - 0.010
    c.fill(plank, (0.70, 0.51, 0.36))


PLACES = {
    "meadow": meadow, "beach": beach, "night": night, "snow": snow,
    "desert": desert, "forest": forest, "city": city, "room": room,
}  # fmt: skip


def paint_backgrounds(background: Tensor, x: Tensor, y: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Colour and contour lines of each row's place.

    Args:
        background: int64 [N], indices into BACKGROUNDS.
        x, y: float32 [N, H, W], stage units, x already shifted by the scene's own amount.
        pixel: float32 [N, H, W], a pixel's size in stage units.

    Returns:
        float32 [N, 3, H, W] in 0..1, and float32 [N, H, W], 1 on a contour.
    """
    colour = torch.empty(x.shape[0], 3, *x.shape[1:], device=x.device)
    line = torch.empty_like(x)

    def draw(kind: int, rows: Tensor) -> None:
        canvas = Canvas(x[rows], y[rows], pixel[rows])
        PLACES[BACKGROUNDS[kind]](canvas)
        colour[rows], line[rows] = canvas.colour, canvas.line

    by_kind(background, len(BACKGROUNDS), draw)
    return colour, line
