"""The training of the video autoencoder, from end to end in a few steps, and what it is made of."""

import argparse
import copy

import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.latent_formats import Wan21
from demo_files import random_weights
from training_files import check_folder, run

from demo import (
    latent_reading,
    train_video_vae,
    video_vae,
)
from demo.training_group import TrainingGroup
from demo.world.render import render
from demo.world.scene import draw_scenes
from networks import demo_format, demo_video

CPU = torch.device("cpu")


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
    network = copy.deepcopy(random_autoencoder)
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
    [
        (("--drawn-by", "."), "--decoder-of"),
        (("--reading", "0.1", "--frames", "1"), "whole clips"),
        (("--reading", "0.1", "--decoder-of", "."), "encoder"),
    ],
)
def test_options_that_do_not_go_together(given, reason, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=reason):
        run(monkeypatch, train_video_vae, "--state", str(tmp_path), *given)


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
    heads = latent_reading.LatentReading() if reading else None
    loss = train_video_vae.make_loss(network, pool, arguments, heads)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        losses.append(loss())
        losses[-1].backward()
        assert all(value.grad is not None for value in network.parameters())
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]
    if reading:
        assert all(value.grad.any() for value in heads.parameters())


def test_names_and_places_that_are_read_weigh_as_told():
    scenes = draw_scenes(2, 0, frames=5)
    drawn = render(scenes, 32, 32, layers=("frames", "labels", "local"))
    pool = train_video_vae.Pool(
        (drawn.frames * 255).byte(),
        torch.zeros(2, 0, 77, dtype=torch.int16),
        latent_reading.latent_contents(scenes, drawn).tensors(),
    )
    torch.manual_seed(0)
    network, heads = video_vae.VideoAutoencoder(), latent_reading.LatentReading()
    found = []
    for weights in ((0.0, 0.0), (1.0, 0.0), (1.0, 3.0), (1.0, 6.0)):
        arguments = argparse.Namespace(batch=2, frames=5, decoder_of=None, latent_noise=0.1, squared=5.0)
        arguments.reading, arguments.place_reading, arguments.group = *weights, TrainingGroup()
        torch.manual_seed(1)
        loss = train_video_vae.make_loss(copy.deepcopy(network), pool, arguments, heads)
        found.append(float(loss().detach()))
    plain, named, placed, twice = found
    assert named - plain > 1.0, "names that nobody has learned"
    assert placed - named > 0.05 and twice - named == pytest.approx(2 * (placed - named), rel=0.01)


def test_half_of_a_batch_is_drawn_by_a_network():
    """Each clip with the tokens of its own caption, in the place of the first half's latents."""
    torch.manual_seed(0)
    network = video_vae.VideoAutoencoder().requires_grad_(False)
    clips = torch.arange(4).mul(60).byte().view(4, 1, 1, 1, 1).expand(4, 5, 3, 16, 16).contiguous()
    tokens = torch.arange(4, dtype=torch.int16).view(4, 1, 1).expand(4, 1, 77)
    arguments = argparse.Namespace(batch=4, frames=5, decoder_of="file", latent_noise=0.0, squared=5.0, reading=0.0)
    seen = []

    def redraw(change):
        def drawn(latents, rows):
            every = network.normalise(network.raw(video_vae.to_clips(clips)))  # not rounded to float8, as these are
            assert torch.equal(torch.cdist(latents.flatten(1), every.flatten(1)).argmin(1), rows[:, 0].long())
            seen.append(rows.shape)
            return change(latents)

        return drawn

    losses = []
    for how in (None, redraw(lambda x: x), redraw(lambda x: x + 5)):
        torch.manual_seed(2)
        pool = train_video_vae.Pool(clips, tokens)
        losses.append(float(train_video_vae.make_loss(network, pool, arguments, None, how)().detach()))
    assert seen == [(2, 77)] * 2
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and abs(losses[2] - losses[0]) > 0.01 * losses[0]


def test_cuts_are_runs_of_frames():
    torch.manual_seed(0)
    pool = torch.arange(4 * 9).view(4, 9, 1, 1, 1)
    found = train_video_vae.cut(pool, torch.arange(4).repeat(50), 5)[..., 0, 0, 0]
    assert (found.diff(dim=1) == 1).all()
    assert set((found[:, 0] % 9).tolist()) == {0, 1, 2, 3, 4}
    assert torch.equal(found[:, 0] // 9, torch.arange(4).repeat(50))


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


def test_a_compiled_encoder_makes_the_same_latents(random_autoencoder, monkeypatch):
    shapes = []

    def compiling(function, **how):
        return lambda x, *others: shapes.append(x.shape[0]) or function(x, *others)

    monkeypatch.setattr(torch, "compile", compiling)
    frames = torch.rand(3, 5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    expected = video_vae.encode_clips(random_autoencoder, frames)
    compiled = copy.deepcopy(random_autoencoder)
    video_vae.fuse_norms(compiled.vae.encoder, always=True)
    found = video_vae.encode_clips(compiled, frames, part=2)
    middle = len(shapes) // 2
    assert middle > 20 and shapes[:middle] == shapes[middle:], "also of the last clip, which is alone"
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3 * float(expected.float().std()))
