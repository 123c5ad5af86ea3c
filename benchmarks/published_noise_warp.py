"""The published noise warp in plain torch: the reference that ``benchmarks.noise_warp`` times ours against.

Written from the description of the algorithm (Burgert et al. 2025): state channel-major, copies of one source found
by sorting the noise values themselves (``torch.unique`` over the rows), random numbers drawn for every copy, one
weighted scatter.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d


class PublishedNoiseWarp:
    """State: noise ``[C, H, W]`` and weights ``[H, W]``."""

    def __init__(self, channels: int, height: int, width: int, device: torch.device) -> None:
        self.noise = torch.randn(channels, height, width, device=device)
        self.weights = torch.ones(height, width, device=device)
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        self.x, self.y = x, y

    def step(self, flow: Tensor) -> None:
        channels, height, width = self.noise.shape
        rows, weights = self.noise.reshape(channels, -1).T, self.weights.reshape(-1)
        target_x, target_y = (self.x + flow[0]).round().long(), (self.y + flow[1]).round().long()
        inside = (target_x >= 0) & (target_x < width) & (target_y >= 0) & (target_y < height)
        contracted_from = inside.reshape(-1).nonzero()[:, 0]
        contracted_to = (target_y * width + target_x).reshape(-1)[contracted_from]
        reached = torch.zeros(height * width, dtype=torch.bool, device=rows.device)
        reached[contracted_to] = True
        from_x, from_y = self.x - flow[0].round().long(), self.y - flow[1].round().long()
        known = ((from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)).reshape(-1)
        expanded_to = (~reached & known).nonzero()[:, 0]
        expanded_from = (from_y * width + from_x).reshape(-1)[expanded_to]
        fresh = (~reached & ~known).nonzero()[:, 0]

        source = torch.cat([contracted_from, expanded_from])
        target = torch.cat([contracted_to, expanded_to])
        copies = rows[source]
        _, group, counts = torch.unique(copies, dim=0, return_inverse=True, return_counts=True)
        drawn = torch.randn_like(copies)
        mean = torch.zeros(counts.shape[0], channels, device=rows.device).index_add_(0, group, drawn)
        count = counts[group].float()[:, None]
        copies = copies / count.sqrt() + drawn - mean[group] / count
        share = weights[source] / count[:, 0]

        total = torch.zeros_like(rows, memory_format=torch.contiguous_format).index_add_(
            0, target, copies * share[:, None]
        )
        square = torch.zeros_like(weights).index_add_(0, target, share * share)
        new_weights = torch.zeros_like(weights).index_add_(0, target, share)
        new_rows = total / square.sqrt()[:, None]
        new_rows[fresh] = torch.randn(fresh.shape[0], channels, device=rows.device)
        new_weights[fresh] = 1.0
        self.noise = new_rows.T.reshape(channels, height, width).contiguous()
        self.weights = ((new_weights / new_weights.mean() + 1e-5) ** 0.9999).reshape(height, width)

    def output(self, size: tuple[int, int]) -> Tensor:
        cell = (self.weights.shape[0] // size[0], self.weights.shape[1] // size[1])
        weighted = avg_pool2d((self.noise * self.weights)[None], cell)[0]
        square = avg_pool2d(self.weights.square()[None, None], cell)[0]
        return weighted / square.sqrt() * (cell[0] * cell[1]) ** 0.5
