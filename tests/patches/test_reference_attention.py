"""Attention to a reference against its closed form, block by block, by an attention written out in the test."""

import math

import comfy.model_management
import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from manga_models import (
    apart,
    coloured,
    manga,
    noise_of,
    point_state,
    points_of,
    sample,
    spy_on_calls,
    text_of,
    unet,
)
from papernodes.kernels.matched_points import MatchedPoints, point_maps
from papernodes.networks.point_net import KEYS
from papernodes.patches.manga_ninja import tagged
from papernodes.patches.reference_attention import (
    NO_REFERENCE,
    REFERENCE,
    ROLES,
    WITH_POINTS,
    ReferenceRows,
    keep_tokens,
    place_of,
)
from torch.nn import functional

ROW_ROLES = {0: NO_REFERENCE, 1: REFERENCE, 2: WITH_POINTS}
"""DualCFGGuider's conditions: negative, middle, positive."""


def blocks_of(model):
    return [module for module in model.model.diffusion_model.modules() if isinstance(module, BasicTransformerBlock)]


def watch(modules, found, hooks, *, first_only=False):
    """Keeps what modules give, in their order."""
    for number, module in enumerate(modules):

        def keep(_, given, result, number=number):
            if not (first_only and number in found):
                found[number] = result.detach().clone()

        hooks.append(module.register_forward_hook(keep))


def plain_points(maps, state):
    """MangaNinja's point net with torch's own convolutions."""
    found = []
    for number, key in enumerate(KEYS[::2]):
        bias = state[key.replace("weight", "bias")]
        maps = functional.silu(functional.conv2d(maps, state[key], bias, stride=2, padding=1))
        if number >= 2:
            found.append(maps.flatten(2).transpose(1, 2))
    return found


def attention_by_hand(block, query, key, value, bias=None):
    """Softmax of each head written out; one row."""
    layer, heads = block.attn1, block.n_heads
    split = lambda some: some.unflatten(-1, (heads, -1))  # noqa: E731
    q, k, v = split(layer.to_q(query)), split(layer.to_k(key)), split(layer.to_v(value))
    logits = torch.einsum("nhd,mhd->hnm", q, k) / math.sqrt(q.shape[-1])
    if bias is not None:
        logits = logits + bias
    weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return layer.to_out(torch.einsum("hnm,mhd->nhd", weights, v).flatten(1))


def seen_by(network, latents, context):
    """What the norms before a UNet's self attentions give, by hooks of the test."""
    found, hooks = {}, []
    comfy.model_management.load_models_gpu([network])
    watch([block.norm1 for block in blocks_of(network)], found, hooks)
    with torch.no_grad():
        network.model.diffusion_model(
            latents.to(network.load_device), torch.zeros(1, device=network.load_device),
            context=context.to(network.load_device), transformer_options={},
        )  # fmt: skip
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(
    ("reference_size", "target_size", "points", "strength", "batch"),
    [
        ((64, 96), (64, 96), points_of(0), 1.0, 1),
        ((64, 64), (96, 64), points_of(1), 1.0, 2),
        ((40, 72), (72, 56), points_of(2), 1.0, 1),  # levels of 9, 5, 3, 2 tokens a side: no halves
        ((64, 96), (64, 64), None, 1.0, 1),
        ((64, 64), (64, 64), points_of(0), 0.4, 1),
        ((64, 64), (64, 64), points_of(0), 1.7, 1),
        ((64, 96), (64, 64), points_of(3, 4, 5), 1.0, 3),
        ((64, 64), (64, 64), MatchedPoints((points_of(0).frames[0].only(torch.zeros(3, dtype=torch.bool)),)), 1.0, 1),
    ],
    ids=("as large", "batch", "odd sides", "no points", "weaker", "stronger", "points of frames", "no pairs"),
)
def test_every_self_attention_is_the_closed_form(reference_size, target_size, points, strength, batch):
    """All 16 blocks and all rows of a step: Q n or n + P, K [n; b] or [n + P; b + R], V [n; b], b and points not in row
    0; the bank's logits raised by ln(strength)."""
    calls, norms, results, hooks = [], {}, {}, []
    model = spy_on_calls(coloured(points=points, size=reference_size, strength=strength), calls)
    banks = seen_by(manga().reference, noise_of(100, size=reference_size), text_of(10)[0][0])
    blocks = blocks_of(unet())
    assert len(blocks) == len(banks) == 16
    watch([block.norm1 for block in blocks], norms, hooks, first_only=True)
    watch([block.attn1 for block in blocks], results, hooks, first_only=True)
    try:
        sample(model, batch=batch, noise=noise_of(0, batch, target_size), steps=1)
    finally:
        for hook in hooks:
            hook.remove()
    (rows,) = calls
    assert sorted(rows) == [0, 1, 2], "all three in one call"
    state = point_state()
    maps = [
        torch.zeros(1, 1, *size) if points is None else point_maps(points, side, *size)
        for side, size in (("target", target_size), ("reference", reference_size))
    ]
    target, reference = (plain_points(one, state) for one in maps)
    share = min(strength, 1.0)
    comfy.model_management.load_models_gpu([unet()])
    for number, block in enumerate(blocks):
        width, device = block.attn1.to_q.in_features, unet().load_device
        n, b = norms[number], banks[number][0].to(device)
        p, r = (
            next(one for one in some if one.shape[1:] == (tokens.shape[-2], width)).to(device) * share
            for some, tokens in ((target, n), (reference, b))
        )
        for row in range(n.shape[0]):
            role, frame = ROW_ROLES[rows[row // batch]], row % batch
            own = n[row]
            both = torch.cat((own, b))
            bias = torch.cat((torch.zeros(len(own)), torch.full((len(b),), math.log(strength)))).to(device)
            with torch.no_grad():
                if role == NO_REFERENCE:
                    expected = attention_by_hand(block, own, own, own)
                elif role == REFERENCE:
                    expected = attention_by_hand(block, own, both, both, bias)
                else:
                    one, other = (some[frame if len(some) > 1 else 0] for some in (p, r))
                    keys = torch.cat((own + one, b + other))
                    expected = attention_by_hand(block, own + one, keys, both, bias)
            found = results[number][row]
            assert apart(found, expected) < (1e-4 if device.type == "cpu" else 0.03), (number, role)


def test_a_bank_is_what_the_norms_see():
    found = {}
    model = manga().reference
    latents, context = noise_of(100), text_of(10)[0][0]
    expected = seen_by(model, latents, context)
    with torch.no_grad():
        model.model.diffusion_model(
            latents, torch.zeros(1), context=context, transformer_options=keep_tokens(found, {})
        )
    assert len(found) == 16 and len({place[0] for place in found}) == 3
    for tokens, other in zip(found.values(), expected.values(), strict=True):
        assert torch.equal(tokens, other)


def test_rows_without_reference_are_those_of_the_model_alone():
    """Whatever stands beside them in the batch."""
    alone = sample(unet(), conditions=(text_of(500),) * 3)
    mixed = (text_of(500), tagged(text_of(10), REFERENCE), text_of(500))
    # Scales for which what is left of the three is the first alone.
    assert apart(sample(coloured(), conditions=mixed, scales=(-1.0, 0.0)), alone) < 1e-5


def test_another_patch_may_put_tokens_behind():
    """Those get no points, and they come before the bank's; rows without reference keep them."""

    def more(n, context, value, extra):
        behind = torch.ones_like(context[:, :2])
        return n, torch.cat((context, behind), 1), torch.cat((value, behind), 1)

    shapes = []

    def override(function, q, k, v, heads, *arguments, **rest):
        shapes.append((q.shape[0], q.shape[1], k.shape[1]))
        return function(q, k, v, heads, *arguments, **rest)

    model = unet().clone()
    model.set_model_attn1_patch(more)
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    found = sample(coloured(model, points_of(0)), steps=1)
    assert torch.isfinite(found).all()
    assert apart(found, sample(coloured(points=points_of(0)), steps=1)) > 1e-3
    tokens = 8 * 12
    assert (2, tokens, tokens + 2 + tokens) in shapes and (1, tokens, tokens + 2) in shapes


@pytest.mark.parametrize("whole", (True, False))
def test_another_patch_may_stand_for_an_attention(whole):
    """A replacement that attends as the host does changes nothing, and sees the bank where it should alone."""
    from comfy.ldm.modules.attention import optimized_attention

    seen = []

    def attend(q, k, v, extra):
        seen.append((list(extra["cond_or_uncond"]), q.shape[1], k.shape[1]))
        return optimized_attention(q, k, v, extra["n_heads"])

    model = unet().clone()
    model.set_model_attn1_replace(attend, "output", 9, None if whole else 0)
    found = sample(coloured(model, points_of(0)), steps=1)
    assert seen == [([2, 1], 96, 192), ([0], 96, 96)]
    assert apart(found, sample(coloured(points=points_of(0)), steps=1)) < 1e-4
    seen.clear()
    sample(model, steps=1)
    assert seen == [([2, 1, 0], 96, 96)], "as it was"


def tokens(rows, length, width, seed=0):
    return torch.randn(rows, length, width, generator=torch.Generator().manual_seed(seed))


def test_each_row_may_have_a_bank_of_its_own():
    """As a batch of other pictures is trained: P, R and bank of the row's number; or as many as the role has rows."""
    place, n = ("input", 1, 0), tokens(4, 3, 2)
    roles = [NO_REFERENCE, REFERENCE, WITH_POINTS, WITH_POINTS]
    for count in (1, 2, 4):
        bank, p, r = (tokens(count, 3, 2, seed) for seed in (1, 2, 3))
        if count == 2:
            roles = [WITH_POINTS, WITH_POINTS, WITH_POINTS, WITH_POINTS]
        rows = ReferenceRows({place: bank}, roles, [p], [r])
        queries, keys, values = rows.patch(n, n, n, {"block": place[:2]})
        for row, role in enumerate(roles):
            of = row if count == 4 else row % count
            added = (p[of], r[of]) if role == WITH_POINTS else (0, 0)
            assert torch.equal(queries[row], n[row] + added[0])
            assert torch.equal(keys[row], torch.cat((n[row] + added[0], bank[of] + added[1])))
            assert torch.equal(values[row], torch.cat((n[row], bank[of])))
        roles = [NO_REFERENCE, REFERENCE, WITH_POINTS, WITH_POINTS]


def test_what_is_left_alone():
    """A place that the bank lacks, and a batch in which no row sees it: the very tensors."""
    n = tokens(2, 3, 2)
    bank = {("input", 1, 0): tokens(1, 3, 2)}
    for roles, block in (([REFERENCE, REFERENCE], ("input", 2)), ([NO_REFERENCE, NO_REFERENCE], ("input", 1))):
        found = ReferenceRows(bank, roles).patch(n, n, n, {"block": block, "block_index": 0})
        assert all(one is n for one in found)
    assert place_of({"block": ("middle", 0), "block_index": 2}) == ("middle", 0, 2)
    assert ROLES == (0, 1, 2)


def test_what_does_not_fit():
    place = ("input", 1, 0)
    extra, n = {"block": place[:2]}, tokens(3, 3, 2)
    bank = {place: tokens(1, 3, 2)}
    with pytest.raises(ValueError, match="sees 3 rows where 2 were told of"):
        ReferenceRows(bank, [1, 1]).patch(n, n, n, extra)
    with pytest.raises(ValueError, match="2 frames have reference or points of their own and 3 are drawn"):
        ReferenceRows({place: tokens(2, 3, 2)}, [1, 1, 1]).patch(n, n, n, extra)
    with pytest.raises(ValueError, match="have 4 x 2, 3 x 5 tokens and channels and the UNet's attention 3 x 2"):
        ReferenceRows(bank, [2, 2, 2], [tokens(1, 4, 2), tokens(1, 3, 5)]).patch(n, n, n, extra)
