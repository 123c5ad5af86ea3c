"""The network that draws a picture's lines as a person would, in the layout of the published file sk_model.pth.

Chan, Durand, Isola: Learning to generate line drawings that convey geometry and semantics, CVPR 2022. A generator of
convolutions with instance norms: two steps down, three residual blocks, two steps up, a sigmoid.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import comfy.ops
import torch
from torch import Tensor, nn

from .checkpoints import difference, wrong_shape

FILE = "sk_model.pth"
SOURCE = "https://huggingface.co/lllyasviel/Annotators"
BLOCKS, WIDTH = 3, 64
STEP = 4
"""Sides of pictures are worked on in multiples of this."""


class LineDrawingFileError(Exception):
    """A file is not this network's; the message is for the person at the graph."""


class ResidualBlock(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, width: int, operations: type, **options) -> None:
        super().__init__()

        def convolution() -> list[nn.Module]:
            return [nn.ReflectionPad2d(1), operations.Conv2d(width, width, 3, **options), nn.InstanceNorm2d(width)]

        self.conv_block = nn.Sequential(*convolution()[:3], nn.ReLU(), *convolution())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        return x + self.conv_block(x)


class LineDrawing(nn.Module):
    """Pictures to line drawings, dark on light, under the file's own names."""

    def __init__(self, operations: type = comfy.ops.manual_cast, **options) -> None:
        super().__init__()

        def stage(layer: nn.Module, width: int) -> list[nn.Module]:
            return [layer, nn.InstanceNorm2d(width), nn.ReLU()]

        convolution, transposed = operations.Conv2d, operations.ConvTranspose2d
        widths = (WIDTH, 2 * WIDTH, 4 * WIDTH)
        down, up = [], []
        for narrow, wide in itertools.pairwise(widths):
            down += stage(convolution(narrow, wide, 3, stride=2, padding=1, **options), wide)
            back = transposed(wide, narrow, 3, stride=2, padding=1, output_padding=1, **options)
            up = stage(back, narrow) + up
        self.model0 = nn.Sequential(nn.ReflectionPad2d(3), *stage(convolution(3, WIDTH, 7, **options), WIDTH))
        self.model1 = nn.Sequential(*down)
        self.model2 = nn.Sequential(*(ResidualBlock(widths[-1], operations, **options) for _ in range(BLOCKS)))
        self.model3 = nn.Sequential(*up)
        self.model4 = nn.Sequential(nn.ReflectionPad2d(3), convolution(WIDTH, 1, 7, **options), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [B, 3, H, W], 0..1, sides multiples of STEP -> [B, 1, H, W], 0 on a line, 1 elsewhere."""
        for stage in (self.model0, self.model1, self.model2, self.model3, self.model4):
            x = stage(x)
        return x

    @torch.no_grad()
    def lines(self, pictures: Tensor) -> Tensor:
        """Lines float32 [B, H, W], 1 on a line, of pictures float32 [B, H, W, 3], 0..1, of any size."""
        height, width = pictures.shape[1:3]
        more = (-width % STEP, -height % STEP)
        x = nn.functional.pad(pictures.movedim(-1, 1), (0, more[0], 0, more[1]), mode="replicate")
        return 1 - self(x)[:, 0, :height, :width]


def read_line_drawing(name: str, state: Mapping[str, Tensor]) -> LineDrawing:
    """The network of a file, in eval mode on the CPU.

    Args:
        name: the file's, for messages.
        state: what it holds.

    Raises:
        LineDrawingFileError: weights that are missing or too many, or shapes that are not this network's.
    """
    network = LineDrawing(device="meta", dtype=torch.float32)
    wanted = network.state_dict()
    wrong = difference(wanted, state)
    if wrong:
        raise LineDrawingFileError(f"{name} is not the line drawing network:{wrong} Use {FILE} of {SOURCE}.")
    misshapen = wrong_shape(wanted, state)
    if misshapen:
        raise LineDrawingFileError(f"{name}: {misshapen} Use {FILE} of {SOURCE}.")
    network.load_state_dict(dict(state), assign=True)
    return network.eval().requires_grad_(False)
