"""Optical Flow: the motion of a clip; Flow To Image: the motion as a picture."""

from __future__ import annotations

import functools

import comfy.model_management
import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ..kernels.flow import DIRECTIONS, Flow, occlusion_mask
from ..kernels.flow_picture import flow_to_image
from ..kernels.optical_flow import dis_flow
from ..networks.raft import raft_flow, raft_memory
from .raft_files import MODEL_FOLDER, RAFT_METHODS, find_raft_file, load_raft_patcher
from .sockets import CATEGORY_FLOW, PnFlow, check_choice, check_clip, check_flow, check_range

METHODS = ("DIS", *RAFT_METHODS)
SMALLEST_FACTOR = 0.1
LARGEST_MAGNITUDE = 10_000.0


class OpticalFlow(io.ComfyNode):
    """Computes the flow of a clip in both directions, so that hidden pixels can be told from visible ones."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_OpticalFlow",
            display_name="Optical Flow",
            category=CATEGORY_FLOW,
            description="How every pixel of a clip moves from frame to frame.",
            inputs=[
                io.Image.Input("frames", tooltip="The clip: a batch of at least two consecutive images."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip=(
                        "DIS is fast, runs on the CPU and needs no weights. RAFT small and RAFT large are networks "
                        f"that follow large and thin motion better; they need a file in models/{MODEL_FOLDER}."
                    ),
                ),
                io.Combo.Input(
                    "direction",
                    options=list(DIRECTIONS),
                    default=DIRECTIONS[0],
                    tooltip=(
                        "forward: where each pixel of a frame goes in the next. backward: where each pixel of a frame "
                        "came from in the one before. Warp Noise takes either."
                    ),
                ),
                io.Float.Input(
                    "resize_factor",
                    default=0.5,
                    min=SMALLEST_FACTOR,
                    max=1.0,
                    step=0.05,
                    tooltip=(
                        "The frames are resized by this before their motion is measured; the flow comes out at the "
                        "clip's own size. 0.5 is the paper's setting: quicker, and calmer on noise. 1 keeps small "
                        "things."
                    ),
                ),
            ],
            outputs=[
                PnFlow.Output(display_name="flow", tooltip="For Warp Noise, Save Flow and Flow To Image."),
                io.Mask.Output(
                    display_name="occlusion",
                    tooltip=(
                        "One mask for each pair of frames: white where a pixel has no counterpart in the other frame."
                    ),
                ),
                io.Image.Output(
                    display_name="picture",
                    tooltip="One image for each pair of frames: colour is direction, saturation is speed.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, method: str) -> bool | str:
        """Says before anything runs that a method is unknown or its file is missing."""
        if method is None:  # linked: not known yet
            return True
        try:
            check_choice(method, "method", METHODS)
            if method in RAFT_METHODS:
                find_raft_file(method)
        except (ValueError, FileNotFoundError) as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, frames: Tensor, method: str, direction: str, resize_factor: float) -> io.NodeOutput:
        check_clip(frames)
        check_choice(method, "method", METHODS)
        check_choice(direction, "direction", DIRECTIONS)
        check_range(resize_factor, "resize_factor", SMALLEST_FACTOR, 1.0)
        frames = frames[..., :3]
        progress = comfy.utils.ProgressBar(2 * (frames.shape[0] - 1))

        def on_frame(index: int, pairs: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            progress.update(1)

        settings = {"factor": resize_factor, "on_frame": on_frame}
        if method in RAFT_METHODS:
            patcher = load_raft_patcher(method)
            memory = raft_memory(frames.shape[1], frames.shape[2], resize_factor)
            comfy.model_management.load_models_gpu([patcher], memory_required=memory, force_full_load=True)
            estimate = functools.partial(raft_flow, patcher.model, frames, **settings)
        else:
            estimate = functools.partial(dis_flow, frames, **settings)

        other = DIRECTIONS[1 - DIRECTIONS.index(direction)]
        vectors, opposite = estimate(direction=direction), estimate(direction=other)
        occlusion = occlusion_mask(vectors, opposite)
        device = comfy.model_management.intermediate_device()
        flow = Flow(vectors.to(device), direction, occlusion.to(device))
        return io.NodeOutput(flow, flow.occlusion, flow_to_image(flow.vectors))


class FlowToImage(io.ComfyNode):
    """Draws a flow."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_FlowToImage",
            display_name="Flow To Image",
            category=CATEGORY_FLOW,
            description="A flow as a picture: colour is direction, saturation is speed, white is rest.",
            inputs=[
                PnFlow.Input("flow", tooltip="From Optical Flow or Load Flow."),
                io.Float.Input(
                    "max_magnitude",
                    default=0.0,
                    min=0.0,
                    max=LARGEST_MAGNITUDE,
                    step=0.5,
                    tooltip=(
                        "The speed in pixels a frame that gets full colour; what is faster is drawn darker. 0 = chosen "
                        "from the clip. Set it to compare clips."
                    ),
                ),
                io.Boolean.Input(
                    "legend",
                    default=True,
                    tooltip=(
                        "Draws the colour wheel and the speed at its rim into a corner; very small pictures have no "
                        "room for it."
                    ),
                ),
            ],
            outputs=[io.Image.Output(display_name="picture", tooltip="One image for each pair of frames.")],
        )

    @classmethod
    def execute(cls, flow: Flow, max_magnitude: float, legend: bool) -> io.NodeOutput:
        check_flow(flow)
        check_range(max_magnitude, "max_magnitude", 0.0, LARGEST_MAGNITUDE)
        return io.NodeOutput(flow_to_image(flow.vectors, max_magnitude=max_magnitude or None, legend=legend))


NODES = [OpticalFlow, FlowToImage]
