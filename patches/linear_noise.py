"""A truly linear schedule of noise levels, as AnimateDiff has it and IC-Light's own demonstration, and Karras' spacing.

SD1.5 was trained on levels whose square roots of beta rise in a straight line (the host's "linear"). AnimateDiff was
trained and is sampled on betas that do so themselves (the host's "sqrt_linear"), from 25.1 instead of 14.6; IC-Light's
demonstration samples on them, too. Karras et al., arXiv 2206.00364, equation 5, for the spacing.
"""

from __future__ import annotations

import comfy.model_sampling
import torch
from comfy.k_diffusion.sampling import get_sigmas_karras
from torch import Tensor

BETAS = (0.00085, 0.012)
TIMES = 1000


def with_linear_levels(model: object) -> object:
    """A MODEL that knows the linear schedule's noise levels; what it predicts stays as it is.

    Args:
        model: a ModelPatcher whose levels are a table, as SD1.5's are; it stays as it is.

    Raises:
        ValueError: its levels are no table.
    """
    before = model.get_model_object("model_sampling")
    sampling = type("LinearLevels", (comfy.model_sampling.ModelSamplingDiscrete, *_prediction(before)), {})(
        model.model.model_config
    )
    sampling._register_schedule(
        beta_schedule="sqrt_linear", timesteps=TIMES, linear_start=BETAS[0], linear_end=BETAS[1]
    )
    changed = model.clone()
    changed.add_object_patch("model_sampling", sampling)
    return changed


def _prediction(sampling: object) -> tuple[type, ...]:
    """What the model predicts (noise, velocity, ...), as the host mixes it in."""
    # All kinds derive from that of noise, so it is the one that says how a picture follows from the prediction.
    found = tuple(kind for kind in type(sampling).__mro__ if "calculate_denoised" in vars(kind))
    if not found or not isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete):
        raise ValueError(
            f"the model samples by {type(sampling).__name__}; expected a table of noise levels, as SD1.5 has."
        )
    return found[:1]


def planned_steps(steps: int, denoise: float) -> int:
    """How many steps are planned so that ``steps`` are left of them at a denoise below 1: round(steps / denoise).

    Raises:
        ValueError: no steps, or a denoise outside 0..1.
    """
    if steps < 1 or not 0 < denoise <= 1:
        raise ValueError(f"steps is {steps} and denoise {denoise}; expected at least 1 and over 0 up to 1.")
    return round(steps / denoise)


def karras_sigmas(sampling: object, steps: int, denoise: float = 1.0) -> Tensor:
    """float32 [steps + 1]: Karras' spacing between a schedule's highest and lowest level, its last ``steps``, then 0.

    Args:
        sampling: the MODEL's model_sampling.
        steps: that are done.
        denoise: below 1 more are planned, and the first are left out.
    """
    planned = planned_steps(steps, denoise)
    sigmas = get_sigmas_karras(planned, float(sampling.sigma_min), float(sampling.sigma_max))
    return sigmas[planned - steps :]


def ddpm_sigmas(sampling: object, steps: int) -> Tensor:
    """float32 [steps + 1]: the levels of times TIMES // steps apart down to 0, then 0, as DDPM's schedulers have them.

    With the host's sampler "ddpm" they are RelightVid's: 950, 900, ..., 0 in 20 steps ("leading", no offset).

    Raises:
        ValueError: steps outside 1..TIMES.
    """
    if not 1 <= steps <= TIMES:
        raise ValueError(f"steps is {steps}; expected 1 to {TIMES}.")
    times = torch.arange(steps - 1, -1, -1) * (TIMES // steps)
    return torch.cat((sampling.sigmas.float().cpu()[times], torch.zeros(1)))
