"""Clips on SD1.5: motion modules of AnimateDiff's layout, and what RelightVid's guidance and sampler are given."""

from __future__ import annotations

import logging

import comfy.model_sampling
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..kernels.pixel_coding import on_grey
from ..networks.motion import MotionFileError, read_motion
from ..patches.frame_windows import SCHEDULES, Windows
from ..patches.frames import check_base, with_motion
from ..patches.ic_light import with_latents
from ..patches.linear_noise import ddpm_sigmas, with_linear_levels
from .demo_adapters import MOTIONS, misfit
from .ic_light import empty_latent, encoded
from .sockets import (
    CATEGORY_LIGHT,
    alike,
    check_choice,
    check_mask,
    check_pictures,
    check_range,
    check_sides,
)
from .weight_files import find_weights, read_weights

MODEL_FOLDER = "animatediff_models"
PUBLISHED = ("relvid_mm_sd15_fbc.pth", "v3_sd15_mm.ckpt", "mm_sd_v15_v2.ckpt")
SOURCES = "https://huggingface.co/aleafy/relightvid_models or https://huggingface.co/guoyww/animatediff"
NORMS = ("as the file", "joint", "per frame")
LEVELS = ("as the file", "linear", "the model's")
GREY = 128 / 255
"""RelightVid's, round its foregrounds."""

MOST_STEPS, MOST_FRAMES = 1000, 4096

_told: set[str] = set()


def list_motion_files() -> list[str]:
    """Files of models/animatediff_models, or the published ones' names; then the pack's own for Demo Checkpoint."""
    # The entry point makes the folder known; a schema that is read without it still says what is wanted.
    known = MODEL_FOLDER in folder_paths.folder_names_and_paths
    return ((folder_paths.get_filename_list(MODEL_FOLDER) if known else []) or list(PUBLISHED)) + list(MOTIONS)


def is_relightvid(state: dict[str, Tensor]) -> bool:
    """Whether a file has RelightVid's prefix, and so its licence, norms over whole clips and SD1.5's noise levels."""
    return any(key.startswith("unet.") for key in state)


class MotionModules(io.ComfyNode):
    """An SD1.5 that samples the frames of a clip together."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_MotionModules",
            display_name="Motion Modules",
            category=CATEGORY_LIGHT,
            description="Lets an SD1.5 model sample a clip's frames together: AnimateDiff's and RelightVid's modules.",
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5; with IC-Light Model (fbc) before it for RelightVid's file."),
                io.Combo.Input(
                    "motion_file",
                    options=list_motion_files(),
                    tooltip=(
                        "In models/animatediff_models: AnimateDiff's v2 or v3, or RelightVid's. papernodes_demo_...: "
                        "for Demo Checkpoint, comes with the pack."
                    ),
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    round=False,
                    tooltip="How much of what the modules add is added. 0: none.",
                ),
                io.Combo.Input(
                    "group_norm",
                    options=list(NORMS),
                    default=NORMS[0],
                    tooltip=("Whether norms see whole clips. as the file: joint for RelightVid's, else per frame."),
                ),
                io.Int.Input(
                    "context_length",
                    default=16,
                    min=0,
                    max=MOST_FRAMES,
                    tooltip="Longer clips are sampled in overlapping windows of so many frames; 0: in one piece.",
                ),
                io.Int.Input(
                    "context_overlap", default=4, min=0, max=MOST_FRAMES, tooltip="Frames that windows share."
                ),
                io.Combo.Input(
                    "context_schedule",
                    options=list(SCHEDULES),
                    default=Windows.schedule,
                    tooltip="How ComfyUI lays the windows: side by side, or spread anew in each step.",
                ),
                io.Combo.Input(
                    "noise_levels",
                    options=list(LEVELS),
                    default=LEVELS[0],
                    optional=True,
                    tooltip=(
                        "What every scheduler then steps through. as the file: linear, up to 25.1, for AnimateDiff's "
                        "files; the model's, for RelightVid's."
                    ),
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For a sampler; the latent's batch is the clip.")],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        motion_file: str,
        scale: float,
        group_norm: str,
        context_length: int,
        context_overlap: int,
        context_schedule: str,
        noise_levels: str = LEVELS[0],
    ) -> io.NodeOutput:
        check_range(scale, "scale", 0.0, 2.0)
        check_choice(group_norm, "group_norm", NORMS)
        check_choice(context_schedule, "context_schedule", SCHEDULES)
        check_choice(noise_levels, "noise_levels", LEVELS)
        check_range(context_length, "context_length", 0, MOST_FRAMES)
        check_base(model)
        windows = None
        if context_length:
            try:
                windows = Windows(context_length, context_overlap, context_schedule)
            except ValueError as error:
                raise ValueError(f"'context_overlap': {error}.") from None
        wanted = f"{' or '.join(PUBLISHED)} from {SOURCES}"
        path = find_weights(MODEL_FOLDER, motion_file, "motion_file", wanted, MOTIONS)
        state = read_weights(path, motion_file, "motion_file", SOURCES)
        relightvid = is_relightvid(state)
        joint = relightvid if group_norm == NORMS[0] else group_norm == "joint"
        linear = not relightvid if noise_levels == LEVELS[0] else noise_levels == "linear"
        try:
            network = read_motion(motion_file, state, groups=model.model.diffusion_model.out[0].num_groups)
        except MotionFileError as error:
            raise ValueError(f"'motion_file': {error}{misfit(motion_file, model, MOTIONS, wanted)}") from None
        if relightvid and motion_file not in MOTIONS and motion_file not in _told:
            _told.add(motion_file)
            logging.info("PaperNodes: %s is licensed CC BY-NC-SA 4.0, for non-commercial use.", motion_file)
        moving = with_motion(model, network, scale, joint, windows)
        if linear:
            try:
                moving = with_linear_levels(moving)
            except ValueError as error:
                raise ValueError(f"'noise_levels': {error} Choose \"the model's\" to keep its own.") from None
        return io.NodeOutput(moving)


class RelightVidConditioning(io.ComfyNode):
    """A clip's foreground and background beside the noise, for RelightVid's two kinds of guidance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_RelightVidConditioning",
            display_name="RelightVid Conditioning",
            category=CATEGORY_LIGHT,
            description="Tells RelightVid which frames to relight and by which background, for DualCFGGuider.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="The authors' prompt is 'change the background'."),
                io.Conditioning.Input("negative", tooltip="The authors' is empty."),
                io.Vae.Input("vae", tooltip="The checkpoint's."),
                io.Image.Input("frames", tooltip="The clip to be relit, a batch; sides are multiples of 8."),
                io.Image.Input(
                    "background", tooltip="The clip whose light is taken: as many frames, or one for all of them."
                ),
                io.Mask.Input("mask", optional=True, tooltip="White where the foreground is: one a frame, or one."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="cond1", tooltip="Text and pictures: DualCFGGuider's cond1."),
                io.Conditioning.Output(display_name="cond2", tooltip="Pictures, negative text: its cond2."),
                io.Conditioning.Output(display_name="negative", tooltip="Negative text alone: its negative."),
                io.Latent.Output(display_name="latent", tooltip="Empty, a latent for each frame."),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: list,
        negative: list,
        vae: object,
        frames: Tensor,
        background: Tensor,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        shown = check_pictures(frames, "frames")
        behind = alike(check_pictures(background, "background").to(shown.device), "background", shown, "frames")
        check_sides(shown, "frames")
        cut = on_grey(shown, check_mask(mask, shown, "frames"), GREY)
        latents = encoded(vae, cut, behind, "comfy")
        nothing = torch.zeros_like(latents)
        return io.NodeOutput(
            with_latents(positive, latents),
            with_latents(negative, latents),
            with_latents(negative, nothing),
            empty_latent(latents),
        )


class DDPMSigmas(io.ComfyNode):
    """Noise levels as RelightVid samples them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_DDPMSigmas",
            display_name="DDPM Sigmas",
            category=CATEGORY_LIGHT,
            description="The noise levels of a DDPM scheduler with leading spacing: times 950, 900, ... 0 in 20 steps.",
            inputs=[
                io.Model.Input("model", tooltip="Whose levels are taken: an SD1.5 or its like."),
                io.Int.Input("steps", default=20, min=1, max=MOST_STEPS, tooltip="Steps."),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="For SamplerCustomAdvanced; sampler ddpm.")],
        )

    @classmethod
    def execute(cls, model: object, steps: int) -> io.NodeOutput:
        check_range(steps, "steps", 1, MOST_STEPS)
        sampling = model.get_model_object("model_sampling")
        if not isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete):
            raise ValueError(
                f"'model' is a {type(model.model).__name__}, which has no table of noise levels as DDPM's schedulers "
                "have. Connect an SD1.5 checkpoint."
            )
        return io.NodeOutput(ddpm_sigmas(sampling, steps))


NODES = [MotionModules, RelightVidConditioning, DDPMSigmas]
