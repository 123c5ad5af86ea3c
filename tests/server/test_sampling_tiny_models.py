"""Warp Noise through the real server's own samplers, on tiny random models of each family it is made for."""

import asyncio

import pytest
import torch
from papernodes.host import layout, results
from papernodes.host.client import Client
from safetensors.torch import load as load_safetensors

FLOW = layout.ROOT / "demo" / "media" / "swirl_33.safetensors"
STEPS = 2
SIZE = 128

LATENTS = {
    # family -> the core node that makes its empty latent, that node's numbers, the latent's shape
    "wan": ("EmptyHunyuanLatentVideo", {"length": 33}, (1, 16, 9, 16, 16)),
    "hunyuan_video": ("EmptyHunyuanLatentVideo", {"length": 33}, (1, 16, 9, 16, 16)),
    "ltxv": ("EmptyLTXVLatentVideo", {"length": 33}, (1, 128, 5, 4, 4)),
    "sd15": ("EmptyLatentImage", {"batch_size": 4}, (4, 4, 16, 16)),
}


def condition(family: str, seed: int) -> dict:
    inputs = {
        "dim": 768 if family == "sd15" else 4096,
        "tokens": 8,
        "pooled_dim": 768,
        "seed": seed,
        "attention_mask": family == "ltxv",
    }
    return {"class_type": "PaperNodesTest_RandomConditioning", "inputs": inputs}


def graph(family: str, noise: dict, guider: str) -> dict:
    """UNETLoader -> guider -> SamplerCustomAdvanced -> SaveLatent, with the noise node "noise"."""
    latent, numbers, _ = LATENTS[family]
    numbers = {"width": SIZE, "height": SIZE, "batch_size": 1} | numbers
    steps = {"model": ["model", 0], "scheduler": "simple", "steps": STEPS, "denoise": 1.0}
    conditions = {"model": ["model", 0], "conditioning": ["positive", 0]}
    if guider == "CFGGuider":
        conditions = {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0], "cfg": 3.0}
    sampler = {
        "noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["sampler", 0], "sigmas": ["sigmas", 0],
        "latent_image": ["latent", 0],
    }  # fmt: skip
    model = {"unet_name": f"tiny_{family}.safetensors", "weight_dtype": "default"}
    return {
        "flow": {
            "class_type": "PaperNodes_LoadFlow",
            "inputs": {"file": FLOW.name, "sequence": False, "direction": "from file"},
        },
        "noise": noise,
        "model": {"class_type": "UNETLoader", "inputs": model},
        "positive": condition(family, 1),
        "negative": condition(family, 2),
        "guider": {"class_type": guider, "inputs": conditions},
        "sampler": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "sigmas": {"class_type": "BasicScheduler", "inputs": steps},
        "latent": {"class_type": latent, "inputs": numbers},
        "sample": {"class_type": "SamplerCustomAdvanced", "inputs": sampler},
        "save": {"class_type": "SaveLatent", "inputs": {"samples": ["sample", 0], "filename_prefix": family}},
    }


def warped(seed: int) -> dict:
    inputs = {
        "flow": ["flow", 0], "seed": seed, "degradation": "0:0, 32:0.5", "temporal": "nearest",
        "algorithm": "subpixel", "oversample": 4, "batch_4d": "frames", "layout_5d": "auto",
    }  # fmt: skip
    return {"class_type": "PaperNodes_WarpNoise", "inputs": inputs}


@pytest.fixture(scope="module")
def models(base_directory):
    """Puts the models' files and the flow where the server looks for them."""
    from tiny_models import write_tiny_model

    folder = base_directory / "models" / "diffusion_models"
    folder.mkdir(parents=True, exist_ok=True)
    for family in LATENTS:
        write_tiny_model(family, folder / f"tiny_{family}.safetensors")
    layout.copy_media(base_directory / "input")
    yield
    for family in LATENTS:
        (folder / f"tiny_{family}.safetensors").unlink()


@pytest.fixture
def sample(server, models):
    """Samples a graph; returns the saved latent and the ids of nodes that were not computed anew."""

    def run(prompt: dict) -> tuple[torch.Tensor, set[str]]:
        async def go():
            cached = set()

            def watch(kind, data):
                if kind == "execution_cached":
                    cached.update(data["nodes"])

            async with Client(server.url) as client:
                outcome = await client.run(prompt, watch=watch)
                assert outcome.status == "success", [str(error) for error in outcome.errors]
                ((_, _, entry),) = results.entries(outcome.outputs)
                pieces = []
                await client.download(entry, pieces.append)
                return b"".join(pieces), cached

        content, cached = asyncio.run(go())
        return load_safetensors(content)["latent_tensor"].float(), cached

    return run


@pytest.mark.parametrize("family", LATENTS)
def test_a_family_samples_with_warped_noise(family, sample):
    prompt = graph(family, warped(seed=5), "CFGGuider")
    first, _ = sample(prompt)
    assert tuple(first.shape) == LATENTS[family][2]
    assert torch.isfinite(first).all()
    assert first.std() > 0.05

    plain, _ = sample(graph(family, {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}, "CFGGuider"))
    assert plain.shape == first.shape
    assert (plain - first).abs().mean() > 0.1 * first.std(), "the noise does not reach the model"

    again, cached = sample(prompt)
    assert not cached & {"noise", "sample"}, "the second run was not computed"
    assert torch.equal(again, first)

    other, _ = sample(graph(family, warped(seed=6), "CFGGuider"))
    assert (other - first).abs().mean() > 0.1 * first.std()


@pytest.mark.parametrize("family", ["wan", "sd15"])
def test_neighbouring_frames_share_their_noise(family, sample):
    """Two steps of a model with random weights keep much of the noise: frames then resemble each other as its do."""
    values, _ = sample(graph(family, warped(seed=5), "BasicGuider"))
    plain, _ = sample(graph(family, {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}, "BasicGuider"))

    def likeness(latent: torch.Tensor) -> float:
        """Correlation of each frame with the next, at the rim, where the flow is at rest."""
        frames = latent.transpose(1, 2).flatten(0, 1) if latent.ndim == 5 else latent
        rim = torch.ones(frames.shape[-2:], dtype=torch.bool)
        rim[2:-2, 2:-2] = False
        rim = frames[..., rim].flatten(1)
        rim = rim - rim.mean(dim=1, keepdim=True)
        return float(torch.nn.functional.cosine_similarity(rim[1:], rim[:-1], dim=1).mean())

    assert likeness(values) > 0.5
    assert likeness(values) > likeness(plain) + 0.3
