"""Trains the toy world's video model: ``python -m demo.train_video --state build/training/video --vae FILE``.

Network and text encoder together, from scratch, on latents of rendered clips and several phrasings of each caption:
rectified flow as ComfyUI samples Wan. As Wan itself was, it may be trained on single pictures first (``--frames 1``),
five times as many for the same work, and go on with clips. The velocity's error weighs a clip's layout and motion as
it should where the noise is strong; half of a batch (``--noisy``) comes from there, as the host's schedulers do. Small
losses have the network's features hold their place and the words' states their motion (demo/video_motion.py), and the
features say which character they show (demo/video_contents.py); ``--feature-weight`` adds the error as the decoder sees
it (demo/decoder_features.py). A tenth of the captions is empty for guidance, a
hundredth of the words unknown. All through training the network's weights have the values that the file can hold
(float8). A resumed piece draws other clips. New clips are made all the time (``--fresh``, demo/clip_pool.py), and of
more than ``--pictures`` the oldest are forgotten.

Writes video_unet.safetensors, which ComfyUI's UNETLoader reads, and video_text_encoder.safetensors in int8, both the
moving average.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from demo import training
from demo.clip_pool import ClipPool, Refreshing, parts_of
from demo.decoder_features import feature_error
from demo.diffusion import attention_name, encode_text
from demo.train_image import PROBE_TICKS, captions_of_batch
from demo.training import Trainer, autocast, say
from demo.training_drawings import save_grid
from demo.training_state import earlier_progress
from demo.video_contents import ContentReading, Contents, contents, error_weights
from demo.video_data import FRAMES, ClipSource, settle_clips
from demo.video_model import SHIFT, SigmaDraw, VideoForward, add_noise, build, guided, sample
from demo.video_motion import MotionProbe, MotionReading, TokenPlaces
from demo.video_vae import VideoAutoencoder, decode_latents, encode_clips, fuse_norms
from demo.world.render import render
from demo.world.scene import Scenes
from demo.world_tokens import token_rows, vocabulary

TOGETHER = 128
"""Clips of 17 frames that are rendered and encoded together, or as many single pictures as they have frames."""

PLACES_OF, CONTENTS_OF, FEATURES_OF = 4, 2, 2
"""Of so many clips of a batch one is asked for its places, its contents, and what the decoder makes of it: reading
takes as long as a block."""

CONTENT_FEATURES = 2
"""Which of the features, from 0, say what they show: those behind the third of five blocks."""


def clip_maker(vae, device: torch.device, size: int) -> Callable[[Scenes, Tensor], tuple[Tensor, ...]]:
    """A function of scenes and rows of tokens that makes what is learned from.

    That is latents float16 [N, 16, T, size/8, size/8], tokens int16 [N, phrasings, 77], and what the tokens of the
    network show (Contents), on the device.
    """

    @torch.no_grad()
    def make(scenes: Scenes, tokens: Tensor) -> tuple[Tensor, ...]:
        scenes = scenes.to(device)
        drawn = render(scenes, size, size, layers=("frames", "labels", "local"))
        shown = contents(scenes, drawn)
        latents = encode_clips(vae, drawn.frames, part=16 * FRAMES // scenes.frames)
        return latents, tokens.to(device), *shown.tensors()

    return make


def is_matrix(name: str, value: Tensor) -> bool:
    """Whether a parameter maps features to features: not an embedding, nor a layer at either end."""
    ends = ("embeddings.", "patch_embedding.", "text_embedding.0.", "head.", "modulation", training.AUXILIARY)
    return value.ndim == 2 and not any(end in name for end in ends)


def make_loss(
    forward: VideoForward,
    text: nn.Module,
    readings: nn.ModuleDict,
    pool: ClipPool,
    arguments,
    vae: VideoAutoencoder | None = None,
):
    """The loss of one step; ``vae`` is what ``--feature-weight`` needs."""
    from networks.demo_video import as_stored

    latents, tokens, *shown = pool.tensors
    device = latents.device
    chance = SigmaDraw(arguments.batch, arguments.noisy, device, arguments.middle)
    empty = torch.from_numpy(token_rows([""])[0]).long().to(device)
    working = torch.bfloat16 if device.type == "cuda" else torch.float32

    def loss() -> Tensor:
        chosen = pool.draw(arguments.batch)
        clean = latents[chosen].float()
        noise = torch.randn_like(clean)
        sigmas = chance.draw()
        noisy = add_noise(clean, noise, sigmas).to(working)
        rows = captions_of_batch(tokens, chosen, empty)
        weights = as_stored("video_unet", dict(forward.network.named_parameters()), working)
        weights = {f"network.{name}": value for name, value in weights.items()}
        with autocast(device):
            context = encode_text(text, rows)
            found, features = functional_call(forward, weights, (noisy, sigmas, context.to(working)))
        here = Contents(*shown).select(chosen)
        found = found.float()
        error = (found - (noise - clean)).square()
        error = (error * error_weights(here, sigmas, clean.shape, arguments.character_weight)).mean()
        place = readings["places"].loss([some[::PLACES_OF] for some in features]) * arguments.place_weight
        motion = readings["motions"].loss(rows, context) * arguments.motion_weight
        with autocast(device):
            some = here.select(slice(None, None, CONTENTS_OF))
            content = readings["contents"].loss(features[CONTENT_FEATURES][::CONTENTS_OF], some)
        if arguments.feature_weight:
            guess = noisy.float() - sigmas.view(-1, 1, 1, 1, 1) * found
            looks = feature_error(vae, *(some[::FEATURES_OF] for some in (guess, clean, sigmas)))
            error = error + looks * arguments.feature_weight
        return error + place + motion + content * arguments.content_weight

    return loss


@torch.no_grad()
def draw_samples(forward: VideoForward, text: nn.Module, vae, arguments, device, frames: int, scale: float) -> None:
    """Writes samples.png (for each caption five frames as rendered and as generated) and samples.txt."""
    from demo.world.captions import captions
    from demo.world.scene import draw_scenes

    count, size, steps = (2, arguments.size, 3) if arguments.tiny else (8, arguments.size, 20)
    scenes = draw_scenes(count, 12345, frames=frames)
    sentences = captions(scenes, 1)
    rows = torch.from_numpy(token_rows([*sentences, ""])).long().to(device)
    context = encode_text(text, rows)
    noise = torch.randn(count, 16, *forward.shape, generator=torch.Generator().manual_seed(7)).to(device)
    found = decode_latents(vae, sample(guided(forward, context[:-1], context[-1:], scale), noise, steps))
    truth = render(scenes.to(device), size, size).frames
    times = torch.linspace(0, frames - 1, 5).round().long()
    save_grid(
        [row for k in range(count) for row in (truth[k, times], found[k, times])], arguments.state / "samples.png"
    )
    text_file = arguments.state / "samples.txt"
    text_file.write_text("\n".join([f"guidance {scale}, 20 Euler steps, shift {SHIFT}", *sentences, ""]), "ascii")


def save_models(trainer: Trainer, arguments) -> None:
    """Writes the two finished files from the moving average."""
    from networks.demo_format import save
    from networks.demo_video import save_for_stock

    weights = trainer.averaged()
    for prefix, kind in (("network.", "video_unet"), ("text.", "video_text_encoder")):
        state = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        target = arguments.out / f"{kind}.safetensors"
        if kind == "video_unet":
            save_for_stock(target, state, trainer.metadata(kind))
        else:
            save(target, state | {"vocabulary": torch.tensor(vocabulary())}, trainer.metadata(kind))
        say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def load_models(folder: Path, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Network and text transformer as ``save_models`` stored them, frozen."""
    from networks.demo_format import load

    network, text = build(device)
    network.load_state_dict(load(folder / "video_unet.safetensors", "video_unet")[0])
    state = load(folder / "video_text_encoder.safetensors", "video_text_encoder")[0]
    del state["vocabulary"]
    text.load_state_dict(state, strict=False)  # its projection, which nothing uses, is not stored
    return network.requires_grad_(False), text.requires_grad_(False)


def main() -> None:
    """The command line."""
    parser = training.parser(__doc__.splitlines()[0], minutes=8, batch=256, rate=1e-3, pictures=131_072)
    parser.add_argument("--vae", type=Path, default=Path("demo/checkpoints/video_vae.safetensors"))
    parser.add_argument("--begin-with", type=Path, help="folder of finished files to go on with without their state")
    parser.add_argument("--frames", type=int, default=FRAMES, help="of a training clip: 4 k + 1")
    parser.add_argument("--easy", type=float, default=1.0, help="share of clips kept in which nothing turns or grows")
    parser.add_argument("--unspun", type=float, default=1.0, help="share of clips kept in which nothing spins")
    parser.add_argument("--turned", type=float, default=0.0, help="share of clips with characters at any angle")
    parser.add_argument("--fresh", type=float, default=0.3, help="share of the time in which new clips are made")
    parser.add_argument("--noisy", type=float, default=0.5, help="share of a batch that is spaced as samplers do")
    parser.add_argument("--middle", type=float, default=0.0, help="share of a batch from where shapes are decided")
    parser.add_argument("--characters", type=float, nargs=4, help="weights of one to four characters in a clip")
    parser.add_argument("--full-phrasings", type=int, default=1, help="captions of a clip that name everything, 0 to 2")
    parser.add_argument("--place-weight", type=float, default=0.05, help="of reading where a token lies")
    parser.add_argument("--content-weight", type=float, default=0.1, help="of reading what a token shows")
    parser.add_argument("--character-weight", type=float, default=1.0, help="of the error where a character is")
    parser.add_argument("--feature-weight", type=float, default=0.0, help="of the error as the decoder sees it")
    parser.add_argument("--motion-weight", type=float, default=0.02, help="of reading motions from the text's states")
    parser.add_argument("--average", type=float, default=0.999, help="how much of the moving average a step keeps")
    parser.add_argument("--scale", type=float, default=3.0, help="guidance of the samples that are drawn at the end")
    parser.set_defaults(workers=3)  # the GPU takes longer over a clip than they do
    parser.add_argument("--compile", action="store_true", help="fuse elementwise operations, with a C compiler")
    arguments = parser.parse_args()
    device = training.settle(arguments, several=True)
    frames = settle_clips(arguments, arguments.frames)
    finished = arguments.begin_with and arguments.begin_with / "video_unet.safetensors"
    progress = earlier_progress(arguments, "--begin-with", finished, "video_unet")
    seed = arguments.seed * 1000 + progress.step + 7 + 400_000 * arguments.group.number
    characters = tuple(arguments.characters) if arguments.characters else None
    source = ClipSource(
        arguments,
        seed,
        frames,
        phrasings=3,
        silent=1,
        full=arguments.full_phrasings,
        characters=characters,
        easy=arguments.easy,
        unspun=arguments.unspun,
        turned=arguments.turned,
    )

    from demo.bare_machine import use_host

    use_host()
    from demo.video_vae import read

    vae = read(arguments.vae, device)
    say(f"attention: {attention_name()}")
    part = TOGETHER * FRAMES // frames
    if arguments.compile:
        fuse_norms(vae.vae.encoder, always=True)
    parts = parts_of(source, clip_maker(vae, device, arguments.size), part)
    pool = ClipPool(arguments.pictures)
    refreshing = Refreshing(pool, parts, arguments.fresh, device)
    refreshing.fill(arguments.drawing_seconds, arguments.pictures)
    latents = pool.tensors[0][: pool.made]
    say(f"latents: mean {latents.float().mean():.3f}, deviation {latents.float().std():.3f}")
    torch.manual_seed(arguments.seed)
    network, text = load_models(arguments.begin_with, device) if arguments.begin_with else build(device)
    for model in (network, text):
        model.requires_grad_()
    forward = VideoForward(network, latents.shape[2:], arguments.compile)
    del latents
    parameters = {f"network.{name}": value for name, value in network.named_parameters()}
    parameters |= {f"text.{name}": value for name, value in text.named_parameters() if "text_projection" not in name}
    places = TokenPlaces(forward.grid, len(network.blocks) - 1, network.dim, device)
    content = ContentReading(network.dim, device)
    readings = nn.ModuleDict({"places": places, "motions": MotionReading(device), "contents": content})
    parameters |= {f"{training.AUXILIARY}{name}": value for name, value in readings.named_parameters()}
    loss = make_loss(forward, text, readings, pool, arguments, vae)
    trainer = Trainer(
        parameters, loss, arguments, reserve=20, average=arguments.average, progress=progress, is_matrix=is_matrix
    )
    say(f"{sum(value.numel() for value in parameters.values()) / 1e6:.2f} M parameters")
    probe = MotionProbe(vae, device, arguments.size, frames, 16 if arguments.tiny else 128) if frames > 1 else None
    ticks = iter(range(1 << 30))

    def on_tick() -> None:
        refreshing.spend()
        if probe and next(ticks) % PROBE_TICKS == 0:
            say(f"step {trainer.progress.step}: a wrong motion costs {probe(forward, text)}")

    trainer.train(on_tick)
    source.close()
    say(f"{pool.made} clips made in {refreshing.seconds:.0f} s")
    trainer.group.leave()
    if probe:
        say(f"at the end a wrong motion costs {probe(forward, text)}")
    save_models(trainer, arguments)
    network, text = load_models(arguments.out, device)
    draw_samples(VideoForward(network, forward.shape), text, vae, arguments, device, frames, arguments.scale)
    say("done")


if __name__ == "__main__":
    main()
