"""A blob adapter on a MODEL: the host calls it in every transformer block, between self and cross attention.

It sees what Apply Blobs put into the call (``blobs.ROWS``); without that it does nothing.
"""

from __future__ import annotations

import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, VideoResBlock
from torch import Tensor

from ..networks.blob_adapter import BlobAdapter, BlobCall, BlobRows, Block
from .blobs import ROWS

KEY = "papernodes_blob_adapter"
"""Name of the adapter beside a MODEL and of the callback that forgets."""

MOST_STRENGTH = 2.0


class BlobAdapterModelError(Exception):
    """A MODEL does not fit a blob adapter; the message is for the person at the graph."""


class AdapterPatch:
    """What the host calls in every transformer block, as a ``middle_patch``.

    Args:
        network: the adapter.
        strength: what it adds is multiplied by it.
    """

    def __init__(self, network: BlobAdapter, strength: float) -> None:
        self.network, self.strength = network, strength
        self._call: tuple[BlobRows, torch.dtype, BlobCall] | None = None

    def __call__(self, x: Tensor, options: dict) -> Tensor:
        """Tokens [B, N, C] with what the blobs add; ``options`` are the block's."""
        rows = options.get(ROWS)
        if rows is None:
            return x
        side, number = options["block"]
        block = Block(side, number, options.get("block_index", 0))
        if block.name not in self.network.blocks:
            return x
        if x.shape[0] != rows.present.shape[0]:
            raise BlobAdapterModelError(
                f"Blob Adapter: a block sees {x.shape[0]} pictures, and the call has {rows.present.shape[0]}. A patch "
                "that changes the batch inside the model does not go with it."
            )
        height, width = options["activations_shape"][-2:]
        if height * width != x.shape[1]:
            raise BlobAdapterModelError(
                f"Blob Adapter: a block sees {x.shape[1]} places, and the picture there has {width}x{height}. A patch "
                "that takes places away or adds some does not go with it."
            )
        tall, wide = options["original_shape"][-2:]
        call = self.call_of(rows, x)
        return self.network.fuse(x, block, call, (height, width), wide / tall, options["n_heads"], self.strength)

    def call_of(self, rows: BlobRows, x: Tensor) -> BlobCall:
        """The blobs of this call; those of the last step where they are the same."""
        if self._call is None or self._call[0] is not rows or self._call[1] != x.dtype:
            here = BlobRows(*(value.to(x.device) for value in (rows.tokens, rows.words, rows.ellipses, rows.present)))
            self._call = rows, x.dtype, self.network.begin(here, x.dtype)
        return self._call[2]

    def forget(self, *_) -> None:
        """Frees what a sampling kept."""
        self._call = None


def transformer_widths(unet: UNetModel) -> dict[Block, int]:
    """Each transformer block of a UNet -> how wide its tokens are."""
    parts = [
        *(("input", number, part) for number, part in enumerate(unet.input_blocks)),
        *([] if unet.middle_block is None else [("middle", 0, unet.middle_block)]),
        *(("output", number, part) for number, part in enumerate(unet.output_blocks)),
    ]
    return {
        Block(side, number, index): transformer.attn1.to_q.in_features
        for side, number, part in parts
        for layer in part
        if isinstance(layer, SpatialTransformer)
        for index, transformer in enumerate(layer.transformer_blocks)
    }


def check_fit(model: object, network: BlobAdapter) -> None:
    """Raises BlobAdapterModelError unless a MODEL is a UNet of images that an adapter was made for."""
    unet = model.get_model_object("diffusion_model")
    if not isinstance(unet, UNetModel):
        raise BlobAdapterModelError(
            f"'model' is a {type(model.model).__name__}, which is no UNet. Blob adapters are for SD1.5, SDXL and their "
            "like; other models obey Apply Blobs alone."
        )
    if any(isinstance(module, VideoResBlock) for module in unet.modules()):
        raise BlobAdapterModelError("'model' is a video UNet; blob adapters are for UNets of images.")
    if model.get_additional_models_with_key(KEY):
        raise BlobAdapterModelError("'model' has a blob adapter already. Connect the MODEL from before it.")
    have, need = transformer_widths(unet), network.sizes.blocks
    text = model.model.model_config.unet_config.get("context_dim")
    misfits = [block for block, (width, _) in need.items() if have.get(block) != width]
    if not misfits and text == network.sizes.text:
        return
    why = f"it takes text {network.sizes.text} wide, and the model's is {text} wide"
    if misfits:
        block = misfits[0]
        there = f"is {have[block]} wide" if block in have else "is not there"
        why = (
            f"{len(misfits)} of its {len(need)} blocks do not fit; the first, {block.name}, is {need[block][0]} wide, "
            f"in the model it {there}"
        )
    raise BlobAdapterModelError(f"'adapter' does not fit 'model': {why}. Choose an adapter trained for this model.")


def add_blob_adapter(model: object, network: BlobAdapter, strength: float = 1.0) -> object:
    """A clone of a MODEL that an adapter grounds in the blobs of the CONDITIONING.

    Args:
        model: a ModelPatcher of a UNet; it stays as it is.
        network: from ``read_blob_adapter``; the host loads it with the model.
        strength: what it adds is multiplied by it; 0 = exactly as without it.

    Raises:
        BlobAdapterModelError: see check_fit.
    """
    check_fit(model, network)
    grounded = model.clone()
    if strength == 0:
        return grounded
    beside = comfy.model_patcher.ModelPatcher(network, model.load_device, model.offload_device)
    grounded.set_additional_models(KEY, [beside])
    patch = AdapterPatch(network, strength)
    grounded.set_model_patch(patch, "middle_patch")
    grounded.add_callback_with_key(comfy.patcher_extension.CallbacksMP.ON_CLEANUP, KEY, patch.forget)
    return grounded
