"""Demo Checkpoint: the small models that come with the pack, on the sockets of the stock loaders."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..networks.demo_controlnet import load_controlnet
from ..networks.demo_format import DemoFileError, read_metadata
from ..networks.demo_image import load_clip, load_model, load_vae
from ..networks.demo_vision import load_clip_vision
from .sockets import check_choice

CATEGORY_DEMO = "papernodes/demo"
FOLDER = Path(__file__).resolve().parent.parent / "demo" / "checkpoints"
FILES = {
    "image": (
        "image_unet",
        "image_text_encoder",
        "image_vae",
        "image_clip_vision",
        "image_controlnet_lineart",
    ),
}
"""Choice of 'kind' -> the kinds of file it loads, each <kind>.safetensors in FOLDER."""


class DemoCheckpoint(io.ComfyNode):
    """Loads the demonstration models: what CheckpointLoaderSimple, CLIPVisionLoader and ControlNetLoader would give."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_DemoCheckpoint",
            display_name="Demo Checkpoint",
            category=CATEGORY_DEMO,
            description=(
                "Small models that come with the pack and draw the scenes of a toy world: an SD1.5 in miniature. Runs "
                "on a CPU in seconds; nothing is downloaded."
            ),
            inputs=[
                io.Combo.Input(
                    "kind",
                    options=list(FILES),
                    default="image",
                    tooltip="image: pictures of 128 x 128 from a prompt, built like SD1.5.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="SD1.5's UNet in miniature, for any sampler."),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder; knows the words of the toy world."),
                io.Vae.Output(display_name="vae", tooltip="Its VAE: 8 times smaller, 4 channels. Not for photographs."),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="For CLIP Vision Encode; recognises a character in another pose.",
                ),
                io.ControlNet.Output(
                    display_name="control_net", tooltip="For Apply ControlNet; follows white lines on black."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, kind: str) -> str:
        """Changes when a file does, so that models are loaded anew after an update of the pack."""
        states = [path.stat() for path in file_paths(kind).values()]
        return ";".join(f"{state.st_mtime_ns}:{state.st_size}" for state in states)

    @classmethod
    def execute(cls, kind: str) -> io.NodeOutput:
        check_choice(kind, "kind", list(FILES))
        paths = file_paths(kind)
        try:
            for file_kind, path in paths.items():  # all of them, before time is spent on the first
                read_metadata(path, file_kind)
            return io.NodeOutput(
                load_model(paths["image_unet"]),
                load_clip(paths["image_text_encoder"], folder_paths.get_folder_paths("embeddings")),
                load_vae(paths["image_vae"]),
                load_clip_vision(paths["image_clip_vision"]),
                load_controlnet(paths["image_controlnet_lineart"], paths["image_unet"]),
            )
        except DemoFileError as error:
            # The editor shows the type's full name, and that of our own begins with the pack's path.
            raise ValueError(str(error)) from error


def file_paths(kind: str) -> dict[str, Path]:
    """Kind of file -> its path, for a choice of 'kind'."""
    return {file_kind: FOLDER / f"{file_kind}.safetensors" for file_kind in FILES[kind]}


NODES = [DemoCheckpoint]
