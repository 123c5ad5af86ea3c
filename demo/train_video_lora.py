"""Tunes the toy world's video model on warped noise: ``python -m demo.train_video_lora --state build/training/lora``.

Burgert et al., "Go-with-the-Flow", CVPR 2025 (arXiv 2501.08331): the network learns to denoise clips whose noise moves
with them, and so to let things move as the noise does. Here only a LoRA is trained; network and text encoder stay as
they are shipped. Each clip's noise is the pack's own warped noise from the scene's exact flow, degraded by a random
amount in 0..1 for every item of a batch. Half of the captions tell no motion.

Writes video_lora_warped_noise.safetensors, the moving average in float16, which ComfyUI's LoRA loaders read. It is
shipped as demo/checkpoints/loras/papernodes_demo_warped_noise.safetensors.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from demo import training
from demo.clip_pool import ClipPool, Refreshing, parts_of, settled_time
from demo.diffusion import attention_name, encode_text
from demo.train_image import PROBE_TICKS, captions_of_batch
from demo.train_video import load_models
from demo.training import Trainer, autocast, say
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.video_data import ClipSource, settle_clips
from demo.video_model import SigmaDraw, VideoForward, add_noise, guided, sample
from demo.video_noise import degraded, shuffled, warped_noise
from demo.video_vae import decode_latents, encode_clips, fuse_norms
from demo.world.render import render
from demo.world.scene import Scenes
from demo.world.truth import forward_flow
from demo.world_tokens import token_rows

PHRASINGS = 2  # that tell the motions, and as many that do not
EMPTY_CAPTIONS = 0.1
TOGETHER = 64  # clips whose noise is warped side by side


class ClipMaker:
    """Makes what is learned from of scenes and rows of tokens.

    Args:
        vae: encodes the clips.
        device: where.
        size: of the pictures.
        seed: of the noise.
    """

    def __init__(self, vae, device: torch.device, size: int, seed: int):
        self.vae, self.device, self.size = vae, device, size
        self.seeds = itertools.count(seed * 1_000_003)
        self.seconds = {"render": 0.0, "encode": 0.0, "flow": 0.0, "noise": 0.0}

    @torch.no_grad()
    def __call__(self, scenes: Scenes, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents and warped noise, both float16 [N, 16, T, size/8, size/8], and tokens int16 [N, 2 PHRASINGS, 77]."""
        marks = [settled_time(self.device)]

        def mark(value: Tensor) -> Tensor:
            marks.append(settled_time(self.device))
            return value

        scenes = scenes.to(self.device)
        frames = mark(render(scenes, self.size, self.size).frames)
        latents = mark(encode_clips(self.vae, frames))
        flow = mark(forward_flow(scenes, self.size, self.size)[0])
        noise = mark(warped_noise(flow, latents.shape[2], next(self.seeds)))
        for name, start, end in zip(self.seconds, marks[:-1], marks[1:], strict=True):
            self.seconds[name] += end - start
        return latents, noise.half(), tokens.to(self.device)


def make_loss(forward: VideoForward, text: nn.Module, state: dict[str, Tensor], pool: ClipPool, arguments):
    """The loss of one step; gradients reach ``state``."""
    from networks.demo_video_lora import apply_lora

    latents, noises, tokens = pool.tensors
    device = latents.device
    chance = SigmaDraw(arguments.batch, arguments.noisy, device)
    empty = torch.from_numpy(token_rows([""])[0]).long().to(device)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32
    frozen = {name: value.detach() for name, value in forward.network.state_dict().items()}
    cast = {name: value.to(working) for name, value in frozen.items()}  # once, as autocast would in every step

    def loss() -> Tensor:
        chosen = pool.draw(arguments.batch)
        clean = latents[chosen].float()
        noise = shuffled(noises[chosen].float())
        degradation = torch.rand(arguments.batch, device=device) ** arguments.degradation_power
        noise = degraded(noise, torch.randn_like(noise), degradation)
        sigmas = chance.draw()
        noisy = add_noise(clean, noise, sigmas).to(working)
        rows = captions_of_batch(tokens, chosen, empty, EMPTY_CAPTIONS)
        weights = {f"network.{name}": value for name, value in (cast | apply_lora(state, frozen)).items()}
        with autocast(device):
            with torch.no_grad():
                context = encode_text(text, rows).to(working)
            found, _ = functional_call(forward, weights, (noisy, sigmas, context))
        return (found.float() - (noise - clean)).square().mean()

    return loss


class FollowingProbe:
    """Whether the network makes use of noise that follows a clip: what the loss does not tell.

    Args:
        pool: latents, warped noise and tokens of clips that are not trained on.
    """

    SIGMA = 0.95

    def __init__(self, pool: Sequence[Tensor]):
        self.clean, self.warped = pool[0].float(), pool[1].float()
        self.rows = pool[2][:, -1].long()  # a caption without motions
        generator = torch.Generator().manual_seed(5)
        self.plain = torch.randn(self.clean.shape, generator=generator).to(self.clean.device)

    @torch.no_grad()
    def __call__(self, forward: VideoForward, text: nn.Module, tuned: dict[str, Tensor]) -> dict[str, float]:
        """Mean squared error of the clean latent: tuned and untuned, with warped and with plain noise.

        Args:
            tuned: apply_lora's weights.
        """
        found = {}
        working = torch.bfloat16 if self.clean.is_cuda else torch.float32
        sigmas = torch.full((self.clean.shape[0],), self.SIGMA, device=self.clean.device)
        weights = {f"network.{name}": value for name, value in tuned.items()}
        for name, noise, changed in (
            ("tuned, warped", self.warped, weights),
            ("tuned, plain", self.plain, weights),
            ("untuned, warped", self.warped, {}),
            ("untuned, plain", self.plain, {}),
        ):
            x = add_noise(self.clean, noise, sigmas).to(working)
            with autocast(self.clean.device):
                context = encode_text(text, self.rows).to(working)
                guess, _ = functional_call(forward, changed, (x, sigmas, context))
            error = (guess.float() - (noise - self.clean)).square().mean() * self.SIGMA**2
            found[name] = round(float(error), 4)
        return found


@torch.no_grad()
def draw_samples(forward: VideoForward, text: nn.Module, vae, tuned, pool, frames, arguments, scale: float) -> None:
    """Writes samples.png: five frames of each clip, what the tuned network makes of its noise, and the untuned one."""
    latents, noises, tokens = pool
    count, steps = (2, 3) if arguments.tiny else (6, 20)
    rows = tokens[:count, -1].long()
    empty = torch.from_numpy(token_rows([""])).long().to(rows.device)
    context = encode_text(text, torch.cat((rows, empty)))
    weights = {f"network.{name}": value for name, value in tuned.items()}

    def tuned_forward(*inputs):
        return functional_call(forward, weights, inputs)

    clips = [decode_latents(vae, latents[:count])]
    for used in (tuned_forward, forward):
        predict = guided(used, context[:-1], context[-1:], scale)
        clips.append(decode_latents(vae, sample(predict, noises[:count].float(), steps)))
    times = torch.linspace(0, frames - 1, 5).round().long()
    save_grid([clip[k, times] for k in range(count) for clip in clips], arguments.state / "samples.png")


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=5, batch=256, rate=1e-3, pictures=24576)
    parser.add_argument("--models", type=Path, default=Path("demo/checkpoints"), help="folder of the video model")
    parser.add_argument("--vae", type=Path, default=Path("demo/checkpoints/video_vae.safetensors"))
    parser.add_argument("--easy", type=float, default=1.0, help="share of clips kept in which nothing turns or grows")
    parser.add_argument("--apart", type=float, default=0.0, help="share of moving cameras before still characters")
    parser.add_argument("--standing", type=float, default=1.0, help="share of clips kept in which the camera stands")
    parser.add_argument("--begin-with", type=Path, help="a LoRA file to go on with")
    parser.add_argument("--fresh", type=float, default=0.4, help="share of the time in which new clips are made")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--noisy", type=float, default=0.75, help="share of a batch that is spaced as samplers do")
    parser.add_argument("--degradation-power", type=float, default=1.0, help="above 1: less degraded noise more often")
    parser.add_argument("--characters", type=float, nargs=4, help="weights of one to four characters in a clip")
    parser.add_argument("--scale", type=float, default=3.0, help="guidance of the samples that are drawn at the end")
    parser.set_defaults(workers=3)  # the GPU takes longer over a clip than they do
    parser.add_argument("--compile", action="store_true", help="fuse elementwise operations, with a C compiler")
    arguments = parser.parse_args()
    device = training.settle(arguments, several=True)
    frames = settle_clips(arguments)
    step = earlier_progress(arguments).step
    seed = arguments.seed * 1000 + step + 31 + 400_000 * arguments.group.number
    how = {"phrasings": PHRASINGS, "silent": PHRASINGS} | {
        name: getattr(arguments, name) for name in ("easy", "apart", "standing")
    }
    how["characters"] = tuple(arguments.characters) if arguments.characters else None
    source = ClipSource(arguments, seed, frames, **how)
    fresh = ClipSource(arguments, 987_654, frames, **how, workers=0)

    from demo.bare_machine import use_host

    use_host()
    from demo.video_vae import read
    from networks.demo_format import load, save
    from networks.demo_video_lora import KIND, apply_lora, initial_lora

    vae = read(arguments.vae, device)
    network, text = load_models(arguments.models, device)
    say(f"attention: {attention_name()}")
    some = parts_of(fresh, ClipMaker(vae, device, arguments.size, 1), TOGETHER)
    probe = FollowingProbe([torch.cat(values) for values in zip(*itertools.islice(some, 2), strict=True)])
    if arguments.compile:
        fuse_norms(vae.vae.encoder, always=True)
    maker, pool = ClipMaker(vae, device, arguments.size, seed), ClipPool(arguments.pictures)
    refreshing = Refreshing(pool, parts_of(source, maker, TOGETHER), arguments.fresh, device)
    refreshing.fill(arguments.drawing_seconds, arguments.pictures)
    forward = VideoForward(network, pool.tensors[0].shape[2:], arguments.compile)
    frozen = network.state_dict()
    file = arguments.begin_with
    begun = load(file, KIND)[0] if file else initial_lora(arguments.seed, arguments.rank)
    state = {name: value.float().to(device).requires_grad_() for name, value in begun.items()}
    say(f"{sum(value.numel() for value in state.values()) / 1e6:.2f} M parameters")
    trainer = Trainer(state, make_loss(forward, text, state, pool, arguments), arguments, reserve=20, average=0.998)
    ticks = iter(range(1 << 30))

    def on_tick() -> None:
        refreshing.spend()
        if next(ticks) % PROBE_TICKS == 0:
            say(f"step {trainer.progress.step}: {probe(forward, text, apply_lora(state, frozen))}")

    trainer.train(on_tick)
    source.close()
    seconds = {name: round(value, 1) for name, value in maker.seconds.items()}
    say(f"{pool.made} clips made in {refreshing.seconds:.0f} s: {seconds}")
    trainer.group.leave()
    target = arguments.out / f"{KIND}.safetensors"
    metadata = {**trainer.metadata(KIND), "rank": str(arguments.rank)}
    save(target, trainer.averaged(), metadata, packed=False)
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    stored = {name: value.to(device) for name, value in load(target, KIND)[0].items()}
    tuned = apply_lora(stored, frozen)
    errors = probe(forward, text, tuned)
    say(f"errors of the clean latent: {errors}")
    save(target, stored, {**metadata, "errors": str(errors)}, packed=False)
    shown = (probe.clean, probe.warped, probe.rows[:, None])
    draw_samples(forward, text, vae, tuned, shown, frames, arguments, arguments.scale)
    say("done")


if __name__ == "__main__":
    main()
