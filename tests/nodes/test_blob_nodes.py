"""Blobs From Masks, To Masks, To Boxes and To GLIGEN as the host runs them."""

import json

import comfy.gligen
import comfy.model_management
import comfy.model_patcher
import comfy.sample
import pytest
import torch
from papernodes.kernels.blob_layout import Blob, BlobKey, BlobLayout, CaptionKey, Ellipse, parse_blobs
from papernodes.kernels.ellipses import distances
from papernodes.nodes.blob_results import BlobsToBoxes, BlobsToMasks
from papernodes.nodes.blobs_from_masks import BY_FRAME, BY_OBJECT, BlobsFromMasks
from papernodes.nodes.blobs_to_gligen import BlobsToGligen
from tiny_models import tiny_conditioning, tiny_model

WIDTH, HEIGHT = 96, 64


def a_layout(frames=1, *more):
    moving = Blob("m", "a red ball", Ellipse(0.3, 0.5, 0.2, 0.1, 30), keys=(
        BlobKey(0, Ellipse(0.3, 0.5, 0.2, 0.1, 30)), BlobKey(1, Ellipse(0.6, 0.5, 0.2, 0.1, 30), there=False),
    )[:frames], captions=(CaptionKey(0, "a red ball"), CaptionKey(1, "a blue ball"))[:frames])  # fmt: skip
    still = Blob("s", "a cube", Ellipse(0.5, 0.6, 0.3, 0.3))
    return BlobLayout((still, moving, *more), WIDTH, HEIGHT, frames)


def hard_masks(layout):
    """[frames, blobs, H, W]"""
    drawn = (distances(layout.geometry().float(), layout.height, layout.width) <= 1).float()
    return drawn * layout.presence()[..., None, None]


@pytest.mark.parametrize("order", [BY_FRAME, BY_OBJECT])
def test_masks_become_blobs(order):
    wanted = a_layout(3)
    masks = hard_masks(wanted)
    given = (masks if order == BY_FRAME else masks.transpose(0, 1)).flatten(0, 1)
    blobs, log, layout = BlobsFromMasks.execute(given, "a cube \n a ball\n\n", 3, order, True).result
    assert [blob.caption for blob in blobs.blobs] == ["a cube", "a ball"]
    assert (blobs.width, blobs.height, blobs.frames) == (WIDTH, HEIGHT, 3)
    assert torch.equal(blobs.presence(), wanted.presence())
    assert [[key.there for key in blob.keys] for blob in blobs.blobs] == [[True] * 3, [True, False, False]]
    there = wanted.presence()
    off = (blobs.geometry() - wanted.geometry())[there]
    assert float(off[:, :2].abs().max()) < 0.01
    found = hard_masks(blobs)
    assert float((found * masks).sum() / torch.maximum(found, masks).sum()) > 0.95
    assert "in 2 of 3 frames it is not there" in log.splitlines()[1]
    assert parse_blobs(layout, WIDTH, HEIGHT, 3) == blobs


def test_a_picture_an_empty_mask_and_a_single_pixel():
    masks = torch.zeros(3, 900, 40)
    masks[1, 7, 9] = 1
    masks[2, 100:700, 10:30] = 1
    for refine in (False, True):
        blobs, log, layout = BlobsFromMasks.execute(masks, "nothing\na dot\na bar", 1, BY_FRAME, refine).result
        assert [blob.there for blob in blobs.blobs] == [False, True, True]
        assert not any(blob.keys for blob in blobs.blobs)
        assert parse_blobs(layout, 40, 900, 1) == blobs  # a pixel's half axes are as short as can be written
        assert "1 (nothing): the mask is empty, so it is not in the picture." in log
        assert "3 (a bar): ellipse and mask overlap by 0." in log
    flat = BlobsFromMasks.execute(masks[2], "a bar", 1, BY_FRAME, True).result[0]
    assert flat.blobs[0].ellipse == blobs.blobs[2].ellipse


@pytest.mark.parametrize(("masks", "captions", "frames", "words"), [
    (torch.ones(6, 8, 8), "a", 4, "holds 6 masks, which 'frames' 4 does not divide.*one of 1, 2, 3, 6"),
    (torch.ones(6, 8, 8), "a", 3, "'captions' has 1 line and 'masks' 2 objects a frame"),
    (torch.ones(2, 8, 8), "a\nb\nc", 1, "'captions' has 3 lines and 'masks' 2 objects a frame"),
    (torch.ones(1, 8, 8), "", 1, "'captions' has 0 lines and 'masks' 1 object a frame"),
    (torch.ones(101, 2, 2), "a", 1, "holds 101 objects in each of 1 frames; at most 100"),
    (torch.ones(1, 8, 8, 3), "a", 1, r"'masks' has shape \[1, 8, 8, 3\]"),
    (torch.ones(0, 8, 8), "a", 1, r"'masks' has shape \[0, 8, 8\]"),
    (torch.full((1, 8, 8), torch.nan), "a", 1, "'masks' holds NaN"),
    (torch.ones(1, 8, 8), "a", 0, "'frames' is 0"),
])  # fmt: skip
def test_masks_that_do_not_fit(masks, captions, frames, words):
    with pytest.raises(ValueError, match=words):
        BlobsFromMasks.execute(masks, captions, frames, BY_FRAME, False)
    with pytest.raises(ValueError, match="'order' is 'x'"):
        BlobsFromMasks.execute(torch.ones(1, 8, 8), "a", 1, "x", False)


def test_blobs_become_masks():
    layout = a_layout(2)
    hard = BlobsToMasks.execute(layout, "hard", -1, 0, 0).result[0]
    assert torch.equal(hard, hard_masks(layout).flatten(0, 1))
    assert float(hard[3].max()) == 0.0  # not there
    second = BlobsToMasks.execute(layout, "hard", 1, 0, 0).result[0]
    assert torch.equal(second, hard[2:])
    soft = BlobsToMasks.execute(layout, "soft", 0, 48, 32).result[0]
    assert soft.shape == (2, 32, 48)
    assert 0 < float(soft.mean()) < 1
    over = BlobsToMasks.execute(layout, "composited", 0, 48, 32).result[0]
    assert torch.equal(over[1], soft[1])
    torch.testing.assert_close(over[0], soft[0] * (1 - soft[1]))
    assert float(over.sum(0).max()) <= 1 + 1e-6
    round_trip = BlobsFromMasks.execute(hard, "a cube\na ball", 2, BY_FRAME, False).result[0]
    assert float((round_trip.geometry() - layout.geometry())[0, :, :2].abs().max()) < 0.01


def test_blobs_become_boxes():
    layout = a_layout(2, Blob("o", "outside", Ellipse(2.0, 0.5)), Blob("c", "cut", Ellipse(0.0, 0.5, 0.3, 0.25)))
    content = json.loads(BlobsToBoxes.execute(layout, True, -1, 0, 0).result[0])
    assert (content["version"], content["width"], content["height"]) == (1, WIDTH, HEIGHT)
    first, second = content["frames"]
    assert [box["id"] for box in first["boxes"]] == ["s", "m", "c"]
    assert [(box["blob"], box["caption"]) for box in second["boxes"]] == [(1, "a cube"), (4, "cut")]
    assert first["boxes"][0]["pixels"] == [28.8, 19.2, 67.2, 57.6]
    assert first["boxes"][0]["normalised"] == [0.3, 0.3, 0.7, 0.9]
    assert first["boxes"][2]["normalised"] == [0.0, 0.25, 0.2, 0.75]
    mask = hard_masks(layout)[0, 1]
    left, top, right, bottom = first["boxes"][1]["pixels"]
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    for edge, pixel in ((left, columns[0]), (right, columns[-1] + 1), (top, rows[0]), (bottom, rows[-1] + 1)):
        assert abs(edge - int(pixel)) < 1.0
    (whole,) = json.loads(BlobsToBoxes.execute(layout, False, 0, 960, 640).result[0])["frames"]
    assert [box["id"] for box in whole["boxes"]] == ["s", "m", "o", "c"]
    assert whole["boxes"][3]["normalised"] == [-0.2, 0.25, 0.2, 0.75]
    assert whole["boxes"][0]["pixels"] == [288.0, 192.0, 672.0, 576.0]


def test_what_masks_and_boxes_refuse():
    empty = BlobLayout((), 64, 64)
    assert json.loads(BlobsToBoxes.execute(empty, True, -1, 0, 0).result[0])["frames"] == [{"frame": 0, "boxes": []}]
    for call, words in (
        (lambda: BlobsToMasks.execute(empty, "hard", -1, 0, 0), "'blobs' has no blobs"),
        (lambda: BlobsToMasks.execute(a_layout(), "hard", 1, 0, 0), "'frame' is 1, but the layout has 1 frame; expec"),
        (lambda: BlobsToMasks.execute(a_layout(), "round", 0, 0, 0), "'kind' is 'round'"),
        (lambda: BlobsToMasks.execute(a_layout(), "hard", 0, -5, 0), "'width' is -5"),
        (lambda: BlobsToMasks.execute(a_layout(900), "hard", -1, 4096, 4096), "more than 16 GiB"),
        (lambda: BlobsToMasks.execute("blobs", "hard", 0, 0, 0), "'blobs' holds a str; connect the blobs output"),
        (lambda: BlobsToBoxes.execute(a_layout(), True, -2, 0, 0), "'frame' is -2"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


class Clip:
    """Stands in for a CLIP: a caption's embedding is made of its letters."""

    def __init__(self):
        self.read = []

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, text, return_pooled):
        assert return_pooled == "unprojected"
        self.read.append(text)
        generator = torch.Generator().manual_seed(sum(map(ord, text)))
        return None, torch.randn(1, 768, generator=generator)


def tiny_gligen(places=2):
    """Random weights as the stock loader reads them, for the tiny SD1.5."""
    gated = comfy.gligen.GatedSelfAttentionDense(320, 768, 8, 40)
    net = comfy.gligen.PositionNet(768, 768)
    weights = {f"position_net.{key}": value for key, value in net.state_dict().items()}
    for place in ("input_blocks.1", "output_blocks.0", "output_blocks.1")[: places + 1]:
        for key, value in gated.state_dict().items():
            weights[f"{place}.1.transformer_blocks.0.fuser.{key}"] = value
    generator = torch.Generator().manual_seed(1)
    weights = {key: torch.randn(value.shape, generator=generator) * 0.3 for key, value in weights.items()}
    device = comfy.model_management.unet_offload_device()
    model = comfy.gligen.load_gligen(weights)
    return comfy.model_patcher.ModelPatcher(model, load_device=comfy.model_management.get_torch_device(),
                                            offload_device=device)  # fmt: skip


def test_gligen_is_given_what_the_stock_node_would_give(host_path):
    import importlib.util

    found = importlib.util.spec_from_file_location("host_nodes", host_path / "nodes.py")
    stock = importlib.util.module_from_spec(found)
    found.loader.exec_module(stock)
    layout = BlobLayout((
        Blob("1", "a cube", Ellipse(0.5, 0.5, 0.25, 0.25)),
        Blob("2", "", Ellipse(0.5, 0.5)),
        Blob("3", "outside", Ellipse(-1.0, 0.5)),
        Blob("4", "cut", Ellipse(1.0, 0.0, 0.5, 0.25)),
        Blob("5", "a cube", Ellipse(0.25, 0.75, 0.001, 0.001)),
        Blob("6", "away", Ellipse(0.5, 0.5), there=False),
        Blob("7", "unwanted", Ellipse(0.5, 0.5), weight=0.0),
    ), 128, 128)  # fmt: skip
    clip, gligen = Clip(), tiny_gligen()
    given = [*tiny_conditioning("sd15"), *tiny_conditioning("sd15", seed=1)]
    result, log = BlobsToGligen.execute(given, clip, gligen, layout, 0, 0, 0).result
    wanted = given
    for text, x, y, width, height in (("a cube", 32, 32, 64, 64), ("cut", 64, 0, 64, 32), ("a cube", 32, 96, 8, 8)):
        (wanted,) = stock.GLIGENTextBoxApply().append(wanted, Clip(), gligen, text, width, height, x, y)
    assert len(result) == len(wanted) == 2
    for (ours, options), (theirs, others) in zip(result, wanted, strict=True):
        assert ours is theirs
        assert options["gligen"][:2] == others["gligen"][:2] == ("position", gligen)
        for one, other in zip(options["gligen"][2], others["gligen"][2], strict=True):
            assert torch.equal(one[0], other[0])
            assert one[1:] == other[1:]
    assert clip.read == ["a cube", "cut"]  # each caption once
    assert all("gligen" not in options for _, options in given)
    for words in ("1 (a cube): x 32, y 32, width 64, height 64.", "2 (no caption): left out, because it has no caption",
                  "because it is outside the picture", "because it is not in frame 0",
                  "because its weight is 0"):  # fmt: skip
        assert words in log

    def sampled(positive):
        noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        return comfy.sample.sample(tiny_model("sd15").clone(), noise, 1, 3.0, "euler", "normal", positive,
                                   tiny_conditioning("sd15", seed=2), torch.zeros_like(noise), seed=0)  # fmt: skip

    ours, theirs, plain = sampled(result[:1]), sampled(wanted[:1]), sampled(given[:1])
    assert torch.equal(ours, theirs)
    assert float((ours - plain).abs().max()) > 1e-3
    chained = BlobsToGligen.execute(result, clip, gligen, layout, 0, 0, 0).result[0]
    assert len(chained[0][1]["gligen"][2]) == 6
    nothing = BlobLayout((Blob("1", ""),), 128, 128)
    assert BlobsToGligen.execute(given, clip, gligen, nothing, 0, 0, 0).result[0] is given

    many = BlobLayout(tuple(Blob(str(n), "a") for n in range(28)), 64, 64)
    assert len(BlobsToGligen.execute(given, clip, gligen, many, 0, 0, 0).result[0][0][1]["gligen"][2]) == 28
    for call, words in (
        (
            lambda: BlobsToGligen.execute(result, clip, gligen, many, 0, 0, 0),
            "28 blobs .* brings 3 boxes; GLIGEN knows at",
        ),
        (lambda: BlobsToGligen.execute(given, clip, gligen, many, 1, 0, 0), "'frame' is 1, but the layout has 1 frame"),
        (lambda: BlobsToGligen.execute(given, None, gligen, many, 0, 0, 0), "'clip' holds nothing"),
        (lambda: BlobsToGligen.execute(given, clip, gligen, None, 0, 0, 0), "'blobs' holds a NoneType"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
