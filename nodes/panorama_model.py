"""Panorama Model and Panorama Views: pictures that go all the way round, from models that draw flat ones."""

from __future__ import annotations

from comfy_api.latest import io

from ..kernels.view_coverage import MOST_VIEWS, NARROWEST, WIDEST, check_coverage, rings
from ..kernels.view_fusion import SMALLEST, Views
from ..patches.panorama_model import METHODS, Panorama, with_panorama
from ..patches.panorama_padding import POLES
from ..patches.panorama_views import PanoramaGuider
from .panorama_vae import check_vae
from .sockets import CATEGORY_PANORAMA, check_choice, check_range

LARGEST_VIEW = 512


class PanoramaModel(io.ComfyNode):
    """Lets a model draw pictures whose left and right edges meet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_PanoramaModel",
            display_name="Panorama Model",
            category=CATEGORY_PANORAMA,
            description=(
                "The left edge continues the right one: by circular padding in a UNet, by other ways in transformers. "
                "Without training; for pictures and videos."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled; LoRAs and other patches may follow."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip=(
                        "automatic: circular padding for UNets (SD1.5, SDXL), a rotary wrap for Wan, Flux, Chroma, "
                        "Qwen-Image and HunyuanVideo, rolling for others: the latent is turned anew at every step."
                    ),
                ),
                io.Combo.Input(
                    "poles",
                    options=list(POLES),
                    default=POLES[0],
                    tooltip=(
                        "Beyond the top and bottom. as trained: nothing, as models know it. over the pole: the picture "
                        "from the other side, with circular padding only."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    tooltip="1: the edges meet. Lower: what is beyond them counts for less. 0: off.",
                ),
                io.Float.Input(
                    "start_percent", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="From here: 0 is the first step."
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="To here: 1 is the last step; ending earlier leaves a seam in fine detail.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For any sampler; decode with Panorama VAE Decode.")
            ],
        )

    @classmethod
    def execute(
        cls, model: object, method: str, poles: str, strength: float, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        check_choice(method, "method", METHODS)
        check_choice(poles, "poles", POLES)
        for name, value in (
            ("strength", strength),
            ("start_percent", start_percent),
            ("end_percent", end_percent),
        ):
            check_range(value, name, 0.0, 1.0)
        return io.NodeOutput(with_panorama(model, Panorama(method, poles, strength, start_percent, end_percent)))


class PanoramaViews(io.ComfyNode):
    """Samples a panorama by perspective views of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_PanoramaViews",
            display_name="Panorama Views",
            category=CATEGORY_PANORAMA,
            description=(
                "Perspective views of one panorama, denoised together and fused on the sphere at every step, so that "
                "things above and below are not stretched. For any model."
            ),
            inputs=[
                io.Model.Input("model", tooltip="One that draws flat pictures or videos; not from Panorama Model."),
                io.Conditioning.Input("positive", tooltip="What every view shows."),
                io.Conditioning.Input("negative", tooltip="What no view shows."),
                io.Float.Input("cfg", default=7.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="As in KSampler."),
                io.Int.Input(
                    "count",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="Views in every ring. 0: as many in each as the overlap asks for, fewer near the poles.",
                ),
                io.Float.Input(
                    "fov",
                    default=90.0,
                    min=NARROWEST,
                    max=WIDEST,
                    step=1.0,
                    round=False,
                    tooltip="Degrees that a view is wide and high.",
                ),
                io.Float.Input(
                    "overlap",
                    default=0.25,
                    min=0.0,
                    max=0.9,
                    step=0.05,
                    round=False,
                    tooltip="The share of a view that the next one sees, too, where count or pitches are left to it.",
                ),
                io.String.Input(
                    "pitches",
                    default="",
                    tooltip=(
                        'Degrees upwards of each ring of views, such as "60, 0, -60". Empty: as the overlap asks for.'
                    ),
                ),
                io.Int.Input(
                    "view_columns",
                    default=0,
                    min=0,
                    max=LARGEST_VIEW,
                    step=8,
                    tooltip=(
                        "Columns of a view's latent: an eighth of the pixels that the model likes best. 0: a quarter "
                        "of the panorama's at 90 degrees."
                    ),
                ),
                io.Int.Input(
                    "views_at_a_time",
                    default=4,
                    min=1,
                    max=MOST_VIEWS,
                    tooltip="Views in one call of the model; fewer need less memory.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=(
                        "Of the model: views are fused as pictures, which keeps them sharp and costs a decoding and an "
                        "encoding of every view at every step. Without it latents are."
                    ),
                ),
            ],
            outputs=[
                io.Guider.Output(
                    display_name="guider", tooltip="For SamplerCustomAdvanced, with a latent twice as wide as high."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, count: int, fov: float, overlap: float, pitches: str) -> bool | str:
        """Says before anything runs that views do not see everything; linked values are not known yet."""
        if None in (count, fov, overlap, pitches):
            return True
        try:
            views_of(count, fov, overlap, pitches)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: object,
        positive: list,
        negative: list,
        cfg: float,
        count: int,
        fov: float,
        overlap: float,
        pitches: str,
        view_columns: int,
        views_at_a_time: int,
        vae: object | None = None,
    ) -> io.NodeOutput:
        check_range(view_columns, "view_columns", 0, LARGEST_VIEW)
        if 0 < view_columns < SMALLEST:
            raise ValueError(f"'view_columns' is {view_columns}; expected 0, or at least {SMALLEST}.")
        check_range(views_at_a_time, "views_at_a_time", 1, MOST_VIEWS)
        yaw, pitch = views_of(count, fov, overlap, pitches)
        if vae is not None:
            check_vae(vae, "decode")
        guider = PanoramaGuider(model, Views(yaw, pitch, fov, view_columns, views_at_a_time), vae)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)


def views_of(count: int, fov: float, overlap: float, pitches: str) -> tuple:
    """yaw and pitch of the views that the widgets ask for.

    Raises:
        ValueError: what cannot be read or is out of its range, or views that do not see everything.
    """
    check_range(count, "count", 0, 64)
    check_range(fov, "fov", NARROWEST, WIDEST)
    check_range(overlap, "overlap", 0.0, 0.9)
    try:
        rows = tuple(float(part) for part in pitches.replace(",", " ").split())
    except ValueError:
        raise ValueError(
            f"'pitches' is {pitches!r}; expected degrees with commas between, such as \"60, 0, -60\"."
        ) from None
    for row in rows:
        check_range(row, "pitches", -90.0, 90.0)
    try:
        yaw, pitch = rings(count, fov, overlap, rows)
        check_coverage(yaw, pitch, fov)
    except ValueError as error:
        raise ValueError(f"Panorama Views: {error}.") from None
    return yaw, pitch


NODES = [PanoramaModel, PanoramaViews]
