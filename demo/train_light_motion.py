"""Trains motion modules for relit clips: ``python -m demo.train_light_motion --light FILE --state DIR``.

Fang et al., RelightVid, 2025: temporal attention between the blocks of an image UNet that relights by IC-Light's fbc
file, and group norms over all frames; UNet and light stay as they are. Clips of 16 frames, whose characters and camera
move as the world's do and whose light stands or goes round; each frame has noise of its own. A tenth of the clips has
no latents beside the noise, for the second kind of guidance (relight.md: uncond text with zero image latents).

Writes relight_motion.safetensors, the moving average in int8.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from demo import training
from demo.clip_pool import ClipPool, Refreshing, parts_of
from demo.diffusion import (
    add_noise,
    add_time_arguments,
    attention_name,
    encode_text,
    guided,
    sample,
    signal_levels,
    time_draw,
)
from demo.light_pairs import clip_maker
from demo.train_image import captions_of_batch, load_models
from demo.train_light import EMPTY_CAPTIONS
from demo.training import Trainer, autocast, say
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.video_data import ClipSource
from demo.world_tokens import token_rows

FRAMES = 16
WITHOUT_PICTURES = 0.1
"""Share of the clips that are drawn without the latents beside the noise."""

TOGETHER = 64
"""Clips that are rendered and encoded together."""


class RelitClip(nn.Module):
    """The image UNet, tuned to relight, with motion modules between its blocks.

    Args:
        unet: the image model's.
        weights: its tuned ones, demo_light.apply_light's.
        motion: a MotionNetwork, or None.
        frames: of a clip.
        joint_norm: whether norms see whole clips; without and with no motion modules frames are alone.
    """

    def __init__(
        self,
        unet: nn.Module,
        weights: dict[str, Tensor],
        motion: nn.Module | None,
        frames: int,
        joint_norm: bool = True,
    ):
        super().__init__()
        self.unet, self.motion, self.frames, self.joint_norm = unet, motion, frames, joint_norm
        self.weights = weights

    def forward(self, x: Tensor, beside: Tensor, times: Tensor, context: Tensor) -> Tensor:
        """The noise found in clips [B, T, 4, h, w], with [B, T, 8, h, w] beside it; times [B], context [B, 77, 128]."""
        from papernodes.patches.frames import joined

        size = x.shape
        inputs = torch.cat((x, beside), 2).flatten(0, 1).to(memory_format=torch.channels_last)
        times, context = (some.repeat_interleave(self.frames, 0) for some in (times, context))
        with joined(self.unet, self.frames, self.motion, joint_norm=self.joint_norm):
            found = functional_call(
                self.unet, self.weights, (inputs, times, context), {"transformer_options": {}}, strict=True
            )
        return found.view(size)


def attend(attention: nn.Module, x: Tensor) -> Tensor:
    """What networks.motion.TemporalAttention does, [tracks, F, C] -> the same, by products of small matrices.

    Fused kernels work on tiles that 16 frames and 6 channels a head leave almost empty: forward and backward of one
    call took 5.3 ms on an H100, and take 1.4 so.
    """
    x = x + attention.pos_encoder.pe[:, : x.shape[1]].to(x.dtype)
    parts = (attention.to_q(x), attention.to_k(x), attention.to_v(x))
    q, k, v = (part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in parts)
    weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return attention.to_out((weights @ v).transpose(1, 2).flatten(2))


def build_motion(state: dict[str, Tensor], device: torch.device) -> nn.Module:
    """A MotionNetwork of the file's weights, to be trained."""
    from papernodes.networks.motion import TemporalAttention, read_motion

    from demo.diffusion import training_operations
    from networks.demo_image import GROUPS
    from networks.demo_motion import with_positions

    tables = with_positions({name: value.float().to(device) for name, value in state.items()})
    network = read_motion("training", tables, groups=GROUPS, operations=training_operations()).requires_grad_()
    for module in network.modules():
        if isinstance(module, TemporalAttention):
            module.forward = partial(attend, module)
    return network


def make_loss(relit: RelitClip, text: nn.Module, pool: ClipPool, arguments):
    """The loss of one step."""
    clips, lights, tokens = pool.tensors
    device = clips.device
    levels = signal_levels(device)
    chance = time_draw(levels, arguments)
    empty = torch.from_numpy(token_rows([""])[0]).long().to(device)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32

    def loss() -> Tensor:
        chosen = pool.draw(arguments.batch)
        clean = clips[chosen].float()
        noise = torch.randn_like(clean)
        times, weights = chance.draw()
        noisy = add_noise(clean, noise, levels[times]).to(working)
        without = torch.rand(arguments.batch, 1, 1, 1, 1, device=device) < WITHOUT_PICTURES
        beside = lights[chosen].to(working).masked_fill(without, 0)
        rows = captions_of_batch(tokens, chosen, empty, EMPTY_CAPTIONS)
        with autocast(device):
            with torch.no_grad():
                context = encode_text(text, rows).to(working)
            found = relit(noisy, beside, times.float(), context)
        return ((found.float() - noise).square().mean((1, 2, 3, 4)) * weights).mean()

    return loss


@torch.no_grad()
def draw_samples(relit: RelitClip, text: nn.Module, vae, pool: ClipPool, arguments, scale: float = 2.0) -> None:
    """Writes samples.png, for each clip five frames of: background, wanted, drawn with motion modules."""
    count, steps = (1, 3) if arguments.tiny else (4, 20)
    clips, lights, _ = (some[:count].float() for some in pool.tensors)
    device = clips.device
    empty = encode_text(text, torch.from_numpy(token_rows([""])).long().to(device))

    def predict(x: Tensor, times: Tensor, context: Tensor, **named) -> Tensor:
        clip = x.unflatten(0, (-1, relit.frames))
        rows = clip.shape[0]
        beside = lights.repeat(rows // count, 1, 1, 1, 1)
        return relit(clip, beside, times[:: relit.frames], context[:: relit.frames]).flatten(0, 1)

    noise = torch.randn(clips.flatten(0, 1).shape, generator=torch.Generator().manual_seed(7)).to(device)
    context = empty.expand(noise.shape[0], -1, -1)
    found = sample(guided(predict, context, empty, scale), noise, steps).unflatten(0, (count, relit.frames))
    times = torch.linspace(0, relit.frames - 1, min(5, relit.frames)).round().long()
    shown = (lights[:, times, 4:], clips[:, times], found[:, times])
    save_grid([vae.decoder(some[k]) for k in range(count) for some in shown], arguments.state / "samples.png")


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=8, batch=32, rate=1e-3, pictures=16384)
    parser.add_argument("--light", type=Path, default=Path("demo/checkpoints/ic_light_fbc.safetensors"))
    parser.add_argument("--models", type=Path, default=Path("demo/checkpoints"), help="folder of the image model")
    parser.add_argument("--vae", type=Path, default=Path("demo/checkpoints/image_vae.safetensors"))
    parser.add_argument("--begin-with", type=Path, help="a file to go on with")
    parser.add_argument("--fresh", type=float, default=0.25, help="share of the time in which new clips are made")
    parser.add_argument("--characters", type=float, nargs=4, default=[0.8, 0.2, 0.0, 0.0], help="weights of how many")
    add_time_arguments(parser, layout=0.5, layout_weight=1.0)
    arguments = parser.parse_args()
    device = training.settle(arguments, several=True)
    frames = FRAMES
    if arguments.tiny:
        arguments.pictures, arguments.size, arguments.batch, frames = 4, 32, 2, 4
    finished = arguments.begin_with
    progress = earlier_progress(arguments, "--begin-with", finished, "relight_motion")
    seed = arguments.seed * 1000 + progress.step + 97 + 400_000 * arguments.group.number
    source = ClipSource(arguments, seed, frames, phrasings=1, silent=2, characters=tuple(arguments.characters))

    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    from demo import train_vae
    from networks.demo_format import load, save
    from networks.demo_light import apply_light
    from networks.demo_motion import KIND, initial_motion

    vae = train_vae.read(arguments.vae, device).to(memory_format=torch.channels_last)
    unet, text = load_models(arguments.models, device)
    say(f"attention: {attention_name()}")
    light = {name: value.to(device) for name, value in load(arguments.light, "ic_light_fbc")[0].items()}
    working = torch.bfloat16 if device.type == "cuda" else torch.float32
    weights = {name: value.detach() for name, value in unet.state_dict().items()} | apply_light(
        light, unet.state_dict()
    )
    weights = {name: value.to(working) for name, value in weights.items()}  # once, as autocast would in every step
    pool = ClipPool(arguments.pictures)
    maker = clip_maker(vae, device, arguments.size, seed)
    refreshing = Refreshing(pool, parts_of(source, maker, TOGETHER), arguments.fresh, device)
    refreshing.fill(arguments.drawing_seconds, arguments.pictures)
    motion = build_motion(load(finished, KIND)[0] if finished else initial_motion(arguments.seed), device)
    relit = RelitClip(unet, weights, motion, frames)
    state = dict(motion.named_parameters())
    say(f"{sum(value.numel() for value in state.values()) / 1e6:.2f} M parameters")
    loss = make_loss(relit, text, pool, arguments)
    trainer = Trainer(state, loss, arguments, reserve=20, average=0.998, progress=progress)
    trainer.train(refreshing.spend)
    source.close()
    say(f"{pool.made} clips made in {refreshing.seconds:.0f} s")
    trainer.group.leave()
    target = arguments.out / f"{KIND}.safetensors"
    save(target, trainer.averaged(), trainer.metadata(KIND))
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    relit.motion = build_motion(load(target, KIND)[0], device).requires_grad_(False)
    relit.weights = {name: value.float() for name, value in weights.items()}
    draw_samples(relit, text, vae, pool, arguments)
    say("done")


if __name__ == "__main__":
    main()
