"""Luma Replace and Chroma Smooth: brightness kept from the source, colours steadied along the motion."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..kernels.flow import Flow
from ..kernels.luma import GAMUTS, SPACES, UPSAMPLING, chroma_smooth, luma_replace
from .motion import each_frame
from .sockets import CATEGORY_COLOUR, PnFlow, check_choice, check_pictures, check_range

AT_ONCE = 8
"""Pictures whose brightness is replaced together, which bounds the memory of long clips."""


def space_input() -> io.Combo.Input:
    """In which space brightness and colour are told apart."""
    return io.Combo.Input(
        "space",
        options=list(SPACES),
        default=SPACES[0],
        tooltip="Lab: brightness as the eye sees it. YCbCr: as JPEG and video have it, faster.",
    )


class LumaReplace(io.ComfyNode):
    """The source's brightness under the generated picture's colours."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_LumaReplace",
            display_name="Luma Replace",
            category=CATEGORY_COLOUR,
            description="Gives a generated picture the brightness of its source: lines and shading stay, colours come.",
            inputs=[
                io.Image.Input("generated", tooltip="The picture or clip whose colours are wanted."),
                io.Image.Input(
                    "source",
                    tooltip="The picture or clip whose brightness is wanted: one, or as many. It gives the size.",
                ),
                space_input(),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    tooltip="1: the source's brightness. 0: the generated picture's own.",
                ),
                io.Combo.Input(
                    "gamut",
                    options=list(GAMUTS),
                    default=GAMUTS[0],
                    tooltip=(
                        "Colours that cannot be as bright as asked. desaturate: paler, at that brightness. clip: cut "
                        "off, as strong as can be, at another brightness."
                    ),
                ),
                io.Combo.Input(
                    "upsampling",
                    options=list(UPSAMPLING),
                    default=UPSAMPLING[0],
                    tooltip=(
                        "Where the generated picture is smaller. guided: colours end where the source's brightness "
                        "does. bilinear, bicubic: they run over lines."
                    ),
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="As large as the source.")],
        )

    @classmethod
    def execute(
        cls, generated: Tensor, source: Tensor, space: str, strength: float, gamut: str, upsampling: str
    ) -> io.NodeOutput:
        check_choice(space, "space", SPACES)
        check_range(strength, "strength", 0.0, 1.0)
        check_choice(gamut, "gamut", GAMUTS)
        check_choice(upsampling, "upsampling", UPSAMPLING)
        colours, bright = check_pictures(generated, "generated"), check_pictures(source, "source")
        count = colours.shape[0]
        if bright.shape[0] not in (1, count):
            raise ValueError(
                f"'source' holds {bright.shape[0]} pictures and 'generated' {count}; expected one, or as many."
            )
        bright = bright.expand(count, -1, -1, -1)
        device, home = comfy.model_management.get_torch_device(), comfy.model_management.intermediate_device()
        progress, found = comfy.utils.ProgressBar(count), []
        for start in range(0, count, AT_ONCE):
            comfy.model_management.throw_exception_if_processing_interrupted()
            part = (some[start : start + AT_ONCE].to(device) for some in (colours, bright))
            choices = {"space": space, "strength": strength, "gamut": gamut, "upsampling": upsampling}
            found.append(luma_replace(*part, **choices).to(home))
            progress.update(found[-1].shape[0])
        return io.NodeOutput(torch.cat(found))


class ChromaSmooth(io.ComfyNode):
    """Colours steadied along the motion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_ChromaSmooth",
            display_name="Chroma Smooth",
            category=CATEGORY_COLOUR,
            description="Averages a clip's colours along its motion, so that they stop flickering; brightness stays.",
            inputs=[
                io.Image.Input("video", tooltip="The clip, a batch of images."),
                PnFlow.Input("flow", tooltip="The clip's motion, or its source's: from Optical Flow, say."),
                io.Float.Input(
                    "strength",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    tooltip="How much a frame's colours count one frame on. 0: nothing is done. 1: all frames alike.",
                ),
                space_input(),
                io.Mask.Input(
                    "occlusion",
                    optional=True,
                    tooltip=(
                        "White where colours are not to be taken from other frames, beside what the flow itself finds "
                        "hidden: one mask, one a frame, or one for each frame after the first."
                    ),
                ),
            ],
            outputs=[io.Image.Output(display_name="video", tooltip="The clip with steady colours.")],
        )

    @classmethod
    def execute(
        cls, video: Tensor, flow: Flow, strength: float, space: str, occlusion: Tensor | None = None
    ) -> io.NodeOutput:
        check_range(strength, "strength", 0.0, 1.0)
        check_choice(space, "space", SPACES)
        frames = check_pictures(video, "video")
        if flow.frames != frames.shape[0]:
            raise ValueError(
                f"'flow' connects {flow.frames} frames and 'video' has {frames.shape[0]}. Take the flow of this clip, "
                "or of its source with as many frames."
            )
        if occlusion is not None:
            occlusion = check_occlusion(occlusion, frames)
        report = each_frame(2 * frames.shape[0])
        return io.NodeOutput(chroma_smooth(frames, flow, occlusion, strength, space=space, on_frame=report))


def check_occlusion(occlusion: Tensor, frames: Tensor) -> Tensor:
    """Masks [1, T - 1 or T, H, W] that go with frames [T, H, W, 3].

    Raises:
        ValueError: another size, another number, or NaN or infinite values.
    """
    masks = occlusion[None] if occlusion.ndim == 2 else occlusion
    count, height, width = frames.shape[:3]
    if masks.ndim != 3 or masks.shape[0] not in (1, count - 1, count) or tuple(masks.shape[1:]) != (height, width):
        raise ValueError(
            f"'occlusion' has shape {list(occlusion.shape)}; expected 1, {count - 1} or {count} masks of "
            f"{width}x{height}, the video's size."
        )
    if not bool(masks.isfinite().all()):
        raise ValueError("'occlusion' holds NaN or infinite values. Check the node that made it.")
    return masks.float().to(frames.device)


NODES = [LumaReplace, ChromaSmooth]
