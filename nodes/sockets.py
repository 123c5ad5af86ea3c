"""Socket types of our own, and the checks that several nodes share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from comfy_api.latest import io
from torch import Tensor

from ..kernels.blob_layout import BlobLayout
from ..kernels.flow import Flow
from ..kernels.matched_points import MatchedPoints
from ..kernels.schedule import Schedule
from ..networks.sam_encoder import SamEncoder
from ..patches.latent_layout import BATCH_4D, LAYOUTS_5D

CATEGORY_FLOW = "papernodes/go-with-the-flow"
CATEGORY_STORY = "papernodes/one-prompt-one-story"
CATEGORY_LIGHT = "papernodes/relighting"
CATEGORY_COLOUR = "papernodes/manganinja"
CATEGORY_BLOBS = "papernodes/blob layouts"
CATEGORY_PANORAMA = "papernodes/panorama"
MAX_SEED = 2**64 - 1

PnFlow = io.Custom("PN_FLOW")
"""Value: ``kernels.flow.Flow``, float32 vectors ``[T-1, 2, H, W]`` in pixels, direction, optional occlusion."""

PnPoints = io.Custom("PN_POINTS")
"""Value: ``kernels.matched_points.MatchedPoints``, numbered pairs of points, 0..1 of the reference and the target."""

PnBlobs = io.Custom("PN_BLOBS")
"""Value: ``kernels.blob_layout.BlobLayout``, ellipses with captions, ids, order and key frames."""

PnMangaNinja = io.Custom("PN_MANGANINJA")
"""Value: ``networks.manga_ninja.MangaNinja``, the UNet that sees a reference and the point net."""

PnImageEncoder = io.Custom("PN_IMAGE_ENCODER")
"""Value: a ModelPatcher around ``networks.sam_encoder.SamEncoder``, features of pictures."""


class NothingThere:
    """What an output gives that a node's inputs do not allow: whoever uses it fails with a sentence.

    The host's ExecutionBlocker would do so once: what it stops is cached as a success.
    """

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence

    def __getattr__(self, name: str):
        # An AttributeError, so that those who only ask whether there is an attribute are told no.
        raise AttributeError(self.__dict__.get("sentence", name))

    def __getitem__(self, key: object):
        raise ValueError(self.sentence)


def batch_4d_input(tooltip: str) -> io.Combo.Input:
    """The optional choice of what a four-dimensional batch is; the tooltip says what follows from it."""
    return io.Combo.Input("batch_4d", options=list(BATCH_4D), default=BATCH_4D[0], optional=True, tooltip=tooltip)


def layout_5d_input(tooltip: str) -> io.Combo.Input:
    """The optional choice of the order of a video latent's axes."""
    return io.Combo.Input("layout_5d", options=list(LAYOUTS_5D), default=LAYOUTS_5D[0], optional=True, tooltip=tooltip)


def check_flow(value: object, name: str = "flow") -> Flow:
    """The Flow on a socket.

    Raises:
        ValueError: something else, which another pack may have put on a socket of the same name.
    """
    if not isinstance(value, Flow):
        raise ValueError(
            f"'{name}' holds a {type(value).__name__}; connect the flow output of Optical Flow or Load Flow."
        )
    return value


def check_points(value: object, name: str = "points") -> MatchedPoints:
    """The MatchedPoints on a socket.

    Raises:
        ValueError: something else, which another pack may have put on a socket of the same name.
    """
    if not isinstance(value, MatchedPoints):
        raise ValueError(f"'{name}' holds a {type(value).__name__}; connect the points output of Match Points.")
    return value


def check_blobs(value: object, name: str = "blobs") -> BlobLayout:
    """The BlobLayout on a socket.

    Raises:
        ValueError: something else, which another pack may have put on a socket of the same name.
    """
    if not isinstance(value, BlobLayout):
        raise ValueError(
            f"'{name}' holds a {type(value).__name__}; connect the blobs output of Blob Layout, Blobs From Masks or "
            "Plan Blobs."
        )
    return value


def check_image_encoder(value: object, name: str = "image_encoder") -> object:
    """The ModelPatcher of an image encoder on a socket.

    Raises:
        ValueError: something else, which another pack may have put on a socket of the same name.
    """
    if isinstance(value, NothingThere):
        raise ValueError(value.sentence)
    if not isinstance(getattr(value, "model", None), SamEncoder):
        raise ValueError(
            f"'{name}' holds a {type(value).__name__}; connect the image_encoder output of Imagine360 Loader."
        )
    return value


def check_choice(value: object, name: str, options: Sequence[str]) -> None:
    """Raises ValueError unless ``value`` is one of ``options``; the host lets any text through in a V3 combo."""
    if value not in options:
        raise ValueError(f"'{name}' is {value!r}; expected one of: {', '.join(options)}.")


def check_range(value: float, name: str, low: float, high: float) -> None:
    """Raises ValueError unless ``low <= value <= high``; linked values and NaN pass the host's own check."""
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"'{name}' is {value}; expected a number from {low:g} to {high:g}.")


def check_clip(frames: Tensor, name: str = "frames") -> None:
    """Raises ValueError unless an IMAGE is a clip: ``[T, H, W, 3 or more]`` with at least two finite frames."""
    shape = list(frames.shape)
    if frames.ndim != 4 or frames.shape[-1] < 3 or 0 in shape:
        raise ValueError(f"'{name}' has shape {shape}; expected a batch of images [frames, height, width, 3].")
    if frames.shape[0] < 2:
        raise ValueError(
            f"'{name}' holds {shape[0]} frame; flow needs at least 2. Connect a video or a batch of consecutive images."
        )
    if not bool(frames.isfinite().all()):
        raise ValueError(f"'{name}' holds NaN or infinite pixels. Check the node that made these images.")


def check_noise(value: object, name: str) -> None:
    """Raises ValueError unless a NOISE can be asked for noise."""
    if not hasattr(value, "generate_noise") or not hasattr(value, "seed"):
        raise ValueError(f"'{name}' holds a {type(value).__name__}; connect Warp Noise, RandomNoise or another NOISE.")


def check_samples(latent: object, name: str) -> Tensor:
    """The tensor of a LATENT.

    Raises:
        ValueError: no LATENT, or NaN or infinite numbers in it.
    """
    if not isinstance(latent, dict) or "samples" not in latent:
        raise ValueError(f"'{name}' holds a {type(latent).__name__} without samples; connect a LATENT.")
    samples = latent["samples"]
    parts = samples.unbind() if getattr(samples, "is_nested", False) else [samples]
    if not all(bool(part.isfinite().all()) for part in parts):
        raise ValueError(f"'{name}' holds NaN or infinite numbers. Check the node that made this latent.")
    return samples


def read_schedule(text: str, name: str) -> Schedule:
    """Reads a schedule of numbers in [0, 1] from a widget; the error names the widget."""
    return Schedule.parse(text, name, minimum=0.0, maximum=1.0)


def read_widget(reader: Callable, name: str, *arguments):
    """What a reader makes of a text widget; its errors name the widget."""
    try:
        return reader(*arguments)
    except ValueError as error:
        raise ValueError(f"'{name}': {error}.") from None


def check_pictures(image: Tensor, name: str) -> Tensor:
    """An IMAGE's red, green and blue, float32 [B, H, W, 3].

    Raises:
        ValueError: no batch of images, or NaN or infinite pixels.
    """
    shape = list(image.shape)
    if image.ndim != 4 or image.shape[-1] < 3 or 0 in shape:
        raise ValueError(f"'{name}' has shape {shape}; expected a batch of images [batch, height, width, 3].")
    if not bool(image.isfinite().all()):
        raise ValueError(f"'{name}' holds NaN or infinite pixels. Check the node that made these images.")
    return image[..., :3].float()


def check_panorama(image: Tensor, name: str) -> None:
    """Raises ValueError unless pictures or masks [B, H, W, ...] are twice as wide as high, and that at least 2."""
    height, width = image.shape[1:3]
    if width != 2 * height or height < 2:
        raise ValueError(
            f"'{name}' is {width}x{height} pixels; an equirectangular picture is twice as wide as high, and at least "
            "4x2. Connect a whole panorama (360 by 180 degrees), or scale it."
        )


def check_one_picture(image: Tensor, name: str) -> Tensor:
    """An IMAGE that is one picture, float32 [1, H, W, 3].

    Raises:
        ValueError: see check_pictures, or several pictures.
    """
    picture = check_pictures(image, name)
    if picture.shape[0] != 1:
        raise ValueError(
            f"'{name}' holds {picture.shape[0]} pictures; expected one. Put ImageFromBatch between to choose it."
        )
    return picture


def alike(image: Tensor, name: str, other: Tensor, other_name: str) -> Tensor:
    """An IMAGE or a MASK with as many pictures as another: a single one goes with all of them.

    Raises:
        ValueError: another size, or another number.
    """
    size, wanted = list(image.shape[1:3]), list(other.shape[1:3])
    if size != wanted:
        raise ValueError(
            f"'{name}' is {size[1]}x{size[0]} pixels and '{other_name}' {wanted[1]}x{wanted[0]}; they must be of one "
            "size. Put Upscale Image between."
        )
    if image.shape[0] not in (1, other.shape[0]):
        raise ValueError(
            f"'{name}' holds {image.shape[0]} pictures and '{other_name}' {other.shape[0]}; expected one, or as many."
        )
    return image.expand(other.shape[0], *image.shape[1:])


def check_mask(mask: Tensor | None, other: Tensor, other_name: str) -> Tensor | None:
    """A MASK [B, H, W] that goes with pictures; one without a batch is taken, too.

    Raises:
        ValueError: another size, another number, or NaN or infinite values.
    """
    if mask is None:
        return None
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3:
        raise ValueError(f"'mask' has shape {list(mask.shape)}; expected [batch, height, width].")
    if not bool(mask.isfinite().all()):
        raise ValueError("'mask' holds NaN or infinite values. Check the node that made it.")
    return alike(mask.float(), "mask", other, other_name).to(other.device)


def check_sides(pictures: Tensor, name: str, step: int = 8) -> None:
    """Raises ValueError unless both sides of pictures [B, H, W, 3] are multiples of ``step``, as SD1.5's VAE wants."""
    height, width = pictures.shape[1:3]
    if height % step or width % step:
        raise ValueError(
            f"'{name}' is {width}x{height} pixels; both sides must be multiples of {step}. Scale or crop it, for "
            f"instance to {width // step * step}x{height // step * step}."
        )


def encoded(vae: object, picture: Tensor, model: object) -> Tensor:
    """Latents [1, 4, h, w] of a picture [1, H, W, 3], scaled as a MODEL's UNet sees them.

    Raises:
        ValueError: a VAE whose latents are others.
    """
    latents = vae.encode(picture)
    size = [1, 4, picture.shape[1] // 8, picture.shape[2] // 8]
    if list(latents.shape) != size:
        raise ValueError(
            f"'vae' gives latents of shape {list(latents.shape)}; expected {size}. Connect SD1.5's VAE, or Demo "
            "Checkpoint's of kind image."
        )
    return model.get_model_object("latent_format").process_in(latents)
