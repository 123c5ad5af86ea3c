"""Line Art: the lines of a picture, for ControlNets and for MangaNinja."""

from __future__ import annotations

import os

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..kernels.line_art import (
    METHODS,
    POLARITIES,
    THRESHOLD,
    control_hint,
    found_lines,
    lines_of_line_art,
    without_faint,
)
from ..networks.line_drawing import FILE, SOURCE, LineDrawingFileError, read_line_drawing
from .sockets import CATEGORY_COLOUR, check_choice, check_pictures, check_range
from .weight_files import read_weights

MODEL_FOLDER = "annotators"
AUTO, NETWORK = "auto", "line drawing network"
CHOICES = (AUTO, NETWORK, *METHODS)
AT_ONCE = 4
"""Pictures that are worked on together."""

WIDEST = 20.0


def find_network() -> str | None:
    """The path of the network's file in models/annotators, or None."""
    known = MODEL_FOLDER in folder_paths.folder_names_and_paths
    names = folder_paths.get_filename_list(MODEL_FOLDER) if known else []
    own = [name for name in names if os.path.basename(name) == FILE]
    return folder_paths.get_full_path(MODEL_FOLDER, own[0]) if own else None


class LineArt(io.ComfyNode):
    """A picture's lines."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_LineArt",
            display_name="Line Art",
            category=CATEGORY_COLOUR,
            description="Finds a picture's lines, white on black, or takes those of a picture that is line art.",
            inputs=[
                io.Image.Input("image", tooltip="A picture, a clip, or line art."),
                io.Combo.Input(
                    "method",
                    options=list(CHOICES),
                    default=AUTO,
                    tooltip=(
                        f"auto: the line drawing network if models/annotators has {FILE}, else difference of "
                        "Gaussians. The last two need no file. Not used for line art."
                    ),
                ),
                io.Boolean.Input(
                    "is_line_art", default=False, tooltip="The picture is line art: its strokes are taken."
                ),
                io.Combo.Input(
                    "polarity",
                    options=list(POLARITIES),
                    default=POLARITIES[0],
                    tooltip="Of line art: whether strokes are dark or light. auto: the ground is most of the picture.",
                ),
                io.Float.Input(
                    "threshold",
                    default=THRESHOLD,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="What is no brighter than this becomes black. MangaNinja's is 0.24.",
                ),
                io.Float.Input(
                    "line_width",
                    default=1.0,
                    min=0.3,
                    max=WIDEST,
                    step=0.1,
                    round=False,
                    tooltip="Pixels, for the methods without a file: less finds finer strokes, more broader ones.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="line_art", tooltip="White lines on black, for a line art ControlNet."),
                io.Image.Output(
                    display_name="control_hint", tooltip="The same from -1 to 1, as MangaNinja's ControlNet wants it."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, image: Tensor, method: str, is_line_art: bool, polarity: str, threshold: float, line_width: float
    ) -> io.NodeOutput:
        check_choice(method, "method", CHOICES)
        check_choice(polarity, "polarity", POLARITIES)
        check_range(threshold, "threshold", 0.0, 1.0)
        check_range(line_width, "line_width", 0.3, WIDEST)
        pictures = check_pictures(image, "image")
        if is_line_art:
            try:
                lines = lines_of_line_art(pictures, polarity)
            except ValueError as error:
                raise ValueError(f"'image': {error} Connect line art, or switch is_line_art off.") from None
        else:
            path = find_network() if method in (AUTO, NETWORK) else None
            if method == NETWORK and path is None:
                folders = " or ".join(folder_paths.get_folder_paths(MODEL_FOLDER))
                raise ValueError(
                    f"'method' {NETWORK} needs {FILE}, which is not in {folders}. Get it from {SOURCE} and put it "
                    f"there, or choose {METHODS[0]}."
                )
            if path is None:
                lines = found_lines(pictures, METHODS[0] if method == AUTO else method, line_width)
            else:
                lines = drawn_lines(pictures, path)
        lines = without_faint(lines, threshold)
        return io.NodeOutput(lines[..., None].expand(-1, -1, -1, 3), control_hint(lines))


def drawn_lines(pictures: Tensor, path: str) -> Tensor:
    """Lines [B, H, W] of pictures [B, H, W, 3] by the network of a file.

    Raises:
        ValueError: the file is another one.
    """
    name = os.path.basename(path)
    try:
        network = read_line_drawing(name, read_weights(path, name, "method", SOURCE))
    except LineDrawingFileError as error:
        raise ValueError(f"'method': {error}") from None
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    patcher = comfy.model_patcher.ModelPatcher(network, device, offload)
    height, width = pictures.shape[1:3]
    comfy.model_management.load_models_gpu([patcher], memory_required=AT_ONCE * height * width * 64 * 4 * 4)
    progress, found = comfy.utils.ProgressBar(pictures.shape[0]), []
    for part in pictures.split(AT_ONCE):
        comfy.model_management.throw_exception_if_processing_interrupted()
        found.append(network.lines(part.to(device)).to(pictures.device))
        progress.update(part.shape[0])
    return torch.cat(found)


NODES = [LineArt]
