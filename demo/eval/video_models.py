"""The video models on a machine with little but PyTorch: the shipped files, and ComfyUI's sampler in batches.

Schedule, scaling and steps are those of KSampler on Wan 2.1 with "euler" and "simple" or "normal"
(comfy.model_sampling.ModelSamplingDiscreteFlow and CONST, comfy.k_diffusion.sampling), the noise is that of the node
Warp Noise (patches/warped_noise.py); tests/demo/test_eval_video_models.py compares both.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from demo.training import autocast, batches
from demo.world_tokens import token_rows, vocabulary
from kernels.noise_mix import mix_noise, temporal_downsample
from kernels.noise_warp import ALGORITHMS, warp_noise
from patches.latent_layout import derived_seed, plain_noise

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
STEPS = 20
SHIFT = 8.0
"""Of the noise levels: ComfyUI's own for Wan 2.1."""

TIMES = 1000
SCHEDULERS = ("simple", "normal")
LATENT = (16, 5, 16, 16)
"""Channels, frames, height and width of 17 frames of 128 x 128."""

OVERSAMPLE = 8
"""Warp Noise's default."""


LORA = "video_lora_warped_noise"
FILES = ("video_unet", "video_text_encoder", "video_vae", LORA)


def file_path(folder: Path, kind: str) -> Path:
    """Where a file of one of FILES lies."""
    from networks.demo_lora import lora_path
    from networks.demo_video_lora import FILE_NAME

    return lora_path(folder, kind, FILE_NAME) if kind == LORA else folder / f"{kind}.safetensors"


def file_hashes(folder: Path = CHECKPOINTS, kinds: Sequence[str] = FILES) -> dict[str, str]:
    """Kind -> SHA-256 of its file.

    Raises:
        FileNotFoundError: a file is missing.
    """
    return {kind: hashlib.sha256(file_path(folder, kind).read_bytes()).hexdigest() for kind in kinds}


def shifted(time: Tensor, shift: float) -> Tensor:
    """Noise levels 0..1 at times 0..1, most of them near 1 (Esser et al., arXiv 2403.03206)."""
    return shift * time / (1 + (shift - 1) * time)


def schedule(scheduler: str = "simple", steps: int = STEPS, shift: float = SHIFT) -> Tensor:
    """float32 [steps + 1]: KSampler's sigmas for one of SCHEDULERS, the last one 0.

    Raises:
        ValueError: another scheduler.
    """
    levels = shifted(torch.arange(1, TIMES + 1) / TIMES, shift)
    if scheduler == "simple":
        sigmas = levels[[-(1 + int(step * TIMES / steps)) for step in range(steps)]]
    elif scheduler == "normal":
        # The host walks evenly from the highest level to the lowest, and shifts what it meets once more.
        sigmas = shifted(torch.linspace(float(levels[-1]), float(levels[0]), steps), shift)
    else:
        raise ValueError(f"scheduler is {scheduler!r}; expected one of {', '.join(SCHEDULERS)}.")
    return torch.cat((sigmas, torch.zeros(1)))


def warped_noise(
    flows: Tensor,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    *,
    latent: tuple[int, int, int, int] = LATENT,
    algorithm: str = ALGORITHMS[0],
    oversample: int = OVERSAMPLE,
) -> tuple[Tensor, Tensor]:
    """What Warp Noise (temporal "nearest") mixes for each clip, before degradation: noise that moves, and fresh noise.

    Args:
        flows: float32 [B, T-1, 2, H, W], forward, pixels.
        seeds: one for each clip.
        device: where to compute; a GPU and a CPU draw different numbers.
        latent: channels, frames, height, width.

    Returns:
        Two float32 [B, L, C, h, w] on the device.
    """
    channels, frames, height, width = latent
    moving, fresh = [], []
    for flow, seed in zip(flows, seeds, strict=True):
        noise = warp_noise(
            flow, channels, (height, width), seed=seed, oversample=oversample, algorithm=algorithm, device=device
        )
        moving.append(temporal_downsample(noise, frames, "nearest"))
        fresh.append(plain_noise(moving[-1].shape, derived_seed(seed, "degradation")))
    return torch.stack(moving), torch.stack(fresh).to(device)


def degraded(moving: Tensor, fresh: Tensor, degradation: float) -> Tensor:
    """Noise float32 [B, C, L, h, w] for Wan's latent: what moves at 0, plain noise at 1."""
    mixed = mix_noise(moving.flatten(0, 1), fresh.flatten(0, 1), degradation).view(moving.shape)
    return mixed.transpose(1, 2).contiguous()


@dataclass(frozen=True)
class VideoNetworks:
    """What VideoModels needs of the networks; tests put plain functions in their place.

    Args:
        encode_text: B sentences -> conditioning [B, L, 4096].
        velocity: (latents [B, 16, T, h, w], times [B] in 0..1000, conditioning) -> velocity in the latents' shape:
            noise less clean latent.
        decode: latents as the network knows them -> pictures float32 [B, 4 (T - 1) + 1, 3, H, W] in 0..1.
        encode: pictures -> latents as the network knows them.
    """

    encode_text: Callable[[Sequence[str]], Tensor]
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Tensor]


class VideoModels:
    """Text to video in batches.

    Args:
        networks: see there.
        device: where everything runs.
        scheduler: one of SCHEDULERS.
        steps: of the sampler.
        shift: of the noise levels.
        batch: clips at a time.
    """

    def __init__(
        self,
        networks: VideoNetworks,
        device: torch.device,
        *,
        scheduler: str = "simple",
        steps: int = STEPS,
        shift: float = SHIFT,
        batch: int = 128,
    ):
        self.networks, self.device, self.batch = networks, device, batch
        self.sigmas = schedule(scheduler, steps, shift)

    @torch.no_grad()
    def generate(self, prompts: Sequence[str], noise: Tensor, cfg: float, negative: str = "") -> Tensor:
        """Clips uint8 [B, frames, 3, H, W] on the device.

        Args:
            prompts: B sentences of the world's words.
            noise: float32 [B, 16, T, h, w].
            cfg: guidance; at 1 the negative prompt is not looked at, as in ComfyUI.
            negative: one for all.
        """
        found = []
        for part in batches(len(prompts), self.batch):
            positive = self.networks.encode_text(prompts[part])
            unwanted = None if cfg == 1 else self.networks.encode_text([negative])
            latents = self.sample(noise[part].to(self.device, torch.float32), positive, unwanted, cfg)
            found.append(self.decode(latents))
        return torch.cat(found)

    def sample(self, noise: Tensor, positive: Tensor, unwanted: Tensor | None, cfg: float) -> Tensor:
        """Latents by Euler's steps from the noise, which at sigma 1 is all there is."""
        both = positive if unwanted is None else torch.cat((positive, unwanted.expand_as(positive)))
        x = noise * self.sigmas[0].item()
        for now, later in zip(self.sigmas[:-1].tolist(), self.sigmas[1:].tolist(), strict=True):
            given = x if unwanted is None else torch.cat((x, x))
            times = torch.full((given.shape[0],), now * TIMES, device=x.device)
            found = self.networks.velocity(given, times, both).float()
            if unwanted is not None:
                wanted, other = found.chunk(2)
                found = other + cfg * (wanted - other)
            x = x + found * (later - now)
        return x

    @torch.no_grad()
    def decode(self, latents: Tensor, part: int = 32) -> Tensor:
        """Clips uint8 of latents: what a saved video holds."""
        pictures = [(self.networks.decode(some) * 255).round().clamp(0, 255).byte() for some in latents.split(part)]
        return torch.cat(pictures)

    @torch.no_grad()
    def round_trip(self, frames: Tensor, part: int = 32) -> Tensor:
        """Clips float32 [B, T, 3, H, W] through the VAE and back."""
        return torch.cat([self.networks.decode(self.networks.encode(some)).float() for some in frames.split(part)])


def load_networks(folder: Path, device: torch.device, lora: bool = True) -> tuple[VideoNetworks, VideoNetworks]:
    """The shipped networks without and with the LoRA for warped noise; they share text encoder and VAE.

    Args:
        folder: with FILES.
        device: where they run.
        lora: whether its file is there; else both are without it.

    Raises:
        DemoFileError: a file is missing, damaged or of another kind.
    """
    from networks.demo_format import load
    from networks.demo_video_lora import KIND, apply_lora

    states = {kind: load(file_path(folder, kind), kind)[0] for kind in FILES if lora or kind != KIND}
    plain = networks_of(states, device)
    if not lora:
        return plain, plain
    tuned = states["video_unet"] | apply_lora(states[KIND], states["video_unet"])
    return plain, replace(plain, velocity=velocity_of(tuned, device))


def networks_of(states: dict[str, dict[str, Tensor]], device: torch.device) -> VideoNetworks:
    """Networks of what the files hold, kind -> name -> float32 tensor, without the LoRA."""
    from comfy.latent_formats import Wan21

    from demo.diffusion import encode_text, training_operations
    from networks.demo_image import build_text_transformer
    from networks.demo_video import build_vae, widen

    text = build_text_transformer(device, torch.float32, training_operations(), len(vocabulary()) + 1)
    words = {name: value for name, value in states["video_text_encoder"].items() if name != "vocabulary"}
    text.load_state_dict(words, strict=False)  # its projection, which nothing uses, is not stored
    text.to(device).eval().requires_grad_(False)
    vae = build_vae()
    vae.load_state_dict(states["video_vae"])
    vae.to(device).eval().requires_grad_(False)
    scale = Wan21()

    def encode_words(prompts: Sequence[str]) -> Tensor:
        rows = torch.from_numpy(token_rows(prompts)).long().to(device)
        return widen(torch.cat([encode_text(text, part) for part in rows.split(512)]))

    def decode(latents: Tensor) -> Tensor:
        with autocast(device):
            pictures = vae.decode(scale.process_out(latents.float()))
        return ((pictures.float() + 1) / 2).clamp(0, 1).transpose(1, 2)

    def encode(frames: Tensor) -> Tensor:
        with autocast(device):
            latents = vae.encode(frames.to(device).transpose(1, 2) * 2 - 1)
        return scale.process_in(latents.float())

    return VideoNetworks(encode_words, velocity_of(states["video_unet"], device), decode, encode)


def velocity_of(state: dict[str, Tensor], device: torch.device) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """``VideoNetworks.velocity`` of the network with these weights; in bfloat16 on a GPU."""
    from networks.demo_video import build_network

    network = build_network(device)
    network.load_state_dict(state)
    network.to(device).eval().requires_grad_(False)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32

    def velocity(latents: Tensor, times: Tensor, context: Tensor) -> Tensor:
        with autocast(device):
            return network(latents.to(working), times, context.to(working), transformer_options={})

    return velocity


def random_states() -> dict[str, dict[str, Tensor]]:
    """Weights of the right shapes that were never trained, kind -> name -> float32: to try things out."""
    from networks.demo_image import build_text_transformer
    from networks.demo_video import build_network, build_vae

    built = {
        "video_unet": build_network(),
        "video_text_encoder": build_text_transformer(vocabulary_rows=len(vocabulary()) + 1),
        "video_vae": build_vae(),
    }
    generator = torch.Generator().manual_seed(0)
    states = {}
    for kind, network in built.items():
        states[kind] = {}
        for name, value in network.state_dict().items():
            # Layers leave their memory as it comes; scales begin at 1.
            fan = max(1, value[0].numel()) if value.ndim > 1 else 1
            drawn = torch.randn(value.shape, generator=generator) * (fan**-0.5 if value.ndim > 1 else 0.02)
            is_scale = name.endswith(("gamma", "norm_q.weight", "norm_k.weight")) or (
                value.ndim == 1 and name.endswith("weight")
            )
            states[kind][name] = torch.ones(value.shape) if is_scale else drawn
    return states


def random_networks(device: torch.device) -> tuple[VideoNetworks, VideoNetworks]:
    """Networks of ``random_states`` in the place of those without and with the LoRA."""
    networks = networks_of(random_states(), device)
    return networks, networks
