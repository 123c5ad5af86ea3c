"""The Triton fast path of ``noise_warp`` (``nearest`` and ``subpixel``); ``particle`` is in
``noise_warp_triton_particle``.

The state is pixel-major: the ``C`` values of a pixel lie together, so that gathering a source costs whole memory
sectors for any flow. A step reads and writes the state once:

1. ``link_sources``: every source hangs itself into the list of the pixel it moves to (``head``, ``following``).
2. ``link_children``: every pixel nobody reached hangs itself into the list of the parent that it copies
   (``children``, ``sibling``).
3. ``find_split_sources``: weights are divided among copies; sources with several copies are listed.
4. ``split_sources`` (few copies: one lane walks the list) and ``sum_large_families``, ``split_large_families`` (many).
5. ``gather``: every pixel collects its sources and, where asked, the output's weighted area sums.

The lists are built with integer exchanges, so their order differs from run to run. Results do not: whatever is summed
over a list is first rounded to integers (values: 24 bits or more below the heaviest source of the pixel; random
numbers: multiples of 2**-20), and integer sums do not depend on order. There are no floating-point atomics.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from .noise_warp_triton_gather import fill_normal, gather, pool
from .noise_warp_triton_lists import NOBODY, find_split_sources, link_children, link_sources
from .noise_warp_triton_split import split_large_families, split_sources, sum_large_families

LARGE_FAMILY = 32  # a parent of more children is summed by its children, not walked by one lane
PROGRAMS = 16  # a multiprocessor, in kernels that loop


def _programs(device: torch.device) -> int:
    """Programs of a kernel that loops over a list whose length only the device knows."""
    return PROGRAMS * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


class TritonState:
    """See ``noise_warp.NoiseWarper``. Two buffers of the state are swapped; the lists are filled anew in each step."""

    INDEX_BLOCK = 1024  # pixels a program in the kernels that handle one number a pixel
    SUM_BLOCK = 128  # pixels a tile of the large families' sums
    LINK_SOURCES, LINK_CHILDREN = 512, 256  # pixels a program
    TILE = 2048  # values a program in the kernels that handle all channels of a pixel
    FUSED_AREA = 64  # output cells of fewer pixels are pooled by a second kernel

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
        self.slack = float(slack)
        self.channels, self.height, self.width = channels, height, width
        self.algorithm, self.device, self.frame = algorithm, device, 0
        self.seed = seed - 2**64 if seed >= 2**63 else seed  # a signed 64-bit kernel argument
        pixels = self.pixels = height * width
        self.block_channels = max(4, triton.next_power_of_2(channels))
        self.block = max(16, self.TILE // self.block_channels)
        self.values = torch.empty(pixels, channels, device=device)
        fill_normal[(triton.cdiv(pixels, self.block),)](
            self.values, pixels, channels, self.seed, C=self.block_channels, BLOCK=self.block
        )
        self._new_values = torch.empty_like(self.values)
        self._lists: dict[str, Tensor] | None = None
        self.weights = torch.ones(pixels, device=device)
        if algorithm == "particle":
            return
        self._new_weights = torch.empty_like(self.weights)
        carries = pixels if algorithm == "subpixel" else 1
        self.offsets, self._new_offsets = torch.zeros(2, carries, device=device), torch.zeros(2, carries, device=device)

    def _allocate_lists(self) -> dict[str, Tensor]:
        def whole(count: int) -> Tensor:
            return torch.empty(count, dtype=torch.int32, device=self.device)

        families = self.pixels // LARGE_FAMILY + 4
        carries = self.pixels if self.algorithm == "subpixel" else 1
        return {
            "head": whole(self.pixels),
            "following": whole(self.pixels),
            "children": whole(self.pixels),
            "sibling": whole(self.pixels),
            "copies": whole(self.pixels),
            "small": whole(self.pixels),
            "large": whole(families),
            "counters": whole(2),
            "total": torch.empty(1, dtype=torch.int64, device=self.device),
            "sums": torch.zeros(families, self.channels, dtype=torch.int64, device=self.device),
            "commons": torch.empty(families, self.channels, device=self.device),
            "position": torch.empty(2, carries, device=self.device),
        }

    def noise(self, size: tuple[int, int]) -> Tensor:
        h, w = size
        output = torch.empty(self.channels, h, w, device=self.device)
        block = 16 if h * w < 4096 else self.block
        pool[(triton.cdiv(h * w, block),)](
            self.values,
            self.weights,
            output,
            self.width,
            self.pixels,
            self.channels,
            self.height // h,
            self.width // w,
            w,
            WEIGHTED=(self.height, self.width) != (h, w),
            C=self.block_channels,
            BLOCK=block,
        )
        return output

    def step(self, flow: Tensor, size: tuple[int, int] | None) -> Tensor | None:
        self.frame += 1
        if self.algorithm == "particle":
            from .noise_warp_triton_particle import step_particle

            return step_particle(self, flow, size)
        if self._lists is None:
            self._lists = self._allocate_lists()
        lists = self._lists
        carry = self.algorithm == "subpixel"
        height, width, pixels, channels = self.height, self.width, self.pixels, self.channels
        for name in ("head", "children"):
            lists[name].fill_(-1)
        for name in ("copies", "counters", "total"):
            lists[name].zero_()
        wide = {"BLOCK": self.INDEX_BLOCK}
        tile = {"C": self.block_channels, "BLOCK": self.block}
        grid = (triton.cdiv(pixels, self.INDEX_BLOCK),)
        head, following, children = lists["head"], lists["following"], lists["children"]
        sibling, copies, position, total = lists["sibling"], lists["copies"], lists["position"], lists["total"]
        first = lists["small"]  # needed before the list of split sources is, and as long
        if carry:
            first.fill_(NOBODY.value)
        link_sources[(triton.cdiv(pixels, self.LINK_SOURCES),)](
            flow, self.offsets, position, first, head, following, height, width, pixels, self.slack,
            CARRY=carry, BLOCK=self.LINK_SOURCES,
        )  # fmt: skip
        link_children[(triton.cdiv(pixels, self.LINK_CHILDREN),)](
            flow,
            position,
            head,
            first,
            children,
            sibling,
            copies,
            total,
            height,
            width,
            pixels,
            CARRY=carry,
            LARGE=LARGE_FAMILY,
            BLOCK=self.LINK_CHILDREN,
        )
        find_split_sources[grid](
            self.weights,
            following,
            copies,
            children,
            lists["small"],
            lists["large"],
            lists["counters"],
            total,
            pixels,
            LARGE=LARGE_FAMILY,
            **wide,
        )
        some = (_programs(self.device),)
        split_sources[some](
            self.values,
            self.weights,
            self._new_values,
            self._new_weights,
            following,
            copies,
            children,
            sibling,
            head,
            lists["small"],
            lists["counters"],
            position,
            self._new_offsets,
            self.slack,
            width,
            pixels,
            channels,
            self.seed,
            self.frame,
            CARRY=carry,
            **tile,
        )
        sum_block = min(self.block, self.SUM_BLOCK)
        enough = max(some[0], triton.cdiv(pixels, sum_block * 128))  # at most 128 numbers of 24 bits a lane
        sum_large_families[(enough,)](
            head,
            self.weights,
            children,
            lists["counters"],
            lists["sums"],
            pixels,
            channels,
            self.seed,
            self.frame,
            C=self.block_channels,
            BLOCK=sum_block,
        )
        split_large_families[some](
            self.values,
            following,
            copies,
            lists["large"],
            lists["counters"],
            lists["sums"],
            lists["commons"],
            channels,
            self.seed,
            self.frame,
            **tile,
        )
        output = self._gather(size, lists, carry, tile)
        self.values, self._new_values = self._new_values, self.values
        self.weights, self._new_weights = self._new_weights, self.weights
        self.offsets, self._new_offsets = self._new_offsets, self.offsets
        return output if output is not None or size is None else self.noise(size)

    def _gather(self, size: tuple[int, int] | None, lists: dict[str, Tensor], carry: bool, tile: dict) -> Tensor | None:
        """Launches ``gather``; returns the output where the cells are large enough to be made in the same pass."""
        cell_height, cell_width = (self.height // size[0], self.width // size[1]) if size else (1, 1)
        fused = cell_height * cell_width >= self.FUSED_AREA
        if fused:
            output = torch.empty(self.channels, *size, device=self.device)
            programs = size[0] * size[1]
        else:
            output, programs = None, triton.cdiv(self.pixels, self.block)
        gather[(programs,)](
            self.values,
            self.weights,
            self._new_values,
            self._new_weights,
            self._new_offsets,
            lists["position"],
            lists["head"],
            lists["following"],
            lists["children"],
            lists["commons"],
            lists["total"],
            self._new_values if output is None else output,
            self.slack,
            self.width,
            self.pixels,
            self.channels,
            cell_height,
            cell_width,
            self.width // cell_width,
            self.seed,
            self.frame,
            CARRY=carry,
            POOL=fused,
            num_warps=2 if carry else 4,
            **tile,
        )
        return output
