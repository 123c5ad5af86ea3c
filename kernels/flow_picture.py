"""A flow as a picture: hue = direction, saturation = speed, white = rest, with a legend in the corner.

The colours are those of the Middlebury benchmark: Baker, Scharstein, Lewis, Roth, Black, Szeliski: A Database and
Evaluation Methodology for Optical Flow, IJCV 2011. Drawn from its description.
"""

import math

import torch
from torch import Tensor

from .flow import check_vectors

# The wheel's corner colours and how many steps lead from each to the next: the eye tells reds and blues apart better
# than greens, so these get more steps.
_CORNERS = (
    ((1.0, 0.0, 0.0), 15),  # red to yellow
    ((1.0, 1.0, 0.0), 6),  # yellow to green
    ((0.0, 1.0, 0.0), 4),  # green to cyan
    ((0.0, 1.0, 1.0), 11),  # cyan to blue
    ((0.0, 0.0, 1.0), 13),  # blue to magenta
    ((1.0, 0.0, 1.0), 6),  # magenta to red
)
_DARKEST = 0.6  # brightness of what is twice as fast as the scale or faster
_SMALLEST_SCALE = 0.1  # pixels; slower clips are not blown up to full colour
_HUES = 55 * 128  # directions; neighbours differ by less than one of 256 levels
_SMALLEST_LEGEND = 96  # pixels; smaller pictures have no room for one


def color_wheel(device=None) -> Tensor:
    """float32 [55, 3], red first, then yellow, green, cyan, blue, magenta."""
    colors = []
    for index, (corner, steps) in enumerate(_CORNERS):
        following = _CORNERS[(index + 1) % len(_CORNERS)][0]
        for step in range(steps):
            part = step / steps
            colors.append([a + (b - a) * part for a, b in zip(corner, following, strict=True)])
    return torch.tensor(colors, dtype=torch.float32, device=device)


def flow_to_image(vectors: Tensor, *, max_magnitude: float | None = None, legend: bool = True) -> Tensor:
    """Paint a flow.

    Args:
        vectors: float32 [N, 2, H, W], pixels.
        max_magnitude: the speed (pixels per frame) that gets full colour, one scale for all frames; faster pixels
            get darker. None = the 99th percentile of the clip, at least 0.1.
        legend: draw the wheel with its scale in the lower right corner (left out below 96 pixels).

    Returns:
        float32 [N, H, W, 3] in 0..1, on the flow's device.

    Raises:
        ValueError: not a flow, or a scale that is not a positive number.
    """
    check_vectors(vectors)
    if max_magnitude is None:
        max_magnitude = typical_maximum(vectors)
    max_magnitude = float(max_magnitude)
    if not (math.isfinite(max_magnitude) and max_magnitude > 0):
        raise ValueError(f"max_magnitude: got {max_magnitude:g}; expected a positive number of pixels.")
    hues = _fine_wheel(vectors.device)
    picture = torch.stack([_paint(frame, max_magnitude, hues) for frame in vectors])
    height, width = vectors.shape[2:]
    if legend and min(height, width) >= _SMALLEST_LEGEND:
        patch, alpha = _legend(min(height, width), max_magnitude)
        patch, alpha = patch.to(picture), alpha.to(picture)
        picture[:, -patch.shape[0] :, -patch.shape[1] :].lerp_(patch, alpha)
    return picture


def typical_maximum(vectors: Tensor) -> float:
    """The 99th percentile of the speed over all pixels of all frames (about a million of them), at least 0.1 pixels."""
    speed = vectors.square().sum(dim=1).sqrt().flatten()
    speed = speed[:: max(1, speed.numel() // 1_000_000)]
    place = max(1, min(speed.numel(), math.ceil(0.99 * speed.numel())))
    return max(_SMALLEST_SCALE, float(speed.kthvalue(place).values))


def _fine_wheel(device=None) -> Tensor:
    """float32 [_HUES, 3]: the wheel with its colours blended, one entry for each direction that can be told apart."""
    wheel = color_wheel(device)
    place = torch.arange(_HUES, device=device) * (wheel.shape[0] / _HUES)
    first = place.long()
    return torch.lerp(wheel[first], wheel[(first + 1) % wheel.shape[0]], (place - first).unsqueeze(-1))


def _paint(vectors: Tensor, scale: float, hues: Tensor) -> Tensor:
    """float32 [2, H, W] -> [H, W, 3]."""
    dx, dy = vectors[0] / scale, vectors[1] / scale
    speed = (dx * dx + dy * dy).sqrt()
    place = (torch.atan2(-dy, -dx) * (_HUES / (2 * math.pi)) + (_HUES / 2 + 0.5)).long() % _HUES
    slow = speed <= 1.0
    # white fades into the hue up to the scale, the hue darkens beyond it
    share = torch.where(slow, speed, 1.0 - (speed - 1.0).clamp(0, 1) * (1.0 - _DARKEST)).unsqueeze(-1)
    white = torch.where(slow, 1.0 - speed, torch.zeros_like(speed)).unsqueeze(-1)
    return torch.addcmul(white, hues.index_select(0, place.reshape(-1)).view(*place.shape, 3), share)


def _legend(edge: int, scale: float) -> tuple[Tensor, Tensor]:
    """The legend's picture [h, w, 3] and its opacity [h, w, 1]: the wheel, and under it the speed at its rim.

    ``edge`` is the shorter edge of the picture it is for.
    """
    radius = max(11, round(edge * 0.075))
    margin = max(3, radius // 4)
    text = _text(f"{scale:.3g} px", max(9, round(radius * 0.5)))
    text_height, text_width = (0, 0) if text is None else text.shape
    panel_width = max(2 * radius, text_width) + 2 * margin
    panel_height = 2 * radius + 2 * margin + (0 if text is None else text_height + margin)

    # The panel: a translucent dark rounded plate, so that wheel and number stay readable on any colour.
    x = torch.arange(panel_width, dtype=torch.float32) + 0.5
    y = (torch.arange(panel_height, dtype=torch.float32) + 0.5).unsqueeze(1)
    corner = float(margin + 1)
    outer_x = (x - panel_width / 2).abs() - (panel_width / 2 - corner)
    outer_y = (y - panel_height / 2).abs() - (panel_height / 2 - corner)
    outside = (outer_x.clamp(min=0).square() + outer_y.clamp(min=0).square()).sqrt() - corner
    alpha = (0.5 - outside).clamp(0, 1) * 0.62
    patch = torch.full((panel_height, panel_width, 3), 0.08)

    away_x, away_y = x - panel_width / 2, y - (margin + radius)
    distance = (away_x.square() + away_y.square()).sqrt()
    arrows = torch.stack([away_x.expand_as(distance), away_y.expand_as(distance)])
    wheel = _paint(arrows.clamp(-2 * radius, 2 * radius), float(radius), _fine_wheel()).clamp(0, 1)
    wheel = torch.where((distance > radius).unsqueeze(-1), 1.0, wheel)
    disc = (radius + 0.5 - distance).clamp(0, 1)
    rim = (1.0 - (distance - radius + 0.5).abs()).clamp(0, 1)
    patch = torch.lerp(patch, wheel, disc.unsqueeze(-1))
    patch = torch.lerp(patch, torch.full_like(patch, 0.97), rim.unsqueeze(-1))
    alpha = torch.maximum(alpha, disc)
    if text is not None:
        top, left = 2 * radius + 2 * margin, (panel_width - text_width) // 2
        spot = patch[top : top + text_height, left : left + text_width]
        spot.lerp_(torch.full_like(spot, 0.97), text.unsqueeze(-1))
        alpha[top : top + text_height, left : left + text_width] = torch.maximum(
            alpha[top : top + text_height, left : left + text_width], text
        )
    # Keep off the picture's edge.
    gap = max(2, margin // 2)
    return torch.nn.functional.pad(patch, (0, 0, 0, gap, 0, gap)), torch.nn.functional.pad(
        alpha.unsqueeze(-1), (0, 0, 0, gap, 0, gap)
    )


def _text(words: str, size: int) -> Tensor | None:
    """Opacity [h, w] of a line of text about ``size`` pixels high, or None without Pillow."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        return None
    try:
        font = ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size only
        font = ImageFont.load_default()
    left, top, right, bottom = (int(edge) for edge in font.getbbox(words))
    image = Image.new("L", (max(1, right - left), max(1, bottom - top)), 0)
    ImageDraw.Draw(image).text((-left, -top), words, fill=255, font=font)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width).to(torch.float32) / 255.0
