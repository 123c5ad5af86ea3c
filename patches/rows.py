"""What a condition says of its own rows of the batch, handed to whatever changes the model while it samples.

The host puts conditions of several kinds into one batch, or splits them where memory is short. So a value travels with
its condition: it is read when a step begins, laid beside the text in ``model_conds`` where the host batches it as it
batches the text, and taken out again before the network is called. A condition without one (the negative, say) gets an
empty one, because the host batches only conditions of the same keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import comfy.conds
import comfy.patcher_extension
import comfy.utils
import torch
from torch import Tensor

RANGE = ("start_percent", "end_percent")
"""Where an entry of a CONDITIONING says for which part of the sampling it holds."""

READ, USE = comfy.patcher_extension.WrappersMP.CALC_COND_BATCH, comfy.patcher_extension.WrappersMP.APPLY_MODEL


class RowValues(comfy.conds.CONDRegular):
    """A value of a condition, ``[1, ..., T]``; of conditions with texts of different lengths as the host batches those.

    The host repeats the shorter text until both are as long (which changes no attention), so T is repeated as often.
    """

    def can_concat(self, other: comfy.conds.CONDRegular) -> bool:
        """Whether the host may put two into one batch; the texts decide."""
        return isinstance(other, RowValues) and self.cond.shape[1:-1] == other.cond.shape[1:-1]

    def concat(self, others: list[comfy.conds.CONDRegular]) -> Tensor:
        """The values of a batch, ``[rows, ..., T]``."""
        values = [self.cond, *(other.cond for other in others)]
        longest = math.lcm(*(value.shape[-1] for value in values))
        return torch.cat([value.repeat(*[1] * (value.ndim - 1), longest // value.shape[-1]) for value in values])


def text_length(condition: dict) -> int | None:
    """How many rows of text a condition hands to the network; None without text."""
    text = condition["model_conds"].get("c_crossattn")
    return None if text is None else text.cond.shape[1]


def for_part(entry: list, changed: list, start: float, end: float) -> list[list]:
    """Entries of a CONDITIONING where one is changed for a part of the sampling.

    Args:
        entry: ``[tensor, dict]``, which may hold for a part of the sampling itself.
        changed: what stands for it within the part; neither is changed here.
        start, end: the part, 0 to 1.

    Returns:
        The changed one where both parts meet, and the entry for what comes before and after.
    """
    states, options = entry
    low, high = options.get(RANGE[0], 0.0), options.get(RANGE[1], 1.0)
    first, last = max(low, start), min(high, end)
    if first >= last:
        return [entry]
    text, kept = changed
    limited = (first, last) != (low, high) or any(name in options for name in RANGE)
    around = [(low, first), (last, high)]
    return [
        [text, {**kept, RANGE[0]: first, RANGE[1]: last} if limited else kept],
        *([states, {**options, RANGE[0]: a, RANGE[1]: b}] for a, b in around if a < b),
    ]


def is_active(start: float, end: float, base_model: object, timestep: Tensor) -> bool:
    """Whether a step lies in a part of the sampling.

    Args:
        start: 0 is the first step; as ConditioningSetTimestepRange counts.
        end: 1 is the last.
        base_model: the host's BaseModel, which knows the noise levels.
        timestep: the step's noise level, ``[B]``.
    """
    if start <= 0.0 and end >= 1.0:
        return True
    sigma, sampling = float(timestep[0]), base_model.model_sampling
    return sampling.percent_to_sigma(end) <= sigma <= sampling.percent_to_sigma(start)


def set_row_values(
    model: object,
    key: str,
    read: Callable[[dict, object, Tensor], Tensor | None],
    use: Callable[[Tensor, dict, object, Tensor], dict],
) -> None:
    """Lets a MODEL read a value from each condition, and act on the batch's values whenever its network is called.

    Where no condition has a value in a step, the step is left alone: nothing is computed differently.

    Args:
        model: a ModelPatcher, already cloned; setting the same key again replaces what was there.
        key: a name that no argument of a network has.
        read: (condition, BaseModel, timestep [B]) -> ``[1, ..., T]`` with T = ``text_length(condition)``, or None.
            Called for each condition at every step; all values of a step have the same shape but for T.
        use: (values [rows, ..., T], transformer_options, BaseModel, latents [rows, C, ...]) -> transformer_options for
            this call; it must not change those that it is given. The rows are those of the batch, in their order.
    """

    def read_step(executor, base_model, conditions, x, timestep, model_options):
        values = [[read(one, base_model, timestep) for one in kind or ()] for kind in conditions]
        present = next((value for kind in values for value in kind if value is not None), None)
        if present is None:
            return executor(base_model, conditions, x, timestep, model_options)

        def with_value(condition: dict, value: Tensor | None) -> dict:
            if value is None:
                value = torch.zeros(*present.shape[:-1], text_length(condition) or present.shape[-1])
            held = RowValues(value.to(x.device))
            return {**condition, "model_conds": {**condition["model_conds"], key: held}}

        carrying = [
            None if kind is None else [with_value(*pair) for pair in zip(kind, found, strict=True)]
            for kind, found in zip(conditions, values, strict=True)
        ]
        return executor(base_model, carrying, x, timestep, model_options)

    def use_step(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **rest):
        values = rest.pop(key, None)
        options = {} if transformer_options is None else transformer_options
        if values is not None:
            options = use(values, options, executor.class_obj, x)
        return executor(x, t, c_concat, c_crossattn, control, options, **rest)

    for kind, wrapper in ((READ, read_step), (USE, use_step)):
        model.remove_wrappers_with_key(kind, key)
        model.add_wrapper_with_key(kind, key, wrapper)


def repeat_rows(values: Tensor, rows: int) -> Tensor:
    """Values ``[B, ...]`` for an attention that sees ``rows`` rows, several of them for one of the batch.

    Raises:
        ValueError: ``rows`` is no multiple of B.
    """
    if rows % values.shape[0]:
        raise ValueError(f"attention sees {rows} rows, which are no multiple of the batch's {values.shape[0]}")
    return values.repeat_interleave(rows // values.shape[0], 0)
