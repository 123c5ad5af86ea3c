"""NOISE to LATENT and back, and two NOISE into one: these work with any NOISE, warped or not."""

from __future__ import annotations

import comfy.sample
from comfy_api.latest import io
from torch import Tensor

from ..kernels.noise_picture import noise_to_picture
from ..patches.latent_layout import BATCH_4D, LAYOUTS_5D, read_layout
from ..patches.noise_objects import (
    NORMALISE,
    LatentNoise,
    MixedNoise,
    map_parts,
    normalise_frames,
    scale_for_eps_sampler,
)
from .sockets import (
    CATEGORY_FLOW,
    MAX_SEED,
    batch_4d_input,
    check_choice,
    check_noise,
    check_samples,
    layout_5d_input,
    read_schedule,
)


class NoiseToLatent(io.ComfyNode):
    """Asks a NOISE for its noise and hands it out as a LATENT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_NoiseToLatent",
            display_name="Noise To Latent",
            category=CATEGORY_FLOW,
            description=(
                "The noise that a sampler would get for a latent, as a LATENT to save, look at or feed to another "
                "pack's sampler. With model and sigmas connected it is scaled for KSamplerAdvanced with add_noise "
                "disabled."
            ),
            inputs=[
                io.Noise.Input("noise", tooltip="Warp Noise, RandomNoise or any other NOISE."),
                io.Latent.Input("latent", tooltip="The latent to be sampled: its shape decides the noise's shape."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip=(
                        "Connect together with sigmas, only for KSamplerAdvanced with add_noise disabled. Models that "
                        "predict noise or velocity (SD1.5, SDXL, AnimateDiff); flow-matching models are refused."
                    ),
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip=(
                        "The sigmas the sampler will run, from BasicScheduler with the same model, scheduler and steps."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="The noise, or noise and picture scaled for the sampler."
                ),
                io.Image.Output(
                    display_name="preview", tooltip="The noise's first three channels as colours, one image a frame."
                ),
            ],
        )

    @classmethod
    def execute(cls, noise: object, latent: dict, model: object = None, sigmas: Tensor = None) -> io.NodeOutput:
        check_noise(noise, "noise")
        samples = check_samples(latent, "latent")
        if (model is None) != (sigmas is None):
            given, missing = ("sigmas", "model") if model is None else ("model", "sigmas")
            raise ValueError(
                f"'{given}' is connected but '{missing}' is not: connect both to scale for KSamplerAdvanced, or none "
                "to get the plain noise."
            )
        latent = latent.copy()
        if model is not None:
            samples = comfy.sample.fix_empty_latent_channels(model, samples)
            latent["samples"] = samples
        result = drawn = noise.generate_noise(latent)
        if model is not None:
            result = scale_for_eps_sampler(model, sigmas, drawn, samples)
        latent["samples"] = result
        return io.NodeOutput(latent, cls._picture(drawn))

    @staticmethod
    def _picture(noise: Tensor) -> Tensor:
        """IMAGE of the first item's frames (of the first picture or video part of a packed latent)."""
        parts = noise.unbind() if getattr(noise, "is_nested", False) else [noise]
        part = next((part for part in parts if part.ndim == 5), parts[0])
        return noise_to_picture(read_layout(part).split(part)[0])


class LatentToNoise(io.ComfyNode):
    """Hands the content of a LATENT to a sampler as its noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_LatentToNoise",
            display_name="Latent To Noise",
            category=CATEGORY_FLOW,
            description="Uses a saved or edited noise latent as the NOISE of SamplerCustomAdvanced.",
            inputs=[
                io.Latent.Input("latent", tooltip="Holds the noise, in the shape of the latent that will be sampled."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Only for samplers that draw more noise while they run (ancestral, SDE).",
                ),
                io.Combo.Input(
                    "normalise",
                    options=list(NORMALISE),
                    default=NORMALISE[0],
                    tooltip=(
                        "Models expect noise of mean 0 and variance 1. 'unit variance per frame' shifts and scales "
                        "every frame so; 'as is' changes nothing."
                    ),
                ),
            ],
            outputs=[io.Noise.Output(display_name="noise", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, latent: dict, seed: int, normalise: str) -> io.NodeOutput:
        check_choice(normalise, "normalise", NORMALISE)
        samples = check_samples(latent, "latent")
        if normalise == "unit variance per frame":
            samples = map_parts(lambda part: normalise_frames(part, read_layout(part)), samples)
        return io.NodeOutput(LatentNoise(samples, seed))


class MixNoise(io.ComfyNode):
    """A NOISE between two others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_MixNoise",
            display_name="Mix Noise",
            category=CATEGORY_FLOW,
            description="Blends two independent noises, frame by frame if wanted, and keeps the variance at 1.",
            inputs=[
                io.Noise.Input("noise_a", tooltip="Used alone where the weight is 0. Its seed is the mix's seed."),
                io.Noise.Input(
                    "noise_b", tooltip="Used alone where the weight is 1. Give it another seed than noise_a."
                ),
                io.String.Input(
                    "weight",
                    default="0.5",
                    tooltip=(
                        "How much of noise_b: 0 to 1. A number, or key frames over the latent's frames such as "
                        "'0:0, 12:1 ease'."
                    ),
                ),
                batch_4d_input(
                    tooltip=(
                        "What a batch of picture latents is: the frames of one clip, or pictures that share one weight."
                    ),
                ),
                layout_5d_input(
                    tooltip="The order of a video latent's axes; auto is right for ComfyUI's own families.",
                ),
            ],
            outputs=[io.Noise.Output(display_name="noise", tooltip="For SamplerCustomAdvanced or Noise To Latent.")],
        )

    @classmethod
    def execute(
        cls,
        noise_a: object,
        noise_b: object,
        weight: str,
        batch_4d: str = BATCH_4D[0],
        layout_5d: str = LAYOUTS_5D[0],
    ) -> io.NodeOutput:
        check_noise(noise_a, "noise_a")
        check_noise(noise_b, "noise_b")
        check_choice(batch_4d, "batch_4d", BATCH_4D)
        check_choice(layout_5d, "layout_5d", LAYOUTS_5D)
        schedule = read_schedule(weight, "weight")
        return io.NodeOutput(MixedNoise(noise_a, noise_b, schedule, batch_4d=batch_4d, layout_5d=layout_5d))


NODES = [NoiseToLatent, LatentToNoise, MixNoise]
