"""How well each algorithm's noise follows motion, beside the published algorithm at equal settings.

A swirl and a zoom of 1.05 a frame at 128 x 192, and the demo clip (DIS flow) at 88 x 160; 4 channels, 25 frames,
averaged over seeds. Quality, not time: the table is the same on every machine up to sampling error (about 0.01).
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from torch import Tensor

from kernels.flow import resize_flow
from kernels.noise_warp import ALGORITHMS, warp_noise

from . import lib
from .published_noise_warp import PublishedNoiseWarp
from .tracking import correlation_along_flow

CLIP = Path(__file__).resolve().parent.parent / "demo" / "media" / "bigbuckbunny_49.mp4"
LAGS = (1, 4, 8, 24)
CHANNELS = 4


def clip_flow(size: tuple[int, int]) -> Tensor:
    """Forward DIS flow of the first 25 frames of the demo clip, ``[24, 2, h, w]`` in pixels of ``size``."""
    import av

    from kernels.optical_flow import dis_flow

    with av.open(str(CLIP)) as container:
        pictures = itertools.islice(container.decode(video=0), 25)
        frames = [picture.to_ndarray(format="rgb24") for picture in pictures]
    stack = torch.stack([torch.from_numpy(frame) for frame in frames]).float() / 255
    return resize_flow(dis_flow(stack), size)


def published(flow: Tensor, size: tuple[int, int], oversample: int) -> Tensor:
    height, width = size[0] * oversample, size[1] * oversample
    warp = PublishedNoiseWarp(CHANNELS, height, width, torch.device("cpu"))
    frames = [warp.output(size)]
    for vectors in resize_flow(flow, (height, width)):
        warp.step(vectors)
        frames.append(warp.output(size))
    return torch.stack(frames)


def run(seeds: int = 2) -> lib.Table:
    table = lib.Table(
        name="noise_tracking",
        title="Correlation of noise along the flow",
        reference="the published algorithm (`benchmarks/published_noise_warp.py`) at the same grid and flow",
        columns=[
            "flow",
            "oversample",
            "algorithm",
            *[f"track {lag}" for lag in LAGS],
            *[f"step {lag}" for lag in LAGS],
        ],
        facts=lib.facts(torch.device("cpu")),
        remarks=[
            "Correlation of frame 0 with frame 1, 4, 8, 24 at the pixel that the motion has reached. `track` keeps",
            "real positions: what a video shows. `step` rounds positions in every frame: what a whole-pixel warp can",
            "follow at best, however far that drifts from the motion.",
        ],
    )
    flows = {
        "swirl": lib.swirl(128, 192)[None].expand(24, -1, -1, -1),
        "zoom-in x1.05": lib.zoom(128, 192, 1.05)[None].expand(24, -1, -1, -1),
        "demo clip": clip_flow((88, 160)),
    }
    for name, flow in flows.items():
        size = tuple(flow.shape[2:])
        for oversample in (1, 4):
            for algorithm in ("published", *ALGORITHMS):
                if algorithm == "particle" and oversample > 1:
                    continue  # it needs no finer grid; that is its point
                torch.manual_seed(0)
                sums = torch.zeros(2 * len(LAGS))
                for seed in range(seeds):
                    if algorithm == "published":
                        noise = published(flow, size, oversample)
                    else:
                        noise = warp_noise(flow, CHANNELS, size, seed=seed, oversample=oversample, algorithm=algorithm)
                    found = [correlation_along_flow(noise, flow, LAGS, rounded=rounded) for rounded in (False, True)]
                    sums += torch.tensor([*found[0], *found[1]])
                table.add(name, oversample, algorithm, *[f"{value / seeds:.2f}" for value in sums.tolist()])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the table")
    parser.add_argument("--seeds", type=int, default=2)
    arguments, _ = parser.parse_known_args()
    print(run(arguments.seeds).save(Path(arguments.results)))


if __name__ == "__main__":
    main()
