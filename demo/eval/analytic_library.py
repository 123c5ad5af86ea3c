"""What the analytic reader compares pictures with, computed from the world's own formulas: nothing here is trained.

Everything is in character coordinates (demo/world/shapes.py), in which a look is the same wherever it stands: points on
each outline, points on each body with their colours in every look and light, points on each accessory with theirs.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.world.attributes import ACCESSORIES, COLOURS, FACES, INK, PALETTE, PATTERNS, SHAPES, TINTS
from demo.world.dress import OUTLINE, accessories, coverage, draw_faces, over, pattern_distance
from demo.world.render import BEVEL, rounded_normal, shade
from demo.world.shapes import signed_distance

SEARCH_SIZE = 64
"""Side in pixels of the picture in which outlines are first looked for."""

SIZE_GROUPS = 4
"""Within a shape, outlines of so many ranges of size are looked for side by side."""

LENGTH_POWER = 0.3
"""Of two outlines with as much ink to each of their length, the longer one tells more: by its radius to this power."""

AZIMUTHS = 24
HEIGHTS = (0.58, 0.77)
CONTOUR_POINTS, BODY_POINTS, WORN_POINTS = 96, 288, 128
LOOKS = len(COLOURS) * len(PATTERNS)
TYPICAL_PIXEL = 1 / 26
"""A pixel in character units, for the soft edges of patterns and accessories."""


@dataclass(frozen=True)
class Library:
    """See the module. S = 10 shapes, A = 6 accessories, L = AZIMUTHS * HEIGHTS lights, the azimuth slowest."""

    contour: Tensor  # float32 [S, CONTOUR_POINTS, 2], on the outline
    outward: Tensor  # float32 [S, CONTOUR_POINTS, 2], unit vectors out of the body
    body: Tensor  # float32 [S, BODY_POINTS, 2], on the body, off face and outline
    under: Tensor  # bool [S, A, BODY_POINTS], hidden by the accessory
    looks: Tensor  # float32 [S, LOOKS * L, BODY_POINTS * 3], RGB of each look (colour slowest) in each light
    looks_squared: Tensor  # float32, the same squared
    worn: Tensor  # float32 [S, A, WORN_POINTS, 2], on the accessory
    worn_colours: Tensor  # float32 [S, A, AZIMUTHS, WORN_POINTS, 3]
    templates: Tensor  # complex64 [T, SEARCH_SIZE, SEARCH_SIZE // 2 + 1], conjugated spectra
    template_shape: Tensor  # int64 [T]
    template_group: Tensor  # int64 [T], sorted: templates of one shape and about one size
    template_radius: Tensor  # float32 [T], stage units
    template_angle: Tensor  # float32 [T], radians


def mesh(reach: float, size: int) -> tuple[Tensor, Tensor]:
    """u and v [1, size, size] over -reach..reach."""
    axis = torch.linspace(-reach, reach, size)
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return u[None], v[None]


def light_vectors() -> Tensor:
    """float32 [L, 3]: unit vectors to the light, x right, y down, z to the viewer."""
    azimuth = torch.arange(AZIMUTHS)[:, None] * (2 * math.pi / AZIMUTHS)
    height = torch.tensor(HEIGHTS)[None]
    flat = height.cos()
    return torch.stack((flat * azimuth.cos(), flat * azimuth.sin(), height.sin().expand(AZIMUTHS, -1)), -1).flatten(
        0, 1
    )


def some_of(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of ``count`` True places of a flat mask, each as often as the next."""
    places = mask.flatten().nonzero()[:, 0]
    repeats = math.ceil(count / places.numel())
    order = torch.cat([torch.randperm(places.numel(), generator=generator) for _ in range(repeats)])
    return places[order[:count]]


def contour_points(shape: int, count: int) -> tuple[Tensor, Tensor]:
    """Points spread evenly over a body's edge, and the directions out of it."""
    u, v = mesh(1.25, 600)
    step = 2.5 / 599
    distance = signed_distance(torch.tensor([shape]), u, v)[0]
    slope = torch.stack(torch.gradient(distance, spacing=step)[::-1], -1)
    slope = slope / slope.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    near = (distance.abs() < step).flatten().nonzero()[:, 0]
    place = torch.stack((u[0], v[0]), -1).flatten(0, 1)[near]
    outward = slope.flatten(0, 1)[near]
    place = place - outward * distance.flatten()[near][:, None]
    chosen = [0]
    gap = (place - place[0]).norm(dim=1)
    while len(chosen) < count:  # the farthest from all so far
        chosen.append(int(gap.argmax()))
        gap = torch.minimum(gap, (place - place[chosen[-1]]).norm(dim=1))
    return place[chosen], outward[chosen]


def face_area(shape: int, u: Tensor, v: Tensor) -> Tensor:
    """bool [H, W]: where any of the faces paints."""
    area = torch.zeros(u.shape[1:], dtype=torch.bool)
    pixel = torch.full((1, 1, 1), TYPICAL_PIXEL)
    for face in range(len(FACES)):
        colour, line = torch.full((1, 3, *u.shape[1:]), 0.5), torch.zeros_like(u)
        draw_faces(colour, line, torch.tensor([face]), torch.tensor([shape]), u, v, pixel)
        area |= (colour[0] - 0.5).abs().amax(0) > 0.02
    return area


def body_looks(shape: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Library's body, under and looks for one shape."""
    u, v = mesh(1.1, 221)
    kind = torch.tensor([shape])
    distance = signed_distance(kind, u, v)
    chosen = some_of((distance[0] < -0.10) & ~face_area(shape, u, v), BODY_POINTS, generator)

    def at(values: Tensor) -> Tensor:
        return values.flatten(-2)[..., chosen]

    place = torch.stack((at(u[0]), at(v[0])), -1)
    normal = at(rounded_normal(distance, BEVEL)[0])  # [3, P]
    pixel = torch.full((1, 1, 1), TYPICAL_PIXEL)
    hidden = torch.zeros(len(ACCESSORIES), BODY_POINTS, dtype=torch.bool)
    for worn in range(1, len(ACCESSORIES)):
        hidden[worn] = at(accessories(torch.tensor([worn]), kind, u, v, pixel).distance[0]) < 0.07
    albedo = []
    for pattern in range(len(PATTERNS)):
        tint = at(coverage(-pattern_distance(torch.tensor([pattern]), u, v), pixel)[0])  # [P]
        albedo.append(PALETTE[:, :, None] + (TINTS - PALETTE)[:, :, None] * tint)
    albedo = torch.stack(albedo, 1).flatten(0, 1)  # [LOOKS, 3, P]
    lights = light_vectors()
    count = lights.shape[0]
    lit = shade(
        albedo[:, None].expand(-1, count, -1, -1).reshape(-1, 3, 1, BODY_POINTS),
        normal[None, :, None].expand(LOOKS * count, -1, -1, -1),
        lights[None].expand(LOOKS, -1, -1).reshape(-1, 3),
    )
    return place, hidden, lit[:, :, 0].transpose(1, 2).reshape(LOOKS * count, -1)


def worn_looks(shape: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Library's worn and worn_colours for one shape."""
    u, v = mesh(1.75, 281)
    pixel = torch.full((1, 1, 1), TYPICAL_PIXEL)
    lights = light_vectors().view(AZIMUTHS, len(HEIGHTS), 3).mean(1)
    lights = lights / lights.norm(dim=1, keepdim=True)
    places = torch.zeros(len(ACCESSORIES), WORN_POINTS, 2)
    colours = torch.zeros(len(ACCESSORIES), AZIMUTHS, WORN_POINTS, 3)
    for kind in range(1, len(ACCESSORIES)):
        worn = accessories(torch.tensor([kind]), torch.tensor([shape]), u, v, pixel)
        chosen = some_of(worn.distance[0] < 0.02, WORN_POINTS, generator)
        places[kind] = torch.stack((u.flatten()[chosen], v.flatten()[chosen]), -1)
        normal = rounded_normal(worn.distance, 0.16)
        edge = coverage(worn.distance.abs() - OUTLINE * 0.7, pixel)
        lit = shade(worn.colour.expand(AZIMUTHS, -1, -1, -1), normal.expand(AZIMUTHS, -1, -1, -1), lights)
        lit = over(lit, INK[:, None, None], edge.expand(AZIMUTHS, -1, -1))
        colours[kind] = lit.flatten(2)[..., chosen].transpose(1, 2)
    return places, colours


def outline_templates(radii: Tensor, angles: Tensor) -> tuple[Tensor, ...]:
    """Library's templates: how much more ink there is on an outline than just beside it, as correlation kernels."""
    axis = torch.arange(SEARCH_SIZE) - SEARCH_SIZE // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pixel = 2 / SEARCH_SIZE
    spectra, shapes, groups, sizes, turns = [], [], [], [], []
    size_group = torch.arange(radii.numel()) * SIZE_GROUPS // radii.numel()
    for shape in range(len(SHAPES)):
        some = angles[:1] * 0 if SHAPES[shape] == "ball" else angles
        radius = radii[:, None].expand(-1, some.numel()).flatten()
        angle = some.repeat(radii.numel())
        scale = (pixel / radius)[:, None, None]
        cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
        distance = signed_distance(
            torch.full((radius.numel(),), shape), (x * cos + y * sin) * scale, (y * cos - x * sin) * scale
        )
        half = OUTLINE + 0.35 * scale
        weight = torch.zeros_like(distance)
        for centre, amount in ((0.0, 1.0), (2.3, -0.6), (-2.3, -0.4)):
            band = (1.4 - (distance / half - centre).abs()).clamp(0, 1)
            weight += amount * band / band.sum((-2, -1), keepdim=True)
        weight *= (radius / radii.max())[:, None, None] ** LENGTH_POWER
        weight = torch.roll(weight, (-(SEARCH_SIZE // 2),) * 2, (-2, -1))
        spectra.append(torch.fft.rfft2(weight).conj())
        shapes.append(torch.full((radius.numel(),), shape))
        groups.append(shape * SIZE_GROUPS + size_group.repeat_interleave(some.numel()))
        sizes.append(radius)
        turns.append(angle)
    return torch.cat(spectra).resolve_conj(), torch.cat(shapes), torch.cat(groups), torch.cat(sizes), torch.cat(turns)


@functools.cache
def library(device: str, smallest: float, largest: float, widest: float) -> Library:
    """The library on a device.

    Args:
        device: its name.
        smallest, largest: radii that are looked for, stage units.
        widest: largest angle to either side, radians.
    """
    generator = torch.Generator().manual_seed(0)
    steps = round(math.log(largest / smallest) / 0.075) + 1
    radii = torch.exp(torch.linspace(math.log(smallest), math.log(largest), steps))
    angles = torch.linspace(-widest, widest, 2 * round(widest / 0.14) + 1)
    contour, outward = zip(*(contour_points(shape, CONTOUR_POINTS) for shape in range(len(SHAPES))), strict=True)
    body, under, looks = zip(*(body_looks(shape, generator) for shape in range(len(SHAPES))), strict=True)
    worn, colours = zip(*(worn_looks(shape, generator) for shape in range(len(SHAPES))), strict=True)
    squared = tuple(part.square() for part in looks)
    parts = (contour, outward, body, under, looks, squared, worn, colours)
    stacked = [torch.stack(part) for part in parts]
    return Library(*(part.to(device) for part in (*stacked, *outline_templates(radii, angles))))
