"""Trains Imagine360's demonstration: ``python -m demo.train_imagine360 --state build/training/imagine360``.

Tan et al., Imagine360, 2024: a UNet of the panorama and one of views of it, each told what a camera saw, learn together
to draw the rest. Trained are what networks/demo_imagine360.py holds: offsets of both UNets, motion modules, and the
blocks by which they exchange what they know; the image model stays as it is shipped. The views' noise is what they see
of the panorama's, and four tenths of the exchange blocks' calls look at what lies opposite, as in sampling.

Writes imagine360.safetensors, the moving average in int8.
"""

import itertools
import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from demo import training
from demo.clip_pool import ClipPool, Refreshing, parts_of
from demo.diffusion import add_noise, add_time_arguments, attention_name, encode_text, signal_levels, time_draw
from demo.eval.image_models import noise_levels, schedule
from demo.panorama_clips import CHARACTERS, FRAMES, HEIGHT, clip_maker, cube_cameras, noise_index, shared_noise
from demo.train_image import captions_of_batch, load_models
from demo.training import Trainer, autocast, say
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.video_data import ClipSource
from demo.world_tokens import token_rows

ANTIPODAL = 0.4
"""How often an exchange block looks at what lies opposite."""

EMPTY_CAPTIONS = 0.15
TOGETHER = 64
"""Clips that are rendered and encoded together, and have one pitch."""

VIEWS_COUNT = 0.5
"""How much an error in the views counts beside one in the panorama."""


def build_network(device: torch.device, antipodal: float = 0.0) -> nn.Module:
    """An Imagine360Network of the demonstration's sizes, whose weights are handed over in every call.

    Args:
        device: where.
        antipodal: the chance, in every call of every exchange block, of the opposite masks; drawn on the device.
    """
    from papernodes.networks.demo_imagine360 import sizes
    from papernodes.networks.imagine360 import Imagine360Network
    from papernodes.networks.motion import TemporalAttention

    from demo.diffusion import training_operations
    from demo.train_light_motion import attend

    class Network(Imagine360Network):
        """Draws its masks by a tensor, which a captured step can."""

        def _geometry(self, block, sizes, cameras, opposite, x):
            encodings, masks = super()._geometry(block, sizes, cameras, opposite, x)
            if antipodal:
                other = super()._geometry(block, sizes, cameras, not opposite, x)[1]
                chance = torch.rand((), device=x.device) < antipodal
                masks = tuple(torch.where(chance, *pair) for pair in zip(other, masks, strict=True))
            return encodings, masks

    network = Network(sizes(), torch.float32, operations=training_operations()).to(device)
    for module in network.modules():
        if isinstance(module, TemporalAttention):
            module.forward = partial(attend, module)
    return network.requires_grad_(False)


def cast_weights(state: dict[str, Tensor], unet: dict[str, Tensor], working: torch.dtype) -> dict[str, Tensor]:
    """What a call of the network takes; gradients reach ``state``.

    Args:
        state: demo_imagine360's.
        unet: the image model's, in the dtype that is worked in.
        working: that dtype.
    """
    from papernodes.networks.demo_imagine360 import network_state

    return {name: value.to(working) for name, value in network_state(state, unet).items()}


def make_loss(network: nn.Module, text: nn.Module, unet: dict, state: dict, pool: ClipPool, arguments):
    """The loss of one step; gradients reach ``state``."""
    from papernodes.networks.imagine360 import Condition

    panoramas, views, told, told_views, tokens = pool.tensors
    device = panoramas.device
    levels = signal_levels(device)
    chance = time_draw(levels, arguments)
    empty = torch.from_numpy(token_rows([""])[0]).long().to(device)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32
    unet = {name: value.detach().to(working) for name, value in unet.items()}
    index, cameras = noise_index(panoramas.shape[3] * 8).to(device), cube_cameras()

    def loss() -> Tensor:
        chosen = pool.draw(arguments.batch)
        clean = [some[chosen].float() for some in (panoramas, views)]
        noise = torch.randn_like(clean[0])
        noises = [noise, shared_noise(noise, index)]
        times, weights = chance.draw()
        noisy = [add_noise(*pair, levels[times]).to(working) for pair in zip(clean, noises, strict=True)]
        condition = Condition(told[chosen].to(working), told_views[chosen].to(working), cameras)
        rows = captions_of_batch(tokens, chosen, empty, EMPTY_CAPTIONS)
        with autocast(device):
            with torch.no_grad():
                context = encode_text(text, rows).to(working)
            held = cast_weights(state, unet, working)
            found = functional_call(network, held, (noisy, times.float(), context, condition), strict=False)
        error = [(some.float() - noise).square().mean((1, 2, 3, 4)) for some, noise in zip(found, noises, strict=True)]
        return ((error[0] + VIEWS_COUNT * error[1]) * weights).mean() / (1 + VIEWS_COUNT)

    return loss


@torch.no_grad()
def draw_panoramas(
    network: nn.Module, weights: dict, told: tuple[Tensor, Tensor], context: Tensor, empty: Tensor, noise: Tensor,
    scale: float, steps: int,
) -> Tensor:  # fmt: skip
    """Latents of panoramas, [B, 4, T, h, w], by ComfyUI's "euler" on "normal".

    Args:
        network, weights: see ``build_network`` and ``cast_weights``.
        told: what both branches are told.
        context: [B, 77, 128]; empty: [1, 77, 128], of the negative prompt.
        noise: [B, 4, T, h, w].
        scale: of guidance.
        steps: of the sampler.
    """
    from papernodes.networks.imagine360 import Condition

    device, size = noise.device, noise.shape
    index, cameras = noise_index(size[3] * 8).to(device), cube_cameras()
    beside = shared_noise(noise, index)
    working = next(iter(weights.values())).dtype
    both = Condition(*(some.repeat(2, 1, 1, 1, 1).to(working) for some in told), cameras)
    text = torch.cat((context, empty.expand_as(context))).to(working)

    levels, sigmas = noise_levels().log(), schedule("normal", steps)

    def parted(x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.split((size[1:].numel(), beside.shape[1:].numel()), 1)
        return first.view(size), second.view(beside.shape)

    # Both parts of a clip are one row of numbers, as the host packs them.
    x = torch.cat((noise.flatten(1), beside.flatten(1)), 1) * (1 + sigmas[0] ** 2).sqrt()
    for now, later in itertools.pairwise(sigmas.tolist()):
        time = float((levels - math.log(now)).abs().argmin())
        twice = [part.repeat(2, 1, 1, 1, 1).to(working) for part in parted(x / (now * now + 1) ** 0.5)]
        times = torch.full((2 * size[0],), time, device=device)
        with autocast(device):
            found = functional_call(network, weights, (twice, times, text, both), strict=False)
        wanted, other = torch.cat([some.float().flatten(1) for some in found], 1).chunk(2)
        x = x + (other + scale * (wanted - other)) * (later - now)
    return parted(x)[0]


@torch.no_grad()
def draw_samples(network: nn.Module, weights: dict, text: nn.Module, vae, pool: ClipPool, arguments) -> None:
    """Writes samples.png, for each clip its first and last frame: what is told, wanted, drawn."""
    count, steps = (1, 2) if arguments.tiny else (6, 20)
    panoramas, _, told, told_views, tokens = (some[:count] for some in pool.tensors)
    device = panoramas.device
    context, empty = (encode_text(text, rows) for rows in (
        tokens[:, 0].long(), torch.from_numpy(token_rows([""])).long().to(device)))  # fmt: skip
    noise = torch.randn(panoramas.shape, generator=torch.Generator().manual_seed(7)).to(device)
    found = draw_panoramas(network, weights, (told, told_views), context, empty, noise, 2.0, steps)
    ends = [0, panoramas.shape[2] - 1]
    shown = [some[:, :, ends].transpose(1, 2).flatten(0, 1).float() for some in (told[:, 1:], panoramas, found)]
    save_grid([vae.decoder(some) for some in shown], arguments.state / "samples.png")


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=8, batch=32, rate=1e-3, pictures=8192)
    parser.add_argument("--models", type=Path, default=Path("demo/checkpoints"), help="folder of the image model")
    parser.add_argument("--vae", type=Path, default=Path("demo/checkpoints/image_vae.safetensors"))
    parser.add_argument("--begin-with", type=Path, help="a file to go on with")
    parser.add_argument("--fresh", type=float, default=0.15, help="share of the time in which new clips are made")
    add_time_arguments(parser, layout=0.5, layout_weight=1.0)
    arguments = parser.parse_args()
    device = training.settle(arguments, several=True)
    height, frames = HEIGHT, FRAMES
    if arguments.tiny:
        arguments.pictures, arguments.batch, frames = 4, 1, 2
    finished = arguments.begin_with
    progress = earlier_progress(arguments, "--begin-with", finished, "imagine360")
    seed = arguments.seed * 1000 + progress.step + 131 + 400_000 * arguments.group.number
    source = ClipSource(arguments, seed, 1, silent=2, characters=CHARACTERS)

    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    from papernodes.networks.demo_imagine360 import KIND, initial_imagine360, metadata

    from demo import train_vae
    from networks.demo_format import load, save

    vae = train_vae.read(arguments.vae, device).to(memory_format=torch.channels_last)
    unet, text = load_models(arguments.models, device)
    base = unet.state_dict()
    say(f"attention: {attention_name()}")
    pool = ClipPool(arguments.pictures)
    together = 2 if arguments.tiny else TOGETHER
    refreshing = Refreshing(
        pool, parts_of(source, clip_maker(vae, device, height, seed, frames), together), arguments.fresh, device
    )
    refreshing.fill(arguments.drawing_seconds, arguments.pictures)
    start = load(finished, KIND)[0] if finished else initial_imagine360(arguments.seed)
    state = {name: value.to(device).requires_grad_() for name, value in start.items()}
    say(f"{sum(value.numel() for value in state.values()) / 1e6:.2f} M parameters")
    network = build_network(device, ANTIPODAL)
    loss = make_loss(network, text, base, state, pool, arguments)
    trainer = Trainer(state, loss, arguments, reserve=25, average=0.998, progress=progress)
    trainer.train(refreshing.spend)
    source.close()
    say(f"{pool.made} clips made in {refreshing.seconds:.0f} s")
    trainer.group.leave()
    target = arguments.out / f"{KIND}.safetensors"
    save(target, trainer.averaged(), {**trainer.metadata(KIND), **metadata()})
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    held = {name: value.to(device) for name, value in load(target, KIND)[0].items()}
    draw_samples(build_network(device), cast_weights(held, base, torch.float32), text, vae, pool, arguments)
    say("done")


if __name__ == "__main__":
    main()
