"""Draws what Imagine360's demonstration shows: ``python -m demo.imagine360_pictures [--clip]``.

With --clip demo/media's toy_walk.png alone, what the template demo_imagine360 begins with: eight frames of 128x128
that a camera saw who went to the right past the trees of a snowy place. Without it panoramas.webp for the README, which
moves: for each way that a viewer walks what was given, the panorama that is drawn, what lies behind the viewer in it,
and what lies behind in truth.
"""

import argparse

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from demo.bare_machine import use_host, use_pack
from demo.colour_media import to_images
from demo.eval.image_models import CHECKPOINTS
from demo.eval.imagine360_measures import BEHIND
from demo.media_pictures import MEDIA
from demo.panorama_clips import CHARACTERS, HEIGHT, MOVES, PanoramaClips, draw_clips, views_of
from demo.video_pictures import write
from demo.world.attributes import BACKGROUNDS
from demo.world.captions import captions
from demo.world.scene import draw_scenes

CLIP_SEED, CLIP_PLACE, CLIP_MOVE = 12, "snow", "right"
SHOWN_SEED, DRAWN = 930_000_000, 128
SHOWN = {"left": "snow", "right": "room", "ahead": "city", "back": "beach"}
"""Where viewers walk who go which way: places with something to see that moves."""
LARGEST = 148_000
HEADINGS = ("given", "completed", "behind", "behind, in truth")
GAP, LINE = 4, 18
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


def first_clips() -> list[tuple[PanoramaClips, str]]:
    """The first clip of each way in the place that SHOWN names for it, and what is said of it."""
    scenes = draw_scenes(DRAWN, SHOWN_SEED, characters=CHARACTERS, combinations="held_out")
    generator = torch.Generator().manual_seed(SHOWN_SEED)
    told, found = captions(scenes, SHOWN_SEED, full=True), {}
    for part in torch.arange(DRAWN).split(16):
        clips = draw_clips(scenes.select(part), generator)
        for row, (number, move) in enumerate(zip(part.tolist(), clips.moves.tolist(), strict=True)):
            way, one = list(MOVES)[move], slice(row, row + 1)
            if way not in found and BACKGROUNDS[scenes.background[number]] == SHOWN[way]:
                own = PanoramaClips(clips.panoramas[one], clips.videos[one], clips.moves[one], clips.pitch)
                found[way] = own, told[number]
    return [found[way] for way in SHOWN]


def page(rows: list[list[Tensor]]) -> Image.Image:
    """Rows of pictures [3, HEIGHT, any width] beside each other, with headings."""
    lefts = [sum(picture.shape[-1] + GAP for picture in rows[0][:column]) for column in range(len(rows[0]) + 1)]
    whole = Image.new("RGB", (lefts[-1] - GAP, LINE + len(rows) * (HEIGHT + GAP) - GAP), (255, 255, 255))
    writer, font = ImageDraw.Draw(whole), ImageFont.load_default(13)
    for left, heading in zip(lefts, HEADINGS, strict=False):
        writer.text((left + 2, 1), heading, fill=(80, 80, 80), font=font)
    for number, row in enumerate(rows):
        for left, picture in zip(lefts, row, strict=False):
            whole.paste(to_images(picture[None].clamp(0, 1))[0], (left, LINE + number * (HEIGHT + GAP)))
    return whole


def write_panoramas() -> None:
    """Write panoramas.webp."""
    use_host()
    use_pack()
    from demo.eval.imagine360_report import KIND, Imagine360Models

    models = Imagine360Models(CHECKPOINTS / f"{KIND}.safetensors", torch.device("cpu"))
    rows = []
    for clips, prompt in first_clips():
        drawn = models.draw(clips, [prompt], SHOWN_SEED)[0]
        behind, true = (views_of(some, HEIGHT)[:, BEHIND] for some in (drawn, clips.panoramas[0]))
        rows.append([clips.videos[0], drawn, behind, true])
    pages = [page([[part[frame] for part in row] for row in rows]) for frame in range(len(rows[0][0]))]
    write(pages, MEDIA / "panoramas.webp", LARGEST)


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
