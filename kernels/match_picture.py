"""Two pictures side by side with the points that belong together: numbered, in colours, joined by thin lines."""

from __future__ import annotations

import colorsys

import torch
import torch.nn.functional as F
from torch import Tensor

from .contact_sheet import PAPER
from .matched_points import Pairs

HEIGHTS = (384, 1024)
"""Least and most pixels down: numbers stay readable on small pictures, large ones stay a preview."""

MOST_ACROSS = 4096
GAP = 8
_FINE = 2  # the drawing's pixels to one of the picture's side, so that its rims are smooth
_TURN = 137.508 / 360  # of the circle of hues from a number to the next: neighbours differ, and none comes back soon
_SATURATION, _LIGHTNESS = 0.85, 0.62
_DARK = (16, 17, 19)


def pair_colour(number: int) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, of the pair of a number, from 1 on; the editor has the same."""
    parts = colorsys.hls_to_rgb((number - 1) * _TURN % 1, _LIGHTNESS, _SATURATION)
    return tuple(round(part * 255) for part in parts)


def match_picture(reference: Tensor, target: Tensor, pairs: Pairs) -> Tensor:
    """Draws them.

    Args:
        reference, target: float32 [H, W, 3] in 0..1, of any two sizes; both are drawn at one height, that of the higher
            one within ``HEIGHTS``, lower where they would be wider than ``MOST_ACROSS`` together.
        pairs: of this frame.

    Returns:
        float32 [1, H', W', 3] on the CPU, the reference on the left.

    Raises:
        ValueError: shapes that are no pictures.
    """
    for picture in (reference, target):
        if picture.ndim != 3 or picture.shape[-1] < 3 or 0 in picture.shape:
            raise ValueError(f"a picture must have shape [height, width, 3]; got {list(picture.shape)}")
    across = sum(picture.shape[1] / picture.shape[0] for picture in (reference, target))
    height = min(max(reference.shape[0], target.shape[0], HEIGHTS[0]), HEIGHTS[1])
    height = max(1, min(height, int(MOST_ACROSS / across)))
    shown = [_scaled(picture, height) for picture in (reference, target)]
    gap = torch.full((height, GAP, 3), PAPER)
    sheet = torch.cat([shown[0], gap, shown[1]], dim=1)
    lefts = (0, shown[0].shape[1] + GAP)
    places = [
        [(left + x * picture.shape[1], y * height) for x, y in points.tolist()]
        for left, picture, points in zip(lefts, shown, (pairs.reference, pairs.target), strict=True)
    ]
    if len(pairs):
        drawn = _drawing(places, sheet.shape[1], height)
        sheet = sheet + (drawn[..., :3] - sheet) * drawn[..., 3:]
    return sheet[None]


def _scaled(picture: Tensor, height: int) -> Tensor:
    """A picture at another height, its shape kept."""
    picture = picture[..., :3].detach().float().cpu().clamp(0, 1)
    size = (height, max(1, round(picture.shape[1] * height / picture.shape[0])))
    if tuple(picture.shape[:2]) == size:
        return picture
    planes = picture.movedim(-1, 0)[None]
    found = F.interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return found[0].movedim(0, -1).clamp(0, 1)


def _drawing(places: list[list[tuple[float, float]]], width: int, height: int) -> Tensor:
    """Lines, rings and numbers, float32 [height, width, 4]: red, green, blue and how much they cover.

    Args:
        places: of the reference's points and of the target's on the sheet, [x, y] in pixels.
        width, height: of the sheet.
    """
    import numpy
    from PIL import Image, ImageDraw, ImageFont

    layer = Image.new("RGBA", (width * _FINE, height * _FINE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    unit = height * _FINE / 384
    radius, line = 6 * unit, max(1, round(1.2 * unit))
    font = ImageFont.load_default(max(8, 13 * unit))
    fine = [[(x * _FINE, y * _FINE) for x, y in side] for side in places]
    for number, ends in enumerate(zip(*fine, strict=True), start=1):
        draw.line(ends, fill=(*_DARK, 150), width=3 * line)
        draw.line(ends, fill=(*pair_colour(number), 255), width=round(1.5 * line))
    for number, ends in enumerate(zip(*fine, strict=True), start=1):
        colour = pair_colour(number)
        for x, y in ends:
            for far, ink, thick in ((radius + line, _DARK, 4 * line), (radius, colour, 2 * line)):
                draw.ellipse((x - far, y - far, x + far, y + far), outline=(*ink, 255), width=thick)
            draw.ellipse((x - line, y - line, x + line, y + line), fill=(*colour, 255))
            _tag(draw, font, str(number), (x, y), radius + line, colour, layer.size)
    layer = layer.resize((width, height), Image.Resampling.BOX)
    return torch.from_numpy(numpy.array(layer)).float() / 255


def _tag(draw, font, text: str, at: tuple[float, float], away: float, colour: tuple, size: tuple[int, int]) -> None:
    """A number on its colour, above and to the right of its point, on the other side where there is no room."""
    left, top, right, bottom = font.getbbox(text)
    padding = (bottom - top) * 0.35
    wide, high = right - left + 2 * padding, bottom - top + 2 * padding
    x, y = at[0] + away * 0.8, at[1] - away * 0.8 - high
    x = x if x + wide <= size[0] else at[0] - away * 0.8 - wide
    y = y if y >= 0 else at[1] + away * 0.8
    draw.rounded_rectangle((x, y, x + wide, y + high), padding, fill=(*colour, 255), outline=(*_DARK, 255), width=2)
    draw.text((x + padding - left, y + padding - top), text, fill=(*_DARK, 255), font=font)
