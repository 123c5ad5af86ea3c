"""RelightVid's UNet as its authors run it, from the description in the paper: the reference of benchmarks/relight.py.

Fang et al., RelightVid, 2025, on AnimateDiff's inflated UNet (Guo et al. 2024): clips are volumes ``[B, C, F, H, W]``;
convolutions and spatial transformers unfold them into pictures and fold them again, group norms of residual blocks see
the volume, motion modules regroup it into sequences over time. Every row and frame is in one call. The layers are those
of the host's UNet and of the pack's motion modules, so both compute with the same weights; attention is PyTorch's.
"""

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import (
    Downsample,
    ResBlock,
    UNetModel,
    Upsample,
    timestep_embedding,
)
from torch import Tensor, nn


class PublishedClip:
    """The forward pass of a whole clip.

    Args:
        unet: an SD1.5 UNet whose first convolution takes all channels.
        motion: module behind a layer, by the layer.
    """

    def __init__(self, unet: UNetModel, motion: dict[nn.Module, nn.Module]):
        self.unet, self.motion = unet, motion

    @torch.no_grad()
    def __call__(self, x: Tensor, times: Tensor, context: Tensor) -> Tensor:
        """The noise found.

        Args:
            x: ``[B, C, F, H, W]``.
            times: ``[B]``.
            context: ``[B, tokens, width]``, the same for every frame.
        """
        unet, frames = self.unet, x.shape[2]
        embedded = timestep_embedding(times, unet.model_channels).to(x.dtype)
        embedded = unet.time_embed(embedded)
        context = context.repeat_interleave(frames, 0)
        kept = []
        for block in unet.input_blocks:
            x = self._block(block, x, embedded, context)
            kept.append(x)
        x = self._block(unet.middle_block, x, embedded, context)
        for block in unet.output_blocks:
            x = self._block(block, torch.cat((x, kept.pop()), 1), embedded, context)
        norm, activation, convolution = unet.out
        return _pictures(convolution, activation(norm(x)))

    def _block(self, block: nn.Module, x: Tensor, embedded: Tensor, context: Tensor) -> Tensor:
        for layer in block:
            if isinstance(layer, ResBlock):
                x = _residual(layer, x, embedded)
            elif isinstance(layer, SpatialTransformer):
                x = _spatial(layer, x, context)
            elif isinstance(layer, Downsample):
                x = _pictures(layer.op, x)
            elif isinstance(layer, Upsample):
                x = _pictures(layer.conv, F.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest"))
            else:
                x = _pictures(layer, x)
            if layer in self.motion:
                x = _temporal(self.motion[layer], x)
        return x


def _unfolded(x: Tensor) -> Tensor:
    """``[B, C, F, H, W]`` -> ``[B F, C, H, W]``."""
    return x.transpose(1, 2).reshape(-1, x.shape[1], *x.shape[3:])


def _folded(x: Tensor, frames: int) -> Tensor:
    return x.view(-1, frames, *x.shape[1:]).transpose(1, 2).contiguous()


def _pictures(layer: nn.Module, x: Tensor) -> Tensor:
    return _folded(layer(_unfolded(x)), x.shape[2])


def _residual(block: ResBlock, x: Tensor, embedded: Tensor) -> Tensor:
    norm, activation, convolution = block.in_layers
    inner = _pictures(convolution, activation(norm(x)))
    inner = inner + block.emb_layers(embedded)[:, :, None, None, None]
    norm, activation, _, convolution = block.out_layers
    inner = _pictures(convolution, activation(norm(inner)))
    skip = block.skip_connection
    return (x if isinstance(skip, nn.Identity) else _pictures(skip, x)) + inner


def _attention(layer: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    def heads(some: Tensor) -> Tensor:
        return some.view(some.shape[0], some.shape[1], layer.heads, -1).transpose(1, 2)

    q, k, v = heads(layer.to_q(x)), heads(layer.to_k(context)), heads(layer.to_v(context))
    found = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return layer.to_out(found)


def _spatial(transformer: SpatialTransformer, x: Tensor, context: Tensor) -> Tensor:
    frames = x.shape[2]
    pictures = _unfolded(x)
    height, width = pictures.shape[2:]
    tokens = transformer.proj_in(transformer.norm(pictures)).permute(0, 2, 3, 1).flatten(1, 2)
    for block in transformer.transformer_blocks:
        normed = block.norm1(tokens)
        tokens = _attention(block.attn1, normed, normed) + tokens
        tokens = _attention(block.attn2, block.norm2(tokens), context) + tokens
        tokens = block.ff(block.norm3(tokens)) + tokens
    inner = tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()
    return _folded(transformer.proj_out(inner) + pictures, frames)


def _temporal(module: nn.Module, x: Tensor) -> Tensor:
    """A motion module; tokens lie by frames and are regrouped by places for each attention."""
    frames = x.shape[2]
    pictures = _unfolded(x)
    height, width = pictures.shape[2:]
    tokens = module.proj_in(module.norm(pictures).permute(0, 2, 3, 1).flatten(1, 2))
    for block in module.transformer_blocks:
        for attention, norm in zip(block.attention_blocks, block.norms, strict=True):
            normed = norm(tokens).unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)
            normed = normed + attention.pos_encoder.pe[:, :frames]
            found = _attention(attention, normed, normed)
            tokens = found.unflatten(0, (-1, height * width)).transpose(1, 2).flatten(0, 1) + tokens
        tokens = block.ff(block.ff_norm(tokens)) + tokens
    inner = module.proj_out(tokens).unflatten(1, (height, width)).permute(0, 3, 1, 2).contiguous()
    return _folded(inner + pictures, frames)
