"""The small Wan 2.1 network as the training scripts use it: start values, a forward that a CUDA graph can capture, the
flow's times as the host samples them.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from demo.diffusion import training_operations

SHIFT = 8.0
"""Wan's: the host's schedulers spend most of their steps where noise is strong."""


def initialise(network: nn.Module) -> None:
    """PyTorch's own start values for the host's layers, which leave their memory as it comes."""
    for module in network.modules():
        for kind in (nn.Linear, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.RMSNorm):
            if isinstance(module, kind):
                kind.reset_parameters(module)


def video_operations() -> type:
    """ComfyUI's layers, with norms that stay in half precision under autocast, also those without weights."""
    base = training_operations()

    class LayerNorm(base.LayerNorm):
        def forward(self, x):
            if self.weight is not None:
                return super().forward(x)
            with torch.autocast(x.device.type, enabled=False):
                return functional.layer_norm(x, self.normalized_shape, None, None, self.eps)

    class RMSNorm(base.RMSNorm):
        def forward(self, x):
            with torch.autocast(x.device.type, enabled=False):
                return functional.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)

    return type("VideoTrainingOperations", (base,), {"LayerNorm": LayerNorm, "RMSNorm": RMSNorm})


def build(device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Network and text transformer with start values: the network starts from the identity and gives 0."""
    from demo.training import initialise as initialise_text
    from demo.world_tokens import vocabulary
    from networks.demo_image import TEXT_CONFIG, build_text_transformer
    from networks.demo_video import build_network

    network = build_network(device, torch.float32, video_operations())
    initialise(network)
    with torch.no_grad():
        # The conditioning is zero there, and so is every gradient.
        network.text_embedding[0].weight[:, TEXT_CONFIG["hidden_size"] :].zero_()
        nn.init.normal_(network.time_projection[1].weight, std=0.02)
        nn.init.zeros_(network.time_projection[1].bias)
        for block in network.blocks:
            nn.init.zeros_(block.modulation)
            block.modulation[:, [2, 5]] = 1.0  # the gates behind attention and feed-forward layer
            for last in (block.self_attn.o, block.cross_attn.o, block.ffn[2]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        nn.init.zeros_(network.head.modulation)
        nn.init.zeros_(network.head.head.weight)
        nn.init.zeros_(network.head.head.bias)
    text = build_text_transformer(device, vocabulary_rows=len(vocabulary()) + 1)
    initialise_text(text)
    return network, text


def _run_block(
    block: nn.Module, weights: dict, tokens: Tensor, changes: Tensor, freqs: Tensor, words: Tensor
) -> Tensor:
    """One of the host's blocks, with its weights for arguments: then all blocks share one compiled function."""
    return functional_call(block, weights, (tokens,), {"e": changes, "freqs": freqs, "context": words})


class VideoForward(nn.Module):
    """The network's forward for latents of one size, the host's own blocks in the host's order.

    The host makes position and time tables anew in every call, partly on the CPU, which a captured graph does not
    survive; here they are made once.

    Args:
        network: the network, on its device.
        shape: of the latents: frames, height, width.
        compiled: fuse what a block does between its matrices; takes a C compiler and half a minute at the first call.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, int, int], compiled: bool = False):
        super().__init__()
        self.network = network
        self.compiled = torch.compile(_run_block, dynamic=False) if compiled else _run_block
        device = network.patch_embedding.weight.device
        self.shape = tuple(shape)
        self.grid = (shape[0], shape[1] // 2, shape[2] // 2)
        freqs = network.rope_encode(*shape, device=device, dtype=torch.float32)
        half = network.freq_dim // 2
        rates = torch.pow(10000, -torch.arange(half, dtype=torch.float32) / half).to(device)
        self.register_buffer("freqs", freqs, persistent=False)
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, x: Tensor, sigmas: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Velocity [B, 16, T, H, W], and the features [B, tokens, 256] that each block but the first starts from.

        Args:
            x: noisy latents [B, 16, T, H, W].
            sigmas: float32 [B], 0..1.
            context: text states [B, L, 128].
        """
        from networks.demo_video import widen

        network = self.network
        tokens = network.patch_embedding(x).to(x.dtype).flatten(2).transpose(1, 2)
        angles = (sigmas * 1000)[:, None] * self.rates
        time = network.time_embedding(torch.cat((angles.cos(), angles.sin()), 1).to(x.dtype))[:, None]
        changes = network.time_projection(time).unflatten(2, (6, network.dim))
        words = network.text_embedding(widen(context))
        features = []
        run_block = self.compiled if torch.is_grad_enabled() else _run_block  # measuring has other shapes
        for block in network.blocks:
            if block is not network.blocks[0]:
                features.append(tokens)
            tokens = run_block(block, dict(block.named_parameters()), tokens, changes, self.freqs, words)
        return network.unpatchify(network.head(tokens, time), self.grid), features


MIDDLE = (0.4, 0.85)
"""Sigmas in which a character's shape is decided. Of 20 rendered clips that were noised and drawn again, one lost its
identity from 0.3, three from 0.5 and ten from 0.8, as many as of those drawn from noise alone."""


def shifted(times: Tensor, shift: float = SHIFT) -> Tensor:
    """The host's sigmas, 0..1, of times 0..1 (ModelSamplingDiscreteFlow)."""
    return shift * times / (1 + (shift - 1) * times)


def add_noise(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Latents [B, ...] at sigmas [B]: a straight line from the clip to the noise, as the host has it."""
    sigmas = sigmas.view(-1, *[1] * (latents.ndim - 1))
    return (1 - sigmas) * latents + sigmas * noise


class SigmaDraw:
    """Draws a batch's sigmas: a share as the host's schedulers space them, where layout and motion are decided, one
    from MIDDLE, the rest evenly.

    Args:
        batch: how many.
        noisy: the first share, 0..1.
        device: where.
        middle: the second share, 0..1 less ``noisy``.
    """

    def __init__(self, batch: int, noisy: float, device: torch.device, middle: float = 0.0):
        numbers = torch.arange(batch, device=device)
        self.noisy = numbers < round(noisy * batch)
        self.middle = ~self.noisy & (numbers < round((noisy + middle) * batch))

    def draw(self) -> Tensor:
        """float32 [batch], 0..1; free of syncs."""
        times = torch.rand(self.noisy.shape, device=self.noisy.device)
        low, high = MIDDLE
        return torch.where(self.noisy, shifted(times), torch.where(self.middle, low + (high - low) * times, times))


@torch.no_grad()
def sample(predict, noise: Tensor, steps: int = 20, shift: float = SHIFT) -> Tensor:
    """Latents by Euler steps from noise [B, 16, T, H, W].

    Args:
        predict: (x, sigmas [B]) -> velocity; guidance is its own affair.
    """
    sigmas = shifted(torch.linspace(1, 0, steps + 1, device=noise.device), shift)
    return euler(predict, noise, sigmas[:, None].expand(-1, noise.shape[0]))


def euler(predict, x: Tensor, sigmas: Tensor) -> Tensor:
    """Euler's steps of latents [B, 16, T, H, W] along sigmas [steps + 1, B], each row along its own; free of syncs."""
    for now, later in itertools.pairwise(sigmas):
        x = x + (later - now).view(-1, *[1] * (x.ndim - 1)) * predict(x, now).float()
    return x


def guided(forward: VideoForward, context: Tensor, empty: Tensor, scale: float):
    """``predict`` for ``sample`` with classifier-free guidance.

    Args:
        context: text states [B, 77, 128]; empty: [1, 77, 128], of the empty prompt.
    """
    both = torch.cat([context, empty.expand_as(context)])

    def predict(x: Tensor, sigmas: Tensor) -> Tensor:
        wanted, unwanted = forward(x.repeat(2, 1, 1, 1, 1), sigmas.repeat(2), both)[0].chunk(2)
        return unwanted + scale * (wanted - unwanted)

    return predict
