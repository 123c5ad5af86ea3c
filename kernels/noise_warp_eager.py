"""The eager torch reference of ``noise_warp``: right on any device, quick on a CPU.

Everything is grouped by the *index* of a source pixel with counting, never by sorting noise values, so it is linear
in the number of pixels and cannot confuse two pixels whose values collide. Random numbers are drawn only for sources
that are split. No floating-point atomics: sums over a group run in the order of pixel numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHT_FLOOR = 1e-5  # Go-with-the-Flow, weights after each frame: w / mean(w) + 1e-5, then to the power 0.9999
WEIGHT_DECAY = 0.9999


def normalise_weights(weights: Tensor) -> Tensor:
    """Weights after a frame: mean about 1, drifting back to 1, never 0."""
    return (weights / weights.mean() + WEIGHT_FLOOR) ** WEIGHT_DECAY


def group_sum(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sums the rows of each group, in the order of the rows.

    Args:
        values: float32 ``[J, C]``.
        group: int64 ``[J]`` in ``[0, groups)``.

    Returns:
        float32 ``[groups, C]``; deterministic on every device.
    """
    if values.shape[0] == 0:
        return values.new_zeros(groups, values.shape[1])
    if values.device.type == "mps":  # no embedding_bag there
        return values.new_zeros(groups, values.shape[1]).index_add_(0, group, values)
    order = torch.argsort(group, stable=True)
    offsets = torch.zeros(groups, dtype=torch.int64, device=values.device)
    offsets[1:] = torch.bincount(group, minlength=groups).cumsum(0)[:-1]
    return F.embedding_bag(order, values, offsets, mode="sum")


class EagerState:
    """See ``noise_warp.NoiseWarper``. ``values`` is ``[N, C]``, ``weights`` ``[N]``, ``offsets`` ``[N, 2]``
    (subpixel)."""

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        seed: int,
        device: torch.device,
        algorithm: str,
        slack: float,
    ) -> None:
        self.height, self.width, self.algorithm, self.slack = height, width, algorithm, slack
        pixels = height * width
        self.generator = torch.Generator(device).manual_seed(seed)
        self.values = self._randn(pixels, channels)
        self.weights = torch.ones(pixels, device=device)
        self.offsets = torch.zeros(pixels, 2, device=device) if algorithm == "subpixel" else None
        y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
        self.grid = torch.stack([x.reshape(-1), y.reshape(-1)]).float()  # [2, N], exact below 2**24

    def _randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.generator.device)

    def noise(self, size: tuple[int, int]) -> Tensor:
        h, w = size
        if (h, w) == (self.height, self.width):
            return self.values.view(h, w, -1).permute(2, 0, 1).contiguous()
        ky, kx, channels = self.height // h, self.width // w, self.values.shape[1]
        weighted = self.values * self.weights[:, None]
        total = weighted.view(h, ky, self.width * channels).sum(1).view(h, w, kx, channels).sum(2)
        norm = self.weights.square().view(h, ky, w, kx).sum((1, 3)).rsqrt()
        return (total * norm[..., None]).permute(2, 0, 1).contiguous()

    # ``flow`` is the inverse flow for the particle algorithm.
    def step(self, flow: Tensor, size: tuple[int, int] | None) -> Tensor | None:
        if self.algorithm == "particle":
            self._step_particle(flow)
        else:
            self._step_whole_pixels(flow)
        return self.noise(size) if size is not None else None

    def _number(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Rounds positions ``[2, K]`` to pixels: (int64 pixel number, whether inside the image)."""
        column, row = position.round()
        inside = (column >= 0) & (column <= self.width - 1) & (row >= 0) & (row <= self.height - 1)
        number = row.clamp(0, self.height - 1).long() * self.width + column.clamp(0, self.width - 1).long()
        return number, inside

    def _step_whole_pixels(self, flow: Tensor) -> None:
        values, weights, pixels = self.values, self.weights, self.values.shape[0]
        vectors = flow.reshape(2, pixels).nan_to_num(nan=float("inf"))  # a vector that is no number leaves the image
        position = landing = self.grid + vectors
        if self.offsets is not None:
            position = position + self.offsets.T
            # Neighbours that round alike keep step; only an offset beyond the slack makes a value change lanes.
            in_step = self.grid + vectors.round()
            landing = torch.where((position - in_step).abs() <= self.slack, in_step, position)
        target, contracts = self._number(landing)
        arrivals = torch.bincount(target[contracts], minlength=pixels)
        # Where several sources arrive this keeps the first of them; those pixels are summed below.
        source = torch.full((pixels,), pixels, dtype=torch.int32, device=values.device)  # MPS reduces no int64
        moving = contracts.nonzero().squeeze(1)
        source = source.scatter_reduce_(0, target[moving], moving.int(), "amin").long()

        # Pixels nobody reaches take a copy of the source that the flow read backwards points at, or fresh noise.
        gaps = (arrivals == 0).nonzero().squeeze(1)
        parent, inside = self._number(self.grid[:, gaps] - vectors[:, gaps].round())
        fresh, child, parent = gaps[~inside], gaps[inside], parent[inside]
        if self.offsets is not None:
            self._adopt_neighbours(child, source, position, parent)
        source[fresh] = 0
        source[child] = parent
        copies = torch.bincount(parent, minlength=pixels) + contracts

        share = weights / copies.clamp_min(1)
        new_values, new_weights = values.index_select(0, source), share.index_select(0, source)
        new_values[fresh] = self._randn(fresh.shape[0], values.shape[1])
        new_weights[fresh] = 1.0
        new_offsets = None
        if self.offsets is not None:
            new_offsets = (position.T.index_select(0, source) - self.grid.T).clamp_(-self.slack, self.slack)
            new_offsets[fresh] = 0.0

        split_value = self._split(values, copies, contracts, child, parent, new_values)
        alone = split_value.source[arrivals[target[split_value.source]] == 1]
        new_values[target[alone]] = split_value.of(alone)
        self._contract(target, contracts, arrivals, share, position, split_value, new_values, new_weights, new_offsets)
        self.values, self.weights, self.offsets = new_values, normalise_weights(new_weights), new_offsets

    def _adopt_neighbours(self, gaps: Tensor, source: Tensor, position: Tensor, parent: Tensor) -> None:
        """Gives a gap next to reached pixels the parent that landed nearest, in place; right for zooms up to 3."""
        pixels = source.shape[0]
        x, y = self.grid[:, gaps]
        nearest = torch.full_like(x, float("inf"))
        for row in (-1, 0, 1):
            for column in (-1, 0, 1):
                if row == column == 0:
                    continue
                number, real = self._number(torch.stack([x + column, y + row]))
                candidate = source[number]
                landed = position[:, candidate.clamp_max(pixels - 1)]
                distance = (landed[0] - x) * (landed[0] - x) + (landed[1] - y) * (landed[1] - y)
                closer = real & (candidate < pixels) & (distance < nearest)
                nearest = torch.where(closer, distance, nearest)
                parent.copy_(torch.where(closer, candidate, parent))

    def _split(
        self, values: Tensor, copies: Tensor, contracts: Tensor, child: Tensor, parent: Tensor, new_values: Tensor
    ) -> SplitSources:
        """Splits every source with n > 1 copies into x / sqrt(n) + (z_j - mean z); fills the children."""
        split = (copies > 1).nonzero().squeeze(1)
        group_of = torch.zeros_like(copies)
        group_of[split] = torch.arange(split.shape[0], device=copies.device)
        shared = copies[parent] > 1
        child, group = child[shared], group_of[parent[shared]]
        count = copies[split].float()[:, None]
        own = self._randn(split.shape[0], values.shape[1]) * contracts[split, None]
        drawn = self._randn(child.shape[0], values.shape[1])
        common = values[split] / count.sqrt() - (group_sum(drawn, group, split.shape[0]) + own) / count
        new_values[child] = common[group] + drawn
        moving = contracts[split]
        return SplitSources(split[moving], (common + own)[moving], group_of, moving.cumsum(0) - 1, copies > 1)

    def _contract(
        self,
        target: Tensor,
        contracts: Tensor,
        arrivals: Tensor,
        share: Tensor,
        position: Tensor,
        split: SplitSources,
        new_values: Tensor,
        new_weights: Tensor,
        new_offsets: Tensor | None,
    ) -> None:
        """Sums the sources of every pixel where several arrive ."""
        crowded = (arrivals > 1).nonzero().squeeze(1)
        if crowded.shape[0] == 0:
            return
        group_of = torch.zeros_like(arrivals)
        group_of[crowded] = torch.arange(crowded.shape[0], device=arrivals.device)
        source = (contracts & (arrivals[target] > 1)).nonzero().squeeze(1)
        group, weight = group_of[target[source]], share[source, None]
        value = self.values[source]
        divided = split.is_split[source]
        value[divided] = split.of(source[divided])
        columns = [weight * value, weight, weight.square()]
        if new_offsets is not None:
            columns.append(weight * (position.T[source] - self.grid.T[target[source]]))
        total = group_sum(torch.cat(columns, 1), group, crowded.shape[0])
        channels = value.shape[1]
        new_values[crowded] = total[:, :channels] / total[:, channels + 1, None].sqrt()
        new_weights[crowded] = total[:, channels]
        if new_offsets is not None:
            new_offsets[crowded] = total[:, channels + 2 :] / total[:, channels, None]

    def _step_particle(self, back: Tensor) -> None:
        """Deng et al. 2025, particle form: bilinear shares of old pixels, cut out of their Brownian motion."""
        values, pixels, channels = self.values, *self.values.shape
        back = self.grid + back.reshape(2, pixels)
        # Positions far outside would overflow integers; two pixels outside is as good as any.
        back = torch.stack([back[0].clamp(-2, self.width + 1), back[1].clamp(-2, self.height + 1)])
        floor = back.floor()
        part = back - floor
        request_source, request_share = [], []
        for corner_y in (0, 1):
            for corner_x in (0, 1):
                number, inside = self._number(floor + floor.new_tensor([[corner_x], [corner_y]]))
                share = (part[0] if corner_x else 1 - part[0]) * (part[1] if corner_y else 1 - part[1])
                request_source.append(number)
                request_share.append(share * inside)
        source, share = torch.stack(request_source, 1).view(-1), torch.stack(request_share, 1).view(-1)  # [N * 4]
        asked = (share > 0).nonzero().squeeze(1)
        source, share = source[asked], share[asked]
        pixel = asked // 4
        requests = torch.bincount(source, minlength=pixels)
        demand = group_sum(share[:, None], source, pixels).squeeze(1)
        part_of = share / demand[source]  # the fraction of the old pixel that this request receives
        # x f_j + (sqrt(f_j) z_j - f_j sum_k sqrt(f_k) z_k) is the bridge's increment over f_j, given the whole sums
        # to x.
        bridged = requests[source] > 1
        drawn = self._randn(int(bridged.sum()), channels) * part_of[bridged, None].sqrt()
        bridge = values - group_sum(drawn, source[bridged], pixels)
        increment = part_of[:, None] * bridge[source]
        increment[bridged] += drawn
        increment[~bridged] = values[source[~bridged]]
        part_of = torch.where(bridged, part_of, torch.ones_like(part_of))
        total = group_sum(torch.cat([increment, part_of[:, None]], 1), pixel, pixels)
        reached = total[:, channels] > 0
        new_values = total[:, :channels] * total[:, channels, None].clamp_min(1e-30).rsqrt()
        fresh = (~reached).nonzero().squeeze(1)
        new_values[fresh] = self._randn(fresh.shape[0], channels)
        self.values = new_values


class SplitSources:
    """The values that split sources send to where they contract: rows of ``value`` for the pixel numbers ``source``."""

    def __init__(self, source: Tensor, value: Tensor, group_of: Tensor, row_of_group: Tensor, is_split: Tensor) -> None:
        self.source, self.value, self.is_split = source, value, is_split
        self._group_of, self._row_of_group = group_of, row_of_group

    def of(self, source: Tensor) -> Tensor:
        """Rows for these split, contracting sources, float32 ``[K, C]``."""
        return self.value[self._row_of_group[self._group_of[source]]]
