"""Tunes the toy world's image model to obey blobs: ``python -m demo.train_blob_adapter --state ... --final``.

Nie et al., BlobGEN (ICML 2024): the image model stays as it is, a position net and a gated masked cross attention in
each of its transformer blocks are trained (networks/blob_adapter.py). A picture's blobs are the ellipses of what is
seen of its characters, each with a caption of its own; half of the pictures have no other caption, as in the paper.
Rows without blobs need no training: there the adapter does exactly nothing.

``--without masks`` or ``--without geometry`` trains what the report compares with. Writes blob_adapter.safetensors, the
moving average in int8.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from demo import training
from demo.blob_scenes import WORDS, BlobSource, blob_maker, pick_level
from demo.clip_pool import ClipPool, Refreshing, parts_of
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
from demo.train_image import captions_of_batch, load_models
from demo.training import Trainer, autocast, say
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.video_data import settle_clips
from demo.world_tokens import token_rows

NO_CAPTION = 0.5
"""Of a batch: rows without the caption of the whole picture."""

DROPPED = 0.1
"""Of the blobs of rows with that caption: left out, so that a prompt may tell of more than there are blobs for."""

GATE_SPEED = 10.0
"""Gates start at 0 and one number of each moves no faster than the rate: they are trained as a tenth of themselves."""

TOGETHER = 1024
"""Pictures that are rendered and encoded together."""


class Faster(nn.Module):
    """What is trained is a part of the value."""

    def forward(self, value: Tensor) -> Tensor:
        return value * GATE_SPEED

    def right_inverse(self, value: Tensor) -> Tensor:
        return value / GATE_SPEED


def take_away(network: nn.Module, without: str) -> None:
    """Takes a part of the method away from an adapter, to compare.

    Args:
        network: a BlobAdapter.
        without: "masks" lets every place see all blobs, "geometry" tells no token where its blob stands, "" neither.
    """
    if without == "masks":
        network.cover = lambda rows, height, width, aspect: rows.present[..., None].expand(-1, -1, height * width)
    elif without == "geometry":
        told = network.features
        network.features = lambda ellipses: torch.zeros_like(told(ellipses))


def build(device: torch.device, without: str, size: int) -> nn.Module:
    """The adapter in float32, its weights not yet set; its masks are taken from ``pooled`` [B, K, P].

    Args:
        device: where.
        without: see take_away.
        size: of the pictures.
    """
    from papernodes.networks.blob_adapter import BlobAdapter
    from papernodes.networks.demo_blob_adapter import sizes

    class TrainedAdapter(BlobAdapter):
        pooled: Tensor

        def cover(self, rows, height, width, aspect):
            return pick_level(self.pooled, height * width, size) & rows.present[..., None]

    network = TrainedAdapter(sizes(), dtype=torch.float32, device=device, operations=training_operations())
    take_away(network, without)
    for fuser in network.blocks.values():
        for gate in ("gate", "ff_gate"):
            parametrize.register_parametrization(fuser, gate, Faster())
    return network


def plain_weights(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a file holds of the trained parameters or their average."""
    found = {}
    for name, value in named.items():
        if ".parametrizations." in name:
            name, value = name.replace("parametrizations.", "").removesuffix(".original"), value * GATE_SPEED
        found[name] = value
    return found


def set_weights(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Gives the adapter under training a file's weights."""
    with torch.no_grad():
        for name, value in network.named_parameters():
            plain, _, gate = name.partition("parametrizations.")
            if gate:
                value.copy_(state[plain + gate.removesuffix(".original")] / GATE_SPEED)
            else:
                value.copy_(state[name])


class Networks:
    """The frozen image model with the adapter under training.

    Args:
        models: folder of the image model's files.
        device: where.
        adapter: from ``build``.
    """

    def __init__(self, models: Path, device: torch.device, adapter: nn.Module):
        from papernodes.patches.blob_adapter import AdapterPatch

        self.device, self.adapter = device, adapter
        self.working = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.unet, self.text = (network.eval() for network in load_models(models, device))
        # Its weights are not trained, so they may be what autocast would make of them.
        self.unet.to(self.working)
        self.patch = AdapterPatch(adapter, 1.0)

    def predict(self, x: Tensor, times: Tensor, context: Tensor, blobs: tuple[Tensor, ...]) -> Tensor:
        """The predicted noise.

        Args:
            x: noisy latents [B, 4, h, w]; times [B]; context [B, 77, 128].
            blobs: states, words, ellipses, present and masks, as blob_maker gives them.
        """
        from papernodes.networks.blob_adapter import BlobRows
        from papernodes.patches.blobs import ROWS

        *given, self.adapter.pooled = blobs
        options = {"patches": {"middle_patch": [self.patch]}, ROWS: BlobRows(given[0].to(self.working), *given[1:])}
        x = x.to(self.working, memory_format=torch.channels_last)
        return self.unet(x, times, context.to(self.working), transformer_options=options)


def make_loss(networks: Networks, pool: ClipPool, arguments):
    """The loss of one step; gradients reach the adapter."""
    device, batch = networks.device, arguments.batch
    levels = signal_levels(device)
    chance = time_draw(levels, arguments)
    empty = torch.from_numpy(token_rows([""])[0]).long().to(device)

    def loss() -> Tensor:
        # What the last step left would keep its gradients' graph alive, which a captured step must not share.
        networks.patch.forget()
        chosen = pool.draw(batch)
        latents, tokens, *blobs = pool.tensors
        clean = latents[chosen].float()
        states, words, ellipses, present, masks = (some[chosen] for some in blobs)
        noise = torch.randn_like(clean)
        # The noisier times come first: mixed, so that rows with and without a caption have all of them.
        times, weights = (some[mixing] for some in chance.draw())
        told = torch.rand(batch, 1, device=device) >= NO_CAPTION
        rows = torch.where(told, captions_of_batch(tokens, chosen, empty, 0.0), empty)
        there = present & ~(told & (torch.rand(present.shape, device=device) < DROPPED))
        with autocast(device):
            with torch.no_grad():
                context = encode_text(networks.text, rows)
            noisy = add_noise(clean, noise, levels[times])
            found = networks.predict(noisy, times.float(), context, (states, words, ellipses, there, masks))
        inside = (
            pick_level(masks, clean.shape[2] * clean.shape[3], arguments.size).any(1).view(batch, 1, *clean.shape[2:])
        )
        heavier = 1 + (arguments.character_weight - 1) * inside
        errors = ((found.float() - noise).square() * heavier / heavier.mean((1, 2, 3), keepdim=True)).mean((1, 2, 3))
        return (errors * weights).nan_to_num(0.0, 0.0, 0.0).mean()

    mixing = torch.randperm(batch, generator=torch.Generator().manual_seed(5)).to(device)
    return loss


@torch.no_grad()
def draw_samples(networks: Networks, vae, pool: ClipPool, arguments, scale: float = 3.0) -> None:
    """Writes samples.png, a column for each scene: wanted, drawn after the caption alone, after the blobs alone, and
    after both.
    """
    count, steps = (2, 3) if arguments.tiny else (16, 20)
    clean, tokens, *blobs = (some[:count] for some in pool.tensors)
    device = networks.device
    rows = torch.cat((tokens[:, 0].long(), torch.from_numpy(token_rows([""])).long().to(device)))
    with autocast(device):
        *told, empty = encode_text(networks.text, rows)
    told, empty = torch.stack(told), empty.expand(count, -1, -1)
    none = [torch.zeros_like(some) if some.dtype == torch.bool else some for some in blobs]

    def guided(context: Tensor, given: list[Tensor]):
        both = tuple(torch.cat(pair) for pair in zip(given, none, strict=True))

        def predict(x: Tensor, times: Tensor) -> Tensor:
            with autocast(device):
                found = networks.predict(x.repeat(2, 1, 1, 1), times.repeat(2), torch.cat((context, empty)), both)
            wanted, unwanted = found.float().chunk(2)
            return unwanted + scale * (wanted - unwanted)

        return predict

    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(7)).to(device)
    ways = (guided(told, none), guided(empty, blobs), guided(told, blobs))
    drawn = [sample(way, noise, steps) for way in ways]
    save_grid([vae.decoder(some.float()) for some in (clean, *drawn)], arguments.state / "samples.png")


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=8, batch=512, rate=1.5e-3, pictures=131_072)
    parser.add_argument("--models", type=Path, default=Path("demo/checkpoints"), help="folder of the image model")
    parser.add_argument("--begin-with", type=Path, help="folder of a finished file to go on with")
    parser.add_argument("--fresh", type=float, default=0.15, help="share of the time in which new pictures are made")
    parser.add_argument("--character-weight", type=float, default=2.0, help="of the loss where blobs are")
    parser.add_argument(
        "--characters", type=float, nargs=4, default=[0.15, 0.35, 0.25, 0.25], help="weights of how many"
    )
    parser.add_argument("--without", choices=("", "masks", "geometry"), default="", help="what the adapter lacks")
    parser.add_argument("--average", type=float, default=0.998, help="of the weights' moving average")
    add_time_arguments(parser, layout=0.5, layout_weight=1.0)
    arguments = parser.parse_args()
    device = training.settle(arguments, several=True)
    frames = settle_clips(arguments, 1)
    if arguments.tiny:
        arguments.size = 64  # the UNet's lowest level wants a place at least
    finished = arguments.begin_with and arguments.begin_with / "blob_adapter.safetensors"
    progress = earlier_progress(arguments, "--begin-with", finished, "blob_adapter")
    seed = arguments.seed * 1000 + progress.step + 131 + 400_000 * arguments.group.number
    choice = {"phrasings": 2, "full": 1, "characters": tuple(arguments.characters)}
    source = BlobSource(arguments, seed, frames, **choice)

    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    from papernodes.networks.demo_blob_adapter import KIND, initial, load_adapter

    from demo import train_vae
    from networks.demo_format import save

    vae = train_vae.read(arguments.models / "image_vae.safetensors", device).to(memory_format=torch.channels_last)
    say(f"attention: {attention_name()}")
    adapter = build(device, arguments.without, arguments.size)
    set_weights(adapter, load_adapter(finished) if finished else initial(arguments.seed))
    networks = Networks(arguments.models, device, adapter)
    maker = blob_maker(vae, networks.text, device, arguments.size, seed)
    pool = ClipPool(arguments.pictures)
    refreshing = Refreshing(pool, parts_of(source, maker, TOGETHER), arguments.fresh, device)
    refreshing.fill(arguments.drawing_seconds, arguments.pictures)
    parameters = dict(adapter.named_parameters())
    for value in parameters.values():  # one bad batch is not to end a run: it once did, after 4,300 steps
        value.register_hook(lambda gradient: gradient.nan_to_num(0.0, 0.0, 0.0))
    say(f"{sum(value.numel() for value in parameters.values()) / 1e6:.2f} M parameters, {WORDS} tokens a blob")
    loss = make_loss(networks, pool, arguments)
    trainer = Trainer(parameters, loss, arguments, reserve=25, average=arguments.average, progress=progress)

    def on_tick() -> None:
        refreshing.spend()
        if trainer.progress.step % 1000 < training.TICK:
            gates = [value.detach() for name, value in plain_weights(parameters).items() if name.endswith("gate")]
            say("gates " + " ".join(f"{gate:.2f}" for gate in torch.stack(gates).tanh().tolist()))

    trainer.train(on_tick)
    source.close()
    say(f"{pool.made} pictures made in {refreshing.seconds:.0f} s")
    trainer.group.leave()
    target = arguments.out / f"{KIND}.safetensors"
    save(target, plain_weights(trainer.averaged()), trainer.metadata(KIND))
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    set_weights(adapter, {name: value.to(device) for name, value in load_adapter(target).items()})
    draw_samples(networks, vae, pool, arguments)
    say("done")


if __name__ == "__main__":
    main()
