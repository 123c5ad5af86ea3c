"""Panoramas: views cut out of one, a new angle for every frame, bilinear, float32.

On a CPU against py360convert with OpenCV, which works out every angle's map anew as we do; only what it keeps for
angles that come again is of no use here. On a GPU against its copy bandwidth: the bytes that must move are those of the
views, and once those of every texel that a view touches.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from kernels import panorama_eager
from kernels.equirectangular import positions_of
from kernels.panorama import (
    camera_rotations,
    equirect_to_perspective,
    perspective_to_equirect,
    rotate_panorama,
)

from . import lib

ROWS, SIZE, FOV = 2048, 1024, 90.0
VIEWS = (32, 128)
BAR = 60
"""Per cent of the copy bandwidth, on a GPU."""

LAYOUTS = {"planes": False, "IMAGE": True}
"""Whether a pixel's channels lie side by side, as ComfyUI's pictures have them."""

TILES = (
    (16, 2, 256, 4, 4), (16, 2, 256, 2, 4), (16, 2, 256, 8, 4), (16, 2, 128, 8, 4), (16, 2, 512, 4, 4),
    (16, 2, 512, 4, 8), (32, 1, 256, 8, 4), (32, 1, 128, 8, 4), (8, 4, 256, 2, 4), (8, 4, 512, 2, 4),
)  # fmt: skip
"""ACROSS, DOWN, STEP, STEPS and WARPS of the fused pass, to be tried."""

Keep = Callable[[lib.Table], None]


def a_panorama(rows: int, device: torch.device, side_by_side: bool) -> Tensor:
    """float32 [1, 3, rows, 2 rows] of noise, in one of the layouts."""
    generator = torch.Generator(device).manual_seed(0)
    if side_by_side:
        return torch.rand(1, rows, 2 * rows, 3, device=device, generator=generator).movedim(-1, 1)
    return torch.rand(1, 3, rows, 2 * rows, device=device, generator=generator)


def cameras(count: int, pitch: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Yaw once round, pitch up and down about a middle by 20 degrees, a little roll, and the field of view."""
    when = torch.arange(count) / count
    up = pitch + 20 * (2 * math.pi * when).sin()
    return 360 * when - 180, up, 5 * (4 * math.pi * when).sin(), torch.full((count,), FOV)


def noted(call: Callable[[], object], times: list[float]) -> None:
    """Calls it and notes the CPU time that all threads took, in milliseconds."""
    before = time.process_time()
    call()
    times.append(1e3 * (time.process_time() - before))


# ---- CPU -----------------------------------------------------------------------------------------


def measure_cpu(device: torch.device, tiny: bool, keep: Keep) -> None:
    """Ours against py360convert's, a new yaw in every call."""
    import py360convert

    rows, size = (64, 32) if tiny else (ROWS, SIZE)
    table = lib.Table(
        name="panorama-cpu",
        title=f"Views of {size} x {size} from a panorama of {2 * rows} x {rows}, float32, bilinear, CPU",
        reference="`py360convert.e2p` with OpenCV, a new yaw for every view",
        columns=["what", "layout", "ours", "py360convert", "ours is faster", "CPU time", "theirs", "differ by"],
        facts=lib.facts(device),
        remarks=[
            "Values are noise in 0..1; 'differ by' is the median over pixels, both seen through the same pixels. The "
            "fast path is torch alone: blocks of rows that stay in a core's cache, one for each thread."
        ],
    )
    # Its first and last pixels lie on the edges of the field of view, ours half a pixel within.
    inclusive = 2 * math.degrees(math.atan(math.tan(math.radians(FOV) / 2) * (size - 1) / size))
    for pitch, what in ((10.0, "level"), (70.0, "over a pole")):
        for layout, side_by_side in LAYOUTS.items():
            panorama = a_panorama(rows, device, side_by_side)
            pixels = panorama[0].movedim(0, -1).numpy()
            turns = [0.0, 0.0]

            def ours(yaw: float | None = None) -> Tensor:
                turns[0] += 3.7  # noqa: B023
                angles = (turns[0] if yaw is None else yaw, pitch, 0.0, FOV)  # noqa: B023
                return equirect_to_perspective(panorama, *(torch.tensor([angle]) for angle in angles), size, size)  # noqa: B023

            def theirs(yaw: float | None = None):
                turns[1] += 3.7  # noqa: B023
                return py360convert.e2p(
                    pixels, (inclusive, inclusive), turns[1] if yaw is None else yaw, pitch, (size, size)  # noqa: B023
                )  # fmt: skip

            spent: dict[str, list[float]] = {"ours": [], "theirs": []}
            pair = lib.paired(
                lambda: noted(ours, spent["ours"]),  # noqa: B023
                lambda: noted(theirs, spent["theirs"]),  # noqa: B023
                device, 2 if tiny else 15, 2,
            )  # fmt: skip
            busy = [f"{statistics.median(times[2:]):.0f} ms" for times in spent.values()]
            gap = (ours(33.0)[0].movedim(0, -1) - torch.from_numpy(theirs(33.0))).abs().median()
            table.add(
                what, layout, f"{pair.subject:.1f} ms", f"{pair.reference:.1f} ms", f"{pair.ratio:.1f} x", *busy,
                f"{float(gap):.0e}",
            )  # fmt: skip
            keep(table)


# ---- GPU -----------------------------------------------------------------------------------------


def gpu_ms(call: Callable[[], object], repeats: int = 20) -> float:
    """Median time of a call on the GPU, whose queue is held up first so that it never waits for the CPU."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda._sleep(200_000_000)
    for mark in marks[:-1]:
        mark.record()
        call()
    marks[-1].record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(marks))


def copy_gb_per_second(size: int, device: torch.device) -> float:
    """Bytes read and written by a copy of so many bytes, over its time."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / gpu_ms(lambda: target.copy_(source)) / 1e6


def touched_texels(rows: int, turns: tuple[Tensor, ...], size: int, device: torch.device) -> int:
    """How many texels of a panorama some pixel of some view reads."""
    touched = torch.zeros(rows, 2 * rows, dtype=torch.bool, device=device)
    for matrix, fov in zip(camera_rotations(*turns[:3]), turns[3].tolist(), strict=True):
        rays = panorama_eager.camera_directions(size, size, fov, device)
        x, y = positions_of(torch.stack([rays @ row for row in matrix.float().to(device)], -1), rows, 2 * rows).floor()
        for across in (0, 1):
            for down in (0, 1):
                touched[(y + down).clamp(0, rows - 1).long(), (x + across).long() % (2 * rows)] = True
    return int(touched.sum())


def measure_gpu(device: torch.device, tiny: bool, keep: Keep) -> None:
    """The fused pass: its share of the copy bandwidth, and eager torch's time."""
    rows, size = (64, 32) if tiny else (ROWS, SIZE)
    table = lib.Table(
        name="panorama-cuda",
        title=f"Views of {size} x {size} from a panorama of {2 * rows} x {rows}, float32, bilinear, CUDA",
        reference="the GPU's copy bandwidth; eager torch (`kernels/panorama_eager.py`)",
        columns=["what", "views", "layout", "ours", "GB moved", "GB/s", "of copying", "eager", "differ by"],
        facts=lib.facts(device),
    )
    best = 0.0
    for count in VIEWS:
        for pitch, what in ((0.0, "level"), (70.0, "over a pole")):
            turns = cameras(count, pitch)
            moved = 12 * (count * size * size + touched_texels(rows, turns, size, device))
            copied = copy_gb_per_second(moved // 2, device)
            for layout, side_by_side in LAYOUTS.items():
                panorama = a_panorama(rows, device, side_by_side)
                took = gpu_ms(lambda: equirect_to_perspective(panorama, *turns, size, size))  # noqa: B023
                few = [turn[:4] for turn in turns]
                ours, eager = (equirect_to_perspective(panorama, *few, size, size, backend=b) for b in (None, "eager"))
                slow = gpu_ms(lambda: equirect_to_perspective(panorama, *few, size, size, backend="eager"), 3)  # noqa: B023
                share = 100 * moved / took / 1e6 / copied
                best = max(best, share)
                table.add(
                    what, count, layout, f"{took:.3f} ms", f"{moved / 1e9:.2f}", f"{moved / took / 1e6:.0f}",
                    f"{share:.0f} %", f"{slow * count / 4:.0f} ms",
                    f"{float((ours - eager).abs().max()):.0e}",
                )  # fmt: skip
                keep(table)
    others(rows, size, device, table)
    table.remarks += [
        "Eager is timed on four views and counted up; 'differ by' is the largest of noise in 0..1.",
        f"Bar: {BAR} % of copying over at least {VIEWS[0]} views; {'met' if best >= BAR else 'not met'} "
        f"({best:.0f} % at best). NOTES.md says what binds.",
    ]
    keep(table)


def others(rows: int, size: int, device: torch.device, table: lib.Table) -> None:
    """The same kernel's other uses: pictures laid into panoramas, and panoramas turned."""
    turns = cameras(8, 0.0)
    views = torch.rand(8, 3, size, size, device=device)
    panorama = a_panorama(rows, device, False)
    calls = {
        "views laid into panoramas": lambda backend: perspective_to_equirect(
            views, *turns, rows, 2 * rows, backend=backend
        )[0],
        "panoramas turned": lambda backend: rotate_panorama(panorama, *turns[:3], backend=backend),
    }
    for what, call in calls.items():
        ours, eager = (gpu_ms(lambda: call(backend), 3) for backend in (None, "eager"))  # noqa: B023
        gap = float((call(None) - call("eager")).abs().max())
        table.add(what, 8, "planes", f"{ours:.3f} ms", "-", "-", "-", f"{eager:.0f} ms", f"{gap:.0e}")


def tune(device: torch.device) -> None:
    """Prints times of 32 views with other tiles."""
    from kernels import panorama_triton

    names = ("ACROSS", "DOWN", "STEP", "STEPS", "WARPS")
    for tile in TILES:
        for name, value in zip(names, tile, strict=True):
            setattr(panorama_triton, name, value)
        times = []
        for side_by_side in LAYOUTS.values():
            panorama = a_panorama(ROWS, device, side_by_side)
            for pitch in (0.0, 70.0):
                turns = cameras(VIEWS[0], pitch)
                times.append(gpu_ms(lambda: equirect_to_perspective(panorama, *turns, SIZE, SIZE)))  # noqa: B023
        print(f"tune {tile}: planes {times[0]:.3f} {times[1]:.3f}, IMAGE {times[2]:.3f} {times[3]:.3f} ms", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the tables")
    parser.add_argument("--tiny", action="store_true", help="small sizes: whether it runs; writes nothing")
    parser.add_argument("--tune", action="store_true", help="on a GPU: times of other tiles, too")
    arguments, _ = parser.parse_known_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tables: dict[str, lib.Table] = {}

    def keep(table: lib.Table) -> None:
        tables[table.name] = table
        if not arguments.tiny:
            table.save(Path(arguments.results))

    (measure_gpu if device.type == "cuda" else measure_cpu)(device, arguments.tiny, keep)
    for table in tables.values():
        print(table.markdown())
    if arguments.tune and device.type == "cuda":
        tune(device)


if __name__ == "__main__":
    main()
