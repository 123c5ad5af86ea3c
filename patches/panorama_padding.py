"""A UNet that sees its picture's left and right edges meet, and if asked what lies beyond its poles.

Every convolution that is wider than a column is handed the columns from the other side (Tan et al., Imagine360, 2024,
pad the panorama so), and only those: norms, attention and time see the picture as it is. Hooks are put round the
convolutions for the duration of a call, see patches/frames.py for why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

LEAVE, OVER = "as trained", "over the pole"
POLES = (LEAVE, OVER)
"""Beyond the top and bottom rows: nothing, as the network was trained; or the picture from the other side."""


@contextlib.contextmanager
def wrapped(network: nn.Module, strength: float = 1.0, poles: str = LEAVE) -> Iterator[None]:
    """Within it, a network's convolutions go round the width; afterwards it is as it was.

    Args:
        network: with nn.Conv2d or nn.Conv3d layers, called with ``[..., H, W]``.
        strength: what is beyond the edges is multiplied by it, 0 to 1; 0 = nothing is changed at all.
        poles: one of POLES.
    """
    with contextlib.ExitStack() as hooks:
        for module in network.modules() if strength != 0 else ():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.padding_mode == "zeros":
                wrap = _Wrap(module, strength, poles)
                if wrap.columns or wrap.rows:
                    hooks.callback(module.register_forward_pre_hook(wrap.widen).remove)
                    hooks.callback(module.register_forward_hook(wrap.crop).remove)
        yield


class _Wrap:
    """The hooks of one convolution: it pads with zeros as ever, but beyond what was put round the picture."""

    def __init__(self, module: nn.Module, strength: float, poles: str) -> None:
        self.strength = strength
        self.columns = _reach(module, -1)
        self.rows = _reach(module, -2) if poles == OVER else 0

    def widen(self, module: nn.Module, given: tuple) -> tuple:
        x = given[0]
        x = beyond_poles(x, self.rows, self.strength) if self.rows else x
        return (continued(x, self.columns, self.strength) if self.columns else x, *given[1:])

    def crop(self, module: nn.Module, given: tuple, result: Tensor) -> Tensor:
        """Exactly what the convolution would have given for the picture alone, in size."""
        for axis, reach in ((-1, self.columns), (-2, self.rows)):
            if reach:
                # The hook is handed what was widened.
                size = _outputs(module, axis, given[0].shape[axis] - 2 * reach)
                result = result.narrow(axis, reach // module.stride[axis], size)
        return result


def _reach(module: nn.Module, axis: int) -> int:
    """Columns or rows to put on either side: what the layer pads, in whole strides, so that its grid stays."""
    if isinstance(module.padding, str) or module.kernel_size[axis] == 1:
        return 0
    stride = module.stride[axis]
    return -(-module.padding[axis] // stride) * stride


def _outputs(module: nn.Module, axis: int, size: int) -> int:
    span = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
    return (size + 2 * module.padding[axis] - span) // module.stride[axis] + 1


def continued(x: Tensor, columns: int, strength: float = 1.0) -> Tensor:
    """A picture ``[..., W]`` with so many columns more on either side: those of the other side, times a strength."""
    width = x.shape[-1]
    if columns <= width:
        left, right = x[..., width - columns :], x[..., :columns]
    else:  # goes round more than once
        places = torch.arange(columns, device=x.device)
        left, right = x[..., (places - columns) % width], x[..., places % width]
    if strength != 1:
        left, right = left * strength, right * strength
    return torch.cat((left, x, right), -1)


def beyond_poles(x: Tensor, rows: int, strength: float = 1.0) -> Tensor:
    """A panorama ``[..., H, W]`` with so many rows more above and below: its own, in reverse order, half a turn on.

    Args:
        x: the whole width; rows beyond the poles go round as all do, so columns are added after them.
        rows: at most H.
        strength: what is added is multiplied by it.
    """
    height, width = x.shape[-2:]
    rows = min(rows, height)
    top, bottom = x[..., :rows, :], x[..., height - rows :, :]
    beyond = [part.flip(-2).roll(width // 2, -1) for part in (top, bottom)]
    if strength != 1:
        beyond = [part * strength for part in beyond]
    return torch.cat((beyond[0], x, beyond[1]), -2)
