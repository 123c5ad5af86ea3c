"""Apply Blobs and Blob Text Schedule as nodes: what reaches the conditioning, and every error before sampling."""

import functools

import comfy.sample
import pytest
import torch
from pack import nodes
from papernodes.kernels.blob_layout import Blob, BlobLayout, CaptionKey, Ellipse
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.patches.blob_captions import SCHEDULED, between_anchors, encode_captions, frame_texts, slerp
from papernodes.patches.blobs import KEY
from tiny_models import tiny_model

DEFAULTS = {
    "strength": 1.0,
    "start_percent": 0.0,
    "end_percent": 1.0,
    "rules": "masked",
    "self_attention": False,
    "first_blocks": 10,
    "self_end": 0.3,
}
BALL, CAT = "a happy red plain ball", "a teal striped cat with a hat"
ANCHORS = (CaptionKey(0, BALL), CaptionKey(8, CAT))


@functools.cache
def checkpoint(kind):
    return DemoCheckpoint.execute(kind).args[:3]


def layout(*blobs, frames=1):
    return BlobLayout(blobs or (Blob("1", BALL, Ellipse(0.3)), Blob("2", CAT, Ellipse(0.7))), 128, 128, frames)


def encode(clip, text):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def apply(blobs=None, kind="image", positive=None, **changes):
    model, clip, _ = checkpoint(kind)
    positive = encode(clip, f"{BALL} and {CAT} in the snow") if positive is None else positive
    given = {**DEFAULTS, "blobs": layout() if blobs is None else blobs, "model": model, "clip": clip, **changes}
    return nodes()["PaperNodes_ApplyBlobs"].execute(positive=positive, **given).args


def test_captions_stand_behind_the_prompt():
    model, clip, _ = checkpoint("image")
    plain = encode(clip, f"{BALL} and {CAT} in the snow")
    _, positive = apply(positive=plain)
    ((text, options),) = positive
    assert torch.equal(text[:, :77], plain[0][0]) and text.shape == (1, 154, 128)  # as long as two prompts
    pieces = options[KEY].pieces
    assert [len(piece.rows) for piece in pieces] == [7, 9]  # begin, words, end
    assert torch.equal(text[0, pieces[1].rows.start : pieces[1].rows.stop], encode(clip, CAT)[0][0][0, :9])
    assert KEY not in plain[0][1] and options["pooled_output"] is plain[0][1]["pooled_output"]
    assert apply(strength=0.0, positive=plain)[1] is plain and apply(strength=0.0)[0] is model
    assert apply(BlobLayout((), 64, 64), positive=plain) == (model, plain)
    both = apply(positive=plain, start_percent=0.2, end_percent=0.6)[1]
    assert [(one[1]["start_percent"], one[1]["end_percent"], KEY in one[1]) for one in both] == [
        (0.2, 0.6, True), (0.0, 0.2, False), (0.6, 1.0, False)]  # fmt: skip
    without = apply(positive=plain, rules="none", self_attention=True)[1]
    assert torch.equal(without[0][0], plain[0][0]) and without[0][1][KEY].pieces[0].states.shape == (7, 128)


def sample(model, positive, negative, *, frames=1, steps=6):
    latent = torch.zeros(frames, 4, 16, 16)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)).expand_as(latent)
    return comfy.sample.sample(model, noise, steps, 3.0, "euler", "normal", positive, negative, latent, seed=0)


def test_a_blob_is_drawn_where_it_stands():
    """The red ball and the teal cat change places with their ellipses; the noise is the same."""
    _, clip, vae = checkpoint("image")
    negative, found = encode(clip, ""), {}
    for name, x in (("left", 0.27), ("right", 0.73)):
        blobs = layout(Blob("1", BALL, Ellipse(x, 0.5, 0.2, 0.2)), Blob("2", CAT, Ellipse(1 - x, 0.5, 0.2, 0.2)))
        model, positive = apply(blobs)
        picture = vae.decode(sample(model, positive, negative, steps=12))[0]
        found[name] = (picture[..., 0] - picture[..., 2]).clamp(min=0)  # red against blue
    halves = {name: (red[:, :64].mean(), red[:, 64:].mean()) for name, red in found.items()}
    assert halves["left"][0] > 1.5 * halves["left"][1]
    assert halves["right"][1] > 1.5 * halves["right"][0]


def test_blob_text_schedule():
    model, clip, _ = checkpoint("image")
    blobs = layout(Blob("1", BALL, captions=ANCHORS), Blob("2", "a blue star"), Blob("3", ""), frames=12)
    node = nodes()["PaperNodes_BlobTextSchedule"]
    ((text, options),) = node.execute(clip, blobs, "slerp", "linear", 2).args[0]
    first, second, third = options[SCHEDULED]
    assert [frame for frame, _ in first] == [0, 2, 4, 6, 8] and len(second) == 1 and third == ()
    assert {states.shape for _, states in first} == {(9, 128)}
    assert torch.equal(first[0][1], encode(clip, BALL)[0][0][0, :9]) and torch.equal(
        first[-1][1], encode(clip, CAT)[0][0][0, :9]
    )
    assert text.shape == (12, 9 + second[0][1].shape[0], 128)
    assert torch.equal(text[3, :9], first[1][1]) and torch.equal(text[11, :9], first[4][1])
    _, positive = apply(blobs, schedule=[[text, options]])
    assert len(positive[0][1][KEY].pieces) == 6
    steady = apply(blobs)[1][0][1][KEY].pieces
    assert [len(piece.rows) for piece in steady[:2]] == [7, 9] and steady[0].weights.sum() == 8
    # By itself: a text for each picture of a batch.
    latents = sample(model, [[text, options]], encode(clip, ""), frames=12, steps=1)
    assert latents.isfinite().all() and not torch.equal(latents[0], latents[8])
    with pytest.raises(ValueError, match="'schedule' has the captions of 3 blobs and 'blobs' holds 2"):
        apply(schedule=[[text, options]])
    with pytest.raises(ValueError, match="'schedule' is not from Blob Text Schedule"):
        apply(schedule=encode(clip, ""))
    with pytest.raises(ValueError, match="'blobs' has no captions; write in Blob Layout"):
        node.execute(clip, layout(Blob("1", "")), "lerp", "ease", 1)


def test_between_captions():
    one, other = torch.eye(4)[:1], torch.eye(4)[1:2]
    middle = slerp(one, other, torch.tensor(0.5))
    assert torch.allclose(middle.norm(), torch.tensor(1.0)) and torch.allclose(
        middle[0, :2], torch.full((2,), 0.5**0.5)
    )
    assert torch.allclose(slerp(one, other, torch.tensor(0.0)), one, atol=1e-6)
    assert torch.allclose(slerp(one, other, torch.tensor(1.0)), other, atol=1e-6)
    assert torch.equal(slerp(one, 3 * one, torch.tensor(0.5)), 2 * one)  # no arc: a line
    assert slerp(one, -one, torch.tensor(0.5)).isfinite().all()
    anchors = ((0, one), (4, other))
    straight = between_anchors(anchors, 6, interpolation="lerp")
    assert [frame for frame, _ in straight] == [0, 1, 2, 3, 4]
    assert torch.allclose(straight[1][1], torch.lerp(one, other, 0.25))
    eased = between_anchors(anchors, 6, interpolation="lerp", way="ease-in", every=2)
    assert torch.allclose(eased[1][1], torch.lerp(one, other, 0.25)) and len(eased) == 3
    assert frame_texts([straight, ()], 6)[5].equal(other)


def test_captions_of_other_encoders():
    """Wan's CLIP in miniature is one of the CLIP kind; of an encoder that is not known, all rows are kept."""
    _, clip, _ = checkpoint("video")
    assert encode_captions(clip, layout())[0][0][1].shape == (7, 4096)

    class Unknown:
        def tokenize(self, text, **_):
            return {"qwen25_7b": [[(1, 1.0)] * (len(text.split()) + 2)]}

        def encode_from_tokens_scheduled(self, tokens):
            return [[torch.zeros(1, len(tokens["qwen25_7b"][0]), 16), {}]]

    assert encode_captions(Unknown(), layout())[0][0][1].shape == (7, 16)


def test_errors_come_before_sampling():
    _, clip, _ = checkpoint("image")
    plain, wide = encode(clip, BALL), encode(checkpoint("video")[1], "")
    _, done = apply()
    many, joint = layout(*(Blob(str(k), BALL) for k in range(61))), tiny_model("sd3")
    for message, changes in (
        ("'strength' is 1.5; expected a number from 0 to 1", {"strength": 1.5}),
        ("'rules' is 'boxes'; expected one of: masked, 3dis, none", {"rules": "boxes"}),
        ("the end must come later", {"start_percent": 0.5, "end_percent": 0.5}),
        ("'blobs' holds a dict; connect the blobs output of Blob Layout", {"blobs": {}}),
        ("'positive' has blobs already", {"positive": done}),
        ("'positive' is empty", {"positive": []}),
        ("holds 61 blobs; this model's attention can tell at most 60 apart", {"blobs": many}),
        ("holds 61 blobs; this model's attention can tell at most 28 apart", {"blobs": many, "model": joint}),
        ("'blobs' has no captions; write what each blob is", {"blobs": layout(Blob("1", " "))}),
        ("'positive' holds 2 texts in one", {"positive": [[plain[0][0].repeat(2, 1, 1), {}]]}),
        ("'clip' gives 128 numbers for each token and 'positive' has 4096", {"positive": wide}),
        ("at most 4096 can be seen", {"blobs": layout(*(Blob(str(k), "red " * 900) for k in range(6)))}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            apply(**changes)

    class Other:
        def get_model_object(self, _):
            return torch.nn.Identity()

    with pytest.raises(ValueError, match=r"Apply Blobs: this model \(Identity\) is of a family"):
        apply(model=Other())
