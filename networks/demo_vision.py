"""The small CLIP vision model of the demonstration: ComfyUI's own class, sizes in demo_clip_vision.json."""

import json
import os
from pathlib import Path

import comfy.clip_model
import comfy.ops
import torch

from .demo_format import check_fit, load
from .demo_image import make_differentiable

CONFIG_FILE = Path(__file__).with_name("demo_clip_vision.json")


def build_clip_vision(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    operations: type = comfy.ops.disable_weight_init,
) -> comfy.clip_model.CLIPVisionModelProjection:
    """A vision transformer that can be trained, its weights not yet set (memory as it comes).

    Called with pixel_values [B, 3, 128, 128] as comfy.clip_vision.clip_preprocess gives them; the third result is the
    embedding [B, 128].
    """
    config = json.loads(CONFIG_FILE.read_text("ascii"))
    network = comfy.clip_model.CLIPVisionModelProjection(config, dtype, device, operations)
    return make_differentiable(network.to(device=device, dtype=dtype))


def load_clip_vision(path: str | os.PathLike):
    """The CLIP_VISION that CLIPVisionLoader would give, from a file of kind "image_clip_vision".

    Returns:
        comfy.clip_vision.ClipVisionModel.

    Raises:
        DemoFileError: see demo_format.load; weights that are not this network's.
    """
    import comfy.clip_vision

    state, _ = load(path, "image_clip_vision")
    vision = comfy.clip_vision.ClipVisionModel(str(CONFIG_FILE))
    check_fit(path, state, vision.get_sd())
    vision.load_sd(state)
    return vision
