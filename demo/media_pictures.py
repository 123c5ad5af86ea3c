"""Draws the pictures of demo/media that come from the toy world: ``python -m demo.media_pictures``.

line_art.png is what the line art template begins with, toy_scene.png what the templates do whose videos are cut and
dragged, or filmed by a moving camera; toy_world.webp shows the world in the README. toy_sky.hdr surrounds what
Environment Light lights: a place all the way round in linear light, and a sun far above white. toy_normals.png is
toy_scene.png's normal map, as Normals From Light writes them; toy_cutout.png is one character of another scene, the
rest transparent, and toy_cutout_128.png the same in the size that the demonstration models draw. toy_lit_place.png is a
place of that size that is lit from the right, as relighting takes it for a background. toy_reposed_lines.png is line
art of toy_scene.png's characters in another pose, which points are matched on; toy_reposed.png shows them so, before
another background. toy_city.png is a panorama with upright lines, by which a camera's tilt is seen.
another background. toy_panorama.jpg is a city all the way round with four characters in it, one of them behind the
viewer, where the edges meet.
"""

import io
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy
import torch
from PIL import Image
from torch import Tensor

from demo.light_pairs import BRIGHTEST, DARKEST, falloff
from demo.world.attributes import BACKGROUNDS
from demo.world.captions import captions
from demo.world.panorama import render_panorama
from demo.world.render import render
from demo.world.scene import draw_scenes, repose
from kernels.equirectangular import texel_directions
from kernels.normals_from_light import normal_picture
from kernels.panorama_tags import gpano_xmp, tag_jpeg

MEDIA = Path(__file__).resolve().parent / "media"
SHEET_SEED, ROWS, COLUMNS, SIZE = 20, 3, 8, 160
LINE_SEED = 12
TOY_SEED, TOY_SCENES, TOY_NUMBER, TOY_SIZE = 4242, 24, 18, 256
POSE_SEED = 7
SKY_SEED, SKY_PLACE, SKY_HEIGHT = 5, "meadow", 384
SUN = (40.0, 35.0, 5.0)
"""Where the sun stands and how wide it is, degrees: to the right, above the horizon, and its radius."""

SUNLIGHT = (170.0, 145.0, 105.0)
ROUND_SEED, ROUND_PLACE, ROUND_HEIGHT, SIDES = 8, "meadow", 384, 4
CITY_SEED, CITY_HEIGHT, CITY_TURN = 5, 384, 135
AROUND_SEED, AROUND_PLACE, AROUND_HEIGHT, AROUND_QUALITY = 6, "city", 512, 90
AROUND_POSITIONS = [[-0.7, 0.25], [1.0, 0.1], [2.6, 0.3], [3.95, 0.15]]
AROUND_RADII = [0.55, 0.62, 0.5, 0.6]
"""Where they stand, stage units, of which one to the side is 45 degrees; and how large they are."""

GAP = 4
CUTOUT_SEED, CUTOUT_SIZE, SMALL_SIZE = 11, 512, 128
LIT_PLACE, LIT_FROM = "snow", 0.0
"""What is behind a character that is relit, and whence its light comes, radians: the right."""


def sheet(pictures: Tensor, columns: int, gap: int = GAP) -> numpy.ndarray:
    """Pictures float32 [N, 3, H, W] in rows, with white gaps: uint8 [rows, width, 3]."""
    rows = []
    for start in range(0, pictures.shape[0], columns):
        padded = torch.nn.functional.pad(pictures[start : start + columns], (0, gap, 0, gap), value=1.0)
        rows.append(torch.cat(list(padded), dim=2))
    whole = torch.cat(rows, dim=1)[:, :-gap, :-gap]
    return (whole.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def line_art_scene():
    """The scene whose lines the template begins with: two characters side by side."""
    return draw_scenes(1, LINE_SEED, characters=2, combinations="held_out")


def toy_scene():
    """The scene that is dragged about: two characters of trained looks, side by side."""
    return draw_scenes(TOY_SCENES, TOY_SEED, characters=2).select(slice(TOY_NUMBER, TOY_NUMBER + 1))


def reposed_scene():
    """Its characters in another pose, each on the other's side, in the same place."""
    return repose(toy_scene(), POSE_SEED, scenery=False)


def elsewhere_scene():
    """They in that pose, before another background and in another light."""
    return repose(toy_scene(), POSE_SEED)


def write_lines(scene, size: int, name: str) -> None:
    """Write white lines of a scene on black."""
    lines = render(scene, size, size, layers=("lines",)).lines[0, 0, 0]
    Image.fromarray((lines * 255).round().byte().numpy()).convert("RGB").save(MEDIA / name, optimize=True)


def sky() -> Tensor:
    """float32 [H, 2 H, 3]: a place and its sun in linear light, equirectangular."""
    scene = draw_scenes(1, SKY_SEED, characters=1)
    place = torch.full_like(scene.background, BACKGROUNDS.index(SKY_PLACE))
    scene = replace(scene, count=torch.zeros_like(scene.count), background=place)
    shown = render_panorama(scene, SKY_HEIGHT).frames[0, 0].movedim(0, -1)
    # The renderer's colours are a screen's: sRGB, of which 2.2 is near enough for a drawing.
    light = shown**2.2
    across, above, radius = (math.radians(value) for value in SUN)
    sun = torch.tensor([math.cos(above) * math.sin(across), math.sin(above), -math.cos(above) * math.cos(across)])
    inside = texel_directions(SKY_HEIGHT, 2 * SKY_HEIGHT) @ sun > math.cos(radius)
    return torch.where(inside[..., None], torch.tensor(SUNLIGHT), light)


def all_round() -> Tensor:
    """float32 [3, H, 2 H]: a place and what stands on all its sides, equirectangular."""
    scenes = draw_scenes(SIDES, ROUND_SEED, characters=3)
    scenes = replace(
        scenes,
        background=torch.full_like(scenes.background, BACKGROUNDS.index(ROUND_PLACE)),
        light=scenes.light[:1].expand_as(scenes.light),
    )
    drawn = render_panorama(scenes, ROUND_HEIGHT, layers=("frames", "masks"))
    whole = drawn.frames[0, 0]
    for side in range(1, SIDES):
        turn = side * 2 * ROUND_HEIGHT // SIDES
        covered = drawn.masks[side, 0].sum(0).clamp(0, 1).roll(turn, -1)
        whole = whole + covered * (drawn.frames[side, 0].roll(turn, -1) - whole)
    return whole


def city() -> Tensor:
    """float32 [H, 2 H, 3]: a city all the way round, houses ahead and two characters to the right, equirectangular."""
    scene = draw_scenes(1, CITY_SEED, characters=2)
    scene = replace(scene, background=torch.full_like(scene.background, BACKGROUNDS.index("city")))
    drawn = render_panorama(scene, CITY_HEIGHT).frames[0, 0]
    return drawn.roll(2 * CITY_HEIGHT * CITY_TURN // 360, dims=-1).movedim(0, -1)


def panorama() -> Tensor:
    """float32 [H, 2 H, 3]: a place with characters all the way round, equirectangular."""
    scene = draw_scenes(1, AROUND_SEED, characters=4)
    scene = replace(
        scene,
        position=torch.tensor(AROUND_POSITIONS)[None, None],
        radius=torch.tensor(AROUND_RADII)[None, None],
        background=torch.tensor([BACKGROUNDS.index(AROUND_PLACE)]),
    )
    return render_panorama(scene, AROUND_HEIGHT).frames[0, 0].movedim(0, -1)


def write_panorama() -> None:
    """Write it as viewers know a panorama."""
    stream, levels = io.BytesIO(), (panorama() * 255).round().byte().numpy()
    Image.fromarray(levels).save(stream, "JPEG", quality=AROUND_QUALITY, subsampling=0, optimize=True)
    tagged = tag_jpeg(stream.getvalue(), gpano_xmp(2 * AROUND_HEIGHT, AROUND_HEIGHT))
    (MEDIA / "toy_panorama.jpg").write_bytes(tagged)


def main() -> None:
    """Write the pictures."""
    write_panorama()
    cv2.imwrite(str(MEDIA / "toy_sky.hdr"), sky().flip(-1).numpy())
    shown = (all_round() * 255).round().byte().movedim(0, -1)
    Image.fromarray(shown.numpy()).save(MEDIA / "toy_panorama.png", optimize=True)
    Image.fromarray((city() * 255).round().byte().numpy()).save(MEDIA / "toy_city.png", optimize=True)
    scenes = draw_scenes(ROWS * COLUMNS, SHEET_SEED, combinations="all")
    world = sheet(render(scenes, SIZE, SIZE).frames[:, 0], COLUMNS)
    Image.fromarray(world).save(MEDIA / "toy_world.webp", quality=88, method=6)
    scene = line_art_scene()
    write_lines(scene, SMALL_SIZE, "line_art.png")
    write_lines(reposed_scene(), TOY_SIZE, "toy_reposed_lines.png")
    toy = toy_scene()
    for shown, name in ((toy, "toy_scene.png"), (elsewhere_scene(), "toy_reposed.png")):
        frame = (render(shown, TOY_SIZE, TOY_SIZE).frames[0, 0] * 255).round().byte().permute(1, 2, 0)
        Image.fromarray(frame.numpy()).save(MEDIA / name, optimize=True)
    normals = render(toy, TOY_SIZE, TOY_SIZE, layers=("normals",)).normals[0, 0].movedim(0, -1)
    coded = normal_picture(normals * torch.tensor([1.0, -1.0, 1.0]))  # the renderer's y points down
    Image.fromarray((coded * 255).round().byte().numpy()).save(MEDIA / "toy_normals.png", optimize=True)
    lone = draw_scenes(1, CUTOUT_SEED, characters=1)
    for name, size in (("toy_cutout.png", CUTOUT_SIZE), ("toy_cutout_128.png", SMALL_SIZE)):
        drawn = render(lone, size, size, layers=("frames", "masks"))
        layers = torch.cat((drawn.frames[0, 0], drawn.masks[0, 0].sum(0, keepdim=True).clamp(0, 1)))
        cut = (layers * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(cut).save(MEDIA / name, optimize=True)
    place = replace(lone, count=torch.zeros_like(lone.count), background=torch.tensor([BACKGROUNDS.index(LIT_PLACE)]))
    ends = (torch.tensor([value]) for value in (DARKEST, BRIGHTEST))
    light = falloff(torch.tensor([LIT_FROM]), SMALL_SIZE, SMALL_SIZE, *ends)
    lit = (render(place, SMALL_SIZE, SMALL_SIZE).frames[0] * light).clamp(0, 1)[0]
    lit = (lit * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(lit).save(MEDIA / "toy_lit_place.png", optimize=True)
    for shown in (scene, toy, lone):
        print(captions(shown, 0, full=True)[0])


if __name__ == "__main__":
    main()
