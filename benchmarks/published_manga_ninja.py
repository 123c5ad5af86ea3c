"""MangaNinja as its authors run it, from the description of the method: the reference of benchmarks/manga_ninja.py.

Liu et al.: MangaNinja: Line Art Colorization with Precise Reference Following, CVPR 2025. Three rows of guidance go
through the reference UNet once, at timestep 0, and what its self attentions see is kept in float16; at each step of
DDIM the ControlNet and the denoising UNet see three rows, and each row attends by itself. The layers are those of the
host's UNet and ControlNet and of the pack's point net, so both compute with the same weights; attention is PyTorch's.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from comfy.cldm.cldm import ControlNet
from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import (
    Downsample,
    ResBlock,
    UNetModel,
    Upsample,
    timestep_embedding,
)
from torch import Tensor, nn

TRAINED_STEPS = 1000

SelfAttention = Callable[[BasicTransformerBlock, Tensor], Tensor]
"""A block's self attention of its normed tokens [B, L, C]."""


def signal_shares() -> list[float]:
    """alpha-bar of SD1.5's 1000 steps: betas from 0.00085 to 0.012, linear in their roots."""
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, TRAINED_STEPS, dtype=torch.float64)
    return (1 - roots**2).cumprod(0).tolist()


def leading_times(steps: int) -> list[int]:
    """DDIM's steps with leading spacing and an offset of 1: for 50 of them 981, 961, ..., 1."""
    return [number * (TRAINED_STEPS // steps) + 1 for number in reversed(range(steps))]


@dataclass
class Picture:
    """What one picture is drawn from."""

    noise: Tensor
    """[1, 4, h, w], of variance 1."""

    reference: Tensor
    """[1, 4, h, w], the reference's latent, scaled."""

    empty: Tensor
    """[1, 1, C], the token of no picture."""

    image: Tensor
    """[1, 1, C], the reference's token."""

    edge: Tensor
    """[1, 3, 8 h, 8 w], 0..1, lines are 1."""

    target_points: Tensor
    """[1, 1, 8 h, 8 w], 0, and the number of a point at its pixel."""

    reference_points: Tensor
    """The same for the reference."""

    def to(self, dtype: torch.dtype) -> "Picture":
        """In another dtype."""
        return Picture(**{name: tensor.to(dtype) for name, tensor in vars(self).items()})

    def split(self) -> "list[Picture]":
        """Pictures of one row each, of a batch."""
        rows = zip(*(tensor.split(1) for tensor in vars(self).values()), strict=True)
        return [Picture(*row) for row in rows]


@dataclass
class Prepared:
    """What a step needs beside the latent."""

    context: Tensor
    """[3, 1, C]."""

    hint: Tensor
    """[3, 3, 8 h, 8 w], -1..1."""

    banks: Sequence[Tensor]
    """Of each self attention, in the order of the blocks, [3, L, C] in float16."""

    target: Sequence[Tensor]
    """The target's points: [1, L, C] for each level."""

    reference: Sequence[Tensor]
    """The reference's points."""


class PublishedMangaNinja:
    """The loop of one picture, all in the dtype of the networks.

    Args:
        unet: the denoising UNet.
        reference: the reference UNet; its last norm and convolution are not used.
        control: the ControlNet.
        points: the point net: map [1, 1, H, W] -> tokens [1, L, C] of each level.
        steps: of DDIM.
        reference_scale, point_scale: of guidance.
    """

    def __init__(
        self,
        unet: UNetModel,
        reference: UNetModel,
        control: ControlNet,
        points: nn.Module,
        steps: int = 50,
        reference_scale: float = 9.0,
        point_scale: float = 15.0,
    ):
        self.unet, self.reference, self.control, self.points = unet, reference, control, points
        self.reference_scale, self.point_scale = reference_scale, point_scale
        shares = signal_shares()
        # The last step goes to the first of the trained steps, not to a picture without noise.
        pairs = [(time, shares[time], shares[max(time - TRAINED_STEPS // steps, 0)]) for time in leading_times(steps)]
        self.schedule = torch.tensor(
            [[time, share**0.5, (1 - share) ** 0.5, after**0.5, (1 - after) ** 0.5] for time, share, after in pairs],
            device=next(unet.parameters()).device,
        )
        """[steps, 5]: time, then the factors of the picture and of the noise, before a step and after it."""

    @torch.no_grad()
    def __call__(self, picture: Picture) -> Tensor:
        """The latent [1, 4, h, w], scaled as the UNet sees it."""
        prepared = self.prepare(picture)
        x = picture.noise
        for row in self.schedule:
            x = self.step(x, row, prepared)
        return x

    @torch.no_grad()
    def prepare(self, picture: Picture) -> Prepared:
        """What is made once, the reference pass among it."""
        context = torch.cat((picture.empty, picture.image, picture.image))
        return Prepared(
            context=context,
            hint=(2 * picture.edge - 1).repeat(3, 1, 1, 1),
            banks=self.write(picture.reference, context),
            target=self.points(picture.target_points),
            reference=self.points(picture.reference_points),
        )

    @torch.no_grad()
    def write(self, latent: Tensor, context: Tensor) -> list[Tensor]:
        """The reference pass: the banks."""
        seen: list[Tensor] = []

        def attend(block: BasicTransformerBlock, n: Tensor) -> Tensor:
            seen.append(n)
            return attention(block.attn1, n, n, n)

        rows = latent.repeat(3, 1, 1, 1)
        run_unet(self.reference, rows, torch.zeros(len(rows), device=rows.device), context, attend, head=False)
        return [n.to(torch.float16) for n in seen]

    @torch.no_grad()
    def step(self, x: Tensor, row: Tensor, prepared: Prepared) -> Tensor:
        """One step of DDIM without noise: [1, 4, h, w] at the time of a row of ``schedule`` -> at the next."""
        rows = x.repeat(3, 1, 1, 1)
        times = row[0].expand(3)
        residuals = run_control(self.control, rows, prepared.hint, times, prepared.context)
        attend = read(iter(prepared.banks), prepared.target, prepared.reference)
        plain, referred, pointed = run_unet(self.unet, rows, times, prepared.context, attend, residuals).chunk(3)
        first = plain + self.reference_scale * (referred - plain)
        second = referred + self.point_scale * (pointed - referred)
        noise = (first + second) / 2
        # In float32, whatever the networks' dtype.
        signal, spread, signal_after, spread_after = row[1:].view(-1, 1, 1, 1, 1)
        clean = (x - spread * noise) / signal
        return (signal_after * clean + spread_after * noise).to(x.dtype)


def read(banks: Iterator[Tensor], target: Sequence[Tensor], reference: Sequence[Tensor]) -> SelfAttention:
    """The denoising UNet's self attention: each row by itself.

    Args:
        banks: of each block in turn.
        target, reference: the points' tokens of each level, of which a block takes those of its size.
    """

    def of_size(levels: Sequence[Tensor], tokens: Tensor) -> Tensor:
        return next(level for level in levels if level.shape[1:] == tokens.shape[1:])

    def attend(block: BasicTransformerBlock, n: Tensor) -> Tensor:
        b = next(banks)
        first, second, third = n.chunk(3)
        plain = attention(block.attn1, first, first, first)
        both = torch.cat((second, b[1:2]), 1)
        referred = attention(block.attn1, second, both, both)
        query = third + of_size(target, third)
        keys = torch.cat((query, b[2:] + of_size(reference, b)), 1)
        pointed = attention(block.attn1, query, keys, torch.cat((third, b[2:]), 1))
        return torch.cat((plain, referred, pointed))

    return attend


def attention(layer: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The host's attention layer of tokens [B, L, C] on tokens [B, M, C']."""

    def heads(some: Tensor) -> Tensor:
        return some.view(some.shape[0], some.shape[1], layer.heads, -1).transpose(1, 2)

    q, k, v = heads(layer.to_q(query)), heads(layer.to_k(key)), heads(layer.to_v(value))
    return layer.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def run_unet(
    unet: UNetModel,
    x: Tensor,
    times: Tensor,
    context: Tensor,
    attend: SelfAttention,
    residuals: Sequence[Tensor] = (),
    head: bool = True,
) -> Tensor:
    """A UNet: [B, 4, h, w] -> the noise found, or without ``head`` the features that it is made from.

    Args:
        residuals: a ControlNet's, of the input blocks and of the middle one; none: without.
    """
    embedded = unet.time_embed(timestep_embedding(times, unet.model_channels).to(x.dtype))
    kept = []
    for block in unet.input_blocks:
        x = _block(block, x, embedded, context, attend)
        kept.append(x)
    x = _block(unet.middle_block, x, embedded, context, attend)
    if residuals:
        *skips, middle = residuals
        kept = [own + added for own, added in zip(kept, skips, strict=True)]
        x = x + middle
    for block in unet.output_blocks:
        x = _block(block, torch.cat((x, kept.pop()), 1), embedded, context, attend)
    return unet.out(x) if head else x


def run_control(control: ControlNet, x: Tensor, hint: Tensor, times: Tensor, context: Tensor) -> list[Tensor]:
    """A ControlNet: the residuals of the input blocks and of the middle one.

    Args:
        x: [B, 4, h, w].
        hint: [B, 3, 8 h, 8 w].
    """

    def attend(block: BasicTransformerBlock, n: Tensor) -> Tensor:
        return attention(block.attn1, n, n, n)

    embedded = control.time_embed(timestep_embedding(times, control.model_channels).to(x.dtype))
    for layer in control.input_hint_block:
        hint = layer(hint)
    found = []
    for number, (block, zero) in enumerate(zip(control.input_blocks, control.zero_convs, strict=True)):
        x = _block(block, x, embedded, context, attend)
        if number == 0:
            x = x + hint
        found.append(zero[0](x))
    x = _block(control.middle_block, x, embedded, context, attend)
    return [*found, control.middle_block_out[0](x)]


def _block(block: nn.Module, x: Tensor, embedded: Tensor, context: Tensor, attend: SelfAttention) -> Tensor:
    for layer in block:
        if isinstance(layer, ResBlock):
            x = _residual(layer, x, embedded)
        elif isinstance(layer, SpatialTransformer):
            x = _spatial(layer, x, context, attend)
        elif isinstance(layer, Downsample):
            x = layer.op(x)
        elif isinstance(layer, Upsample):
            x = layer.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        else:
            x = layer(x)
    return x


def _residual(block: ResBlock, x: Tensor, embedded: Tensor) -> Tensor:
    inner = block.in_layers(x) + block.emb_layers(embedded)[:, :, None, None]
    return block.skip_connection(x) + block.out_layers(inner)


def _spatial(transformer: SpatialTransformer, x: Tensor, context: Tensor, attend: SelfAttention) -> Tensor:
    height, width = x.shape[2:]
    tokens = transformer.proj_in(transformer.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)
    for block in transformer.transformer_blocks:
        tokens = attend(block, block.norm1(tokens)) + tokens
        tokens = attention(block.attn2, block.norm2(tokens), context, context) + tokens
        tokens = block.ff(block.norm3(tokens)) + tokens
    inner = tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()
    return transformer.proj_out(inner) + x
