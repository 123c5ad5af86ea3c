"""Draws the pictures of Cubemap Convert, Rotate Panorama, Panorama Seam and Elevation Track in web/docs.

``python -m demo.panorama_sphere_pictures``. Of Panorama Seam and Elevation Track they are what the templates
seam_repair and level_panorama make; prints how far the tracked tilt is from the true one, and the seam's error before
and after.
"""

import asyncio
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from demo.media_pictures import MEDIA
from demo.story_pictures import save
from host import comfyui, layout, templates
from host.pictures import read_files
from host.server import Server
from kernels.cubemap import CROSS, arrange_faces, panorama_to_faces
from kernels.elevation import LINEAR, fit_angles
from kernels.horizon import NOTHING, find_tilt
from kernels.panorama import rotate_panorama
from kernels.panorama_seam import seam_error, seam_mask, seam_to_edges
from kernels.schedule import Schedule

TURNS = ((0.0, 0.0, 0.0), (-120.0, 0.0, 0.0), (0.0, 50.0, 0.0), (0.0, 0.0, 30.0))
"""Yaw, pitch and roll of the pictures of Rotate Panorama, degrees."""


MASK = (0.9, 0.25, 0.15)
"""The colour that a mask is drawn in."""


def inputs_of(title: str, graph: str) -> dict:
    """The inputs of a template's node of a title."""
    return next(node["inputs"] for node in templates.read_twin(graph).values() if node["_meta"]["title"] == title)


def run(names: tuple[str, ...]) -> list[dict[str, Tensor]]:
    """What templates save: for each, a title -> its pictures, float32 [T, H, W, 3]."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        base = layout.make_base_directory(Path(folder))
        layout.copy_media(base / "input")
        with Server(comfyui.find(), base=base, cpu=True) as server:
            for name in names:
                contents = asyncio.run(templates.run_graph(server.url, templates.read_twin(name)))
                made.append({title: torch.tensor(read_files(files)) / 255 for title, files in contents.items()})
    return made


def on_white(picture: Tensor) -> Tensor:
    """A cross [3, H, W] with white where there is no face."""
    return torch.where((picture.amax(0) > 0)[None], picture, 1.0)


def track_error(panorama: Tensor) -> tuple[float, float]:
    """The largest errors of the fitted pitch and roll of the template's clip, degrees."""
    camera = inputs_of("Camera", "level_panorama")
    count = camera["frames"]
    truth = [Schedule.parse(camera[name]).at(count) for name in ("pitch", "roll")]
    turned = rotate_panorama(panorama, torch.zeros(count), *truth)
    views = panorama_to_faces(turned, panorama.shape[-1] // 4)[0].movedim(1, -1)
    tilts = [find_tilt(view, 90.0) for view in views]
    known = torch.tensor([tilt.found_by != NOTHING for tilt in tilts])
    found = torch.tensor([tilt[:2] for tilt in tilts]).T
    return tuple(float((fit_angles(f, known, LINEAR) - t).abs().max()) for f, t in zip(found, truth, strict=True))


def main() -> None:
    """Draws all of them."""
    panorama = to_tensor(Image.open(MEDIA / "toy_city.png").convert("RGB"))[None]
    cross = on_white(arrange_faces(panorama_to_faces(panorama, 192), CROSS)[0]).movedim(0, -1)
    save("CubemapConvert", [cross], [""], 1)
    turned = rotate_panorama(panorama.expand(len(TURNS), -1, -1, -1), *torch.tensor(TURNS).unbind(1)).movedim(1, -1)
    save("RotatePanorama", list(turned), ["as it is", "yaw -120", "pitch 50", "roll 30"], 2)
    repair, level = run(("seam_repair", "level_panorama"))
    before, after = (repair[f"Save {which} pictures"][0] for which in ("seam", "repaired"))
    asked = inputs_of("Panorama Seam", "seam_repair")
    over = seam_mask(*before.shape[:2], asked["degrees"], asked["feather"])[..., None]
    masked = before + (torch.tensor(MASK) - before) * 0.6 * over
    save("PanoramaSeam", [before, masked, after], ["the seam in the middle", "its mask", "drawn anew"], 1)
    for name, picture in (("before", before), ("after", after)):
        print(f"seam error {name}: {float(seam_error(seam_to_edges(picture.movedim(-1, 0)))):.2f}")
    shown = level["Save elevation pictures"]
    save("ElevationTrack", [shown[0], shown[5], shown[-1]], ["frame 0", "frame 5", "frame 11"], 3)
    print("largest error of pitch and roll: {:.2f} and {:.2f} degrees".format(*track_error(panorama)))


if __name__ == "__main__":
    main()
