"""MangaNinja's point net: tokens for maps of numbered points, one set for each level of a UNet.

Liu et al.: MangaNinja: Line Art Colorization with Precise Reference Following, CVPR 2025; the layout is that of the
published point_net file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import comfy.ops
import torch
from torch import Tensor, nn

WIDTHS = (320, 640, 1280, 1280)
"""Channels of the published file's four stages: those of SD1.5's levels."""

KEYS = tuple(
    f"blocks.{layer}.{end}" for layer in ("0.0", "0.2", "0.4", "1.0", "2.0", "3.0") for end in ("weight", "bias")
)
"""The names of the published file's weights."""


class PointNet(nn.Module):
    """Three convolutions down to the latent's size, then one down to each further level of the UNet.

    Called with a map float32 [B, 1, H, W]: 0, and the number of a point at its pixel. Gives for each of the four
    stages [B, L, C] with L = h w tokens, h = H / 8, H / 16, H / 32, H / 64, rounded up as the UNet rounds. A map
    without points gives tokens, too: the convolutions have biases.

    Args:
        widths: C of each stage.
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        operations: type = comfy.ops.manual_cast,
    ) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int) -> list[nn.Module]:
            return [operations.Conv2d(inputs, outputs, 3, 2, 1, device=device, dtype=dtype), nn.SiLU()]

        first, *others = widths
        stages = [[*layer(1, first), *layer(first, first), *layer(first, first)]]
        for before, after in zip(widths, others, strict=False):
            stages.append(layer(before, after))
        self.blocks = nn.ModuleList(nn.Sequential(*stage) for stage in stages)

    def forward(self, point_map: Tensor) -> list[Tensor]:
        found = []
        for block in self.blocks:
            point_map = block(point_map)
            found.append(point_map.flatten(2).transpose(1, 2))
        return found


def widths_of(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The widths of the stages of a file's weights, which have the names of KEYS."""
    return tuple(state[f"blocks.{stage}.0.weight"].shape[0] for stage in range(len(WIDTHS)))
