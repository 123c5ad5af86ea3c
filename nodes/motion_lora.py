"""Motion LoRA: what motion modules were taught in addition, for a MODEL that has them."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io

from ..networks.motion_lora import MotionLoraError, read_motion_lora
from ..patches.frames import motion_of, with_motion_patches
from .sockets import CATEGORY_LIGHT, check_range
from .weight_files import find_weights, read_weights

MODEL_FOLDER = "animatediff_motion_lora"
PUBLISHED = ("warpednoise_motionlora_animatediffv3_00012000.safetensors", "v2_lora_ZoomIn.ckpt")
SOURCES = (
    "https://huggingface.co/spacepxl/animatediffv3_warpednoise_motionlora or https://huggingface.co/guoyww/animatediff"
)
MOST = 2.0


def list_motion_loras() -> list[str]:
    """Files of models/animatediff_motion_lora, or published ones' names."""
    # The entry point makes the folder known; a schema that is read without it still says what is wanted.
    known = MODEL_FOLDER in folder_paths.folder_names_and_paths
    return (folder_paths.get_filename_list(MODEL_FOLDER) if known else []) or list(PUBLISHED)


class MotionLoRA(io.ComfyNode):
    """Motion modules with a LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_MotionLoRA",
            display_name="Motion LoRA",
            category=CATEGORY_LIGHT,
            description="Changes a MODEL's motion modules by a LoRA made for them: a camera move, warped noise.",
            inputs=[
                io.Model.Input("model", tooltip="From Motion Modules, or from another Motion LoRA."),
                io.Combo.Input(
                    "motion_lora",
                    options=list_motion_loras(),
                    tooltip="In models/animatediff_motion_lora; made for the motion file that Motion Modules has.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-MOST,
                    max=MOST,
                    step=0.05,
                    round=False,
                    tooltip="How much of the change is added. 0: none; below 0: the opposite.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For a sampler, or for another Motion LoRA.")],
        )

    @classmethod
    def execute(cls, model: object, motion_lora: str, strength: float) -> io.NodeOutput:
        check_range(strength, "strength", -MOST, MOST)
        network = motion_of(model)
        wanted = f"{' or '.join(PUBLISHED)} from {SOURCES}"
        path = find_weights(MODEL_FOLDER, motion_lora, "motion_lora", wanted)
        state = read_weights(path, motion_lora, "motion_lora", SOURCES)
        try:
            patches = read_motion_lora(motion_lora, state, network)
        except MotionLoraError as error:
            raise ValueError(f"'motion_lora': {error}") from None
        return io.NodeOutput(with_motion_patches(model, patches, strength))


NODES = [MotionLoRA]
