"""SD1.5's noise schedule and the small model's networks as the training scripts use them."""

import torch
from torch import Tensor, nn
from torch.nn import functional

STEPS = 1000


def signal_levels(device: torch.device | str = "cpu") -> Tensor:
    """float32 [1000]: how much of the picture's variance is left at each time, SD1.5's alphas_cumprod."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float().to(device)


def add_noise(latents: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
    """Latents [B, ...] at signal levels [B]."""
    levels = levels.view(-1, *[1] * (latents.ndim - 1))
    return levels.sqrt() * latents + (1 - levels).sqrt() * noise


def loss_weights(levels: Tensor, limit: float) -> Tensor:
    """min(snr, limit) / snr of signal levels [B]; all 1 for limit 0.

    An error in the noise of an almost clean latent hardly shows in the picture; Hang et al., Efficient Diffusion
    Training via Min-SNR Weighting Strategy, ICCV 2023.
    """
    if not limit:
        return torch.ones_like(levels)
    ratio = levels / (1 - levels)
    return ratio.clamp_max(limit) / ratio


LAYOUT_TIMES = 400
"""From this time on the noise hides what stands where, so that a model decides it there."""

LAYOUT_LIMIT = 60.0
"""Of what an error in the noise counts, where the clean latent's is meant."""


def layout_weights(levels: Tensor, limit: float = LAYOUT_LIMIT) -> Tensor:
    """min(1 / snr, limit) of signal levels [B]: the noise's error counted as the clean latent's.

    Where noise is strong an error in the noise says next to nothing of the layout, and its gradient is as small.
    """
    return ((1 - levels) / levels).clamp_max(limit)


class TimeDraw:
    """Draws a batch's times, and how much an error at each counts.

    Args:
        levels: signal levels [1000], on the device.
        batch: how many times.
        snr_limit: of ``loss_weights``.
        layout: share of the batch that is drawn from the noisier times and counted by ``layout_weights``.
        layout_weight: what those weights are multiplied by.
        layout_from: the first of the noisier times, 0..999.
        layout_limit: of ``layout_weights``.
    """

    def __init__(
        self,
        levels: Tensor,
        batch: int,
        snr_limit: float,
        layout: float,
        layout_weight: float,
        layout_from: int = LAYOUT_TIMES,
        layout_limit: float = LAYOUT_LIMIT,
    ):
        self.plain = loss_weights(levels, snr_limit)
        self.noisier = layout_weights(levels, layout_limit) * layout_weight
        self.layout_from = layout_from
        self.for_layout = torch.arange(batch, device=levels.device) < round(layout * batch)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Times int64 [batch] and weights float32 [batch]; free of syncs."""
        shape, device = self.for_layout.shape, self.for_layout.device
        late = torch.randint(self.layout_from, STEPS, shape, device=device)
        times = torch.where(self.for_layout, late, torch.randint(0, STEPS, shape, device=device))
        return times, torch.where(self.for_layout, self.noisier[times], self.plain[times])


def add_time_arguments(parser, layout: float, layout_weight: float) -> None:
    """What TimeDraw needs of a script's command line, with the script's defaults."""
    parser.add_argument("--snr-limit", type=float, default=5.0, help="of the loss's weights; 0 for none")
    parser.add_argument("--layout", type=float, default=layout, help="share of a batch that learns what stands where")
    parser.add_argument(
        "--layout-weight", type=float, default=layout_weight, help="of the clean latent's error in that share"
    )
    parser.add_argument("--layout-from", type=int, default=LAYOUT_TIMES, help="first time of that share, of 1000")
    parser.add_argument("--layout-limit", type=float, default=LAYOUT_LIMIT, help="of the weights in that share")


def time_draw(levels: Tensor, arguments) -> TimeDraw:
    """A TimeDraw as the command line asks for it."""
    return TimeDraw(
        levels,
        arguments.batch,
        arguments.snr_limit,
        arguments.layout,
        arguments.layout_weight,
        arguments.layout_from,
        arguments.layout_limit,
    )


def training_operations() -> type:
    """ComfyUI's layers, with norms that stay in half precision under autocast: half the memory traffic.

    They add up in float32 inside all the same.
    """
    import comfy.ops

    base = comfy.ops.disable_weight_init

    class GroupNorm(base.GroupNorm):
        def forward(self, x):
            with torch.autocast(x.device.type, enabled=False):
                return functional.group_norm(
                    x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps
                )

    class LayerNorm(base.LayerNorm):
        def forward(self, x):
            with torch.autocast(x.device.type, enabled=False):
                return functional.layer_norm(
                    x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps
                )

    return type("TrainingOperations", (base,), {"GroupNorm": GroupNorm, "LayerNorm": LayerNorm})


def zero_residuals(unet: nn.Module) -> None:
    """Sets the last layer of every residual branch to 0, so that training starts from the identity."""
    from comfy.ldm.modules.attention import SpatialTransformer
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock

    last = [unet.out[-1]] if hasattr(unet, "out") else []
    for module in unet.modules():
        if isinstance(module, ResBlock):
            last.append(module.out_layers[-1])
        elif isinstance(module, SpatialTransformer):
            last.append(module.proj_out)
    for layer in last:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def encode_text(transformer: nn.Module, rows: Tensor) -> Tensor:
    """What SD1.5's text encoder conditions on, [B, 77, 128], from rows of the small vocabulary int64 [B, 77].

    The host's layers. Its mask is an explicit matrix, this is PyTorch's own causal attention, which is faster; and the
    few rows are looked up by a product, whose gradient needs no sorting of the words.
    """

    def attention(query, key, value, heads, mask):
        query, key, value = (item.unflatten(-1, (heads, -1)).transpose(1, 2) for item in (query, key, value))
        found = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return found.transpose(1, 2).flatten(-2)

    model = transformer.text_model
    table = model.embeddings.token_embedding.weight
    with torch.autocast(rows.device.type, enabled=False):
        chosen = (rows[..., None] == torch.arange(table.shape[0], device=rows.device)).to(table.dtype)
        states = chosen @ table + model.embeddings.position_embedding.weight
    for layer in model.encoder.layers:
        states = layer(states, None, attention)
    return model.final_layer_norm(states)


def attention_name() -> str:
    """The attention function that the host chose; says whether training runs on PyTorch's own."""
    from comfy.ldm.modules import attention

    return attention.optimized_attention.__name__


@torch.no_grad()
def sample(predict, noise: Tensor, steps: int = 20) -> Tensor:
    """Latents by DDIM from noise [B, 4, H, W].

    Args:
        predict: (x, times [B]) -> predicted noise; guidance is its own affair.
    """
    levels = signal_levels(noise.device)
    times = torch.linspace(STEPS - 1, 0, steps + 1).round().long().tolist()[:-1]
    x = noise
    for now, later in zip(times, [*times[1:], None], strict=True):
        level = levels[now]
        found = predict(x, torch.full((x.shape[0],), now, device=x.device, dtype=torch.float32))
        clean = (x - (1 - level).sqrt() * found) / level.sqrt()
        x = clean if later is None else levels[later].sqrt() * clean + (1 - levels[later]).sqrt() * found
    return x


def guided(unet: nn.Module, context: Tensor, empty: Tensor, scale: float, control=None):
    """``predict`` for ``sample`` with classifier-free guidance.

    Args:
        context: [B, 77, 128]; empty: [1, 77, 128], of the empty prompt.
        control: (x, times, context) -> the control for the UNet, or None.
    """
    both = torch.cat([context, empty.expand_as(context)])

    def predict(x: Tensor, times: Tensor) -> Tensor:
        x, times = x.repeat(2, 1, 1, 1), times.repeat(2)
        wanted, unwanted = unet(x, times, both, control=control(x, times, both) if control else None).chunk(2)
        return unwanted + scale * (wanted - unwanted)

    return predict
