"""A layout of blobs as pictures for people: ellipses tinted and outlined in their colours, with number and caption."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .blob_layout import BlobLayout
from .ellipses import boxes
from .match_picture import pair_colour

GROUND = (27, 29, 33)
"""Red, green and blue, 0..255, where no picture lies behind; the editor has the same."""

TINT = 0.32
"""How much of its colour an ellipse gives to what lies under it."""

_INK = (16, 17, 19)
_LINE = 1 / 240  # of the picture's shorter side
_TEXT = 1 / 26  # likewise; a tag is at most half as wide as the picture
_LONGEST = 120  # characters of a caption that a tag may try to show
_FINE = 2  # a tag's drawing's pixels to one of the picture's side, so that its rims are smooth
_BASE, _RING = 31, 9973


def blob_colour(name: str) -> tuple[int, int, int]:
    """Red, green and blue, 0..255, of the blob of an id, whatever its place in the order; the editor has the same."""
    number = 7
    for letter in name:
        number = (number * _BASE + ord(letter)) % _RING
    return pair_colour(number)


def covering(pictures: Tensor, height: int, width: int) -> Tensor:
    """Pictures scaled, sides kept, until they cover another size, their middle cut out of that.

    Args:
        pictures: float32 [B, h, w, 3], 0..1.
        height, width: of the result.

    Returns:
        float32 [B, height, width, 3].
    """
    down, across = pictures.shape[1:3]
    if (down, across) == (height, width):
        return pictures
    scale = min(down / height, across / width)
    high, wide = min(down, max(1, round(height * scale))), min(across, max(1, round(width * scale)))
    top, left = (down - high) // 2, (across - wide) // 2
    cut = pictures[:, top : top + high, left : left + wide].movedim(-1, 1)
    found = F.interpolate(cut, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return found.movedim(1, -1).clamp(0, 1)


def tinted(ground: Tensor, ellipses: Tensor, colours: Tensor, line: float, tint: float = TINT) -> Tensor:
    """Ellipses drawn over a picture, the last one on top.

    Args:
        ground: float32 [H, W, 3], 0..1.
        ellipses: [K, 5], see ``kernels/ellipses.py``.
        colours: float32 [K, 3], 0..1.
        line: how thick the outlines are, in pixels; the outer rim of each is a dark line half as thick.
        tint: 0..1, how much of its colour an ellipse gives to what lies under it.

    Returns:
        float32 [H, W, 3]; ``ground`` is left as it was. Outlines are smooth to the first order in the distance.

    Raises:
        ValueError: see ``check_ellipses``.
    """
    height, width = ground.shape[:2]
    drawn = ground.clone()
    room = 2 * line + 2
    places = (boxes(ellipses, height, width) * ellipses.new_tensor([width, height, width, height])).tolist()
    dark = ground.new_tensor(_INK) / 255
    for ellipse, colour, (left, top, right, bottom) in zip(ellipses, colours, places, strict=True):
        # Only what it touches is computed.
        left, right = max(math.floor(left - room), 0), min(math.ceil(right + room), width)
        top, bottom = max(math.floor(top - room), 0), min(math.ceil(bottom + room), height)
        if left >= right or top >= bottom:
            continue
        away = _signed_distance(ellipse, height, width, (left, top, right, bottom))
        inside = (0.5 - away).clamp(0, 1)
        ring, rim = _band(away, line), _band(away - 3 * line / 4, line / 2)
        part = drawn[top:bottom, left:right]
        for cover, ink in ((inside * tint, colour), (rim * 0.7, dark), (ring, colour)):
            part += (ink - part) * cover[..., None]
    return drawn


def _band(away: Tensor, thick: float) -> Tensor:
    """How much of each pixel lies in a band round distance 0."""
    return ((thick + 1) / 2 - away.abs()).clamp(0, min(1.0, thick))


def _signed_distance(ellipse: Tensor, height: int, width: int, window: tuple[int, int, int, int]) -> Tensor:
    """Pixels from the ellipse [5] in a window (left, top, right, bottom) of a picture, float32, negative inside.

    (f - 1) / |grad f|, with f the root of q of ``kernels/ellipses.py``.
    """
    left, top, right, bottom = window
    x, y, a, b, angle = ellipse.float()
    a, b = a * height, b * height
    dx = torch.arange(left, right, device=ellipse.device) + 0.5 - x * width
    dy = (torch.arange(top, bottom, device=ellipse.device)[:, None] + 0.5) - y * height
    u, v = (dx * angle.cos() + dy * angle.sin()) / a, (dy * angle.cos() - dx * angle.sin()) / b
    far = torch.hypot(u, v)
    slope = torch.hypot(u / a, v / b) / far.clamp_min(1e-6)
    return (far - 1) / slope.clamp_min(1e-6)


class BlobPictures:
    """Draws the frames of a layout.

    Args:
        layout: whose width and height the pictures have.
        device: where ellipses are drawn.
    """

    def __init__(self, layout: BlobLayout, device: torch.device | str = "cpu") -> None:
        self.layout = layout
        self.geometry = layout.geometry().to(device, torch.float32)
        self.presence = layout.presence()
        colours = [blob_colour(blob.id) for blob in layout.blobs]
        self.colours = torch.tensor(colours, dtype=torch.float32, device=device).reshape(-1, 3) / 255
        self._tags: dict[tuple[int, str], Tensor] = {}

    def frame(self, index: int, ground: Tensor | None = None) -> Tensor:
        """The picture of a frame.

        Args:
            index: 0..frames - 1.
            ground: float32 [height, width, 3], 0..1, what lies behind; None = a dark ground.

        Returns:
            float32 [1, height, width, 3] on the CPU.
        """
        width, height = self.layout.width, self.layout.height
        device = self.geometry.device
        if ground is None:
            ground = (torch.tensor(GROUND, device=device) / 255).expand(height, width, 3)
        here = self.presence[index]
        ellipses = self.geometry[index][here.to(device)]
        line = max(1.0, min(width, height) * _LINE)
        drawn = tinted(ground.to(device, torch.float32), ellipses, self.colours[here.to(device)], line).cpu()
        around = boxes(ellipses, height, width).cpu()
        numbers = here.nonzero()[:, 0].tolist()
        for number, ellipse, box in zip(numbers, ellipses.cpu(), around, strict=True):
            left, top, right, bottom = box.tolist()
            if right > 0 and bottom > 0 and left < 1 and top < 1:
                self._label(drawn, number, index, (float(ellipse[0]) * width, float(ellipse[1]) * height))
        return drawn[None]

    def _label(self, drawn: Tensor, number: int, frame: int, middle: tuple[float, float]) -> None:
        """Lays a blob's tag over its middle, inside the picture."""
        blob = self.layout.blobs[number]
        key = (number, blob.caption_at(frame))
        if key not in self._tags:
            self._tags[key] = _tag(number + 1, key[1], blob_colour(blob.id), drawn.shape[1], drawn.shape[0])
        tag = self._tags[key]
        high, wide = min(tag.shape[0], drawn.shape[0]), min(tag.shape[1], drawn.shape[1])
        left = min(max(round(middle[0] - wide / 2), 0), drawn.shape[1] - wide)
        top = min(max(round(middle[1] - high / 2), 0), drawn.shape[0] - high)
        part, tag = drawn[top : top + high, left : left + wide], tag[:high, :wide]
        part += (tag[..., :3] - part) * tag[..., 3:]


def _tag(number: int, caption: str, colour: tuple[int, int, int], width: int, height: int) -> Tensor:
    """Number and caption on their colour, float32 [h, w, 4]: red, green, blue and how much they cover."""
    import numpy
    from PIL import Image, ImageDraw, ImageFont

    size = max(9.0, min(width, height) * _TEXT) * _FINE
    font = ImageFont.load_default(size)
    most = max(width * _FINE / 2, 3 * size)
    text = whole = f"{number}  {' '.join(caption.split())[:_LONGEST]}".rstrip()
    shown = len(whole)
    while shown > len(str(number)) and font.getlength(text) > most:
        shown -= 1
        text = f"{whole[:shown].rstrip()}..."
    left, _, right, _ = font.getbbox(text)
    across, down = size * 0.4, size * 0.25
    wide, high = math.ceil(right - left + 2 * across), math.ceil(size + 2 * down)
    wide, high = wide + wide % _FINE, high + high % _FINE
    layer = Image.new("RGBA", (wide, high), (*colour, 0))
    draw = ImageDraw.Draw(layer)
    draw.rounded_rectangle((0, 0, wide - 1, high - 1), size * 0.3, fill=(*colour, 255))
    draw.text((across - left, high / 2), text, fill=(*_INK, 255), font=font, anchor="lm")
    layer = layer.resize((wide // _FINE, high // _FINE), Image.Resampling.BOX)
    return torch.from_numpy(numpy.array(layer)).float() / 255
