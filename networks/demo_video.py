"""The small video model of the demonstration: Wan 2.1's own architecture at a two-hundredth of its size.

ComfyUI's classes throughout; only their sizes differ. Network and VAE are stored such that the stock UNETLoader and
VAELoader read the very files: matrices in float8_e4m3fn, which those loaders widen, and no other sign of being special.
(On a GPU that computes in float8 the stock loader keeps the whole network in it; training rounds every weight so, hence
nothing is lost there either.) The text encoder is a small causal one in place of the T5, and its conditioning is
widened with zeros to the 4096 numbers that Wan expects.

``build_*`` make untrained networks and need none of ComfyUI's loaders; ``load_*`` give what the stock loaders give.
"""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import comfy.clip_model
import comfy.ldm.wan.vae
import comfy.ops
import torch
from comfy.ldm.wan.model import WanModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .demo_format import check_fit, load, save
from .demo_image import TEXT_CONFIG, TOKEN_EMBEDDING, VOCABULARY, build_text_transformer, expand_vocabulary

CHANNELS = 16
FRAMES_PER_LATENT = 4
PIXELS_PER_LATENT = 8
TEXT_WIDTH = 4096  # of Wan's conditioning

NETWORK_CONFIG = {
    "model_type": "t2v",
    "patch_size": (1, 2, 2),
    "in_dim": CHANNELS,
    "out_dim": CHANNELS,
    "dim": 256,
    "ffn_dim": 576,
    "freq_dim": 256,
    "text_dim": TEXT_WIDTH,
    "num_heads": 2,  # the host takes heads to be 128 wide
    "num_layers": 5,
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
}

VAE_CONFIG = {
    "dim": 16,
    "z_dim": CHANNELS,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}

FLOAT8 = torch.float8_e4m3fn
FLOAT8_LIMIT = 448.0
VAE_FLOAT8_FROM = 20_000
"""Numbers from which on a tensor of the VAE is stored in float8; the thin layers near the picture are not."""


def latent_frames(frames: int) -> int:
    """Latent frames of a clip of 4 k + 1 frames.

    Raises:
        ValueError: another number of frames.
    """
    if frames < 1 or frames % FRAMES_PER_LATENT != 1:
        raise ValueError(f"frames is {frames}; expected 1, 5, 9, 13, 17 or another number of the form 4 k + 1.")
    return (frames - 1) // FRAMES_PER_LATENT + 1


def build_network(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    operations: type = comfy.ops.disable_weight_init,
) -> WanModel:
    """A network whose weights are not yet set (memory as it comes).

    Called with x [B, 16, T, H, W], timestep [B] in 0..1000 and context [B, L, 4096]; gives the velocity, noise less
    clean latent, in x's shape.

    Args:
        operations: ComfyUI's namespace of layers.
    """
    return WanModel(**NETWORK_CONFIG, device=device, dtype=dtype, operations=operations)


def build_vae() -> comfy.ldm.wan.vae.WanVAE:
    """A VAE on the CPU in float32 whose convolutions are not yet set (memory as it comes)."""
    return comfy.ldm.wan.vae.WanVAE(**VAE_CONFIG)


def stored_dtype(kind: str, name: str, value: Tensor) -> torch.dtype:
    """How a weight of the network (kind "video_unet") or the VAE ("video_vae") is stored."""
    if kind == "video_unet":
        # The host keeps the first layer in float32.
        return torch.float16 if name.startswith("patch_embedding.") else FLOAT8
    return FLOAT8 if value.numel() >= VAE_FLOAT8_FROM else torch.float16


def to_stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A weight in the dtype of the file; values beyond float8's range become its largest."""
    if dtype == FLOAT8:
        value = value.clamp(-FLOAT8_LIMIT, FLOAT8_LIMIT)
    return value.to(dtype)


class _Rounded(torch.autograd.Function):
    """Tensors with the values that float8 gives back, in a few kernels for all; gradients pass as if not rounded."""

    @staticmethod
    def forward(context, dtype: torch.dtype, *values: Tensor) -> tuple[Tensor, ...]:
        context.shapes = [value.shape for value in values]
        everything = to_stored(torch.cat([value.flatten() for value in values]), FLOAT8).to(dtype)
        return _split(everything, context.shapes)

    @staticmethod
    def backward(context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        everything = torch.cat([gradient.flatten() for gradient in gradients]).float()
        return None, *_split(everything, context.shapes)


def _split(everything: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    parts = everything.split([shape.numel() for shape in shapes])
    return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))


def as_stored(kind: str, weights: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Weights with the values that a file will give back; gradients pass as if nothing was rounded.

    Training with them lets the other weights make up for what float8 takes from one.

    Args:
        kind: as in stored_dtype.
        weights: float32.
        dtype: of those that are stored in float8, whose values bfloat16 holds exactly.
    """
    names = [name for name, value in weights.items() if stored_dtype(kind, name, value) == FLOAT8]
    rounded = _Rounded.apply(dtype, *(weights[name] for name in names))
    return {**weights, **dict(zip(names, rounded, strict=True))}


def save_for_stock(path: str | os.PathLike, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes the network or the VAE as ``stored_dtype`` says, with the metadata that demo_format.save gives.

    The stock loaders know no scales of their own, so int8 is no choice here.

    Args:
        path: where to; the file appears under its name only when it is complete.
        state: name -> floating point tensor.
        metadata: as in demo_format.save.

    Raises:
        ValueError: as in demo_format.save.
    """
    path = Path(path)
    half, whole = (path.with_name(f".{path.name}.{secrets.token_hex(4)}.part") for _ in range(2))
    try:
        save(half, state, metadata, packed=False)  # all checks, and the metadata in full
        with safe_open(half, framework="pt") as file:
            complete = file.metadata()
        kind = metadata["kind"]
        tensors = {
            name: to_stored(value.detach().to("cpu", torch.float32), stored_dtype(kind, name, value)).contiguous()
            for name, value in state.items()
        }
        save_file(tensors, whole, metadata=complete)
        os.replace(whole, path)
    finally:
        half.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)


def widen(states: Tensor) -> Tensor:
    """Text states [B, L, 128] as Wan's conditioning [B, L, 4096]: zeros behind them."""
    return torch.nn.functional.pad(states, (0, TEXT_WIDTH - states.shape[-1]))


def load_model(path: str | os.PathLike):
    """The MODEL that UNETLoader would give, from a file of kind "video_unet", but never kept in float8.

    A LoRA is then added exactly; to weights kept in float8 the host adds it with random rounding.

    Returns:
        comfy.model_patcher.ModelPatcher around comfy.model_base.WAN21: Wan 2.1's latent format and flow sampling.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this network's.
    """
    # Imported here, because training needs only the networks and runs where ComfyUI's tokenizers cannot be imported.
    import comfy.sd

    state, metadata = load(path, "video_unet")
    check_fit(path, state, build_network("meta").state_dict())
    half = {name: value.half() for name, value in state.items()}
    return comfy.sd.load_diffusion_model_state_dict(half, metadata=metadata)


def load_clip(path: str | os.PathLike, embedding_directory: list[str] | None = None):
    """The CLIP for the small network, from a file of kind "video_text_encoder".

    Every token id that the file does not know shares one row.

    Args:
        path: the file, laid out as the image model's text encoder (demo_image.load_clip).
        embedding_directory: where the prompt's ``embedding:name`` is looked for.

    Returns:
        comfy.sd.CLIP with the SD1 tokenizer; its conditioning is [1, 77, 4096], zero from number 128 on.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this network's.
    """
    import comfy.sd
    import comfy.sd1_clip
    from comfy.supported_models_base import ClipTarget

    class WidenedClipModel(comfy.sd1_clip.SD1ClipModel):
        """SD1.5's text encoder, whose conditioning has Wan's width."""

        def encode_token_weights(self, token_weight_pairs):
            states, *others = super().encode_token_weights(token_weight_pairs)
            return widen(states), *others

    state, _ = load(path, "video_text_encoder")
    if VOCABULARY in state and TOKEN_EMBEDDING in state:
        state[TOKEN_EMBEDDING] = expand_vocabulary(path, state.pop(VOCABULARY), state[TOKEN_EMBEDDING])
    # Wan conditions on the words, not on a pooled sentence, and the file holds no projection.
    state["text_projection.weight"] = torch.eye(TEXT_CONFIG["hidden_size"])
    check_fit(path, state, build_text_transformer("meta").state_dict())
    clip = comfy.sd.CLIP(
        ClipTarget(comfy.sd1_clip.SD1Tokenizer, WidenedClipModel),
        embedding_directory=embedding_directory,
        parameters=sum(value.numel() for value in state.values()),
        model_options={"clip_l_model_config": TEXT_CONFIG},
    )
    clip.load_sd(state)
    return clip


def load_vae(path: str | os.PathLike):
    """The VAE that VAELoader would give, from a file of kind "video_vae".

    Returns:
        comfy.sd.VAE around comfy.ldm.wan.vae.WanVAE; 4 k + 1 frames become k + 1 latent ones.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this network's.
    """
    import comfy.sd

    state, metadata = load(path, "video_vae")
    check_fit(path, state, build_vae().state_dict())
    return comfy.sd.VAE(sd=state, metadata=metadata)
