"""MangaNinja on an SD1.5 in miniature: the laws of a patch, guidance, frames, what is kept, wrong models."""

import gc
import weakref

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import pytest
import torch
from manga_models import (
    SIZE,
    apart,
    bank_of,
    coloured,
    conditions_of,
    manga,
    noise_of,
    pairs_of,
    point_state,
    points_of,
    sample,
    spy_on_calls,
    text_of,
    unet,
)
from motion_models import motion
from papernodes.kernels.matched_points import MatchedPoints
from papernodes.networks.manga_ninja import MangaNinja, points_patcher, read_point_net
from papernodes.patches.frame_windows import Windows
from papernodes.patches.frames import with_motion
from papernodes.patches.manga_ninja import (
    KEY,
    MangaNinjaModelError,
    check_fit,
    dual_guidance,
    places_of,
    reference_bank,
    roles_of,
    tagged,
    with_reference,
)
from papernodes.patches.reference_attention import NO_REFERENCE, REFERENCE, WITH_POINTS
from papernodes.patches.regional import KeyBias, add_key_bias, with_key_bias
from tiny_models import tiny_model

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_strengths(seed):
    points = points_of(seed)
    off = sample(unet(), seed)
    assert torch.equal(sample(coloured(points=points, strength=0.0, seed=seed), seed), off)
    assert 0 < apart(sample(coloured(points=points, strength=1e-6, seed=seed), seed), off) < 1e-3
    on = coloured(points=points, seed=seed)
    first = sample(on, seed)
    assert torch.isfinite(first).all() and apart(first, off) > 0.05
    assert torch.equal(sample(on, seed), first), "a second run of the same"
    half = sample(coloured(points=points, strength=0.5, seed=seed), seed)
    assert apart(half, off) > 0.01 and apart(half, first) > 0.01
    assert torch.equal(sample(unet(), seed), off), "the MODEL that came in is as it was"


def test_a_part_of_the_sampling():
    on, off = sample(coloured(), steps=4), sample(unet(), steps=4)
    assert torch.equal(sample(coloured(start=1.0), steps=4), off)
    early, late = sample(coloured(end=0.5), steps=4), sample(coloured(start=0.5), steps=4)
    for one, other in ((early, on), (late, on), (early, off), (late, off), (early, late)):
        assert apart(one, other) > 1e-3


@pytest.mark.parametrize("batch", (1, 2))
def test_rows_together_and_apart(batch, monkeypatch):
    calls = []
    model = spy_on_calls(coloured(points=points_of(0)), calls)
    together = sample(model, batch=batch)
    assert calls == [[2, 1, 0]] * 2
    assert apart(sample(model, noise=noise_of(0, batch)[:1]), together[:1]) < 1e-4, "pictures do not see each other"
    calls.clear()
    monkeypatch.setattr(unet().model, "memory_required", lambda *_, **__: 1e30)
    assert apart(sample(model, batch=batch), together) < 1e-4
    assert sorted(calls) == sorted([[0], [1], [2]] * 2)


def test_guidance_is_that_of_the_paper():
    """(e1 + e2) / 2 with e1 = u + g_ref (r - u) and e2 = r + g_pt (p - r); at 9 and 15: -4 u - 2.5 r + 7.5 p."""
    assert dual_guidance(9.0, 15.0) == (7.5, 5.0)
    for g_ref, g_pt in ((9.0, 15.0), (7.0, 12.0), (1.0, 2.0), (0.0, 0.0)):
        points, reference = dual_guidance(g_ref, g_pt)
        shares = (1 - reference, reference - points, points)
        assert shares == ((1 - g_ref) / 2, (1 + g_ref - g_pt) / 2, g_pt / 2) and sum(shares) == pytest.approx(1)
        if (g_ref, g_pt) == (9.0, 15.0):
            assert shares == (-4.0, -2.5, 7.5)


@pytest.mark.parametrize(("scales", "shares"), [((9.0, 15.0), (-4.0, -2.5, 7.5)), ((1.0, 2.0), (0.0, 0.0, 1.0))])
def test_the_guider_puts_three_predictions_together(scales, shares):
    """One step to sigma 0 gives what the network predicts: of each condition alone, and of the three guided."""
    model, (positive, middle, negative) = coloured(points=points_of(0)), conditions_of()
    seeing = tagged(text_of(0), REFERENCE)  # a run wants one that does; its share is 0

    def alone(condition):
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(condition, seeing)
        guider.set_cfg(1.0)
        noise = noise_of(0)
        sigmas = torch.tensor([5.0, 0.0])
        return guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=0)

    u, r, p = (alone(condition) for condition in (negative, middle, positive))
    assert min(apart(u, r), apart(r, p)) > 0.01
    expected = shares[0] * u + shares[1] * r + shares[2] * p
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    guider = Guider_DualCFG(model)
    guider.set_conds(positive, middle, negative)
    guider.set_cfg(*dual_guidance(*scales))
    noise = noise_of(0)
    sigmas = torch.tensor([5.0, 0.0])
    found = guider.sample(noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, seed=0)
    assert apart(found, expected) < 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_points_count(seed):
    """No points are maps of zeros, which are not the same as a row without points; and other points are others."""
    rows = tagged(text_of(10 + seed), REFERENCE)
    without = sample(coloured(seed=seed), seed)
    as_reference = sample(coloured(seed=seed), seed, conditions=(rows, rows, text_of(500 + seed)))
    assert apart(without, as_reference) > 1e-3
    nothing = MatchedPoints((pairs_of(0, 0),))
    assert torch.equal(sample(coloured(points=nothing, seed=seed), seed), without)
    one, other = (sample(coloured(points=points_of(number), seed=seed), seed) for number in (0, 1))
    assert apart(one, other) > 1e-3 and apart(one, without) > 1e-3


def test_the_reference_counts():
    found = [sample(coloured(seed=seed), conditions=conditions_of(0)) for seed in SEEDS]
    for one, other in ((0, 1), (1, 2)):
        assert apart(found[one], found[other]) > 1e-3


def test_frames_have_points_of_their_own():
    frames = points_of(0, 1, 2)
    clip = sample(coloured(points=frames), batch=3)
    for number in range(3):
        noise = noise_of(0, 3)[number : number + 1]
        alone = sample(coloured(points=points_of(number)), noise=noise)
        assert apart(alone, clip[number : number + 1]) < 1e-4
    same = sample(coloured(points=points_of(0)), batch=3)
    assert apart(same[:1], clip[:1]) < 1e-4 and apart(same[1:], clip[1:]) > 1e-3
    # Two conditions of one role: their frames follow each other in a call.
    positive, middle, negative = conditions_of()
    twice = sample(coloured(points=frames), batch=3, conditions=(positive * 2, middle, negative))
    assert apart(twice, clip) < 1e-4


def test_frames_in_context_windows():
    """Each window sees its own frames' points; windows do not meet here, so each is a clip of its own."""
    model = with_motion(coloured(points=points_of(0, 1, 2, 3)), None, joint_norm=False, windows=Windows(2, 0))
    cut = sample(model, batch=4)
    whole = sample(coloured(points=points_of(0, 1, 2, 3)), batch=4)
    assert apart(cut, whole) < 1e-4


def test_the_reference_is_seen_once(monkeypatch):
    """The bank is made by one call of the reference UNet, and however long and often one samples, by no other."""
    network, calls = manga().reference.model.diffusion_model, []
    hook = network.register_forward_hook(lambda *_: calls.append(None))
    points, maps = manga().points.model, []
    other = points.register_forward_hook(lambda _, given, __: maps.append(tuple(given[0].shape)))
    try:
        bank = reference_bank(manga().reference, noise_of(100), text_of(10)[0][0])
        assert len(calls) == 1
        model = with_reference(unet(), bank, SIZE, manga().points, points_of(0, 1))
        first = sample(model, batch=2, steps=5)
        assert len(calls) == 1
        assert maps == [(1, 1, *SIZE)] * 4, "target and reference, two frames"
        assert torch.equal(sample(model, batch=2, steps=5), first)
        assert len(calls) == 1 and len(maps) == 8
    finally:
        hook.remove()
        other.remove()


def test_nothing_is_kept_on_the_device():
    model = coloured(points=points_of(0))
    held = model.get_wrappers(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY)
    (forget,) = model.get_all_callbacks(comfy.patcher_extension.CallbacksMP.ON_CLEANUP)
    state, seen = forget.__self__, []

    def spy(executor, *arguments, **rest):
        result = executor(*arguments, **rest)
        seen.extend(
            weakref.ref(level) for levels in state.held.values() if isinstance(levels, list) for level in levels
        )
        return result

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "spy", spy)
    sample(model)
    gc.collect()
    assert held and len(seen) == 2 * 2 * 4 and state.held == {} and state.sampled is None
    assert all(one() is None for one in seen), "P and R are gone"

    def fail(executor, *arguments, **rest):
        executor(*arguments, **rest)
        assert state.held
        raise RuntimeError("in the middle of a run")

    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "spy", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        sample(model)
    assert state.held == {}
    kept = comfy.model_management.intermediate_device()
    assert all(tokens.device == kept for tokens in state.bank.values())


def test_the_point_net_is_the_hosts_to_manage():
    model = coloured()
    (beside,) = model.clone().get_additional_models()
    assert beside.model is manga().points.model
    sample(model)
    assert beside.model in [loaded.model for loaded in comfy.model_management.loaded_models()]


def test_it_lives_beside_patches_of_other_kinds():
    alone, plain = sample(coloured(points=points_of(0))), sample(unet())
    lora = unet().clone()
    lora.add_patches({"diffusion_model.out.2.weight": ("diff", (torch.full((4, 48, 3, 3), 0.01),))}, 1.0)
    both = sample(coloured(lora, points_of(0)))
    assert apart(both, alone) > 1e-3 and apart(both, sample(lora)) > 1e-3
    after = coloured(points=points_of(0))
    after.add_patches({"diffusion_model.out.2.weight": ("diff", (torch.full((4, 48, 3, 3), 0.01),))}, 1.0)
    assert torch.equal(sample(after), both), "in either order"
    unbiased = tagged(text_of(3, 8), WITH_POINTS), tagged(text_of(4, 8), REFERENCE), text_of(5, 8)
    some = torch.cat((torch.full((4,), 3.0), torch.zeros(4)))
    biased = tuple([with_key_bias(one[0], KeyBias(some, torch.ones(8)))] for one in unbiased)
    one = sample(add_key_bias(coloured(points=points_of(0))), conditions=biased)
    other = sample(coloured(add_key_bias(unet()), points_of(0)), conditions=biased)
    assert torch.equal(one, other)
    assert apart(one, sample(coloured(points=points_of(0)), conditions=unbiased)) > 1e-3
    moving = sample(coloured(with_motion(unet(), motion()), points_of(0)), batch=3)
    assert apart(moving, sample(with_motion(coloured(points=points_of(0)), motion()), batch=3)) < 1e-5
    assert apart(moving, sample(coloured(points=points_of(0)), batch=3)) > 1e-3
    assert torch.equal(sample(unet()), plain)


def test_conditions_with_longer_texts():
    """A person's own negative prompt: the host repeats the shorter text, and each row keeps its role."""
    positive, middle, _ = conditions_of()
    calls = []
    found = sample(spy_on_calls(coloured(), calls), conditions=(positive, middle, text_of(7, 4)))
    assert calls == [[2, 1, 0]] * 2 and torch.isfinite(found).all()
    assert apart(found, sample(coloured())) > 1e-3


def test_tags():
    plain = text_of(0)
    seeing = tagged(plain, REFERENCE)
    assert plain[0][1] == {} and roles_of(plain) == {NO_REFERENCE}
    assert roles_of(seeing + tagged(plain, WITH_POINTS)) == {REFERENCE, WITH_POINTS}


def test_wrong_models():
    check_fit(unet(), manga())
    for other, said in (
        (coloured(), "has MangaNinja already. Connect the MODEL from before it"),
        (tiny_model("sdxl"), "SDXL-class UNet"),
        (tiny_model("wan"), r"is a WAN21, which is no SD1\.5 UNet"),
        (
            tiny_model("sd15"),
            "reference UNet does not fit 'model': has 16 self attentions, 48 to 96 wide, and text 128 wide, 'model' "
            "has 3 self attentions, 320 to 320 wide, and text 768 wide.*reference_unet in MangaNinja Loader, for Demo "
            "Checkpoint.*papernodes_demo_manga_ninja_reference",
        ),
    ):
        with pytest.raises(MangaNinjaModelError, match=said):
            check_fit(other, manga())
        with pytest.raises(MangaNinjaModelError):
            with_reference(other, bank_of(), SIZE, manga().points)
    wide = points_patcher(read_point_net("a", point_state(widths=(320, 640, 1280, 1280))))
    with pytest.raises(MangaNinjaModelError, match="stages are 320, 640, 1280 wide and the UNet's attentions 48, 96"):
        check_fit(unet(), MangaNinja(manga().reference, wide))
    sd2 = unet().clone()
    sd2.model = type("Base", (), {})()
    sd2.model.diffusion_model = unet().model.diffusion_model
    sd2.model.model_config = type("Config", (), {"unet_config": {"context_dim": 1024}})()
    with pytest.raises(MangaNinjaModelError, match="SD2-class UNet"):
        check_fit(sd2, manga())
    assert len(places_of(unet().model.diffusion_model)) == 16


def test_wrong_runs_are_refused_before_sampling():
    calls = []

    def refused(said, model, batch=1, conditions=None):
        with pytest.raises(MangaNinjaModelError, match=said):
            sample(spy_on_calls(model, calls), batch=batch, conditions=conditions)

    points = coloured(points=points_of(0, 1))
    refused("'points' are of 2 frames and the latent holds 3. Connect points of one picture", points, 3)
    refused("'points' are of 2 frames and the latent holds 1", points, 1)
    refused("No conditioning of this run says that it sees the reference", coloured(), 1, (text_of(0),) * 3)
    positive, middle, negative = conditions_of()
    area = [[positive[0][0], {**positive[0][1], "area": (8, 8, 0, 0), "strength": 1.0}]]
    refused("is set to an area of the picture", coloured(points=points_of(0)), 1, (area, middle, negative))
    assert not calls
    # Without points, areas and tiles are as good as the whole.
    assert torch.isfinite(sample(coloured(), conditions=(area, middle, negative))).all()


def test_tiles_have_no_points():
    """Another pack's calls of parts of the picture: an error with points, none without."""

    def tiles(executor, x, t, *arguments, **rest):
        return torch.cat([executor(part, t, *arguments, **rest) for part in x.split((8, 4), 3)], 3)

    for points in (None, points_of(0)):
        model = coloured(points=points)
        model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "tiles", tiles)
        order = model.wrappers[comfy.patcher_extension.WrappersMP.APPLY_MODEL]
        order[KEY] = order.pop(KEY)  # the tiles come first
        if points is None:
            assert torch.isfinite(sample(model)).all()
        else:
            with pytest.raises(MangaNinjaModelError, match="32x64 pixels after 64x64: the picture is sampled in tiles"):
                sample(model)
