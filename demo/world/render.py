"""The renderer: scenes to pictures and to everything that is known exactly about them.

Every pixel is a function of its stage point alone (signed distances, no rasteriser), so pictures of any size, and
panoramas, come from the same code, anti-aliased by the distance itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.world.attributes import ACCESSORIES, INK, PALETTE, TINTS
from demo.world.backgrounds import PERIOD, paint_backgrounds
from demo.world.dress import OUTLINE, accessories, coverage, draw_faces, over, pattern_distance
from demo.world.geometry import stage_grid
from demo.world.scene import Scenes
from demo.world.shapes import signed_distance

AMBIENT, DIFFUSE, SPECULAR = 0.64, 0.52, 0.28
BEVEL = 0.46
"""How far from its edge a character is rounded, in character units."""

SHADOW_REACH, SHADOW_BLUR, SHADOW_DARKNESS = 0.26, 0.24, 0.34
"""Character units that a shadow is thrown, width of its soft edge, and how dark it is."""

PIXELS_AT_ONCE = {False: 1 << 16, True: 1 << 26}
"""How many pixels are drawn together, on the CPU (what its cache holds) and on a GPU (what its memory holds)."""

LAYERS = ("frames", "flat", "lines", "masks", "labels", "depth", "normals", "local")


@dataclass
class Render:
    """What was asked for of a batch of B scenes, T frames, H x W pixels; the rest is None."""

    frames: Tensor | None = None  # float32 [B, T, 3, H, W], 0..1
    flat: Tensor | None = None  # float32 [B, T, 3, H, W], 0..1: colours without light and shadow
    lines: Tensor | None = None  # float32 [B, T, 1, H, W], 1 on a line
    masks: Tensor | None = None  # float32 [B, T, K, H, W]: visible coverage of each character with what it wears
    labels: Tensor | None = None  # int64 [B, T, H, W]: the character in sight, -1 where the background is
    depth: Tensor | None = None  # float32 [B, T, 1, H, W], 0 near .. 1 far
    normals: Tensor | None = None  # float32 [B, T, 3, H, W], unit vectors: x right, y down, z to the viewer
    local: Tensor | None = None  # float32 [B, T, 2, H, W]: character coordinates where a character is, else 0


@dataclass
class Sprite:
    """N characters on their own grids, each [N, H, W] or [N, 3, H, W]."""

    cover: Tensor
    flat: Tensor
    lit: Tensor
    line: Tensor
    normal: Tensor
    shadow: Tensor
    local: Tensor


def character_grid(
    scenes: Scenes, rows: tuple[Tensor, Tensor, Tensor], x: Tensor, y: Tensor, *, wrap: bool
) -> tuple[Tensor, Tensor]:
    """Character coordinates u, v [N, H, W] of stage grids x, y [B, T, H, W], for the characters (b, t, k) in rows."""
    b, t, k = rows
    dx = x[b, t] - scenes.position[b, t, k, 0, None, None]
    dy = y[b, t] - scenes.position[b, t, k, 1, None, None]
    if wrap:
        dx = (dx + PERIOD / 2) % PERIOD - PERIOD / 2
    scale = 1 / scenes.radius[b, t, k, None, None]
    cos, sin = scenes.angle[b, t, k, None, None].cos() * scale, scenes.angle[b, t, k, None, None].sin() * scale
    return dx * cos + dy * sin, dy * cos - dx * sin


def slopes(distance: Tensor) -> Tensor:
    """Unit direction in the picture in which ``distance`` [N, H, W] grows fastest: [N, 2, H, W], x right, y down."""
    padded = torch.nn.functional.pad(distance[:, None], (1, 1, 1, 1), mode="replicate")
    dx = padded[:, 0, 1:-1, 2:] - padded[:, 0, 1:-1, :-2]
    dy = padded[:, 0, 2:, 1:-1] - padded[:, 0, :-2, 1:-1]
    length = torch.hypot(dx, dy).clamp(min=1e-6)
    return torch.stack((dx / length, dy / length), 1)


def rounded_normal(distance: Tensor, bevel: float) -> Tensor:
    """Normals [N, 3, H, W] of a body whose edge is rounded over ``bevel``, flat inside, upright at the very edge."""
    lean = (1 + distance / bevel).clamp(0, 1)
    lean = lean * (0.4 + 0.56 * lean)  # fades in gently, so that ridges of the distance do not show
    return torch.cat((slopes(distance) * lean[:, None], torch.sqrt(1 - lean * lean)[:, None]), 1)


def shade(colour: Tensor, normal: Tensor, light: Tensor) -> Tensor:
    """Light on ``colour`` [N, 3, H, W]: ambient, Lambert and a soft highlight; ``light`` [N, 3] points to the light."""
    facing = (normal * light[:, :, None, None]).sum(1).clamp(min=0)
    half = torch.nn.functional.normalize(light + torch.tensor([0.0, 0.0, 1.0], device=light.device), dim=1)
    glint = (normal * half[:, :, None, None]).sum(1).clamp(min=0) ** 24
    return (colour * (AMBIENT + DIFFUSE * facing)[:, None] + SPECULAR * glint[:, None]).clamp(0, 1)


def draw_sprites(scenes: Scenes, rows: tuple[Tensor, Tensor, Tensor], u: Tensor, v: Tensor, pixel: Tensor) -> Sprite:
    """Draw the characters (b, t, k) in ``rows`` on their grids u, v [N, H, W]; ``pixel`` is in character units."""
    b, t, k = rows
    shape, colour, device = scenes.shape[b, k], scenes.colour[b, k], u.device
    body = signed_distance(shape, u, v)
    inside = coverage(body, pixel)
    tint = pattern_distance(scenes.pattern[b, k], u, v)
    albedo = over(
        PALETTE.to(device)[colour][:, :, None, None], TINTS.to(device)[colour][:, :, None, None], coverage(-tint, pixel)
    )
    line = coverage(tint.abs() - 0.018, pixel) * coverage(body + OUTLINE, pixel)
    draw_faces(albedo, line, scenes.face[b, k], shape, u, v, pixel)
    outline = coverage(body.abs() - OUTLINE, pixel)
    ink = INK.to(device)[:, None, None]
    flat = over(albedo, ink, outline)
    line = torch.maximum(line, coverage((body + OUTLINE / 2).abs() - 0.022, pixel))
    normal = rounded_normal(body, BEVEL)
    light = scenes.light_direction[b]
    lit = over(shade(albedo, normal, light), ink, outline)
    cover = torch.maximum(inside, coverage(body - OUTLINE, pixel))

    worn = accessories(scenes.accessory[b, k], shape, u, v, pixel)
    worn_cover = coverage(worn.distance, pixel)
    worn_edge = coverage(worn.distance.abs() - OUTLINE * 0.7, pixel)
    worn_colour = over(worn.colour, ink, worn_edge)
    worn_normal = rounded_normal(worn.distance, 0.16)
    wearing = (scenes.accessory[b, k] != ACCESSORIES.index("none"))[:, None, None]
    worn_all = torch.maximum(worn_cover, worn_edge) * wearing
    flat = over(flat, worn_colour, worn_all)
    lit = over(lit, over(shade(worn.colour, worn_normal, light), ink, worn_edge), worn_all)
    normal = torch.where((worn_all > 0.5)[:, None], worn_normal, normal)
    line = (
        line * (1 - worn_all)
        + torch.maximum(worn.line * worn_cover, coverage(worn.distance.abs() - 0.022, pixel)) * worn_all
    )

    angle = scenes.angle[b, t, k]
    away = -light[:, :2] * SHADOW_REACH
    away_u = away[:, 0] * angle.cos() + away[:, 1] * angle.sin()
    away_v = away[:, 1] * angle.cos() - away[:, 0] * angle.sin()
    thrown = signed_distance(shape, u - away_u[:, None, None], v - away_v[:, None, None])
    shadow = (0.5 - thrown / SHADOW_BLUR).clamp(0, 1)
    shadow = shadow * shadow * (3 - 2 * shadow) * SHADOW_DARKNESS
    return Sprite(torch.maximum(cover, worn_all), flat, lit, line, normal, shadow, torch.stack((u, v), 1))


def render_on_grid(
    scenes: Scenes, x: Tensor, y: Tensor, pixel: Tensor, layers: tuple[str, ...], *, wrap: bool = False
) -> Render:
    """Render at stage points x, y [B, T, H, W]; ``pixel`` (broadcastable) is a pixel's size in stage units."""
    unknown = [name for name in layers if name not in LAYERS]
    if unknown:
        raise ValueError(f"layers holds {unknown}; expected some of {LAYERS}.")
    size, frames, height, width = x.shape
    pixel = pixel.expand(size, frames, *pixel.shape[2:])
    place = scenes.background.repeat_interleave(frames)
    ground, contour = paint_backgrounds(
        place,
        (x - scenes.background_shift[:, None, None, None]).flatten(0, 1),
        y.flatten(0, 1),
        pixel.flatten(0, 1).expand(-1, height, width),
    )
    flat = ground.view(size, frames, 3, height, width)
    lit, lines = flat.clone(), contour.view(size, frames, height, width).clone()
    flat = flat.clone()
    characters = scenes.shape.shape[1]
    masks = torch.zeros(size, frames, characters, height, width, device=x.device)
    local = torch.zeros(size, frames, 2, height, width, device=x.device)
    normals = torch.zeros(size, frames, 3, height, width, device=x.device)
    normals[:, :, 2] = 1
    for k in range(characters):
        b = (scenes.count > k).nonzero()[:, 0].repeat_interleave(frames)
        if not b.numel():
            break
        t = torch.arange(frames, device=b.device).repeat(b.numel() // frames)
        rows = (b, t, torch.full_like(b, k))
        u, v = character_grid(scenes, rows, x, y, wrap=wrap)
        own_pixel = (pixel[b, t] / scenes.radius[b, t, k, None, None]).expand(-1, height, width)
        sprite = draw_sprites(scenes, rows, u, v, own_pixel)
        cover = sprite.cover
        lit[b, t] = over(lit[b, t] * (1 - sprite.shadow * (1 - cover))[:, None], sprite.lit, cover)
        flat[b, t] = over(flat[b, t], sprite.flat, cover)
        lines[b, t] = lines[b, t] * (1 - cover) + sprite.line * cover
        masks[b, t] = masks[b, t] * (1 - cover)[:, None]
        masks[b, t, k] = cover
        so_far = masks[b, t]
        seen = ((cover >= so_far.amax(1)) & (cover >= 1 - so_far.sum(1)))[:, None]
        local[b, t] = torch.where(seen, sprite.local, local[b, t])
        normals[b, t] = torch.where(seen, sprite.normal, normals[b, t])
    result = Render()
    if "frames" in layers:
        result.frames = lit.clamp(0, 1)
    if "flat" in layers:
        result.flat = flat.clamp(0, 1)
    if "lines" in layers:
        result.lines = lines[:, :, None]
    if "masks" in layers:
        result.masks = masks
    best = masks.amax(dim=2)
    # Of equals the nearer one, as above.
    index = characters - 1 - (masks.flip(2) >= best[:, :, None]).int().argmax(dim=2)
    labels = torch.where(best >= 1 - masks.sum(dim=2), index, -1)
    if "labels" in layers:
        result.labels = labels
    if "depth" in layers:
        # The ground recedes from the picture's lower edge; characters stand in their drawing order, rounded as lit.
        far = 0.80 + 0.20 * (0.5 - 0.5 * torch.tanh(y))
        near = 0.62 - 0.14 * labels - 0.06 * normals[:, :, 2]
        result.depth = torch.where(labels >= 0, near, far)[:, :, None]
    if "normals" in layers:
        result.normals = normals
    if "local" in layers:
        result.local = torch.where((labels >= 0)[:, :, None], local, 0.0)
    return result


def in_pieces(scenes: Scenes, pixels: int, draw: Callable[[Scenes], Render]) -> Render:
    """Call ``draw`` on a few scenes at a time, each of ``pixels`` a frame, and put the results together."""
    step = max(1, PIXELS_AT_ONCE[scenes.count.is_cuda] // (pixels * scenes.frames))
    parts = [draw(scenes.select(slice(start, start + step))) for start in range(0, scenes.size, step)]
    whole = {name: [getattr(part, name) for part in parts] for name in LAYERS}
    return Render(**{name: None if values[0] is None else torch.cat(values) for name, values in whole.items()})


def render(scenes: Scenes, height: int = 128, width: int = 128, layers: tuple[str, ...] = ("frames",)) -> Render:
    """Render a batch of scenes.

    Args:
        scenes: B scenes of T frames, on any device; the result lies there too.
        height, width: pixels, each at least 16. The shorter side shows two stage units.
        layers: what is wanted, names of Render's fields.

    Raises:
        ValueError: a layer is unknown or the size too small.
    """
    if height < 16 or width < 16:
        raise ValueError(f"The picture would be {width}x{height}; expected at least 16 pixels each way.")

    def draw(part: Scenes) -> Render:
        x, y, pixel = stage_grid(part, height, width)
        return render_on_grid(part, x, y, pixel, layers)

    return in_pieces(scenes, height * width, draw)
