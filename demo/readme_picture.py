"""Draws the README's picture with the pack's own kernels: ``python -m demo.readme_picture``.

Clip, flow and warped noise side by side, one animated WebP. Needs PyAV and Pillow, which ComfyUI brings.
"""

import itertools
from pathlib import Path

import av
import numpy
import torch
from PIL import Image

from kernels.flow_picture import flow_to_image
from kernels.noise_picture import noise_to_picture
from kernels.noise_warp import warp_noise
from kernels.optical_flow import dis_flow

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "demo" / "media" / "bigbuckbunny_49.mp4"
TARGET = ROOT / "demo" / "media" / "readme.webp"
FRAMES, HEIGHT, WIDTH, GAP = 24, 176, 320, 8


def main() -> None:
    """Write the picture and say how large it is."""
    with av.open(str(CLIP)) as container:
        pictures = itertools.islice(container.decode(video=0), FRAMES + 1)
        clip = torch.from_numpy(numpy.stack([picture.to_ndarray(format="rgb24") for picture in pictures])).float() / 255
    flow = dis_flow(clip)
    noise = noise_to_picture(warp_noise(flow, 3, (HEIGHT // 4, WIDTH // 4), seed=7, oversample=8), shortest_side=HEIGHT)
    columns = [clip[:FRAMES], flow_to_image(flow), noise[:FRAMES]]
    sheets = []
    for tiles in zip(*columns, strict=True):
        sheet = torch.ones(HEIGHT, 3 * WIDTH + 2 * GAP, 3)
        for number, tile in enumerate(tiles):
            mode = "nearest" if number == 2 else "area"
            tile = torch.nn.functional.interpolate(tile.permute(2, 0, 1)[None], (HEIGHT, WIDTH), mode=mode)[0]
            left = number * (WIDTH + GAP)
            sheet[:, left : left + WIDTH] = tile.permute(1, 2, 0)
        sheets.append(Image.fromarray((sheet * 255).round().to(torch.uint8).numpy()))
    sheets[0].save(TARGET, save_all=True, append_images=sheets[1:], duration=83, loop=0, quality=55, method=6)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
