"""Trains the toy world's autoencoder: ``python -m demo.train_vae --state build/training/vae --final``.

TAESD's architecture, from scratch. Loss: absolute error, five times the squared error, and the absolute error of the
differences between neighbours, which keeps the drawn edges crisp. The decoder sees latents at zero mean and unit
variance per channel with a little noise, so that latents that a model made decode cleanly; there is no KL term, only a
soft penalty on the encoder's own mean and deviation and on values beyond 2.5. At the end mean and deviation are folded
into the encoder's last convolution. ``--decoder-of`` trains on the decoder alone, for latents that other models know.
A decoder that has seen places alone takes grey for one of them, so with ``--lit`` a share of the pictures is what
relighting takes and makes (light_pairs.py).

Writes image_vae.safetensors, which ComfyUI's VAELoader reads.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo import training
from demo.light_pairs import lit_pictures
from demo.training import Trainer, autocast, batches, initialise, say
from demo.training_data import Drawing, rendered, to_bytes
from demo.training_drawings import save_grid

VAE_SCALE = 0.18215  # SD1.5's: what samples sees the encoder's own latents
PENALTY_FROM = 2.5


class Autoencoder(nn.Module):
    """TAESD's halves, and the mean and deviation [4] of the encoder's latents as last seen."""

    def __init__(self):
        super().__init__()
        from comfy.taesd.taesd import Decoder, Encoder

        self.encoder, self.decoder = Encoder(latent_channels=4), Decoder(latent_channels=4)
        initialise(self)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("deviation", torch.ones(4))

    def encode(self, pictures: Tensor) -> Tensor:
        """Normalised latents float32 [B, 4, H/8, W/8] of pictures [B, 3, H, W], 0..1."""
        return (self.encoder(pictures).float() - self.mean.view(1, 4, 1, 1)) / self.deviation.view(1, 4, 1, 1)


def picture_loss(found: Tensor, wanted: Tensor, squared: float) -> Tensor:
    """Absolute, squared (with this weight) and edge error of pictures [B, 3, H, W]."""
    error = found - wanted
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + squared * error.square().mean() + 0.5 * edges


def make_loss(network: Autoencoder, pool: Tensor, arguments):
    """The loss of one step on pictures from the pool, uint8 [N, 3, H, W]."""

    def loss() -> Tensor:
        chosen = torch.randint(0, pool.shape[0], (arguments.batch,), device=pool.device)
        pictures = (pool[chosen].float() / 255).to(memory_format=torch.channels_last)
        with autocast(pool.device), torch.set_grad_enabled(arguments.decoder_of is None):
            raw = network.encoder(pictures).float()
        mean, deviation = raw.mean((0, 2, 3)), raw.std((0, 2, 3))
        if arguments.decoder_of is None:
            with torch.no_grad():
                network.mean.lerp_(mean.detach(), 0.02)
                network.deviation.lerp_(deviation.detach(), 0.02)
        latents = (raw - network.mean.view(1, 4, 1, 1)) / network.deviation.view(1, 4, 1, 1).clamp_min(0.05)
        strength = arguments.latent_noise * torch.rand(arguments.batch, 1, 1, 1, device=pool.device)
        noisy = latents + strength * torch.randn_like(latents)
        with autocast(pool.device):
            found = network.decoder(noisy.to(memory_format=torch.channels_last)).float()
        spread = mean.square().mean() + (deviation - 1).square().mean()
        outside = (latents.abs() - PENALTY_FROM).relu().square().mean()
        return picture_loss(found, pictures, arguments.squared) + 0.02 * spread + 0.1 * outside

    return loss


@torch.no_grad()
def fold(network: Autoencoder, pool: Tensor, count: int = 4096) -> tuple[Tensor, Tensor]:
    """Measures mean and deviation again and folds them into the encoder's last convolution; returns them."""
    some = pool[:: max(1, pool.shape[0] // count)]
    sums, squares, number = torch.zeros(4, device=pool.device), torch.zeros(4, device=pool.device), 0
    for part in batches(some.shape[0], 64):
        raw = network.encoder(some[part].float() / 255)
        sums += raw.sum((0, 2, 3))
        squares += raw.square().sum((0, 2, 3))
        number += raw[:, 0].numel()
    mean = sums / number
    deviation = (squares / number - mean.square()).clamp_min(1e-8).sqrt()
    last = network.encoder[-1]
    last.weight.div_(deviation.view(4, 1, 1, 1))
    last.bias.sub_(mean).div_(deviation)
    network.mean.zero_()
    network.deviation.fill_(1)
    return mean, deviation


@torch.no_grad()
def measure(network: Autoencoder, pool: Tensor, noise: float = 0.0) -> tuple[float, Tensor, Tensor]:
    """Mean PSNR in decibels over pictures of the pool; the last batch's latents and reconstructions."""
    found = []
    for part in batches(pool.shape[0], 64):
        pictures = pool[part].float() / 255
        latents = network.encode(pictures)
        again = network.decoder(latents + noise * torch.randn_like(latents)).clamp(0, 1)
        found.append(functional.mse_loss(again, pictures, reduction="none").mean((1, 2, 3)))
    return float((-10 * torch.cat(found).clamp_min(1e-10).log10()).mean()), latents, again


def file_weights(network: Autoencoder) -> dict[str, Tensor]:
    """The weights as ComfyUI's VAELoader knows them; mean and deviation must be folded in."""
    weights = {f"taesd_encoder.{name}": value for name, value in network.encoder.state_dict().items()}
    weights |= {f"taesd_decoder.{name}": value for name, value in network.decoder.state_dict().items()}
    return weights | {"vae_scale": torch.tensor(VAE_SCALE), "vae_shift": torch.tensor(0.0)}


def read(path, device) -> Autoencoder:
    """The trained autoencoder of a file that ``file_weights`` made, frozen."""
    from networks.demo_format import load

    weights, _ = load(path, "image_vae")
    network = Autoencoder()
    for name, half in (("taesd_encoder.", network.encoder), ("taesd_decoder.", network.decoder)):
        half.load_state_dict({key.removeprefix(name): weights[key] for key in weights if key.startswith(name)})
    return network.requires_grad_(False).to(device)


def draw_pool(drawing: Drawing, device: torch.device, size: int, lit: float = 0.0, seed: int = 0) -> Tensor:
    """Pictures uint8 [N, 3, size, size] on the device; a share ``lit`` of each chunk is light_pairs.lit_pictures'."""
    generator, found = torch.Generator().manual_seed(seed), []
    for scenes, _ in drawing:
        count = round(scenes.size * lit)
        if count:
            some = scenes.select(torch.arange(count)).to(device)
            found.append(to_bytes(lit_pictures(some, size, generator)))
        if count < scenes.size:
            rest = scenes.select(torch.arange(count, scenes.size))
            found += [to_bytes(part.frames[:, 0]) for part in rendered(rest, device, size)]
    return torch.cat(found)


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=4, batch=64, rate=1e-3, pictures=61440)
    parser.add_argument(
        "--decoder-of", type=Path, help="train this file's decoder further and leave its encoder as it is"
    )
    parser.add_argument("--squared", type=float, default=5.0, help="weight of the squared error, which PSNR measures")
    parser.add_argument("--latent-noise", type=float, default=0.06, help="largest deviation of the decoder's noise")
    parser.add_argument("--lit", type=float, default=0.0, help="share of pictures lit anew, of maps and of greys")
    arguments = parser.parse_args()
    device = training.settle(arguments)
    seed = arguments.seed + 1000 * int(arguments.resume is not None)
    drawing = Drawing(arguments, arguments.pictures, seed + 1)

    from demo.bare_machine import use_host

    use_host()
    from networks.demo_format import save

    pool = draw_pool(drawing, device, arguments.size, arguments.lit, seed)
    network = read(arguments.decoder_of, device).requires_grad_() if arguments.decoder_of else Autoencoder()
    network = network.to(device, memory_format=torch.channels_last)
    half = network.decoder if arguments.decoder_of else network
    trainer = Trainer(
        dict(half.named_parameters()), make_loss(network, pool, arguments), arguments, reserve=25, average=0.998
    )
    if not arguments.decoder_of:
        fold(network, pool, 512)  # latents start at unit variance; from here on the statistics move with the training
        trainer.restart_averages()
    trainer.train()

    trainer.use_averages()
    if not arguments.decoder_of:
        mean, deviation = fold(network, pool)
        say(f"latents' mean {mean.tolist()} and deviation {deviation.tolist()} folded in")
    network.load_state_dict({name: value.half() for name, value in network.state_dict().items()})  # as it is stored
    target = arguments.out / "image_vae.safetensors"
    save(target, file_weights(network), trainer.metadata("image_vae"), packed=False)
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")

    fresh = Drawing(arguments, min(2048, arguments.pictures), seed + 500_000)
    fresh = draw_pool(fresh, device, arguments.size)
    psnr, latents, again = measure(network, fresh)
    noisy, *_ = measure(network, fresh, noise=0.1)
    say(
        f"PSNR on {fresh.shape[0]} fresh pictures: {psnr:.2f} dB, with noise 0.1 on the latents {noisy:.2f} dB;"
        f" latents' mean {latents.mean():.3f}, deviation {latents.std():.3f}, largest {latents.abs().max():.2f}"
    )
    metadata = {**trainer.metadata("image_vae"), "psnr": f"{psnr:.2f}", "psnr_noise_0.1": f"{noisy:.2f}"}
    shown = again.shape[0]
    rows = [fresh[-shown:][:8].float() / 255, again[:8], fresh[-shown:][8:16].float() / 255, again[8:16]]
    if arguments.lit:
        lit = draw_pool(
            Drawing(arguments, min(1024, arguments.pictures), seed + 600_000), device, arguments.size, 1.0, seed + 1
        )
        psnr, _, again = measure(network, lit)
        say(f"PSNR on {lit.shape[0]} fresh pictures of light: {psnr:.2f} dB")
        metadata["psnr_lit"] = f"{psnr:.2f}"
        rows += [lit[-again.shape[0] :][:8].float() / 255, again[:8]]
    save(target, file_weights(network), metadata, packed=False)
    save_grid(rows, arguments.state / "vae.png")
    say("done")


if __name__ == "__main__":
    main()
