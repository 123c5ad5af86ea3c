"""Every training script from end to end, a few steps each, and what its files are to ComfyUI."""

import argparse

import comfy.sd
import comfy.utils
import pytest
import torch
from demo_files import random_weights
from training_files import check_folder

from demo import (
    diffusion,
    train_clip_vision,
    train_control,
    train_image,
    train_vae,
    training,
    world_tokens,
)
from demo.world.scene import draw_scenes
from networks import demo_controlnet, demo_format, demo_image, demo_vision

CAPTIONS = ["a red cat in a meadow", "a blue striped ball, at night", ""]


@pytest.fixture(scope="session")
def vae_file(train):
    return train("train_vae") / "image_vae.safetensors"


@pytest.fixture(scope="session")
def image_folder(train, vae_file):
    return train("train_image", "--vae", str(vae_file))


def test_finished_files_can_be_trained_further(image_folder, vae_file, tmp_path, monkeypatch):
    arguments = ["train_image", "--tiny", "--vae", str(vae_file), "--start", str(image_folder)]
    monkeypatch.setattr("sys.argv", [*arguments, "--state", str(tmp_path), "--rate", "0"])
    train_image.main()
    weights, progress = training.read_state(tmp_path / "state.safetensors")
    assert progress.step == 6  # three of them by what the file says of itself
    before = demo_format.load(image_folder / "image_unet.safetensors", "image_unet")[0]
    for name, value in before.items():
        torch.testing.assert_close(weights[f"unet.{name}"], value, rtol=1e-3, atol=1e-6)
    monkeypatch.setattr("sys.argv", [*arguments, "--state", str(tmp_path), "--resume"])
    with pytest.raises(SystemExit, match="exclude"):
        train_image.main()


def test_the_autoencoder_is_what_the_stock_loader_reads(train, vae_file):
    check_folder(vae_file.parent, "vae.png")
    network = train_vae.read(vae_file, "cpu")
    pictures = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae_file)))
    vae.throw_exception_if_invalid()
    latents = vae.encode(pictures.movedim(1, -1)) * train_vae.VAE_SCALE
    torch.testing.assert_close(latents, network.encode(pictures), rtol=1e-3, atol=2e-3)
    again = vae.decode(latents / train_vae.VAE_SCALE).movedim(-1, 1)
    torch.testing.assert_close(again, network.decoder(latents).clamp(0, 1), rtol=1e-3, atol=1e-3)
    metadata = demo_format.read_metadata(vae_file, "image_vae")
    assert metadata["steps"] == "3"
    assert float(metadata["psnr"]) > 0


def test_a_decoder_alone_is_trained_without_touching_the_latents(train, vae_file, tmp_path):
    before, _ = demo_format.load(vae_file, "image_vae")
    train.run("train_vae", "--state", str(tmp_path), "--decoder-of", str(vae_file), "--lit", "0.5")
    after, _ = demo_format.load(tmp_path / "image_vae.safetensors", "image_vae")
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed == {"taesd_decoder"}


def test_folding_leaves_the_picture_and_normalises_the_latents(vae_file):
    network = train_vae.read(vae_file, "cpu")
    pool = torch.randint(0, 256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.no_grad():
        network.encoder[-1].weight.mul_(3)
        network.encoder[-1].bias.add_(torch.arange(4.0))
    raw = network.encoder(pool.float() / 255)
    mean, deviation = train_vae.fold(network, pool)
    latents = network.encode(pool.float() / 255)
    torch.testing.assert_close(latents * deviation.view(1, 4, 1, 1) + mean.view(1, 4, 1, 1), raw, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(latents.std((0, 2, 3), correction=0), torch.ones(4), rtol=0, atol=1e-3)


def test_the_image_model_conditions_on_what_the_host_computes(image_folder):
    check_folder(image_folder, "samples.png", "samples.txt")
    demo_image.load_model(image_folder / "image_unet.safetensors")
    clip = demo_image.load_clip(image_folder / "image_text_encoder.safetensors")
    _, text = train_image.load_models(image_folder, torch.device("cpu"))
    rows = torch.from_numpy(world_tokens.token_rows(CAPTIONS)).long()
    expected = torch.cat([clip.encode_from_tokens(clip.tokenize(caption)) for caption in CAPTIONS])
    # The host computes in half precision; states are of size 1, and another mask or order changes them by tenths.
    torch.testing.assert_close(diffusion.encode_text(text, rows), expected, rtol=5e-3, atol=5e-3)
    assert (expected[0] - expected[1]).abs().max() > 1e-3


def test_some_captions_are_empty_and_some_words_unknown():
    torch.manual_seed(0)
    tokens = torch.from_numpy(world_tokens.token_rows(CAPTIONS[:2] * 2000)).view(2000, 2, 77)
    empty = torch.from_numpy(world_tokens.token_rows([""])[0]).long()
    rows = train_image.captions_of_batch(tokens, torch.arange(2000), empty)
    share = (rows == empty).all(dim=1).float().mean()
    assert 0.07 < share < 0.13
    unknown = rows == len(world_tokens.vocabulary())
    words = (rows != empty[-1]) & (rows != empty[0])
    assert 0.005 < unknown.sum() / words.sum() < 0.02
    cats = (rows == tokens[0, 0]).all(dim=1).float().mean()
    assert 0.3 < cats < 0.55, "both phrasings are drawn"


def test_the_clip_vision_model_goes_on_and_loads(train):
    folder = train("train_clip_vision")
    check_folder(folder, "poses.png")
    target = folder / "image_clip_vision.safetensors"
    demo_vision.load_clip_vision(target)
    assert 0 <= float(demo_format.read_metadata(target, "image_clip_vision")["retrieval_held_out"]) <= 1
    log = train.run("train_clip_vision", "--state", str(folder / "next"), "--resume", str(folder), "--final")
    assert "resumed after step 3" in log
    weights, progress = training.read_state(folder / "next" / "state.safetensors")
    assert [step for step, _ in progress.losses] == [3, 6]
    before, _ = training.read_state(folder / "state.safetensors")
    moved = [float((weights[name] - before[name]).abs().max()) for name in before]
    assert 0 < max(moved) < 0.01


def test_clip_vision_pictures_are_prepared_as_the_host_does():
    import comfy.clip_vision

    pictures = torch.randint(0, 256, (2, 3, 128, 128), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expected = comfy.clip_vision.clip_preprocess(pictures.movedim(1, -1).float() / 255, size=128)
    torch.testing.assert_close(train_clip_vision.preprocess(pictures), expected)


def test_groups_share_a_look_and_stay_within_the_trained_combinations():
    from demo.world.attributes import HELD_OUT

    scenes = draw_scenes(4000, 5, characters=(0.8, 0.2, 0.0, 0.0))
    shared = train_clip_vision.share_looks(scenes)
    shown = shared.present
    assert not HELD_OUT[shared.shape[shown], shared.colour[shown], shared.pattern[shown]].any()
    for member, name in enumerate(("shape", "colour", "pattern"), start=1):
        value = getattr(shared, name)[:, 0]
        assert (value[member::4] == value[::4]).float().mean() > 0.8
    two = shared.count == 2
    same = (shared.shape[two, 0] == shared.shape[two, 1]) & (shared.colour[two, 0] == shared.colour[two, 1])
    assert not same.any()


def test_the_controlnet_learns_and_loads(train, vae_file, image_folder):
    folder = train("train_control", "--vae", str(vae_file), "--models", str(image_folder))
    check_folder(folder, "control.png")
    target = folder / "image_controlnet_lineart.safetensors"
    demo_controlnet.load_controlnet(target, image_folder / "image_unet.safetensors")


def test_a_controls_loss_reaches_all_that_is_trained():
    """The zero convolutions at first; once they are no longer 0, all the rest."""
    unet, text = train_image.build(torch.device("cpu"))
    unet.load_state_dict(random_weights(unet))
    frozen = {name: value.clone() for name, value in unet.state_dict().items()}
    state = {name: value.requires_grad_() for name, value in demo_controlnet.initial_state(frozen, 0).items()}
    network = demo_controlnet.build_controlnet("cpu", torch.float32, diffusion.training_operations())
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    pool = (
        torch.randn(4, 4, 16, 16, generator=generator).half(),
        torch.randint(0, 256, (4, 1, 128, 128), generator=generator, dtype=torch.uint8),
        torch.from_numpy(world_tokens.token_rows(CAPTIONS[:2] * 2)).view(4, 1, 77),
    )
    arguments = argparse.Namespace(
        batch=2, snr_limit=5.0, layout=0.5, layout_weight=0.7, layout_from=400, layout_limit=60.0
    )
    loss = train_control.make_loss(
        unet.requires_grad_(False), text.requires_grad_(False), network, state, pool, arguments
    )
    loss().backward()
    first = {name for name, value in state.items() if value.grad is not None and value.grad.abs().max() > 0}
    assert first == {name for name in state if name.startswith(("zero_convs.", "middle_block_out."))}
    with torch.no_grad():
        for name in first:
            state[name].add_(0.1 * torch.randn(state[name].shape, generator=generator))
    loss().backward()
    second = {name for name, value in state.items() if value.grad is not None and value.grad.abs().max() > 0}
    # The down factors wait for the up factors.
    assert second == {name for name in state if not name.endswith(".lora_down")}
