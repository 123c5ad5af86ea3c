"""Lets the shipped video models draw animated pictures: ``python -m demo.video_pictures``.

demo/media/follows.webp, for the README: for each clip the motion that was asked for, what the noise of the same motion
makes of the caption, and what plain noise makes of it. The first scenes of a seed that no training used, none left out;
captions tell no motion. From top to bottom a row of each of the report's kinds: characters that move, the camera, cut
and dragged, a camera by hand; at the end the real clip of the template, with two prompts.

web/docs/PaperNodes_DemoCheckpoint_video.webp, for the help page: what prompts with motion words give, the first seeds.
"""

import argparse
import json
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from demo.bare_machine import use_host
from demo.eval.video_by_hand import HAND_KINDS, hand_flows, hand_scenes
from demo.eval.video_report import CFG, render_bytes
from demo.eval.video_scenes import FIRST_SEED, FRAMES, KINDS, still_captions
from host.pictures import read_video

ROOT = Path(__file__).resolve().parent.parent
FOLLOWS = ROOT / "demo" / "media" / "follows.webp"
WORDS = ROOT / "web" / "docs" / "PaperNodes_DemoCheckpoint_video.webp"
CLIP = ROOT / "demo" / "media" / "bigbuckbunny_49.mp4"
TEMPLATE = ROOT / "workflows" / "api" / "demo_motion_transfer.json"
COLUMNS = ("asked", "generated", "plain noise")
SEED, EACH = 980_000, 2
SECOND_PROMPT = "a surprised blue plain ghost at night, lit from the left"
PROMPTS = (
    "a red plain cat moves left in a meadow",
    "a blue striped ball moves up at night",
    "a green dotted ghost with a hat grows in the desert",
    "a yellow plain star moves right at the beach",
)
SIZE, GAP, BETWEEN, LINE = 128, 3, 12, 18
MILLISECONDS, REST = 110, 8
"""Of a frame; frames for which the last one stays."""

LARGEST = {FOLLOWS: 1_500_000, WORDS: 59_000}
"""Bytes; a help page's pictures must be small."""


def of_template(kind: str) -> dict:
    """The inputs of the first node of a class in the template that follows the real clip."""
    return next(
        node["inputs"] for node in json.loads(TEMPLATE.read_text("utf-8")).values() if node["class_type"] == kind
    )


def real_clip() -> tuple[Tensor, Tensor]:
    """The template's square of the clip uint8 [17, 3, 128, 128], and the flow of all its frames [1, 48, 2, H, W]."""
    from kernels.optical_flow import dis_flow

    crop = of_template("ImageCrop")
    frames = read_video(CLIP)[:, crop["y"] : crop["y"] + crop["height"], crop["x"] : crop["x"] + crop["width"]]
    clip = torch.from_numpy(frames).float() / 255
    flow = dis_flow(clip, factor=of_template("PaperNodes_OpticalFlow")["resize_factor"])
    chosen = torch.linspace(0, len(clip) - 1, FRAMES).round().long()
    small = torch.nn.functional.interpolate(clip[chosen].permute(0, 3, 1, 2), (SIZE, SIZE), mode="area")
    return (small * 255).round().byte(), flow[None]


def follow(models, flows: Tensor, sentences: list[str], seed: int) -> tuple[Tensor, Tensor]:
    """Clips uint8 [B, 17, 3, 128, 128] from noise that follows the flows, and from plain noise."""
    from demo.eval.video_models import degraded, warped_noise

    moving, fresh = warped_noise(flows, range(seed, seed + len(sentences)))
    made = [models.generate(sentences, degraded(moving, fresh, amount), CFG) for amount in (0.0, 1.0)]
    return made[0], made[1]


def draw_page(rows: list[list[Tensor]], frame: int) -> Image.Image:
    """One frame of the picture: two clips side by side in a row, three columns each, with headings.

    Args:
        rows: for each clip its three columns, uint8 [17, 3, 128, 128] each.
    """
    width = 2 * (len(COLUMNS) * (SIZE + GAP) - GAP) + BETWEEN
    lines = (len(rows) + 1) // 2
    page = Image.new("RGB", (width, LINE + lines * (SIZE + GAP) - GAP), (255, 255, 255))
    writer, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    for number, clips in enumerate(rows):
        start = number % 2 * (width + BETWEEN) // 2
        for column, clip in enumerate(clips):
            left = start + column * (SIZE + GAP)
            if number < 2:
                writer.text((left + 2, 1), COLUMNS[column], fill=(80, 80, 80), font=font)
            shown = Image.fromarray(clip[frame].permute(1, 2, 0).cpu().numpy())
            page.paste(shown, (left, LINE + number // 2 * (SIZE + GAP)))
    return page


def draw_words(clips: Tensor, frame: int) -> Image.Image:
    """One frame of the help page's picture: clips uint8 [B, 17, 3, 128, 128] above their prompts."""
    page = Image.new("RGB", (len(clips) * (SIZE + GAP) - GAP, SIZE + 3 * LINE), (255, 255, 255))
    writer, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for number, (clip, prompt) in enumerate(zip(clips, PROMPTS, strict=True)):
        left = number * (SIZE + GAP)
        page.paste(Image.fromarray(clip[frame].permute(1, 2, 0).cpu().numpy()), (left, 0))
        text = textwrap.fill(prompt, 21)
        writer.multiline_text((left + 2, SIZE + 2), text, fill=(80, 80, 80), font=font, spacing=1)
    return page


def write(pages: list[Image.Image], target: Path, largest: int) -> None:
    """Writes an animated picture of all frames or of each second one, at the best quality that keeps it small enough.

    Raises:
        ValueError: none does.
    """
    milliseconds = MILLISECONDS * FRAMES // len(pages)
    durations = [milliseconds] * (len(pages) - 1) + [MILLISECONDS * REST]
    for quality in range(80, 20, -5):
        options = {"save_all": True, "append_images": pages[1:], "duration": durations, "loop": 0}
        pages[0].save(target, quality=quality, method=6, **options)
        if target.stat().st_size < largest:
            print(f"{target}: {target.stat().st_size / 1000:.0f} kB, quality {quality}")
            return
    raise ValueError(f"{target} has {target.stat().st_size} bytes at the lowest quality; at most {largest}.")


def draw_prompts(target: Path) -> None:
    """The help page's picture."""
    from demo.eval.video_models import CHECKPOINTS, VideoModels, load_networks
    from demo.eval.video_report import plain_clips

    device = torch.device("cpu")
    models = VideoModels(load_networks(CHECKPOINTS, device, lora=False)[0], device, batch=4)
    clips = models.generate(list(PROMPTS), plain_clips(len(PROMPTS), SEED), CFG)
    write([draw_words(clips, frame) for frame in range(0, FRAMES, 2)], target, LARGEST[WORDS])


def draw_following(each: int, target: Path) -> None:
    """The README's picture."""
    from demo.eval.video_models import CHECKPOINTS, VideoModels, load_networks

    device = torch.device("cpu")
    _, tuned = load_networks(CHECKPOINTS, device)
    models = VideoModels(tuned, device, batch=4)
    rows = []
    for number, kind in enumerate((*KINDS, *HAND_KINDS)):
        seed = SEED + number
        scenes = hand_scenes(kind, each, seed)
        made = follow(models, hand_flows(kind, scenes), still_captions(scenes, seed), FIRST_SEED + seed * 1000)
        rows += [list(clips) for clips in zip(render_bytes(scenes, device), *made, strict=True)]
        print(f"{kind}: {each} clips", flush=True)
    clip, flow = real_clip()
    prompts = [of_template("CLIPTextEncode")["text"], SECOND_PROMPT]
    made = follow(models, flow.expand(2, -1, -1, -1, -1), prompts, of_template("PaperNodes_WarpNoise")["seed"])
    rows += [[clip, *shown] for shown in zip(*made, strict=True)]
    write([draw_page(rows, frame) for frame in range(FRAMES)], target, LARGEST[FOLLOWS])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=EACH, help="clips of each kind of motion")
    parser.add_argument("--follows", type=Path, default=FOLLOWS)
    parser.add_argument("--words", type=Path, default=WORDS)
    arguments = parser.parse_args()
    use_host()
    draw_prompts(arguments.words)
    draw_following(arguments.each, arguments.follows)


if __name__ == "__main__":
    main()
