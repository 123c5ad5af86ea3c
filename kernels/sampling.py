"""Reading images and latents at real-valued pixel positions: remapping and warping, with borders and occlusion.

Positions are in pixels: (0, 0) is the centre of the top left pixel, (W - 1, H - 1) that of the bottom right one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = ("nearest", "bilinear", "bicubic")
BORDERS = ("zeros", "border", "reflect", "wrap-x")

# Farther than this (pixels) from the image counts as just outside; keeps the conversion to integers defined.
_FAR = float(1 << 24)


def pixel_grid(height: int, width: int, device=None) -> Tensor:
    """float32 [2, height, width]: x (channel 0) and y (channel 1) of every pixel."""
    rows = torch.arange(height, dtype=torch.float32, device=device).view(height, 1).expand(height, width)
    columns = torch.arange(width, dtype=torch.float32, device=device).view(1, width).expand(height, width)
    return torch.stack([columns, rows])


def read_bilinear(values: Tensor, positions: Tensor) -> Tensor:
    """Bilinear values at pixel positions by the device's own texture-like operation: fast, exact to about 1e-4 pixel.

    ``remap`` is the exact one.

    Args:
        values: float32 [N, C, H, W].
        positions: float32 [N, 2, h, w], pixels; positions outside read the nearest border pixel.

    Returns:
        float32 [N, C, h, w].
    """
    height, width = values.shape[2:]
    span = torch.tensor([max(width - 1, 1), max(height - 1, 1)], dtype=torch.float32, device=values.device)
    # Clamped here rather than by padding_mode="border", which not every version has on MPS.
    grid = (positions.permute(0, 2, 3, 1) * (2.0 / span) - 1.0).clamp(-1.0, 1.0)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def remap(
    images: Tensor,
    positions: Tensor,
    *,
    mode: str = "bilinear",
    border: str = "zeros",
    fill: float | Tensor = 0.0,
) -> Tensor:
    """Read images at given positions: result[..., y, x] = image at positions[:, :, y, x].

    Whole-number positions inside the image return its pixels bit for bit in every mode (up to float32). Sums are formed
    in float32 in a fixed order, so that every run gives the same bits.

    Args:
        images: float [B, C, H, W], any floating dtype.
        positions: float [B or 1, 2, h, w], channel 0 = x, channel 1 = y, in pixels. NaN counts as far outside.
        mode: "nearest" (halves go to the even neighbour), "bilinear", or "bicubic" (Keys 1981, a = -1/2).
        border: what lies outside the image: "zeros" = ``fill``; "border" = the nearest border pixel; "reflect" =
            mirrored at the centres of the border pixels; "wrap-x" = the other side for x (panoramas), the border pixel
            for y.
        fill: for border "zeros": a number, or a tensor [C].

    Returns:
        [B, C, h, w] of the images' dtype.

    Raises:
        ValueError: unknown mode or border, or shapes that do not fit; the message names the argument.
    """
    _check(images, positions, mode, border)
    batch, channels, height, width = images.shape
    out_height, out_width = positions.shape[2:]
    positions = positions.to(device=images.device, dtype=torch.float32).nan_to_num(nan=-_FAR).clamp(-_FAR, _FAR)
    x, y = positions.expand(batch, -1, -1, -1).flatten(2).unbind(dim=1)
    if isinstance(fill, Tensor):
        fill = fill.to(device=images.device, dtype=torch.float32).view(1, -1, 1)
    flat = images.flatten(2)
    columns = _taps(x, width, mode, "wrap" if border == "wrap-x" else border)
    rows = _taps(y, height, mode, "border" if border == "wrap-x" else border)
    total = None
    for row, row_inside, row_weight in rows:
        line = None
        for column, column_inside, column_weight in columns:
            index = (row * width + column).unsqueeze(1).expand(-1, channels, -1)
            value = flat.gather(2, index)
            if mode == "nearest" and border != "zeros":
                return value.view(batch, channels, out_height, out_width)
            value = value.to(torch.float32)
            if border == "zeros":
                value = torch.where((row_inside & column_inside).unsqueeze(1), value, fill)
            line = _accumulate(line, value, column_weight)
        total = _accumulate(total, line, row_weight)
    return total.to(images.dtype).view(batch, channels, out_height, out_width)


def warp_backward(
    images: Tensor,
    flow: Tensor,
    *,
    mode: str = "bilinear",
    border: str = "border",
    fill: float | Tensor = 0.0,
    occlusion: Tensor | None = None,
) -> Tensor:
    """Bring images to the frame on whose grid the flow is defined: result(p) = image(p + flow(p)).

    Warping along a forward flow F is ``warp_backward(images, invert_flow(F))``.

    Args:
        images: float [B, C, H, W].
        flow: float32 [B or 1, 2, H, W], pixels; points from a pixel of the result into the images.
        mode, border, fill: as in ``remap``.
        occlusion: float [B or 1, H, W] in 0..1 or None: where 1, the result is ``fill``.

    Returns:
        [B, C, H, W] of the images' dtype.

    Raises:
        ValueError: shapes that do not fit, unknown mode or border.
    """
    if images.ndim == 4 and (flow.ndim != 4 or flow.shape[1] != 2 or flow.shape[2:] != images.shape[2:]):
        raise ValueError(
            f"flow: got {list(flow.shape)} for images {list(images.shape)}; expected [{images.shape[0]} or 1, 2,"
            f" {images.shape[2]}, {images.shape[3]}]. Resize the flow to the images first (resize_flow)."
        )
    height, width = flow.shape[-2:]
    grid = pixel_grid(height, width, images.device)
    result = remap(images, flow.to(images.device) + grid, mode=mode, border=border, fill=fill)
    if occlusion is None:
        return result
    if occlusion.ndim != 3 or occlusion.shape[1:] != flow.shape[2:] or occlusion.shape[0] not in (1, images.shape[0]):
        raise ValueError(
            f"occlusion: got {list(occlusion.shape)}; expected [{images.shape[0]} or 1, {height}, {width}], as flow"
        )
    if isinstance(fill, Tensor):
        fill = fill.to(device=images.device, dtype=torch.float32).view(1, -1, 1, 1)
    hidden = occlusion.to(device=images.device, dtype=torch.float32).unsqueeze(1)
    # Written so that 0 and 1 give exactly the image and exactly the fill.
    return (result * (1.0 - hidden) + hidden * fill).to(images.dtype)


def _check(images: Tensor, positions: Tensor, mode: str, border: str) -> None:
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}; expected one of {', '.join(MODES)}.")
    if border not in BORDERS:
        raise ValueError(f"border: got {border!r}; expected one of {', '.join(BORDERS)}.")
    if images.ndim != 4 or not images.is_floating_point() or min(images.shape[2:]) < 1:
        raise ValueError(f"images: got {images.dtype} {list(images.shape)}; expected floating [batch, channels, H, W].")
    if positions.ndim != 4 or positions.shape[1] != 2 or positions.shape[0] not in (1, images.shape[0]):
        raise ValueError(
            f"positions: got {list(positions.shape)}; expected [{images.shape[0]} or 1, 2, h, w] (x and y in pixels)."
        )


def _taps(position: Tensor, size: int, mode: str, border: str) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """For one axis: (index int64, inside bool, weight float32 or None) of each pixel that takes part, all [B, h*w]."""
    if mode == "nearest":
        first = position.round()
        weights, offsets = [None], [0]
    else:
        first = position.floor()
        t = position - first
        if mode == "bilinear":
            weights, offsets = [1.0 - t, t], [0, 1]
        else:
            weights, offsets = _cubic_weights(t), [-1, 0, 1, 2]
    first = first.to(torch.int64)
    return [
        (*_bring_inside(first + offset, size, border), weight) for offset, weight in zip(offsets, weights, strict=True)
    ]


def _cubic_weights(t: Tensor) -> list[Tensor]:
    """Weights of the four neighbours by Keys' cubic convolution with a = -1/2; t = 0 gives exactly 0, 1, 0, 0."""
    u = 1.0 - t
    return [
        -0.5 * t * u * u,
        (1.5 * t - 2.5) * t * t + 1.0,
        (1.5 * u - 2.5) * u * u + 1.0,
        -0.5 * u * t * t,
    ]


def _bring_inside(index: Tensor, size: int, border: str) -> tuple[Tensor, Tensor]:
    """The index that stands for ``index`` in 0..size-1, and whether it was inside."""
    inside = (index >= 0) & (index < size)
    if border == "wrap":
        return index.remainder(size), inside
    if border == "reflect" and size > 1:
        folded = index.remainder(2 * size - 2)
        return torch.minimum(folded, 2 * size - 2 - folded), inside
    return index.clamp(0, size - 1), inside


def _accumulate(total: Tensor | None, value: Tensor, weight: Tensor | None) -> Tensor:
    if weight is not None:
        value = value * weight.unsqueeze(1)
    return value if total is None else total + value
