"""Seeing a panorama by perspective views, and making one of what the views show.

After Bar-Tal et al., MultiDiffusion, ICML 2023: of many views' wishes for a picture the one taken agrees best with all,
a weighted mean. See patches/panorama_views.py for what is fused while a model samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .panorama import equirect_to_perspective, perspective_to_equirect
from .view_coverage import check_coverage

SMALLEST = 8
"""Columns of a view."""


@dataclass(frozen=True)
class Views:
    """Square views of a panorama, all as wide as each other."""

    yaw: Tensor
    pitch: Tensor
    """float32 [V] each, degrees, as in kernels/panorama.py."""

    fov: float
    """Degrees."""

    columns: int = 0
    """Of a view's latent; 0 = see ``columns_for``."""

    at_a_time: int = 4
    """Views in one call of the network, for less memory or more speed."""

    sharpness: float = 4.0
    """Where views overlap, how much more the one counts that sees a place nearer to its middle: the exponent of its
    weight, which falls evenly to its edges.
    """

    def columns_for(self, width: int) -> int:
        """Columns of a view of a latent ``width`` wide: as Imagine360 has them, a quarter at 90 degrees; eights."""
        if self.columns:
            return self.columns
        return max(SMALLEST, round(width / 4 * math.tan(math.radians(self.fov) / 2) / 8) * 8)


class ViewFusion:
    """Seeing a panorama by views, and making one of what the views show.

    Args:
        views: which.
        height, width: of the panorama's latent.
        unit: pixels of a latent, along a side, where pictures are fused; 1 where latents are.
        seed: of the noise that is made up where views are finer than the panorama.
        device: of everything.

    Raises:
        ValueError: views that do not see everything.
    """

    def __init__(
        self, views: Views, height: int, width: int, unit: int = 1, seed: int = 0, device: object = "cpu"
    ) -> None:
        check_coverage(views.yaw, views.pitch, views.fov)
        self.views, self.unit, self.seed = views, unit, seed
        self.columns = views.columns_for(width)
        self.cameras = (views.yaw, views.pitch, torch.zeros_like(views.yaw), torch.full_like(views.yaw, views.fov))
        # The number of each texel, seen by nearest neighbour.
        numbers = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
        side = (self.columns, self.columns)
        self.seen = equirect_to_perspective(numbers, *self.cameras, *side, mode="nearest").flatten(1).round().long()
        copies = torch.stack([torch.bincount(row, minlength=height * width)[row] for row in self.seen])
        self.shares = copies.float().rsqrt().to(device)
        self.copied = [bool((some > 1).any()) for some in copies]
        self.size, self.side = (height * unit, width * unit), self.columns * unit
        ramp = 1 - (torch.arange(self.side) + 0.5).div(self.side / 2).sub(1).abs()
        fade = (ramp[:, None] * ramp)[None, None].to(device)
        fades, known = perspective_to_equirect(fade, *self.cameras, *self.size)
        weights = (fades[:, 0] ** views.sharpness).clamp_min(1e-12) * known
        if not bool(known.any(0).all()):
            raise ValueError(f"views: a panorama of {width}x{height} latents has places that none of them sees")
        self.weights = weights / weights.sum(0)

    def chunks(self) -> list[slice]:
        """Views that go to the network together."""
        count, step = len(self.views.yaw), max(1, self.views.at_a_time)
        return [slice(first, min(first + step, count)) for first in range(0, count, step)]

    def see(self, signal: Tensor, chunk: slice) -> Tensor:
        """Views of clean panoramas [B, C, ..., H, W] (times ``unit``), view by view: [V * B, C, ..., h, h]."""
        seen = equirect_to_perspective(signal.flatten(0, -3)[None], *self._cameras(chunk), self.side, self.side)
        return seen.reshape(-1, *signal.shape[1:-2], self.side, self.side)

    def see_noise(self, noise: Tensor, level: float, chunk: slice) -> Tensor:
        """Views of noise [B, C, ..., H, W] of standard deviation ``level``, which they have, too."""
        flat, count = noise.flatten(0, -3).flatten(1), self.seen[chunk].shape[0]
        seen = flat[:, self.seen[chunk].to(noise.device)].movedim(1, 0) * self.shares[chunk, None]
        for number in range(count):
            if self.copied[chunk.start + number]:
                seen[number] += level * self._made_up(chunk.start + number, flat.shape[0]).to(seen)
        return seen.reshape(count * noise.shape[0], *noise.shape[1:-2], self.columns, self.columns)

    def place(self, made: Tensor, chunk: slice) -> Tensor:
        """The share in the panorama of views [V * B, C, ..., h, h], to be summed: [B, C, ..., H, W]."""
        count = self.seen[chunk].shape[0]
        flat = made.reshape(count, -1, self.side, self.side)
        placed, _ = perspective_to_equirect(flat, *self._cameras(chunk), *self.size)
        shared = (placed * self.weights[chunk, None]).sum(0)
        return shared.reshape(made.shape[0] // count, *made.shape[1:-2], *self.size)

    def _cameras(self, chunk: slice) -> list[Tensor]:
        return [value[chunk] for value in self.cameras]

    def _made_up(self, view: int, channels: int) -> Tensor:
        """[channels, h * h]: noise that is 0 over the copies of each texel, and lets their sum have variance 1."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + view) % 2**63)
        noise = torch.randn(channels, self.seen.shape[1], generator=generator)
        texels, place = self.seen[view].unique(return_inverse=True)
        sums = torch.zeros(channels, len(texels)).index_add_(1, place, noise)
        return noise - (sums / torch.bincount(place))[:, place]
