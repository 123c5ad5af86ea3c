"""MangaNinja Apply and Guider as the host runs them, on Demo Checkpoint and random weights, and what they refuse."""

import json

import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    BasicScheduler,
    Guider_DualCFG,
    KSamplerSelect,
    RandomNoise,
    SamplerCustomAdvanced,
)
from manga_models import apart, coloured, manga, points_of, spy_on_calls
from papernodes.kernels.matched_points import MatchedPoints, parse_points
from papernodes.nodes import manga_ninja as module
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.nodes.line_art import LineArt
from papernodes.nodes.manga_ninja import MangaNinjaApply, MangaNinjaGuider
from papernodes.patches.manga_ninja import KEY, MangaNinjaModelError, roles_of
from papernodes.patches.reference_attention import REFERENCE, WITH_POINTS
from tiny_models import tiny_model


@pytest.fixture(scope="module")
def demo():
    """Model, clip, vae, clip vision and ControlNet."""
    return DemoCheckpoint.execute("image").args


def picture(size=(64, 96), seed=0, batch=1):
    return torch.rand(batch, *size, 3, generator=torch.Generator().manual_seed(seed))


def seen(demo, image=None):
    return demo[3].encode_image(picture() if image is None else image)


def applied(demo, **changes):
    model, clip, vae, *_ = demo
    given = {
        "model": model, "manga_ninja": manga(), "vae": vae, "reference": picture(), "clip_vision_output": seen(demo),
        "clip": clip, **changes,
    }  # fmt: skip
    return MangaNinjaApply.execute(**given).args


def hint_of(batch=1):
    return LineArt.execute(picture(batch=batch, seed=9), "difference of Gaussians", False, "auto", 0.24, 1.0).args[1]


def drawn(demo, outputs, *, sampler="euler", scheduler="ddim_uniform", steps=2, size=(64, 96), batch=1, calls=None):
    """Through the stock sampling nodes."""
    model, *conditions = outputs
    (guider,) = MangaNinjaGuider.execute(
        model if calls is None else spy_on_calls(model, calls), *conditions, 9.0, 15.0
    ).args
    latent = {"samples": torch.zeros(batch, 4, size[0] // 8, size[1] // 8)}
    (noise,), (chosen,), (sigmas,) = (
        RandomNoise.execute(3).args, KSamplerSelect.execute(sampler).args,
        BasicScheduler.execute(model, scheduler, steps, 1.0).args,
    )  # fmt: skip
    return SamplerCustomAdvanced.execute(noise, guider, chosen, sigmas, latent).args[0]["samples"]


@pytest.mark.parametrize("sampler", ("euler", "dpmpp_2m", "ddim", "dpm_2_ancestral"))
def test_a_picture_is_coloured_with_any_sampler(demo, sampler):
    found = drawn(demo, applied(demo, points=points_of(0)), sampler=sampler, steps=4)
    assert found.shape == (1, 4, 8, 12) and torch.isfinite(found).all()
    other = drawn(demo, applied(demo, points=points_of(0), reference=picture(seed=1)), sampler=sampler, steps=4)
    off = drawn(demo, applied(demo, points=points_of(0), strength=0.0), sampler=sampler, steps=4)
    assert min(apart(found, other), apart(found, off)) > 1e-3
    assert torch.equal(drawn(demo, applied(demo, points=points_of(0)), sampler=sampler, steps=4), found)


def test_what_comes_out(demo):
    """c_img of the vision model, c_unc of the empty prompt's first token; the latent's mode, scaled, at timestep 0."""
    clip, vae = demo[1], demo[2]
    model, positive, middle, negative = applied(demo)
    embedding = seen(demo).image_embeds
    for conditioning, role in ((positive, WITH_POINTS), (middle, REFERENCE)):
        ((text, extra),) = conditioning
        assert torch.equal(text, embedding[:, None]) and roles_of(conditioning) == {role} and set(extra) == {KEY}
    ((text, extra),) = negative
    for prompt in ("", "a red cat"):
        scheduled = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0]
        assert apart(text, scheduled[:, :1]) < 1e-5, "the first token is the same whatever the prompt"
    assert extra == {} and model is not demo[0]
    handed = []
    hook = manga().reference.model.diffusion_model.register_forward_pre_hook(
        lambda _, given, named: handed.append((given, named)), with_kwargs=True
    )
    applied(demo)
    hook.remove()
    (((latents, times), named),) = handed
    torch.testing.assert_close(latents.float().cpu(), vae.encode(picture()) * 0.18215, atol=1e-4, rtol=1e-3)
    assert times.tolist() == [0.0] and torch.equal(named["context"].float().cpu(), embedding[:, None])


def test_sizes_batches_and_clips(demo):
    """Reference and target of other sizes, neither square nor multiples of 64; points of one frame or of each."""
    shown = picture((72, 40))
    for points, batch in ((points_of(0), 1), (points_of(0), 2), (points_of(0, 1, 2), 3), (None, 2)):
        outputs = applied(demo, reference=shown, clip_vision_output=seen(demo, shown), points=points)
        found = drawn(demo, outputs, size=(56, 88), batch=batch)
        assert found.shape == (batch, 4, 7, 11) and torch.isfinite(found).all()
    with pytest.raises(MangaNinjaModelError, match="'points' are of 3 frames and the latent holds 2"):
        drawn(demo, applied(demo, points=points_of(0, 1, 2)), batch=2)


def test_a_loras_weights_count_before_and_after(demo):
    plain = drawn(demo, applied(demo))
    lora = {"diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": ("diff", (torch.ones(48, 48),))}
    before = demo[0].clone()
    before.add_patches(lora, 0.05)
    one = drawn(demo, applied(demo, model=before))
    model, *conditions = applied(demo)
    model.add_patches(lora, 0.05)
    assert torch.equal(drawn(demo, (model, *conditions)), one) and apart(one, plain) > 1e-3
    assert torch.equal(drawn(demo, applied(demo)), plain)


@pytest.mark.parametrize("batch", (1, 3))
def test_one_controlnet_for_three_conditionings(demo, batch):
    """Apply's keeps a step's rows in one call of the networks; three stock Apply ControlNet nodes split them."""
    import nodes

    hint, calls = hint_of(batch), []
    plain = drawn(demo, applied(demo), batch=batch, calls=calls)
    assert calls == [[2, 1, 0]] * 2
    calls.clear()
    found = drawn(demo, applied(demo, control_net=demo[4], control_hint=hint), batch=batch, calls=calls)
    assert calls == [[2, 1, 0]] * 2, "one call a step"
    assert apart(found, plain) > 1e-3
    model, *conditions = applied(demo)
    stock = nodes.ControlNetApplyAdvanced()
    split = [stock.apply_controlnet(one, one, demo[4], hint, 1.0, 0.0, 1.0)[0] for one in conditions]
    calls.clear()
    other = drawn(demo, (model, *split), batch=batch, calls=calls)
    assert sorted(calls) == sorted([[0], [1], [2]] * 2), "three calls a step"
    assert apart(other, found) < 1e-4, "with the same result"
    assert demo[4].cond_hint_original is None, "the CONTROL_NET that came in is as it was"


def test_the_guider_is_the_hosts(demo):
    model, *conditions = applied(demo)
    (guider,) = MangaNinjaGuider.execute(model, *conditions, 9.0, 15.0).args
    assert type(guider) is Guider_DualCFG and guider.model_patcher is model
    assert (guider.cfg1, guider.cfg2, guider.nested) == (7.5, 5.0, False)
    assert set(guider.original_conds) == {"positive", "middle", "negative"}
    names = [one.id for one in MangaNinjaGuider.define_schema().inputs]
    assert names == ["model", "positive", "middle", "negative", "reference_scale", "point_scale"]
    defaults = [one.default for one in MangaNinjaGuider.define_schema().inputs[4:]]
    assert defaults == [9.0, 15.0]


def test_wrong_connections_to_the_guider(demo):
    model, positive, middle, negative = applied(demo)
    for given, said in (
        ((demo[0], positive, middle, negative, 9.0, 15.0), "'model' sees no reference. Connect the model output of"),
        ((model, middle, positive, negative, 9.0, 15.0), "'positive' is not what MangaNinja Apply gives as positive"),
        ((model, positive, negative, negative, 9.0, 15.0), "'middle' is not what MangaNinja Apply gives as middle"),
        ((model, positive, middle, middle, 9.0, 15.0), "'negative' is not what MangaNinja Apply gives as negative"),
        ((model, positive, middle, negative, 101.0, 15.0), r"'reference_scale' is 101\.0; expected a number from 0 to"),
        ((model, positive, middle, negative, 9.0, float("nan")), "'point_scale' is nan"),
    ):
        with pytest.raises(ValueError, match=said):
            MangaNinjaGuider.execute(*given)


class Seen:
    """A CLIP_VISION_OUTPUT."""

    def __init__(self, image_embeds=None):
        self.image_embeds = image_embeds


class Text:
    """A CLIP whose text is of some width."""

    def __init__(self, width):
        self.width = width

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, tokens):
        return torch.zeros(1, 77, self.width)


class Encoder:
    """A VAE with other latents."""

    def encode(self, image):
        return torch.zeros(1, 16, image.shape[1] // 8, image.shape[2] // 8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": picture(batch=2)}, "'reference' holds 2 pictures; expected one"),
        ({"reference": picture((60, 64))}, "'reference' is 64x60 pixels; both sides must be multiples of 8"),
        ({"reference": picture() * float("nan")}, "'reference' holds NaN"),
        ({"manga_ninja": "x"}, "'manga_ninja' holds a str; connect the output of MangaNinja Loader"),
        ({"points": "x"}, "'points' holds a str; connect the points output of Match Points"),
        ({"strength": 3.0}, r"'strength' is 3\.0"),
        ({"start_percent": 0.5, "end_percent": 0.2}, r"'end_percent' is 0\.2; expected a number from 0\.5 to 1"),
        ({"clip_vision_output": [[torch.zeros(1, 77, 128), {}]]}, "holds no embedding of an image .list.*text encoder"),
        ({"clip_vision_output": Seen()}, r"holds no embedding of an image .*clip_vision output of Demo Checkpoint"),
        ({"clip_vision_output": Seen(torch.randn(1, 1024))}, r"shape \[1, 1024\]; expected \[1, 128\]\. ViT-H is 1024"),
        ({"clip_vision_output": Seen(torch.randn(1, 16, 128))}, r"shape \[1, 16, 128\]"),
        ({"clip_vision_output": Seen(torch.randn(2, 128))}, "is of 2 pictures; expected the one that 'reference' is"),
        ({"clip_vision_output": Seen(torch.zeros(1, 128))}, "equal, NaN or infinite numbers.*a file of a text encoder"),
        ({"clip_vision_output": Seen(torch.full((1, 128), float("nan")))}, "equal, NaN or infinite numbers"),
        ({"clip": Text(2048)}, r"'clip' gives text of shape \[1, 77, 2048\]; .*SDXL's 2048.*clip output of Demo"),
        ({"clip": "x"}, "'clip' holds a str; expected a text encoder"),
        ({"vae": Encoder()}, r"'vae' gives latents of shape \[1, 16, 8, 12\]; expected \[1, 4, 8, 12\]"),
        ({"control_hint": picture()}, "'control_hint' is connected and 'control_net' is not"),
        ({"control_net": "x"}, "'control_net' is connected and 'control_hint' is not"),
        ({"control_net": "x", "control_hint": picture() - 0.5}, "'control_net' holds a str"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_computed(demo, changes, said, monkeypatch):
    monkeypatch.setattr(module, "reference_bank", lambda *_: pytest.fail("the reference UNet was run"))
    with pytest.raises(ValueError, match=said):
        applied(demo, **changes)


def test_bad_hints(demo):
    for hint, said in (
        (picture(), "'control_hint' goes from .* to .*; MangaNinja's ControlNet wants lines at 1 on a ground of -1"),
        ((hint_of() + 1) / 2, "Connect the control_hint output of Line Art, not line_art"),
        (picture() * 255 - 128, "goes from -12"),
    ):
        with pytest.raises(ValueError, match=said):
            applied(demo, control_net=demo[4], control_hint=hint)


def test_names_of_full_size(monkeypatch):
    """A person with SD1.5 is sent to the published files."""
    with pytest.raises(ValueError, match=r"expected \[1, 768\].*openai/clip-vit-large-patch14"):
        module.image_token(Seen(torch.randn(1, 1280)), 768)
    with pytest.raises(ValueError, match=r"expected \[1, tokens, 768\].*SD1\.5's text encoder .clip_l"):
        module.empty_prompt_token(Text(1024), 768)


@pytest.mark.parametrize("family", ("sdxl", "wan", "sd15"))
def test_another_models_family_is_refused(demo, family):
    with pytest.raises(MangaNinjaModelError, match=r"SDXL-class|no SD1\.5 UNet|does not fit 'model'"):
        applied(demo, model=tiny_model(family))
    with pytest.raises(MangaNinjaModelError, match="has MangaNinja already"):
        applied(demo, model=coloured())


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([{"reference": [1.2, 0.5], "target": [0.5, 0.5]}], "points: pair 1: its point in the reference: x"),
        ([{"reference": [0.5, 0.5]}], "points: pair 1 has a point in the reference and none in the target"),
        ([{"reference": [0.5, 0.5], "target": [0.5, 0.5]}] * 200, "there are 200 pairs of points; at most 100"),
    ],
)
def test_bad_points_do_not_get_here(pairs, said):
    with pytest.raises(ValueError, match=said):
        parse_points(json.dumps({"version": 1, "points": pairs}))


def test_points_at_the_border(demo):
    """The corners and a hundred pairs are drawn."""
    corners = [{"reference": [0.0, 0.0], "target": [1.0, 1.0]}, {"reference": [1.0, 1.0], "target": [0.0, 0.0]}]
    for pairs in (corners, corners * 50):
        points = parse_points(json.dumps({"version": 1, "points": pairs}))
        assert isinstance(points, MatchedPoints)
        assert torch.isfinite(drawn(demo, applied(demo, points=points))).all()
