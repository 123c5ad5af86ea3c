"""Draws the picture of Imagine360 Loader's help page: what panorama and views attend to in each other.

``python -m demo.exchange_pictures``
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from kernels.exchange_masks import exchange_masks
from kernels.view_rings import icosahedron_views

TARGET = Path(__file__).resolve().parent.parent / "web" / "docs" / "PaperNodes_Imagine360Loader.webp"
VIEW, PANORAMA, ZOOM, GAP = (16, 16), (32, 64), 6, 8
GROUND, LIT, ASKED = (0.09, 0.10, 0.14), (1.0, 0.78, 0.30), (0.25, 0.75, 1.0)
QUERY = (12, 40)
"""Row and column of the panorama's place that asks."""
SHOWN = 8
"""The view whose places the panorama shows."""


def tinted(mask: Tensor) -> Tensor:
    """[h, w] of -1..1 -> [h * ZOOM, w * ZOOM, 3]."""
    share = ((mask + 1) / 2)[..., None]
    picture = torch.tensor(GROUND) * (1 - share) + torch.tensor(LIT) * share
    return picture.repeat_interleave(ZOOM, 0).repeat_interleave(ZOOM, 1)


def views_sheet(masks: Tensor) -> Tensor:
    """[20, h, w] in four rows of five, thin lines between."""
    tiles = torch.nn.functional.pad(masks, (0, 1, 0, 1), value=-0.6)
    return tinted(torch.cat([torch.cat(list(row), 1) for row in tiles.split(5)], 0))


def main() -> None:
    """Writes the picture."""
    cameras = tuple((*one, 90.0) for one in zip(*(angles.tolist() for angles in icosahedron_views()), strict=True))
    rows = []
    for antipodal in (False, True):
        to_views, to_panorama = exchange_masks(cameras, VIEW, PANORAMA, antipodal)
        asks = to_views[QUERY[0] * PANORAMA[1] + QUERY[1]].unflatten(0, (len(cameras), *VIEW))
        places = to_panorama.unflatten(0, (len(cameras), -1))[SHOWN].amax(0)
        seen = tinted(places.unflatten(0, PANORAMA))
        y, x = (at * ZOOM for at in QUERY)
        seen[y : y + ZOOM, x : x + ZOOM] = torch.tensor(ASKED)
        sheet = views_sheet(asks)
        height = sheet.shape[0]
        left = torch.full((height, seen.shape[1], 4), 0.0)
        top = (height - seen.shape[0]) // 2
        left[top : top + seen.shape[0]] = torch.cat([seen, torch.ones(*seen.shape[:2], 1)], -1)
        right = torch.cat([sheet, torch.ones(*sheet.shape[:2], 1)], -1)
        rows.append(torch.cat([left, torch.zeros(height, GAP, 4), right], 1))
    picture = torch.cat([rows[0], torch.zeros(GAP, rows[0].shape[1], 4), rows[1]])
    image = Image.fromarray((picture * 255).round().to(torch.uint8).numpy(), "RGBA")
    draw = ImageDraw.Draw(image)
    for row, words in enumerate(("plain", "antipodal")):
        top = row * (rows[0].shape[0] + GAP) + 70
        draw.text((4, top), f"{words}: what one view attends to", fill=(128, 128, 140, 255))
        draw.text((4, top + 16), "right: what the blue place attends to", fill=(128, 128, 140, 255))
    image.save(TARGET, quality=80, method=6)
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
