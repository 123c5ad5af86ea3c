"""Panorama Preview: a look round inside a panorama, and a file that viewers open as one."""

from __future__ import annotations

import io as streams
import json
import logging
import secrets
from fractions import Fraction
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import numpy
from comfy.cli_args import args
from comfy_api.latest import InputImpl, Types, io
from PIL import Image, PngImagePlugin
from torch import Tensor

from ..kernels.panorama_tags import gpano_xmp, tag_jpeg, tag_mp4, tag_png
from .paths import check_prefix, output_targets, written_together
from .sockets import CATEGORY_PANORAMA, check_choice, check_pictures, check_range

FORMATS = ("automatic", ".jpg", ".png", ".mp4", "preview only")
SLOWEST, FASTEST = 0.1, 240.0
LEAST_HEIGHT = 2

# What the browser is sent where no file is saved that it could show.
_WIDEST_PICTURE, _WIDEST_FRAME = 8192, 2048
_SAVED_QUALITY, _SHOWN_QUALITY = 95, 90
_LONGEST_EXIF = 65533 - 6


class PanoramaPreview(io.ComfyNode):
    """Shows a panorama from within and saves it with the tags of a panorama."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_PanoramaPreview",
            display_name="Panorama Preview",
            category=CATEGORY_PANORAMA,
            description=(
                "A look round inside a panorama, still or moving, by mouse and keys; and a file that photo viewers and "
                "players open as a 360-degree picture or video."
            ),
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="Equirectangular, twice as wide as high: one panorama, or the frames of a 360-degree clip.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="panoramas/panorama",
                    tooltip=(
                        "File name in ComfyUI's output folder, with a sub-folder if you like; a number is added so "
                        "that nothing is overwritten. %width%, %date:yyyy-MM-dd% and the like work as in Save Image."
                    ),
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    default=FORMATS[0],
                    tooltip=(
                        "automatic: one picture as .jpg, several as frames of one .mp4. .jpg and .png save each "
                        "picture for itself; .png is lossless and keeps the workflow. preview only: nothing is saved."
                    ),
                ),
                io.Float.Input(
                    "frame_rate",
                    default=16.0,
                    min=SLOWEST,
                    max=FASTEST,
                    step=0.1,
                    tooltip="Frames per second, of the .mp4 and of playing here.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str, format: str, frame_rate: float) -> bool | str:
        """Says before anything runs that the file cannot be named or written; linked inputs are not known yet."""
        try:
            if filename_prefix is not None:
                check_prefix(filename_prefix)
            if format is not None:
                check_choice(format, "format", FORMATS)
            if frame_rate is not None:
                check_range(frame_rate, "frame_rate", SLOWEST, FASTEST)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, images: Tensor, filename_prefix: str, format: str, frame_rate: float) -> io.NodeOutput:
        check_choice(format, "format", FORMATS)
        check_range(frame_rate, "frame_rate", SLOWEST, FASTEST)
        pictures = check_panoramas(images)
        count, height, width = pictures.shape[:3]
        if format == FORMATS[0]:
            format = ".jpg" if count == 1 else ".mp4"
        if format == ".mp4" and height % 2:
            raise ValueError(
                f"'images' are {width}x{height} pixels; a video needs an even height. Scale them to "
                f"{2 * height + 2}x{height + 1}, or choose .jpg or .png as 'format'."
            )
        graph = _graph(cls.hidden)
        shown = {}
        if format in (".jpg", ".png"):
            entries = _save_pictures(pictures, filename_prefix, format, graph)
        else:
            if format == ".mp4":
                shown["videos"] = [_save_video(pictures, filename_prefix, frame_rate, graph)]
            entries = _show(pictures)
        size = {"width": width, "height": height, "frame_rate": frame_rate}
        # Under "images" the page would show them a second time, flat.
        return io.NodeOutput(ui=shown | {"panorama": [entry | size for entry in entries]})


def check_panoramas(images: Tensor) -> Tensor:
    """The pictures of an IMAGE, each equirectangular, float32 [B, H, W, 3].

    Raises:
        ValueError: no batch of finite images, one row, or another shape than twice as wide as high.
    """
    pictures = check_pictures(images, "images")
    height, width = pictures.shape[1:3]
    if height < LEAST_HEIGHT:
        raise ValueError(
            f"'images' are {width}x{height} pixels, a single row; a panorama has rows from the zenith to the nadir. "
            "Connect a whole one, such as 1024x512."
        )
    if width != 2 * height:
        raise ValueError(
            f"'images' are {width}x{height} pixels; a panorama of everything around is twice as wide as high. Connect "
            f"a whole one (360 by 180 degrees), or scale it, for instance to {2 * height}x{height}."
        )
    return pictures


def _graph(hidden: object) -> dict:
    """What SaveImage writes into its files: the prompt and the workflow, unless the host was told not to."""
    if args.disable_metadata or hidden is None:
        return {}
    found = {"prompt": hidden.prompt} if hidden.prompt else {}
    return found | (hidden.extra_pnginfo or {})


def _bytes(picture: Tensor) -> Image.Image:
    levels = picture.cpu().numpy() * 255.0
    return Image.fromarray(numpy.clip(levels.round(), 0, 255).astype(numpy.uint8))


def _save_pictures(pictures: Tensor, prefix: str, ending: str, graph: dict) -> list[dict]:
    """Writes each picture to a file of its own; the host's entries of the files."""
    count, height, width = pictures.shape[:3]
    xmp = gpano_xmp(width, height)
    folder, names, subfolder = output_targets(prefix, count, width, height)
    names = [name + ending for name in names]
    progress = comfy.utils.ProgressBar(count)
    coded, tag = (_png, tag_png) if ending == ".png" else (_jpeg, tag_jpeg)
    with written_together([folder / name for name in names]) as temporary:
        for picture, path in zip(pictures, temporary, strict=True):
            comfy.model_management.throw_exception_if_processing_interrupted()
            path.write_bytes(tag(coded(_bytes(picture), graph), xmp))
            progress.update(1)
    return [{"filename": name, "subfolder": subfolder, "type": "output"} for name in names]


def _png(image: Image.Image, graph: dict) -> bytes:
    texts, stream = PngImagePlugin.PngInfo(), streams.BytesIO()
    for name, value in graph.items():
        texts.add_text(name, json.dumps(value))
    image.save(stream, "PNG", pnginfo=texts, compress_level=4)
    return stream.getvalue()


def _jpeg(image: Image.Image, graph: dict) -> bytes:
    """A JPEG with colours at full size; the graph in the Exif tags that the host uses in WebP files."""
    exif, stream = image.getexif(), streams.BytesIO()
    for tag, (name, value) in zip((0x0110, 0x010F, 0x010E, 0x010D), graph.items(), strict=False):
        exif[tag] = f"{name}:{json.dumps(value)}"
    written = exif.tobytes() if graph else b""
    if len(written) > _LONGEST_EXIF:
        logging.warning("Panorama Preview: this workflow is too large for a .jpg and is left out; .png keeps it.")
        written = b""
    image.save(stream, "JPEG", quality=_SAVED_QUALITY, subsampling=0, exif=written)
    return stream.getvalue()


def _save_video(pictures: Tensor, prefix: str, frame_rate: float, graph: dict) -> dict:
    """Writes the pictures as frames of one video; the host's entry of the file."""
    height, width = pictures.shape[1:3]
    folder, (name,), subfolder = output_targets(prefix, 1, width, height)
    video = InputImpl.VideoFromComponents(
        Types.VideoComponents(images=pictures, audio=None, frame_rate=Fraction(frame_rate).limit_denominator(1000))
    )
    with written_together([folder / f"{name}.mp4"]) as (path,):
        # The host tells formats by endings, which unfinished files do not have.
        encoded = path.with_suffix(".mp4")
        try:
            video.save_to(
                str(encoded),
                format=Types.VideoContainer.MP4,
                codec=Types.VideoCodec.H264,
                metadata=graph or None,
            )
            path.write_bytes(tag_mp4(encoded.read_bytes()))
        finally:
            encoded.unlink(missing_ok=True)
    return {"filename": f"{name}.mp4", "subfolder": subfolder, "type": "output"}


def _show(pictures: Tensor) -> list[dict]:
    """Writes what the browser shows into the temporary folder, smaller where it is large; the host's entries."""
    widest = _WIDEST_PICTURE if len(pictures) == 1 else _WIDEST_FRAME
    folder, token = Path(folder_paths.get_temp_directory()), secrets.token_hex(6)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"papernodes_panorama_{token}_{number:05}.jpg" for number in range(len(pictures))]
    progress = comfy.utils.ProgressBar(len(names))
    with written_together([folder / name for name in names]) as temporary:
        for picture, path in zip(pictures, temporary, strict=True):
            comfy.model_management.throw_exception_if_processing_interrupted()
            image = _bytes(picture)
            if image.width > widest:
                # By areas: other filters would look beyond the edges, which meet.
                image = image.resize((widest, widest // 2), Image.Resampling.BOX)
            stream = streams.BytesIO()
            image.save(stream, "JPEG", quality=_SHOWN_QUALITY, subsampling=0)
            path.write_bytes(stream.getvalue())
            progress.update(1)
    return [{"filename": name, "subfolder": "", "type": "temp"} for name in names]


NODES = [PanoramaPreview]
