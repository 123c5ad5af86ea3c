"""The shipped video models on the real server: the stock loaders, the LoRA, and lengths of motion and video."""

import asyncio
import shutil

import pytest
import torch
from papernodes.host import layout, results
from papernodes.host.client import Client
from safetensors.torch import load as load_safetensors

FLOW = "swirl_33.safetensors"
LORA = "papernodes_demo_warped_noise.safetensors"
CHECKPOINTS = layout.ROOT / "demo" / "checkpoints"
SIZE, STEPS = 64, 2


@pytest.fixture(scope="module", autouse=True)
def media(base_directory):
    """The flow where the server looks for it."""
    layout.copy_media(base_directory / "input")


@pytest.fixture(scope="module")
def copies(base_directory):
    """The shipped files where the stock loaders look for theirs."""
    copied = []
    for folder, kind in (("diffusion_models", "video_unet"), ("vae", "video_vae")):
        (base_directory / "models" / folder).mkdir(parents=True, exist_ok=True)
        copied.append(base_directory / "models" / folder / f"{kind}.safetensors")
        shutil.copyfile(CHECKPOINTS / f"{kind}.safetensors", copied[-1])
    yield
    for path in copied:
        path.unlink()


def node(name: str, /, **inputs) -> dict:
    return {"class_type": name, "inputs": inputs}


def graph(length=9, *, kind="video", model=("demo", 0), vae=("demo", 2), lora=None, noise="warped") -> dict:
    """A prompt and a flow to a saved latent and pictures; ``lora``: strength, or None for no loader."""
    empty = {"width": SIZE, "height": SIZE, "batch_size": 1}
    return {
        "demo": node("PaperNodes_DemoCheckpoint", kind=kind),
        "stock": node("UNETLoader", unet_name="video_unet.safetensors", weight_dtype="default"),
        "stock vae": node("VAELoader", vae_name="video_vae.safetensors"),
        "lora": node("LoraLoaderModelOnly", model=[*model], lora_name=LORA, strength_model=lora),
        "positive": node("CLIPTextEncode", clip=["demo", 1], text="a red cat in a meadow"),
        "negative": node("CLIPTextEncode", clip=["demo", 1], text=""),
        "flow": node("PaperNodes_LoadFlow", file=FLOW, sequence=False, direction="from file"),
        "warped": node(
            "PaperNodes_WarpNoise", flow=["flow", 0], seed=5, degradation="0", temporal="nearest",
            algorithm="subpixel", oversample=4, batch_4d="frames", layout_5d="auto",
        ),
        "plain": node("RandomNoise", noise_seed=5),
        "latent": (
            node("EmptyHunyuanLatentVideo", length=length, **empty)
            if kind == "video"
            else node("EmptyLatentImage", **empty)
        ),
        "guider": node(
            "CFGGuider", model=[*model] if lora is None else ["lora", 0], positive=["positive", 0],
            negative=["negative", 0], cfg=3.0,
        ),
        "sampler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["demo", 0], scheduler="simple", steps=STEPS, denoise=1.0),
        "sample": node(
            "SamplerCustomAdvanced", noise=[noise, 0], guider=["guider", 0], sampler=["sampler", 0],
            sigmas=["sigmas", 0], latent_image=["latent", 0],
        ),
        "save": node("SaveLatent", samples=["sample", 0], filename_prefix="video"),
        "decode": node("VAEDecode", samples=["sample", 0], vae=[*vae]),
        "pictures": node("SaveImage", images=["decode", 0], filename_prefix="video"),
    }  # fmt: skip


def needed(prompt: dict, outputs: tuple[str, ...]) -> dict:
    """What of a graph the outputs need."""
    waiting, kept = list(outputs), {}
    while waiting:
        name = waiting.pop()
        kept[name] = prompt[name]
        waiting += [value[0] for value in prompt[name]["inputs"].values() if isinstance(value, list)]
    return kept


@pytest.fixture
def sample(server):
    """Runs a graph; returns the saved latent and how many pictures were saved."""

    def run(prompt: dict, outputs=("save", "pictures")) -> tuple[torch.Tensor, int]:
        async def go():
            async with Client(server.url) as client:
                outcome = await client.run(needed(prompt, outputs))
                assert outcome.status == "success", [str(error) for error in outcome.errors]
                latent, pictures = [], 0
                for maker, _, entry in results.entries(outcome.outputs):
                    if maker == "save":
                        await client.download(entry, latent.append)
                    pictures += maker == "pictures"
                return b"".join(latent), pictures

        content, pictures = asyncio.run(go())
        return load_safetensors(content)["latent_tensor"].float(), pictures

    return run


def log_after(server, mark: int) -> str:
    return server.log.read_text("utf-8", "replace")[mark:]


def mark(server) -> int:
    return len(server.log.read_text("utf-8", "replace"))


def test_the_stock_loaders_read_the_shipped_files(sample, copies):
    ours, pictures = sample(graph())
    stock, stock_pictures = sample(graph(model=("stock", 0), vae=("stock vae", 0)))
    assert ours.shape == stock.shape == (1, 16, 3, SIZE // 8, SIZE // 8)
    assert pictures == stock_pictures == 9
    assert (ours - stock).norm() < 0.05 * ours.norm()


def test_the_stock_loader_offers_the_lora(object_info):
    listed = object_info["LoraLoaderModelOnly"]["input"]["required"]["lora_name"][0]
    ours = {name for name in listed if name.startswith("papernodes") or "video_" in name or "image_" in name}
    assert ours == {LORA, "papernodes_demo_story.safetensors"}, "and no other of our files"


def test_the_lora_changes_the_video(sample, server):
    begin = mark(server)
    without, _ = sample(graph(), ("save",))
    off, _ = sample(graph(lora=0.0), ("save",))
    on, _ = sample(graph(lora=1.0), ("save",))
    assert torch.equal(off, without)
    assert (on - without).norm() > 0.001 * without.norm()
    assert "lora key not loaded" not in log_after(server, begin)


def test_the_lora_on_another_network_is_named_in_the_log_and_changes_nothing(sample, server):
    """The stock loader goes on without it; our nodes see neither the loader nor its file."""
    without, _ = sample(graph(kind="image", noise="plain"))
    begin = mark(server)
    with_lora, _ = sample(graph(kind="image", noise="plain", lora=1.0))
    assert torch.equal(with_lora, without)
    assert log_after(server, begin).count("lora key not loaded: diffusion_model.") >= 31


def test_an_output_that_video_has_not_says_so_every_time(run_prompt):
    prompt = needed(graph(), ("save",))
    prompt["picture"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    prompt["user"] = node("CLIPVisionEncode", clip_vision=["demo", 3], image=["picture", 0], crop="center")
    adm = {"strength": 1.0, "noise_augmentation": 0.0}
    prompt["unclip"] = node("unCLIPConditioning", conditioning=["positive", 0], clip_vision_output=["user", 0], **adm)
    prompt["guider"]["inputs"]["positive"] = ["unclip", 0]
    for _ in range(2):
        outcome = run_prompt(prompt)
        assert outcome.status == "error"
        (error,) = outcome.errors
        assert error.node == "user" and "'clip_vision' of Demo Checkpoint is connected" in error.message
        assert "kind is 'video'" in error.message and "Set kind to 'image'" in error.message


@pytest.mark.parametrize(
    ("length", "frames", "told"),
    [
        (33, 33, None),  # as the flow
        (9, 9, "9 video frames for Wan"),  # the flow is longer
        (65, 65, "65 video frames for Wan"),  # and shorter
        (34, 33, None),  # no length of Wan's: the latent is that of the next one below
        (12, 9, r"Lengths that these families can have: 4 k + 1 (33, 37)"),
        (1, 1, None),
    ],
)
def test_lengths_of_video_and_flow(sample, server, length, frames, told):
    begin = mark(server)
    prompt = graph(length)
    # EmptyHunyuanLatentVideo takes other lengths from a graph, its widget does not.
    latent, pictures = sample(prompt, ("save", "pictures") if frames < 20 else ("save",))
    assert latent.shape[2] == (frames - 1) // 4 + 1
    assert latent.isfinite().all() and latent.std() > 0.05
    assert pictures in (0, frames)
    found = log_after(server, begin)
    assert told in found if told else "stretched" not in found


def test_a_flow_that_is_too_short_is_an_error_that_says_what_fits(run_prompt):
    outcome = run_prompt(needed(graph(137), ("save",)))
    assert outcome.status == "error"
    (error,) = outcome.errors
    assert error.node == "sample"
    for text in ("35 latent frames", "137 video frames", "the flow covers 33", "33 frames (LTXV: 33) fit this flow"):
        assert text in error.message
