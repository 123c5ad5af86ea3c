"""The demonstration's video models are ComfyUI's own objects, and its stock loaders read their files."""

import comfy.ldm.wan.model
import comfy.ldm.wan.vae
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.sd
import comfy.utils
import pytest
import torch
from demo_files import KNOWN_WORDS, random_weights, write_video_files
from papernodes.networks import demo_format, demo_image, demo_video, demo_video_lora
from papernodes.networks.demo_format import DemoFileError
from papernodes.nodes import demo_adapters
from papernodes.nodes.demo_checkpoint import FOLDER

# With a GPU, "make test-gpu" runs all of this on it.
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []


@pytest.fixture(scope="module")
def video_files(tmp_path_factory):
    """Kind -> file with random weights; copy a file before damaging it."""
    return write_video_files(tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="module")
def model(video_files):
    return demo_video.load_model(video_files["video_unet"])


def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 16, 2, 4, 6, generator=generator), torch.randn(2, 77, 128, generator=generator)


def predict(model) -> torch.Tensor:
    """What a MODEL takes for the denoised latent, after the host has loaded it and applied its patches."""
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    latent, context = (value.to(model.load_device) for value in inputs())
    with torch.no_grad():
        sigma = torch.full((2,), 0.8, device=model.load_device)
        return model.model.apply_model(latent, sigma, c_crossattn=demo_video.widen(context)).float().cpu()


def difference(result, expected) -> float:
    """As a share of what is expected."""
    return float((result - expected).norm() / expected.norm())


def test_the_files_are_small(video_files):
    sizes = {kind: path.stat().st_size for kind, path in video_files.items()}
    assert sizes["video_unet"] <= 6e6
    # The trained text encoder knows some hundred words more than this one.
    assert sum(sizes.values()) + 200 * 128 <= 12e6


def test_the_network_is_wans(model):
    assert type(model) is comfy.model_patcher.ModelPatcher
    assert type(model.model) is comfy.model_base.WAN21
    assert type(model.model.diffusion_model) is comfy.ldm.wan.model.WanModel
    assert model.model.model_sampling.shift == 8.0
    found = model.model.model_config.unet_config
    assert {name: found[name] for name in demo_video.NETWORK_CONFIG if name in found} == {
        name: value for name, value in demo_video.NETWORK_CONFIG.items() if name in found
    }
    assert {"dim", "ffn_dim", "num_heads", "num_layers"} <= set(found)


def test_the_stock_loader_reads_the_network(video_files, model):
    stock = comfy.sd.load_diffusion_model(str(video_files["video_unet"]))
    assert type(stock.model) is comfy.model_base.WAN21
    ours, theirs = model.model.state_dict(), stock.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name].float(), theirs[name].float()) for name in ours)
    assert difference(predict(stock), predict(model)) < 0.02


def test_nothing_is_lost_where_the_network_is_kept_in_float8(video_files, model):
    path = str(video_files["video_unet"])
    kept = comfy.sd.load_diffusion_model(path, model_options={"dtype": torch.float8_e4m3fn})
    assert kept.model.diffusion_model.blocks[0].self_attn.q.weight.dtype == torch.float8_e4m3fn
    assert difference(predict(kept), predict(model)) < 0.02


def test_the_stock_loader_reads_the_vae(video_files):
    ours = demo_video.load_vae(video_files["video_vae"])
    stock = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(video_files["video_vae"])))
    assert type(ours.first_stage_model) is type(stock.first_stage_model) is comfy.ldm.wan.vae.WanVAE
    for frames, expected in ((1, 1), (5, 2), (9, 3)):
        clip = torch.rand(frames, 16, 24, 3, generator=torch.Generator().manual_seed(frames))
        latent = ours.encode(clip)
        assert latent.shape == (1, 16, expected, 2, 3)
        assert torch.equal(latent, stock.encode(clip))
        decoded = ours.decode(latent)
        assert decoded.shape == (1, frames, 16, 24, 3)
        assert torch.equal(decoded, stock.decode(latent))


@pytest.mark.parametrize("frames", [0, 2, 16, -3])
def test_other_numbers_of_frames_are_refused(frames):
    with pytest.raises(ValueError, match=f"frames is {frames}; expected 1, 5, 9, 13, 17"):
        demo_video.latent_frames(frames)
    assert demo_video.latent_frames(17) == 5


def test_the_conditioning_has_wans_width(video_files):
    clip = demo_video.load_clip(video_files["video_text_encoder"])
    assert type(clip) is comfy.sd.CLIP
    ids = [token for token, _ in clip.tokenize("a red ball")["l"][0]]
    assert ids[:5] == [49406, *(KNOWN_WORDS[word] for word in ("a", "red", "ball")), 49407]
    (states, pooled), *_ = clip.encode_from_tokens_scheduled(clip.tokenize("a red ball"))
    assert states.shape == (1, 77, 4096) and "pooled_output" in pooled
    assert not states[..., 128:].any()
    image = demo_image.load_clip(rename(video_files["video_text_encoder"]))
    torch.testing.assert_close(states[..., :128], image.encode_from_tokens(image.tokenize("a red ball")))


def rename(path):
    """The same text encoder as the image model's."""
    state, _ = demo_format.load(path, "video_text_encoder")
    other = path.with_name("image_text_encoder.safetensors")
    demo_format.save(other, state, {"kind": "image_text_encoder"})
    return other


def generate(model, clip, vae) -> torch.Tensor:
    latent = torch.zeros(1, 16, 2, 4, 4)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(9))
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a red ball", ""))
    found = comfy.sample.sample(model, noise, 2, 3.0, "euler", "simple", positive, negative, latent)
    return vae.decode(found)


def test_sampling_and_the_lora(video_files, model):
    clip = demo_video.load_clip(video_files["video_text_encoder"])
    vae = demo_video.load_vae(video_files["video_vae"])
    before = generate(model, clip, vae)
    assert before.shape == (1, 5, 32, 32, 3)
    assert torch.isfinite(before).all() and before.std() > 0.001
    stock = comfy.utils.load_torch_file(str(video_files[demo_video_lora.KIND]))
    off, _ = comfy.sd.load_lora_for_models(model, None, stock, 0.0, 0.0)
    little, _ = comfy.sd.load_lora_for_models(model, None, stock, 1e-6, 0.0)
    on, _ = comfy.sd.load_lora_for_models(model, None, stock, 1.0, 0.0)
    assert torch.equal(generate(off, clip, vae), before)
    assert (generate(little, clip, vae) - before).abs().max() < 1e-3
    changed = generate(on, clip, vae)
    assert torch.isfinite(changed).all() and (changed - before).abs().max() > 0.01
    assert torch.equal(generate(model, clip, vae), before), "the MODEL that came in is as it was"


def test_the_lora_changes_what_training_changed(video_files, model, caplog):
    lora = demo_video_lora.load_lora(video_files[demo_video_lora.KIND])
    stock = comfy.utils.load_torch_file(str(video_files[demo_video_lora.KIND]))
    assert lora.keys() == stock.keys()
    on, _ = comfy.sd.load_lora_for_models(model, None, stock, 1.0, 0.0)
    assert "lora key not loaded" not in caplog.text
    assert len(on.patches) == len(demo_video_lora.tuned_layers()) == 31
    network_state, _ = demo_format.load(video_files["video_unet"], "video_unet")
    merged = demo_video_lora.apply_lora(lora, network_state)
    assert len(merged) == 31
    network = demo_video.build_network()
    network.load_state_dict(network_state | merged)
    latent, context = inputs()
    with torch.no_grad():
        velocity = network(latent, torch.full((2,), 800.0), demo_video.widen(context), transformer_options={})
    tolerance = 1e-4 if on.load_device.type == "cpu" else 0.02
    assert difference(predict(on), latent - 0.8 * velocity) < tolerance
    assert difference(predict(model), latent - 0.8 * velocity) > 0.02
    untuned = demo_video_lora.initial_lora(0)
    unchanged = demo_video_lora.apply_lora(untuned, network_state)
    assert all(torch.equal(unchanged[name], network_state[name]) for name in unchanged)


@pytest.mark.parametrize(
    ("kind", "load"),
    [
        ("video_unet", demo_video.load_model),
        ("video_text_encoder", demo_video.load_clip),
        ("video_vae", demo_video.load_vae),
        (demo_video_lora.KIND, demo_video_lora.load_lora),
    ],
)
def test_weights_of_another_network_are_refused(video_files, tmp_path, kind, load):
    state, metadata = demo_format.load(video_files[kind], kind)
    lost = list(state)[3] if kind == demo_video_lora.KIND else next(name for name in state if name.endswith(".bias"))
    del state[lost]
    path = tmp_path / f"{kind}.safetensors"
    demo_format.save(path, state, metadata)
    with pytest.raises(DemoFileError, match=lost):
        load(path)
    with pytest.raises(DemoFileError, match="expected"):
        load(video_files["video_vae" if kind != "video_vae" else "video_unet"])
    with pytest.raises(DemoFileError, match="missing"):
        load(tmp_path / "nothing.safetensors")


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    weights = random_weights(demo_video.build_vae())
    weights["conv1.bias"] = torch.full((32,), torch.nan)
    with pytest.raises(ValueError, match=r"conv1.bias"):
        demo_video.save_for_stock(tmp_path / "x.safetensors", weights, {"kind": "video_vae"})
    assert not list(tmp_path.iterdir())


def test_values_beyond_float8_become_its_largest():
    found = demo_video.to_stored(torch.tensor([1e4, -1e4, 0.0156]), torch.float8_e4m3fn).float()
    torch.testing.assert_close(found, torch.tensor([448.0, -448.0, 0.015625]))


def test_the_lora_on_a_wan_of_another_size_is_named_in_the_log(video_files, tmp_path, caplog):
    """The names fit, the shapes do not: the host says so when it applies them, and leaves the weights as they were."""
    from tiny_models import write_tiny_model

    path = tmp_path / "tiny_wan.safetensors"
    write_tiny_model("wan", path)
    tiny = comfy.sd.load_diffusion_model(str(path))
    before = predict(tiny)
    stock = comfy.utils.load_torch_file(str(video_files[demo_video_lora.KIND]))
    wrong, _ = comfy.sd.load_lora_for_models(tiny, None, stock, 1.0, 0.0)
    assert torch.equal(predict(wrong), before)
    assert "ERROR lora diffusion_model.blocks.0.self_attn.q.weight" in caplog.text
    assert "lora key not loaded: diffusion_model.blocks.4" in caplog.text


def test_the_loras_have_one_name_each():
    from papernodes.host import templates
    from papernodes.networks import demo_story_lora

    names = {demo_video_lora.FILE_NAME, demo_story_lora.FILE_NAME}
    assert {path.name for path in (FOLDER / "loras").iterdir()} == names
    assert all(name.startswith(templates.SHIPPED) for name in (*names, *demo_adapters.LIGHTS, *demo_adapters.MOTIONS))
    assert not any(templates.reads_published("LoraLoaderModelOnly", (name, 1)) for name in names)
    assert templates.reads_published("LoraLoaderModelOnly", ("other.safetensors", 1))
