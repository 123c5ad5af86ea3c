"""Draws the pictures of demo/media that come from the toy world: ``python -m demo.media_pictures``.

line_art.png is what the line art template begins with, toy_scene.png what the templates do whose videos are cut and
dragged, or filmed by a moving camera; toy_world.webp shows the world in the README.
"""

from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor

from demo.world.captions import captions
from demo.world.render import render
from demo.world.scene import draw_scenes

MEDIA = Path(__file__).resolve().parent / "media"
SHEET_SEED, ROWS, COLUMNS, SIZE = 20, 3, 8, 160
LINE_SEED = 12
TOY_SEED, TOY_SCENES, TOY_NUMBER, TOY_SIZE = 4242, 24, 18, 256
GAP = 4


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


def main() -> None:
    """Write the pictures."""
    scenes = draw_scenes(ROWS * COLUMNS, SHEET_SEED, combinations="all")
    world = sheet(render(scenes, SIZE, SIZE).frames[:, 0], COLUMNS)
    Image.fromarray(world).save(MEDIA / "toy_world.webp", quality=88, method=6)
    scene = line_art_scene()
    lines = render(scene, layers=("lines",)).lines[0, 0, 0]
    Image.fromarray((lines * 255).round().byte().numpy()).convert("RGB").save(MEDIA / "line_art.png", optimize=True)
    toy = toy_scene()
    frame = render(toy, TOY_SIZE, TOY_SIZE).frames[0, 0]
    Image.fromarray((frame * 255).round().byte().permute(1, 2, 0).numpy()).save(MEDIA / "toy_scene.png", optimize=True)
    for shown in (scene, toy):
        print(captions(shown, 0, full=True)[0])


if __name__ == "__main__":
    main()
