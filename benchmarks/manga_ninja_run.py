"""What benchmarks/manga_ninja.py times: networks of SD1.5's size with random weights, a picture, and our run."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .relight import SD15

STEPS, POINTS = 50, 12
SIZE = SD15 | {"in_channels": 4}
TINY = SIZE | {"model_channels": 32, "context_dim": 32}


@dataclass
class Networks:
    """All of MangaNinja but CLIP and VAE."""

    unet: nn.Module
    reference: nn.Module
    control: nn.Module
    points: nn.Module

    def to(self, dtype: torch.dtype) -> "Networks":
        """Copies in another dtype."""
        copies = {name: copy.deepcopy(network).to(dtype) for name, network in vars(self).items()}
        for network in copies.values():
            network.dtype = dtype
        return Networks(**copies)


@torch.no_grad()
def random_networks(device: torch.device, config: dict, seed: int = 0) -> Networks:
    """In float32: norms do nothing yet, weights keep the variance, biases are small."""
    import comfy.ops
    from comfy.cldm.cldm import ControlNet
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from papernodes.networks.point_net import PointNet

    kind = {"device": device, "dtype": torch.float32}
    hosts = kind | {"operations": comfy.ops.disable_weight_init}
    encoder = {name: value for name, value in config.items() if name != "out_channels"}
    found = Networks(
        UNetModel(**config, **hosts),
        UNetModel(**config, **hosts),
        ControlNet(**encoder, hint_channels=3, **hosts),
        PointNet([config["model_channels"] * times for times in config["channel_mult"]], **kind),
    )
    torch.manual_seed(seed)
    for network in vars(found).values():
        network.eval().requires_grad_(False)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
            else:
                parameter.fill_(1.0)
    return found


def random_picture(device: torch.device, config: dict, latent: int, count: int = 1):
    """What a run draws from, float32: lines at random, points at random places. See published_manga_ninja.Picture.

    Args:
        count: of pictures; each tensor then has that many rows.
    """
    from .published_manga_ninja import Picture

    generator = torch.Generator(device).manual_seed(1)
    pixels = 8 * latent

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def numbered() -> Tensor:
        found = torch.zeros(count, 1, pixels, pixels, device=device)
        for drawn in found:
            places = torch.randperm(pixels * pixels, generator=generator, device=device)[:POINTS]
            drawn.view(-1)[places] = torch.arange(1.0, POINTS + 1, device=device)
        return found

    edge = (draw(count, 1, pixels, pixels) > 1.5).float().expand(-1, 3, -1, -1)
    tokens = (draw(count, 1, config["context_dim"]) for _ in range(2))
    latents = (draw(count, 4, latent, latent) for _ in range(2))
    return Picture(*latents, *tokens, edge, numbered(), numbered())


class Ours:
    """What the nodes run, in the networks' dtype, latents in float32; of one picture or of several in one batch.

    A step takes what depends on its number as a tensor, a row of ``schedule``, and never waits for the device.

    Args:
        networks: on the device.
        away: the reference UNet once more, which rests in main memory.
        steps: of the run.
        reference_scale, point_scale: MangaNinja's, from which the guider makes its own.
    """

    def __init__(
        self,
        networks: Networks,
        away: nn.Module,
        steps: int = STEPS,
        reference_scale: float = 9.0,
        point_scale: float = 15.0,
    ):
        from .published_manga_ninja import leading_times, signal_shares

        self.networks, self.away = networks, away
        weight = next(networks.unet.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.first_scale, self.second_scale = (1 + reference_scale) / 2, point_scale / 2
        shares = signal_shares()
        times = leading_times(steps)
        self.sigmas = [((1 - shares[time]) / shares[time]) ** 0.5 for time in [*times, 0]]
        rows = zip(times, self.sigmas, self.sigmas[1:], strict=False)
        self.schedule = torch.tensor(
            [[time, (sigma**2 + 1) ** 0.5, sigma, after - sigma] for time, sigma, after in rows], device=self.device
        )
        """[steps, 4]: time, the noisy latent's deviation, sigma, and how much it changes."""

    @torch.no_grad()
    def __call__(self, picture, move: bool = False) -> Tensor:
        """The latents [B, 4, h, w], scaled as the UNet sees them; ``move``: as in ``kept_bank``."""
        prepared = self.prepare(picture, self.kept_bank(picture, move))
        x = self.noisy(picture, 0)
        for row in self.schedule:
            x = self.step(x, row, prepared)
        return self.scaled(x, len(self.schedule))

    def noisy(self, picture, number: int) -> Tensor:
        """The picture's noise as a latent before a step."""
        return picture.noise * (1 + self.sigmas[number] ** 2) ** 0.5

    def scaled(self, x: Tensor, number: int) -> Tensor:
        """A latent before a step, or after the last one, as the UNet sees it."""
        return x / (1 + self.sigmas[number] ** 2) ** 0.5

    @torch.no_grad()
    def kept_bank(self, picture, move: bool = False) -> dict:
        """The bank in main memory, where ComfyUI keeps what goes from node to node.

        Args:
            move: the reference UNet comes from main memory and goes back, as it does where memory is short.
        """
        reference = self.away.to(self.device) if move else self.networks.reference
        found = {place: tokens.cpu() for place, tokens in self.bank(picture, reference).items()}
        if move:
            self.away.to("cpu")
        return found

    @torch.no_grad()
    def bank(self, picture, reference: nn.Module) -> dict:
        """The reference pass: a row for each picture, without noise."""
        from papernodes.patches.reference_attention import keep_tokens

        found: dict = {}
        time = torch.zeros(picture.reference.shape[0], device=self.device)
        inputs = picture.reference.to(self.dtype), time, picture.image.to(self.dtype)
        reference(*inputs, transformer_options=keep_tokens(found, {}))
        return found

    @torch.no_grad()
    def prepare(self, picture, bank: dict) -> tuple:
        """What stays for a run: the rows' attention, context [3 B, 1, C] and hint [3 B, 3, 8 h, 8 w]."""
        from papernodes.patches.reference_attention import ROLES, ReferenceRows

        roles = [role for role in ROLES for _ in range(picture.noise.shape[0])]

        maps = picture.target_points, picture.reference_points
        points = [[tokens.to(self.dtype) for tokens in self.networks.points(drawn)] for drawn in maps]
        context = torch.cat((picture.empty, picture.image, picture.image)).to(self.dtype)
        hint = (2 * picture.edge - 1).repeat(3, 1, 1, 1).to(self.dtype)
        held = {place: tokens.to(self.device, self.dtype) for place, tokens in bank.items()}
        return ReferenceRows(held, roles, *points), context, hint

    @torch.no_grad()
    def step(self, x: Tensor, row: Tensor, prepared: tuple) -> Tensor:
        """One of Euler's steps of latents [B, 4, h, w] whose noise has the deviation of the step's sigma.

        Args:
            row: the step's, of ``schedule``.
            prepared: by ``prepare``.
        """
        rows, context, hint = prepared
        time, deviation, sigma, change = row.unbind()
        batch = torch.cat((x, x, x))
        inputs = (batch / deviation).to(self.dtype)
        times = time.expand(len(batch))
        control = merged(self.networks.control(inputs, hint, times, context))
        found = self.networks.unet(inputs, times, context, control=control, transformer_options=rows.options({}))
        plain, referred, pointed = (batch - found.float() * sigma).chunk(3)
        clean = plain + self.first_scale * (referred - plain) + self.second_scale * (pointed - referred)
        return x + (x - clean) / sigma * change


def merged(found: dict) -> dict:
    """A ControlNet's result as the host's sampler hands it on, which multiplies by the strength even where it is 1."""
    for residuals in found.values():
        for residual in residuals:
            residual *= 1.0
    return {"input": [], **found}
