"""The small Wan VAE as the training scripts use it: whole clips at once, where the host goes chunk by chunk.

The host carries the last frames of every chunk in caches; for a causal network a convolution over all frames, padded
with zeros before the first, is the same (a test compares them) and keeps a GPU busy.
"""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from demo.training import autocast
from demo.video_model import initialise


def _normalised(x: Tensor, gamma: Tensor, scale: float, bent: bool) -> Tensor:
    """The host's RMS_norm, in the dtype of ``x``; ``bent``: with the SiLU that follows it."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
    x = x * (scale / length.clamp_min(1e-12)).to(x.dtype) * gamma.to(x.dtype)
    return functional.silu(x) if bent else x


def fuse_norms(vae: nn.Module, *, always: bool = False) -> None:
    """Has a trainable VAE's norms, each with the SiLU behind it, done by one compiled function; weights stay.

    Args:
        vae: or a part of it.
        always: also where nothing is trained, which should always have the same shape then.
    """
    torch._dynamo.config.recompile_limit = 64  # one for each shape
    compiled = torch.compile(_normalised, dynamic=False)

    def run(*inputs):
        # Measuring has other shapes.
        return (compiled if always or torch.is_grad_enabled() else _normalised)(*inputs)

    for module in vae.modules():
        if hasattr(module, "bent"):
            module.run = run
        if isinstance(module, nn.Sequential):
            for (_, norm), (name, behind) in itertools.pairwise(list(module.named_children())):
                if hasattr(norm, "bent") and isinstance(behind, nn.SiLU):
                    norm.bent = True
                    setattr(module, name, nn.Identity())


def make_trainable(vae: nn.Module, solid: bool = False) -> nn.Module:
    """Has the VAE compute as a GPU likes it; the weights keep their names, the results are the same.

    Norms stay in half precision under autocast (they add up in float32 inside all the same). Three-dimensional
    convolutions become flat ones over neighbouring frames' channels: with few channels the others use a GPU badly, and
    some versions of PyTorch with cuDNN have no fast ones in bfloat16 at all.

    Args:
        solid: leave the convolutions three-dimensional.
    """
    from comfy.ldm.wan.vae import CausalConv3d, RMS_norm

    class Norm(RMS_norm):
        run, bent = staticmethod(_normalised), False

        def forward(self, x):
            with torch.autocast(x.device.type, enabled=False):
                return self.run(x, self.gamma, self.scale, self.bent)

    class FlatConvolution(CausalConv3d):
        def forward(self, x):
            left, _, top, _, before, _ = self._padding
            frames = functional.pad(x.transpose(1, 2), (0, 0, 0, 0, 0, 0, before, 0))
            size, step = self.kernel_size[0], self.stride[0]
            count = (frames.shape[1] - size) // step + 1
            taps = [frames[:, k : k + step * (count - 1) + 1 : step] for k in range(size)]
            stacked = torch.cat(taps, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
            weight = self.weight.transpose(1, 2).flatten(1, 2)
            found = functional.conv2d(stacked, weight, self.bias, padding=(top, left))
            return found.unflatten(0, (x.shape[0], count)).transpose(1, 2)

    for module in vae.modules():
        if type(module) is RMS_norm:
            module.__class__ = Norm
        elif type(module) is CausalConv3d and not solid:
            module.__class__ = FlatConvolution
    return vae


def channels_last(network: nn.Module) -> nn.Module:
    """Lays out the weights of its convolutions as a GPU likes them best."""
    for weight in network.parameters():
        if weight.ndim in (4, 5):
            layout = torch.channels_last if weight.ndim == 4 else torch.channels_last_3d
            weight.data = weight.data.contiguous(memory_format=layout)
    return network


def _resample_frames(layer: nn.Module, x: Tensor) -> Tensor:
    """The part of a Resample layer that works on every frame alone."""
    batch, frames = x.shape[0], x.shape[2]
    x = layer.resample(x.transpose(1, 2).flatten(0, 1))
    return x.unflatten(0, (batch, frames)).transpose(1, 2)


def _resample(layer: nn.Module, x: Tensor) -> Tensor:
    """A Resample layer over a whole clip: the first frame stays one frame, the others halve or double."""
    if layer.mode == "upsample3d":
        first, others = x[:, :, :1], x[:, :, 1:]
        if others.shape[2]:
            pairs = layer.time_conv(others).unflatten(1, (2, x.shape[1]))  # [B, 2, C, T-1, H, W]
            first = torch.cat((first, pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)), 2)
        return _resample_frames(layer, first)
    x = _resample_frames(layer, x)
    if layer.mode == "downsample3d" and x.shape[2] > 1:
        x = torch.cat((x[:, :, :1], layer.time_conv(x)), 2)
    return x


def run_layers(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Some of the VAE's layers over whole clips."""
    from comfy.ldm.wan.vae import Resample

    for layer in layers:
        x = _resample(layer, x) if isinstance(layer, Resample) else layer(x)
    return x


def encode_whole(vae: nn.Module, clips: Tensor) -> Tensor:
    """What the host's encode gives: latents [B, 16, k + 1, H/8, W/8] of clips [B, 3, 4 k + 1, H, W], -1..1."""
    x = vae.encoder.conv1(clips)
    x = vae.encoder.head(run_layers(vae.encoder.middle, run_layers(vae.encoder.downsamples, x)))
    return vae.conv1(x).chunk(2, dim=1)[0]


def decode_whole(vae: nn.Module, latents: Tensor) -> Tensor:
    """What the host's decode gives: clips [B, 3, 4 k + 1, 8 H, 8 W], about -1..1, of latents [B, 16, k + 1, H, W]."""
    x = vae.decoder.conv1(vae.conv2(latents))
    return vae.decoder.head(run_layers(vae.decoder.upsamples, run_layers(vae.decoder.middle, x)))


def to_clips(frames: Tensor) -> Tensor:
    """Frames uint8 or 0..1 [B, T, 3, H, W] as the VAE sees them: [B, 3, T, H, W], -1..1."""
    values = frames.float() / 255 if frames.dtype == torch.uint8 else frames
    return values.transpose(1, 2) * 2 - 1


def to_frames(clips: Tensor) -> Tensor:
    """What the VAE gives as frames float32 [B, T, 3, H, W], 0..1."""
    return ((clips.float() + 1) / 2).clamp(0, 1).transpose(1, 2)


ENLARGED = 4.0
"""What ``enlarged`` multiplies by; a power of two, so that nothing is rounded."""


def enlarged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same VAE in numbers that float8 holds better.

    A convolution over 3 x 3 x 3 pixels has weights about 0.01, where float8_e4m3 knows only multiples of 0.002. But
    what a residual block's first convolution gives is normalised right after, and so is the sum that all blocks add
    to, wherever one reads it: four times as much of either changes nothing that comes out.

    Args:
        weights: some of the VAE's or all, by name.
    """
    found = {}
    for name, value in weights.items():
        normalised = ".residual.2." in name
        added = ".residual.6." in name or ".middle.1.proj." in name
        begins = name.startswith(("encoder.conv1.", "decoder.conv1."))
        passes_on = name.endswith(("shortcut.bias", "resample.1.bias", "time_conv.bias"))
        if normalised or added or begins or passes_on or name.startswith("encoder.head.2."):
            value = value * ENLARGED
        elif name == "conv1.weight":  # takes back what the encoder's last layer was given
            value = value / ENLARGED
        found[name] = value
    return found


class VideoAutoencoder(nn.Module):
    """The VAE between clips and normalised latents, which is what the network sees of them.

    While it trains, ``mean`` and ``deviation`` [16] are those of the raw latents as last seen. ``fold`` makes the VAE's
    own latents have Wan 2.1's mean and deviation, which the host takes away again; then both are Wan's.

    Args:
        solid: of ``make_trainable``.
    """

    def __init__(self, solid: bool = False):
        super().__init__()
        from comfy.latent_formats import Wan21

        from networks.demo_video import build_vae

        self.vae = make_trainable(build_vae(), solid)
        initialise(self.vae)
        wanted = Wan21()
        self.register_buffer("wan_mean", wanted.latents_mean.flatten(), persistent=False)
        self.register_buffer("wan_deviation", wanted.latents_std.flatten(), persistent=False)
        self.register_buffer("mean", torch.zeros(16), persistent=False)
        self.register_buffer("deviation", torch.ones(16), persistent=False)

    def raw(self, clips: Tensor) -> Tensor:
        """The encoder's latents, float32 [B, 16, k + 1, H/8, W/8], of clips [B, 3, 4 k + 1, H, W], -1..1."""
        return encode_whole(self.vae, clips).float()

    def normalise(self, raw: Tensor) -> Tensor:
        """Raw latents at zero mean and unit variance per channel."""
        return (raw - self.mean.view(-1, 1, 1, 1)) / self.deviation.clamp_min(0.05).view(-1, 1, 1, 1)

    def denormalise(self, latents: Tensor) -> Tensor:
        """Raw latents of normalised ones."""
        return latents * self.deviation.view(-1, 1, 1, 1) + self.mean.view(-1, 1, 1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Clips of normalised latents."""
        return decode_whole(self.vae, self.denormalise(latents))

    def forward(self, task: str, value: Tensor) -> Tensor:
        """``raw`` or ``decode``, for functional_call."""
        return getattr(self, task)(value)

    def call(self, weights: dict[str, Tensor], task: str, value: Tensor) -> Tensor:
        """``raw`` or ``decode`` with other weights of the VAE."""
        return functional_call(self, {f"vae.{name}": weight for name, weight in weights.items()}, (task, value))

    @torch.no_grad()
    def fold(self, mean: Tensor, deviation: Tensor) -> None:
        """Changes the layers next to the latents so that raw latents of this mean and deviation become Wan's.

        Clips come back as before.
        """
        scale = self.wan_deviation / deviation
        shift = self.wan_mean - mean * scale
        into, out = self.vae.conv1, self.vae.conv2
        into.weight[:16].mul_(scale.view(-1, 1, 1, 1, 1))
        into.bias[:16].mul_(scale).add_(shift)
        # The decoder's first layer takes (latent - shift) / scale.
        out.weight.div_(scale.view(1, -1, 1, 1, 1))
        out.bias.sub_(out.weight.flatten(1) @ shift)
        self.mean.copy_(self.wan_mean)
        self.deviation.copy_(self.wan_deviation)


def read(path, device: torch.device, solid: bool = False) -> VideoAutoencoder:
    """The autoencoder of a file of kind "video_vae", frozen; its latents have Wan's mean and deviation."""
    from networks.demo_format import load

    weights, _ = load(path, "video_vae")
    network = VideoAutoencoder(solid)
    network.vae.load_state_dict(weights)
    network.mean.copy_(network.wan_mean)
    network.deviation.copy_(network.wan_deviation)
    return channels_last(network.requires_grad_(False).to(device))


@torch.no_grad()
def encode_clips(network: VideoAutoencoder, frames: Tensor, part: int = 16) -> Tensor:
    """Normalised latents float16 [B, 16, k + 1, H/8, W/8] of frames 0..1 [B, 4 k + 1, 3, H, W].

    ``part`` clips at a time, the last time too, filled with some that are forgotten: what is compiled knows one shape.
    """
    found = []
    count = frames.shape[0]
    if count % part:
        frames = torch.cat((frames, frames[:1].expand(-count % part, *frames.shape[1:])))
    for some in frames.split(part):
        clips = to_clips(some).contiguous(memory_format=torch.channels_last_3d)
        with autocast(frames.device):
            found.append(network.normalise(network.raw(clips)).half())
    return torch.cat(found)[:count]


@torch.no_grad()
def decode_latents(network: VideoAutoencoder, latents: Tensor, part: int = 8) -> Tensor:
    """Frames float32 [B, T, 3, H, W], 0..1, of normalised latents."""
    found = []
    for some in latents.float().split(part):
        with autocast(latents.device):
            found.append(to_frames(network.decode(some.contiguous(memory_format=torch.channels_last_3d))))
    return torch.cat(found)


def clip_loss(found: Tensor, wanted: Tensor, squared: float) -> Tensor:
    """Absolute, squared (with this weight), edge and change error of clips [B, 3, T, H, W] in 0..1."""
    error = found - wanted
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    change = error.diff(dim=2).abs().mean() if error.shape[2] > 1 else 0.0
    return error.abs().mean() + squared * error.square().mean() + 0.5 * edges + 0.25 * change


def decibels(found: Tensor, wanted: Tensor) -> Tensor:
    """PSNR of every frame, [B, T], of frames 0..1 [B, T, 3, H, W]."""
    return -10 * functional.mse_loss(found, wanted, reduction="none").mean((2, 3, 4)).clamp_min(1e-10).log10()
