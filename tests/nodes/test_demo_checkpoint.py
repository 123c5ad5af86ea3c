"""Demo Checkpoint in graphs of the host's own nodes, on models with random weights; the video kind's are below."""

import shutil
import socket

import comfy.ldm.wan.vae
import comfy.model_base
import comfy.sd
import pytest
import torch
from papernodes.networks import demo_format
from papernodes.nodes import demo_checkpoint
from papernodes.nodes.demo_checkpoint import FILES, DemoCheckpoint

import nodes as host_nodes

STEPS = 3
ALL_FILES = [(kind, file) for kind, files in FILES.items() for file in files]
SHIPPED = demo_checkpoint.FOLDER


@pytest.fixture(scope="module", autouse=True)
def folder(demo_files):
    """The node looks for its files where the random ones lie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_checkpoint, "FOLDER", demo_files["image_unet"].parent)
        yield demo_files["image_unet"].parent


@pytest.fixture(scope="module")
def loaded(folder):
    """MODEL, CLIP, VAE, CLIP_VISION, CONTROL_NET."""
    return DemoCheckpoint.execute("image").args


@pytest.fixture
def copied(folder, tmp_path, monkeypatch):
    """A copy of the files, to be damaged; the networks must not be built from it."""

    def fail(*_):
        raise AssertionError("a network was built before all files were checked")

    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(demo_checkpoint, "FOLDER", tmp_path)
    for name in ("load_model", "load_clip", "load_vae", "load_clip_vision", "load_controlnet"):
        monkeypatch.setattr(demo_checkpoint, name, fail)
    for name in ("load_model", "load_clip", "load_vae"):
        monkeypatch.setattr(demo_checkpoint.demo_video, name, fail)
    for name in ("load_model", "load_controlnet"):
        monkeypatch.setattr(demo_checkpoint.demo_manga_ninja, name, fail)
    return tmp_path


def encode(clip, text):
    return host_nodes.CLIPTextEncode().encode(clip, text)[0]


def sample(loaded, prompt="a red ball", negative="", *, model=None, latent=None, cfg=4.0, denoise=1.0, control=None):
    """What KSampler makes; ``control``: arguments of ControlNetApplyAdvanced after the ControlNet."""
    own_model, clip, _, _, control_net = loaded
    positive, negative = encode(clip, prompt), encode(clip, negative)
    if control is not None:
        apply = host_nodes.ControlNetApplyAdvanced().apply_controlnet
        positive, negative = apply(positive, negative, control_net, *control)
    latent = host_nodes.EmptyLatentImage().generate(64, 64)[0] if latent is None else latent
    settings = (7, STEPS, cfg, "euler", "normal", positive, negative, latent)
    return host_nodes.KSampler().sample(model or own_model, *settings, denoise=denoise)[0]["samples"]


def hint(value=1.0):
    """An IMAGE with a white cross."""
    image = torch.zeros(1, 64, 64, 3)
    image[:, 30:34] = value
    image[:, :, 30:34] = value
    return image


def test_the_shipped_files_lie_in_the_pack(repository):
    assert repository / "demo" / "checkpoints" == SHIPPED


def test_a_picture_from_words(loaded):
    latent = sample(loaded)
    image = host_nodes.VAEDecode().decode(loaded[2], {"samples": latent})[0]
    assert image.shape == (1, 64, 64, 3)
    assert image.isfinite().all()
    assert image.std() > 0.01
    assert torch.equal(sample(loaded), latent)
    assert not torch.equal(sample(loaded, "a blue cat"), latent)


def test_nothing_is_downloaded(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for kind in FILES:
        assert len(DemoCheckpoint.execute(kind).args) == 5


def test_sockets_are_the_stock_ones():
    schema = DemoCheckpoint.GET_SCHEMA()
    assert [output.io_type for output in schema.outputs] == ["MODEL", "CLIP", "VAE", "CLIP_VISION", "CONTROL_NET"]
    assert [item.id for item in schema.inputs] == ["kind"]
    assert schema.inputs[0].options == ["image", "video", "manganinja"]


@pytest.mark.parametrize("prompt", ["", " ", ",,,", "red " * 74])
def test_prompts_of_one_chunk(loaded, prompt):
    ((conditioning, extra),) = encode(loaded[1], prompt)
    assert conditioning.shape == (1, 77, 128)
    assert conditioning.isfinite().all()
    assert extra["pooled_output"].shape == (1, 128)


@pytest.mark.parametrize(("words", "tokens"), [(75, 77), (76, 154), (150, 154), (151, 231)])
def test_long_prompts_come_in_chunks_of_77(loaded, words, tokens):
    ((conditioning, _),) = encode(loaded[1], " ".join(["red"] * words))
    assert conditioning.shape == (1, tokens, 128)


def test_a_long_prompt_samples(loaded):
    latent = sample(loaded, "a red ball, " * 40, "blue")
    assert latent.isfinite().all()
    assert not torch.equal(latent, sample(loaded, "a red ball", "blue"))


def test_unknown_words_all_mean_the_same(loaded):
    encoded = {word: encode(loaded[1], f"a {word} ball")[0][0] for word in ("red", "car", "dog")}
    assert torch.equal(encoded["car"], encoded["dog"])
    assert not torch.equal(encoded["car"], encoded["red"])
    strange = encode(loaded[1], "supercalifragilistic \U0001f388 \u7403 <|x|> embedding:nothing")[0][0]
    assert strange.isfinite().all()


def test_weighted_words(loaded):
    plain = encode(loaded[1], "a red ball")[0][0]
    assert torch.equal(encode(loaded[1], "a (red:1.0) ball")[0][0], plain)
    heavy = encode(loaded[1], "a (red:1.3) ball")[0][0]
    assert (heavy - plain).abs().flatten(2).amax(2)[0].nonzero().flatten().tolist() == [2]
    assert heavy.isfinite().all()


@pytest.mark.parametrize(("width", "height"), [(128, 128), (130, 99), (16, 256), (64, 72)])
def test_sizes_that_are_no_multiple_of_8_are_rounded_down(loaded, width, height):
    latent = host_nodes.EmptyLatentImage().generate(width, height)[0]
    samples = sample(loaded, latent=latent)
    image = host_nodes.VAEDecode().decode(loaded[2], {"samples": samples})[0]
    assert image.shape == (1, height // 8 * 8, width // 8 * 8, 3)
    assert image.isfinite().all()


def test_encoding_crops_odd_pictures_evenly(loaded):
    image = torch.rand(1, 99, 130, 3, generator=torch.Generator().manual_seed(0))
    latent = host_nodes.VAEEncode().encode(loaded[2], image)[0]["samples"]
    assert latent.shape == (1, 4, 12, 16)
    assert torch.equal(latent, host_nodes.VAEEncode().encode(loaded[2], image[:, 1:97, 1:129])[0]["samples"])


def test_a_batch_of_two(loaded):
    latent = sample(loaded, latent=host_nodes.EmptyLatentImage().generate(64, 64, 2)[0])
    assert latent.shape == (2, 4, 8, 8)
    assert (latent[0] - latent[1]).abs().max() > 0.1
    assert latent.isfinite().all()


def test_cfg_1_does_not_look_at_the_negative(loaded):
    assert torch.equal(sample(loaded, negative="blue", cfg=1.0), sample(loaded, negative="green cat", cfg=1.0))
    assert not torch.equal(sample(loaded, negative="blue"), sample(loaded, negative="green cat"))


def test_image_to_image_starts_from_the_image(loaded):
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    latent = host_nodes.VAEEncode().encode(loaded[2], image)[0]
    change = [(sample(loaded, latent=latent, denoise=amount) - latent["samples"]).std() for amount in (0.1, 0.9)]
    assert 0 < change[0] < change[1]


def test_controlnet_through_the_stock_node(loaded):
    plain = sample(loaded)
    full, weak = (sample(loaded, control=(hint(), strength, 0.0, 1.0)) for strength in (1.0, 1e-5))
    assert (full - plain).abs().max() > 0.05
    assert 0 < (weak - plain).abs().max() < 0.01
    assert torch.equal(sample(loaded, control=(hint(), 0.0, 0.0, 1.0)), plain)
    assert torch.equal(sample(loaded, control=(hint(), 1.0, 0.0, 0.0)), plain)
    late = sample(loaded, control=(hint(), 1.0, 0.5, 1.0))
    assert not torch.equal(late, plain)
    assert not torch.equal(late, full)
    assert not torch.equal(sample(loaded, control=(hint(0.0), 1.0, 0.0, 1.0)), full)
    assert torch.equal(sample(loaded), plain)


def test_clip_vision_through_the_stock_node(loaded):
    output = host_nodes.CLIPVisionEncode().encode(loaded[3], hint(), "center")[0]
    assert output["image_embeds"].shape == (1, 128)


def test_a_lora_through_the_host_leaves_the_loaded_model(loaded):
    before = sample(loaded)
    layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0"
    generator = torch.Generator().manual_seed(0)
    factors = {
        f"{layer}.lora_up.weight": torch.randn(96, 2, generator=generator),
        f"{layer}.lora_down.weight": torch.randn(2, 96, generator=generator),
    }
    patched, _ = comfy.sd.load_lora_for_models(loaded[0], None, factors, 1.0, 0.0)
    assert not torch.equal(sample(loaded, model=patched), before)
    assert torch.equal(sample(loaded), before)


def test_two_loads_agree_and_are_apart(loaded):
    again = DemoCheckpoint.execute("image").args
    assert torch.equal(sample(again), sample(loaded))
    clip, other = loaded[1], again[1]
    other.clip_layer(-2)
    assert not torch.equal(encode(other, "a red ball")[0][0], encode(clip, "a red ball")[0][0])
    assert all(one is not two for one, two in zip(loaded, again, strict=True))
    assert other.cond_stage_model is not clip.cond_stage_model
    assert again[2].first_stage_model is not loaded[2].first_stage_model
    assert again[4].control_model is not loaded[4].control_model


@pytest.mark.parametrize("kind", ["film", "", None, "../image"])
def test_unknown_kinds(kind):
    with pytest.raises(ValueError, match=r"'kind' is .*; expected one of: image, video, manganinja\."):
        DemoCheckpoint.execute(kind)


@pytest.mark.parametrize(("kind", "file"), ALL_FILES)
def test_a_missing_file(copied, kind, file):
    (copied / f"{file}.safetensors").unlink()
    with pytest.raises(ValueError) as caught:
        DemoCheckpoint.execute(kind)
    assert f"{file}.safetensors in {copied} is missing" in str(caught.value)


@pytest.mark.parametrize(("kind", "file"), ALL_FILES)
def test_a_half_downloaded_file(copied, kind, file):
    path = copied / f"{file}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{file}\.safetensors.*damaged or only partly downloaded"):
        DemoCheckpoint.execute(kind)


@pytest.mark.parametrize(("kind", "file"), ALL_FILES)
def test_a_file_of_another_world(copied, kind, file, monkeypatch):
    path = copied / f"{file}.safetensors"
    state, _ = demo_format.load(path, file)
    with monkeypatch.context() as patch:
        patch.setattr(demo_format, "WORLD_VERSION", demo_format.WORLD_VERSION + 1)
        demo_format.save(path, state, {"kind": file})
    with pytest.raises(ValueError, match=rf"{file}\.safetensors.*version 2 of the drawn world.*needs version 1"):
        DemoCheckpoint.execute(kind)


def test_exchanged_files(copied):
    shutil.copy(copied / "image_vae.safetensors", copied / "image_unet.safetensors")
    with pytest.raises(ValueError, match=r"image_unet\.safetensors.*holds 'image_vae'"):
        DemoCheckpoint.execute("image")


@pytest.mark.parametrize("kind", FILES)
def test_the_fingerprint_follows_the_files(copied, kind):
    before = DemoCheckpoint.fingerprint_inputs(kind)
    assert DemoCheckpoint.fingerprint_inputs(kind) == before
    with (copied / f"{FILES[kind][0]}.safetensors").open("ab") as file:
        file.write(b"x")
    assert DemoCheckpoint.fingerprint_inputs(kind) != before


def test_what_the_manganinja_kind_gives(loaded, folder):
    """MangaNinja's own UNet and ControlNet; the others are the image model's."""
    model, clip, vae, vision, control_net = DemoCheckpoint.execute("manganinja").args
    assert type(model.model) is type(loaded[0].model) and model.model is not loaded[0].model
    own, image = (some.model.diffusion_model.state_dict() for some in (model, loaded[0]))
    assert own.keys() == image.keys() and any(not torch.equal(own[name], image[name]) for name in own)
    control, lines = (some.control_model.state_dict() for some in (control_net, loaded[4]))
    assert control.keys() == lines.keys() and any(not torch.equal(control[name], lines[name]) for name in control)
    for some, other in ((vae, loaded[2]), (vision, loaded[3])):
        assert type(some) is type(other)
    assert torch.equal(encode(clip, "a red ball")[0][0], encode(loaded[1], "a red ball")[0][0])


@pytest.fixture(scope="module")
def video():
    """MODEL, CLIP, VAE of the video kind."""
    return DemoCheckpoint.execute("video").args[:3]


def test_what_the_video_kind_gives(video):
    model, clip, vae = video
    assert type(model.model) is comfy.model_base.WAN21
    assert type(clip) is comfy.sd.CLIP
    assert type(vae.first_stage_model) is comfy.ldm.wan.vae.WanVAE


def test_what_the_video_kind_has_not(video):
    *_, clip_vision, control_net = DemoCheckpoint.execute("video").args
    image = torch.zeros(1, 64, 64, 3)
    with pytest.raises(AttributeError, match=r"'clip_vision' of Demo Checkpoint .* Set kind to 'image'"):
        host_nodes.CLIPVisionEncode().encode(clip_vision, image, "center")
    apply = host_nodes.ControlNetApplyAdvanced().apply_controlnet
    words = encode(video[1], "a red ball")
    with pytest.raises(AttributeError, match=r"'control_net' of Demo Checkpoint .* Set kind to 'image'"):
        apply(words, words, control_net, image, 1.0, 0.0, 1.0)
    assert apply(words, words, control_net, image, 0.0, 0.0, 1.0) == (words, words)
    assert not hasattr(clip_vision, "get_ram_usage")


@pytest.mark.parametrize(("length", "frames"), [(1, 1), (5, 5), (8, 5), (9, 9)])
def test_a_video_from_words(video, length, frames):
    model, clip, vae = video
    from comfy_extras.nodes_hunyuan import EmptyHunyuanLatentVideo

    latent = EmptyHunyuanLatentVideo.execute(32, 32, length).args[0]
    settings = (7, STEPS, 3.0, "euler", "simple", encode(clip, "a red ball"), encode(clip, ""), latent)
    samples = host_nodes.KSampler().sample(model, *settings)[0]
    assert samples["samples"].shape == (1, 16, (frames - 1) // 4 + 1, 4, 4)
    pictures = host_nodes.VAEDecode().decode(vae, samples)[0]
    assert pictures.shape == (frames, 32, 32, 3)
    assert pictures.isfinite().all() and pictures.std() > 0.001
