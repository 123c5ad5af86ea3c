"""Demonstration models with random weights, written through the format of the trained ones."""

from pathlib import Path

import pytest
import torch

KNOWN_WORDS = {
    "in": 530, "the": 518, "a": 320, "of": 539, ",": 267, "with": 593, "red": 736, "left": 1823, "blue": 1746,
    "green": 1901, "ball": 1069, "cat": 2368, "hat": 3801,
}  # fmt: skip
"""Words -> their ids in the SD1 tokenizer, whose own files a bare GPU machine lacks; a test compares them."""

VOCABULARY = torch.tensor(sorted((*KNOWN_WORDS.values(), 49406, 49407)))
"""With the tokens of the beginning and the end."""


def random_weights(network: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Norm scales 1, biases small, matrices and convolutions such that numbers keep their size."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, value in network.state_dict().items():
        if value.ndim >= 2:
            weights[name] = torch.randn(value.shape, generator=generator) * value[0].numel() ** -0.5
        elif "norm" in name and name.endswith("weight"):
            weights[name] = torch.ones(value.shape)
        else:
            weights[name] = torch.randn(value.shape, generator=generator) * 0.05
    return weights


def write_demo_files(folder: Path) -> dict[str, Path]:
    """Kind -> file, as the node looks for them."""
    from comfy.taesd.taesd import TAESD
    from papernodes.networks import demo_controlnet, demo_format, demo_image, demo_vision

    paths = {
        kind: folder / f"{kind}.safetensors"
        for kind in (
            "image_unet",
            "image_text_encoder",
            "image_vae",
            "image_clip_vision",
            "image_controlnet_lineart",
        )
    }

    def write(kind: str, state: dict[str, torch.Tensor], **options) -> None:
        demo_format.save(paths[kind], state, {"kind": kind, "steps": "0", "loss": "1"}, **options)

    write("image_unet", random_weights(demo_image.build_unet("meta"), seed=1))
    text = random_weights(demo_image.build_text_transformer("meta", vocabulary_rows=len(VOCABULARY) + 1), seed=2)
    write("image_text_encoder", {**text, "vocabulary": VOCABULARY})
    vae = random_weights(TAESD(), seed=3)
    vae |= {"vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)}
    write("image_vae", vae, packed=False)
    write("image_clip_vision", random_weights(demo_vision.build_clip_vision("meta"), seed=4))
    unet, _ = demo_format.load(paths["image_unet"], "image_unet")
    control = demo_controlnet.initial_state(unet, seed=5)
    own = random_weights(demo_controlnet.build_controlnet("meta"), seed=5)
    control |= {name: value for name, value in own.items() if name in control}
    ups = {name: torch.full(value.shape, 0.01) for name, value in control.items() if name.endswith(".lora_up")}
    control |= ups
    write("image_controlnet_lineart", control)
    return paths


def write_video_files(folder: Path) -> dict[str, Path]:
    """The same for the video model and its LoRA."""
    from papernodes.networks import demo_format, demo_image, demo_video, demo_video_lora

    kinds = ("video_unet", "video_text_encoder", "video_vae", demo_video_lora.KIND)
    paths = {kind: folder / f"{kind}.safetensors" for kind in kinds}
    for kind, network, seed in (
        ("video_unet", demo_video.build_network("meta"), 1),
        ("video_vae", demo_video.build_vae(), 2),
    ):
        demo_video.save_for_stock(paths[kind], random_weights(network, seed), {"kind": kind})
    text = random_weights(demo_image.build_text_transformer("meta", vocabulary_rows=len(VOCABULARY) + 1), seed=3)
    state = {**text, "vocabulary": VOCABULARY}
    demo_format.save(paths["video_text_encoder"], state, {"kind": "video_text_encoder"})
    generator = torch.Generator().manual_seed(4)
    lora = {
        name: torch.randn(value.shape, generator=generator) * (0.03 if ".lora_B." in name else value[0].numel() ** -0.5)
        for name, value in demo_video_lora.initial_lora(0).items()
    }
    demo_format.save(paths[demo_video_lora.KIND], lora, {"kind": demo_video_lora.KIND}, packed=False)
    return paths


def write_manga_ninja_files(folder: Path) -> dict[str, Path]:
    """The same for MangaNinja's four, on the image model's."""
    from papernodes.networks import demo_controlnet, demo_format, demo_manga_ninja

    unet, _ = demo_format.load(folder / "image_unet.safetensors", "image_unet")
    lines, _ = demo_format.load(folder / "image_controlnet_lineart.safetensors", "image_controlnet_lineart")
    paths = {}
    for seed, kind in enumerate(demo_manga_ninja.KINDS):
        lines_of = demo_controlnet.assemble(lines, unet) if kind == demo_manga_ninja.CONTROL else None
        state = demo_manga_ninja.initial(kind, seed, lines_of)
        state = {name: torch.full_like(some, 0.01) if "lora_B" in name else some for name, some in state.items()}
        paths[kind] = folder / f"{kind}.safetensors"
        demo_format.save(paths[kind], state, {"kind": kind, "steps": "0", "training_seconds": "0"})
    return paths


@pytest.fixture(scope="session")
def demo_files(tmp_path_factory) -> dict[str, Path]:
    """Kind -> file with random weights; copy a file before damaging it."""
    folder = tmp_path_factory.mktemp("demo")
    return write_demo_files(folder) | write_video_files(folder) | write_manga_ninja_files(folder)
