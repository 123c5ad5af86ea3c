"""Trains the toy world's image model: ``python -m demo.train_image --state build/training/image --vae FILE``.

UNet and text encoder together, from scratch, on latents of rendered pictures and several phrasings of each caption:
noise prediction, errors weighted by min(SNR, 5) / SNR because with few minutes errors that hardly show matter least; a
share of each batch (``--layout``) comes from the noisier times and counts the clean latent's error instead, and two
small losses (demo/layout.py) have features hold their place and words their relation, or else nothing is learned of
what stands where. A tenth of the captions is empty for guidance, a hundredth of the words is
replaced by the row of unknown words. A resumed piece draws other pictures.

Writes image_unet.safetensors and image_text_encoder.safetensors, the moving average in int8.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from demo import training
from demo.diffusion import (
    add_noise,
    add_time_arguments,
    attention_name,
    encode_text,
    guided,
    sample,
    signal_levels,
    time_draw,
    training_operations,
    zero_residuals,
)
from demo.layout import PlaceReading, RelationProbe, RelationReading
from demo.training import Trainer, autocast, initialise, say
from demo.training_data import Drawing, encode_pictures, rendered
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.world_tokens import BEGIN, END, token_rows, vocabulary

EMPTY_CAPTIONS = 0.1
UNKNOWN_WORDS = 0.01
PROBE_TICKS = 8  # losses noted between two questions whether relations are looked at


def draw_latents(drawing: Drawing, vae, device: torch.device, size: int) -> tuple[Tensor, Tensor]:
    """Latents float16 [N, 4, size/8, size/8] and rows of tokens int16 [N, phrasings, 77], on the device."""
    latents, rows = [], []
    for scenes, tokens in drawing:
        latents += [encode_pictures(vae, part.frames[:, 0]) for part in rendered(scenes, device, size)]
        rows.append(tokens.to(device))
    latents = torch.cat(latents)
    if not bool(torch.isfinite(latents).all()):
        raise ValueError("the autoencoder gives latents that are not finite.")
    say(f"latents: mean {latents.float().mean():.3f}, deviation {latents.float().std():.3f}")
    return latents, torch.cat(rows)


def build(device: torch.device) -> tuple[nn.Module, nn.Module]:
    """UNet and text transformer with start values."""
    from networks.demo_image import build_text_transformer, build_unet

    unet = build_unet(device, torch.float32, training_operations())
    text = build_text_transformer(device, vocabulary_rows=len(vocabulary()) + 1)
    initialise(unet)
    initialise(text)
    zero_residuals(unet)
    return unet.to(memory_format=torch.channels_last), text


def captions_of_batch(tokens: Tensor, chosen: Tensor, empty: Tensor, share: float = EMPTY_CAPTIONS) -> Tensor:
    """Rows int64 [B, 77]: a random phrasing of each chosen picture, some empty, some words unknown.

    Args:
        tokens: int16 [N, phrasings, 77].
        chosen: int64 [B], pictures.
        empty: int64 [77], the empty prompt.
        share: how many captions become empty.
    """
    device, batch = tokens.device, chosen.shape[0]
    phrasing = torch.randint(0, tokens.shape[1], (batch,), device=device)
    rows = tokens[chosen, phrasing].long()
    begin, end, unknown = vocabulary().index(BEGIN), vocabulary().index(END), len(vocabulary())
    word = (rows != begin) & (rows != end)
    rows = rows.masked_fill(word & (torch.rand(rows.shape, device=device) < UNKNOWN_WORDS), unknown)
    return torch.where(torch.rand(batch, 1, device=device) < share, empty, rows)


def make_loss(unet: nn.Module, text: nn.Module, readings: nn.ModuleDict, latents: Tensor, tokens: Tensor, arguments):
    """The loss of one step."""
    device = latents.device
    levels = signal_levels(device)
    chance = time_draw(levels, arguments)
    empty = torch.from_numpy(token_rows([""])[0]).long().to(device)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32

    def loss() -> Tensor:
        chosen = torch.randint(0, latents.shape[0], (arguments.batch,), device=device)
        clean = latents[chosen].float()
        noise = torch.randn_like(clean)
        times, weights = chance.draw()
        noisy = add_noise(clean, noise, levels[times])
        rows = captions_of_batch(tokens, chosen, empty)
        with autocast(device):
            context = encode_text(text, rows)
            noisy = noisy.to(working, memory_format=torch.channels_last)
            found = unet(noisy, times.float(), context.to(working), transformer_options={})
        errors = (found.float() - noise).square().mean((1, 2, 3))
        place = readings["places"].loss() * arguments.place_weight
        relation = readings["relations"].loss(rows, context) * arguments.relation_weight
        return (errors * weights).mean() + place + relation

    return loss


@torch.no_grad()
def draw_samples(unet: nn.Module, text: nn.Module, vae, arguments, device: torch.device, scale: float = 3.0) -> None:
    """Writes samples.png (rendered, then twice generated, a column per caption) and samples.txt."""
    from demo.world.captions import captions
    from demo.world.render import render
    from demo.world.scene import draw_scenes

    count, size = (2, arguments.size) if arguments.tiny else (8, arguments.size)
    scenes = draw_scenes(count, 12345)
    sentences = captions(scenes, 1)
    rows = torch.from_numpy(token_rows([*sentences, ""])).long().to(device)
    context = encode_text(text, rows)
    noise = torch.randn(2 * count, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(7)).to(device)
    predict = guided(unet, context[:-1].repeat(2, 1, 1), context[-1:], scale)
    found = vae.decoder(sample(predict, noise, 3 if arguments.tiny else 20))
    truth = render(scenes.to(device), size, size).frames[:, 0]
    save_grid([truth, found[:count], found[count:]], arguments.state / "samples.png")
    text_file = arguments.state / "samples.txt"
    text_file.write_text("\n".join([f"guidance {scale}, 20 DDIM steps", *sentences, ""]), encoding="ascii")


def save_models(trainer: Trainer, arguments) -> None:
    """Writes the two finished files from the moving average."""
    from networks.demo_format import save

    weights = trainer.averaged()
    for prefix, kind in (("unet.", "image_unet"), ("text.", "image_text_encoder")):
        state = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if kind == "image_text_encoder":
            state["vocabulary"] = torch.tensor(vocabulary())
        target = arguments.out / f"{kind}.safetensors"
        save(target, state, trainer.metadata(kind))
        say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
        if kind == "image_unet":  # to measure what storing it in int8 costs
            save(arguments.state / "image_unet_float16.safetensors", state, trainer.metadata(kind), packed=False)


def load_models(folder: Path, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """UNet and text transformer as ``save_models`` stored them, frozen."""
    unet, text = build(device)
    fill(unet, text, folder)
    return unet.requires_grad_(False), text.requires_grad_(False)


def fill(unet: nn.Module, text: nn.Module, folder: Path) -> None:
    """Gives both the weights of the finished files in a folder."""
    from networks.demo_format import load

    unet.load_state_dict(load(folder / "image_unet.safetensors", "image_unet")[0])
    state = load(folder / "image_text_encoder.safetensors", "image_text_encoder")[0]
    del state["vocabulary"]
    text.load_state_dict(state, strict=False)  # its projection, which nothing uses, is not stored


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=9, batch=1024, rate=2e-3, pictures=400_000)
    parser.add_argument("--vae", type=Path, default=Path("demo/checkpoints/image_vae.safetensors"))
    parser.add_argument("--start", type=Path, help="folder of finished files to go on from, where their state is lost")
    parser.add_argument("--phrasings", type=int, default=4, help="captions drawn for each picture")
    add_time_arguments(parser, layout=0.75, layout_weight=1.0)
    parser.add_argument("--characters", type=float, nargs=4, help="weights of one to four characters in a picture")
    parser.add_argument("--full-phrasings", type=int, default=0, help="of the phrasings, so many name everything")
    parser.add_argument("--place-weight", type=float, default=0.15, help="of the loss of reading a pixel's place")
    parser.add_argument(
        "--relation-weight", type=float, default=0.05, help="of the loss of reading a caption's relation"
    )
    parser.add_argument("--average", type=float, default=0.999, help="of the weights' moving average")
    arguments = parser.parse_args()
    device = training.settle(arguments)
    # The steps done so far tell the pieces apart: each draws its own pictures.
    finished = arguments.start and arguments.start / "image_unet.safetensors"
    progress = earlier_progress(arguments, "--start", finished, "image_unet")
    step = progress.step
    drawing = Drawing(
        arguments,
        arguments.pictures,
        arguments.seed * 1000 + step + 7,
        phrasings=1 if arguments.tiny else arguments.phrasings,
        full_phrasings=arguments.full_phrasings,
        characters=tuple(arguments.characters) if arguments.characters else None,
    )

    from demo.bare_machine import use_host

    use_host()
    from demo import train_vae

    vae = train_vae.read(arguments.vae, device).to(memory_format=torch.channels_last)
    say(f"attention: {attention_name()}")
    latents, tokens = draw_latents(drawing, vae, device, arguments.size)
    torch.manual_seed(arguments.seed)
    unet, text = build(device)
    if arguments.start:
        fill(unet, text, arguments.start)
    parameters = {f"unet.{name}": value for name, value in unet.named_parameters()}
    parameters |= {f"text.{name}": value for name, value in text.named_parameters() if "text_projection" not in name}
    readings = nn.ModuleDict({"places": PlaceReading(unet), "relations": RelationReading(device)})
    parameters |= {f"{training.AUXILIARY}{name}": value for name, value in readings.named_parameters()}
    loss = make_loss(unet, text, readings, latents, tokens, arguments)
    trainer = Trainer(parameters, loss, arguments, average=arguments.average, progress=progress)
    say(f"{latents.shape[0]} pictures, {sum(value.numel() for value in parameters.values()) / 1e6:.2f} M parameters")
    probe, ticks = RelationProbe(vae, device, arguments.size, 8 if arguments.tiny else 512), iter(range(1 << 30))

    def on_tick() -> None:
        if next(ticks) % PROBE_TICKS == 0:
            say(f"step {trainer.progress.step}: a wrong relation costs {probe(unet, text)}")
            say(f"places are read with an error of {readings['places'].loss().item():.4f}")

    trainer.train(on_tick)
    save_models(trainer, arguments)
    del latents, tokens
    unet, text = load_models(arguments.out, device)
    draw_samples(unet, text, vae, arguments, device)
    say("done")


if __name__ == "__main__":
    main()
