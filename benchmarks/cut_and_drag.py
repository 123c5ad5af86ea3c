"""Cut-and-drag: composite, flow, occlusion and masks of 49 frames at 1080 x 1920 with 5 turning, growing polygons.

The references are what is written today for such a clip. On a CPU: for every polygon and frame OpenCV's warpAffine of
the whole picture and fillPoly, and the flow of every pixel by numpy. On a GPU the same steps in plain torch. Neither
works out occlusion or the filled hole, which ours does. Also runs as ``python -m benchmarks.cut_and_drag``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.cut_and_drag import CutAndDrag
from kernels.cut_and_drag_scene import Scene
from kernels.drag_motion import Motion, parse_motion

from . import lib

HEIGHT, WIDTH, FRAMES = 1080, 1920, 49
MIDDLE = FRAMES // 2  # the frame that the references make
MIDDLES = ((0.2, 0.3), (0.5, 0.25), (0.75, 0.4), (0.35, 0.7), (0.7, 0.75))
POINTS, RADII = 24, (0.12, 0.18)  # of each polygon; parts of the picture's width and height


def make_motion() -> Motion:
    """Five stars with 24 points, 7 % of the picture each, that move, turn by up to 70 degrees and grow by up to 1.3."""
    objects = []
    for number, (x, y) in enumerate(MIDDLES):
        angles = [2 * math.pi * point / POINTS for point in range(POINTS)]
        sizes = [1.0 + 0.15 * (point % 2) for point in range(POINTS)]
        polygon = [
            [x + RADII[0] * size * math.cos(angle), y + RADII[1] * size * math.sin(angle)]
            for angle, size in zip(angles, sizes, strict=True)
        ]
        middle = {"frame": 24, "x": 0.1 - 0.05 * number, "y": 0.05, "angle": 40 - 20 * number, "scale": 1.3}
        last = {"frame": FRAMES - 1, "x": -0.1, "y": 0.08, "angle": -30, "scale": 0.8}
        keys = [{"frame": 0}, {**middle, "way": "ease"}, last]
        objects.append({"id": f"part{number}", "polygon": polygon, "keys": keys})
    return parse_motion(json.dumps({"version": 1, "objects": objects}), FRAMES)


def matrix(scene: Scene, number: int, index: int) -> numpy.ndarray:
    """float64 [3, 3]: where an object's pixels are at a frame."""
    moved = scene.transform(number, index)
    return numpy.array([[moved.a, moved.b, moved.x], [moved.c, moved.d, moved.y], [0.0, 0.0, 1.0]])


def outline(motion: Motion, number: int) -> numpy.ndarray:
    """float64 [N, 3]: an object's points in pixels, and ones."""
    points = numpy.array(motion.objects[number].polygon) * (WIDTH, HEIGHT) - 0.5
    return numpy.hstack([points, numpy.ones((len(points), 1))])


def with_opencv(image: numpy.ndarray, motion: Motion, scene: Scene, index: int) -> tuple:
    """One frame: composite [H, W, 3], flow [H, W, 2], masks [N, H, W]."""
    import cv2

    composite = image.copy()
    flow = numpy.zeros((HEIGHT, WIDTH, 2), numpy.float32)
    masks = numpy.zeros((len(motion.objects), HEIGHT, WIDTH), numpy.float32)
    y, x = numpy.mgrid[:HEIGHT, :WIDTH].astype(numpy.float32)
    for number in range(len(motion.objects)):
        moved = matrix(scene, number, index)
        warped = cv2.warpAffine(image, moved[:2], (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        points = (outline(motion, number) @ moved.T)[:, :2]
        cv2.fillPoly(masks[number], [points.round().astype(numpy.int32)], 1.0)
        inside = masks[number] > 0
        composite[inside] = warped[inside]
        step = matrix(scene, number, index + 1) @ numpy.linalg.inv(moved)
        flow[..., 0][inside] = (step[0, 0] * x + step[0, 1] * y + step[0, 2] - x)[inside]
        flow[..., 1][inside] = (step[1, 0] * x + step[1, 1] * y + step[1, 2] - y)[inside]
    return composite, flow, masks


def with_torch(image: Tensor, masks: Tensor, scene: Scene, index: int) -> tuple[Tensor, Tensor, Tensor]:
    """One frame: composite [3, H, W], flow [2, H, W], masks [N, H, W], by grid_sample of the whole picture."""
    device = image.device
    composite, flow = image.clone(), torch.zeros(2, HEIGHT, WIDTH, device=device)
    rows = torch.arange(HEIGHT, dtype=torch.float32, device=device)
    columns = torch.arange(WIDTH, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    result = []
    for number in range(len(masks)):
        moved = matrix(scene, number, index)
        back = numpy.linalg.inv(moved)
        u = (back[0, 0] * x + back[0, 1] * y + back[0, 2]) * (2 / (WIDTH - 1)) - 1
        v = (back[1, 0] * x + back[1, 1] * y + back[1, 2]) * (2 / (HEIGHT - 1)) - 1
        both = torch.cat([image, masks[number : number + 1]])[None]
        warped = F.grid_sample(both, torch.stack([u, v], dim=-1)[None], align_corners=True)[0]
        inside = warped[3] > 0.5
        composite = torch.where(inside, warped[:3], composite)
        step = matrix(scene, number, index + 1) @ back
        across = step[0, 0] * x + step[0, 1] * y + step[0, 2] - x
        down = step[1, 0] * x + step[1, 1] * y + step[1, 2] - y
        flow = torch.where(inside, torch.stack([across, down]), flow)
        result.append(warped[3])
    return composite, flow, torch.stack(result)


def frame_ms(clip: CutAndDrag, target: torch.device) -> float:
    """Time of a frame of a clip: on a GPU the mean, as frames overlap there; on a CPU the median of its frames."""
    if clip.device.type == "cuda":
        return lib.milliseconds(lambda: clip.render(device=target), clip.device) / FRAMES
    marks = []
    clip.render(device=target, on_frame=lambda *_: marks.append(time.perf_counter()))
    return statistics.median(after - before for before, after in itertools.pairwise(marks)) * 1e3


def run(device: torch.device, pairs: int) -> lib.Table:
    motion = make_motion()
    image = torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))
    cuda = device.type == "cuda"
    named = "the same steps in plain torch on the GPU" if cuda else "OpenCV warpAffine and fillPoly, flow by numpy"
    table = lib.Table(
        name=f"cut_and_drag-{device.type}",
        title=f"Cut-and-drag, {FRAMES} frames of {HEIGHT} x {WIDTH}, {len(MIDDLES)} polygons, {device.type.upper()}",
        reference=f"{named} (`benchmarks/cut_and_drag.py`), one frame in the middle of the clip, timed in turn",
        columns=["results in", "backend", "set up once ms", "ms a frame", "reference ms a frame", "ratio", "peak MB"],
        facts=lib.facts(device),
        remarks=[
            "A frame is composite, flow, occlusion and five masks, written to the finished clip (on a GPU the mean of",
            "all frames, on a CPU the median); median over clips, best of five for setting up. The reference gives",
            "a frame's composite, flow and masks, and keeps none of them.",
        ],
    )
    backends = ("triton", "eager") if cuda else ("eager",)
    places = ("GPU memory", "main memory") if cuda else ("main memory",)
    for place in places:
        target = device if place == "GPU memory" else torch.device("cpu")
        for backend in backends:

            def set_up(backend=backend):
                return CutAndDrag(image, motion, FRAMES, device=device, backend=backend)

            before = min(lib.milliseconds(set_up, device) for _ in range(5))
            clip = set_up()
            if cuda:
                planes = image.permute(2, 0, 1).contiguous().to(device)
                whole = torch.stack([cover.full(HEIGHT, WIDTH) for cover in clip.scene.coverages]).to(device)

                def reference(planes=planes, whole=whole, clip=clip):
                    return with_torch(planes, whole, clip.scene, MIDDLE)
            else:

                def reference(clip=clip):
                    return with_opencv(image.numpy(), motion, clip.scene, MIDDLE)

            def subject(clip=clip, target=target):
                clip.render(device=target)

            peak = lib.peak_bytes(subject, device)
            reference()
            rows = [
                (frame_ms(clip, target), statistics.median(lib.timings(reference, device, 5))) for _ in range(pairs)
            ]
            table.add(
                place,
                backend,
                before,
                statistics.median(ours for ours, _ in rows),
                statistics.median(theirs for _, theirs in rows),
                f"{statistics.median(theirs / ours for ours, theirs in rows):.1f}x",
                f"{peak / 1e6:.0f}" if peak else "-",
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the table")
    parser.add_argument("--clips", type=int, default=5, help="how often a clip is made")
    arguments, _ = parser.parse_known_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(run(device, arguments.clips).save(lib.Path(arguments.results)))


if __name__ == "__main__":
    main()
