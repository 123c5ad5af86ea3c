"""Tunes the toy world's image model to colour lines after a reference: ``python -m demo.train_manga_ninja ...``.

Liu et al., MangaNinja (CVPR 2025): a second UNet sees the reference, the first attends to what goes into its self
attentions; matched points are told to both by a point net, lines by a ControlNet. All four are trained together, three
of them as small changes of the shipped image model and its ControlNet (networks/demo_manga_ninja.py). No captions: the
context is the reference's CLIP embedding.

Of each batch a share sees no reference and a share no points, for the two kinds of guidance; references are cut into
squares and shuffled in part, so that colours are looked up place by place (demo/colour_pairs.py).

Writes manga_ninja_denoising, _reference, _points and _control.safetensors, the moving average in int8.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from demo import training
from demo.clip_pool import ClipPool, Refreshing, parts_of
from demo.colour_pairs import numbered_maps, pair_maker
from demo.diffusion import (
    add_noise,
    add_time_arguments,
    attention_name,
    encode_text,
    sample,
    signal_levels,
    time_draw,
    training_operations,
)
from demo.train_control import as_control
from demo.train_image import load_models
from demo.training import Trainer, autocast, say
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.video_data import ClipSource, settle_clips
from demo.world_tokens import token_rows

NO_REFERENCE_SHARE = 0.1
"""Of a batch: rows without a reference."""

EMPTY_MAPS = 0.1
"""Of the rows with the point net, those whose maps have no points."""

MOST_POINTS = 10
TOGETHER = 1024
"""Pairs that are rendered and encoded together."""

FAINT = 0.24
"""Lines no brighter than this are left out, as MangaNinja leaves them out."""


class Networks:
    """The frozen image model with MangaNinja's four parts, as functions of what is trained.

    Args:
        models: folder of the image model's files.
        device: where.
        state: "<kind>/<name>" -> what is trained, float32 on the device.
    """

    def __init__(self, models: Path, device: torch.device, state: dict[str, Tensor]):
        from networks.demo_controlnet import assemble, build_controlnet
        from networks.demo_format import load
        from networks.demo_manga_ninja import WIDTHS
        from networks.point_net import PointNet

        self.device, self.state = device, state
        self.working = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.unet, text = load_models(models, device)
        self.unet.eval()
        self.control = build_controlnet(device, torch.float32, training_operations()).requires_grad_(False)
        self.points = PointNet(WIDTHS, device).requires_grad_(False)
        empty = torch.from_numpy(token_rows([""])).long().to(device)
        with torch.no_grad():
            self.nothing = encode_text(text, empty)[:, :1]  # what SD1.5's text encoder makes of the beginning
        self.frozen = {name: value.detach() for name, value in self.unet.state_dict().items()}
        self.cast = {name: value.to(self.working) for name, value in self.frozen.items()}
        lines = load(models / "image_controlnet_lineart.safetensors", "image_controlnet_lineart")[0]
        self.lines = {
            name: value.to(device)
            for name, value in assemble(lines, {name: value.cpu() for name, value in self.frozen.items()}).items()
        }

    def part(self, kind: str) -> dict[str, Tensor]:
        """What a file of a kind holds."""
        return {name.partition("/")[2]: value for name, value in self.state.items() if name.startswith(f"{kind}/")}

    def tuned(self, kind: str) -> dict[str, Tensor]:
        """A UNet's weights, in the working precision where nothing is trained."""
        from networks.demo_lora import NETWORK, apply_factors

        return self.cast | apply_factors(self.part(kind), self.frozen, NETWORK)

    def read_reference(self, weights: dict[str, Tensor], latents: Tensor, embeddings: Tensor) -> dict:
        """The bank: tokens of every self attention of the reference UNet, which sees latents without noise."""
        from papernodes.patches.reference_attention import keep_tokens

        bank: dict = {}
        inputs = latents.to(self.working, memory_format=torch.channels_last)
        times = torch.zeros(latents.shape[0], device=self.device)
        context = embeddings[:, None].to(self.working)
        options = keep_tokens(bank, {})
        functional_call(self.unet, weights, (inputs, times, context), {"transformer_options": options})
        return bank

    def embed_points(self, maps: Tensor) -> list[Tensor]:
        """Tokens of each level for point maps [B, 1, H, W]."""
        return functional_call(self.points, self.part("manga_ninja_points"), (maps,))

    def predict(
        self, unet: dict[str, Tensor], control: dict[str, Tensor], x, times, context, hint, bank, roles, points
    ) -> Tensor:
        """The predicted noise.

        Args:
            unet, control: weights.
            x: noisy latents [B, 4, h, w]; times [B]; context [B, 1, 128]; hint [B, 3, H, W] in -1..1.
            bank, roles, points: as ReferenceRows takes them, points being those of target and reference.
        """
        from papernodes.patches.reference_attention import ReferenceRows

        x, hint = (some.to(self.working, memory_format=torch.channels_last) for some in (x, hint))
        context = context.to(self.working)
        followed = functional_call(self.control, control, (x, hint, times, context))
        # The host adds the control in place to tensors that the next layer's gradient needs.
        apart = {"patches": {"input_block_patch_after_skip": [lambda h, _: h.clone()]}}
        options = ReferenceRows(bank, roles, *points).options(apart)
        named = {"control": as_control(followed), "transformer_options": options}
        return functional_call(self.unet, unet, (x, times, context), named)

    def control_weights(self) -> dict[str, Tensor]:
        """The ControlNet's."""
        from networks.demo_manga_ninja import apply_control

        return apply_control(self.part("manga_ninja_control"), self.lines)


def as_hint(lines: Tensor) -> Tensor:
    """Lines uint8 [B, 1, H, W] as MangaNinja's ControlNet wants them: float32 [B, 3, H, W], -1..1."""
    shown = lines.float() / 255
    return (torch.where(shown > FAINT, shown, 0.0) * 2 - 1).expand(-1, 3, -1, -1)


def make_loss(networks: Networks, pool: ClipPool, arguments):
    """The loss of one step; gradients reach the networks' state."""
    from papernodes.patches.reference_attention import NO_REFERENCE, REFERENCE, WITH_POINTS

    device, batch = networks.device, arguments.batch
    levels = signal_levels(device)
    chance = time_draw(levels, arguments)
    alone, without = (max(1, round(share * batch)) for share in (NO_REFERENCE_SHARE, arguments.without_points))
    pointed = max(1, batch - alone - without)
    if arguments.tiny:
        alone, without, pointed = 0, batch - pointed, pointed
    roles = [NO_REFERENCE] * alone + [REFERENCE] * without + [WITH_POINTS] * pointed

    def loss() -> Tensor:
        chosen = pool.draw(batch)
        clean, given, lines, places, embeddings, inside = (some[chosen] for some in pool.tensors)
        clean, size = clean.float(), lines.shape[-1]
        noise = torch.randn_like(clean)
        # The noisier times come first: mixed, so that every role has all of them.
        times, weights = (some[mixing] for some in chance.draw())
        noisy = add_noise(clean, noise, levels[times])
        shown = embeddings.float()[:, None]
        context = torch.cat((networks.nothing.expand(alone, -1, -1), shown[alone:]))
        # Few more often than many: each is then harder to do without.
        most = (torch.rand(pointed, device=device).square() * MOST_POINTS).ceil().clamp_min(1).long()
        count = torch.where(torch.rand(pointed, device=device) < EMPTY_MAPS, 0, most)
        with autocast(device):
            points = [networks.embed_points(some) for some in numbered_maps(places[-pointed:], count, size)]
            bank = networks.read_reference(networks.tuned("manga_ninja_reference"), given.float(), embeddings.float())
            unet, control = networks.tuned("manga_ninja_denoising"), networks.control_weights()
            found = networks.predict(unet, control, noisy, times.float(), context, as_hint(lines), bank, roles, points)
        heavier = 1 + (arguments.character_weight - 1) * inside.float()
        errors = ((found.float() - noise).square() * heavier / heavier.mean((1, 2, 3), keepdim=True)).mean((1, 2, 3))
        return (errors * weights).mean()

    mixing = torch.randperm(batch, generator=torch.Generator().manual_seed(5)).to(device)
    return loss


@torch.no_grad()
def draw_samples(networks: Networks, vae, pool: ClipPool, arguments, scales=(2.0, 2.0)) -> None:
    """Writes samples.png, a column for each pair: reference, lines, wanted, drawn without reference, with it, with
    points, and with both guidances.
    """
    from papernodes.patches.reference_attention import NO_REFERENCE, REFERENCE, WITH_POINTS

    count, steps = (2, 3) if arguments.tiny else (16, 20)
    clean, given, lines, places, embeddings, _ = (some[:count] for some in pool.tensors)
    device = networks.device
    all_points = torch.full((count,), places.shape[1], device=device)
    maps = numbered_maps(places, all_points, lines.shape[-1])
    unet = networks.tuned("manga_ninja_denoising")
    control, hint = networks.control_weights(), as_hint(lines)
    with autocast(device):
        points = [networks.embed_points(some) for some in maps]
        bank = networks.read_reference(networks.tuned("manga_ninja_reference"), given.float(), embeddings.float())
    shown = embeddings.float()[:, None]
    nothing = networks.nothing.expand(count, -1, -1)

    def of_role(role: int, x: Tensor, times: Tensor) -> Tensor:
        context = nothing if role == NO_REFERENCE else shown
        with autocast(device):
            return networks.predict(unet, control, x, times, context, hint, bank, [role] * count, points).float()

    def both(x: Tensor, times: Tensor) -> Tensor:
        u, r, p = (of_role(role, x, times) for role in (NO_REFERENCE, REFERENCE, WITH_POINTS))
        return u + scales[0] * (r - u) + scales[1] * (p - r)

    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(7)).to(device)
    ways = [lambda x, times, role=role: of_role(role, x, times) for role in (NO_REFERENCE, REFERENCE, WITH_POINTS)]
    drawn = [sample(way, noise, steps) for way in (*ways, both)]
    decoded = [vae.decoder(some.float()) for some in (given, clean, *drawn)]
    decoded.insert(1, lines.float().expand(-1, 3, -1, -1) / 255)
    save_grid(decoded, arguments.state / "samples.png")


def read_begun(arguments, device: torch.device) -> dict[str, Tensor]:
    """What training begins with, under "<kind>/<name>"."""
    from networks.demo_controlnet import assemble
    from networks.demo_format import load
    from networks.demo_manga_ninja import CONTROL, KINDS, initial, load_small

    models = arguments.models
    unet = load(models / "image_unet.safetensors", "image_unet")[0]
    lines = assemble(load(models / "image_controlnet_lineart.safetensors", "image_controlnet_lineart")[0], unet)
    state = {}
    for kind in KINDS:
        if arguments.begin_with:
            part = load_small(arguments.begin_with / f"{kind}.safetensors", kind)
        else:
            part = initial(kind, arguments.seed, lines if kind == CONTROL else None)
        state |= {f"{kind}/{name}": value for name, value in part.items()}
    return {name: value.float().to(device).requires_grad_() for name, value in state.items()}


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=8, batch=256, rate=1e-3, pictures=131_072)
    parser.add_argument("--models", type=Path, default=Path("demo/checkpoints"), help="folder of the image model")
    parser.add_argument("--begin-with", type=Path, help="a folder of four finished files to go on with")
    parser.add_argument("--fresh", type=float, default=0.2, help="share of the time in which new pairs are made")
    parser.add_argument("--character-weight", type=float, default=3.0, help="of the loss where characters are")
    parser.add_argument(
        "--characters", type=float, nargs=4, default=[0.15, 0.65, 0.15, 0.05], help="weights of how many"
    )
    parser.add_argument(
        "--twins", type=float, default=0.7, help="share of the pairs of several in which two differ in colour alone"
    )
    parser.add_argument(
        "--without-points", type=float, default=0.15, help="share of a batch with a reference, without the point net"
    )
    parser.add_argument("--average", type=float, default=0.998, help="of the weights' moving average")
    add_time_arguments(parser, layout=0.5, layout_weight=1.0)
    arguments = parser.parse_args()
    device = training.settle(arguments, several=True)
    frames = settle_clips(arguments, 1)
    finished = arguments.begin_with and arguments.begin_with / "manga_ninja_denoising.safetensors"
    progress = earlier_progress(arguments, "--begin-with", finished, "manga_ninja_denoising")
    seed = arguments.seed * 1000 + progress.step + 97 + 400_000 * arguments.group.number
    source = ClipSource(arguments, seed, frames, characters=tuple(arguments.characters))

    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    from demo import train_vae
    from networks.demo_format import load, save
    from networks.demo_manga_ninja import KINDS
    from networks.demo_vision import build_clip_vision

    vae = train_vae.read(arguments.models / "image_vae.safetensors", device).to(memory_format=torch.channels_last)
    vision: nn.Module = build_clip_vision(device)
    vision.load_state_dict(load(arguments.models / "image_clip_vision.safetensors", "image_clip_vision")[0])
    say(f"attention: {attention_name()}")
    maker = pair_maker(vae, vision.eval().requires_grad_(False), device, arguments.size, seed, arguments.twins)
    pool = ClipPool(arguments.pictures)
    refreshing = Refreshing(pool, parts_of(source, maker, TOGETHER), arguments.fresh, device)
    refreshing.fill(arguments.drawing_seconds, arguments.pictures)
    state = read_begun(arguments, device)
    networks = Networks(arguments.models, device, state)
    say(f"{sum(value.numel() for value in state.values()) / 1e6:.2f} M parameters")
    trainer = Trainer(
        state, make_loss(networks, pool, arguments), arguments, reserve=25, average=arguments.average, progress=progress
    )
    trainer.train(refreshing.spend)
    source.close()
    say(f"{pool.made} pairs made in {refreshing.seconds:.0f} s")
    trainer.group.leave()
    averaged, stored = trainer.averaged(), {}
    for kind in KINDS:
        target = arguments.out / f"{kind}.safetensors"
        part = {name.partition("/")[2]: value for name, value in averaged.items() if name.startswith(f"{kind}/")}
        save(target, part, trainer.metadata(kind))
        say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
        stored |= {f"{kind}/{name}": value.to(device) for name, value in load(target, kind)[0].items()}
    networks.state = stored
    draw_samples(networks, vae, pool, arguments)
    say("done")


if __name__ == "__main__":
    main()
