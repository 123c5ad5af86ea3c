"""Trains the toy world's line art ControlNet: ``python -m demo.train_control --state build/training/control --final``.

The image model as it is shipped stays as it is; hint block, zero convolutions and low-rank factors of the encoder's
copy are trained (networks/demo_controlnet.py). Hints are the rendered pictures' own lines, white on black. Three in ten
captions are empty, so that the lines alone tell something too.

Writes image_controlnet_lineart.safetensors, the moving average in int8.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

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
)
from demo.train_image import captions_of_batch, load_models
from demo.training import Trainer, autocast, say
from demo.training_data import Drawing, encode_pictures, rendered, to_bytes
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.world_tokens import token_rows

EMPTY_CAPTIONS = 0.3


def draw_pool(drawing: Drawing, vae, device: torch.device, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents float16 [N, 4, size/8, size/8], lines uint8 [N, 1, size, size] and tokens int16 [N, phrasings, 77]."""
    latents, lines, rows = [], [], []
    for scenes, tokens in drawing:
        for part in rendered(scenes, device, size, ("frames", "lines")):
            latents.append(encode_pictures(vae, part.frames[:, 0]))
            lines.append(to_bytes(part.lines[:, 0]))
        rows.append(tokens.to(device))
    return torch.cat(latents), torch.cat(lines), torch.cat(rows)


def as_hint(lines: Tensor) -> Tensor:
    """Lines uint8 [B, 1, H, W] as ComfyUI hands an IMAGE to a ControlNet: float32 [B, 3, H, W], 0..1."""
    return (lines.float() / 255).expand(-1, 3, -1, -1)


def as_control(found: dict) -> dict:
    """What ComfyUI's sampler makes of a ControlNet's result at strength 1, for the UNet's argument ``control``."""
    return {"input": [], "middle": list(found["middle"]), "output": list(found["output"])}


def make_loss(unet: nn.Module, text: nn.Module, network: nn.Module, state: dict[str, Tensor], pool, arguments):
    """The loss of one step; gradients reach ``state``."""
    from networks.demo_controlnet import assemble

    latents, lines, tokens = pool
    device = latents.device
    levels = signal_levels(device)
    chance = time_draw(levels, arguments)
    empty = torch.from_numpy(token_rows([""])[0]).long().to(device)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32
    frozen = {name: value.detach() for name, value in unet.state_dict().items()}

    def loss() -> Tensor:
        chosen = torch.randint(0, latents.shape[0], (arguments.batch,), device=device)
        clean = latents[chosen].float()
        noise = torch.randn_like(clean)
        times, weights = chance.draw()
        noisy = add_noise(clean, noise, levels[times]).to(working, memory_format=torch.channels_last)
        hint = as_hint(lines[chosen]).to(working, memory_format=torch.channels_last)
        rows = captions_of_batch(tokens, chosen, empty, EMPTY_CAPTIONS)
        merged = assemble(state, frozen)
        with autocast(device):
            with torch.no_grad():
                context = encode_text(text, rows).to(working)
            control = functional_call(network, merged, (noisy, hint, times.float(), context))
            found = unet(noisy, times.float(), context, control=as_control(control), transformer_options={})
        errors = (found.float() - noise).square().mean((1, 2, 3))
        return (errors * weights).mean()

    return loss


def edges(pictures: Tensor) -> Tensor:
    """How strongly pictures [B, 3, H, W] change from pixel to pixel: [B, H-1, W-1]."""
    across = pictures[:, :, :-1, 1:] - pictures[:, :, :-1, :-1]
    down = pictures[:, :, 1:, :-1] - pictures[:, :, :-1, :-1]
    return (across.square() + down.square()).sum(1).sqrt()


def correlation(one: Tensor, two: Tensor) -> float:
    """Mean over the batch of the correlation of two maps [B, H, W], each blurred over 5 pixels."""
    one, two = (functional.avg_pool2d(item[:, None], 5, 1, 2).flatten(1) for item in (one, two))
    one, two = one - one.mean(1, keepdim=True), two - two.mean(1, keepdim=True)
    return float(functional.cosine_similarity(one, two, dim=1).mean())


@torch.no_grad()
def draw_samples(unet, text, network, vae, arguments, device, scale: float = 3.0) -> dict[str, float]:
    """Writes control.png (rendered, lines, generated with them, generated without) and measures how edges agree."""
    from demo.world.captions import captions
    from demo.world.render import render
    from demo.world.scene import draw_scenes

    count, size = (2, arguments.size) if arguments.tiny else (64, arguments.size)
    steps = 3 if arguments.tiny else 20
    scenes = draw_scenes(count, 54321)
    rows = torch.from_numpy(token_rows([*captions(scenes, 1), ""])).long().to(device)
    context = encode_text(text, rows)
    truth = render(scenes.to(device), size, size, layers=("frames", "lines"))
    frames, lines = truth.frames[:, 0], to_bytes(truth.lines[:, 0])
    hint = as_hint(lines).repeat(2, 1, 1, 1)

    def control(x: Tensor, times: Tensor, both: Tensor) -> dict:
        return as_control(network(x, hint, times, both))

    noise = torch.randn(count, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(7)).to(device)
    found = {}
    for name, used in (("with", control), ("without", None)):
        predict = guided(unet, context[:-1], context[-1:], scale, used)
        found[name] = vae.decoder(sample(predict, noise, steps)).clamp(0, 1)
    shown = [frames[:8], lines[:8].float().expand(-1, 3, -1, -1) / 255, found["with"][:8], found["without"][:8]]
    save_grid(shown, arguments.state / "control.png")
    wanted = edges(frames)
    return {name: round(correlation(edges(pictures), wanted), 4) for name, pictures in found.items()}


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=4, batch=384, rate=1e-3, pictures=102_400)
    parser.add_argument("--models", type=Path, default=Path("demo/checkpoints"), help="folder of the image model")
    parser.add_argument("--vae", type=Path, default=Path("demo/checkpoints/image_vae.safetensors"))
    add_time_arguments(parser, layout=0.75, layout_weight=1.0)
    arguments = parser.parse_args()
    device = training.settle(arguments)
    step = earlier_progress(arguments).step
    drawing = Drawing(arguments, arguments.pictures, arguments.seed * 1000 + step + 17, phrasings=2)

    from demo.bare_machine import use_host

    use_host()
    from demo import train_vae
    from networks.demo_controlnet import assemble, build_controlnet, initial_state
    from networks.demo_format import load, save

    vae = train_vae.read(arguments.vae, device).to(memory_format=torch.channels_last)
    unet, text = load_models(arguments.models, device)
    say(f"attention: {attention_name()}")
    pool = draw_pool(drawing, vae, device, arguments.size)
    unet_state = load(arguments.models / "image_unet.safetensors", "image_unet")[0]
    state = {
        name: value.to(device).requires_grad_() for name, value in initial_state(unet_state, arguments.seed).items()
    }
    network = build_controlnet(device, torch.float32, training_operations())
    network.load_state_dict(assemble({name: value.detach() for name, value in state.items()}, unet.state_dict()))
    network.requires_grad_(False)
    say(f"{pool[0].shape[0]} pictures, {sum(value.numel() for value in state.values()) / 1e6:.2f} M parameters")
    trainer = Trainer(
        state, make_loss(unet, text, network, state, pool, arguments), arguments, reserve=30, average=0.998
    )
    trainer.train()

    target = arguments.out / "image_controlnet_lineart.safetensors"
    metadata = trainer.metadata("image_controlnet_lineart")
    save(target, trainer.averaged(), metadata)
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    del pool
    stored, _ = load(target, "image_controlnet_lineart")
    network.load_state_dict(assemble({name: value.to(device) for name, value in stored.items()}, unet.state_dict()))
    agreement = draw_samples(unet, text, network, vae, arguments, device)
    say(f"correlation of edges with the rendered picture's: {agreement}")
    found = {f"edges_{name}": f"{value:.4f}" for name, value in agreement.items()}
    save(target, trainer.averaged(), {**metadata, **found})
    say("done")


if __name__ == "__main__":
    main()
