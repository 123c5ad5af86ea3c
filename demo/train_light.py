"""Tunes the toy world's image model to change the light: ``python -m demo.train_light --kind ic_light_fc --state DIR``.

lllyasviel, IC-Light (2024): latents of a foreground, and of a background in the variant fbc, lie beside the noisy ones,
and the UNet learns to draw that foreground under another light. Trained are low-rank offsets and the first
convolution's own (networks/demo_light.py); the image model stays as it is shipped. Half of the captions are empty, so
that the light is learned from what is seen: the background, or what sampling starts from. The loss is the image
model's, and its share of noisier times is where light is decided.

Writes ic_light_fc.safetensors or ic_light_fbc.safetensors, the moving average in int8.
"""

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
from demo.light_pairs import pair_maker
from demo.train_image import captions_of_batch, load_models
from demo.training import Trainer, autocast, say
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.video_data import ClipSource, settle_clips
from demo.world_tokens import token_rows

EMPTY_CAPTIONS = 0.5
TOGETHER = 1024
"""Pairs that are rendered and encoded together."""


def make_loss(unet: nn.Module, text: nn.Module, state: dict[str, Tensor], pool: ClipPool, arguments):
    """The loss of one step; gradients reach ``state``."""
    from networks.demo_light import apply_light

    latents, lights, tokens = pool.tensors
    device = latents.device
    levels = signal_levels(device)
    chance = time_draw(levels, arguments)
    empty = torch.from_numpy(token_rows([""])[0]).long().to(device)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32
    frozen = {name: value.detach() for name, value in unet.state_dict().items()}
    cast = {name: value.to(working) for name, value in frozen.items()}  # once, as autocast would in every step

    def loss() -> Tensor:
        chosen = pool.draw(arguments.batch)
        clean = latents[chosen].float()
        noise = torch.randn_like(clean)
        times, weights = chance.draw()
        inputs = torch.cat((add_noise(clean, noise, levels[times]), lights[chosen].float()), 1)
        rows = captions_of_batch(tokens, chosen, empty, EMPTY_CAPTIONS)
        with autocast(device):
            with torch.no_grad():
                context = encode_text(text, rows).to(working)
            inputs = inputs.to(working, memory_format=torch.channels_last)
            tuned = cast | apply_light(state, frozen)
            found = functional_call(unet, tuned, (inputs, times.float(), context), {"transformer_options": {}})
        return ((found.float() - noise).square().mean((1, 2, 3)) * weights).mean()

    return loss


@torch.no_grad()
def draw_samples(unet: nn.Module, text: nn.Module, vae, state, pool: ClipPool, arguments, scale: float = 2.0) -> None:
    """Writes samples.png, a column for each pair: what is given, what is wanted, what the tuned network draws."""
    from networks.demo_light import apply_light

    count, steps = (2, 3) if arguments.tiny else (8, 20)
    latents, lights, _ = (some[:count] for some in pool.tensors)
    device = latents.device
    weights = apply_light(state, unet.state_dict())
    empty = encode_text(text, torch.from_numpy(token_rows([""])).long().to(device))

    def tuned(x, times, context, **named):
        inputs = torch.cat((x, lights.float().repeat(x.shape[0] // count, 1, 1, 1)), 1)
        return functional_call(unet, weights, (inputs, times, context), {"transformer_options": {}})

    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(7)).to(device)
    found = sample(guided(tuned, empty.expand(count, -1, -1), empty, scale), noise, steps)
    shown = [*lights.float().split(4, 1), latents.float(), found]
    save_grid([vae.decoder(some) for some in shown], arguments.state / "samples.png")


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=6, batch=512, rate=1e-3, pictures=131_072)
    parser.add_argument("--kind", choices=("ic_light_fc", "ic_light_fbc"), required=True)
    parser.add_argument("--models", type=Path, default=Path("demo/checkpoints"), help="folder of the image model")
    parser.add_argument("--vae", type=Path, default=Path("demo/checkpoints/image_vae.safetensors"))
    parser.add_argument("--begin-with", type=Path, help="a file of this kind to go on with")
    parser.add_argument("--fresh", type=float, default=0.2, help="share of the time in which new pairs are made")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--characters", type=float, nargs=4, default=[0.75, 0.25, 0.0, 0.0], help="weights of how many")
    add_time_arguments(parser, layout=0.5, layout_weight=1.0)
    arguments = parser.parse_args()
    device = training.settle(arguments, several=True)
    frames = settle_clips(arguments, 1)
    finished = arguments.begin_with
    progress = earlier_progress(arguments, "--begin-with", finished, arguments.kind)
    seed = arguments.seed * 1000 + progress.step + 83 + 400_000 * arguments.group.number
    source = ClipSource(arguments, seed, frames, phrasings=3, characters=tuple(arguments.characters))

    from demo.bare_machine import use_host

    use_host()
    from demo import train_vae
    from networks.demo_format import load, save
    from networks.demo_light import FILE_KINDS, initial_light

    channels = FILE_KINDS[arguments.kind]
    vae = train_vae.read(arguments.vae, device).to(memory_format=torch.channels_last)
    unet, text = load_models(arguments.models, device)
    say(f"attention: {attention_name()}")
    maker = pair_maker(vae, device, arguments.size, seed, background=channels == 12)
    pool = ClipPool(arguments.pictures)
    refreshing = Refreshing(pool, parts_of(source, maker, TOGETHER), arguments.fresh, device)
    refreshing.fill(arguments.drawing_seconds, arguments.pictures)
    begun = load(finished, arguments.kind)[0] if finished else initial_light(channels, arguments.seed, arguments.rank)
    state = {name: value.float().to(device).requires_grad_() for name, value in begun.items()}
    say(f"{sum(value.numel() for value in state.values()) / 1e6:.2f} M parameters")
    loss = make_loss(unet, text, state, pool, arguments)
    trainer = Trainer(state, loss, arguments, reserve=20, average=0.998, progress=progress)
    trainer.train(refreshing.spend)
    source.close()
    say(f"{pool.made} pairs made in {refreshing.seconds:.0f} s")
    trainer.group.leave()
    target = arguments.out / f"{arguments.kind}.safetensors"
    save(target, trainer.averaged(), {**trainer.metadata(arguments.kind), "rank": str(arguments.rank)})
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    stored = {name: value.to(device) for name, value in load(target, arguments.kind)[0].items()}
    draw_samples(unet, text, vae, stored, pool, arguments)
    say("done")


if __name__ == "__main__":
    main()
