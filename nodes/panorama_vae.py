"""Panorama VAE Encode and Decode: pictures that go all the way round, without a seam, whole or in tiles."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ..kernels.round_tiles import in_round_tiles
from .sockets import CATEGORY_PANORAMA, check_pictures, check_range, check_samples

COLUMNS = 4
"""Latent columns that Imagine360 decodes beyond either edge."""

MOST_COLUMNS, LARGEST_TILE = 64, 4096


def _inputs() -> list:
    return [
        io.Int.Input(
            "columns",
            default=COLUMNS,
            min=0,
            max=MOST_COLUMNS,
            tooltip="Columns of the latent that are continued beyond either edge and cut off again. 0: as without.",
        ),
        io.Int.Input(
            "tile",
            default=0,
            min=0,
            max=LARGEST_TILE,
            step=32,
            tooltip="Pixels of a tile, for less memory; tiles go round the edge, too. 0: in one piece.",
        ),
        io.Int.Input("overlap", default=64, min=0, max=LARGEST_TILE, step=8, tooltip="Pixels over which tiles fade."),
    ]


class PanoramaVAEEncode(io.ComfyNode):
    """Pixels to latents, the left edge seeing the right one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_PanoramaVAEEncode",
            display_name="Panorama VAE Encode",
            category=CATEGORY_PANORAMA,
            description="Encodes a panorama or its frames so that the latent goes on from its right edge to its left.",
            inputs=[
                io.Image.Input("pixels", tooltip="A panorama, or the frames of a video of one."),
                io.Vae.Input("vae", tooltip="Of the model that will sample; for pictures or for videos."),
                *_inputs(),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="As VAE Encode gives it, without a seam.")],
        )

    @classmethod
    def execute(cls, pixels: Tensor, vae: object, columns: int, tile: int, overlap: int) -> io.NodeOutput:
        pictures = check_pictures(pixels, "pixels")
        unit = check_vae(vae, "encode")
        height, width = pictures.shape[1:3]
        if height % unit or width % unit:
            raise ValueError(
                f"'pixels' is {width}x{height}; this VAE wants both sides to be multiples of {unit}: cut off edges "
                f"would not meet. Scale the picture, for instance to {max(1, width // unit) * unit}x"
                f"{max(1, height // unit) * unit}."
            )
        size, fade = check_tiles(columns, tile, overlap, unit, (height, width))
        latents = in_round_tiles(
            vae.encode,
            pictures,
            size,
            fade,
            1 / unit,
            axes=(1, 2),
            result_axes=(-2, -1),
            step=unit,
            columns=columns,
            on_tile=progress(),
        )
        return io.NodeOutput({"samples": latents.to(comfy.model_management.intermediate_device())})


class PanoramaVAEDecode(io.ComfyNode):
    """Latents to pixels, the left edge seeing the right one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_PanoramaVAEDecode",
            display_name="Panorama VAE Decode",
            category=CATEGORY_PANORAMA,
            description="Decodes the latent of a panorama or its frames without a seam where its edges meet.",
            inputs=[
                io.Latent.Input("samples", tooltip="Of a panorama; best sampled with Panorama Model or Views."),
                io.Vae.Input("vae", tooltip="Of the model that sampled; for pictures or for videos."),
                *_inputs(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The panorama, or its frames.")],
        )

    @classmethod
    def execute(cls, samples: dict, vae: object, columns: int, tile: int, overlap: int) -> io.NodeOutput:
        latents = check_samples(samples, "samples")
        if getattr(latents, "is_nested", False):
            raise ValueError(
                "'samples' holds several latents in one. Put Imagine360 Unpack between and connect its panorama."
            )
        if latents.ndim not in (4, 5):
            raise ValueError(
                f"'samples' has shape {list(latents.shape)}; expected the latent of pictures [batch, channels, height, "
                "width] or of videos [batch, channels, frames, height, width]."
            )
        unit = check_vae(vae, "decode")
        height, width = (side * unit for side in latents.shape[-2:])
        size, fade = check_tiles(columns, tile, overlap, unit, (height, width))
        pictures = in_round_tiles(
            vae.decode,
            latents,
            size,
            fade,
            unit,
            axes=(-2, -1),
            result_axes=(-3, -2),
            columns=columns,
            on_tile=progress(),
        )
        if pictures.ndim == 5:  # frames of videos one after the other, as VAE Decode has them
            pictures = pictures.flatten(0, 1)
        return io.NodeOutput(pictures.to(comfy.model_management.intermediate_device()))


def check_vae(vae: object, way: str) -> int:
    """Pixels for one number of a VAE's latent, along a side.

    Raises:
        ValueError: no VAE, or one without sides.
    """
    find = getattr(vae, f"spacial_compression_{way}", None)
    unit = find() if find is not None else None
    if not isinstance(unit, int) or unit < 1 or getattr(vae, "latent_dim", 2) not in (2, 3):
        raise ValueError(f"'vae' holds a {type(vae).__name__} that is not for pictures or videos; connect such a VAE.")
    return unit


def check_tiles(columns: int, tile: int, overlap: int, unit: int, sides: tuple[int, int]) -> tuple[int, int]:
    """A tile and its overlap in latents; without tiles one as large as the picture.

    Raises:
        ValueError: a value out of its range, or a tile that its overlap fills.
    """
    check_range(columns, "columns", 0, MOST_COLUMNS)
    check_range(tile, "tile", 0, LARGEST_TILE)
    check_range(overlap, "overlap", 0, LARGEST_TILE)
    if tile == 0:
        return max(sides) // unit, 0
    size, fade = tile // unit, overlap // unit
    if size < 2 or fade * 2 > size:
        raise ValueError(
            f"'tile' is {tile} pixels with an 'overlap' of {overlap}; expected at least {2 * unit} pixels, and an "
            f"overlap of at most half of it."
        )
    return size, fade


def progress():
    """What shows how many tiles are through, and stops where the person at the graph does."""
    bar = None

    def on_tile(number: int, tiles: int) -> None:
        nonlocal bar
        bar = comfy.utils.ProgressBar(tiles) if bar is None else bar
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(number, tiles)

    return on_tile


NODES = [PanoramaVAEEncode, PanoramaVAEDecode]
