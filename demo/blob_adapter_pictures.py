"""Draws Blob Adapter's picture of web/docs and the README's of layouts: ``python -m demo.blob_adapter_pictures``.

Held-out looks; of each the layout, and what is drawn after the prompt alone, by Apply Blobs without training, and with
the adapter, from the same noise.
"""

import math

import torch
from PIL import Image
from torch import Tensor

from demo.bare_machine import use_host, use_pack
from demo.blob_pictures import COLOURS, GROUND, as_tensor, outline, pen_on
from demo.blob_scenes import seen_ellipses
from demo.eval.image_models import CHECKPOINTS, SIZE
from demo.eval.layout_models import LayoutModels
from demo.eval.layout_report import (
    ADAPTER,
    ARMS,
    CFG,
    KIND,
    PLAIN,
    SCENE_FIRST,
    padded_captions,
    prompts_of,
    scenes_of,
)
from demo.media_pictures import MEDIA, sheet
from demo.story_pictures import save

SEED, COLUMNS, SHOWN = 841_000_011, 6, 3
DRAWN = (PLAIN, SCENE_FIRST, ADAPTER)


def layout_picture(ellipses: Tensor, present: Tensor) -> Tensor:
    """Ellipses [K, 5] of a picture, each in a colour: [3, SIZE, SIZE]."""
    picture = Image.new("RGB", (2 * SIZE, 2 * SIZE), GROUND)
    for colour, (*numbers, angle), there in zip(COLOURS, ellipses.tolist(), present.tolist(), strict=False):
        if there:
            light = tuple(round(0.65 * 255 + 0.35 * part) for part in colour)
            given = (*numbers, math.degrees(angle))
            outline(pen_on(picture), given, 2 * SIZE, 2 * SIZE, colour, thick=4, fill=light)
    return as_tensor(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)).movedim(-1, 0)


def main() -> None:
    """Draws both."""
    use_host()
    use_pack()
    scenes = scenes_of(COLUMNS, SEED)
    ellipses, present = seen_ellipses(scenes, SIZE)
    models = LayoutModels(torch.device("cpu"), {"": CHECKPOINTS / f"{KIND}.safetensors"})
    rows = [torch.stack([layout_picture(*some) for some in zip(ellipses, present, strict=True)])]
    prompts, captions = prompts_of(scenes, SEED), padded_captions(scenes)
    for name in DRAWN:
        arm = ARMS[name]
        given = (captions, ellipses, present, SEED, arm, CFG)
        rows.append(models.draw(prompts[arm.prompt], *given, scenes=prompts["scene"]))
    Image.fromarray(sheet(torch.cat(rows), COLUMNS)).save(MEDIA / "layouts.webp", quality=85, method=6)
    print(f"layouts.webp: {(MEDIA / 'layouts.webp').stat().st_size / 1000:.0f} kB")
    told = ["layout", "prompt alone", "Apply Blobs", "with the adapter"]
    shown = [(row[k].movedim(0, -1), text) for k in range(SHOWN) for row, text in zip(rows, told, strict=True)]
    pictures, words = zip(*shown, strict=True)
    save("BlobAdapter", list(pictures), list(words), len(told))


if __name__ == "__main__":
    main()
