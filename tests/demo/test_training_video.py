"""The video models' training scripts from end to end, a few steps each, and what they are made of."""

import argparse
import copy
import functools
import json
import subprocess
import sys
from pathlib import Path

import comfy.ldm.modules.attention
import comfy.ldm.wan.model
import comfy.model_sampling
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.latent_formats import Wan21
from demo_files import random_weights

from demo import (
    latent_reading,
    train_image,
    train_video,
    train_video_lora,
    train_video_vae,
    training,
    training_state,
    video_contents,
    video_model,
    video_motion,
    video_vae,
)
from demo.clip_pool import ClipPool
from demo.training_group import TrainingGroup
from demo.world.render import render
from demo.world.scene import draw_scenes
from demo.world_tokens import token_rows
from networks import demo_format, demo_video, demo_video_lora

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def train_video_script(repository, tmp_path_factory):
    """Runs ``python -m demo.NAME --tiny`` with a folder of its own; returns the folder. Each once a session."""
    folders = {}

    def once(name: str, *more: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            command = [sys.executable, "-m", f"demo.{name}", "--tiny", "--state", str(folders[name]), *more]
            process = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
            assert process.returncode == 0, process.stderr
            folders[name].joinpath("log").write_text(process.stdout)
        return folders[name]

    return once


@pytest.fixture(scope="session")
def video_vae_file(train_video_script):
    return train_video_script("train_video_vae", "--reading", "0.1") / "video_vae.safetensors"


@pytest.fixture(scope="session")
def video_folder(train_video_script, video_vae_file):
    return train_video_script("train_video", "--vae", str(video_vae_file))


@pytest.fixture(scope="module")
def random_autoencoder():
    """One whose clips and latents differ enough to compare."""
    torch.manual_seed(0)
    return video_vae.VideoAutoencoder().requires_grad_(False)


def random_forward(shape=(2, 4, 4)) -> video_model.VideoForward:
    network, _ = video_model.build(CPU)
    network.load_state_dict(random_weights(network))
    return video_model.VideoForward(network, shape)


def filled(*tensors: torch.Tensor) -> ClipPool:
    pool = ClipPool(2 * len(tensors[0]))
    pool.add(tensors)
    return pool


def check_folder(folder: Path, *pictures: str) -> None:
    _, progress = training.read_state(folder / "state.safetensors")
    assert progress.step == 3
    assert json.loads((folder / "losses.json").read_text()) == [[3, progress.losses[0][1]]]
    assert (folder / "state.safetensors").stat().st_size <= training_state.MAXIMUM_STATE_BYTES
    for name in ("losses.png", *pictures):
        assert (folder / name).stat().st_size > 200, name


@pytest.mark.parametrize("solid", [False, True])
@pytest.mark.parametrize("frames", [1, 5, 13])
def test_whole_clips_pass_the_vae_as_the_hosts_chunks_do(frames, solid):
    host = demo_video.build_vae()
    host.load_state_dict(random_weights(host))
    ours = video_vae.make_trainable(demo_video.build_vae(), solid)
    ours.load_state_dict(host.state_dict())
    generator = torch.Generator().manual_seed(1)
    clips = torch.rand(2, 3, frames, 16, 24, generator=generator) * 2 - 1
    latents = torch.randn(2, 16, demo_video.latent_frames(frames), 2, 3, generator=generator)
    with torch.no_grad():
        for found, expected in (
            (video_vae.encode_whole(ours, clips), host.encode(clips)),
            (video_vae.decode_whole(ours, latents), host.decode(latents)),
        ):
            assert expected.std() > 0.01
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.std()))


def test_folding_keeps_the_clips_and_gives_the_latents_wans_statistics(random_autoencoder):
    network = random_autoencoder
    pool = torch.randint(0, 256, (6, 5, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    clips = video_vae.to_clips(pool)
    mean, deviation = train_video_vae.statistics(network, pool, 6)
    network.mean.copy_(mean)
    network.deviation.copy_(deviation)
    latents = network.normalise(network.raw(clips))
    before = network.decode(latents)
    network.fold(mean, deviation)
    raw = network.raw(clips)
    torch.testing.assert_close(Wan21().process_in(raw), latents, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(network.normalise(raw), latents, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(network.decode(latents), before, rtol=1e-3, atol=1e-3 * float(before.std()))
    torch.testing.assert_close(raw.mean((0, 2, 3, 4)), Wan21().latents_mean.flatten(), rtol=1e-3, atol=1e-3)


def test_enlarged_weights_are_the_same_autoencoder_and_lose_less_in_float8(random_autoencoder):
    network = random_autoencoder
    weights = {name: value.detach().clone() for name, value in network.vae.named_parameters()}
    for name, value in weights.items():
        if name.endswith("bias"):
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))), alpha=0.05)
    clips = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    larger = video_vae.enlarged(weights)
    raw = network.call(weights, "raw", clips)
    assert torch.equal(network.call(larger, "raw", clips), raw)
    decoded = network.call(weights, "decode", raw)
    assert torch.equal(network.call(larger, "decode", raw), decoded)

    def lost(some) -> float:
        return float((network.call(demo_video.as_stored("video_vae", some), "decode", raw) - decoded).std())

    assert lost(larger) < 0.85 * lost(weights)


def test_the_video_autoencoder_is_what_the_stock_loader_reads(video_vae_file):
    check_folder(video_vae_file.parent, "video_vae.png")
    network = video_vae.read(video_vae_file, CPU)
    frames = torch.rand(1, 5, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(video_vae_file)))
    vae.throw_exception_if_invalid()
    latents = Wan21().process_in(vae.encode(frames[0].movedim(1, -1)))
    assert latents.shape == (1, 16, 2, 4, 6)
    torch.testing.assert_close(video_vae.encode_clips(network, frames).float(), latents, rtol=2e-3, atol=4e-3)
    again = vae.decode(Wan21().process_out(latents)).movedim(-1, 2)
    torch.testing.assert_close(video_vae.decode_latents(network, latents), again, rtol=1e-3, atol=1e-3)
    metadata = demo_format.read_metadata(video_vae_file, "video_vae")
    assert metadata["steps"] == "3" and float(metadata["psnr"]) > 0


def run(monkeypatch, module, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", [module.__name__, "--tiny", *arguments])
    module.main()


@pytest.mark.parametrize("drawn", [False, True])
def test_a_video_decoder_alone_is_trained_without_touching_the_latents(
    drawn, video_vae_file, video_folder, tmp_path, monkeypatch
):
    before, _ = demo_format.load(video_vae_file, "video_vae")
    how = ("--decoder-of", str(video_vae_file), "--state", str(tmp_path), "--rate", "0.1")
    seen = []
    redrawing = train_video_vae.redrawing

    def watched(*arguments):
        redraw = redrawing(*arguments)
        return lambda latents, rows: seen.append((latents, redraw(latents, rows))) or seen[-1][1]

    monkeypatch.setattr(train_video_vae, "redrawing", watched)
    run(monkeypatch, train_video_vae, *how, *(("--drawn-by", str(video_folder), "--frames", "5") if drawn else ()))
    assert len(seen) == (3 if drawn else 0)
    assert all(one.shape == other.shape and 0 < (one - other).std() < 1 for one, other in seen)
    after, _ = demo_format.load(tmp_path / "video_vae.safetensors", "video_vae")
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed == {"decoder", "conv2"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [(("--drawn-by", "."), "--decoder-of"), (("--reading", "0.1", "--frames", "1"), "whole clips")],
)
def test_options_that_do_not_go_together(given, reason, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=reason):
        run(monkeypatch, train_video_vae, "--state", str(tmp_path), *given)


def test_which_parameters_are_matrices():
    vae = [name for name, value in demo_video.build_vae().named_parameters() if train_video_vae.is_matrix(name, value)]
    assert "encoder.middle.1.to_qkv.weight" in vae and "decoder.upsamples.12.residual.6.weight" in vae
    assert not any(name.endswith(("bias", "gamma")) or name == "decoder.head.2.weight" for name in vae)
    network, text = video_model.build(CPU)
    chosen = {
        name: value.shape
        for model in (network, text)
        for name, value in model.named_parameters()
        if train_video.is_matrix(name, value)
    }
    blocks = [name for name in chosen if name.startswith("blocks.")]
    assert len(blocks) == 10 * len(network.blocks)  # two attentions of four, and two layers
    assert "text_embedding.2.weight" in chosen and "text_embedding.0.weight" not in chosen
    assert not any("embeddings" in name or "head" in name or "modulation" in name for name in chosen)
    assert any(name.endswith("fc1.weight") for name in chosen)


@pytest.mark.parametrize("script", ["train_video_vae", "train_video"])
def test_muon_trains_the_video_models(script, train_video_script, video_vae_file, tmp_path, monkeypatch):
    module = {"train_video_vae": train_video_vae, "train_video": train_video}[script]
    vae = [] if script == "train_video_vae" else ["--vae", str(video_vae_file), "--characters", "1", "1", "0", "0"]
    run(monkeypatch, module, "--muon", "--state", str(tmp_path), *vae)
    weights, progress = training.read_state(tmp_path / "state.safetensors")
    assert progress.step == 3 and all(torch.isfinite(value).all() for value in weights.values())
    if script == "train_video_vae":  # the same seed and clips by AdamW alone: only what Muon moved went elsewhere
        others, _ = training.read_state(video_vae_file.parent / "state.safetensors")
        name = "decoder.middle.0.residual.2.weight"
        assert (weights[name] - others[name]).abs().max() > 1e-5


def test_a_finished_video_autoencoder_is_trained_further(video_vae_file, tmp_path, monkeypatch):
    run(monkeypatch, train_video_vae, "--start", str(video_vae_file), "--state", str(tmp_path), "--rate", "0")
    before, after = (video_vae.read(path, CPU) for path in (video_vae_file, tmp_path / "video_vae.safetensors"))
    frames = torch.rand(1, 5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected, found = (
        video_vae.decode_latents(network, video_vae.encode_clips(network, frames)) for network in (before, after)
    )
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02 * float(expected.std()))
    assert demo_format.read_metadata(tmp_path / "video_vae.safetensors", "video_vae")["steps"] == "6"


@pytest.mark.parametrize("reading", [0.0, 0.02])
def test_the_vaes_loss_falls(reading):
    torch.manual_seed(0)
    network = video_vae.VideoAutoencoder()
    scenes = draw_scenes(2, 0, frames=5)
    drawn = render(scenes, 16, 16, layers=("frames", "labels", "local"))
    clips = (drawn.frames * 255).byte()
    shown = latent_reading.latent_contents(scenes, drawn).tensors() if reading else ()
    pool = train_video_vae.Pool(clips, torch.zeros(2, 0, 77, dtype=torch.int16), shown)
    network.fold(*train_video_vae.statistics(network, clips, 2))
    arguments = argparse.Namespace(batch=2, frames=5, decoder_of=None, latent_noise=0.0, squared=5.0)
    arguments.reading, arguments.place_reading, arguments.group = reading, 2.0, TrainingGroup()
    loss = train_video_vae.make_loss(network, latent_reading.LatentReading(), pool, arguments)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        losses.append(loss())
        losses[-1].backward()
        assert all(value.grad is not None for value in network.parameters())
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]


def test_cuts_are_runs_of_frames():
    torch.manual_seed(0)
    pool = torch.arange(4 * 9).view(4, 9, 1, 1, 1)
    found = train_video_vae.cut(pool, torch.arange(4).repeat(50), 5)[..., 0, 0, 0]
    assert (found.diff(dim=1) == 1).all()
    assert set((found[:, 0] % 9).tolist()) == {0, 1, 2, 3, 4}
    assert torch.equal(found[:, 0] // 9, torch.arange(4).repeat(50))


def test_the_training_forward_is_the_hosts():
    forward = random_forward((3, 6, 8))
    host = demo_video.build_network()
    host.load_state_dict(forward.network.state_dict())
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 16, 3, 6, 8, generator=generator), torch.randn(2, 77, 128, generator=generator)
    sigmas = torch.tensor([0.2, 0.9])
    with torch.no_grad():
        found, features = forward(x, sigmas, context)
        expected = host(x, sigmas * 1000, demo_video.widen(context), transformer_options={})
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert [tuple(item.shape) for item in features] == [(2, 3 * 3 * 4, 256)] * 4


@pytest.fixture
def traced(monkeypatch):
    """torch.compile traces, and refuses what it could not fuse, but compiles nothing: that takes half a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))


def test_compiled_blocks_are_the_hosts(traced, monkeypatch):
    # A GPU's; the host's own for a CPU asks the system how much memory is free.
    monkeypatch.setattr(comfy.ldm.wan.model, "optimized_attention", comfy.ldm.modules.attention.attention_pytorch)
    forward = random_forward()
    compiled = video_model.VideoForward(forward.network, (2, 4, 4), compiled=True)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2, 16, 2, 4, 4, generator=generator), torch.tensor([0.3, 0.9])
    context = torch.randn(2, 7, 128, generator=generator)
    found = []
    for some in (forward, compiled):
        some.network.zero_grad()
        velocity, _ = some(*inputs, context)
        velocity.square().mean().backward()
        found.append([velocity.detach(), *(value.grad.clone() for value in some.network.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one)


def test_fused_norms_are_the_same_autoencoder(random_autoencoder, traced):
    random_autoencoder = copy.deepcopy(random_autoencoder)
    clips = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    names = list(random_autoencoder.vae.state_dict())
    found = []
    for fuse in (False, True):
        if fuse:
            video_vae.fuse_norms(random_autoencoder.vae)
            assert sum(isinstance(some, torch.nn.Identity) for some in random_autoencoder.vae.modules()) > 20
        for _ in range(2 if fuse else 1):  # with and without gradients
            with torch.set_grad_enabled(len(found) == 1):
                found.append(random_autoencoder.decode(random_autoencoder.raw(clips)).detach())
    assert list(random_autoencoder.vae.state_dict()) == names
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-4)


def test_a_compiled_encoder_makes_the_same_latents(random_autoencoder, traced):
    frames = torch.rand(3, 5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    expected = video_vae.encode_clips(random_autoencoder, frames)
    compiled = copy.deepcopy(random_autoencoder)
    video_vae.fuse_norms(compiled.vae.encoder, always=True)
    found = video_vae.encode_clips(compiled, frames, part=2, alike=True)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3 * float(expected.float().std()))


def test_the_flow_is_the_hosts():
    sampling = comfy.model_sampling.ModelSamplingDiscreteFlow()
    sampling.set_parameters(shift=video_model.SHIFT)
    times = torch.tensor([0.1, 0.5, 0.9])
    sigmas = video_model.shifted(times)
    torch.testing.assert_close(sigmas, sampling.sigma(times * 1000))
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(3, 16, 2, 4, 4, generator=generator), torch.randn(3, 16, 2, 4, 4, generator=generator)
    noisy = video_model.add_noise(clean, noise, sigmas)
    flow = comfy.model_sampling.CONST()
    torch.testing.assert_close(noisy, flow.noise_scaling(sigmas, noise, clean))
    torch.testing.assert_close(flow.calculate_denoised(sigmas, noise - clean, noisy), clean, rtol=1e-4, atol=1e-5)
    found = video_model.sample(lambda x, sigma: (x - clean) / sigma.view(-1, 1, 1, 1, 1), noise, 5)
    torch.testing.assert_close(found, clean, rtol=1e-4, atol=1e-5)


def test_half_of_the_sigmas_are_noisy():
    torch.manual_seed(0)
    sigmas = video_model.SigmaDraw(4000, 0.5, CPU).draw()
    assert 0.84 < sigmas[:2000].median() < 0.94 and 0.45 < sigmas[2000:].median() < 0.55
    assert sigmas.min() >= 0 and sigmas.max() <= 1
    noisy, middle, rest = video_model.SigmaDraw(4000, 0.25, CPU, middle=0.5).draw().split([1000, 2000, 1000])
    assert noisy.median() > 0.84 and middle.min() > 0.39 and middle.max() < 0.86 and rest.min() < 0.1


def test_the_video_model_is_what_the_host_loads(video_folder):
    check_folder(video_folder, "samples.png", "samples.txt")
    model = demo_video.load_model(video_folder / "video_unet.safetensors")
    network, text = train_video.load_models(video_folder, CPU)
    for name, value in network.state_dict().items():
        assert torch.equal(value, model.model.diffusion_model.state_dict()[name].float()), name
    assert not network.text_embedding[0].weight[:, 128:].any()
    rows = torch.from_numpy(token_rows(["a red cat moves left"])).long()
    expected = demo_video.load_clip(video_folder / "video_text_encoder.safetensors").encode("a red cat moves left")
    torch.testing.assert_close(demo_video.widen(train_video.encode_text(text, rows)), expected, rtol=2e-3, atol=2e-3)


def test_the_video_model_goes_on(video_folder, video_vae_file, tmp_path, monkeypatch, capsys):
    rest = ("--vae", str(video_vae_file), "--state", str(tmp_path), "--final")
    run(monkeypatch, train_video, "--resume", str(video_folder), *rest)
    log = capsys.readouterr().out
    assert "resumed after step 3" in log and "a wrong motion costs {'left/right'" in log
    weights, progress = training.read_state(tmp_path / "state.safetensors")
    assert [step for step, _ in progress.losses] == [3, 6]
    before, _ = training.read_state(video_folder / "state.safetensors")
    moved = [float((weights[name] - before[name]).abs().max()) for name in before]
    assert 0 < max(moved) < 0.01


@pytest.mark.parametrize("feature_weight", [0.0, 0.1])
def test_the_networks_loss_reaches_all_that_is_trained(feature_weight, random_autoencoder):
    forward = random_forward()
    _, text = video_model.build(CPU)
    places = video_motion.TokenPlaces(forward.grid, 4, 256, CPU)
    content = video_contents.ContentReading(256, CPU)
    readings = {"places": places, "motions": video_motion.MotionReading(CPU), "contents": content}
    readings = torch.nn.ModuleDict(readings)
    shown = torch.tensor([[[1, 2, 3, 4, 5]] * 4 + [[0] * 5] * 4] * 2, dtype=torch.int8)
    shown = shown, torch.full((2, 8, 4, 2), 0.5).half(), torch.ones(2, 8, 4, dtype=torch.bool)
    rows = token_rows(["a red cat moves left", "a blue ball grows"])
    tokens = torch.from_numpy(rows).view(2, 1, 77)
    latents = torch.randn(2, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0)).half()
    weights = {"place_weight": 0.05, "motion_weight": 0.05, "content_weight": 0.1}
    weights["feature_weight"] = feature_weight
    arguments = argparse.Namespace(batch=4, noisy=0.5, middle=0.0, character_weight=3.0, **weights)
    pool = filled(latents, tokens, *shown)
    torch.manual_seed(1)
    train_video.make_loss(forward, text, readings, pool, arguments, random_autoencoder)().backward()
    for part in (forward.network, text, readings):
        still = [name for name, value in part.named_parameters() if value.grad is None or not value.grad.any()]
        assert still == (["text_projection.weight"] if part is text else [])


def test_weights_are_trained_as_the_file_holds_them(tmp_path):
    weights = {name: value.requires_grad_() for name, value in random_weights(demo_video.build_vae()).items()}
    rounded = demo_video.as_stored("video_vae", weights)
    sum(value.sum() for value in rounded.values()).backward()
    assert all(torch.equal(value.grad, torch.ones_like(value)) for value in weights.values())
    demo_video.save_for_stock(tmp_path / "x.safetensors", weights, {"kind": "video_vae"})
    stored, _ = demo_format.load(tmp_path / "x.safetensors", "video_vae")
    changed = 0
    for name, value in rounded.items():
        torch.testing.assert_close(stored[name], value.detach(), rtol=1e-3, atol=1e-6)
        changed += float((value - weights[name]).detach().abs().max()) > 1e-3
    assert changed > 20, "large weights are rounded"


def test_rounded_weights_may_come_in_half_precision():
    """Float8 fits into bfloat16 exactly, so the values are the same; gradients arrive in float32."""
    weights = {name: value.requires_grad_() for name, value in random_weights(demo_video.build_network()).items()}
    whole = demo_video.as_stored("video_unet", weights)
    half = demo_video.as_stored("video_unet", weights, torch.bfloat16)
    first = "patch_embedding.weight"
    assert half[first] is weights[first]
    for name, value in whole.items():
        assert name.startswith("patch_embedding.") or half[name].dtype == torch.bfloat16
        assert torch.equal(half[name].float(), value), name
    sum((value.float() * 3).sum() for value in half.values()).backward()
    for value in weights.values():
        assert value.grad.dtype == torch.float32 and torch.equal(value.grad, torch.full_like(value, 3.0))


def test_the_network_goes_on_from_finished_files(train_video_script, video_vae_file, video_folder, tmp_path):
    """With their weights and their count of steps; both beginnings at once are refused."""
    network, _ = train_video.load_models(video_folder, CPU)
    rest = ["--vae", str(video_vae_file), "--rate", "0", "--full-phrasings", "2", "--middle", "0.3"]
    command = [sys.executable, "-m", "demo.train_video", "--tiny", "--state", str(tmp_path), *rest]
    repository = Path(train_video.__file__).parent.parent
    for more, expected in (["--begin-with", str(video_folder)], 0), (["--resume", "--begin-with", "x"], 1):
        process = subprocess.run([*command, *more], cwd=repository, capture_output=True, text=True, check=False)
        assert process.returncode == expected, process.stderr
    assert "exclude each other" in process.stderr
    assert demo_format.read_metadata(tmp_path / "video_unet.safetensors", "video_unet")["steps"] == "6"
    again, _ = train_video.load_models(tmp_path, CPU)
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_the_lora_is_tuned_and_loads(train_video_script, video_vae_file, video_folder):
    rest = ("--vae", str(video_vae_file), "--models", str(video_folder))
    folder = train_video_script("train_video_lora", *rest)
    check_folder(folder, "samples.png")
    path = folder / f"{demo_video_lora.KIND}.safetensors"
    assert len(demo_video_lora.load_lora(path)) == 62
    errors = demo_format.read_metadata(path, demo_video_lora.KIND)["errors"]
    assert "untuned, plain" in errors


def test_a_loras_loss_reaches_all_that_is_trained():
    """The up factors at first; once they are no longer 0, the down factors too."""
    forward = random_forward()
    forward.network.requires_grad_(False)
    _, text = video_model.build(CPU)
    text.requires_grad_(False)
    state = {name: value.requires_grad_() for name, value in demo_video_lora.initial_lora(0).items()}
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 16, 2, 4, 4, generator=generator).half()
    tokens = torch.from_numpy(token_rows(["a red cat", "a blue ball"])).view(2, 1, 77)
    pool = filled(latents, latents, tokens)
    loss = train_video_lora.make_loss(
        forward, text, state, pool, argparse.Namespace(batch=4, noisy=0.5, degradation_power=1.0)
    )
    loss().backward()
    reached = {name for name, value in state.items() if value.grad is not None and value.grad.any()}
    assert reached == {name for name in state if ".lora_B." in name}
    with torch.no_grad():
        for name in reached:
            state[name].normal_(std=0.02, generator=generator)
    loss().backward()
    assert all(value.grad.any() for value in state.values())


def test_less_degraded_noise_more_often(monkeypatch):
    """At power 2 an item's degradation is the square of an even draw: 1/3 on average."""
    forward = random_forward()
    _, text = video_model.build(CPU)
    drawn = []

    def degraded(noise, fresh, weights):
        drawn.append(weights)
        return noise

    monkeypatch.setattr(train_video_lora, "degraded", degraded)
    latents = torch.zeros(1, 16, 2, 4, 4).half()
    pool = filled(latents, latents, torch.from_numpy(token_rows(["a red cat"])).view(1, 1, 77))
    for power in (1.0, 2.0):
        settings = argparse.Namespace(batch=400, noisy=0.5, degradation_power=power)
        torch.manual_seed(0)
        train_video_lora.make_loss(forward, text, demo_video_lora.initial_lora(0), pool, settings)()
    assert all(weights.shape == (400,) and weights.min() >= 0 and weights.max() <= 1 for weights in drawn)
    assert abs(drawn[0].mean() - 1 / 2) < 0.05 and abs(drawn[1].mean() - 1 / 3) < 0.05


def test_batches_take_every_phrasing():
    rows = torch.arange(1, 5, dtype=torch.int16)[None, :, None].expand(1, 4, 77)
    torch.manual_seed(0)
    empty = torch.from_numpy(token_rows([""])[0]).long()
    found = train_image.captions_of_batch(rows, torch.zeros(400, dtype=torch.long), empty, 0.0)
    assert {1, 2, 3, 4} <= set(found[:, 5].tolist())
