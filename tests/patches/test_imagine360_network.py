"""Imagine360's two UNets in lock step, against the host's own UNet, a transcription, and closed forms."""

import copy
import dataclasses

import panorama_models as small
import pytest
import torch
import torch.nn.functional as F
from papernodes.networks.exchange import ExchangeBlock
from papernodes.networks.image_tokens import PositionTokens, TemporalProjection
from papernodes.networks.imagine360 import Imagine360Network, StepDraws
from papernodes.networks.panorama_branch import RowCrossAttention
from papernodes.patches.frames import joined

DRAWS = StepDraws((True, False, True, False, False, True, False), (torch.ones(8, 24) * 0.1, -torch.ones(8, 24) * 0.1))
OPTIONS = {"dtype": torch.float32, "device": "cpu"}


@pytest.fixture(scope="module")
def network():
    return small.network()


def gap(found, wanted) -> float:
    """The largest difference over the largest value."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True))


def without_exchange(network):
    """A copy whose exchange blocks add nothing."""
    quiet = copy.deepcopy(network)
    for block in quiet.exchange:
        for layer in (block.attn1.to_out[0], block.ff.net[2]):
            layer.weight.zero_()
            layer.bias.zero_()
    return quiet


def one_row(condition, row: int):
    return dataclasses.replace(
        condition,
        **{
            one.name: value[row : row + 1]
            for one in dataclasses.fields(condition)
            if torch.is_tensor(value := getattr(condition, one.name))
        },
    )


def test_it_computes_what_the_method_describes(network):
    from papernodes.benchmarks.published_imagine360 import PublishedImagine360

    exact = copy.deepcopy(network)
    exact.encoding = torch.float32
    for block in exact.exchange:
        block.bands.clamp_(max=4.0)  # beyond, rounding would be compared
    call = *small.inputs(1, 2, small.CAMERAS[:2], 2, 16), DRAWS
    wanted = PublishedImagine360(exact)(*call)
    assert gap(exact(*call), wanted) < 2e-5
    other = StepDraws((False,) * 7, DRAWS.token_noise), StepDraws(DRAWS.antipodal, DRAWS.token_noise[::-1])
    assert all(gap(exact(*call[:4], draws), wanted) > 1e-3 for draws in other)


def test_parts_rows_and_calls_give_one_result(network):
    latents, times, context, condition = small.inputs(2, 2, small.CAMERAS[:2], 2)
    held = copy.deepcopy((latents, condition.panorama, condition.views))
    wanted = network(latents, times, context, condition, DRAWS)
    assert [part.shape for part in wanted] == [part.shape for part in latents]
    assert gap(network(latents, times, context, condition, DRAWS), wanted) == 0
    chunked = copy.deepcopy(network)
    for limit in (20_000, 1000):  # the second takes one picture and a few places at a time
        chunked.limit = limit
        assert gap(chunked(latents, times, context, condition, DRAWS), wanted) < 2e-5
    for row in (0, 1):
        part = slice(row, row + 1)
        alone = network([x[part] for x in latents], times[part], context[part], one_row(condition, row), DRAWS)
        assert gap(alone, [x[part] for x in wanted]) < 2e-5
    for one, other in zip(held[0] + list(held[1:]), [*latents, condition.panorama, condition.views], strict=True):
        assert torch.equal(one, other)


def test_without_exchange_the_branches_are_two_networks(network):
    quiet = without_exchange(network)
    call, other = small.inputs(3), small.inputs(4)
    wanted = quiet(*call)
    mixed = dataclasses.replace(
        call[3],
        **{name: getattr(other[3], name) for name in ("views", "frame_features")},
    )
    seen = quiet([call[0][0], other[0][1]], *call[1:3], mixed)
    assert torch.equal(seen[0], wanted[0]) and gap(seen[1:], wanted[1:]) > 1e-2
    # With it each depends on the other.
    whole = network(*call)
    assert gap(network([call[0][0], other[0][1]], *call[1:3], mixed)[:1], whole[:1]) > 1e-3
    # And frames and views of one branch alone know each other only by motion and exchange.
    assert gap(whole, wanted) > 1e-2


def test_the_views_are_the_hosts_unet_with_motion():
    network = without_exchange(small.network(tokens=None, fps=False))
    latents, times, context, condition = small.inputs()
    found = network(latents, times, context, condition)[1]
    branch, frames = network.views, small.FRAMES
    pictures = torch.cat([latents[1], condition.views], 1).transpose(1, 2)[0]
    unet, count = copy.deepcopy(branch.unet), len(pictures)
    with joined(unet, frames, branch.motion, joint_norm=False):
        wanted = unet(pictures, times.expand(count), context.expand(count, -1, -1))
    assert gap([found[0].transpose(0, 1)], [wanted]) < 2e-5


def test_group_norms_of_the_panorama_count_the_wrapped_columns(network):
    call = small.inputs()
    width, seen, hooks = small.WIDTH, {}, []
    for name, branch in (("panorama", network.panorama), ("views", network.views)):
        unet = branch.unet
        for part, layer in (
            ("first", unet.input_blocks[0][0]),
            ("residual", unet.input_blocks[1][0].in_layers[0]),
            ("second", unet.input_blocks[1][0].out_layers[0]),
            ("attention", unet.input_blocks[1][1].norm),
            ("down", unet.input_blocks[3][0]),
            ("up", unet.output_blocks[8][2]),
            ("norm", unet.out[0]),
            ("last", unet.out[2]),
        ):

            def keep(_, given, result, key=(name, part)):
                seen.setdefault(key, (given[0], result))

            hooks.append(layer.register_forward_hook(keep))
    network(*call)
    for hook in hooks:
        hook.remove()
    wide = {"first": 2, "residual": 4, "second": 4, "attention": 0, "down": 4, "norm": 0, "last": 2}
    for part, more in wide.items():
        assert seen["panorama", part][0].shape[-1] == width + more, part
        assert seen["views", part][0].shape[-1] == small.SIDE, part
    assert seen["panorama", "up"][0].shape[-1] == width // 2 + 2
    columns = seen["panorama", "residual"][0]
    assert torch.equal(columns[..., :4], columns[..., -4:])
    # The closed form of the norm over all columns.
    norm = network.panorama.unet.input_blocks[1][0].in_layers[0]
    flat = columns.unflatten(1, (8, -1)).flatten(2)
    centred = (flat - flat.mean(2, keepdim=True)) / (flat.var(2, unbiased=False, keepdim=True) + norm.eps).sqrt()
    wanted = centred.view_as(columns) * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert torch.allclose(seen["panorama", "residual"][1], wanted, atol=1e-5)
    # Where there is nothing to normalise, edges are no places like others: the first convolution goes round.
    first = seen["panorama", "first"]
    layer = network.panorama.unet.input_blocks[0][0]
    turned = F.pad(first[0][..., 1:-1].roll(3, -1), (1, 1, 0, 0), mode="circular")
    assert torch.allclose(layer(turned)[..., 1:-1], first[1][..., 1:-1].roll(3, -1), atol=1e-5)


def test_no_motion_where_there_is_no_attention(network):
    places = network.panorama.motion.by_place()
    assert {(place.side, place.level) for place in places} == {
        ("down", 0), ("down", 1), ("down", 2), ("mid", 0), ("up", 1), ("up", 2), ("up", 3)
    }  # fmt: skip


def test_attention_to_text_and_image_tokens_is_scaled_by_the_heads_width():
    import comfy.ops

    options = OPTIONS | {"operations": comfy.ops.disable_weight_init}
    attention = small.fill(RowCrossAttention(16, 12, heads=2, dim_head=8, image=True, **options))
    generator = torch.Generator().manual_seed(0)
    x, context = torch.randn(6, 5, 16, generator=generator), torch.randn(2, 9, 12, generator=generator)
    found = attention(x, context, transformer_options={"papernodes_image_tokens": 4})
    wanted = []
    for number, picture in enumerate(x):
        seen, q = 0, attention.to_q(picture).view(5, 2, 8).transpose(0, 1)
        for part, key, value in (
            (context[number // 3, :5], attention.to_k, attention.to_v),
            (context[number // 3, 5:], attention.to_k_ip, attention.to_v_ip),
        ):
            k, v = (layer(part).view(-1, 2, 8).transpose(0, 1) for layer in (key, value))
            seen = seen + (q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v
        wanted.append(attention.to_out(seen.transpose(0, 1).flatten(1)))
    assert torch.allclose(found, torch.stack(wanted), atol=1e-5)


def test_image_tokens():
    import comfy.ops

    options = OPTIONS | {"operations": comfy.ops.disable_weight_init}
    sizes = small.token_sizes()
    projection = small.fill(TemporalProjection(sizes, **options))
    generator = torch.Generator().manual_seed(0)
    for frames, left in ((1, 1), (4, 1), (8, 1), (16, 1), (32, 2)):
        features = torch.randn(1, frames, small.FEATURES, 8, 8, generator=generator)
        assert projection(features).shape == (1, 4 * left, sizes.width)
    # Frames are not told their order: within what is averaged it does not count.
    features = torch.randn(2, 4, small.FEATURES, 8, 8, generator=generator)
    assert torch.allclose(projection(features), projection(features[:, [2, 0, 3, 1]]), atol=1e-5)
    position = small.fill(PositionTokens(sizes, **options))
    told = position(torch.arange(18.0).view(1, 3, 6), torch.tensor([[10.0, 20.0, 30.0]]), 8)
    assert told.shape == (1, 8, sizes.output)
    assert torch.equal(told[:, 3:], told[:, 2:3].expand(-1, 5, -1))
    again = position(torch.arange(18.0).view(1, 3, 6), torch.tensor([[10.0, 25.0, 30.0]]), 8) != told
    assert (
        again.any(0).any(0).nonzero().min() == sizes.position
        and again[0].any(1).tolist() == [False, True] + [False] * 6
    )


def test_the_exchange_uses_what_came_in():
    import comfy.ops

    block = small.fill(ExchangeBlock(64, **OPTIONS, operations=comfy.ops.disable_weight_init))
    generator = torch.Generator().manual_seed(0)
    panorama, views = (torch.randn(2, count, 64, generator=generator) for count in (12, 6))
    encodings = tuple(torch.randn(count, 64, generator=generator) for count in (12, 6))
    biases = torch.rand(12, 6, generator=generator), torch.rand(6, 12, generator=generator)
    found = block(panorama, views, encodings, biases, {})
    for result, x, other, place, other_place, bias in (
        (found[0], panorama, views, *encodings, biases[0]),
        (found[1], views, panorama, *reversed(encodings), biases[1]),
    ):
        own, attention = block.norm1(x + place), block.attn1
        seen = block.norm1(other + other_place)
        q, k, v = (
            layer(part).unflatten(2, (2, 32)).transpose(1, 2)
            for layer, part in ((attention.to_q, own), (attention.to_k, seen), (attention.to_v, seen))
        )
        weighed = (q @ k.transpose(2, 3) / 32**0.5 + bias).softmax(-1) @ v
        y = x + attention.to_out(weighed.transpose(1, 2).flatten(2))
        assert torch.allclose(result, y + block.ff(block.norm2(y)), atol=1e-4)
    with pytest.raises(ValueError, match="width: got 30"):
        ExchangeBlock(30, **OPTIONS, operations=comfy.ops.disable_weight_init)


def test_gradients_reach_every_weight():
    network = small.network(2).requires_grad_(True)
    sum(part.square().mean() for part in network(*small.inputs(1, frames=2), DRAWS)).backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    # One token, which a view of one place and a clip averaged to one frame have, is attended to whatever is asked.
    assert all(name.endswith(("attn1.to_q.weight", "attn1.to_k.weight", "attn.to_q.weight", "attn.to_k.weight"))
               for name in without)  # fmt: skip


def test_calls_that_cannot_be(network):
    latents, times, context, condition = small.inputs()
    call = times, context
    with pytest.raises(ValueError, match="for 2 cameras"):
        network(latents, *call, dataclasses.replace(condition, cameras=small.CAMERAS[:2]))
    with pytest.raises(ValueError, match="multiples of 8"):
        network([latents[0][..., :-2], latents[1]], *call, condition)
    with pytest.raises(ValueError, match="the condition has shape"):
        network(latents, *call, dataclasses.replace(condition, views=condition.views[..., :4]))
    with pytest.raises(ValueError, match="3 for 7 exchange"):
        network(latents, *call, condition, StepDraws((True,) * 3))
    with pytest.raises(ValueError, match="9 frames; the network knows 8"):
        network(*small.inputs(frames=9))
    with pytest.raises(ValueError, match="ControlNets"):
        network(latents, *call, condition, control={})
    assert Imagine360Network(small.sizes(motion={}, tokens=None), device="meta").most_frames > 1000
