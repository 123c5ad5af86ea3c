"""What pictures under several lights tell, and how a relit picture gets its fine detail back."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..kernels.detail_transfer import MODES, detail_transfer
from ..kernels.normals_from_light import SIGMA, normal_picture, normals_from_light
from .sockets import CATEGORY_LIGHT, alike, check_choice, check_mask, check_pictures, check_range

LARGEST_SIGMA, LARGEST_RADIUS = 100.0, 256.0


class NormalsFromLight(io.ComfyNode):
    """A normal map from four lights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def picture(where: str) -> io.Image.Input:
            return io.Image.Input(where, tooltip=f"The scene lit from {'the ' if where[0] in 'lr' else ''}{where}.")

        return io.Schema(
            node_id="PaperNodes_NormalsFromLight",
            display_name="Normals From Light",
            category=CATEGORY_LIGHT,
            description="Estimates a normal map from the same scene lit from the left, the right, above and below.",
            inputs=[
                *(picture(where) for where in ("left", "right", "above", "below")),
                io.Float.Input(
                    "sigma",
                    default=SIGMA,
                    min=0.1,
                    max=LARGEST_SIGMA,
                    step=0.5,
                    round=False,
                    tooltip="Depth of the relief: higher turns normals to the side sooner.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where the object is; elsewhere normals look at the viewer."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="normals", tooltip="Red: to the right, green: up, blue: to the viewer (OpenGL)."
                )
            ],
        )

    @classmethod
    def execute(
        cls, left: Tensor, right: Tensor, above: Tensor, below: Tensor, sigma: float, mask: Tensor | None = None
    ) -> io.NodeOutput:
        check_range(sigma, "sigma", 0.1, LARGEST_SIGMA)
        first = check_pictures(left, "left")
        lit = {"right": right, "above": above, "below": below}
        others = [alike(check_pictures(image, name), name, first, "left") for name, image in lit.items()]
        normals = normals_from_light(first, *others, mask=check_mask(mask, first, "left"), sigma=sigma)
        return io.NodeOutput(normal_picture(normals))


class DetailTransfer(io.ComfyNode):
    """A source's detail on a relit picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_DetailTransfer",
            display_name="Detail Transfer",
            category=CATEGORY_LIGHT,
            description="Gives a relit picture the source's fine detail: print, text and texture stay sharp.",
            inputs=[
                io.Image.Input("relit", tooltip="The picture whose light and colours stay."),
                io.Image.Input("source", tooltip="The picture whose detail is wanted, of the same size."),
                io.Float.Input(
                    "radius",
                    default=4.0,
                    min=0.1,
                    max=LARGEST_RADIUS,
                    step=0.1,
                    round=False,
                    tooltip="Pixels: what is finer comes from the source, what is coarser stays.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=MODES[0],
                    tooltip="multiply: detail fades in shadows, as under real light. add: it is as strong everywhere.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    round=False,
                    tooltip="0: the relit picture itself. 1: the source's detail. Above: more than that.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="White where detail is wanted; everywhere without it."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The relit picture with the source's detail.")],
        )

    @classmethod
    def execute(
        cls, relit: Tensor, source: Tensor, radius: float, mode: str, strength: float, mask: Tensor | None = None
    ) -> io.NodeOutput:
        check_range(radius, "radius", 0.1, LARGEST_RADIUS)
        check_choice(mode, "mode", MODES)
        check_range(strength, "strength", 0.0, 2.0)
        base = check_pictures(relit, "relit")
        detail = alike(check_pictures(source, "source").to(base.device), "source", base, "relit")
        mask = check_mask(mask, base, "relit")
        return io.NodeOutput(detail_transfer(base, detail, radius, mode=mode, strength=strength, mask=mask))


NODES = [NormalsFromLight, DetailTransfer]
