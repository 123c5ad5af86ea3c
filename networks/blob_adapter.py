"""An adapter that grounds a UNet in blobs: a position net, and a gated masked cross attention in every block.

Nie et al., BlobGEN (ICML 2024), section 2.2. A blob is the tokens of its caption, each of which is told the blob's
geometry: e_b = MLP([e_s ; e_tau]), e_tau being Fourier features of six numbers. In a block, between the attention of
the picture to itself and the one to its text, a place attends to the tokens of all blobs that cover it, in one softmax,
so that blobs that overlap compete. A place that no blob covers gets exactly nothing from it. Then comes a small
feed-forward layer; both are added through a tanh of a gate that training starts at 0. The UNet stays as it is.

Files (safetensors; C is how wide a block is, D a blob's token, d the text, H and F are any):

    position_net.0.weight [H, d + 96]   position_net.0.bias [H]      text first, then the Fourier features
    position_net.2.weight [H, H]        position_net.2.bias [H]
    position_net.4.weight [D, H]        position_net.4.bias [D]
    blocks.<block>.norm.weight [C]      blocks.<block>.norm.bias [C]
    blocks.<block>.to_q.weight [C, C]
    blocks.<block>.to_k.weight [C, D]   blocks.<block>.to_v.weight [C, D]
    blocks.<block>.to_out.weight [C, C] blocks.<block>.to_out.bias [C]
    blocks.<block>.gate []
    blocks.<block>.ff_norm.weight [C]   blocks.<block>.ff_norm.bias [C]
    blocks.<block>.ff_in.weight [2F, C] blocks.<block>.ff_in.bias [2F]   the second half goes through GELU
    blocks.<block>.ff_out.weight [C, F] blocks.<block>.ff_out.bias [C]
    blocks.<block>.ff_gate []

<block> is ComfyUI's name of a transformer block: input_4_0, middle_0_1 or output_3_0 are the side, the number of the
block of the UNet, and which of its transformer blocks. Any of them may be there. As many heads as the block itself has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn
from torch.nn import functional

from ..kernels.ellipses import token_masks
from .checkpoints import difference, some, wrong_shape

FREQUENCIES = 8
NUMBERS = 6
FEATURES = 2 * FREQUENCIES * NUMBERS
"""Of a blob's geometry."""

LAYOUT = "The help page of Blob Adapter has the names and shapes of such a file."

_NAME = re.compile(r"blocks\.((input|middle|output)_(\d+)_(\d+))\.(.+)")
_UNSEEN = -1e4
"""Added to what is not seen: so much that its share is exactly 0, and no infinity that a gradient could trip over."""

_FIRST, _LAST = "position_net.0.weight", "position_net.4.weight"


class BlobAdapterError(Exception):
    """A file is no blob adapter, or does not fit; the message is for the person at the graph."""


@dataclass(frozen=True)
class BlobRows:
    """The blobs of every row of a network's call.

    Args:
        tokens: float [B, K, L, d], the text encoder's states of each blob's caption.
        words: bool [B, K, L], which of them there are.
        ellipses: float32 [B, K, 5], as in ``kernels/ellipses.py``.
        present: bool [B, K].
    """

    tokens: Tensor
    words: Tensor
    ellipses: Tensor
    present: Tensor


class Block(NamedTuple):
    """A transformer block of a UNet, as the host's transformer_options name it."""

    side: str
    """"input", "middle" or "output"."""

    number: int
    index: int

    @property
    def name(self) -> str:
        """In a file."""
        return f"{self.side}_{self.number}_{self.index}"


@dataclass(frozen=True)
class AdapterSizes:
    """What the shapes of an adapter's weights say."""

    text: int
    """d, numbers for each token of a caption."""

    hidden: int
    """H, of the position net."""

    width: int
    """D, numbers for each token of a blob."""

    blocks: Mapping[Block, tuple[int, int]]
    """Block -> (C, how wide it is; F, how wide its feed-forward layer)."""


def geometry(ellipses: Tensor) -> Tensor:
    """The six numbers of a blob, float32 [..., 6]: x, y, a, b, (sin 2t + 1) / 2, (cos 2t + 1) / 2.

    Here a is the longer half axis and t its angle. The paper has sin t and cos t; of twice the angle they are the same
    for t and t + pi, which is the same ellipse. Within the picture all six are in 0..1.

    Args:
        ellipses: float [..., 5], as in ``kernels/ellipses.py``, either half axis the longer one.
    """
    x, y, a, b, angle = ellipses.float().unbind(-1)
    # Of the shorter axis' angle, the longer one's is a quarter turn on: its double has the other sign.
    sign = torch.where(a >= b, 1.0, -1.0)
    sin, cos = sign * (2 * angle).sin(), sign * (2 * angle).cos()
    return torch.stack((x, y, torch.maximum(a, b), torch.minimum(a, b), (sin + 1) / 2, (cos + 1) / 2), -1)


def fourier_features(numbers: Tensor) -> Tensor:
    """sin and cos of numbers at GLIGEN's frequencies 100^(i / 8), i = 0..7 (Li et al., CVPR 2023).

    Args:
        numbers: float32 [..., 6].

    Returns:
        float32 [..., 96]: for each frequency the sines of all six, then their cosines.
    """
    powers = torch.arange(FREQUENCIES, device=numbers.device, dtype=torch.float32) / FREQUENCIES
    turned = numbers[..., None, :] * (100.0**powers)[:, None]
    return torch.stack((turned.sin(), turned.cos()), -2).flatten(-3)


class Fuser(nn.Module):
    """What is added in one transformer block."""

    def __init__(self, width: int, tokens: int, inner: int, *, dtype, device, operations: type) -> None:
        super().__init__()
        layer = {"dtype": dtype, "device": device}
        self.norm = operations.LayerNorm(width, **layer)
        self.to_q = operations.Linear(width, width, bias=False, **layer)
        self.to_k = operations.Linear(tokens, width, bias=False, **layer)
        self.to_v = operations.Linear(tokens, width, bias=False, **layer)
        self.to_out = operations.Linear(width, width, **layer)
        self.gate = nn.Parameter(torch.zeros((), **layer))
        self.ff_norm = operations.LayerNorm(width, **layer)
        self.ff_in = operations.Linear(width, 2 * inner, **layer)
        self.ff_out = operations.Linear(inner, width, **layer)
        self.ff_gate = nn.Parameter(torch.zeros((), **layer))

    def attend(self, x: Tensor, blobs: Tensor, bias: Tensor, heads: int) -> Tensor:
        """Masked cross attention, without the gate.

        Args:
            x: [B, N, C], places; blobs: [B, M, D], tokens of all blobs.
            bias: [B, N, M], 0 where a place sees a token, far below it where not; no row of that alone.
            heads: of the attention.
        """
        q, k, v = self.to_q(self.norm(x)), self.to_k(blobs), self.to_v(blobs)
        return self.to_out(optimized_attention(q, k, v, heads, mask=bias[:, None].to(q.dtype)))

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward layer, without the gate."""
        value, gate = self.ff_in(self.ff_norm(x)).chunk(2, -1)
        return self.ff_out(value * functional.gelu(gate))

    def forward(
        self, x: Tensor, blobs: Tensor, bias: Tensor, covered: Tensor, held: Tensor, heads: int, strength: float
    ) -> Tensor:
        """x with both added.

        Args:
            x, blobs, bias, heads: see attend.
            covered: [B, N, 1], 1 where a place lies in a blob, else 0.
            held: [B, 1, 1], 1 of rows that have blobs.
            strength: what both are multiplied by.
        """
        # A low-VRAM load moves layers, and the gates belong to none.
        gates = [strength * comfy.ops.cast_to_input(some, x).tanh() for some in (self.gate, self.ff_gate)]
        x = x + gates[0] * covered * self.attend(x, blobs, bias, heads)
        return x + gates[1] * held * self.feed(x)


@dataclass
class BlobCall:
    """The blobs of a call, in the form that an adapter's blocks take."""

    tokens: Tensor
    """[B, K L, D]."""

    words: Tensor
    """bool [B, K, L], of blobs that there are."""

    rows: BlobRows
    adapter: BlobAdapter
    _masks: dict = field(default_factory=dict)

    def mask(self, height: int, width: int, aspect: float) -> tuple[Tensor, Tensor]:
        """What each place sees, as Fuser takes it: bias [B, N, K L] and covered [B, N, 1], N = height * width."""
        size = (height, width, aspect)
        if size not in self._masks:
            cover = self.adapter.cover(self.rows, height, width, aspect)  # [B, K, N]
            seen = (cover.transpose(1, 2)[..., None] & self.words[:, None]).flatten(2)
            covered = seen.any(-1, keepdim=True)
            dtype = self.tokens.dtype
            bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(covered & ~seen, _UNSEEN)
            self._masks[size] = bias, covered.to(dtype)
        return self._masks[size]

    @property
    def held(self) -> Tensor:
        """[B, 1, 1]: 1 of rows that have blobs with words, else 0."""
        return self.words.flatten(1).any(1)[:, None, None].to(self.tokens.dtype)


class BlobAdapter(nn.Module):
    """All of a file, under the file's own names."""

    def __init__(self, sizes: AdapterSizes, *, dtype, device, operations: type) -> None:
        super().__init__()
        options = {"dtype": dtype, "device": device}
        self.sizes = sizes
        self.position_net = nn.Sequential(
            operations.Linear(sizes.text + FEATURES, sizes.hidden, **options),
            nn.SiLU(),
            operations.Linear(sizes.hidden, sizes.hidden, **options),
            nn.SiLU(),
            operations.Linear(sizes.hidden, sizes.width, **options),
        )
        self.blocks = nn.ModuleDict(
            {
                block.name: Fuser(width, sizes.width, inner, operations=operations, **options)
                for block, (width, inner) in sizes.blocks.items()
            }
        )

    def features(self, ellipses: Tensor) -> Tensor:
        """What tokens are told of where their blob stands, float32 [..., 96] of ellipses [..., 5]."""
        return fourier_features(geometry(ellipses))

    def cover(self, rows: BlobRows, height: int, width: int, aspect: float) -> Tensor:
        """bool [B, K, height * width]: which places each blob covers."""
        return token_masks(rows.ellipses, rows.present, height, width, aspect).flatten(2)

    def begin(self, rows: BlobRows, dtype: torch.dtype) -> BlobCall:
        """The blobs of a call.

        Args:
            rows: on the device of the call.
            dtype: that the network is called in.

        Raises:
            BlobAdapterError: captions of another text encoder.
        """
        if rows.tokens.shape[-1] != self.sizes.text:
            raise BlobAdapterError(
                f"the blobs' captions have {rows.tokens.shape[-1]} numbers for each token and the adapter was trained "
                f"with {self.sizes.text}. Connect to Apply Blobs the CLIP that belongs to the model."
            )
        where = self.features(rows.ellipses).to(dtype)[:, :, None].expand(-1, -1, rows.tokens.shape[2], -1)
        tokens = self.position_net(torch.cat((rows.tokens.to(dtype), where), -1))
        return BlobCall(tokens.flatten(1, 2), rows.words & rows.present[..., None], rows, self)

    def fuse(
        self, x: Tensor, block: Block, call: BlobCall, size: tuple[int, int], aspect: float, heads: int, strength: float
    ) -> Tensor:
        """A block's features with what the blobs add; as they are where the adapter has nothing for that block.

        Args:
            x: [B, N, C].
            block: which.
            call: from ``begin``, of the same B rows.
            size: height and width of the places, N of them.
            aspect: width of the picture by its height.
            heads: of the block's attention.
            strength: 0 = as they are.
        """
        if block.name not in self.blocks:
            return x
        bias, covered = call.mask(*size, aspect)
        return self.blocks[block.name](x, call.tokens.to(x.dtype), bias, covered, call.held, heads, strength)


def sizes_of(name: str, state: Mapping[str, Tensor]) -> AdapterSizes:
    """The sizes of a file's adapter.

    Args:
        name: the file's, for messages.
        state: what it holds.

    Raises:
        BlobAdapterError: it is no blob adapter.
    """
    blocks: dict[Block, tuple[int, int]] = {}
    for key in state:
        found = _NAME.fullmatch(key)
        if found is None or found[5] != "ff_out.weight" or state[key].ndim != 2:
            continue
        blocks[Block(found[2], int(found[3]), int(found[4]))] = tuple(state[key].shape)
    first, last = state.get(_FIRST), state.get(_LAST)
    whole = all(some is not None and some.ndim == 2 for some in (first, last)) and first.shape[1] > FEATURES
    if not blocks or not whole:
        came = some(state) if state else "nothing"
        raise BlobAdapterError(
            f"{name} is no blob adapter: it holds {came}; expected names such as {_FIRST} and "
            f"blocks.middle_0_0.ff_out.weight. {LAYOUT}"
        )
    order = sorted(blocks, key=lambda block: (("input", "middle", "output").index(block.side), *block[1:]))
    return AdapterSizes(first.shape[1] - FEATURES, first.shape[0], last.shape[0], {key: blocks[key] for key in order})


def read_blob_adapter(name: str, state: Mapping[str, Tensor], operations: type = comfy.ops.manual_cast) -> BlobAdapter:
    """The adapter of a file.

    Args:
        name: the file's, for messages.
        state: what it holds, see the top of this module.
        operations: ComfyUI's namespace of layers.

    Returns:
        In eval mode, holding the file's own tensors in their dtype.

    Raises:
        BlobAdapterError: another kind of file, weights that are missing or too many, shapes that do not fit together.
    """
    sizes = sizes_of(name, state)
    network = BlobAdapter(sizes, dtype=state[_FIRST].dtype, device="meta", operations=operations)
    wanted = network.state_dict()
    wrong = difference(wanted, state)
    if wrong:
        raise BlobAdapterError(f"{name} holds no complete blob adapter:{wrong} {LAYOUT}")
    misshapen = wrong_shape(wanted, state)
    if misshapen:
        raise BlobAdapterError(f"{name}: {misshapen} {LAYOUT}")
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)
