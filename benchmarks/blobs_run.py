"""What benchmarks/blobs.py times as steps: networks of SDXL's and Wan's size with random weights, with and without
blobs."""

from __future__ import annotations

import torch
from torch import Tensor

from .blobs import BLOBS, moving_blobs
from .story import SDXL
from .story import TINY as TINY_SDXL

WAN = {
    "model_type": "t2v", "dim": 1536, "ffn_dim": 8960, "num_layers": 30, "num_heads": 12, "in_dim": 16, "out_dim": 16,
    "text_dim": 4096,
}  # fmt: skip
"""Wan 2.1, 1.3B."""

TINY_WAN = WAN | {"dim": 128, "ffn_dim": 128, "num_layers": 3, "num_heads": 2, "text_dim": 32}
CAPTION = 16
"""Tokens of a caption."""


class Step:
    """One call of a network, plain or with blobs.

    Args:
        network: of the host.
        latents: [B, C, H, W] or [B, C, T, H, W].
        shared: the global prompt's rows of text, [B, rows, width].
        rows: of the text with blobs: as many, or several times as many, as the host pads them.
        frames: of the layout.
        others: the network's further arguments.
    """

    def __init__(
        self, network: torch.nn.Module, latents: Tensor, shared: Tensor, rows: int, frames: int, others: dict
    ) -> None:
        self.network, self.latents, self.shared, self.rows, self.others = network, latents, shared, rows, others
        self.times = torch.full((latents.shape[0],), 900.0, device=latents.device)
        self.layout = moving_blobs(frames)
        self.captions = torch.randn(BLOBS, CAPTION, shared.shape[2], device=latents.device, dtype=shared.dtype)

    @torch.no_grad()
    def plain(self) -> Tensor:
        """Without blobs."""
        return self.network(self.latents, self.times, self.shared, transformer_options={}, **self.others)

    def with_blobs(self, within: bool, blocks: int = 10):
        """A call with blobs in the last row, the positive one; ``within``: the picture's attention to itself as well.

        Masks are made in the first call.
        """
        from papernodes.patches.blobs import BlobSettings, blob_text, options_with_blobs

        settings = BlobSettings(self_attention=within, first_blocks=blocks)
        captions = [[(0, states)] for states in self.captions]
        states, text = blob_text(self.shared[-1], captions, self.layout, settings, self.rows)
        # A negative is repeated to as many rows, which changes nothing.
        negative = self.shared[:-1].repeat(1, -(-self.rows // self.shared.shape[1]), 1)[:, : self.rows]
        context, cache = torch.cat((negative, states[None])), {}
        texts = [None] * len(negative) + [text]

        @torch.no_grad()
        def call() -> Tensor:
            options = options_with_blobs(texts, {}, self.network, self.latents.shape, cache=cache)
            return self.network(self.latents, self.times, context, transformer_options=options, **self.others)

        return call


def _randomised(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    for parameter in network.eval().requires_grad_(False).parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return network


def sdxl_step(device: torch.device, dtype: torch.dtype, tiny: bool) -> Step:
    """1024 x 1024, guided: two rows; the prompt's 77 rows of text become 308 with twelve captions of 16."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    config, latent = (TINY_SDXL, 16) if tiny else (SDXL, 128)
    network = UNetModel(**config, device=device, dtype=dtype, operations=comfy.ops.disable_weight_init)
    kind = {"device": device, "dtype": dtype}
    latents, adm = torch.randn(2, 4, latent, latent, **kind), torch.randn(2, config["adm_in_channels"], **kind)
    shared = torch.randn(2, 77, config["context_dim"], **kind)
    return Step(_randomised(network), latents, shared, 308, 1, {"y": adm})


def wan_step(device: torch.device, dtype: torch.dtype, tiny: bool) -> Step:
    """81 frames of 832 x 480, the positive row alone; 512 rows of text become 704."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    config, size = (TINY_WAN, (3, 8, 12)) if tiny else (WAN, (21, 60, 104))
    network = WanModel(**config, device=device, dtype=dtype, operations=comfy.ops.disable_weight_init)
    kind = {"device": device, "dtype": dtype}
    latents, shared = torch.randn(1, 16, *size, **kind), torch.randn(1, 512, config["text_dim"], **kind)
    return Step(_randomised(network), latents, shared, 512 + BLOBS * CAPTION, 4 * (size[0] - 1) + 1, {})
