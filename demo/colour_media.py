"""Draws the pictures of demo/media that MangaNinja's templates begin with: ``python -m demo.colour_media``.

toy_twins.png shows two characters that differ in nothing but their colours, toy_twins_lines.png is line art of both in
another pose. toy_sheet.png shows the two characters of a clip, of which toy_clip_lines.gif has the lines and
toy_clip_grey.gif the brightness. All are as large as the demonstration models draw.
"""

from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from demo.colour_pairs import with_twins
from demo.media_pictures import MEDIA
from demo.world.attributes import MOTIONS
from demo.world.render import render
from demo.world.scene import Scenes, draw_scenes, repose, still_camera

SIZE = 128
TWINS_SEED, TWINS_POSE = 34, 5
CLIP_SEED, CLIP_POSE, FRAMES = 25, 3, 12
BRIGHTNESS = (0.299, 0.587, 0.114)
"""Of red, green and blue, as Luma Replace's YCbCr weighs them."""


def twins() -> tuple[Scenes, Scenes]:
    """Two characters alike but for their colours, and the same in another pose."""
    scenes = draw_scenes(64, TWINS_SEED, characters=2)
    scenes, changed = with_twins(scenes, torch.ones(scenes.size, dtype=torch.bool))
    number = int(changed.nonzero()[0, 0])
    scene = scenes.select(slice(number, number + 1))
    return scene, repose(scene, TWINS_POSE, scenery=False)


def clip() -> tuple[Scenes, Scenes]:
    """The characters of a clip in another pose, and the clip."""
    moving = still_camera(draw_scenes(32, CLIP_SEED, characters=2, frames=FRAMES))
    gentle = torch.isin(
        moving.motion[:, :2], torch.tensor([MOTIONS.index(name) for name in ("left", "right", "up", "down")])
    )
    number = int(gentle.all(1).nonzero()[0, 0])
    scene = moving.select(slice(number, number + 1))
    still = replace(scene.at(slice(0, 1)), motion=torch.zeros_like(scene.motion))
    return repose(still, CLIP_POSE, scenery=False), scene


def to_images(frames: Tensor) -> list[Image.Image]:
    """Pictures of float32 [T, 1 or 3, H, W], in grey or in colour."""
    shown = (frames * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in shown]


def write(name: str, frames: Tensor) -> None:
    """Write a picture, or a grey clip of 8 frames a second: a GIF has as many colours as there are greys."""
    first, *others = to_images(frames)
    if others:
        first.save(MEDIA / name, save_all=True, append_images=others, duration=125, loop=0, optimize=False)
    else:
        first.convert("RGB").save(MEDIA / name, optimize=True)


def main() -> None:
    """Write the pictures."""
    reference, target = twins()
    write("toy_twins.png", render(reference, SIZE, SIZE).frames[0])
    write("toy_twins_lines.png", render(target, SIZE, SIZE, layers=("lines",)).lines[0])
    sheet, moving = clip()
    write("toy_sheet.png", render(sheet, SIZE, SIZE).frames[0])
    drawn = render(moving, SIZE, SIZE, layers=("frames", "lines"))
    write("toy_clip_lines.gif", drawn.lines[0])
    weights = torch.tensor(BRIGHTNESS)[:, None, None]
    write("toy_clip_grey.gif", (drawn.frames[0] * weights).sum(1, keepdim=True))


if __name__ == "__main__":
    main()
