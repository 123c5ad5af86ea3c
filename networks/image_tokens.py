"""Imagine360's image tokens: what an image encoder saw of the frames of a clip, as a few tokens for cross attention.

Tan et al., Imagine360, 2024. Features of all frames are projected to tokens, made known to each other over time and
averaged over it; a resampler (as IP-Adapter's, Ye et al. 2023, after Flamingo's) reads them with learned queries. The
panorama's tokens are told where in it the known picture lies and how far the camera looks up.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import CrossAttention, FeedForward, optimized_attention
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor, nn

POSITION_NUMBERS = 6
"""Of a relative position: how far the known rectangle's middle is above and left of the panorama's, the rectangle's
height and width, the panorama's height and width, pixels."""

_TEMPORAL_HEADS = 8
_RESAMPLER_HEAD = 64
_POOLED_FRAMES = 4


@dataclass(frozen=True)
class TokenSizes:
    """Sizes of the layers between an image encoder's features and the image tokens; the published ones by default."""

    features: int = 256
    """Channels that the image encoder gives."""

    patch: int = 4
    """Side of the square of features that becomes a token."""

    width: int = 1024
    """Of the tokens before the resampler."""

    attention: int = 512
    """Of the attentions over time, in 8 heads."""

    feed_forward: int = 4096
    """Of the hidden layer after them."""

    gated: bool = False
    """Whether that is a GEGLU."""

    resampler: int = 1024
    depth: int = 4
    queries: int = 64
    """How many image tokens there are."""

    resampler_attention: int = 768
    """In heads of 64 where that divides it."""

    resampler_feed_forward: int = 4096
    output: int = 1024
    """Width of the text that the tokens lie beside."""

    sinusoids: int = 320
    """Sines and cosines of each number of a position."""

    position_hidden: int = 1024
    position: int = 768
    """Channels of a token that are told the position; the others are told the pitch."""


class TemporalBlock(nn.Module):
    """Attention of each place over the frames, which are not told their order, and a feed-forward layer."""

    def __init__(self, sizes: TokenSizes, **options) -> None:
        super().__init__()
        layer = {"dtype": options["dtype"], "device": options["device"]}
        operations = options["operations"]
        head = sizes.attention // _TEMPORAL_HEADS
        self.norm1 = operations.LayerNorm(sizes.width, **layer)
        self.attn = CrossAttention(sizes.width, heads=_TEMPORAL_HEADS, dim_head=head, **options)
        self.norm2 = operations.LayerNorm(sizes.width, **layer)
        self.ff = FeedForward(sizes.width, mult=Fraction(sizes.feed_forward, sizes.width), glu=sizes.gated, **options)

    def forward(self, x: Tensor) -> Tensor:
        """``[places, F, C]`` -> the same."""
        x = x + self.attn(self.norm1(x))
        return x + self.ff(self.norm2(x))


class TemporalProjection(nn.Module):
    """Features of frames -> tokens of the clip."""

    def __init__(self, sizes: TokenSizes, **options) -> None:
        super().__init__()
        layer = {"dtype": options["dtype"], "device": options["device"]}
        self.conv = options["operations"].Conv2d(sizes.features, sizes.width, sizes.patch, stride=sizes.patch, **layer)
        self.blocks = nn.ModuleList(TemporalBlock(sizes, **options) for _ in range(2))

    def forward(self, features: Tensor) -> Tensor:
        """``[B, F, C, h, w]`` -> ``[B, tokens, width]``; a sixteenth of the frames is left, at least one."""
        rows, frames = features.shape[:2]
        tokens = self.conv(features.flatten(0, 1)).flatten(2).unflatten(0, (rows, frames))
        tokens = tokens.permute(0, 3, 1, 2).flatten(0, 1)
        for block in self.blocks:
            tokens = block(tokens)
            pooled = min(_POOLED_FRAMES, tokens.shape[1])
            tokens = F.avg_pool1d(tokens.transpose(1, 2), pooled).transpose(1, 2)
        return tokens.unflatten(0, (rows, -1)).flatten(1, 2)


class PerceiverAttention(nn.Module):
    """Queries that attend to tokens and to themselves."""

    def __init__(self, sizes: TokenSizes, **options) -> None:
        super().__init__()
        layer = {"dtype": options["dtype"], "device": options["device"]}
        operations, width, inner = options["operations"], sizes.resampler, sizes.resampler_attention
        self.heads = max(1, inner // _RESAMPLER_HEAD) if inner % _RESAMPLER_HEAD == 0 else 1
        self.norm1 = operations.LayerNorm(width, **layer)
        self.norm2 = operations.LayerNorm(width, **layer)
        self.to_q = operations.Linear(width, inner, bias=False, **layer)
        self.to_kv = operations.Linear(width, 2 * inner, bias=False, **layer)
        self.to_out = operations.Linear(inner, width, bias=False, **layer)

    def forward(self, tokens: Tensor, queries: Tensor) -> Tensor:
        """``[B, T, width]`` and ``[B, Q, width]`` -> what is added to the queries."""
        queries = self.norm2(queries)
        keys, values = self.to_kv(torch.cat([self.norm1(tokens), queries], 1)).chunk(2, -1)
        return self.to_out(optimized_attention(self.to_q(queries), keys, values, self.heads))


class Resampler(nn.Module):
    """Tokens of a clip -> a fixed number of image tokens."""

    def __init__(self, sizes: TokenSizes, **options) -> None:
        super().__init__()
        layer = {"dtype": options["dtype"], "device": options["device"]}
        operations, width, hidden = options["operations"], sizes.resampler, sizes.resampler_feed_forward
        self.latents = nn.Parameter(torch.empty(1, sizes.queries, width, **layer))
        self.proj_in = operations.Linear(sizes.width, width, **layer)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(sizes, **options),
                    nn.Sequential(
                        operations.LayerNorm(width, **layer),
                        operations.Linear(width, hidden, bias=False, **layer),
                        nn.GELU(),
                        operations.Linear(hidden, width, bias=False, **layer),
                    ),
                ]
            )
            for _ in range(sizes.depth)
        )
        self.proj_out = operations.Linear(width, sizes.output, **layer)
        self.norm_out = operations.LayerNorm(sizes.output, **layer)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, T, sizes.width]`` -> ``[B, sizes.queries, sizes.output]``."""
        # A low-VRAM load moves layers, and this parameter belongs to none.
        queries = self.latents.to(tokens).expand(tokens.shape[0], -1, -1)
        tokens = self.proj_in(tokens)
        for attention, feed_forward in self.layers:
            queries = queries + attention(tokens, queries)
            queries = queries + feed_forward(queries)
        return self.norm_out(self.proj_out(queries))


class Embedding(nn.Module):
    """Two linear layers with a SiLU between them, as diffusers' TimestepEmbedding."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, dtype, device, operations: type) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(inputs, hidden, dtype=dtype, device=device)
        self.linear_2 = operations.Linear(hidden, outputs, dtype=dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., inputs]`` -> ``[..., outputs]``."""
        return self.linear_2(F.silu(self.linear_1(x)))


class PositionTokens(nn.Module):
    """What the panorama's image tokens are told of each frame."""

    def __init__(self, sizes: TokenSizes, **options) -> None:
        super().__init__()
        layer = {"dtype": options["dtype"], "device": options["device"]}
        hidden, pitch = sizes.position_hidden, sizes.output - sizes.position
        self.sinusoids = sizes.sinusoids
        self.add_cond_embedding = Embedding(POSITION_NUMBERS * sizes.sinusoids, hidden, hidden, **options)
        self.cond_rp_proj = options["operations"].Linear(hidden, sizes.position, bias=False, **layer)
        self.add_cond_embedding2 = Embedding(sizes.sinusoids, pitch, pitch, **options)

    def forward(self, position: Tensor, pitch: Tensor, count: int) -> Tensor:
        """What is added to the image tokens: token i is told of frame i, tokens beyond the clip of its last frame.

        Args:
            position: ``[B, F, 6]``, see POSITION_NUMBERS.
            pitch: ``[B, F]``, degrees.
            count: of the tokens, at least F.

        Returns:
            ``[B, count, sizes.output]``.
        """
        rows, frames = pitch.shape
        dtype = position.dtype
        place = timestep_embedding(position.reshape(-1), self.sinusoids).to(dtype).view(rows, frames, -1)
        height = timestep_embedding(pitch.reshape(-1), self.sinusoids).to(dtype).view(rows, frames, -1)
        told = [self.cond_rp_proj(self.add_cond_embedding(place)), self.add_cond_embedding2(height)]
        told = torch.cat(told, -1)
        return torch.cat([told, told[:, -1:].expand(-1, count - frames, -1)], 1)
