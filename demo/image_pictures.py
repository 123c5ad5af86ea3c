"""Lets the shipped image models draw the pictures that show them: ``python -m demo.image_pictures``.

demo/media/drawn.webp for the README: looks that no training picture showed, the first picture of each prompt, none left
out. web/docs/PaperNodes_DemoCheckpoint.webp for the node's help page, with its prompts.
"""

import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from demo.bare_machine import use_host
from demo.eval.image_report import CFG, SAMPLER, SCHEDULER
from demo.media_pictures import GAP, sheet
from demo.world.captions import captions
from demo.world.scene import draw_scenes

ROOT = Path(__file__).resolve().parent.parent
ROWS, COLUMNS, SCENES_SEED, NOISE_SEED = 4, 8, 900_001, 1
PROMPTS = (
    "a happy red striped cat with a crown in a meadow",
    "a surprised blue dotted ghost with a hat at night",
    "a sleepy yellow plain cloud to the left of an angry purple checkered cube in a city",
    "a sad white dipped drop with a scarf in the snow, lit from the right",
)
TEXT_LINES, LINE_HEIGHT, ENLARGED = 4, 15, 192


def draw_grid(models) -> None:
    """The README's grid of one and two characters."""
    scenes = draw_scenes(ROWS * COLUMNS, SCENES_SEED, characters=(0.5, 0.5, 0.0, 0.0), combinations="held_out")
    drawn = models.generate(captions(scenes, 0, full=True), NOISE_SEED, CFG)
    path = ROOT / "demo" / "media" / "drawn.webp"
    Image.fromarray(sheet(drawn, COLUMNS)).save(path, quality=88, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def draw_help(models) -> None:
    """The help page's pictures, each above its prompt, on a transparent page."""
    drawn = models.generate(PROMPTS, NOISE_SEED, CFG)
    drawn = torch.nn.functional.interpolate(drawn, (ENLARGED, ENLARGED), mode="bicubic", antialias=True)
    pictures = Image.fromarray(sheet(drawn, len(PROMPTS))).convert("RGBA")
    page = Image.new("RGBA", (pictures.width, pictures.height + TEXT_LINES * LINE_HEIGHT + 8))
    page.paste(pictures)
    writer, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for column, prompt in enumerate(PROMPTS):
        left = column * (ENLARGED + GAP)
        if column:
            page.paste((0, 0, 0, 0), (left - GAP, 0, left, pictures.height))
        for line, text in enumerate(textwrap.wrap(prompt, 31)[:TEXT_LINES]):
            place = (left + 2, pictures.height + 4 + line * LINE_HEIGHT)
            writer.text(place, text, fill=(128, 128, 128, 255), font=font)
    path = ROOT / "web" / "docs" / "PaperNodes_DemoCheckpoint.webp"
    page.save(path, quality=85, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draw both."""
    use_host()
    from demo.eval.image_models import CHECKPOINTS, ImageModels

    models = ImageModels(CHECKPOINTS, torch.device("cpu"), sampler=SAMPLER, scheduler=SCHEDULER)
    draw_grid(models)
    draw_help(models)


if __name__ == "__main__":
    main()
