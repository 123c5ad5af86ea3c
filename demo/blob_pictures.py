"""Draws the blob nodes' pictures of web/docs, each from what the node itself gives: ``python -m demo.blob_pictures``.

Needs the host, as nodes do, but no model.
"""

import json
import math

import numpy
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from demo.bare_machine import use_host, use_pack
from demo.story_pictures import save
from demo.world.render import render
from demo.world.scene import draw_scenes

SIZE = 256
WIDTH, HEIGHT = 300, 200
COLOURS = (
    (230, 126, 34),
    (41, 128, 185),
    (39, 174, 96),
    (142, 68, 173),
    (192, 57, 43),
    (22, 160, 133),
    (127, 140, 141),
)
GROUND, GREY = (250, 250, 248), (205, 208, 212)

LAYOUT = {
    "version": 1,
    "blobs": [
        {"id": "1", "caption": "a table", "x": 0.5, "y": 0.7, "a": 0.62, "b": 0.2, "angle": 0},
        {"id": "2", "caption": "a fish", "x": 0.36, "y": 0.45, "a": 0.4, "b": 0.18, "angle": 30},
        {"id": "3", "caption": "a bottle", "x": 0.86, "y": 0.3, "a": 0.36, "b": 0.14, "angle": -50},
    ],
}
PROMPTS = (
    "a big red ball left of a small blue cube",
    "two cats on a sofa in front of a house",
    "a bird between a tree and a lighthouse",
    "seven apples",
)
MASKS_SEED, PLAN_SEED = 11, 2


def pen_on(picture: Image.Image) -> ImageDraw.ImageDraw:
    """To draw on a picture."""
    return ImageDraw.Draw(picture)


def as_tensor(picture: Image.Image) -> Tensor:
    """float32 [H, W, 3] in 0..1."""
    return torch.from_numpy(numpy.array(picture.convert("RGB"))).float() / 255


def outline(pen: ImageDraw.ImageDraw, ellipse, width: int, height: int, colour, thick: int = 3, fill=None) -> None:
    """One ellipse, (x, y, a, b, degrees) as in a layout."""
    x, y, a, b, angle = ellipse
    turned = math.radians(angle)
    points = []
    for step in range(121):
        u, v = a * math.cos(step * math.pi / 60), b * math.sin(step * math.pi / 60)
        points.append((
            x * width + (u * math.cos(turned) - v * math.sin(turned)) * height,
            y * height + (u * math.sin(turned) + v * math.cos(turned)) * height,
        ))  # fmt: skip
    if fill:
        pen.polygon(points, fill=fill)
    pen.line(points, fill=colour, width=thick, joint="curve")


def numbers(blob) -> tuple[float, ...]:
    """(x, y, a, b, degrees) of a blob."""
    e = blob.ellipse
    return e.x, e.y, e.a, e.b, e.angle


def drawn_layout(layout, width: int, height: int) -> Image.Image:
    """A layout's blobs in light colours, the last one on top, with their captions."""
    picture = Image.new("RGB", (width, height), GROUND)
    pen = pen_on(picture)
    for number, blob in enumerate(layout.blobs):
        colour = COLOURS[number % len(COLOURS)]
        light = tuple(round(0.65 * 255 + 0.35 * part) for part in colour)
        outline(pen, numbers(blob), width, height, colour, fill=light)
    for blob in layout.blobs:
        pen.text((blob.ellipse.x * width, blob.ellipse.y * height), blob.caption, fill=(30, 30, 30), anchor="mm")
    return picture


def from_masks() -> None:
    """Three characters' masks, one of them cut off, each by moments alone and refined."""
    from papernodes.nodes.blobs_from_masks import BY_FRAME, BlobsFromMasks

    scenes = draw_scenes(12, MASKS_SEED, characters=1, combinations="held_out")
    labels = render(scenes, SIZE, SIZE, layers=("labels",)).labels[:, 0]
    found = (labels == 0).float()
    chosen = found[found.flatten(1).sum(1).argsort(descending=True)[[1, 4, 6]]]
    columns = chosen[2].any(0).nonzero()[:, 0]
    chosen[2] = torch.roll(chosen[2], -int(columns.float().mean()), 1)
    chosen[2, :, SIZE // 2 :] = 0  # what rolled in on the other side
    rough, fine = (
        BlobsFromMasks.execute(chosen, "one\ntwo\nthree", 1, BY_FRAME, refine).result for refine in (False, True)
    )
    pictures, captions = [], []
    for number, mask in enumerate(chosen):
        ground = torch.where(mask[..., None] > 0.5, torch.tensor(GREY), torch.tensor(GROUND)).to(torch.uint8)
        picture = Image.fromarray(ground.numpy())
        for result, colour in ((rough, COLOURS[0]), (fine, COLOURS[1])):
            outline(pen_on(picture), numbers(result[0].blobs[number]), SIZE, SIZE, colour)
        pictures.append(as_tensor(picture))
        values = [result[1].splitlines()[number].rsplit(" ", 1)[1].rstrip(".") for result in (rough, fine)]
        captions.append(f"overlap {values[0]}, refined {values[1]}")
    save("BlobsFromMasks", pictures, captions, 3)


def to_others() -> None:
    """One layout as masks, boxes and what GLIGEN is given."""
    from papernodes.kernels.blob_layout import parse_blobs
    from papernodes.nodes.blob_results import BlobsToBoxes, BlobsToMasks
    from papernodes.nodes.blobs_to_gligen import BlobsToGligen

    layout = parse_blobs(json.dumps(LAYOUT), WIDTH // 8 * 8, HEIGHT // 8 * 8, 1)
    pictures, captions = [], []
    for kind in ("hard", "soft", "composited"):
        masks = BlobsToMasks.execute(layout, kind, 0, 0, 0).result[0]
        pictures += [mask[..., None].expand(-1, -1, 3) for mask in masks]
        captions += [f"{kind}: {blob.caption}" for blob in layout.blobs]
    save("BlobsToMasks", pictures, captions, 3)

    picture = drawn_layout(layout, layout.width, layout.height)
    plain = as_tensor(picture)
    (frame,) = json.loads(BlobsToBoxes.execute(layout, True, 0, 0, 0).result[0])["frames"]
    for number, box in enumerate(frame["boxes"]):
        left, top, right, bottom = box["pixels"]
        pen_on(picture).rectangle((left, top, right - 1, bottom - 1), outline=COLOURS[number], width=2)
    save("BlobsToBoxes", [as_tensor(picture)], ["clipped"], 1)

    class Reader:
        """Stands in for a CLIP: only boxes are drawn here."""

        def tokenize(self, text: str) -> str:
            return text

        def encode_from_tokens(self, text: str, return_pooled: str) -> tuple[None, str]:
            return None, text

    given = BlobsToGligen.execute([[torch.zeros(1), {}]], Reader(), None, layout, 0, 0, 0).result[0]
    grid = Image.new("RGB", (layout.width, layout.height), GROUND)
    pen = pen_on(grid)
    for x in range(0, layout.width, 8):
        pen.line((x, 0, x, layout.height), fill=(228, 228, 226))
    for y in range(0, layout.height, 8):
        pen.line((0, y, layout.width, y), fill=(228, 228, 226))
    for number, (caption, height, width, y, x) in enumerate(given[0][1]["gligen"][2]):
        corners = (x * 8, y * 8, (x + width) * 8 - 1, (y + height) * 8 - 1)
        pen.rectangle(corners, outline=COLOURS[number], width=3)
        pen.text((corners[0] + 6, corners[1] + 6), caption, fill=(30, 30, 30))
    save("BlobsToGLIGEN", [plain, as_tensor(grid)], ["the layout", "what GLIGEN is given"], 2)


def planned() -> None:
    """What the rules make of some prompts."""
    from papernodes.nodes.plan_blobs import RULES, PlanBlobs

    layouts = [PlanBlobs.execute(prompt, RULES, WIDTH, HEIGHT, "vertical", PLAN_SEED).result[0] for prompt in PROMPTS]
    save("PlanBlobs", [as_tensor(drawn_layout(layout, WIDTH, HEIGHT)) for layout in layouts], list(PROMPTS), 2)


def main() -> None:
    """Draws all of them."""
    use_host()
    use_pack()
    from_masks()
    to_others()
    planned()


if __name__ == "__main__":
    main()
