"""The image encoder of Segment Anything, in the layout of the published file sam_vit_b_01ec64.pth.

Kirillov et al.: Segment Anything, ICCV 2023; Li et al.: Exploring Plain Vision Transformer Backbones for Object
Detection, ECCV 2022: a vision transformer whose blocks attend within windows, but for a few that see the whole picture,
with relative positions along both axes, and a neck of two convolutions. All sizes are read from the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoints import difference, some, wrong_shape

FILE = "sam_vit_b_01ec64.pth"
SOURCE = "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth"
PREFIX = "image_encoder."

MEAN = (123.675, 116.28, 103.53)
"""Of red, green and blue, 0 to 255."""

DEVIATION = (58.395, 57.12, 57.375)

_LARGER = {1024: "ViT-L (sam_vit_l_0b3195.pth)", 1280: "ViT-H (sam_vit_h_4b8939.pth)"}
_EPSILON = 1e-6


class SamFileError(Exception):
    """A file is not SAM's image encoder; the message is for the person at the graph."""


@dataclass(frozen=True)
class SamSizes:
    """What a file's weights tell of the network."""

    width: int = 768
    heads: int = 12
    inner: int = 3072
    """Of the blocks' two linear layers."""

    channels: int = 256
    """Of the features."""

    patch: int = 16
    grid: int = 64
    """Patches along each side of the picture."""

    windows: tuple[int, ...] = (14, 14, 64) * 4
    """Of each block: patches along each side of what attends to itself; ``grid`` = the whole picture."""

    @property
    def edge(self) -> int:
        """Pixels along each side of the picture that the network sees."""
        return self.grid * self.patch


class SamAttention(nn.Module):
    """Self attention of squares of patches, biased by how far two patches lie apart along each axis."""

    def __init__(self, sizes: SamSizes, window: int, operations: type, **options) -> None:
        super().__init__()
        self.heads, head = sizes.heads, sizes.width // sizes.heads
        self.qkv = operations.Linear(sizes.width, 3 * sizes.width, **options)
        self.proj = operations.Linear(sizes.width, sizes.width, **options)
        self.rel_pos_h = nn.Parameter(torch.empty(2 * window - 1, head, **options))
        self.rel_pos_w = nn.Parameter(torch.empty(2 * window - 1, head, **options))
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """[B, window, window, width] -> the same."""
        batch, edge, _, width = x.shape
        q, k, v = self.qkv(x).view(batch, edge * edge, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        places = torch.arange(edge, device=x.device)
        apart = places[:, None] - places[None, :] + self.window - 1
        vertical, horizontal = (table.to(q)[apart] for table in (self.rel_pos_h, self.rel_pos_w))
        square = q.reshape(batch, self.heads, edge, edge, -1)
        # Added to the logits as they are: the queries in them are not scaled.
        bias = torch.einsum("bnhwc,hkc->bnhwk", square, vertical)[..., :, None]
        bias = bias + torch.einsum("bnhwc,wkc->bnhwk", square, horizontal)[..., None, :]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.reshape(batch, self.heads, edge**2, edge**2))
        return self.proj(x.transpose(1, 2).reshape(batch, edge, edge, width))


class SamMlp(nn.Module):
    """Two linear layers."""

    def __init__(self, sizes: SamSizes, operations: type, **options) -> None:
        super().__init__()
        self.lin1 = operations.Linear(sizes.width, sizes.inner, **options)
        self.lin2 = operations.Linear(sizes.inner, sizes.width, **options)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> the same."""
        return self.lin2(F.gelu(self.lin1(x)))


class SamBlock(nn.Module):
    """Attention within windows and the two layers, each added to what came in."""

    def __init__(self, sizes: SamSizes, window: int, operations: type, **options) -> None:
        super().__init__()
        self.norm1 = operations.LayerNorm(sizes.width, eps=_EPSILON, **options)
        self.attn = SamAttention(sizes, window, operations, **options)
        self.norm2 = operations.LayerNorm(sizes.width, eps=_EPSILON, **options)
        self.mlp = SamMlp(sizes, operations, **options)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """[B, grid, grid, width] -> the same."""
        if self.window == x.shape[1]:
            # A picture at a time: between all patches of the published grid lie 17 million distances a head.
            seen = torch.cat([self.attn(self.norm1(picture)) for picture in x.split(1)])
        else:
            seen = self._windows(self.norm1(x))
        x = x + seen
        return x + self.mlp(self.norm2(x))

    def _windows(self, x: Tensor) -> Tensor:
        batch, grid, _, width = x.shape
        count, edge = -(-grid // self.window), self.window
        more = count * edge - grid
        # Windows at the far ends are filled with zeros, which are seen like all else.
        x = F.pad(x, (0, 0, 0, more, 0, more)).view(batch, count, edge, count, edge, width)
        x = self.attn(x.transpose(2, 3).reshape(-1, edge, edge, width))
        x = x.view(batch, count, count, edge, edge, width).transpose(2, 3)
        return x.reshape(batch, count * edge, count * edge, width)[:, :grid, :grid]


class _PatchEmbed(nn.Module):
    def __init__(self, sizes: SamSizes, operations: type, **options) -> None:
        super().__init__()
        self.proj = operations.Conv2d(3, sizes.width, sizes.patch, sizes.patch, **options)


class SamEncoder(nn.Module):
    """Pictures to features, under the file's own names without ``image_encoder.``.

    Args:
        sizes: of the network; the published file's by default.
    """

    def __init__(
        self,
        sizes: SamSizes | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        operations: type = comfy.ops.manual_cast,
    ) -> None:
        super().__init__()
        sizes = SamSizes() if sizes is None else sizes
        options = {"device": device, "dtype": dtype}
        self.sizes = sizes
        self.patch_embed = _PatchEmbed(sizes, operations, **options)
        self.pos_embed = nn.Parameter(torch.empty(1, sizes.grid, sizes.grid, sizes.width, **options))
        self.blocks = nn.ModuleList(SamBlock(sizes, window, operations, **options) for window in sizes.windows)
        self.neck = nn.Sequential(
            operations.Conv2d(sizes.width, sizes.channels, 1, bias=False, **options),
            operations.LayerNorm(sizes.channels, eps=_EPSILON, **options),
            operations.Conv2d(sizes.channels, sizes.channels, 3, padding=1, bias=False, **options),
            operations.LayerNorm(sizes.channels, eps=_EPSILON, **options),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures [B, 3, edge, edge] -> features [B, channels, grid, grid]."""
        x = self.patch_embed.proj(x).movedim(1, -1)
        x = x + self.pos_embed.to(x)
        for block in self.blocks:
            x = block(x)
        x = x.movedim(-1, 1)
        for convolution, norm in (self.neck[:2], self.neck[2:]):
            x = norm(convolution(x).movedim(1, -1)).movedim(-1, 1)
        return x

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """Features [B, channels, grid, grid] of pictures float32 [B, H, W, 3], 0..1, of any size."""
        return self(prepared(pictures, self.sizes.edge).to(self.pos_embed.dtype))


def prepared(pictures: Tensor, edge: int) -> Tensor:
    """What the network sees of pictures: the longer side is ``edge`` pixels, normalised, zeros to the right and below.

    Args:
        pictures: float32 [B, H, W, 3], 0..1.
        edge: pixels.

    Returns:
        float32 [B, 3, edge, edge].
    """
    x = (pictures.float().movedim(-1, 1) * 255).round().clamp(0, 255)
    scale = edge / max(x.shape[2:])
    size = [max(1, math.floor(side * scale + 0.5)) for side in x.shape[2:]]
    if size != list(x.shape[2:]):
        # To whole numbers again, as pictures of bytes are scaled.
        x = F.interpolate(x, size, mode="bilinear", antialias=True).round().clamp(0, 255)
    mean, deviation = (torch.tensor(values, device=x.device).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return F.pad((x - mean) / deviation, (0, edge - size[1], 0, edge - size[0]))


def sam_patcher(network: SamEncoder) -> comfy.model_patcher.ModelPatcher:
    """An encoder that the host loads and unloads: the value on a PN_IMAGE_ENCODER socket."""
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(network, management.get_torch_device(), management.unet_offload_device())


def encode_pictures(
    patcher: comfy.model_patcher.ModelPatcher,
    pictures: Tensor,
    *,
    at_once: int = 4,
    on_part: Callable[[int], None] | None = None,
) -> Tensor:
    """Features of pictures, a few at a time.

    Args:
        patcher: from sam_patcher.
        pictures: float32 [N, H, W, 3], 0..1, on any device.
        at_once: how many the network sees together, at least 1; the features do not depend on it but for rounding.
        on_part: called with the number of pictures before each part; may raise to stop.

    Returns:
        float16 [N, channels, grid, grid] on the host's intermediate device: behind the last norm no number is large.
    """
    network, management = patcher.model, comfy.model_management
    management.load_models_gpu([patcher], memory_required=encoding_memory(network.sizes, at_once))
    found = []
    for part in pictures.split(at_once):
        if on_part is not None:
            on_part(part.shape[0])
        features = network.features(part.to(patcher.load_device))
        found.append(features.to(management.intermediate_device(), torch.float16))
    return torch.cat(found)


def encoding_memory(sizes: SamSizes, pictures: int) -> int:
    """Bytes that pictures need together besides the weights, float32: the layers, and one's bias where all is seen."""
    patches = sizes.grid**2
    return 4 * (3 * sizes.heads * patches**2 + pictures * patches * (3 * sizes.inner + 8 * sizes.width))


def read_sam(name: str, state: Mapping[str, Tensor]) -> SamEncoder:
    """The image encoder of a file.

    Args:
        name: the file's, for messages.
        state: what it holds: SAM whole, of which the mask decoder and the prompt encoder are left out, or its image
            encoder alone, with or without ``image_encoder.`` before all names.

    Returns:
        In eval mode on the CPU, holding the file's own tensors.

    Raises:
        SamFileError: another kind of file, SAM's larger encoders, weights that are missing, too many or misshapen.
    """
    use = f"Use {FILE} from {SOURCE}."
    weights = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, Tensor)}
    if any(key.startswith(PREFIX) for key in weights):
        weights = {key.removeprefix(PREFIX): value for key, value in weights.items() if key.startswith(PREFIX)}
    sizes = _sizes(name, weights, use)
    network = SamEncoder(sizes, device="meta", dtype=weights["pos_embed"].dtype)
    wanted = network.state_dict()
    wrong = difference(wanted, weights)
    if wrong:
        raise SamFileError(f"{name} holds no complete image encoder of SAM:{wrong} {use}")
    misshapen = wrong_shape(wanted, weights)
    if misshapen:
        raise SamFileError(f"{name}: {misshapen} {use}")
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def _sizes(name: str, weights: Mapping[str, Tensor], use: str) -> SamSizes:
    position, patch = weights.get("pos_embed"), weights.get("patch_embed.proj.weight")
    neck, inner = weights.get("neck.0.weight"), weights.get("blocks.0.mlp.lin1.weight")
    tables = _tables(weights)
    known = {"pos_embed": (position, 4), "patch_embed.proj.weight": (patch, 4), "neck.0.weight": (neck, 4)}
    known |= {"blocks.0.mlp.lin1.weight": (inner, 2), "blocks.0.attn.rel_pos_h": (tables[0] if tables else None, 2)}
    lacking = [key for key, (weight, dimensions) in known.items() if weight is None or weight.ndim != dimensions]
    if lacking:
        raise SamFileError(f"{name} is no SAM ViT-B: {_what_it_is(weights, lacking)}. {use}")
    width, head = patch.shape[0], tables[0].shape[1]
    if width in _LARGER:
        raise SamFileError(
            f"{name} is SAM {_LARGER[width]}: it is {width} wide. Imagine360 was trained on ViT-B, which is 768. {use}"
        )
    if width % head or position.shape[1] != position.shape[2]:
        raise SamFileError(
            f"{name}: heads {head} wide of {width}, positions {list(position.shape)}; expected heads that divide the "
            f"width and a square of positions. {use}"
        )
    windows = tuple((table.shape[0] + 1) // 2 for table in tables)
    grid = position.shape[1]
    if max(windows) > grid:
        raise SamFileError(f"{name}: a block sees {max(windows)} patches a side of a picture that has {grid}. {use}")
    return SamSizes(width, width // head, inner.shape[0], neck.shape[0], patch.shape[-1], grid, windows)


def _tables(weights: Mapping[str, Tensor]) -> Sequence[Tensor]:
    """The vertical relative positions of the blocks, up to the first that has none."""
    found = []
    while (table := weights.get(f"blocks.{len(found)}.attn.rel_pos_h")) is not None and table.ndim == 2:
        found.append(table)
    return found


def _what_it_is(weights: Mapping[str, Tensor], lacking: list[str]) -> str:
    if not weights:
        return "it holds no weights"
    if any(key.startswith("vision_encoder.") for key in weights):
        return "it is a SAM under transformers' names, not in the authors' own layout"
    if any("trunk." in key or key.startswith("sam_") for key in weights):
        return "it is a SAM 2, another network"
    if any(key.startswith(("vision_model.", "visual.")) for key in weights):
        return "it is a CLIP vision model"
    return f"it lacks {some(lacking)} and holds {some(weights)}"
