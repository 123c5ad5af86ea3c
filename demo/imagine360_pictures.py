"""Draws what Imagine360's demonstration shows: ``python -m demo.imagine360_pictures [--clip]``.

With --clip demo/media's toy_walk.png alone, what the template demo_imagine360 begins with: eight frames of 128x128
that a camera saw who went to the right past the trees of a snowy place. Without it panoramas.webp for the README: first
and last frames of what was given, of what is drawn, and of the truth.
"""

import argparse

import torch
from PIL import Image
from torch import Tensor

from demo.bare_machine import use_host, use_pack
from demo.colour_media import to_images
from demo.eval.image_models import CHECKPOINTS
from demo.media_pictures import MEDIA, sheet
from demo.panorama_clips import CHARACTERS, HEIGHT, MOVES, PanoramaClips, draw_clips, laid_out
from demo.world.attributes import BACKGROUNDS
from demo.world.captions import captions
from demo.world.scene import draw_scenes

CLIP_SEED, CLIP_PLACE, CLIP_MOVE = 12, "snow", "right"
SHOWN_SEED, SHOWN = 930_000_000, 4
ROUND = 125
"""Milliseconds that a frame is shown."""


def walk() -> tuple[PanoramaClips, str]:
    """One clip, and what is said of it."""
    scenes = draw_scenes(128, CLIP_SEED, characters=CHARACTERS, combinations="held_out")
    here = ((scenes.background == BACKGROUNDS.index(CLIP_PLACE)) & (scenes.count == 1)).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(CLIP_SEED)
    clips = draw_clips(scenes.select(here), generator)
    number = int((clips.moves == list(MOVES).index(CLIP_MOVE)).nonzero()[0, 0])
    told = captions(scenes.select(here), CLIP_SEED, full=True)[number]
    one = slice(number, number + 1)
    return PanoramaClips(clips.panoramas[one], clips.videos[one], clips.moves[one], clips.pitch), told


def write_clip() -> None:
    """Write toy_walk.png, an animated PNG."""
    clip, told = walk()
    first, *others = to_images(clip.videos[0])
    path = MEDIA / "toy_walk.png"
    first.save(path, save_all=True, append_images=others, duration=ROUND, loop=0, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB, pitch {clip.pitch:.1f} degrees: {told}")


def ends(panoramas: Tensor) -> Tensor:
    """First and last frames side by side, [B, 3, H, 4 H]."""
    return torch.cat((panoramas[:, 0], panoramas[:, -1]), -1)


def write_panoramas() -> None:
    """Write panoramas.webp."""
    use_host()
    use_pack()
    from demo.eval.imagine360_report import KIND, Imagine360Models

    models = Imagine360Models(CHECKPOINTS / f"{KIND}.safetensors", torch.device("cpu"))
    scenes = draw_scenes(SHOWN, SHOWN_SEED, characters=CHARACTERS, combinations="held_out")
    clips = draw_clips(scenes, torch.Generator().manual_seed(SHOWN_SEED))
    drawn = models.draw(clips, captions(scenes, SHOWN_SEED, full=True), SHOWN_SEED, batch=1)
    laid, known = laid_out(clips.videos.flatten(0, 1), clips.pitch, HEIGHT)
    given = torch.where(known > 0.5, laid, 0.5).view_as(clips.panoramas)
    rows = torch.stack([ends(some) for some in (given, drawn, clips.panoramas)], 1).flatten(0, 1)
    path = MEDIA / "panoramas.webp"
    Image.fromarray(sheet(rows, 1)).save(path, quality=85, method=6)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", action="store_true", help="toy_walk.png alone")
    if parser.parse_args().clip:
        write_clip()
    else:
        write_panoramas()


if __name__ == "__main__":
    main()
