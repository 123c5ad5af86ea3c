"""Suggest Points: places that look alike in two pictures, found by a UNet's features or by classic keypoints."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..kernels.line_art import METHODS, brightness, found_lines, is_line_art, lines_of_line_art
from ..kernels.match_picture import match_picture
from ..kernels.matched_points import MOST_PAIRS, MatchedPoints, Pairs
from ..kernels.point_matching import match_features, match_keypoints
from ..networks.manga_ninja import MangaNinja
from ..patches.manga_ninja import MangaNinjaModelError, checked_unet, text_width
from ..patches.picture_features import FeaturesError, check_inputs, picture_features
from .sockets import (
    CATEGORY_COLOUR,
    PnMangaNinja,
    PnPoints,
    check_choice,
    check_mask,
    check_one_picture,
    check_pictures,
    check_range,
    check_sides,
    encoded,
)

AUTO, FEATURES, KEYPOINTS = "auto", "features of a UNet", "keypoints"
CHOICES = (AUTO, KEYPOINTS, FEATURES)
AS_THEY_ARE, LINES = "pictures as they are", "lines of both"
COMPARED = (AUTO, AS_THEY_ARE, LINES)


class SuggestPoints(io.ComfyNode):
    """Pairs of points that are each other's best match."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_SuggestPoints",
            display_name="Suggest Points",
            category=CATEGORY_COLOUR,
            description=(
                "Finds places that belong together in a reference and a target, for MangaNinja: only pairs that choose "
                "each other, surest first. Look at the preview; Match Points is there for what it gets wrong."
            ),
            inputs=[
                io.Image.Input("reference", tooltip="The picture that colours come from: one."),
                io.Image.Input("target", tooltip="The picture that is to be coloured; each frame of a clip by itself."),
                io.Combo.Input(
                    "method",
                    options=list(CHOICES),
                    default=AUTO,
                    tooltip=(
                        "keypoints: corners and spots that look the same, any picture, no model. features of a UNet: "
                        "places that mean the same, of two coloured pictures. auto: features where a model is "
                        "connected and lines are not compared, else keypoints."
                    ),
                ),
                io.Combo.Input(
                    "compared",
                    options=list(COMPARED),
                    default=AUTO,
                    tooltip=(
                        "lines of both: a coloured picture is compared by its lines, as it must be with line art. "
                        "auto: that where one of the two is line art."
                    ),
                ),
                io.Int.Input(
                    "most", default=8, min=1, max=MOST_PAIRS, tooltip="Pairs at most; MangaNinja is used to few."
                ),
                io.Float.Input(
                    "confidence",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="Pairs that are less sure are left out. Fewer than most: lower this.",
                ),
                io.Float.Input(
                    "spacing",
                    default=0.08,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="How far points stay from each other, in parts of the longer side.",
                ),
                io.Model.Input(
                    "model", optional=True, tooltip="For features: MangaNinja's reference UNet, or another SD1.5."
                ),
                PnMangaNinja.Input(
                    "manga_ninja", optional=True, tooltip="The same from MangaNinja Loader, in place of model."
                ),
                io.Vae.Input("vae", optional=True, tooltip="For features: that of the model."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where in the reference points are wanted, a character say."
                ),
            ],
            outputs=[
                PnPoints.Output(display_name="points", tooltip="For MangaNinja Apply; of a clip for each frame."),
                io.Image.Output(display_name="preview", tooltip="Both pictures with the numbered points."),
            ],
        )

    @classmethod
    def execute(
        cls,
        reference: Tensor,
        target: Tensor,
        method: str,
        compared: str,
        most: int,
        confidence: float,
        spacing: float,
        model: object | None = None,
        manga_ninja: MangaNinja | None = None,
        vae: object | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        check_choice(method, "method", CHOICES)
        check_choice(compared, "compared", COMPARED)
        check_range(most, "most", 1, MOST_PAIRS)
        check_range(confidence, "confidence", 0.0, 1.0)
        check_range(spacing, "spacing", 0.0, 1.0)
        known, asked = check_one_picture(reference, "reference"), check_pictures(target, "target")
        mask = check_mask(mask, known, "reference")
        by_lines = compared == LINES or (compared == AUTO and (is_line_art(known[0]) or is_line_art(asked[0])))
        if by_lines:
            known_seen, asked_seen = shown_as_lines(known, "reference"), shown_as_lines(asked, "target")
        else:
            known_seen, asked_seen = known, asked
        unet = chosen_unet(model, manga_ninja)
        if method == FEATURES or (method == AUTO and unet is not None and not by_lines):
            find = feature_matcher(unet, vae, known_seen, asked_seen)
        else:
            grey = brightness(known_seen)[0, 0]

            def find(frame: int, **limits) -> Pairs:
                return match_keypoints(grey, brightness(asked_seen[frame : frame + 1])[0, 0], **limits)

        progress = comfy.utils.ProgressBar(asked.shape[0])
        frames, drawn = [], []
        for frame, picture in enumerate(asked):
            comfy.model_management.throw_exception_if_processing_interrupted()
            limits = {"most": most, "least": confidence, "spacing": spacing}
            frames.append(find(frame, mask=None if mask is None else mask[0], **limits))
            drawn.append(match_picture(known[0], picture, frames[-1]))
            progress.update(1)
        preview = torch.cat(drawn).to(comfy.model_management.intermediate_device())
        return io.NodeOutput(MatchedPoints(tuple(frames)), preview)


def shown_as_lines(pictures: Tensor, name: str) -> Tensor:
    """White lines on black of pictures [B, H, W, 3]: their strokes where the first is line art, else their edges.

    A blank frame of a clip of line art has no lines.

    Raises:
        ValueError: line art without lines in any frame.
    """
    if not is_line_art(pictures[0]):
        return found_lines(pictures, METHODS[0])[..., None].expand(-1, -1, -1, 3)
    lines, blank = torch.zeros(pictures.shape[:3]), []
    for number in range(len(pictures)):
        try:
            lines[number] = lines_of_line_art(pictures[number : number + 1])[0]
        except ValueError as error:
            blank.append(error)
    if len(blank) == len(pictures):
        raise ValueError(
            f"'{name}' looks like line art, but {blank[0]} Connect a picture with lines, or set 'compared' to "
            f"{AS_THEY_ARE}."
        )
    return lines[..., None].expand(-1, -1, -1, 3)


def chosen_unet(model: object | None, manga_ninja: MangaNinja | None) -> object | None:
    """The MODEL whose features are taken, or None.

    Raises:
        ValueError: both are connected, or something else is.
    """
    if manga_ninja is None:
        return model
    if model is not None:
        raise ValueError(
            "'model' and 'manga_ninja' are both connected; features come from one. Disconnect one of them."
        )
    if not isinstance(manga_ninja, MangaNinja):
        raise ValueError(f"'manga_ninja' holds a {type(manga_ninja).__name__}; connect MangaNinja Loader.")
    return manga_ninja.reference


def feature_matcher(unet: object | None, vae: object | None, known: Tensor, asked: Tensor) -> Callable[..., Pairs]:
    """A function that matches the reference [1, H, W, 3] with one of the frames [B, H, W, 3].

    Raises:
        ValueError: something is not connected, or does not fit.
    """
    missing = [name for name, some in (("model (or manga_ninja)", unet), ("vae", vae)) if some is None]
    if missing:
        raise ValueError(
            f"The {FEATURES} need {' and '.join(missing)}. Connect a UNet of SD1.5's kind, such as MangaNinja's "
            f"reference_unet, and its VAE, or set 'method' to {KEYPOINTS}."
        )
    try:
        checked_unet(unet)
        check_inputs(unet)
        check_sides(known, "reference")
        check_sides(asked, "target")
    except (MangaNinjaModelError, FeaturesError, ValueError) as error:
        raise ValueError(f"{error} Or set 'method' to {KEYPOINTS}, which wants none of this.") from None

    def features(picture: Tensor) -> Tensor:
        latents = encoded(vae, picture, unet)
        try:
            return picture_features(unet, latents, text_width(unet))[0]
        except FeaturesError as error:
            raise ValueError(str(error)) from None

    first = features(known)

    def find(frame: int, **limits) -> Pairs:
        return match_features(first, features(asked[frame : frame + 1]), **limits)

    return find


NODES = [SuggestPoints]
