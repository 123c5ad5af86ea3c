"""Imagine360 Conditioning and Unpack: a clip as the start of a panorama, and the panorama out of what was sampled."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..networks.sam_encoder import encode_pictures
from ..patches.imagine360 import (
    ANCHOR_FEATURES,
    CAMERAS,
    DRAWS,
    FPS,
    FRAME_FEATURES,
    PANORAMA,
    PITCH,
    POSITION,
    VIEWS,
    Draws,
)
from ..patches.imagine360_conditioning import FACTOR, outpainting, tagged
from ..patches.panorama_latent import PanoramaNoise, pack, unpack
from .imagine360_inputs import (
    FIELDS_OF_VIEW,
    FRAME_STEP,
    HEIGHT_STEP,
    HEIGHTS,
    MOST_FRAMES,
    RINGS,
    check_height,
    check_video,
    choose_frames,
    read_angle,
    view_cameras,
)
from .sockets import CATEGORY_PANORAMA, MAX_SEED, PnImageEncoder, check_image_encoder, check_range

STEEPEST, MOST_TURNED = 90.0, 180.0


class Imagine360Conditioning(io.ComfyNode):
    """A clip laid into a panorama that is to be completed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        low, high = FIELDS_OF_VIEW
        return io.Schema(
            node_id="PaperNodes_Imagine360Conditioning",
            display_name="Imagine360 Conditioning",
            category=CATEGORY_PANORAMA,
            description="Lays a video into a panorama, for Imagine360 to complete: conditionings, latent and noise.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="What is to be seen all around, from SD2.1's text encoder."),
                io.Conditioning.Input("negative", tooltip="What is not. Published: 'noisy, ugly, nude, watermark'."),
                io.Vae.Input("vae", tooltip="SD2.1's or SD1.5's; 4 channels, 8 times smaller."),
                io.Image.Input("video", tooltip="What a camera saw; square clips are what Imagine360 was trained on."),
                io.String.Input(
                    "pitch",
                    default="0",
                    tooltip=(
                        "How far the camera looks up, in degrees, over the video's frames: a number, key frames such "
                        "as '0:-10, 60:15', or pitch of Elevation Track."
                    ),
                ),
                io.Int.Input(
                    "frames",
                    default=32,
                    min=1,
                    max=MOST_FRAMES,
                    tooltip=(
                        "Of the panorama: every k-th of the video, k as large as leaves that many. With an image "
                        f"encoder a multiple of {FRAME_STEP}; published: 32."
                    ),
                ),
                io.Int.Input(
                    "panorama_height",
                    default=512,
                    min=HEIGHTS[0],
                    max=HEIGHTS[1],
                    step=HEIGHT_STEP,
                    tooltip="Pixels; it is twice as wide. Published: 512. Views are half as high.",
                ),
                io.Float.Input(
                    "fov",
                    default=90.0,
                    min=low,
                    max=high,
                    step=1.0,
                    round=False,
                    tooltip="Of the video, from its left to its right, in degrees. Published: always 90.",
                ),
                io.Combo.Input(
                    "view_ring",
                    options=list(RINGS),
                    default=next(iter(RINGS)),
                    tooltip="Which views of the panorama are sampled along with it.",
                ),
                io.Float.Input(
                    "view_fov",
                    default=90.0,
                    min=low,
                    max=high,
                    step=1.0,
                    round=False,
                    tooltip="Of each view, in degrees; together they must see everything. Published: 90.",
                ),
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=1.0,
                    max=60.0,
                    step=1.0,
                    round=False,
                    tooltip="The network is told so many frames a second; more gives slower motion. Published: 8.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Of the noise.",
                ),
                io.Float.Input(
                    "antipodal_probability",
                    default=0.4,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    tooltip=(
                        "How often, at each of 7 places in each step, panorama and views look at what lies opposite "
                        "instead of at the same place. Published: 0.4."
                    ),
                ),
                io.Float.Input(
                    "token_noise",
                    default=0.1,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="Added to the image encoder's tokens in each step. Published: 0.1.",
                ),
                io.Int.Input(
                    "draw_seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    tooltip="Of the last two, apart from that of the noise, so that either can be kept.",
                ),
                PnImageEncoder.Input(
                    "image_encoder",
                    optional=True,
                    tooltip="From Imagine360 Loader. Without it the network sees the video in the latents alone.",
                ),
                io.String.Input(
                    "roll",
                    default="0",
                    optional=True,
                    tooltip=(
                        "How far the camera is turned clockwise, in degrees, over the video's frames: the panorama is "
                        "upright all the same. From Elevation Track, or 0, as published."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="For CFGGuider."),
                io.Conditioning.Output(display_name="negative", tooltip="For CFGGuider."),
                io.Latent.Output(
                    display_name="latent", tooltip="Empty: the panorama and its views, packed. For the sampler."
                ),
                io.Noise.Output(
                    display_name="noise", tooltip="The same on the panorama and on its views. For the sampler."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, pitch: str, panorama_height: int, roll: str = "0") -> bool | str:
        """Says before anything runs that a schedule or a size cannot be; linked inputs are not known yet."""
        try:
            for text, name, most in ((pitch, "pitch", STEEPEST), (roll, "roll", MOST_TURNED)):
                if text is not None:
                    read_angle(text, name, most)
            if panorama_height is not None:
                check_height(panorama_height)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        positive: list,
        negative: list,
        vae: object,
        video: Tensor,
        pitch: str,
        frames: int,
        panorama_height: int,
        fov: float,
        view_ring: str,
        view_fov: float,
        fps: float,
        seed: int,
        antipodal_probability: float,
        token_noise: float,
        draw_seed: int,
        image_encoder: object = None,
        roll: str = "0",
    ) -> io.NodeOutput:
        check_height(panorama_height)
        for value, name, low, high in (
            (fov, "fov", *FIELDS_OF_VIEW),
            (view_fov, "view_fov", *FIELDS_OF_VIEW),
            (fps, "fps", 1.0, 60.0),
            (antipodal_probability, "antipodal_probability", 0.0, 1.0),
            (token_noise, "token_noise", 0.0, 1.0),
        ):
            check_range(value, name, low, high)
        encoder = None if image_encoder is None else check_image_encoder(image_encoder)
        cameras = view_cameras(view_ring, view_fov)
        clip = check_video(video, fov)
        chosen = choose_frames(clip, frames, encoder is not None)
        tilt, turn = (
            read_angle(text, name, most).at(chosen.float(), length=len(clip))
            for text, name, most in ((pitch, "pitch", STEEPEST), (roll, "roll", MOST_TURNED))
        )
        clip = clip[chosen]

        report = each_part(len(clip) * (1 if encoder is None else 3))
        laid = outpainting(
            clip, tilt, turn, fov, cameras, panorama_height, lambda pictures: latents_of(vae, pictures), on_part=report
        )
        values = {
            PANORAMA: laid.panorama,
            VIEWS: laid.views,
            POSITION: laid.positions,
            PITCH: tilt[None],
            CAMERAS: cameras,
            DRAWS: Draws(draw_seed, antipodal_probability, token_noise),
            FPS: float(fps),
        }
        if encoder is not None:
            values[ANCHOR_FEATURES] = encode_pictures(encoder, laid.anchors, on_part=report)[None]
            values[FRAME_FEATURES] = encode_pictures(encoder, clip, on_part=report)[None]
        empty = (torch.zeros_like(part[:, 1:]) for part in (laid.panorama, laid.views))
        return io.NodeOutput(
            tagged(positive, values), tagged(negative, values), pack(*empty), PanoramaNoise(seed, cameras)
        )


class Imagine360Unpack(io.ComfyNode):
    """The panorama and its views, as batches of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_Imagine360Unpack",
            display_name="Imagine360 Unpack",
            category=CATEGORY_PANORAMA,
            description="Takes what Imagine360 sampled apart: the panorama, and its views.",
            inputs=[io.Latent.Input("latent", tooltip="The sampler's output, not its denoised_output.")],
            outputs=[
                io.Latent.Output(display_name="panorama", tooltip="Its frames as a batch; for Panorama VAE Decode."),
                io.Latent.Output(
                    display_name="views", tooltip="All frames of the first view, then of the next; for VAE Decode."
                ),
            ],
        )

    @classmethod
    def execute(cls, latent: dict) -> io.NodeOutput:
        try:
            parts = unpack(latent)
        except ValueError as error:
            raise ValueError(
                f"'latent' is none that Imagine360 sampled: {error}. Connect the output of the sampler that has "
                "Imagine360 Conditioning's latent."
            ) from None
        # What else a LATENT may carry, such as a mask, is for the packed one.
        return io.NodeOutput(*({"samples": part.transpose(1, 2).flatten(0, 1).contiguous()} for part in parts))


def latents_of(vae: object, pictures: Tensor) -> Tensor:
    """Latents [B, 4, H / 8, W / 8] of pictures [B, H, W, 3].

    Raises:
        ValueError: a VAE whose latents are others.
    """
    latents = vae.encode(pictures)
    size = [len(pictures), 4, *(side // FACTOR for side in pictures.shape[1:3])]
    if list(latents.shape) != size:
        raise ValueError(
            f"'vae' gives latents of shape {list(latents.shape)}; expected {size}. Connect the VAE of SD2.1 or SD1.5."
        )
    return latents


def each_part(total: int) -> Callable[[int], None]:
    """What to call with a number of pictures before they are worked on: progress in the graph, and whether to stop."""
    progress, begun = comfy.utils.ProgressBar(total), [0]

    def report(pictures: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update_absolute(begun[0], total)
        begun[0] += pictures

    return report


NODES = [Imagine360Conditioning, Imagine360Unpack]
