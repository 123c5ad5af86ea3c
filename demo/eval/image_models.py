"""The image models on a machine with little but PyTorch: the shipped files, and ComfyUI's samplers in batches.

Schedules, scaling and steps are those of KSampler on SD1.5 with "euler" or "dpmpp_2m" and "normal" or "karras"
(comfy.samplers, comfy.model_sampling.EPS, comfy.k_diffusion.sampling); tests/demo/test_eval_image.py compares them.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from demo.diffusion import STEPS as TIMES
from demo.diffusion import encode_text, signal_levels
from demo.training import autocast, batches
from demo.world_tokens import token_rows

FILES = ("image_unet", "image_text_encoder", "image_vae", "image_clip_vision", "image_controlnet_lineart")
CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
SIZE = 128
STEPS = 20
SAMPLERS, SCHEDULERS = ("euler", "dpmpp_2m"), ("normal", "karras")


def file_hashes(folder: Path = CHECKPOINTS) -> dict[str, str]:
    """Kind -> SHA-256 of its file.

    Raises:
        FileNotFoundError: a file is missing.
    """
    return {kind: hashlib.sha256((folder / f"{kind}.safetensors").read_bytes()).hexdigest() for kind in FILES}


def story_lora_path(folder: Path = CHECKPOINTS) -> Path:
    """Where the LoRA for stories lies."""
    from networks.demo_lora import lora_path
    from networks.demo_story_lora import FILE_NAME, KIND

    return lora_path(folder, KIND, FILE_NAME)


def noise_levels() -> Tensor:
    """float32 [1000]: sigma at each time, as ComfyUI scales SD1.5's noise."""
    levels = signal_levels().double()
    return ((1 - levels) / levels).sqrt().float()


def schedule(scheduler: str = "normal", steps: int = STEPS, denoise: float = 1.0) -> Tensor:
    """float32 [steps + 1]: KSampler's sigmas for one of SCHEDULERS, the last one 0.

    Raises:
        ValueError: another scheduler.
    """
    total = int(steps / denoise) if denoise < 0.9999 else steps
    if scheduler == "normal":
        logarithms = noise_levels().log()
        times = torch.linspace(TIMES - 1, 0, total)
        low, high = times.floor().long(), times.ceil().long()
        share = times.frac()
        sigmas = ((1 - share) * logarithms[low] + share * logarithms[high]).exp()
    elif scheduler == "karras":
        levels = noise_levels() ** (1 / 7)
        sigmas = (levels[-1] + torch.linspace(0, 1, total) * (levels[0] - levels[-1])) ** 7
    else:
        raise ValueError(f"scheduler is {scheduler!r}; expected one of {', '.join(SCHEDULERS)}.")
    return torch.cat((sigmas, torch.zeros(1)))[-(steps + 1) :]


class ImageModels:
    """UNet, text encoder, VAE and, where their files are there, CLIP vision and ControlNet.

    Args:
        folder: of the files; of the UNet another file may be given.
        device: where everything runs; in bfloat16 on a GPU.
        unet: another UNet's file, to compare.
        lora: the file of a LoRA for stories, at strength 1.
        sampler: one of SAMPLERS.
        scheduler: one of SCHEDULERS.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        unet: Path | None = None,
        sampler: str = "euler",
        scheduler: str = "normal",
        lora: Path | None = None,
    ):
        from demo import train_vae
        from demo.train_image import load_models
        from networks.demo_format import load

        self.folder, self.device = folder, device
        self.unet, self.text = (model.to(device).eval() for model in load_models(folder, device))
        if unet is not None:
            self.unet.load_state_dict(load(unet, "image_unet")[0])
        if lora is not None:
            self._tune(lora)
        self.vae = train_vae.read(folder / "image_vae.safetensors", device)
        self.working = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.control = None
        self.sampler, self.scheduler = sampler, scheduler

    def _tune(self, path: Path) -> None:
        from networks.demo_story_lora import apply_lora, load_lora

        state = {name: value.to(self.device) for name, value in load_lora(path).items()}
        unet, text = apply_lora(state, self.unet.state_dict(), self.text.state_dict())
        self.unet.load_state_dict(unet, strict=False)
        self.text.load_state_dict(text, strict=False)

    def load_control(self) -> None:
        """Load the ControlNet, too."""
        from demo.diffusion import training_operations
        from networks.demo_controlnet import assemble, build_controlnet
        from networks.demo_format import load

        state = load(self.folder / "image_controlnet_lineart.safetensors", "image_controlnet_lineart")[0]
        unet = load(self.folder / "image_unet.safetensors", "image_unet")[0]
        self.control = build_controlnet(self.device, torch.float32, training_operations())
        self.control.load_state_dict({name: value.to(self.device) for name, value in assemble(state, unet).items()})
        self.control.eval().requires_grad_(False)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Conditioning [B, 77, 128]."""
        rows = torch.from_numpy(token_rows(prompts)).long().to(self.device)
        return torch.cat([encode_text(self.text, part) for part in rows.split(512)]).to(self.working)

    @torch.no_grad()
    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of pictures [B, 3, H, W] in 0..1."""
        return torch.cat([self.vae.encode(part.to(self.device)).float() for part in pictures.split(256)])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures float32 in 0..1."""
        return torch.cat([self.vae.decoder(part).float().clamp(0, 1) for part in latents.split(256)])

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        seed: int,
        cfg: float,
        *,
        negative: Sequence[str] | str = "",
        steps: int = STEPS,
        start: Tensor | None = None,
        denoise: float = 1.0,
        hint: Tensor | None = None,
        strength: float = 1.0,
        batch: int = 512,
    ) -> Tensor:
        """Pictures float32 [B, 3, 128, 128] in 0..1.

        Args:
            prompts: B sentences of the world's words.
            seed: of the noise.
            cfg: guidance; at 1 the negative prompt is not looked at, as in ComfyUI.
            negative: one for all or B.
            steps: of the sampler.
            start: latents to begin from, for img2img, with ``denoise`` below 1.
            denoise: how much of the way is left.
            hint: float32 [B, 3, 128, 128], white lines on black, for the ControlNet.
            strength: of the ControlNet.
            batch: pictures at a time.
        """
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(prompts), 4, SIZE // 8, SIZE // 8, generator=generator).to(self.device)
        positive = self.encode_prompts(prompts)
        unwanted = self.encode_prompts([negative] if isinstance(negative, str) else negative)
        unwanted = unwanted.expand_as(positive)
        found = []
        for part in batches(len(prompts), batch):
            latents = self.sample(
                noise[part],
                positive[part],
                unwanted[part],
                cfg,
                schedule(self.scheduler, steps, denoise),
                None if start is None else start[part],
                None if hint is None else (hint[part].to(self.device), strength),
            )
            found.append(self.decode(latents))
        return torch.cat(found)

    def sample(self, noise, positive, unwanted, cfg, sigmas, start, hint, options: dict | None = None) -> Tensor:
        """Latents by the steps of ``sampler``; ``options`` are the UNet's transformer_options."""
        levels = noise_levels().log()
        both = torch.cat((positive, unwanted)) if cfg != 1 else positive
        x = noise * sigmas[0] + start if start is not None else noise * (1 + sigmas[0] ** 2).sqrt()
        clean_before, step_before = None, 0.0
        for now, later in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
            time = int((levels - torch.tensor(now).log()).abs().argmin())
            scaled = (x / (now * now + 1) ** 0.5).repeat(both.shape[0] // x.shape[0], 1, 1, 1).to(self.working)
            times = torch.full((both.shape[0],), float(time), device=self.device)
            with autocast(self.device):
                control = None if hint is None else self.control_of(scaled, times, both, *hint)
                error = self.unet(scaled, times, both, control=control, transformer_options=options or {}).float()
            if cfg != 1:
                wanted, other = error.chunk(2)
                error = other + cfg * (wanted - other)
            if self.sampler == "euler" or later == 0:  # the last step of both ends at the clean latent
                x = x + error * (later - now)
                continue
            # DPM-Solver++(2M): Lu et al., arXiv 2211.01095, algorithm 2.
            step, clean = math.log(now / later), x - error * now
            ahead = clean if clean_before is None else clean + (clean - clean_before) * (step / step_before / 2)
            x = later / now * x - math.expm1(-step) * ahead
            clean_before, step_before = clean, step
        return x

    def control_of(self, x: Tensor, times: Tensor, context: Tensor, hint: Tensor, strength: float) -> dict:
        """What the UNet takes from the ControlNet."""
        hint = hint.repeat(x.shape[0] // hint.shape[0], 1, 1, 1).to(self.working)
        found = self.control(x, hint, times, context)
        return {
            "input": [],
            "middle": [value * strength for value in found["middle"]],
            "output": [value * strength for value in found["output"]],
        }
