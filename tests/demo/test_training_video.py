"""The video models' training scripts from end to end, a few steps each, and what they are made of."""

import argparse
import subprocess
import sys
from pathlib import Path

import comfy.ldm.modules.attention
import comfy.ldm.wan.model
import comfy.model_sampling
import pytest
import torch
from demo_files import random_weights
from training_files import check_folder, run

from demo import (
    train_image,
    train_video,
    train_video_lora,
    train_video_vae,
    training,
    video_contents,
    video_model,
    video_motion,
)
from demo.clip_pool import ClipPool
from demo.world_tokens import token_rows
from networks import demo_format, demo_video, demo_video_lora

CPU = torch.device("cpu")


def random_forward(shape=(2, 4, 4)) -> video_model.VideoForward:
    network, _ = video_model.build(CPU)
    network.load_state_dict(random_weights(network))
    return video_model.VideoForward(network, shape)


def filled(*tensors: torch.Tensor) -> ClipPool:
    pool = ClipPool(2 * len(tensors[0]))
    pool.add(tensors)
    return pool


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
def test_muon_trains_the_video_models(script, train, video_vae_file, tmp_path, monkeypatch):
    module = {"train_video_vae": train_video_vae, "train_video": train_video}[script]
    vae = [] if script == "train_video_vae" else ["--vae", str(video_vae_file), "--characters", "1", "1", "0", "0"]
    run(monkeypatch, module, "--muon", "--state", str(tmp_path), *vae)
    weights, progress = training.read_state(tmp_path / "state.safetensors")
    assert progress.step == 3 and all(torch.isfinite(value).all() for value in weights.values())
    if script == "train_video_vae":  # the same seed and clips by AdamW alone: only what Muon moved went elsewhere
        others, _ = training.read_state(video_vae_file.parent / "state.safetensors")
        name = "decoder.middle.0.residual.2.weight"
        assert (weights[name] - others[name]).abs().max() > 1e-5


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
    loss = train_video.make_loss(forward, text, readings, pool, arguments, random_autoencoder)
    torch.manual_seed(1)
    found = loss()
    found.backward()
    for part in (forward.network, text, readings):
        still = [name for name, value in part.named_parameters() if value.grad is None or not value.grad.any()]
        assert still == (["text_projection.weight"] if part is text else [])
    arguments.feature_weight = 0.0
    torch.manual_seed(1)
    with torch.no_grad():
        assert (float(found.detach() - loss()) > 0.01) == (feature_weight > 0)


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


def test_the_network_goes_on_from_finished_files(train, video_vae_file, video_folder, tmp_path):
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


def test_the_lora_is_tuned_and_loads(train, video_vae_file, video_folder):
    rest = ("--vae", str(video_vae_file), "--models", str(video_folder))
    folder = train("train_video_lora", *rest)
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
