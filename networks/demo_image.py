"""The small image model of the demonstration: SD1.5's own architecture at a hundredth of its size.

ComfyUI's classes throughout, so that what works on SD1.5 works here: block ids, attention patches, LoRA key names,
memory management. Only their sizes differ, and UNet and ControlNet normalise 8 groups of channels instead of 32:
groups of one or two channels would lose the absolute colour.

``build_*`` make untrained networks and need none of ComfyUI's loaders; ``load_*`` give what the stock loaders give.
"""

import os

import comfy.clip_model
import comfy.model_management
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from .demo_format import DemoFileError, check_fit, load

GROUPS = 8
VOCABULARY_SIZE = 49408  # token ids of the SD1 tokenizer
TOKEN_EMBEDDING = "text_model.embeddings.token_embedding.weight"
VOCABULARY = "vocabulary"

UNET_CONFIG = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 48,
    "channel_mult": [1, 2, 2, 2],
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 128,
    "num_heads": 3,  # heads 16 and 32 wide: fast attention wants multiples of 8
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "use_checkpoint": False,
    "adm_in_channels": None,
    "legacy": False,
}

TEXT_CONFIG = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}


def unet_operations(base: type, groups: int = GROUPS) -> type:
    """One of ComfyUI's namespaces of layers, with GroupNorm of so many groups whatever number is asked for.

    Args:
        base: such as comfy.ops.disable_weight_init or comfy.ops.manual_cast.
        groups: the demonstration's 8 where left out.
    """

    class GroupNorm(base.GroupNorm):
        def __init__(self, num_groups, num_channels, *args, **kwargs):
            super().__init__(groups, num_channels, *args, **kwargs)

    return type("DemoOperations", (base,), {"GroupNorm": GroupNorm})


def build_unet(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    operations: type = comfy.ops.disable_weight_init,
) -> UNetModel:
    """A UNet whose weights are not yet set (memory as it comes); called with x [B, 4, H, W], timesteps [B] in 0..999
    and context [B, T, 128].

    Args:
        operations: ComfyUI's namespace of layers; its GroupNorm is given 8 groups here.
    """
    return UNetModel(**UNET_CONFIG, device=device, dtype=dtype, operations=unet_operations(operations))


def build_text_transformer(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    operations: type = comfy.ops.disable_weight_init,
    vocabulary_rows: int = VOCABULARY_SIZE,
) -> comfy.clip_model.CLIPTextModel:
    """A text transformer that can be trained, its weights not yet set (memory as it comes).

    Called with token rows [B, 77] (int64, 0 .. vocabulary_rows - 1); the first result is [B, 77, 128] after the final
    layer norm, what SD1.5 conditions on.

    Args:
        vocabulary_rows: rows of the token embedding: the words in use and one for every other.
    """
    transformer = comfy.clip_model.CLIPTextModel(TEXT_CONFIG, dtype, device, operations)
    transformer.set_input_embeddings(
        operations.Embedding(vocabulary_rows, TEXT_CONFIG["hidden_size"], dtype=dtype, device=device)
    )
    nn.init.eye_(transformer.text_projection.weight)  # no part of the conditioning, so training will not set it
    return make_differentiable(transformer)


class _DifferentiableLayer(comfy.clip_model.CLIPLayer):
    """ComfyUI's layer adds in place, which backward passes do not survive."""

    def forward(self, x, mask=None, optimized_attention=None):
        x = x + self.self_attn(self.layer_norm1(x), mask, optimized_attention)
        return x + self.mlp(self.layer_norm2(x))


def make_differentiable(network: nn.Module) -> nn.Module:
    """Lets gradients through the CLIP layers of a text or vision transformer; the weights keep their names."""
    for module in network.modules():
        if type(module) is comfy.clip_model.CLIPLayer:
            module.__class__ = _DifferentiableLayer
    return network


def load_model(path: str | os.PathLike):
    """The MODEL that the stock loaders would give, from a file of kind "image_unet".

    Returns:
        comfy.model_patcher.ModelPatcher around comfy.model_base.BaseModel: SD1.5's latent format, epsilon prediction
        and noise schedule.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this network's.
    """
    state, _ = load(path, "image_unet")
    check_fit(path, state, build_unet("meta").state_dict())
    return model_of(state)


def model_of(state: dict[str, Tensor]):
    """The MODEL that the stock loaders would give for a UNet of this size.

    Args:
        state: the UNet's weights, all of them under ComfyUI's own names; emptied.

    Returns:
        See load_model.
    """
    # Imported here, because training needs only the networks and runs where ComfyUI's tokenizers cannot be imported.
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(UNET_CONFIG)
    config.unet_config.update(UNET_CONFIG)  # SD15 sets its own 8 heads
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    dtypes = list(config.supported_inference_dtypes)
    # float16: what an ordinary SD1.5 file is stored in. Without a GPU, or as the command line says, it becomes another.
    dtype = comfy.model_management.unet_dtype(
        model_params=sum(value.numel() for value in state.values()), supported_dtypes=dtypes, weight_dtype=torch.float16
    )
    manual_cast_dtype = comfy.model_management.unet_manual_cast(dtype, load_device, dtypes)
    config.set_inference_dtype(dtype, manual_cast_dtype)
    config.custom_operations = unet_operations(comfy.ops.pick_operations(dtype, manual_cast_dtype))
    model = config.get_model(state).to(offload_device)
    model.load_model_weights(state)
    return comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)


def load_clip(path: str | os.PathLike, embedding_directory: list[str] | None = None):
    """The CLIP that the stock loaders would give, from a file of kind "image_text_encoder".

    Every token id that the file does not know shares one row.

    Args:
        path: the file; its "vocabulary" [N] int64 names the token ids of the first N rows of its token embedding
            [N + 1, 128], the last row is every other's.
        embedding_directory: where the prompt's ``embedding:name`` is looked for.

    Returns:
        comfy.sd.CLIP with the SD1 tokenizer.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this network's.
    """
    import comfy.sd
    import comfy.sd1_clip
    from comfy.supported_models_base import ClipTarget

    state, _ = load(path, "image_text_encoder")
    if VOCABULARY in state and TOKEN_EMBEDDING in state:
        state[TOKEN_EMBEDDING] = expand_vocabulary(path, state.pop(VOCABULARY), state[TOKEN_EMBEDDING])
    # SD1.5 conditions on the words, not on the pooled sentence, and its files hold no projection.
    state["text_projection.weight"] = torch.eye(TEXT_CONFIG["hidden_size"])
    check_fit(
        path, state, comfy.clip_model.CLIPTextModel(TEXT_CONFIG, None, "meta", comfy.ops.manual_cast).state_dict()
    )
    clip = comfy.sd.CLIP(
        ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
        embedding_directory=embedding_directory,
        parameters=sum(value.numel() for value in state.values()),
        model_options={"clip_l_model_config": TEXT_CONFIG},
    )
    clip.load_sd(state)
    return clip


def expand_vocabulary(path: str | os.PathLike, vocabulary: Tensor, rows: Tensor) -> Tensor:
    """The whole token embedding [49408, width] from the rows of the words in use and the last row for all others.

    Raises:
        DemoFileError: the vocabulary does not fit the rows or the tokenizer.
    """
    known = vocabulary.shape[0]
    if vocabulary.ndim != 1 or known == 0 or vocabulary.min() < 0 or vocabulary.max() >= VOCABULARY_SIZE:
        raise DemoFileError(f"{path}: its vocabulary holds no token ids of the SD1 tokenizer.")
    if rows.ndim != 2 or rows.shape[0] != known + 1:
        raise DemoFileError(
            f"{path}: its vocabulary has {known} words, which do not fit an embedding of shape {list(rows.shape)}."
        )
    table = rows[-1].repeat(VOCABULARY_SIZE, 1)
    table[vocabulary] = rows[:-1]
    return table


def load_vae(path: str | os.PathLike):
    """The VAE that VAELoader would give, from a file of kind "image_vae": a TAESD, which VAELoader reads as well.

    Returns:
        comfy.sd.VAE.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this network's.
    """
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    state, metadata = load(path, "image_vae")
    check_fit(path, state, TAESD().state_dict())
    return comfy.sd.VAE(sd=state, metadata=metadata)
