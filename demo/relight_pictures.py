"""Draws the pictures of the nodes for relit clips in web/docs: ``python -m demo.relight_pictures``.

What the small image model makes of a clip with the pack's own files; windows and noise levels from the numbers.
"""

import math
from types import SimpleNamespace

import numpy
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from demo.bare_machine import use_host, use_pack
from demo.diffusion import signal_levels
from demo.eval.image_models import CHECKPOINTS, SIZE, ImageModels
from demo.eval.image_report import SAMPLER, SCHEDULER
from demo.eval.light_motion_report import GUIDANCE, MOTION, draw_clips, read_arms
from demo.light_pairs import SEEN, azimuth, draw_pairs, frames_apart, with_azimuth
from demo.story_pictures import save
from demo.world.scene import draw_scenes

FRAMES, SHOWN, CLIP_SEED = 16, (0, 4, 8, 12), 21
CLIP, LENGTH, OVERLAP = 40, 16, 4


def as_picture(image: Image.Image) -> Tensor:
    """float32 [H, W, 3], 0..1."""
    return torch.from_numpy(numpy.array(image)).float() / 255


def relit_clip() -> None:
    """Foreground, background and the relit clip, four frames of each."""
    device = torch.device("cpu")
    models = ImageModels(CHECKPOINTS, device, sampler=SAMPLER, scheduler=SCHEDULER)
    clips = draw_scenes(1, CLIP_SEED, characters=1, combinations="held_out", frames=FRAMES)
    angles = azimuth(clips)[:, None] + torch.arange(FRAMES) * (2 * math.pi / FRAMES)
    lit = with_azimuth(frames_apart(clips), angles.flatten())
    given = draw_pairs(lit, SIZE, torch.Generator().manual_seed(1), 0.0, FRAMES, SEEN)
    settings = SimpleNamespace(batch=1, steps=20, guidance=GUIDANCE)
    relit = draw_clips(models, read_arms(models, CHECKPOINTS, FRAMES)[MOTION], given, lit, 1, settings)
    rows = [some[list(SHOWN)].movedim(1, -1) for some in (given.foreground, given.background, relit)]
    names = [f"frame {frame}" for frame in SHOWN]
    captions = [*(f"{name}: foreground" for name in names), *(["background"] * 4), *(["relit"] * 4)]
    save("RelightVidConditioning", [picture for row in rows for picture in row], captions, 4)


def windows_picture(width: int = 440, height: int = 150) -> Tensor:
    """Which frames of a clip the host's windows hold, one bar a window."""
    from papernodes.patches.frame_windows import FrameWindows, Windows

    handler = FrameWindows(Windows(LENGTH, OVERLAP))
    found = handler.get_context_windows(None, torch.zeros(CLIP, 4, 8, 8), {})
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    step = (width - 20) / CLIP
    for row, window in enumerate(found):
        y = 14 + row * 30
        for frame in range(CLIP):
            box = (10 + frame * step, y, 10 + (frame + 1) * step - 2, y + 20)
            pen.rectangle(box, fill="#3c78d8" if frame in window.index_list else "#e4e8ee")
    for frame in (0, 10, 20, 30, CLIP - 1):
        pen.text((10 + frame * step, height - 16), str(frame), fill="#444444")
    return as_picture(picture)


def levels_picture(width: int = 440, height: int = 200) -> Tensor:
    """Noise levels of 20 DDPM steps, step to the right."""
    kept = signal_levels()
    sigmas = ((1 - kept) / kept).sqrt()[torch.arange(950, -1, -50)]
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    pen.line([(30, 10), (30, height - 20), (width - 10, height - 20)], fill="#444444")
    points = [(30 + (width - 45) * k / 19, height - 20 - (height - 35) * float(v) / 13) for k, v in enumerate(sigmas)]
    pen.line(points, fill="#2f6fde", width=2)
    for x, y in points:
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill="#2f6fde")
    for value in (0, 5, 10):
        pen.text((8, height - 26 - (height - 35) * value / 13), str(value), fill="#444444")
    return as_picture(picture)


def main() -> None:
    """Draws all of them."""
    use_host()
    use_pack()
    relit_clip()
    save("MotionModules", [windows_picture()], [f"windows of {LENGTH} over {CLIP} frames, overlap {OVERLAP}"], 1)
    save("DDPMSigmas", [levels_picture()], ["20 steps, times 950 to 0"], 1)


if __name__ == "__main__":
    main()
