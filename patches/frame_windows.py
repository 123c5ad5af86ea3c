"""Context windows over the frames of a clip: the host's own, made to work where frames are the batch.

``comfy.context_windows`` chooses the windows, runs them and blends what comes out. What of it holds only where
frames are a dimension of their own is put right here: a step is found by one noise level, not by one for each frame;
what lies in ``model_conds`` with an entry for each frame is cut to the window, and so are the pictures of ControlNets.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import comfy.conds
import comfy.context_windows
import comfy.utils
import torch
from torch import Tensor

SCHEDULES = tuple(comfy.context_windows.CONTEXT_MAPPING)
FUSE_METHODS = tuple(comfy.context_windows.FUSE_MAPPING)


@dataclass(frozen=True)
class Windows:
    """How a long clip is cut."""

    length: int = 16
    """Frames in a window; a clip of no more runs in one piece."""

    overlap: int = 4
    """Frames that a window shares with the next, 0 to ``length - 1``."""

    schedule: str = "standard_static"
    """One of SCHEDULES."""

    fuse: str = "pyramid"
    """One of FUSE_METHODS; how much a frame counts by its place in a window."""

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be cut."""
        if self.length < 1:
            raise ValueError(f"the context length is {self.length}; expected at least 1 frame")
        if not 0 <= self.overlap < self.length:
            raise ValueError(
                f"the context overlap is {self.overlap}; expected 0 to {self.length - 1}, less than the length"
            )
        for what, came, known in (("schedule", self.schedule, SCHEDULES), ("fuse", self.fuse, FUSE_METHODS)):
            if came not in known:
                raise ValueError(f"the context {what} is {came!r}; expected {', '.join(known)}")


class FrameWindow(comfy.context_windows.IndexListContextWindow):
    """Some frames of a batch. The host finds them by a list of lists, which newer versions of torch read otherwise."""

    def get_tensor(self, full: Tensor, device=None, dim=None) -> Tensor:
        """Of ``[F, ...]`` the window's frames; what has but one entry is everybody's."""
        return full if full.shape[0] == 1 else full[self.index_list].to(device)

    def add_window(self, full: Tensor, to_add: Tensor, dim=None) -> Tensor:
        """Adds ``[window, ...]`` to the window's frames of ``[F, ...]``, in place."""
        full[self.index_list] += to_add
        return full


class FrameWindows(comfy.context_windows.IndexListContextHandler):
    """The host's windows over a batch of frames."""

    def __init__(self, windows: Windows) -> None:
        fuse, schedules = windows.fuse, comfy.context_windows.ContextSchedules
        linear = fuse == comfy.context_windows.ContextFuseMethods.OVERLAP_LINEAR
        if windows.schedule == schedules.BATCHED or (linear and windows.overlap == 0):
            # Nothing to blend, and the host's ramps want an overlap in every window.
            fuse = comfy.context_windows.ContextFuseMethods.FLAT
        super().__init__(
            context_schedule=comfy.context_windows.get_matching_context_schedule(windows.schedule),
            fuse_method=comfy.context_windows.get_matching_fuse_method(fuse),
            context_length=windows.length,
            context_overlap=windows.overlap,
            closed_loop=windows.schedule == schedules.UNIFORM_LOOPED,
            dim=0,
        )

    def set_step(self, timestep: Tensor, model_options: dict) -> None:
        """Which step it is: the one whose noise level is nearest, as samplers of second order look between steps.

        Args:
            timestep: noise level of each frame, ``[F]``.
            model_options: the host's.
        """
        sigmas = model_options["transformer_options"]["sample_sigmas"]
        self._step = int((sigmas - timestep.flatten()[0]).abs().argmin())

    def get_context_windows(self, model: object, x_in: Tensor, model_options: dict) -> list:
        """The host's windows."""
        return [FrameWindow(one.index_list) for one in super().get_context_windows(model, x_in, model_options)]

    def get_resized_cond(self, cond_in: list[dict] | None, x_in: Tensor, window: object, device=None) -> list | None:
        """Conditions for the frames of a window.

        Args:
            cond_in: of one kind (positive, say), each with the host's keys; they stay as they are.
            x_in: the whole clip, ``[F, C, H, W]``.
            window: the host's, with ``index_list``.
            device: where to; None = where it is.
        """
        found = super().get_resized_cond(cond_in, x_in, window, device)
        for condition in found or ():
            condition["model_conds"] = {
                key: _of_window(value, x_in.shape[0], window) for key, value in condition.get("model_conds", {}).items()
            }
            if condition.get("control") is not None:
                condition["control"] = self._control(condition["control"], x_in.shape[0], window)
        return found

    def _control(self, control: object, frames: int, window: object) -> object:
        """A ControlNet that sees the window's pictures alone; one for all conditions, or the host would split them."""
        held = window.__dict__.setdefault("papernodes_controls", {})
        if id(control) not in held:
            shown = copy.copy(control)
            hint = control.cond_hint_original
            if hint is not None and hint.shape[0] > 1:
                shown.cond_hint_original = window.get_tensor(comfy.utils.repeat_to_batch_size(hint, frames))
            if control.previous_controlnet is not None:
                shown.previous_controlnet = self._control(control.previous_controlnet, frames, window)
            held[id(control)] = shown
        return held[id(control)]


def _of_window(value: object, frames: int, window: object) -> object:
    """What a condition holds for each frame, for those of a window; anything else as it is."""
    held = getattr(value, "cond", None)
    constant = isinstance(value, comfy.conds.CONDConstant) or not isinstance(value, comfy.conds.CONDRegular)
    if constant or not isinstance(held, torch.Tensor) or held.ndim == 0 or held.shape[0] == 1:
        return value
    return value._copy_with(window.get_tensor(comfy.utils.repeat_to_batch_size(held, frames)))
