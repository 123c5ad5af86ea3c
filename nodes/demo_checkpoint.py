"""Demo Checkpoint: the small models that come with the pack, on the sockets of the stock loaders."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..networks import demo_manga_ninja, demo_video
from ..networks.demo_controlnet import load_controlnet
from ..networks.demo_format import FOLDER, DemoFileError, read_metadata
from ..networks.demo_image import load_clip, load_model, load_vae
from ..networks.demo_vision import load_clip_vision
from .sockets import NothingThere, check_choice

CATEGORY_DEMO = "papernodes/demo"
FILES = {
    "image": (
        "image_unet",
        "image_text_encoder",
        "image_vae",
        "image_clip_vision",
        "image_controlnet_lineart",
    ),
    "video": ("video_unet", "video_text_encoder", "video_vae"),
    "manganinja": (
        demo_manga_ninja.DENOISING,
        demo_manga_ninja.CONTROL,
        "image_unet",
        "image_text_encoder",
        "image_vae",
        "image_clip_vision",
        "image_controlnet_lineart",
    ),
}
"""Choice of 'kind' -> the kinds of file it loads, each <kind>.safetensors in FOLDER."""

NOT_FOR_VIDEO = (
    "The output '{output}' of Demo Checkpoint is connected, but its kind is 'video', which has none. Set kind to "
    "'image', or disconnect this output."
)


class DemoCheckpoint(io.ComfyNode):
    """Loads the demonstration models: what CheckpointLoaderSimple, CLIPVisionLoader and ControlNetLoader would give."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_DemoCheckpoint",
            display_name="Demo Checkpoint",
            category=CATEGORY_DEMO,
            description=(
                "Small models that come with the pack and draw the scenes of a toy world: an SD1.5 and a Wan 2.1 in "
                "miniature. Runs on a CPU in seconds; nothing is downloaded."
            ),
            inputs=[
                io.Combo.Input(
                    "kind",
                    options=list(FILES),
                    default="image",
                    tooltip=(
                        "image: pictures of 128 x 128 from a prompt, built like SD1.5. video: clips of 17 frames of "
                        "128 x 128 from a prompt, built like Wan 2.1; without CLIP vision and ControlNet. manganinja: "
                        "lines coloured after a reference, for MangaNinja Apply."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip=(
                        "For any sampler. image: SD1.5's UNet in miniature. video: Wan 2.1's network in miniature. "
                        "manganinja: MangaNinja's denoising UNet in miniature."
                    ),
                ),
                io.Clip.Output(display_name="clip", tooltip="Its text encoder; knows the words of the toy world."),
                io.Vae.Output(
                    display_name="vae",
                    tooltip=(
                        "Its VAE, 8 times smaller. image: 4 channels. video: 16 channels, and one latent frame for "
                        "each 4 frames after the first. Not for photographs."
                    ),
                ),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="For CLIP Vision Encode; recognises a character in another pose. Not with kind video.",
                ),
                io.ControlNet.Output(
                    display_name="control_net",
                    tooltip=(
                        "image: for Apply ControlNet; follows white lines on black. manganinja: for MangaNinja Apply; "
                        "follows Line Art's control_hint. Not with kind video."
                    ),
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
            return io.NodeOutput(*MODELS[kind](paths))
        except DemoFileError as error:
            # The editor shows the type's full name, and that of our own begins with the pack's path.
            raise ValueError(str(error)) from error


def file_paths(kind: str) -> dict[str, Path]:
    """Kind of file -> its path, for a choice of 'kind'."""
    return {file_kind: FOLDER / f"{file_kind}.safetensors" for file_kind in FILES[kind]}


def image_models(paths: dict[str, Path]) -> tuple:
    """MODEL, CLIP, VAE, CLIP_VISION and CONTROL_NET of the image model's files."""
    return (
        load_model(paths["image_unet"]),
        load_clip(paths["image_text_encoder"], folder_paths.get_folder_paths("embeddings")),
        load_vae(paths["image_vae"]),
        load_clip_vision(paths["image_clip_vision"]),
        load_controlnet(paths["image_controlnet_lineart"], paths["image_unet"]),
    )


def video_models(paths: dict[str, Path]) -> tuple:
    """MODEL, CLIP and VAE of the video model's files; whatever is connected to the other outputs says why it stops."""
    return (
        demo_video.load_model(paths["video_unet"]),
        demo_video.load_clip(paths["video_text_encoder"], folder_paths.get_folder_paths("embeddings")),
        demo_video.load_vae(paths["video_vae"]),
        *(NothingThere(NOT_FOR_VIDEO.format(output=output)) for output in ("clip_vision", "control_net")),
    )


def manga_ninja_models(paths: dict[str, Path]) -> tuple:
    """MangaNinja's denoising UNet and ControlNet, between them CLIP, VAE and CLIP_VISION of the image model."""
    unet, lines = paths["image_unet"], paths["image_controlnet_lineart"]
    return (
        demo_manga_ninja.load_model(paths[demo_manga_ninja.DENOISING], unet),
        load_clip(paths["image_text_encoder"], folder_paths.get_folder_paths("embeddings")),
        load_vae(paths["image_vae"]),
        load_clip_vision(paths["image_clip_vision"]),
        demo_manga_ninja.load_controlnet(paths[demo_manga_ninja.CONTROL], lines, unet),
    )


MODELS = {"image": image_models, "video": video_models, "manganinja": manga_ninja_models}
"""Choice of 'kind' -> what makes the outputs."""

NODES = [DemoCheckpoint]
