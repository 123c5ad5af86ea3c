"""Trains the toy world's video autoencoder: ``python -m demo.train_video_vae --state build/training/video_vae``.

Wan 2.1's architecture at dim 16, from scratch, on clips cut at random times out of rendered scenes. Loss: absolute
error, five times the squared error, the absolute error of the differences between neighbours and half as much of those
between frames. As for the image VAE the decoder sees latents at zero mean and unit variance with a little noise, and
there is no KL term; at the end the latents get the mean and deviation that ComfyUI takes from every Wan latent. All
through training the weights have the values that the file can hold (mostly float8). ``--reading`` has latents tell what
they show (latent_reading.py), so that a small network can draw them. ``--start`` goes on with a finished file,
``--decoder-of`` with its decoder alone, for latents that other models know; ``--drawn-by`` has it see the errors of the
network that draws them (drawn_latents.py). Several processes may train one model.

Writes video_vae.safetensors, which ComfyUI's VAELoader reads.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from demo import training, training_state
from demo.drawn_latents import redrawing
from demo.latent_reading import LatentReading, latent_contents
from demo.train_vae import PENALTY_FROM
from demo.training import Trainer, autocast, batches, elapsed, say
from demo.training_data import to_bytes
from demo.training_drawings import save_grid
from demo.video_contents import Contents
from demo.video_data import ClipSource, settle_clips
from demo.video_vae import (
    VideoAutoencoder,
    channels_last,
    clip_loss,
    decibels,
    enlarged,
    fuse_norms,
    read,
    to_clips,
    to_frames,
)
from demo.world.render import render


@dataclass(frozen=True)
class Pool:
    """Clips to learn from, on the device.

    Args:
        clips: uint8 [N, T, 3, size, size].
        tokens: int16 [N, phrasings, 77] of their captions.
        shown: the tensors of Contents, of what their latents show, or none.
    """

    clips: Tensor
    tokens: Tensor
    shown: tuple[Tensor, ...] = ()


def draw_pool(
    source: ClipSource, count: int, seconds: float, device: torch.device, size: int, shown: bool = False
) -> Pool:
    """So many clips, or those that were drawn when the time is over.

    Args:
        shown: whether what their latents show comes with them.
    """
    parts, number, begin = [], 0, elapsed()
    layers = ("frames", "labels", "local") if shown else ("frames",)
    while not parts or (number < count and elapsed() - begin < seconds):
        scenes, tokens = source.chunk()
        for chosen in torch.arange(min(scenes.size, count - number)).split(128):
            some = scenes.select(chosen).to(device)
            with torch.no_grad():
                drawn = render(some, size, size, layers=layers)
                told = latent_contents(some, drawn).tensors() if shown else ()
            parts.append((to_bytes(drawn.frames), tokens[chosen].to(device), *told))
            number += some.size
    source.close()
    say(f"{number} clips drawn in {elapsed() - begin:.1f} s")
    clips, tokens, *told = (torch.cat(some) for some in zip(*parts, strict=True))
    return Pool(clips, tokens, tuple(told))


def cut(pool: Tensor, chosen: Tensor, frames: int) -> Tensor:
    """``frames`` frames uint8 [B, frames, 3, H, W] of the chosen clips, from a random one on; free of syncs."""
    first = torch.randint(0, pool.shape[1] - frames + 1, (chosen.shape[0], 1), device=pool.device)
    return pool[chosen[:, None], first + torch.arange(frames, device=pool.device)]


def is_matrix(name: str, value: Tensor) -> bool:
    """Whether a parameter is a convolution between features, not from or to the picture's colours."""
    return value.ndim >= 4 and min(value.flatten(1).shape) >= 16


def make_loss(network: VideoAutoencoder, pool: Pool, arguments, reading: LatentReading | None = None, redraw=None):
    """The loss of one step.

    Args:
        reading: heads that read from latents what the pool says that they show.
        redraw: (latents, rows of tokens) -> latents as a network draws them, for the first half of every batch.
    """
    from networks.demo_video import as_stored

    vae, device = network.vae, pool.clips.device

    def decoded(weights: dict[str, Tensor], latents: Tensor) -> Tensor:
        with autocast(device):
            found = network.call(weights, "decode", latents.contiguous(memory_format=torch.channels_last_3d))
        return (found.float() + 1) / 2

    def loss() -> Tensor:
        chosen = torch.randint(0, pool.clips.shape[0], (arguments.batch,), device=device)
        clips = to_clips(cut(pool.clips, chosen, arguments.frames)).contiguous(memory_format=torch.channels_last_3d)
        weights = as_stored("video_vae", enlarged(dict(vae.named_parameters())))
        with autocast(device), torch.set_grad_enabled(arguments.decoder_of is None):
            raw = network.call(weights, "raw", clips)
        mean, deviation = raw.mean((0, 2, 3, 4)), raw.std((0, 2, 3, 4))
        if arguments.decoder_of is None:
            with torch.no_grad():
                both = torch.stack([mean, deviation]).detach()
                arguments.group.average(both)
                network.mean.lerp_(both[0], 0.02)
                network.deviation.lerp_(both[1], 0.02)
        latents = network.normalise(raw)
        strength = arguments.latent_noise * torch.rand(arguments.batch, 1, 1, 1, 1, device=device)
        noisy = latents + strength * torch.randn_like(latents)
        read = 0.0
        if reading:
            names, places = reading.errors(noisy, Contents(*pool.shown).select(chosen))
            read = names + arguments.place_reading * places
        if redraw:
            half = arguments.batch // 2
            noisy = torch.cat((redraw(latents[:half], pool.tokens[chosen[:half], 0]), noisy[half:]))
        error = clip_loss(decoded(weights, noisy), (clips + 1) / 2, arguments.squared)
        outside = (latents.abs() - PENALTY_FROM).relu().square().mean()
        # Measured on what the network sees, so that the size of the raw latents does not matter.
        spread = (mean - network.wan_mean).div(network.wan_deviation).square().mean()
        spread = spread + (deviation / network.wan_deviation - 1).square().mean()
        return error + arguments.reading * read + 0.02 * spread + 0.1 * outside

    return loss


@torch.no_grad()
def statistics(network: VideoAutoencoder, pool: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation [16] of the raw latents of about ``count`` clips."""
    sums, squares, number = torch.zeros(16, device=pool.device), torch.zeros(16, device=pool.device), 0
    some = pool[:: max(1, pool.shape[0] // count)]
    for part in batches(some.shape[0], 8):
        raw = network.raw(to_clips(some[part]))
        sums += raw.sum((0, 2, 3, 4))
        squares += raw.square().sum((0, 2, 3, 4))
        number += raw[:, 0].numel()
    mean = sums / number
    return mean, (squares / number - mean.square()).clamp_min(1e-8).sqrt()


@torch.no_grad()
def measure(network: VideoAutoencoder, pool: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean PSNR in decibels of every frame's place in the clip [T]; the last clips' reconstructions [B, T, 3, H, W]."""
    found = []
    for part in batches(pool.shape[0], 8):
        frames = pool[part].float() / 255
        latents = network.normalise(network.raw(to_clips(frames)))
        again = to_frames(network.decode(latents + noise * torch.randn_like(latents)))
        found.append(decibels(again, frames))
    return torch.cat(found).mean(0), again


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=4, batch=16, rate=1e-3, pictures=6144)
    parser.add_argument("--frames", type=int, default=9, help="of a training clip: 1, 5, 9, 13 or 17")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--decoder-of", type=Path, help="train this file's decoder further, leave its encoder as it is")
    begin.add_argument("--start", type=Path, help="go on from this finished file, where its state is lost")
    parser.add_argument("--drawn-by", type=Path, help="folder of a video model, for --decoder-of: half of the latents")
    parser.add_argument("--solid", action="store_true", help="three-dimensional convolutions, not flat ones")
    parser.add_argument("--squared", type=float, default=5.0, help="weight of the squared error, which PSNR measures")
    parser.add_argument("--latent-noise", type=float, default=0.06, help="largest deviation of the decoder's noise")
    parser.add_argument("--reading", type=float, default=0.0, help="weight of reading from latents what they show")
    parser.add_argument("--place-reading", type=float, default=1.0, help="weight of places in that reading")
    parser.add_argument("--compile", action="store_true", help="fuse elementwise operations, with a C compiler")
    arguments = parser.parse_args()
    device = training.settle(arguments, several=True)
    length = settle_clips(arguments)
    arguments.frames = min(arguments.frames, length)
    if arguments.reading and (arguments.decoder_of or arguments.frames != length):
        raise SystemExit(f"--reading trains the encoder on whole clips: give --frames {length}, not --decoder-of.")
    if arguments.drawn_by and not (arguments.decoder_of and arguments.frames == length):
        raise SystemExit(f"--drawn-by needs --decoder-of and --frames {length}: the network knows that file's latents.")
    finished = arguments.decoder_of or arguments.start
    progress = training_state.progress_of(finished, "video_vae") if finished else None
    seed = arguments.seed + 1000 * int(arguments.resume is not None) + (progress.step if progress else 0)
    captions = {"phrasings": 1, "full": 2} if arguments.drawn_by else {}
    source = ClipSource(arguments, seed + 1 + 400_000 * arguments.group.number, length, **captions)

    from demo.bare_machine import use_host

    use_host()
    from networks.demo_video import as_stored, latent_frames, save_for_stock

    latent_frames(arguments.frames)
    torch.manual_seed(arguments.seed)
    reading = LatentReading().to(device) if arguments.reading else None
    how = (arguments.drawing_seconds, device, arguments.size, reading is not None)
    pool = draw_pool(source, arguments.pictures, *how)
    solid = arguments.solid
    network = read(finished, device, solid).requires_grad_() if finished else VideoAutoencoder(solid)
    network = channels_last(network.to(device))
    if arguments.compile:
        fuse_norms(network.vae)
    if finished:
        factors = enlarged({name: torch.ones(()) for name, _ in network.vae.named_parameters()})
        with torch.no_grad():
            for name, value in network.vae.named_parameters():
                value.div_(factors[name])  # a file has the enlarged weights
    parts = ("conv2.", "decoder.") if arguments.decoder_of else ("",)
    parameters = {name: value for name, value in network.vae.named_parameters() if name.startswith(parts)}
    if reading:
        parameters |= {f"{training.AUXILIARY}{name}": value for name, value in reading.named_parameters()}
    shape = (latent_frames(length), arguments.size // 8, arguments.size // 8)
    redraw = redrawing(arguments.drawn_by, shape, device) if arguments.drawn_by else None
    loss = make_loss(network, pool, arguments, reading, redraw)
    trainer = Trainer(parameters, loss, arguments, reserve=30, average=0.998, progress=progress, is_matrix=is_matrix)
    if not arguments.decoder_of:
        # Latents start as Wan's; from here on the statistics move along.
        network.fold(*statistics(network, pool.clips, 256))
        trainer.group.share_first(trainer.parameters)
        trainer.restart_averages()
    number = sum(value.numel() for value in parameters.values())
    say(f"{pool.clips.shape[0]} clips of {length} frames, {number / 1e6:.2f} M")
    trainer.train()

    trainer.group.leave()
    trainer.use_averages()
    with torch.no_grad():
        for name, value in as_stored("video_vae", enlarged(dict(network.vae.named_parameters()))).items():
            network.vae.get_parameter(name).copy_(value)
    if not arguments.decoder_of:
        mean, deviation = statistics(network, pool.clips, 1024)
        network.fold(mean, deviation)
        say(f"latents' mean {mean.tolist()} and deviation {deviation.tolist()} folded in")
    target = arguments.out / "video_vae.safetensors"
    save_for_stock(target, network.vae.state_dict(), trainer.metadata("video_vae"))
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")

    del pool, loss
    network = read(target, device, solid)
    fresh = ClipSource(arguments, seed + 500_000, length, workers=0)
    others = draw_pool(fresh, 4 if arguments.tiny else 256, *how)
    fresh = others.clips
    by_frame, again = measure(network, fresh)
    noisy, _ = measure(network, fresh, noise=0.1)
    say(f"PSNR on {fresh.shape[0]} fresh clips, frame by frame: {[round(value, 2) for value in by_frame.tolist()]}")
    say(f"PSNR {by_frame.mean():.2f} dB, with noise 0.1 on the latents {noisy.mean():.2f} dB")
    latents = network.normalise(network.raw(to_clips(fresh[:32])))
    say(f"latents' mean {latents.mean():.3f}, deviation {latents.std():.3f}, largest {latents.abs().max():.2f}")
    if reading:
        with torch.no_grad():
            names, places = reading.errors(latents, Contents(*others.shown).select(slice(latents.shape[0])))
        say(f"read from latents: error of the names {names:.3f}, places within {places.sqrt():.3f}")
    found = {"psnr": f"{by_frame.mean():.2f}", "psnr_noise_0.1": f"{noisy.mean():.2f}"}
    save_for_stock(target, network.vae.state_dict(), {**trainer.metadata("video_vae"), **found})
    last, times = again.shape[0], torch.linspace(0, length - 1, 5).round().long()
    rows = [(fresh[-last:][k][times].float() / 255, again[k][times]) for k in range(min(3, last))]
    save_grid([row for pair in rows for row in pair], arguments.state / "video_vae.png")
    say("done")


if __name__ == "__main__":
    main()
