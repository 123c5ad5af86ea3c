"""Features of pictures: what a hook of the test sees at that place, their shapes, batches, and what is refused."""

import comfy.model_management
import comfy.patcher_extension
import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from manga_models import apart, manga, noise_of, unet
from papernodes.patches.ic_light import KEY as IC_LIGHT
from papernodes.patches.picture_features import FeaturesError, check_inputs, feature_size, picture_features
from tiny_models import tiny_model

WIDTH = 128
"""Of the demonstration's text."""


def seen_by_hooks(model, latents):
    """What each self attention's norm in the decoder gives, in their order, of a call that the test makes."""
    network, found, hooks = model.model.diffusion_model, [], []
    comfy.model_management.load_models_gpu([model])
    for block in network.output_blocks:
        for module in block.modules():
            if isinstance(module, BasicTransformerBlock):
                hooks.append(module.norm1.register_forward_hook(lambda _, given, result: found.append(result.clone())))
    try:
        with torch.no_grad():
            place, dtype = model.load_device, model.model.get_dtype()
            zeros = torch.zeros(len(latents), 1, WIDTH, device=place, dtype=dtype)
            network(latents.to(place, dtype), torch.zeros(len(latents), device=place), context=zeros)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@pytest.mark.parametrize("size", [(128, 128), (64, 96), (72, 40), (56, 88), (8, 24)])
@pytest.mark.parametrize("batch", [1, 3])
def test_they_are_what_goes_into_the_last_self_attention_of_that_size(size, batch):
    model, latents = manga().reference, noise_of(1, batch, size)
    height, width = -(-size[0] // 16), -(-size[1] // 16)
    assert feature_size(size[0] // 8, size[1] // 8) == (height, width)
    found = picture_features(model, latents, WIDTH)
    assert found.shape == (batch, 96, height, width) and found.dtype == torch.float32
    assert torch.isfinite(found).all()
    wanted = [tokens for tokens in seen_by_hooks(model, latents) if tokens.shape[1:] == (height * width, 96)]
    assert len(wanted) > 1, "there are several of that size"
    assert apart(found, wanted[-1].float().transpose(1, 2).reshape(batch, 96, height, width)) < 1e-6
    assert apart(wanted[0], wanted[-1]) > 1e-2


def test_rows_run_down_and_columns_across():
    """What changes on the right of the latents changes most on the right of the features."""
    latents = noise_of(2, size=(64, 160))
    changed = latents.clone()
    changed[:, :, :3, -4:] += 1
    moved = (picture_features(unet(), changed, WIDTH) - picture_features(unet(), latents, WIDTH))[0].norm(dim=0)
    assert moved.shape == (4, 10)
    assert divmod(int(moved.argmax()), 10) in {(row, column) for row in (0, 1) for column in (8, 9)}


def test_a_batch_is_one_by_one():
    latents = noise_of(3, 4)
    together = picture_features(unet(), latents, WIDTH)
    for number in range(4):
        alone = picture_features(unet(), latents[number : number + 1], WIDTH)
        assert apart(alone, together[number : number + 1]) < 1e-4
    assert apart(together[:1], together[1:2]) > 0.1


def test_the_model_stays_as_it_was():
    model = unet().clone()
    calls = []

    def other(n, context, value, extra):
        calls.append(extra["block"])
        return n, context, value

    model.set_model_attn1_patch(other)
    before = {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}
    patches = model.model_options["transformer_options"]["patches"]
    latents = noise_of(4)
    kept = latents.clone()
    first = picture_features(model, latents, WIDTH)
    assert calls, "another patch of the MODEL is called"
    assert torch.equal(picture_features(model, latents, WIDTH), first), "twice in a row"
    assert torch.equal(picture_features(unet(), latents, WIDTH), first)
    assert patches == {"attn1_patch": [other]} and torch.equal(latents, kept)
    after = model.model.diffusion_model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert unet().model_options["transformer_options"].get("patches", {}) == {}


def test_a_patch_of_the_weights_counts():
    tuned = unet().clone()
    norms = {
        name: ("diff", (torch.ones(len(value)),))
        for name, value in unet().model.state_dict().items()
        if name.startswith("diffusion_model.output_blocks") and name.endswith("norm1.weight")
    }
    assert len(tuned.add_patches(norms, 0.5)) == len(norms) > 2
    plain = picture_features(unet(), noise_of(5), WIDTH)
    assert apart(picture_features(tuned, noise_of(5), WIDTH), plain) > 1e-2
    assert torch.equal(picture_features(unet(), noise_of(5), WIDTH), plain)


def test_a_unet_without_such_an_attention_is_refused():
    """That of one level has none at half of the size."""
    with pytest.raises(
        FeaturesError, match=r"'model' has no self attention at 1/2 of the latent's size in its decoder"
    ):
        picture_features(tiny_model("sd15"), torch.zeros(1, 4, 8, 8), 768)


def test_a_unet_that_sees_more_is_refused(monkeypatch):
    for model in (unet(), manga().reference, tiny_model("sd15")):
        check_inputs(model)
    monkeypatch.setitem(unet().model.model_config.unet_config, "in_channels", 9)
    with pytest.raises(
        FeaturesError, match=r"'model' sees 9 channels, as one for inpainting does; .* sees 4\. Connect"
    ):
        check_inputs(unet())
    monkeypatch.undo()
    lit = unet().clone()
    lit.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, IC_LIGHT, lambda *_: None)
    with pytest.raises(FeaturesError, match=r"'model' has IC-Light .*Connect the MODEL from before it"):
        check_inputs(lit)
