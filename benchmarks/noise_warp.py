"""Noise warp: step and downsample, against the published algorithm.

On a GPU at the published CogVideoX setting (1920 x 2880 x 16 down to 60 x 90), on a CPU at 480 x 720 x 16 down to 60
x 90. The time of a step contains building the index lists and the downsample. Also runs as ``python -m
benchmarks.noise_warp``.
"""

from __future__ import annotations

import argparse

import torch

from kernels.noise_warp import NoiseWarper, slack_for

from . import lib
from .published_noise_warp import PublishedNoiseWarp

# The authors' own code, torch, per frame: warp step + downsample (milliseconds). Measured once on the same kinds of
# machine.
AUTHORS_CODE = {("cuda", 1920): (59.5, 19.4), ("cuda", 480): (6.9, 1.3), ("cpu", 480): (1302.0, 58.0)}
SIZE = (60, 90)


def run(
    device: torch.device, height: int, width: int, channels: int = 16, repeats: int = 50, pairs: int = 10
) -> lib.Table:
    anchor = sum(AUTHORS_CODE[device.type, height])
    table = lib.Table(
        name=f"noise_warp-{device.type}-{height}",
        title=f"Noise warp, {height} x {width} x {channels} to {SIZE[0]} x {SIZE[1]}, {device.type.upper()}",
        reference=(
            f"the published algorithm in plain torch (`benchmarks/published_noise_warp.py`), timed in turn with ours; "
            f"the authors' own code took {anchor:.0f} ms a frame on such a machine"
        ),
        columns=[
            "flow",
            "algorithm",
            "backend",
            "step + downsample ms",
            "published, plain torch ms",
            "ratio",
            "ratio to authors' code",
            "peak MB",
        ],
        facts=lib.facts(device),
    )
    backends = ("triton", "eager") if device.type == "cuda" else ("eager",)
    for flow_name, make in lib.FLOWS.items():
        flow = make(height, width).to(device)
        for algorithm in ("nearest", "subpixel"):
            for backend in backends:
                warper: list[NoiseWarper] = []

                def fill(algorithm=algorithm, backend=backend, warper=warper, flow=flow):
                    warper.append(
                        NoiseWarper(
                            channels,
                            height,
                            width,
                            seed=0,
                            device=device,
                            algorithm=algorithm,
                            backend=backend,
                            slack=slack_for(height // SIZE[0]),
                        )
                    )
                    for _ in range(2):
                        warper[0].step(flow, SIZE)

                peak = lib.peak_bytes(fill, device)
                published = PublishedNoiseWarp(channels, height, width, device)
                subject = lambda warper=warper, flow=flow: warper[0].step(flow, SIZE)  # noqa: E731
                alone = lib.median_ms(subject, device, repeats)

                def reference(published=published, flow=flow):
                    published.step(flow)
                    published.output(SIZE)

                pair = lib.paired(subject, reference, device, repeats=pairs, warm_up=1)
                table.add(
                    flow_name,
                    algorithm,
                    backend,
                    alone,
                    pair.reference,
                    f"{pair.ratio:.1f}x",
                    f"{anchor / alone:.1f}x",
                    f"{peak / 1e6:.0f}" if peak else "-",
                )
                del published
                warper.clear()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the table")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=10)
    arguments, _ = parser.parse_known_args()
    sizes = [(1920, 2880), (480, 720)] if torch.cuda.is_available() else [(480, 720)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for height, width in sizes:
        table = run(device, height, width, repeats=arguments.repeats, pairs=arguments.pairs)
        print(table.save(lib.Path(arguments.results)))


if __name__ == "__main__":
    main()
