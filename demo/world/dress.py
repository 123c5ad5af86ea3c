"""What covers a body: pattern, face and accessory, each as coverage and colour in character coordinates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from demo.world.attributes import ACCESSORIES, FACES, INK, PATTERNS, SHAPES
from demo.world.shapes import ANCHORS, by_kind, circle, polygon, rounded_box, segment

OUTLINE = 0.055
"""Half the width of a body's ink outline, in character units."""


def coverage(distance: Tensor, pixel: Tensor) -> Tensor:
    """How much of a pixel lies inside: 0..1, a ramp one pixel wide; ``pixel`` is its size in the distance's units."""
    return (0.5 - distance / pixel).clamp(0, 1)


def over(colour: Tensor, paint: Tensor, amount: Tensor) -> Tensor:
    """Lay ``paint`` (broadcast to [N, 3, H, W]) over ``colour`` [N, 3, H, W] by ``amount`` [N, H, W]."""
    return colour + (paint - colour) * amount[:, None]


def paint(*rgb: float) -> tuple[float, float, float]:
    """A colour, so that tables of colours read well."""
    return rgb


def stripe(w: Tensor, period: float) -> Tensor:
    """Signed distance to bands of half a ``period`` along ``w``: positive inside a band."""
    return ((w / period) % 1.0 - 0.5).abs() * period - period / 4


def pattern_distance(pattern: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Signed distance to the pattern's tinted parts: positive inside, -1 everywhere for ``plain``.

    Args:
        pattern: int64 [N], indices into PATTERNS.
        u, v: float32 [N, H, W], character coordinates.
    """
    distance = torch.full_like(u, -1.0)

    def draw(kind: int, rows: Tensor) -> None:
        a, b = u[rows], v[rows]
        match PATTERNS[kind]:
            case "striped":
                distance[rows] = stripe(a * 0.5 + b * 0.866, 0.52)
            case "dotted":
                row = torch.round(b / 0.46)
                across = (a / 0.52 + 0.5 * (row % 2)) % 1.0 - 0.5
                distance[rows] = 0.165 - torch.hypot(across * 0.52, b - row * 0.46)
            case "checkered":
                across, down = stripe(a + 0.14, 0.80), stripe(b + 0.14, 0.80)
                distance[rows] = torch.where(across * down > 0, 1.0, -1.0) * torch.minimum(across.abs(), down.abs())
            case "dipped":
                distance[rows] = b - 0.30 - 0.06 * torch.sin(6.0 * a)

    by_kind(pattern, len(PATTERNS), draw)
    return distance


def draw_faces(colour: Tensor, line: Tensor, face: Tensor, shape: Tensor, u: Tensor, v: Tensor, pixel: Tensor) -> None:
    """Draw each row's face onto ``colour`` [N, 3, H, W] and its strokes onto ``line`` [N, H, W], both in place."""
    centres = torch.tensor([[*ANCHORS[name].face, ANCHORS[name].face_size] for name in SHAPES], device=u.device)[shape]
    ink = INK.to(u.device)[:, None, None]
    white = torch.ones(3, 1, 1, device=u.device)
    blush = torch.tensor([0.98, 0.45, 0.50], device=u.device)[:, None, None]

    def draw(kind: int, rows: Tensor) -> None:
        size = centres[rows, 2][:, None, None]
        a = (u[rows] - centres[rows, 0][:, None, None]) / size
        b = (v[rows] - centres[rows, 1][:, None, None]) / size
        px = pixel[rows] / size
        picture, strokes = colour[rows], line[rows]
        side = a.abs()
        name = FACES[kind]
        if name != "angry":
            cheek = torch.hypot((side - 0.52) / 1.25, b - 0.20) - 0.085
            picture = over(picture, blush, coverage(cheek, px * 3) * 0.55)
        if name == "sleepy":
            lids = torch.where(b > -0.12, (torch.hypot(side - 0.29, b + 0.12) - 0.15).abs(), torch.full_like(b, 9.0))
            picture = over(picture, white, coverage(lids - 0.085, px))
            strokes = strokes * (1 - coverage(lids - 0.085, px))
            dark = lids - 0.045
        else:
            tall = 0.26 if name == "surprised" else 0.225
            eye = (torch.hypot((side - 0.29) / 0.80, b + 0.10) - tall) * 0.8
            look = -0.06 if name == "sad" else 0.04
            pupil = circle(side, b, 0.27, -0.10 - look, 0.105)
            picture = over(picture, ink, coverage(eye - 0.045, px))
            picture = over(picture, white, coverage(eye, px))
            dark = pupil
            strokes = strokes * (1 - coverage(eye - 0.03, px))
            strokes = torch.maximum(strokes, coverage((eye - 0.02).abs() - 0.02, px))
            if name == "angry":
                brow = segment(side, b, (0.08, -0.22), (0.52, -0.44)) - 0.065
                dark = torch.minimum(dark, brow)
        far = torch.full_like(b, 9.0)
        if name == "happy":
            mouth = torch.where(b > 0.20, (torch.hypot(a, b - 0.20) - 0.22).abs(), far) - 0.055
        elif name == "sad":
            mouth = torch.where(b < 0.46, (torch.hypot(a, b - 0.48) - 0.19).abs(), far) - 0.055
        elif name == "surprised":
            mouth = torch.hypot(a, (b - 0.38) / 1.25) - 0.13
        elif name == "sleepy":
            mouth = torch.hypot(a / 1.3, b - 0.32) - 0.07
        else:
            mouth = segment(a, b, (-0.20, 0.36), (0.20, 0.36)) - 0.055
        dark = torch.minimum(dark, mouth)
        picture = over(picture, ink, coverage(dark, px))
        if name != "sleepy":
            glint = circle(a - torch.sign(a) * 0.24, b, 0, -0.15, 0.04)
            picture = over(picture, white, coverage(glint, px) * coverage(pupil, px))
        colour[rows], line[rows] = picture, torch.maximum(strokes, coverage(dark, px))

    by_kind(face, len(FACES), draw)


@dataclass(frozen=True)
class Accessories:
    """Each row's accessory: distance [N, H, W] (9 where there is none), colour [N, 3, H, W], inner lines [N, H, W]."""

    distance: Tensor
    colour: Tensor
    line: Tensor


def accessories(accessory: Tensor, shape: Tensor, u: Tensor, v: Tensor, pixel: Tensor) -> Accessories:
    """Draw what each row wears.

    Args:
        accessory, shape: int64 [N], indices into ACCESSORIES and SHAPES.
        u, v: float32 [N, H, W], character coordinates.
        pixel: float32 [N, H, W] or broadcastable, a pixel's size in character units.
    """
    distance = torch.full_like(u, 9.0)
    colour = torch.zeros(u.shape[0], 3, *u.shape[1:], device=u.device)
    line = torch.zeros_like(u)
    table = torch.tensor(
        [
            [a.top, *a.face, a.face_size, a.neck, a.neck_width, *a.ear]
            for a in (ANCHORS[name] for name in SHAPES)
        ],
        device=u.device,
    )[shape]  # fmt: skip

    def rgb(*values: float) -> Tensor:
        return torch.tensor(values, device=u.device)[:, None, None]

    def draw(kind: int, rows: Tensor) -> None:
        top, face_u, face_v, face_size, neck, neck_width, ear_u, ear_v = (
            column[:, None, None] for column in table[rows].unbind(1)
        )
        a, b, px = u[rows], v[rows], pixel[rows]
        base = torch.zeros(rows.numel(), 3, *u.shape[1:], device=u.device)
        inner = torch.zeros_like(a)
        match ACCESSORIES[kind]:
            case "hat":
                b = b - top
                cone = polygon(a, b, [(-0.40, 0.02), (0.0, -0.74), (0.40, 0.02)]) - 0.04
                brim = rounded_box(a, b - 0.02, 0.56, 0.095, 0.095)
                pompom = circle(a, b, 0, -0.78, 0.13)
                whole = torch.minimum(torch.minimum(cone, brim), pompom)
                band = stripe(b + a * 0.35, 0.36)
                base = over(base + rgb(0.24, 0.30, 0.78), rgb(0.45, 0.80, 0.98), coverage(-band, px))
                base = over(base, rgb(1.0, 0.80, 0.22), coverage(torch.minimum(brim, pompom), px))
                inner = torch.maximum(coverage(brim.abs() - 0.02, px), coverage(band.abs() - 0.015, px))
            case "crown":
                b = b - top
                corners = [
                    (-0.50, 0.10),
                    (-0.58, -0.46),
                    (-0.27, -0.20),
                    (0.0, -0.58),
                    (0.27, -0.20),
                    (0.58, -0.46),
                    (0.50, 0.10),
                ]
                whole = polygon(a, b, corners) - 0.05
                base = over(base + rgb(1.0, 0.78, 0.14), rgb(0.90, 0.58, 0.06), coverage(0.0 - b, px) * 0.8)
                gem = torch.minimum(circle(a.abs(), b, 0.33, 0.04, 0.075), circle(a, b, 0, 0.03, 0.10))
                base = over(base, rgb(0.88, 0.12, 0.30), coverage(gem, px))
                inner = coverage(gem.abs() - 0.015, px)
            case "glasses":
                a, b = (a - face_u) / face_size, (b - face_v) / face_size
                px = px / face_size
                lens = rounded_box(a.abs() - 0.33, b + 0.10, 0.285, 0.235, 0.17)
                bridge = rounded_box(a, b + 0.16, 0.75, 0.045, 0.04)
                whole = torch.minimum(lens - 0.075, bridge)
                base = over(base + rgb(0.98, 0.97, 0.95), rgb(0.13, 0.13, 0.22), coverage(lens, px))
                glare = torch.maximum(lens + 0.05, stripe(a.abs() - 0.20 + b * 0.8, 0.44) - 0.045)
                base = over(base, rgb(0.50, 0.62, 0.85), coverage(glare, px))
                inner = coverage(lens.abs() - 0.02, px)
                whole = whole * face_size
            case "bow":
                a, b = a - ear_u, b - ear_v
                wing = polygon(a.abs(), b, [(0.02, 0.0), (0.40, -0.27), (0.40, 0.27)]) - 0.08
                knot = circle(a, b, 0, 0, 0.145)
                whole = torch.minimum(wing, knot)
                base = over(base + rgb(0.93, 0.13, 0.45), rgb(1.0, 0.66, 0.80), coverage(knot, px))
                inner = coverage(knot.abs() - 0.025, px)
            case "scarf":
                bend = b - neck - 0.10 + 0.16 * (a / neck_width) ** 2
                wrap = torch.maximum(bend.abs() - 0.135, a.abs() - neck_width - 0.05)
                tail = rounded_box(a + 0.34 * neck_width / 0.6, bend - 0.30, 0.135, 0.30, 0.03)
                whole = torch.minimum(wrap, tail) - 0.02
                band = torch.where(wrap < tail, stripe(a, 0.34), stripe(bend, 0.30))
                base = over(base + rgb(0.86, 0.15, 0.18), rgb(0.99, 0.95, 0.86), coverage(-band, px))
                inner = torch.maximum(
                    coverage(torch.maximum(band.abs() - 0.012, whole), px),
                    coverage(torch.maximum(wrap.abs() - 0.02, tail), px),
                )
            case _:
                return
        distance[rows], colour[rows], line[rows] = whole, base, inner

    by_kind(accessory, len(ACCESSORIES), draw)
    return Accessories(distance, colour, line)
