"""Tunes the toy world's image model for stories: ``python -m demo.train_story_lora --state build/training/story_lora``.

One-Prompt-One-Story (arXiv 2501.13554) leaves next to nothing of the end token's states and draws each frame from its
words' own. The small image model reads place and light from the end alone. A LoRA of its cross attention and its text
encoder learns to do without: the states of most ends are scaled down, often to 0, and so are words about other
pictures, which a story's prompt holds too. And it learns what the paper's weights are there to mend: where the end is
whole, what a caption leaves open follows from the place (demo/story_captions.py, bound pictures). Nothing here asks
that a character look alike in two pictures. Captions that are left empty for guidance stay as they are.

Writes image_lora_story.safetensors, the moving average in float16, which ComfyUI's LoRA loaders read. It is shipped as
demo/checkpoints/loras/papernodes_demo_story.safetensors.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

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
)
from demo.story_captions import END_ROW, OTHER, frame_text, story_pictures
from demo.train_image import EMPTY_CAPTIONS, draw_latents, load_models
from demo.training import Trainer, autocast, say
from demo.training_data import Drawing
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.world_tokens import token_rows

OTHERS_MOST = 0.1
"""What words about other pictures are scaled by at most; the paper's weights leave a twentieth."""

END_ZERO, END_MOST = 0.6, 0.4
"""Share of the ends that are not kept whose states are scaled by 0; those of the rest by something up to END_MOST."""


class Words(nn.Module):
    """``encode_text`` as a module, whose weights can be given for one call."""

    def __init__(self, text: nn.Module):
        super().__init__()
        self.text = text

    def forward(self, rows: Tensor) -> Tensor:
        return encode_text(self.text, rows)


def weights_of(state: dict[str, Tensor], unet: dict[str, Tensor], text: dict[str, Tensor]) -> tuple[dict, dict]:
    """The tuned weights for ``functional_call`` of the UNet and of ``Words``."""
    from networks.demo_story_lora import apply_lora

    network, words = apply_lora(state, unet, text)
    return network, {f"text.{name}": value for name, value in words.items()}


def row_scales(roles: Tensor, empty: Tensor) -> Tensor:
    """What each token's state is multiplied by, float32 [B, 77, 1]; free of syncs.

    Args:
        roles: [B, 77], as ``story_pictures`` gives them.
        empty: bool [B, 1], captions that are left empty.
    """
    size, device = roles.shape[0], roles.device
    chance, between = torch.rand(2, size, 1, device=device)
    ends = torch.where(chance < END_ZERO, 0.0, END_MOST * between)
    others = OTHERS_MOST * torch.rand(size, 1, device=device)
    scales = torch.where(roles == END_ROW, ends, torch.where(roles == OTHER, others, 1.0))
    return torch.where(empty, 1.0, scales)[..., None]


def make_loss(unet: nn.Module, words: Words, state: dict[str, Tensor], latents: Tensor, tokens: Tensor, arguments):
    """The loss of one step; gradients reach ``state``."""
    device = latents.device
    levels = signal_levels(device)
    chance = time_draw(levels, arguments)
    nothing = torch.from_numpy(token_rows([""])[0]).long().to(device)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32
    frozen = [{name: value.detach() for name, value in model.state_dict().items()} for model in (unet, words.text)]

    def loss() -> Tensor:
        size = arguments.batch
        chosen = torch.randint(0, latents.shape[0], (size,), device=device)
        clean = latents[chosen].float()
        noise = torch.randn_like(clean)
        times, weights = chance.draw()
        noisy = add_noise(clean, noise, levels[times])
        phrasing = torch.randint(0, tokens.shape[1], (size,), device=device)
        rows, roles = tokens[chosen, phrasing].long().unbind(1)
        empty = torch.rand(size, 1, device=device) < EMPTY_CAPTIONS
        network, texts = weights_of(state, *frozen)
        with autocast(device):
            context = functional_call(words, texts, (torch.where(empty, nothing, rows),)) * row_scales(roles, empty)
            noisy = noisy.to(working, memory_format=torch.channels_last)
            inputs = (noisy, times.float(), context.to(working))
            found = functional_call(unet, network, inputs, {"transformer_options": {}})
        return ((found.float() - noise).square().mean((1, 2, 3)) * weights).mean()

    return loss


@torch.no_grad()
def draw_samples(
    unet: nn.Module, words: Words, state, vae, arguments, device: torch.device, scale: float = 2.0
) -> None:
    """Writes samples.png: eight places from captions without their end's states; above as shipped, below tuned."""
    count, size = (2 if arguments.tiny else 8), arguments.size
    sentences = [f"a red cat with a hat {frame_text(place, place % 4)}" for place in range(count)]
    rows = torch.from_numpy(token_rows([*sentences, ""])).long().to(device)
    end = rows[-1, -1]
    noise = torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(7)).to(device)
    noise = noise.expand(count, -1, -1, -1)
    weights = weights_of(state, unet.state_dict(), words.text.state_dict())
    drawn = []
    for network, texts in (({}, {}), weights):
        context = functional_call(words, texts, (rows,))
        context[:-1] *= (rows[:-1] != end)[..., None]

        def tuned(*inputs, network=network, **named):
            return functional_call(unet, network, inputs, named)

        predict = guided(tuned, context[:-1], context[-1:], scale)
        drawn.append(vae.decoder(sample(predict, noise, 3 if arguments.tiny else 20)))
    save_grid(drawn, arguments.state / "samples.png")


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=8, batch=512, rate=1e-3, pictures=300_000)
    parser.add_argument("--models", type=Path, default=Path("demo/checkpoints"), help="folder of the image model")
    parser.add_argument("--vae", type=Path, default=Path("demo/checkpoints/image_vae.safetensors"))
    parser.add_argument("--begin-with", type=Path, help="a LoRA file to go on with")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--characters", type=float, nargs=4, default=[0.75, 0.25, 0.0, 0.0], help="weights of how many")
    add_time_arguments(parser, layout=0.4, layout_weight=1.0)
    parser.set_defaults(layout_from=400)
    arguments = parser.parse_args()
    device = training.settle(arguments)
    step = earlier_progress(arguments).step
    seed = arguments.seed * 1000 + step + 53
    drawing = Drawing(
        arguments, arguments.pictures, seed, characters=tuple(arguments.characters), describe=story_pictures
    )

    from demo.bare_machine import use_host

    use_host()
    from demo import train_vae
    from networks.demo_format import load, save
    from networks.demo_story_lora import KIND, initial_lora

    vae = train_vae.read(arguments.vae, device).to(memory_format=torch.channels_last)
    unet, text = load_models(arguments.models, device)
    words = Words(text)
    say(f"attention: {attention_name()}")
    latents, tokens = draw_latents(drawing, vae, device, arguments.size)
    file = arguments.begin_with
    begun = load(file, KIND)[0] if file else initial_lora(arguments.seed, arguments.rank)
    state = {name: value.float().to(device).requires_grad_() for name, value in begun.items()}
    say(f"{latents.shape[0]} pictures, {sum(value.numel() for value in state.values()) / 1e6:.2f} M parameters")
    loss = make_loss(unet, words, state, latents, tokens, arguments)
    trainer = Trainer(state, loss, arguments, reserve=20, average=0.998)
    trainer.train()
    target = arguments.out / f"{KIND}.safetensors"
    save(target, trainer.averaged(), {**trainer.metadata(KIND), "rank": str(arguments.rank)}, packed=False)
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    stored = {name: value.to(device) for name, value in load(target, KIND)[0].items()}
    draw_samples(unet, words, stored, vae, arguments, device)
    say("done")


if __name__ == "__main__":
    main()
