"""What an adapter is told of blobs."""

from dataclasses import dataclass

from torch import Tensor


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
