"""Draws the help pictures of the panorama nodes with the small image model: ``python -m demo.panorama_model_pictures``.

``--only NAME`` draws one of them: model, decode, encode, views or readme (some minutes each of the last two on a
processor). readme is panorama_views.webp of demo/media: what is seen 60 degrees up in the report's first panoramas.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from demo.bare_machine import use_host, use_pack

use_host()
use_pack()

from demo.eval.image_models import CHECKPOINTS, ImageModels  # noqa: E402
from demo.eval.image_report import CFG  # noqa: E402
from demo.eval.panorama_models import Arm, decode, draw, encode, look, ring_yaws, sample  # noqa: E402
from demo.eval.panorama_report import (  # noqa: E402
    ARMS,
    FIRST_SEED,
    FLAT,
    VIEWS,
    VIEWS_HEIGHT,
    scene_prompts,
    scenes_of,
)
from demo.media_pictures import MEDIA  # noqa: E402

DOCS = Path(__file__).resolve().parent.parent / "web" / "docs"
PLACES = ("in a city, lit from the left", "in a forest, lit from above", "in a desert, lit from the right", "at night")
GAP = 6
OF_REPORT, SHOWN = 60, 3
"""Panoramas of one seed in the report, whose scenes depend on how many there are; those that the README shows."""


def column(rows: list[Tensor]) -> Tensor:
    """Pictures [3, H, W] of one width above each other, with white gaps."""
    gap = torch.ones(3, GAP, rows[0].shape[2])
    return torch.cat([part for row in rows for part in (row, gap)][:-1], 1)


def line(pictures: list[Tensor]) -> Tensor:
    """Pictures [3, H, W] of one height beside each other."""
    return column([picture.transpose(1, 2) for picture in pictures]).transpose(1, 2)


def turned(picture: Tensor) -> Tensor:
    """A panorama whose edges meet in the middle."""
    return picture.roll(picture.shape[-1] // 2, -1)


def enlarged(picture: Tensor, times: int) -> Tensor:
    return picture.repeat_interleave(times, -1).repeat_interleave(times, -2)


def save(name: str, picture: Tensor) -> None:
    """Writes a .webp of under 60 kB to the help pages."""
    write(DOCS / f"PaperNodes_{name}.webp", picture)


def write(path: Path, picture: Tensor) -> None:
    """Writes a .webp of under 60 kB."""
    values = (picture.clamp(0, 1) * 255).round().byte().movedim(0, -1).contiguous().numpy()
    for quality in (92, 85, 75, 60):
        Image.fromarray(values).save(path, quality=quality, method=6)
        if path.stat().st_size < 58_000:
            break
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


def model_picture(models: ImageModels) -> None:
    """Places without and with Panorama Model, turned by half."""
    arms = [Arm("plain", "plain"), Arm("round", "round")]
    drawn = [draw(models, PLACES, 3, arm, 16, CFG, steps=20) for arm in arms]
    save("PanoramaModel", column([line([turned(one), turned(other)]) for one, other in zip(*drawn, strict=True)]))


@torch.no_grad()
def decode_picture(models: ImageModels) -> None:
    """One latent decoded by both nodes, its edges in the middle, enlarged."""
    noise = torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(3))
    texts = models.encode_prompts([PLACES[0]]), models.encode_prompts([""])
    latent = sample(models, noise, *texts, CFG, 20, Arm("round"), 3)
    pictures = [turned(decode(models, latent, how))[0, :, 32:, 64:192] for how in ("plain", "round")]
    save("PanoramaVAEDecode", line([enlarged(picture, 2) for picture in pictures]))


@torch.no_grad()
def encode_picture(models: ImageModels) -> None:
    """A panorama, and what both ways there and back make of it, its edges in the middle, enlarged."""
    picture = draw(models, [PLACES[2]], 3, Arm("round", "round"), 16, CFG)
    both = [decode(models, models.encode(picture), "plain"), decode(models, encode(models, picture, 16), "tiles")]
    shown = [turned(some)[0, :, 24:104, 64:192] for some in (picture, *both)]
    save("PanoramaVAEEncode", line([enlarged(some, 2) for some in shown]))


def views_picture(models: ImageModels) -> None:
    """A panorama made of views, and views into it."""
    arm = Arm("views", "tiles")
    panorama = draw(models, ["an angry green dotted cube in a desert, lit from the left"], 8, arm, 32, CFG)
    rows = [panorama[0]]
    for pitch in (60.0, 0.0, -60.0):
        seen = look(panorama, ring_yaws(arm, pitch), pitch, 168)
        rows.append(line(list(seen)))
    width = rows[1].shape[-1]
    rows[0] = torch.nn.functional.interpolate(rows[0][None], size=(width // 2, width), mode="bilinear")[0]
    save("PanoramaViews", column(rows))


def readme_picture(models: ImageModels) -> None:
    """Views 60 degrees up of the report's first panoramas: the plain model's, and below those of Panorama Views."""
    prompts, rows = scene_prompts(scenes_of(OF_REPORT, FIRST_SEED))[:SHOWN], []
    for name in (FLAT, VIEWS):
        panoramas = draw(models, prompts, FIRST_SEED, ARMS[name], VIEWS_HEIGHT, CFG, batch=1)
        rows.append(line(list(look(panoramas, ring_yaws(ARMS[VIEWS], 60.0), 60.0))))
    write(MEDIA / "panorama_views.webp", column(rows))


PICTURES = {
    "model": model_picture,
    "decode": decode_picture,
    "encode": encode_picture,
    "views": views_picture,
    "readme": readme_picture,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PICTURES)
    arguments = parser.parse_args()
    models = ImageModels(CHECKPOINTS, torch.device("cpu"))
    for name in [arguments.only] if arguments.only else PICTURES:
        PICTURES[name](models)


if __name__ == "__main__":
    main()
