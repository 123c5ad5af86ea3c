"""The demonstration models are ComfyUI's own objects: hooks, LoRA, offloading and dtypes work as on SD1.5."""

import comfy.cldm.cldm
import comfy.cli_args
import comfy.clip_model
import comfy.clip_vision
import comfy.controlnet
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from demo_files import KNOWN_WORDS, VOCABULARY, random_weights
from papernodes.networks import demo_controlnet, demo_format, demo_image, demo_vision
from papernodes.networks.demo_format import DemoFileError
from papernodes.nodes.demo_checkpoint import FOLDER

# With a GPU, "make test-gpu" runs all of this on it.
pytestmark = [pytest.mark.gpu] if torch.cuda.is_available() else []


@pytest.fixture(scope="module")
def model(demo_files):
    return demo_image.load_model(demo_files["image_unet"])


@pytest.fixture(scope="module")
def clip(demo_files):
    return demo_image.load_clip(demo_files["image_text_encoder"])


def unet_inputs():
    """Latent, timesteps and text of a batch of two."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, 4, 16, 16, generator=generator)
    return latent, torch.full((2,), 500.0), torch.randn(2, 77, 128, generator=generator)


def predict(model, **conditions):
    """What the MODEL as it is loaded takes for the denoised latent, on the CPU."""
    latent, _, context = (value.to(model.load_device) for value in unet_inputs())
    with torch.no_grad():
        sigma = torch.full((2,), 3.0, device=model.load_device)
        return model.model.apply_model(latent * 3, sigma, c_crossattn=context, **conditions).cpu()


def load_and_predict(model, **conditions):
    """The same after the host has loaded it and applied its patches."""
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    return predict(model, **conditions)


def difference(result, expected):
    """As a share of what is expected."""
    result, expected = result.detach().float().cpu(), expected.detach().float().cpu()
    return float((result - expected).norm() / expected.norm())


def test_the_unet_has_sd15s_blocks():
    ours = demo_image.build_unet("meta").state_dict()
    stock = {**demo_image.UNET_CONFIG, "model_channels": 320, "channel_mult": [1, 2, 4, 4], "context_dim": 768}
    theirs = UNetModel(**stock, device="meta").state_dict()
    # Levels two and three are equally wide here, so that one convolution less is needed.
    assert set(theirs) - set(ours) == {f"input_blocks.7.0.skip_connection.{name}" for name in ("weight", "bias")}
    assert set(ours) <= set(theirs)
    assert len(theirs) == 686
    assert sum(value.numel() for value in ours.values()) == 7_434_484


@pytest.mark.parametrize("base", [comfy.ops.disable_weight_init, comfy.ops.manual_cast])
def test_only_the_groups_differ_from_the_hosts_layers(base):
    unet = demo_image.build_unet("meta", operations=base)
    norms = [module for module in unet.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {8}
    assert all(isinstance(norm, base.GroupNorm) for norm in norms)
    layers = [module for module in unet.modules() if isinstance(module, comfy.ops.CastWeightBiasOp)]
    assert {layer.comfy_cast_weights for layer in layers} == {base.Linear.comfy_cast_weights}
    assert len(layers) > 300


def test_what_training_builds_can_be_trained():
    text = demo_image.build_text_transformer(vocabulary_rows=50)
    unet = demo_image.build_unet()
    vision = demo_vision.build_clip_vision()
    for network in (text, unet, vision):
        network.load_state_dict(random_weights(network))
    latent, timesteps, _ = unet_inputs()
    rows = torch.randint(0, 50, (2, 77), generator=torch.Generator().manual_seed(0))
    unet(latent, timesteps, text(rows)[0]).square().mean().backward()
    vision(pixel_values=torch.ones(2, 3, 128, 128))[2].square().mean().backward()
    for network in (text, unet, vision):
        still = [name for name, weight in network.named_parameters() if weight.grad is None]
        assert still == (["text_projection.weight"] if network is text else [])


def test_training_and_the_host_compute_the_same():
    ours = demo_image.build_text_transformer()
    theirs = comfy.clip_model.CLIPTextModel(demo_image.TEXT_CONFIG, torch.float32, "cpu", comfy.ops.disable_weight_init)
    weights = random_weights(ours)
    ours.load_state_dict(weights)
    theirs.load_state_dict(weights)
    rows = torch.randint(0, 49408, (2, 77), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(rows)[0], theirs(rows)[0])


def test_the_model_is_an_sd15(model):
    assert type(model) is comfy.model_patcher.ModelPatcher
    assert type(model.model) is comfy.model_base.BaseModel
    assert isinstance(model.model.model_config, comfy.supported_models.SD15)
    assert isinstance(model.model.latent_format, comfy.latent_formats.SD15)
    assert model.model.model_type == comfy.model_base.ModelType.EPS
    stock = comfy.model_base.model_sampling(
        comfy.supported_models.SD15({**demo_image.UNET_CONFIG}), comfy.model_base.ModelType.EPS
    )
    sampling = model.get_model_object("model_sampling")
    assert [base.__name__ for base in type(sampling).__bases__] == [base.__name__ for base in type(stock).__bases__]
    assert torch.equal(sampling.sigmas, stock.sigmas)
    assert float(sampling.sigma_max) == pytest.approx(14.6146, abs=1e-3)
    assert model.load_device == comfy.model_management.get_torch_device()
    assert model.offload_device == comfy.model_management.unet_offload_device()
    assert not model.model.diffusion_model.training


def test_the_model_holds_the_files_weights(model, demo_files):
    state, _ = demo_format.load(demo_files["image_unet"], "image_unet")
    unet = demo_image.build_unet()
    unet.load_state_dict(state)
    latent, timesteps, context = unet_inputs()
    expected = unet(latent, timesteps, context)
    loaded = model.model.diffusion_model
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    device, dtype = next(loaded.parameters()).device, model.model.get_dtype()
    with torch.no_grad():
        result = loaded(latent.to(device, dtype), timesteps.to(device), context.to(device, dtype))
    assert difference(result, expected) < 0.02


def test_attention_patches_reach_sd15s_block_ids(model):
    seen = set()

    def spy(q, context, value, extra):
        seen.add(extra["block"])
        return q, context, value

    patched = model.clone()
    patched.set_model_attn2_patch(spy)
    load_and_predict(patched, transformer_options=patched.model_options["transformer_options"])
    inputs = {("input", number) for number in (1, 2, 4, 5, 7, 8)}
    outputs = {("output", number) for number in range(3, 12)}
    assert seen == inputs | {("middle", 0)} | outputs


UNET_LORA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
TEXT_LORA = "lora_te_text_model_encoder_layers_0_mlp_fc1"


def make_lora():
    generator = torch.Generator().manual_seed(1)
    shapes = {UNET_LORA: (48, 128), TEXT_LORA: (512, 128)}
    lora = {}
    for name, (out, width) in shapes.items():
        lora[f"{name}.lora_up.weight"] = torch.randn(out, 4, generator=generator)
        lora[f"{name}.lora_down.weight"] = torch.randn(4, width, generator=generator)
    return lora


def test_a_lora_changes_model_and_clip_and_leaves_the_given_ones(model, clip, caplog):
    tokens = clip.tokenize("a red ball")
    before, text_before = load_and_predict(model), clip.encode_from_tokens(tokens)
    weights_before = {name: value.clone() for name, value in model.model.state_dict().items()}
    patched, patched_clip = comfy.sd.load_lora_for_models(model, clip, make_lora(), 1.0, 1.0)
    assert "NOT LOADED" not in caplog.text
    assert len(patched.patches) == len(patched_clip.patcher.patches) == 1
    after, text_after = load_and_predict(patched), patched_clip.encode_from_tokens(tokens)
    assert (after - before).abs().max() > 1e-3
    assert (text_after - text_before).abs().max() > 1e-3
    assert torch.equal(load_and_predict(model), before)
    assert torch.equal(clip.encode_from_tokens(tokens), text_before)
    comfy.model_management.unload_all_models()
    assert all(torch.equal(value, weights_before[name]) for name, value in model.model.state_dict().items())


def test_every_unet_weight_has_a_lora_name(model):
    names = comfy.lora.model_lora_keys_unet(model.model, {})
    named = {key for key in names.values() if isinstance(key, str)}
    assert {
        key for key in model.model.state_dict() if key.startswith("diffusion_model") and key.endswith("weight")
    } <= named
    assert UNET_LORA in names


def test_low_memory_mode_computes_the_same(model):
    patched, _ = comfy.sd.load_lora_for_models(model, None, make_lora(), 1.0, 0.0)
    expected = [load_and_predict(patcher) for patcher in (model, patched)]
    comfy.model_management.unload_all_models()
    for patcher, whole in zip((model, patched), expected, strict=True):
        patcher.patch_model(patcher.load_device, lowvram_model_memory=100_000)
        assert patcher.model.model_lowvram
        result = predict(patcher)
        patcher.unpatch_model(patcher.offload_device)
        assert difference(result, whole) < 1e-3


@pytest.mark.parametrize(("option", "dtype"), [("fp16_unet", torch.float16), ("fp32_unet", torch.float32)])
def test_the_dtype_that_the_command_line_asks_for(demo_files, model, monkeypatch, option, dtype):
    monkeypatch.setattr(comfy.cli_args.args, option, True)
    other = demo_image.load_model(demo_files["image_unet"])
    assert other.model.get_dtype() == dtype
    assert {value.dtype for value in other.model.diffusion_model.parameters()} == {dtype}
    assert difference(load_and_predict(other), load_and_predict(model)) < 0.02


def control_of(control, model):
    """What a CONTROL_NET adds in the middle of the UNet, for white lines."""
    hint = torch.zeros(1, 3, 128, 128)
    hint[:, :, 60:68] = 1
    control = control.copy().set_cond_hint(hint)
    comfy.model_management.load_models_gpu([model, *control.get_models()], force_full_load=True)
    control.pre_run(model.model, model.model.model_sampling.percent_to_sigma)
    latent, _, context = (value.to(model.load_device) for value in unet_inputs())
    sigma = torch.full((2,), 3.0, device=model.load_device)
    with torch.no_grad():
        return control.get_control(latent * 3, sigma, {"c_crossattn": context}, 1, {})["middle"][0]


def test_the_controlnet_in_half_precision(demo_files, model, monkeypatch):
    paths = demo_files["image_controlnet_lineart"], demo_files["image_unet"]
    whole = demo_controlnet.load_controlnet(*paths)
    monkeypatch.setattr(comfy.cli_args.args, "fp16_unet", True)
    half = demo_controlnet.load_controlnet(*paths)
    assert half.control_model.dtype == torch.float16
    # Where the device is slow or wrong in float16, the host computes in another.
    computed = comfy.model_management.unet_manual_cast(torch.float16, half.load_device) or torch.float16
    assert control_of(half, model).dtype == computed
    assert difference(control_of(half, model), control_of(whole, model)) < 0.02


def test_two_loads_share_nothing(demo_files, model):
    before = load_and_predict(model)
    other = demo_image.load_model(demo_files["image_unet"])
    assert other.model is not model.model
    for weight in other.model.parameters():
        weight.data.zero_()
    other.model.model_config.unet_config["num_heads"] = 99
    other.model_options["transformer_options"]["mark"] = True
    assert torch.equal(load_and_predict(model), before)
    assert model.model.model_config.unet_config["num_heads"] == demo_image.UNET_CONFIG["num_heads"] == 3
    assert "mark" not in model.model_options["transformer_options"]


def test_the_text_encoder_is_sd15s(clip):
    assert type(clip) is comfy.sd.CLIP
    transformer = clip.cond_stage_model.clip_l.transformer
    assert type(transformer) is comfy.clip_model.CLIPTextModel
    assert transformer.get_input_embeddings().weight.shape == (49408, 128)
    assert torch.equal(transformer.text_projection.weight.float().cpu(), torch.eye(128))
    tokens = clip.tokenize("a red ball")["l"]
    ids = [token for token, _ in tokens[0]]
    assert ids == [49406, *(KNOWN_WORDS[word] for word in ("a", "red", "ball")), *[49407] * 73]


def test_known_words_have_their_rows_and_others_share_one(clip, demo_files):
    table = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight.float().cpu()
    state, _ = demo_format.load(demo_files["image_text_encoder"], "image_text_encoder")
    known, rows = state["vocabulary"], state[demo_image.TOKEN_EMBEDDING]
    assert torch.equal(known, VOCABULARY)
    torch.testing.assert_close(table[known], rows[:-1], rtol=1e-3, atol=1e-4)
    others = torch.ones(49408, dtype=torch.bool)
    others[known] = False
    torch.testing.assert_close(table[others], rows[-1:].expand(int(others.sum()), -1), rtol=1e-3, atol=1e-4)


def test_the_word_list_of_these_tests(clip):
    found = {word: clip.tokenize(word)["l"][0][1][0] for word in KNOWN_WORDS}
    assert found == KNOWN_WORDS


def test_a_vocabulary_that_does_not_fit():
    rows = torch.zeros(4, 128)
    assert demo_image.expand_vocabulary("x", torch.tensor([1, 5, 9]), rows).shape == (49408, 128)
    for vocabulary in (torch.tensor([1, 5]), torch.tensor([1, 5, 49408]), torch.tensor([-1, 5, 9]), torch.zeros(0)):
        with pytest.raises(DemoFileError, match="vocabulary"):
            demo_image.expand_vocabulary("x", vocabulary, rows)


def test_the_vae_is_what_the_stock_loader_makes_of_the_file(demo_files):
    ours = demo_image.load_vae(demo_files["image_vae"])
    stock = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(demo_files["image_vae"])))
    assert type(ours) is type(stock) is comfy.sd.VAE
    assert type(ours.first_stage_model) is type(stock.first_stage_model)
    image = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    latent = ours.encode(image)
    assert latent.shape == (1, 4, 8, 12)
    assert torch.equal(latent, stock.encode(image))
    assert torch.equal(ours.decode(latent), stock.decode(latent))
    # What the UNet sees is what the encoder made.
    raw = ours.first_stage_model.taesd_encoder(image.movedim(-1, 1).to(ours.device, ours.vae_dtype))
    seen = comfy.latent_formats.SD15().process_in(latent)
    assert difference(raw, seen) < 0.02


@pytest.mark.parametrize("size", [(128, 128), (100, 160)])
def test_clip_vision(demo_files, size):
    vision = demo_vision.load_clip_vision(demo_files["image_clip_vision"])
    assert type(vision) is comfy.clip_vision.ClipVisionModel
    assert vision.image_size == 128
    images = torch.rand(2, *size, 3, generator=torch.Generator().manual_seed(0))
    output = vision.encode_image(images)
    assert output["image_embeds"].shape == (2, 128)
    assert output["last_hidden_state"].shape == output["penultimate_hidden_states"].shape == (2, 65, 128)
    trained = demo_vision.build_clip_vision()
    trained.load_state_dict(demo_format.load(demo_files["image_clip_vision"], "image_clip_vision")[0])
    pixels = comfy.clip_vision.clip_preprocess(images, size=128)
    assert difference(output["image_embeds"], trained(pixel_values=pixels)[2]) < 0.02


def controlnet_state(demo_files):
    unet, _ = demo_format.load(demo_files["image_unet"], "image_unet")
    control, _ = demo_format.load(demo_files["image_controlnet_lineart"], "image_controlnet_lineart")
    return control, unet


def test_an_untrained_controlnet_controls_nothing(demo_files):
    _, unet = controlnet_state(demo_files)
    state = demo_controlnet.initial_state(unet, seed=0)
    network = demo_controlnet.build_controlnet()
    weights = demo_controlnet.assemble(state, unet)
    network.load_state_dict(weights)
    assert all(torch.equal(weights[name], unet[name]) for name in weights if name in unet)
    latent, timesteps, context = unet_inputs()
    control = network(latent, torch.rand(2, 3, 128, 128), timesteps, context)
    assert len(control["output"]) == 12
    assert not any(value.any() for value in (*control["output"], *control["middle"]))


def test_the_controlnet_is_trained_through_what_loads_it(demo_files):
    state, unet = controlnet_state(demo_files)
    for value in state.values():
        value.requires_grad_()
    weights = demo_controlnet.assemble(state, unet)
    latent, timesteps, context = unet_inputs()
    hint = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    network = demo_controlnet.build_controlnet("meta")
    control = torch.func.functional_call(network, weights, (latent, hint, timesteps, context))
    sum(value.square().mean() for value in (*control["output"], *control["middle"])).backward()
    assert not [name for name, value in state.items() if value.grad is None or not value.grad.any()]


def test_the_controlnet_file_is_small(demo_files):
    state, unet = controlnet_state(demo_files)
    whole = sum(value.numel() for value in demo_controlnet.assemble(state, unet).values())
    assert sum(value.numel() for value in state.values()) < 0.4 * whole
    encoder = [
        name for name, value in unet.items() if value.ndim >= 2 and not name.startswith(("output_blocks", "out."))
    ]
    assert {name.removesuffix(".weight") for name in encoder} == {
        name.removesuffix(".lora_up") for name in state if name.endswith(".lora_up")
    }


def test_the_shipped_files_are_small():
    """What a clone of the repository has to carry."""
    files = list(FOLDER.glob("image_*.safetensors"))
    assert len(files) == 5
    assert sum(path.stat().st_size for path in files) <= 18_000_000
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors")) <= 44_000_000


def test_factors_of_another_network_are_refused(demo_files, tmp_path):
    state, unet = controlnet_state(demo_files)
    layer = next(name for name in state if name.endswith(".lora_up")).removesuffix(".lora_up")
    for broken in (
        {**state, "nothing.lora_up": torch.zeros(4, 8), "nothing.lora_down": torch.zeros(8, 4)},
        {**state, f"{layer}.lora_up": torch.zeros(3, 8)},
        {**state, f"{layer}.lora_down": torch.zeros(8, 3)},
        {**state, f"{layer}.lora_down": torch.zeros(7, state[f"{layer}.lora_down"].shape[1])},
        {name: value for name, value in state.items() if name != f"{layer}.lora_down"},
    ):
        with pytest.raises(ValueError, match="factors of"):
            demo_controlnet.assemble(broken, unet)
    path = tmp_path / "control.safetensors"
    for incomplete in (broken, {name: value for name, value in state.items() if not name.startswith("zero_convs.3")}):
        demo_format.save(path, incomplete, {"kind": "image_controlnet_lineart"})
        with pytest.raises(DemoFileError, match=r"control.safetensors.* fit"):
            demo_controlnet.load_controlnet(path, demo_files["image_unet"])


def test_the_controlnet_is_a_stock_one(demo_files):
    control = demo_controlnet.load_controlnet(demo_files["image_controlnet_lineart"], demo_files["image_unet"])
    assert type(control) is comfy.controlnet.ControlNet
    assert type(control.control_model) is comfy.cldm.cldm.ControlNet
    assert not control.control_model.training
    (patcher,) = control.get_models()
    assert type(patcher) is comfy.model_patcher.ModelPatcher
    assert patcher.load_device == comfy.model_management.get_torch_device()
    copy = control.copy()
    copy.set_cond_hint(torch.ones(1, 3, 128, 128), 0.5, (0.1, 0.9))
    assert copy.control_model is control.control_model
    assert (control.strength, control.cond_hint_original) == (1.0, None)


@pytest.mark.parametrize(
    ("kind", "load"),
    [
        ("image_unet", demo_image.load_model),
        ("image_text_encoder", demo_image.load_clip),
        ("image_vae", demo_image.load_vae),
        ("image_clip_vision", demo_vision.load_clip_vision),
    ],
)
def test_weights_of_another_network_are_refused(demo_files, tmp_path, kind, load):
    state, metadata = demo_format.load(demo_files[kind], kind)
    lost = next(name for name in state if name.endswith(".bias"))
    del state[lost]
    path = tmp_path / f"{kind}.safetensors"
    demo_format.save(path, state, metadata)
    with pytest.raises(DemoFileError, match=lost):
        load(path)
