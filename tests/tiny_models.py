"""Tiny models with random weights that the host's own detection accepts, made in memory when a test asks for one.

Each goes through ``comfy.sd.load_diffusion_model_state_dict``, the way every diffusion model file goes, so what comes
out is an ordinary MODEL of its family: two layers or so, a few MB.
"""

import functools
import json
from pathlib import Path

import comfy.ops
import comfy.sd
import torch
from safetensors.torch import save_file

OPERATIONS = comfy.ops.manual_cast
ON_CPU = {"device": "cpu", "dtype": torch.float32, "operations": OPERATIONS}


def _wan() -> tuple[torch.nn.Module, dict]:
    from comfy.ldm.wan.model import WanModel

    return WanModel(
        model_type="t2v", patch_size=(1, 2, 2), dim=128, ffn_dim=128, num_heads=1, num_layers=2, in_dim=16, out_dim=16,
        freq_dim=256, text_dim=4096, **ON_CPU,
    ), {}  # fmt: skip


def _hunyuan_video() -> tuple[torch.nn.Module, dict]:
    from comfy.ldm.hunyuan_video.model import HunyuanVideo

    return HunyuanVideo(
        image_model="hunyuan_video", in_channels=16, out_channels=16, patch_size=[1, 2, 2], vec_in_dim=768,
        context_in_dim=4096, hidden_size=128, mlp_ratio=4.0, num_heads=1, depth=1, depth_single_blocks=1,
        axes_dim=[16, 56, 56], theta=256, qkv_bias=True, guidance_embed=True, byt5=False, meanflow=False,
        use_cond_type_embedding=False, vision_in_dim=None, **ON_CPU,
    ), {}  # fmt: skip


def _ltxv() -> tuple[torch.nn.Module, dict]:
    from comfy.ldm.lightricks.model import LTXVModel

    sizes = {
        "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 32, "num_attention_heads": 2,
        "caption_channels": 4096, "num_layers": 2,
    }  # fmt: skip
    return LTXVModel(**sizes, **ON_CPU), {"config": json.dumps({"transformer": sizes})}


def _sd15() -> tuple[torch.nn.Module, dict]:
    """One level, one block a side, no middle; 320 wide, because detection knows no narrower SD1.5."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    return UNetModel(
        image_size=32, in_channels=4, out_channels=4, model_channels=320, dims=2, num_res_blocks=[1], channel_mult=[1],
        transformer_depth=[1], transformer_depth_output=[1, 1], transformer_depth_middle=-2, context_dim=768,
        num_heads=8, num_head_channels=-1, use_spatial_transformer=True, use_linear_in_transformer=False, legacy=False,
        use_checkpoint=False, **ON_CPU,
    ), {}  # fmt: skip


def _sdxl() -> tuple[torch.nn.Module, dict]:
    """SDXL's block ids, 320 wide, with the depths of Segmind Vega, its smallest kin."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    return UNetModel(
        image_size=32, in_channels=4, out_channels=4, model_channels=320, dims=2, num_res_blocks=[2] * 3,
        channel_mult=[1] * 3, transformer_depth=[0, 0, 1, 1, 2, 2],
        transformer_depth_output=[0, 0, 0, 1, 1, 1, 2, 2, 2], transformer_depth_middle=-1,
        use_linear_in_transformer=True, context_dim=2048, num_heads=-1, num_head_channels=64,
        num_classes="sequential", adm_in_channels=2816, use_spatial_transformer=True, legacy=False,
        use_checkpoint=False, **ON_CPU,
    ), {}  # fmt: skip


def _sd3() -> tuple[torch.nn.Module, dict]:
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT

    return MMDiT(
        input_size=None, depth=2, patch_size=2, in_channels=16, out_channels=16, adm_in_channels=2048,
        context_embedder_config={
            "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}
        },
        num_patches=192 * 192 // 64, pos_embed_max_size=24, pos_embed_scaling_factor=None, qk_norm="rms", **ON_CPU,
    ), {}  # fmt: skip


FAMILIES = {
    "wan": _wan,
    "hunyuan_video": _hunyuan_video,
    "ltxv": _ltxv,
    "sd15": _sd15,
    "sdxl": _sdxl,
    "sd3": _sd3,
}


def _random_weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Norm scales 1, biases 0, everything else small normal numbers from one seed."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, value in network.state_dict().items():
        if not value.is_floating_point():
            weights[key] = value.clone()
        elif (key.endswith("weight") and value.ndim == 1) or key.endswith(("scale", "gamma")):
            weights[key] = torch.ones(value.shape)
        elif key.endswith("bias"):
            weights[key] = torch.zeros(value.shape)
        else:
            weights[key] = torch.randn(value.shape, generator=generator) * 0.02
    return weights


@functools.cache
def tiny_model(family: str):
    """A MODEL (ModelPatcher) of one of ``FAMILIES``; the same object every time, so clone before patching it."""
    network, metadata = FAMILIES[family]()
    weights = {
        key: value.half() if value.is_floating_point() else value for key, value in _random_weights(network).items()
    }
    return comfy.sd.load_diffusion_model_state_dict(weights, metadata=metadata)


def tiny_conditioning(family: str, seed: int = 0, tokens: int = 8) -> list:
    """Random CONDITIONING in the sizes that a family expects."""
    generator = torch.Generator().manual_seed(seed)
    width = {"sd15": 768, "sdxl": 2048}.get(family, 4096)
    text = torch.randn(1, tokens, width, generator=generator)
    pooled = {"sdxl": 1280, "sd3": 2048}.get(family, 768)
    extra = {"pooled_output": torch.randn(1, pooled, generator=generator)}
    if family == "ltxv":
        extra["attention_mask"] = torch.ones(1, tokens, dtype=torch.int64)
    return [[text, extra]]


def write_tiny_model(family: str, path: Path) -> None:
    """Writes the same weights as a file that UNETLoader reads."""
    network, metadata = FAMILIES[family]()
    weights = {
        key: value.half().contiguous() if value.is_floating_point() else value
        for key, value in _random_weights(network).items()
    }
    save_file(weights, path, metadata=metadata)
