"""Imagine360's exchange blocks: a panorama and its perspective views attend to each other.

Tan et al., Imagine360, 2024, after PanFusion (Zhang et al. 2024). One block serves both directions, and both see what
came in: what one direction changes does not reach the other within the block.
"""

from __future__ import annotations

from comfy.ldm.modules.attention import CrossAttention, FeedForward
from torch import Tensor, nn

from ..kernels.spherical_encoding import frequency_bands

HEAD = 32
"""Channels of a head, where they divide the width."""


class ExchangeBlock(nn.Module):
    """Attention between tokens that know their directions, and a feed-forward layer."""

    def __init__(self, width: int, *, dtype, device, operations: type) -> None:
        """
        Args:
            width: channels of both pictures, a multiple of 4 and of the number of heads, width // 32.
            dtype, device, operations: ComfyUI's.

        Raises:
            ValueError: another width.
        """
        super().__init__()
        heads = max(1, width // HEAD)
        if width % 4 or width % heads:
            raise ValueError(f"width: got {width}; expected a multiple of 4 and of its {heads} heads.")
        options = {"dtype": dtype, "device": device, "operations": operations}
        self.width = width
        self.attn1 = CrossAttention(width, heads=heads, dim_head=width // heads, **options)
        self.ff = FeedForward(width, glu=True, **options)
        self.norm1 = operations.LayerNorm(width, dtype=dtype, device=device)
        self.norm2 = operations.LayerNorm(width, dtype=dtype, device=device)
        # Of the spherical encoding; in float16 they would be infinite.
        self.register_buffer("bands", frequency_bands(width // 4).to(device))

    def forward(
        self,
        panorama: Tensor,
        views: Tensor,
        encodings: tuple[Tensor, Tensor],
        biases: tuple[Tensor, Tensor],
        transformer_options: dict,
    ) -> tuple[Tensor, Tensor]:
        """Tokens that know what the other picture holds in their direction.

        Args:
            panorama: ``[N, E, C]``.
            views: ``[N, P, C]``, the tokens of all views.
            encodings: of the panorama's directions ``[E, C]`` and the views' ``[P, C]``.
            biases: added to the attention of the panorama's tokens ``[E, P]`` and of the views' ``[P, E]``.
            transformer_options: the host's.

        Returns:
            Both, of the same shapes.
        """
        seen = [self.norm1(x + encoding) for x, encoding in zip((panorama, views), encodings, strict=True)]
        result = []
        for x, own, other, bias in ((panorama, *seen, biases[0]), (views, *reversed(seen), biases[1])):
            x = x + self.attn1(own, context=other, mask=bias, transformer_options=transformer_options)
            result.append(x + self.ff(self.norm2(x)))
        return result[0], result[1]
