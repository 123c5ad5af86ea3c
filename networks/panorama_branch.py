"""One of Imagine360's two UNets: the host's, with image tokens, motion modules, and in one of them round columns.

Tan et al., Imagine360, 2024. A branch is walked block by block, in step with the other (``Walk``). Its pictures are
``[rows * clips * F, C, H, W]``: the frames of a clip follow each other, the clips of a row (one panorama, or its
views) follow each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import CrossAttention, SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn

from .demo_image import unet_operations
from .image_tokens import Embedding, PositionTokens, Resampler, TemporalProjection, TokenSizes
from .motion import GROUPS, ModuleSizes, MotionNetwork, Place

IMAGE_TOKENS = "papernodes_image_tokens"
"""Where transformer_options say how many of the last tokens of a context are image tokens."""


@dataclass(frozen=True)
class BranchSizes:
    """What both branches are made of."""

    unet: Mapping[str, object]
    """ComfyUI's description of the UNet; nine input channels: noisy latent, mask, masked latent."""

    motion: Mapping[Place, ModuleSizes]
    """The motion modules that are executed; none where the UNet's level has no attention."""

    tokens: TokenSizes | None = None
    """None = no image tokens."""

    fps: bool = True
    """Whether the frame rate is told."""

    groups: int = GROUPS
    """Of the group norms."""


class RowCrossAttention(CrossAttention):
    """Attention of all pictures of a row to one text, and with keys and values of its own to image tokens."""

    def __init__(self, query_dim: int, context_dim: int, heads: int, dim_head: int, image: bool, **options) -> None:
        super().__init__(query_dim, context_dim, heads=heads, dim_head=dim_head, **options)
        if image:
            layer = {"dtype": options["dtype"], "device": options["device"], "bias": False}
            self.to_k_ip = options["operations"].Linear(context_dim, heads * dim_head, **layer)
            self.to_v_ip = options["operations"].Linear(context_dim, heads * dim_head, **layer)

    def forward(self, x: Tensor, context=None, value=None, mask=None, transformer_options=None) -> Tensor:
        """``[pictures, L, C]`` with a context ``[rows, T, context_dim]``; both attentions by the same queries.

        Both are scaled by 1 / sqrt(d), as the network was trained.
        """
        options = {} if transformer_options is None else transformer_options
        text = context.shape[1] - options.get(IMAGE_TOKENS, 0)
        values = context if value is None else value
        pictures, rows = x.shape[0], context.shape[0]
        # All pictures of a row ask the same keys: these are computed once.
        queries = self.to_q(x).unflatten(0, (rows, -1)).flatten(1, 2)
        rest = {"attn_precision": self.attn_precision, "transformer_options": options}
        seen = optimized_attention(
            queries, self.to_k(context[:, :text]), self.to_v(values[:, :text]), self.heads, **rest
        )
        if text < context.shape[1]:
            image = context[:, text:]
            seen = seen + optimized_attention(queries, self.to_k_ip(image), self.to_v_ip(image), self.heads, **rest)
        return self.to_out(seen.unflatten(1, (pictures // rows, -1)).flatten(0, 1))


class Branch(nn.Module):
    """The weights of a branch."""

    def __init__(self, sizes: BranchSizes, is_panorama: bool, *, dtype, device, operations: type) -> None:
        """
        Args:
            sizes: see BranchSizes.
            is_panorama: whether left and right edge meet, and image tokens are told positions.
            dtype, device, operations: ComfyUI's; a convolution of nine channels is what ``sizes`` say.
        """
        super().__init__()
        self.sizes, self.is_panorama = sizes, is_panorama
        options = {"dtype": dtype, "device": device, "operations": operations}
        unet = {key: list(value) if isinstance(value, (list, tuple)) else value for key, value in sizes.unet.items()}
        self.unet = UNetModel(**unet, dtype=dtype, device=device, operations=unet_operations(operations, sizes.groups))
        for layer in self.unet.modules():
            if isinstance(layer, SpatialTransformer):
                for block in layer.transformer_blocks:
                    old, width = block.attn2, sizes.unet["context_dim"]
                    block.attn2 = RowCrossAttention(
                        old.to_q.in_features,
                        width,
                        old.heads,
                        old.dim_head,
                        sizes.tokens is not None,
                        attn_precision=old.attn_precision,
                        **options,
                    )
        if sizes.tokens is not None:
            self.temporal_proj = TemporalProjection(sizes.tokens, **options)
            self.image_proj_model = Resampler(sizes.tokens, **options)
            self.position = PositionTokens(sizes.tokens, **options) if is_panorama else None
        if sizes.fps:
            width = sizes.unet["model_channels"]
            self.fps_embedding = Embedding(width, 4 * width, 4 * width, **options)
        self.motion = MotionNetwork(sizes.motion, sizes.groups, **options)
        self._motion_at = {block_of(sizes.unet, place): module for place, module in self.motion.by_place().items()}

    def motion_at(self, side: str, number: int) -> nn.Module | None:
        """The motion module of a block; None where it has none."""
        return self._motion_at.get((side, number))

    def embedded(self, timesteps: Tensor, fps: float, dtype: torch.dtype) -> Tensor:
        """``[rows, E]``: the time of the diffusion, and the frame rate."""
        width = self.sizes.unet["model_channels"]
        embedding = self.unet.time_embed(timestep_embedding(timesteps, width).to(dtype))
        if self.sizes.fps:
            rate = torch.full_like(timesteps, fps, dtype=torch.float32)
            embedding = embedding + self.fps_embedding(timestep_embedding(rate, width).to(dtype))
        return embedding

    def image_tokens(
        self, features: Tensor, noise: Tensor | None, position: Tensor | None, pitch: Tensor | None
    ) -> Tensor:
        """``[rows, queries, context_dim]``.

        Args:
            features: ``[rows, F, C, h, w]`` of the image encoder.
            noise: ``[queries, context_dim]``, added to the tokens of all rows.
            position, pitch: see PositionTokens; the views' branch has no use for them.
        """
        tokens = self.image_proj_model(self.temporal_proj(features))
        if noise is not None:
            tokens = tokens + noise.to(tokens)
        if self.is_panorama and position is not None:
            tokens = tokens + self.position(position.to(tokens), pitch.to(tokens), tokens.shape[1])
        return tokens


def block_of(unet: Mapping[str, object], place: Place) -> tuple[str, int]:
    """The side ("input", "middle", "output") and number of the block that a motion module follows, see Place."""
    if place.side == "mid":
        return "middle", 0
    counts = list(unet["num_res_blocks"])
    if place.side == "down":
        # A downsampler ends each level; the first block is a convolution.
        return "input", 1 + sum(counts[: place.level]) + place.level + place.number
    return "output", sum(count + 1 for count in counts[::-1][: place.level]) + place.number


class Walk:
    """A branch on its way through a call: the pictures of now, and what later blocks take over."""

    def __init__(
        self,
        branch: Branch,
        pictures: Tensor,
        embedding: Tensor,
        context: Tensor,
        frames: int,
        options: dict,
        limit: int | None,
    ) -> None:
        """
        Args:
            branch: whose weights.
            pictures: ``[rows * clips * frames, C, H, W]``.
            embedding: ``[rows, E]``.
            context: ``[rows, T, context_dim]``, text and then image tokens.
            frames: of a clip.
            options: transformer_options; a copy, for the walk writes to it.
            limit: how many numbers a layer takes at a time, None = all.
        """
        self.branch, self.pictures, self.embedding, self.context = branch, pictures, embedding, context
        self.frames, self.options, self.limit = frames, options, limit
        self.kept: list[Tensor] = []

    def start(self, number: int) -> None:
        """An input block: the first convolution, residual block and attention, or a downsampler."""
        layers = self._block("input", number, self.branch.unet.input_blocks[number])
        first = layers[0]
        if isinstance(first, ResBlock):
            self._through(layers, "input", number)
        elif isinstance(first, Downsample):
            self.pictures = self._parts(lambda x: self._round(first, x, 2, 1))
        else:
            self.pictures = self._parts(lambda x: self._round(first, x, 1, 1))
        self.kept.append(self.pictures)

    def middle(self) -> None:
        """The middle block; its motion module comes before the second residual block."""
        layers = self._block("middle", 0, self.branch.unet.middle_block)
        self._through(layers[:2], "middle", 0)
        self._through(layers[2:], "", 0)

    def back(self, number: int) -> nn.Module | None:
        """An output block up to its upsampler, which is returned, None where there is none."""
        layers = self._block("output", number, self.branch.unet.output_blocks[number])
        upsampler = layers[-1] if isinstance(layers[-1], Upsample) else None
        self._through(layers if upsampler is None else layers[:-1], "output", number, self.kept.pop())
        return upsampler

    def grow(self, upsampler: nn.Module) -> None:
        """What ``back`` returned."""
        self.pictures = self._parts(lambda x: self._round(upsampler, x, 1, 2))

    def end(self) -> Tensor:
        """``[pictures, out_channels, H, W]``."""
        norm, activation, convolution = self.branch.unet.out
        return self._parts(lambda x: self._round(convolution, activation(norm(x)), 1, 1))

    def _block(self, side: str, number: int, layers: nn.Sequential) -> list[nn.Module]:
        self.options["block"] = (side, number)
        return list(layers)

    def _through(self, layers: list[nn.Module], side: str, number: int, beside: Tensor | None = None) -> None:
        """Residual block and attention of each picture, then the motion module of each clip."""

        def spatial(x: Tensor, embedding: Tensor, context: Tensor) -> Tensor:
            for layer in layers:
                if isinstance(layer, ResBlock):
                    # Group norms count the columns that come from the other edge.
                    x = self._round(lambda wide, block=layer: block(wide, embedding), x, 2, 2)
                else:
                    x = layer(x, context, self.options)
            return x

        self.pictures = self._rows(spatial, self.pictures, beside)
        if any(isinstance(layer, SpatialTransformer) for layer in layers):
            self.options["transformer_index"] += 1
        motion = self.branch.motion_at(side, number)
        if motion is not None:
            self._move(motion)

    def _move(self, motion: nn.Module) -> None:
        tracks = None if self.limit is None else self.limit // (self.frames * self.pictures.shape[1])
        self.pictures = self._parts(lambda x: motion(x, self.frames, tracks=tracks), self.frames)

    def _rows(self, run: Callable[..., Tensor], pictures: Tensor, beside: Tensor | None) -> Tensor:
        """Runs pictures through layers that take embedding and context, so that no part belongs to two rows."""
        rows = self.context.shape[0]
        each = pictures.shape[0] // rows
        size = pictures[0].numel() + (0 if beside is None else beside[0].numel())
        step = each if self.limit is None else max(1, self.limit // size)
        if step >= pictures.shape[0] or (self.limit is None):
            embedding = self.embedding.repeat_interleave(each, 0) if rows > 1 else self.embedding
            return run(_beside(pictures, beside), embedding, self.context)
        done = []
        for row in range(rows):
            embedding, context = self.embedding[row : row + 1], self.context[row : row + 1]
            for start in range(row * each, (row + 1) * each, step):
                part = slice(start, min(start + step, (row + 1) * each))
                x = _beside(pictures[part], None if beside is None else beside[part])
                done.append(run(x, embedding, context))
        return torch.cat(done)

    def _parts(self, run: Callable[[Tensor], Tensor], whole: int = 1) -> Tensor:
        """Runs the pictures of now through a layer, in parts of a multiple of ``whole``."""
        pictures = self.pictures
        if self.limit is None or pictures.numel() <= self.limit:
            return run(pictures)
        step = max(1, self.limit // (pictures[0].numel() * whole)) * whole
        return torch.cat([run(part) for part in pictures.split(step)])

    def _round(self, layer: Callable[[Tensor], Tensor], x: Tensor, wider: int, narrower: int) -> Tensor:
        """A layer that sees columns of the other edge beyond each edge, of which some are then taken off."""
        if not self.branch.is_panorama:
            return layer(x)
        return layer(F.pad(x, (wider, wider, 0, 0), mode="circular"))[..., narrower:-narrower]


def _beside(x: Tensor, other: Tensor | None) -> Tensor:
    return x if other is None else torch.cat([x, other], 1)
