"""Draws the panorama nodes' pictures of web/docs from toy_panorama.png: ``python -m demo.panorama_pictures``."""

import numpy
import torch
from PIL import Image
from torch import Tensor

from demo.media_pictures import MEDIA
from demo.story_pictures import save
from kernels.panorama import equirect_to_perspective, perspective_to_equirect
from kernels.panorama_views import merge_views

HEIGHT, VIEW = 150, 150
YAW, PITCH = (-95.0, 0.0, 90.0, 180.0), (-10.0, 20.0, -5.0, 0.0)
ROUND = 8
"""Views of the panorama that is joined again."""


def panorama() -> Tensor:
    """float32 [1, 3, 384, 768]"""
    picture = numpy.array(Image.open(MEDIA / "toy_panorama.png").convert("RGB"))
    return torch.from_numpy(picture).movedim(-1, 0)[None].float() / 255


def shown(pictures: Tensor) -> list[Tensor]:
    """Pictures [B, 3, h, w] as [h, w, 3] of the sheet's size."""
    size = (HEIGHT, HEIGHT * pictures.shape[3] // pictures.shape[2])
    return list(torch.nn.functional.interpolate(pictures, size=size, mode="area").movedim(1, -1))


def constant(value: float, count: int) -> Tensor:
    return torch.full((count,), value)


def main() -> None:
    """Write the pictures."""
    scene = panorama()
    count = len(YAW)
    turns = torch.tensor(YAW), torch.tensor(PITCH), constant(0, count), constant(80, count)
    views = equirect_to_perspective(scene, *turns, VIEW, VIEW)
    names = [f"yaw {yaw:.0f}, pitch {pitch:.0f}" for yaw, pitch in zip(YAW, PITCH, strict=True)]
    save("EquirectToPerspective", shown(views), names, count)
    one = [turn[:1] for turn in turns]
    large = equirect_to_perspective(scene, *one, 384, 384)
    laid, _ = perspective_to_equirect(large, *one, 384, 768)
    yaw = torch.arange(ROUND) * (240 / ROUND) - 105
    turns = yaw, 25 * (yaw / 40).sin(), constant(0, ROUND), constant(70, ROUND)
    views = equirect_to_perspective(scene, *turns, 384, 384)
    layers = torch.cat([views, torch.zeros_like(views[:, :1])], 1)
    joined = merge_views(lambda number: layers[number : number + 1], turns, 384, 768)
    mask = joined[3:].expand(3, -1, -1)
    save(
        "PerspectiveToEquirect",
        shown(torch.stack([laid[0], joined[:3], mask])),
        ["one picture, yaw -95, pitch -10", f"{ROUND} pictures joined", "their mask"],
        3,
    )


if __name__ == "__main__":
    main()
