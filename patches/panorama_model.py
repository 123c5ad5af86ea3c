"""A MODEL whose pictures go all the way round: the left edge continues the right one.

Three ways. Circular padding, for UNets: convolutions see the other side (panorama_padding). A rotary wrap, for
transformers with rotary positions: attention sees along the shorter way round (panorama_rotary). Rolling, for any
network: at every step it is handed the latent turned by another part of the width, so that no place is at an edge for
long; the parts follow the golden ratio, which spreads them evenly for any number of steps. In all three the network is
changed for the duration of a call and no longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import comfy.patcher_extension
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from .panorama_padding import LEAVE, POLES, wrapped
from .panorama_rotary import EMBEDDERS, is_rotary, periodic
from .rows import is_active

KEY = "papernodes_panorama"
"""Of the wrappers; in transformer_options, of the width of the whole latent."""

AUTOMATIC, PADDING, ROTARY, ROLLING = "automatic", "circular padding", "rotary wrap", "rolling"
METHODS = (AUTOMATIC, PADDING, ROTARY, ROLLING)
PLACED = ("control", "area", "mask", "papernodes_blobs")
"""What in a condition belongs to places of the picture, and would not turn with it."""

SCALED = ("WanModel", "VaceWanModel", "CameraWanModel", "Flux")
"""Networks that obey the host's rope_options."""

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Panorama:
    """How a MODEL is made to go round."""

    method: str = AUTOMATIC
    """One of METHODS."""

    poles: str = LEAVE
    """One of POLES; with circular padding."""

    strength: float = 1.0
    """0 = off; of circular padding what the other side is multiplied by, of the rotary wrap how much of a width keys
    are moved, of rolling how far round the latent is turned.
    """

    start: float = 0.0
    end: float = 1.0
    """The part of the sampling in which it holds."""

    def __post_init__(self) -> None:
        """Raises ValueError for a value out of its range."""
        for name, came, known in (("method", self.method, METHODS), ("poles", self.poles, POLES)):
            if came not in known:
                raise ValueError(f"{name} is {came!r}; expected one of: {', '.join(known)}.")
        for name in ("strength", "start", "end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name):g}; expected 0 to 1.")


def method_for(network: object, wanted: str = AUTOMATIC) -> str:
    """PADDING, ROTARY or ROLLING for a network.

    Raises:
        ValueError: ``wanted`` is none that works with it; the message names the network.
    """
    name = type(network).__name__
    if wanted == AUTOMATIC:
        return PADDING if isinstance(network, UNetModel) else ROTARY if is_rotary(network) else ROLLING
    if wanted == PADDING and not isinstance(network, UNetModel):
        raise ValueError(
            f"'method' is {PADDING}, and 'model' ({name}) is no UNet: its attention knows where columns are. Choose "
            f"{AUTOMATIC}, or {ROLLING}, which works with any network."
        )
    if wanted == ROTARY and not is_rotary(network):
        raise ValueError(
            f"'method' is {ROTARY}, and 'model' ({name}) has no rotary positions that are known here. Known are "
            f"{', '.join(EMBEDDERS)}. Choose {AUTOMATIC}, or {ROLLING}, which works with any network."
        )
    return wanted


def with_panorama(model: object, how: Panorama) -> object:
    """A clone of a MODEL that samples latents whose left and right edges meet.

    Args:
        model: a ModelPatcher; it stays as it is. One from here is changed to the new settings.
        how: see Panorama.

    Raises:
        ValueError: a method that the MODEL's network does not allow.
    """
    method = method_for(model.get_model_object("diffusion_model"), how.method)
    round_model = model.clone()

    def check(executor, noise, *arguments, **rest):
        if how.strength != 0:
            _check_latent(noise, executor.class_obj.conds, method)
        return executor(noise, *arguments, **rest)

    def tell_width(executor, base_model, conditions, x, timestep, model_options):
        # A condition for an area is handed a part of the latent, which does not go round.
        options = {**model_options.get("transformer_options", {}), KEY: x.shape[-1]}
        return executor(base_model, conditions, x, timestep, {**model_options, "transformer_options": options})

    def go_round(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **rest):
        options = {} if transformer_options is None else transformer_options
        base_model = executor.class_obj
        whole = options.get(KEY, x.shape[-1]) == x.shape[-1]
        if how.strength == 0 or not whole or not is_active(how.start, how.end, base_model, t):
            return executor(x, t, c_concat, c_crossattn, control, options, **rest)
        network = base_model.diffusion_model
        if method == PADDING:
            with wrapped(network, how.strength, how.poles):
                return executor(x, t, c_concat, c_crossattn, control, options, **rest)
        if method == ROTARY:
            sizes = _tokens(x, network)
            text = 0 if c_crossattn is None else c_crossattn.shape[1]
            with periodic(network, options, *sizes, text, _scale(network, options), how.strength) as told:
                return executor(x, t, c_concat, c_crossattn, control, told, **rest)
        shift = _shift(x.shape[-1], patch_width(network), options, t, how.strength)
        turned = {name: _turn(value, shift, x) for name, value in rest.items()}
        result = executor(x.roll(shift, -1), t, _turn(c_concat, shift, x), c_crossattn, control, options, **turned)
        return result.roll(-shift, -1)

    wrappers = comfy.patcher_extension.WrappersMP
    for kind, wrapper in (
        (wrappers.OUTER_SAMPLE, check),
        (wrappers.CALC_COND_BATCH, tell_width),
        (wrappers.APPLY_MODEL, go_round),
    ):
        round_model.remove_wrappers_with_key(kind, KEY)
        round_model.add_wrapper_with_key(kind, KEY, wrapper)
    return round_model


def is_panorama(model: object) -> bool:
    """Whether a MODEL goes round already."""
    return bool(model.wrappers.get(comfy.patcher_extension.WrappersMP.APPLY_MODEL, {}).get(KEY))


def patch_width(network: object) -> int:
    """Columns of a latent that make a token; 1 where a network has none."""
    size = getattr(network, "patch_size", 1)
    return int(size[-1] if isinstance(size, (tuple, list)) else size)


def _tokens(x: Tensor, network: object) -> tuple[int, int]:
    """Columns of tokens, and all of them, of a latent."""
    size = getattr(network, "patch_size", 1)
    size = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    sides = [-(-side // patch) for side, patch in zip(x.shape[2:], (1, *size)[-(x.ndim - 2) :], strict=True)]
    return sides[-1], math.prod(sides)


def _scale(network: object, options: dict) -> float:
    """From one column's position to the next one's; some of the host's networks let it be set."""
    told = options.get("rope_options") if type(network).__name__ in SCALED else None
    return float((told or {}).get("scale_x", 1.0))


def _shift(width: int, patch: int, options: dict, timestep: Tensor, strength: float) -> int:
    """By how many columns a step's latent is turned; whole tokens, and the same whenever the noise level is."""
    sigmas, sigma = options.get("sample_sigmas"), float(timestep[0])
    if sigmas is None:
        return 0
    levels = sigmas.detach().float().cpu()
    after = int((levels > sigma * (1 + 1e-6)).sum())  # steps that are through
    if 0 < after < len(levels) and float(levels[after]) < sigma * (1 - 1e-6):
        high, low = float(levels[after - 1]), float(levels[after])
        after += (high - sigma) / (high - low) - 1  # between two steps, as some samplers look
    return int((after * _GOLDEN) % 1.0 * strength * (width // patch)) * patch


def _turn(value: object, shift: int, x: Tensor) -> object:
    """What has the latent's rows and columns is turned with it."""
    if isinstance(value, Tensor) and value.ndim >= 4 and value.shape[-2:] == x.shape[-2:]:
        return torch.roll(value, shift, -1)
    return value


def _check_latent(noise: Tensor, conditions: dict, method: str) -> None:
    """Raises ValueError for a latent or a condition that cannot go round."""
    if noise.ndim not in (4, 5):
        raise ValueError(
            f"Panorama Model: the latent has shape {list(noise.shape)}; expected a picture's or a video's, of one part."
        )
    if method != ROLLING:
        return
    for entries in conditions.values():
        for entry in entries:
            for name in PLACED:
                if entry.get(name) is not None:
                    raise ValueError(
                        f"Panorama Model: a conditioning has '{name}', which belongs to places of the picture, and the "
                        f"method is {ROLLING}, which turns it. Leave one of them out."
                    )
