"""Makes the small flow that two of the workflows start from: ``python -m demo.swirl`` writes
demo/media/swirl_33.safetensors.

Two whirls turn against each other while they circle the middle of the picture; its rim is at rest. The flow is the curl
of a stream function, so nothing is stretched on average: what is carried along keeps its area.
"""

import json
import math
import struct
from pathlib import Path

import torch
from torch import Tensor

TARGET = Path(__file__).resolve().parent / "media" / "swirl_33.safetensors"
FRAMES = 33  # 4 x 8 + 1 and 8 x 4 + 1: video models with a time stride of 4 or of 8 take it as it is
SIZE = 48
FASTEST = 1.1  # pixels a frame
ORBIT, RADIUS = (
    0.21,
    0.105,
)  # of the picture's width: the whirls' distance from the middle, and their standard deviation


def swirl(frames: int = FRAMES, size: int = SIZE) -> Tensor:
    """float32 [frames - 1, 2, size, size]: forward flow in pixels, dx and dy."""
    place = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    y, x = torch.meshgrid(place, place, indexing="ij")
    flow = []
    for pair in range(frames - 1):
        angle = 2 * math.pi * pair / (frames - 1)
        dx, dy = torch.zeros_like(x), torch.zeros_like(y)
        for sign in (1, -1):
            right, down = x - sign * ORBIT * math.cos(angle), y - sign * ORBIT * math.sin(angle)
            strength = sign * torch.exp(-(right**2 + down**2) / (2 * RADIUS**2))
            dx += strength * down
            dy -= strength * right
        flow.append(torch.stack((dx, dy)))
    flow = torch.stack(flow)
    return (flow * FASTEST / flow.norm(dim=1).max()).float()


def main() -> None:
    """Writes the file, with half floats: they halve its size and are exact to a thousandth of a pixel."""
    numbers = swirl().half()
    header = {
        "__metadata__": {"format": "pt", "content": "optical flow", "direction": "forward"},
        "flow": {"dtype": "F16", "shape": list(numbers.shape), "data_offsets": [0, numbers.numel() * 2]},
    }
    text = json.dumps(header).encode("ascii")
    text += b" " * (-len(text) % 8)
    TARGET.write_bytes(struct.pack("<Q", len(text)) + text + numbers.numpy().astype("<f2").tobytes())
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
