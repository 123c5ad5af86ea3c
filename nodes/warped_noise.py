"""Warp Noise: noise that moves with a clip, as a NOISE for the host's own samplers."""

from __future__ import annotations

from comfy_api.latest import io

from ..kernels.flow import Flow
from ..kernels.noise_mix import TEMPORAL_MODES
from ..kernels.noise_warp import ALGORITHMS
from ..patches.latent_layout import BATCH_4D, LAYOUTS_5D
from ..patches.warped_noise import WarpedNoise
from .sockets import (
    CATEGORY_FLOW,
    MAX_SEED,
    PnFlow,
    batch_4d_input,
    check_choice,
    check_flow,
    check_range,
    layout_5d_input,
    read_schedule,
)

MAX_OVERSAMPLE = 32  # the published setting: latents of 60 x 90, noise warped at 1920 x 2880


class WarpNoise(io.ComfyNode):
    """Makes a NOISE from a flow; the noise itself is computed when a sampler or Noise To Latent asks for it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_WarpNoise",
            display_name="Warp Noise (Go-with-the-Flow)",
            category=CATEGORY_FLOW,
            description=(
                "Gaussian noise that moves with a clip's optical flow, for SamplerCustomAdvanced. Frame count, "
                "channels and size come from the latent that reaches the sampler."
            ),
            inputs=[
                PnFlow.Input("flow", tooltip="The motion to follow, from Optical Flow or Load Flow."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="The same seed gives the same noise. Every item of a batch gets noise of its own.",
                ),
                io.String.Input(
                    "degradation",
                    default="0",
                    tooltip=(
                        "How much plain noise is mixed in: 0 = the noise follows the motion fully, 1 = plain noise. A "
                        "number, or key frames over the clip's frames such as '0:0, 24:0.5 ease, 48:1'."
                    ),
                ),
                io.Combo.Input(
                    "temporal",
                    options=list(TEMPORAL_MODES),
                    default="nearest",
                    tooltip=(
                        "How the clip's frames become the fewer frames of a video latent: nearest picks frames (the "
                        "paper's choice), blend averages groups of frames, blend_norm does so and restores the "
                        "contrast, randn gives plain noise."
                    ),
                ),
                io.Combo.Input(
                    "algorithm",
                    options=list(ALGORITHMS),
                    default=ALGORITHMS[0],
                    tooltip=(
                        "subpixel follows motion best. nearest is the published method. particle is "
                        "Infinite-Resolution Integral Noise Warping, which follows fractions of a pixel without a fine "
                        "grid."
                    ),
                ),
                io.Int.Input(
                    "oversample",
                    default=8,
                    min=1,
                    max=MAX_OVERSAMPLE,
                    tooltip=(
                        "The noise is warped on a grid this many times finer than the latent. More follows small "
                        "motion better and costs time and memory with its square."
                    ),
                ),
                batch_4d_input(
                    tooltip=(
                        "What a batch of picture latents is: the frames of one clip (AnimateDiff), or separate "
                        "pictures that each get noise of their own, carried to the clip's last frame."
                    ),
                ),
                layout_5d_input(
                    tooltip=(
                        "The order of a video latent's axes. auto knows ComfyUI's own (B,C,T,H,W) and the CogVideoX "
                        "wrapper pack's (B,T,C,H,W); choose one if it guesses wrong."
                    ),
                ),
            ],
            outputs=[io.Noise.Output(display_name="noise", tooltip="For SamplerCustomAdvanced or Noise To Latent.")],
        )

    @classmethod
    def execute(
        cls,
        flow: Flow,
        seed: int,
        degradation: str,
        temporal: str,
        algorithm: str,
        oversample: int,
        batch_4d: str = BATCH_4D[0],
        layout_5d: str = LAYOUTS_5D[0],
    ) -> io.NodeOutput:
        check_flow(flow)
        check_choice(temporal, "temporal", TEMPORAL_MODES)
        check_choice(algorithm, "algorithm", ALGORITHMS)
        check_choice(batch_4d, "batch_4d", BATCH_4D)
        check_choice(layout_5d, "layout_5d", LAYOUTS_5D)
        check_range(oversample, "oversample", 1, MAX_OVERSAMPLE)
        schedule = read_schedule(degradation, "degradation")
        schedule.at(flow.frames)  # keys in percent and in frames may cross: say so now, not when sampling starts
        noise = WarpedNoise(
            flow,
            seed=seed,
            degradation=schedule,
            temporal=temporal,
            algorithm=algorithm,
            oversample=oversample,
            batch_4d=batch_4d,
            layout_5d=layout_5d,
        )
        return io.NodeOutput(noise)


NODES = [WarpNoise]
