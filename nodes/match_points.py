"""Match Points: places that belong together in two pictures, clicked in an editor, as MangaNinja takes them."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..kernels.flow import Flow
from ..kernels.match_picture import match_picture
from ..kernels.matched_points import MOST_PAIRS, carried_along, parse_points
from .sockets import CATEGORY_COLOUR, PnFlow, PnPoints, check_flow, check_one_picture, check_pictures

NOTHING = '{"version": 1, "points": []}'


class MatchPoints(io.ComfyNode):
    """Pairs of points put by hand on a reference and a target."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_MatchPoints",
            display_name="Match Points",
            category=CATEGORY_COLOUR,
            description=(
                "Which place in the reference belongs to which in the target: click one, then the other. MangaNinja "
                "takes the colours of a place from its partner."
            ),
            inputs=[
                io.Image.Input("reference", tooltip="The picture that colours come from: one."),
                io.Image.Input(
                    "target",
                    tooltip="The picture, or the clip, that is to be coloured. Of a clip its first frame is seen.",
                ),
                io.String.Input(
                    "points",
                    multiline=True,
                    default=NOTHING,
                    tooltip=(
                        f"What the editor writes: up to {MOST_PAIRS} pairs of points as JSON. Empty = none. The help "
                        "page has the format."
                    ),
                ),
                PnFlow.Input(
                    "flow",
                    optional=True,
                    tooltip=(
                        "The target clip's motion: points follow it, and end where they leave the picture or are "
                        "hidden. Without it they are the same in all frames."
                    ),
                ),
            ],
            outputs=[
                PnPoints.Output(
                    display_name="points", tooltip="The pairs: once for all frames, with flow for each frame."
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="Both pictures with the numbered points. With flow one for each frame.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, points: str) -> bool | str:
        """Says before anything runs that points cannot be read, or that one lacks its partner."""
        try:
            if points is not None:
                parse_points(points)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, reference: Tensor, target: Tensor, points: str, flow: Flow | None = None) -> io.NodeOutput:
        reference, target = check_one_picture(reference, "reference"), check_pictures(target, "target")
        found = parse_points(points)
        if flow is not None:
            check_flow(flow)
            if flow.frames != target.shape[0]:
                raise ValueError(
                    f"'flow' goes through {flow.frames} frames and 'target' holds {target.shape[0]}; connect the flow "
                    "of the target clip."
                )
            found = carried_along(found, flow)
        progress, drawn = comfy.utils.ProgressBar(len(found.frames)), []
        for picture, pairs in zip(target, found.frames, strict=False):
            comfy.model_management.throw_exception_if_processing_interrupted()
            drawn.append(match_picture(reference[0], picture, pairs))
            progress.update(1)
        # What the editor shows of pictures that come from no file. Under "images" the page would show them, too.
        shown = {
            name: ui.PreviewImage(seen[:1]).as_dict()["images"]
            for name, seen in (("reference", reference), ("target", target))
        }
        preview = torch.cat(drawn).to(comfy.model_management.intermediate_device())
        return io.NodeOutput(found, preview, ui=shown)


NODES = [MatchPoints]
