"""Pictures side by side with captions under them, as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PAPER, INK = 1.0, 0.1
"""Grey levels of the ground and of the text."""


def contact_sheet(pictures: Sequence[Tensor], captions: Sequence[str], *, columns: int = 0, gap: int = 8) -> Tensor:
    """Draws a sheet.

    Args:
        pictures: N of float32 [H, W, 3] in 0..1; all are drawn at the first one's size, letters and all, a picture of
            another shape with paper left and right or above and below.
        captions: N texts; a long one is broken into lines, and what exceeds four lines is cut. If all are empty there
            is no room for them.
        columns: pictures in a row; 0 chooses: up to 5 in one row, more in rows of nearly equal length.
        gap: pixels between pictures and round the sheet.

    Returns:
        float32 [1, H', W', 3] on the CPU.

    Raises:
        ValueError: no pictures, shapes that are no pictures, or another number of captions.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(
            f"expected as many captions as pictures, at least one; got {len(pictures)} and {len(captions)}"
        )
    for picture in pictures:
        if picture.ndim != 3 or picture.shape[-1] < 3 or 0 in picture.shape:
            raise ValueError(f"a picture must have shape [height, width, 3]; got {list(picture.shape)}")
    count = len(pictures)
    if columns <= 0:
        columns = count if count <= 5 else math.ceil(count / math.ceil(count / 5))
    columns = min(columns, count)
    height, width = pictures[0].shape[:2]
    texts = [_caption(text, width) for text in captions]
    below = max((text.shape[0] for text in texts), default=0)
    rows = math.ceil(count / columns)
    sheet = torch.full((rows * (height + below + gap) + gap, columns * (width + gap) + gap, 3), PAPER)
    for number, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        top = gap + number // columns * (height + below + gap)
        left = gap + number % columns * (width + gap)
        sheet[top : top + height, left : left + width] = _fit(picture[..., :3].detach().float().cpu(), height, width)
        sheet[top + height : top + height + text.shape[0], left : left + width] = text[..., None]
    return sheet[None]


def _fit(picture: Tensor, height: int, width: int) -> Tensor:
    """A picture at another size, its shape kept, on paper."""
    if picture.shape[:2] == (height, width):
        return picture.clamp(0, 1)
    scale = min(height / picture.shape[0], width / picture.shape[1])
    size = [max(1, round(length * scale)) for length in picture.shape[:2]]
    found = torch.nn.functional.interpolate(
        picture.movedim(-1, 0)[None], size=size, mode="bilinear", antialias=True, align_corners=False
    )[0].movedim(0, -1)
    sheet = torch.full((height, width, 3), PAPER)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    sheet[top : top + size[0], left : left + size[1]] = found.clamp(0, 1)
    return sheet


def _caption(text: str, width: int) -> Tensor:
    """A text as wide as a picture, float32 [h, width]; h is 0 for an empty one."""
    import numpy
    from PIL import Image, ImageDraw, ImageFont

    text = " ".join(text.split())
    if not text:
        return torch.zeros(0, width)
    size = max(10, round(width / 14))
    font = ImageFont.load_default(size)
    lines = _break(text, width - 4, font.getlength)
    step = round(size * 1.3)
    picture = Image.new("L", (width, step * len(lines) + size // 2), round(PAPER * 255))
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((2, size // 4 + number * step), line, fill=round(INK * 255), font=font)
    return torch.from_numpy(numpy.array(picture)).float() / 255


def _break(text: str, width: int, length, limit: int = 4) -> list[str]:
    """Lines no wider than ``width``, words kept whole where they fit, at most ``limit`` of them."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if length(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        while length(word) > width and len(word) > 1:
            fitting = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or length(word[:n]) <= width)
            lines[-1], word = word[:fitting], word[fitting:]
            lines.append("")
        lines[-1] = word
    if len(lines) > limit:
        lines = [*lines[: limit - 1], lines[limit - 1].rstrip(".,") + "..."]
    return lines
