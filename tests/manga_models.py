"""MangaNinja in miniature: random reference UNets and point nets of the demonstration's size, its UNet, conditions."""

import functools

import comfy.patcher_extension
import comfy.samplers
import torch
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from papernodes.kernels.matched_points import MatchedPoints, Pairs
from papernodes.networks import demo_format, manga_ninja
from papernodes.networks.demo_image import UNET_CONFIG, load_model
from papernodes.networks.point_net import KEYS
from papernodes.patches.manga_ninja import dual_guidance, reference_bank, tagged, with_reference
from papernodes.patches.reference_attention import REFERENCE, WITH_POINTS

UNET = demo_format.FOLDER / "image_unet.safetensors"
WIDTHS = (48, 96, 96, 96)
SIZE = (64, 96)
"""Height and width of the reference and of the target where a test does not say otherwise, pixels."""


@functools.cache
def unet():
    """Demo Checkpoint's MODEL; one object, so clone before patching it."""
    return load_model(UNET)


def reference_state(seed=0, head=False):
    """A reference UNet as it is published: diffusers' names, no last layers; weights a little off the UNet's."""
    generator = torch.Generator().manual_seed(seed)
    names = manga_ninja.diffusers_names(UNET_CONFIG)
    weights = demo_format.load(UNET, "image_unet")[0]
    state = {
        names[key]: value + 0.3 * value.std().nan_to_num() * torch.randn(value.shape, generator=generator)
        for key, value in weights.items()
    }
    return {key: value for key, value in state.items() if head or key not in manga_ninja.HEAD}


def point_state(seed=0, widths=WIDTHS):
    """A point net as it is published, of other widths; random weights and biases that make numbers about 1."""
    generator = torch.Generator().manual_seed(seed)
    inputs = (1, widths[0], widths[0], *widths[:3])
    outputs = (widths[0], widths[0], *widths)
    state = {}
    for key, came, goes in zip(KEYS[::2], inputs, outputs, strict=True):
        state[key] = torch.randn(goes, came, 3, 3, generator=generator) * (2 / (9 * came)) ** 0.5
        state[key.replace("weight", "bias")] = torch.randn(goes, generator=generator) * 0.3
    return state


@functools.cache
def manga(seed=0):
    """What MangaNinja Loader gives."""
    points = manga_ninja.points_patcher(manga_ninja.read_point_net("a", point_state(seed)))
    return manga_ninja.MangaNinja(manga_ninja.read_reference_unet("a", reference_state(seed)), points)


def noise_of(seed=0, batch=1, size=SIZE):
    return torch.randn(batch, 4, size[0] // 8, size[1] // 8, generator=torch.Generator().manual_seed(seed))


def text_of(seed, length=1):
    return [[torch.randn(1, length, 128, generator=torch.Generator().manual_seed(seed)), {}]]


def pairs_of(seed=0, count=3):
    generator = torch.Generator().manual_seed(seed)
    return Pairs(torch.rand(count, 2, generator=generator), torch.rand(count, 2, generator=generator))


def points_of(*seeds, count=3):
    """Pairs for one frame or for several."""
    return MatchedPoints(tuple(pairs_of(seed, count) for seed in seeds))


def conditions_of(seed=0):
    """Positive, middle and negative as MangaNinja Apply gives them."""
    shown = text_of(10 + seed)
    return tagged(shown, WITH_POINTS), tagged(shown, REFERENCE), text_of(500 + seed)


@functools.cache
def bank_of(seed=0, size=SIZE):
    return reference_bank(manga().reference, noise_of(100 + seed, size=size), text_of(10 + seed)[0][0])


def coloured(model=None, points=None, strength=1.0, seed=0, size=SIZE, **more):
    """A MODEL that sees a random reference."""
    model = unet() if model is None else model
    return with_reference(model, bank_of(seed, size), size, manga().points, points, strength, **more)


def sample(model, seed=0, batch=1, *, noise=None, conditions=None, scales=(9.0, 15.0), sampler="euler", steps=2):
    """Latents, through the host's own guider of three conditionings."""
    guider = Guider_DualCFG(model)
    guider.set_conds(*(conditions or conditions_of(seed)))
    guider.set_cfg(*dual_guidance(*scales))
    noise = noise_of(seed, batch) if noise is None else noise
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "ddim_uniform", steps)
    sampler = comfy.samplers.sampler_object(sampler)
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=seed)


def apart(one, other):
    return float((one - other).abs().max() / other.abs().max())


def spy_on_calls(model, calls):
    """A clone whose network calls leave their rows' conditions, such as [2, 1, 0]."""

    def spy(executor, x, *arguments, **rest):
        options = rest.get("transformer_options") or arguments[4]
        calls.append(list(options["cond_or_uncond"]))
        return executor(x, *arguments, **rest)

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "spy", spy)
    return clone
