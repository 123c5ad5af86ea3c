"""How far Elevation Track is off: ``python -m demo.tilt_measures [PANORAMA ...]``.

Cameras of random yaw, pitch up to 30 and roll up to 20 degrees look at drawn places, at the toy world's and at level
panoramas in files that are named. Prints a row for each: in how many pictures a tilt was found and by what, and the
larger error of pitch and roll there, degrees. The table of the node's help page is made so.
"""

import sys
from dataclasses import replace
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from demo.places import plain, room, street, views_of
from demo.world.attributes import BACKGROUNDS
from demo.world.panorama import render_panorama
from demo.world.scene import draw_scenes
from kernels.horizon import HORIZON, LINES, find_tilt
from kernels.panorama import equirect_to_perspective

CAMERAS, SEED, FOV = 40, 1, 90.0
STEEPEST, MOST_ROLL = 30.0, 20.0


def cameras() -> Tensor:
    """Yaw, pitch and roll, [3, CAMERAS], degrees."""
    generator = torch.Generator().manual_seed(SEED)
    yaw, pitch, roll = torch.rand(3, CAMERAS, generator=generator)
    return torch.stack((yaw * 360, (pitch * 2 - 1) * STEEPEST, (roll * 2 - 1) * MOST_ROLL))


def seen(panorama: Tensor, height: int, width: int) -> Tensor:
    """[CAMERAS, height, width, 3] of a panorama [1, 3, H, W]."""
    views = equirect_to_perspective(panorama, *cameras(), torch.full((CAMERAS,), FOV), height, width)
    return views.movedim(1, -1)


def report(name: str, views: Tensor) -> None:
    """Prints a place's row."""
    tilts = [find_tilt(view, FOV) for view in views]
    apart = (torch.tensor([tilt[:2] for tilt in tilts]) - cameras()[1:].T).abs().amax(1)
    for way in (LINES, HORIZON):
        errors = apart[torch.tensor([tilt.found_by == way for tilt in tilts])]
        if len(errors):
            median, most, largest = errors.median(), errors.quantile(0.9), errors.max()
            print(f"{name} | {way} | {len(errors)} of {len(tilts)} | {median:.2f} | {most:.2f} | {largest:.2f}")
    print(f"{name} | nothing | {sum(tilt.found_by not in (LINES, HORIZON) for tilt in tilts)} of {len(tilts)}")


def main() -> None:
    """Prints the rows."""
    print("place | by | frames | median | 90 of 100 within | largest")
    drawn = {"room": room, "street": street, "level ground": plain}
    drawn |= {f"hills of {high:g} degrees": partial(plain, hills=high) for high in (2.0, 6.0)}
    for name, place in drawn.items():
        report(name, views_of(place, *cameras(), FOV))
    for number, name in enumerate(BACKGROUNDS):
        scene = draw_scenes(1, number, characters=2)
        scene = replace(scene, background=torch.full_like(scene.background, number))
        report(f"toy {name}", seen(render_panorama(scene, 256).frames[0], 256, 256))
    for file in sys.argv[1:]:
        report(file, seen(to_tensor(Image.open(file).convert("RGB"))[None], 360, 640))


if __name__ == "__main__":
    main()
