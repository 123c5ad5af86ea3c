"""SAM's image encoder in miniature: what its published file would hold, with random weights."""

import torch
from papernodes.networks.sam_encoder import PREFIX, SamEncoder, SamSizes, read_sam, sam_patcher

TINY = SamSizes(width=16, heads=2, inner=24, channels=8, patch=4, grid=7, windows=(3, 7, 3))


def sam_state(sizes: SamSizes = TINY, seed: int = 0) -> dict:
    """A file's weights: those of the encoder, and one of what else SAM's file has."""
    generator = torch.Generator().manual_seed(seed)
    layout = SamEncoder(sizes, device="meta").state_dict()
    weights = {PREFIX + key: torch.randn(weight.shape, generator=generator) * 0.2 for key, weight in layout.items()}
    return {**weights, "prompt_encoder.no_mask_embed.weight": torch.zeros(1, 8)}


def sam(sizes: SamSizes = TINY, seed: int = 0) -> object:
    """The value of a PN_IMAGE_ENCODER socket."""
    return sam_patcher(read_sam("tiny.pth", sam_state(sizes, seed)))
