"""Clips sampled on the small demonstration UNet: motion modules, conditions, noise, an IC-Light beside."""

import comfy.samplers
import torch
from motion_files import DEMO_WIDTHS, random_file
from papernodes.networks import demo_format
from papernodes.networks.demo_image import GROUPS
from papernodes.networks.ic_light import FIRST, read_offsets
from papernodes.networks.motion import read_motion
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.patches.ic_light import apply_offsets, with_latents

UNET = FOLDER / "image_unet.safetensors"
SIZE = (4, 8, 8)


def motion(seed=0, positions=32):
    return read_motion("a", random_file(DEMO_WIDTHS, positions, seed=seed), GROUPS)


def text_of(seed, frames=1):
    return [[torch.randn(frames, 8, 128, generator=torch.Generator().manual_seed(seed)), {}]]


def noise_of(seed, frames):
    return torch.randn(frames, *SIZE, generator=torch.Generator().manual_seed(seed))


def sample(model, seed=0, frames=4, *, noise=None, conditions=None, cfg=3.0, sampler="euler"):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*(conditions or (text_of(seed), text_of(100 + seed))))
    guider.set_cfg(cfg)
    noise = noise_of(seed, frames) if noise is None else noise
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
    sampler = comfy.samplers.sampler_object(sampler)
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=seed)


def apart(one, other):
    return float((one - other).abs().max() / other.abs().max())


def ic_light(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = demo_format.load(UNET, "image_unet")[0]
    file = {name: torch.randn(value.shape, generator=generator) * 0.01 for name, value in weights.items()}
    file[FIRST] = torch.randn(48, 8, 3, 3, generator=generator) * 0.01
    return apply_offsets(model, read_offsets("a", file, weights, model.model.model_config.unet_config), 1.0)


def lit(seed, frames, latents):
    return tuple(with_latents(text_of(number, frames), latents) for number in (seed, 100 + seed))
