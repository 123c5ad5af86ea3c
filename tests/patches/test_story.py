"""Tokens and rows of prompts for real tokenizers; the rows that a story touches and those it does not."""

import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.text_encoders.flux
import comfy.text_encoders.sd3_clip
import pytest
import torch
from comfy.supported_models_base import ClipTarget
from demo_files import random_weights
from papernodes.kernels.singular_values import EXPRESS, SUPPRESS
from papernodes.kernels.story_text import make_prompts, read_frames, read_identities
from papernodes.networks.demo_image import load_clip
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.patches.regional import KEY
from papernodes.patches.story import (
    PROMPT,
    Reweighting,
    append_identity,
    bias_identity,
    encode_story,
    identity_rows,
    place_texts,
)
from papernodes.patches.text_tokens import TextError, channels_of, fit_rows, read_text

SVR = Reweighting("svr", SUPPRESS, EXPRESS)
SMALL = {"num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "hidden_act": "quick_gelu"}


@pytest.fixture(scope="module")
def sd15():
    return load_clip(FOLDER / "image_text_encoder.safetensors")


@pytest.fixture(scope="module")
def sdxl():
    """SDXL's two tokenizers and encoders, 32 and 64 wide, with random weights."""
    clip = comfy.sd.CLIP(
        ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel),
        model_options={
            "clip_l_model_config": {**SMALL, "hidden_size": 32},
            "clip_g_model_config": {**SMALL, "hidden_size": 64},
        },
    )
    clip.cond_stage_model.load_state_dict(random_weights(clip.cond_stage_model), strict=False)
    return clip


class Tokens:
    """A CLIP that only tokenizes."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def tokenize(self, text, return_word_ids=False):
        return self.tokenizer.tokenize_with_weights(text, return_word_ids)


def story(*frames, identity="a red cat", window=10):
    identities = read_identities(identity)
    return make_prompts(identities, read_frames("\n".join(frames), identities), window)


LONG = [
    f"in a semi-detached, half-timbered, well-lit, so-called {place}"
    for place in ("hut", "red-brick inn", "barn", "villa")
]
"""Few words between spaces and many tokens."""


def test_rows_of_sdxl(sdxl):
    texts = read_text(sdxl, "a red cat in a forest")
    assert [(text.encoder, text.rows, text.chunks) for text in texts] == [(name, range(77), 1) for name in ("l", "g")]
    for text in texts:
        assert text.begins == (0,) and text.places == tuple(range(1, 7))
        # the end token and all padding, which is the end token for one encoder and 0 for the other
        assert text.ends == tuple(range(7, 77))
    assert [channels_of(sdxl, name, 96) for name in ("l", "g")] == [slice(0, 32), slice(32, 96)]
    with pytest.raises(TextError, match="too narrow"):
        channels_of(sdxl, "g", 80)


def test_prompts_of_more_than_one_chunk(sdxl):
    (prompt, *_) = story(*LONG)
    for place in place_texts(sdxl, prompt):
        encoded = place.encoded
        assert encoded.chunks == 2 and encoded.begins == (0, 77) and len(encoded.rows) == 154
        assert encoded.places[:75] == tuple(range(1, 76)) and encoded.places[75] == 78
        assert encoded.ends[0] == 76 and set(encoded.ends[1:]) == set(range(encoded.places[-1] + 1, 154))
        rows = [row for part in (*place.identities, *place.texts) for row in part]
        assert rows == list(encoded.places)  # the parts are the whole prompt, in order
        split = [part for part in place.texts if part[0] < 77 < part[-1]]
        assert len(split) == 1
        assert encoded.begins_of(split[0]) == [0, 77] and encoded.begins_of(place.identities[0]) == [0]


def test_rows_of_sd3_and_flux():
    sd3 = Tokens(comfy.text_encoders.sd3_clip.SD3Tokenizer())
    texts = read_text(sd3, "a red fox in a forest")
    assert [(text.encoder, text.rows) for text in texts] == [
        ("l", range(77)), ("g", range(77)), ("t5xxl", range(77, 154))
    ]  # fmt: skip
    t5 = texts[2]
    assert t5.begins == () and t5.places[0] == 77 and t5.ends[-1] == 153
    assert [text.encoder for text in fit_rows(texts, 77)] == ["l", "g"]  # loaded without its T5
    assert len(fit_rows(texts, 154)) == 3
    with pytest.raises(TextError, match="has 100 tokens, but this prompt has 77 or 154"):
        fit_rows(texts, 100)
    flux = read_text(Tokens(comfy.text_encoders.flux.FluxTokenizer()), "a red fox in a forest")
    assert [(text.encoder, text.rows) for text in flux] == [("t5xxl", range(256))]
    assert t5.tokens == flux[0].tokens

    (prompt, _) = story("in a forest", "on a beach", identity="a red fox")
    entry = [torch.zeros(1, 154, 8), {PROMPT: prompt.text}]
    rows = identity_rows(sd3, entry, ["a red fox"])
    words = len(read_text(sd3, "a red fox")[2].tokens)
    assert rows == [0, 1, 2, 3, *range(77, 77 + words)]


def test_an_unknown_clip():
    class Llama:
        def tokenize(self, text, return_word_ids=False):
            return {"llama": [[(1, 1.0, 1)]], "l": [[(1, 1.0, 1)]]}

    with pytest.raises(TextError, match=r"not known here \(l, llama\).*Known are those of SD1.5"):
        read_text(Llama(), "a")
    with pytest.raises(TextError, match=r"has t5xxl. Set 'mode' to off"):
        encode_story(Tokens(comfy.text_encoders.flux.FluxTokenizer()), story("x"), SVR, True)


@pytest.mark.parametrize("mode", ["svr", "svr-eot"])
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_rows_touched_and_untouched(name, mode, request):
    clip = request.getfixturevalue(name)
    frames = ("in a forest", "on a beach with a hat", "at night")
    prompts = story(*frames)
    plain, changed = (encode_story(clip, prompts, how, True) for how in (None, Reweighting(mode, SUPPRESS, EXPRESS)))
    assert len(changed) == 3
    for number, ((before, _), (after, options)) in enumerate(
        zip((c[0] for c in plain), (c[0] for c in changed), strict=True)
    ):
        assert options[PROMPT] == prompts[number].text and after.device.type == "cpu"
        assert torch.equal(after[:, :4], before[:, :4])  # begin and "a red cat"
        gap = (after - before).abs().amax(-1)[0]
        assert (gap[4:] > 1e-4).all()
        place = place_texts(clip, prompts[number])[0]
        size = [float(after[0, rows].norm() / before[0, rows].norm()) for rows in place.texts]
        assert size[number] > 1 and all(one < 0.4 for k, one in enumerate(size) if k != number)
    assert torch.equal(plain[0][0][0], plain[1][0][0])
    assert len({entry[0][0].data_ptr() for entry in changed}) == 3


def by_svd(x, curve):
    u, s, vh = torch.linalg.svd(x.double().mT, full_matrices=False)
    return (u @ torch.diag(curve.beta * s * torch.exp(-curve.alpha * s)) @ vh).mT.to(x)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_encoder_of_sdxl_by_itself_and_in_order(sdxl, seed):
    """The closed form, written out: suppress the others in order, then express; each encoder's channels alone."""
    frames = ("in a forest", "on a beach with a hat", "at night")
    frames = frames[seed:] + frames[:seed]
    expected = encode_story(sdxl, story(*frames), None, True)[1][0][0].clone()
    ends = list(range(expected.shape[1]))[read_text(sdxl, story(*frames)[1].text)[0].ends[0] :]
    words, first = [], 4
    for frame in frames:
        words.append(list(range(first, first + len(frame.split()))))
        first += len(frame.split())
    for channels in (slice(0, 32), slice(32, 96)):
        for text, curve in ((0, SUPPRESS), (2, SUPPRESS), (1, EXPRESS)):
            rows = words[text] + ends
            expected[0, rows, channels] = by_svd(expected[0, rows, channels], curve)
    found = encode_story(sdxl, story(*frames), SVR, True)[1][0][0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_a_chunk_without_a_text_is_left_alone_by_it(sdxl):
    prompts = story(*LONG)
    before = encode_story(sdxl, prompts[:1], None, True)[0][0][0]
    place = place_texts(sdxl, prompts[0])[0]
    # express the first frame alone: it stands in the first chunk, so the second one's ends stay
    only = [type(prompts[0])(prompts[0].identities, prompts[0].frames, prompts[0].texts, 0)]
    weak = Reweighting("svr", EXPRESS.__class__(0.0, 1.0), EXPRESS)
    after = encode_story(sdxl, only, weak, True)[0][0][0]
    assert place.texts[0][-1] < 77
    torch.testing.assert_close(after[:, 77], before[:, 77], rtol=0, atol=0)
    gap = (after - before).abs().amax(-1)[0]
    assert (gap[place.texts[0]] > 1e-4).all() and gap[76] > 1e-4
    assert gap[77:].max() < 1e-4


def test_what_comes_before_does_not_change_with_what_comes_after(sd15):
    long = encode_story(sd15, story("in a forest", "on a beach"), None, True)[0][0][0]
    alone = sd15.encode_from_tokens(sd15.tokenize("a red cat"))
    torch.testing.assert_close(long[:, :4].cpu(), alone[:, :4].cpu(), rtol=1e-5, atol=1e-5)


def test_pooled(sdxl):
    kept, zero = (encode_story(sdxl, story("in a forest", "on a beach"), SVR, keep) for keep in (True, False))
    assert torch.equal(kept[0][0][1]["pooled_output"], kept[1][0][1]["pooled_output"])
    assert kept[0][0][1]["pooled_output"].any() and not zero[0][0][1]["pooled_output"].any()


def test_the_identity_of_a_story_and_of_a_plain_prompt(sd15):
    prompts = story("in a forest", "on a beach", identity="Anna: a red cat\nBob: a blue ball")
    (entry,) = encode_story(sd15, prompts, SVR, True)[0]
    assert identity_rows(sd15, entry, ["a red cat", "a blue ball"]) == [0, 1, 2, 3, 5, 6, 7]
    assert identity_rows(sd15, entry, ["a blue ball", "a green hat"]) == [0, 5, 6, 7]
    assert identity_rows(sd15, entry, ["a green hat"]) == []
    plain = [sd15.encode_from_tokens(sd15.tokenize("a red cat in a forest")), {}]
    assert identity_rows(sd15, plain, ["A red CAT"]) == [0, 1, 2, 3]
    assert identity_rows(sd15, plain, ["a red ball"]) == []
    assert identity_rows(sd15, plain, ["a red cat,"]) == []


def test_after_appending_the_prompt_is_still_known(sd15):
    (entry,) = encode_story(sd15, story("in a forest", "on a beach"), SVR, True)[0]
    (longer,) = append_identity(entry, [0, 1, 2, 3], 1.0, 0.0, 0.0, 1.0)
    assert longer[0].shape[1] == 81 and torch.equal(longer[0][:, 77:], entry[0][:, :4])
    assert identity_rows(sd15, longer, ["a red cat"]) == [0, 1, 2, 3]
    assert entry[0].shape[1] == 77 and KEY not in longer[1]


def test_ranges_are_kept_within_those_of_the_conditioning():
    entry = [torch.zeros(1, 8, 4), {"start_percent": 0.2, "end_percent": 0.6}]
    parts = append_identity(entry, [1], 1.0, 0.0, 0.4, 1.0)
    assert [(one[0].shape[1], one[1]["start_percent"], one[1]["end_percent"]) for one in parts] == [
        (9, 0.4, 0.6), (8, 0.2, 0.4)
    ]  # fmt: skip
    assert append_identity(entry, [1], 1.0, 0.0, 0.7, 1.0) == [entry]
    strong = append_identity(entry, [1], 2.0, 0.0, 0.0, 1.0)[0][1][KEY][0]
    assert strong.base.tolist() == [1.0] * 8 + [0.0] and strong.strength.tolist() == [0.0] * 8 + [2.0]
    assert KEY not in bias_identity(entry, [1], 1.0, 0, 0, 1)[1] or KEY not in entry[1]


def test_a_bracket_that_is_not_closed_within_its_line(sd15):
    with pytest.raises(TextError, match="cannot be found among the tokens"):
        encode_story(sd15, story("in a (forest:1.2", "on a) beach"), SVR, True)
    (entry,) = encode_story(sd15, story("in a (forest:1.2)", "on a beach"), SVR, True)[0]
    assert entry[0].isfinite().all()
