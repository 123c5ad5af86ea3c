"""Windows, names and places of texts."""

import pytest
from papernodes.kernels.story_text import find_tokens, make_prompts, read_frames, read_identities, window_length

FOX = {"": "a red fox"}


def story(frames, window=10, identities=FOX):
    return make_prompts(identities, read_frames("\n".join(frames), identities), window)


def test_all_frames_fit_into_one_prompt():
    prompts = story(["in a forest", "on a beach", "at night"])
    assert {prompt.text for prompt in prompts} == {"a red fox in a forest on a beach at night"}
    assert [prompt.shown for prompt in prompts] == [0, 1, 2]
    assert [prompt.suppressed for prompt in prompts] == [(1, 2), (0, 2), (0, 1)]


def test_windows_go_round():
    prompts = story(["one", "two", "three", "four"], window=3)
    assert [prompt.frames for prompt in prompts] == [(0, 1, 2), (1, 2, 3), (2, 3, 0), (3, 0, 1)]
    assert prompts[2].text == "a red fox three four one"
    assert all(prompt.shown == 0 and prompt.suppressed == (1, 2) for prompt in prompts)


def test_one_frame_suppresses_nothing():
    (prompt,) = story(["in a forest"])
    assert prompt.text == "a red fox in a forest" and prompt.suppressed == ()


def test_repeats_of_the_shown_text_are_not_suppressed():
    prompts = story(["in a forest", "on a beach", "in a forest"])
    assert [prompt.suppressed for prompt in prompts] == [(1,), (0, 2), (1,)]


@pytest.mark.parametrize(
    ("identity_words", "frame_words", "frames", "window", "expected"),
    [
        (7, 7, 20, 20, 9),  # 7 + 9 * 7 = 70; the tenth would reach 77
        (6, 7, 20, 20, 10),  # 6 + 10 * 7 = 76
        (7, 7, 20, 4, 4),
        (7, 7, 2, 10, 2),
        (80, 5, 3, 10, 1),  # nothing fits, and yet a frame needs its own text
    ],
)
def test_words_are_counted_between_spaces(identity_words, frame_words, frames, window, expected):
    def words(count):
        return " ".join(["semi-detached,"] * count)

    assert window_length(words(identity_words), [words(frame_words)] * frames, window) == expected


def test_several_characters():
    identities = read_identities("Anna: a red fox\n\n Bob B.:  a blue   bear ")
    assert identities == {"Anna": "a red fox", "Bob B.": "a blue bear"}
    frames = read_frames("anna: reads\nANNA, bob b.: walk\nBob B. and Anna: talk\nrain: it pours", identities)
    both = ("Anna", "Bob B.")
    assert frames == [
        (("Anna",), "reads"), (both, "walk"), (("Bob B.", "Anna"), "talk"), (both, "rain: it pours")
    ]  # fmt: skip
    prompts = make_prompts(identities, frames, 10)
    assert prompts[0].text == "a red fox reads walk talk rain: it pours"
    assert prompts[1].text.startswith("a red fox and a blue bear reads")


def test_a_description_may_hold_line_breaks():
    assert read_identities("a red fox\n with a scarf\n") == {"": "a red fox with a scarf"}


@pytest.mark.parametrize(
    ("text", "message"),
    [(" \n", "it is empty"), ("Anna: a fox\na bear", "'a bear' has no name"), ("A: x\na: y", "'a' is there twice")],
)
def test_bad_identities(text, message):
    with pytest.raises(ValueError, match=message):
        read_identities(text)


def test_bad_frames():
    with pytest.raises(ValueError, match="one line for each frame"):
        read_frames("\n \n", FOX)
    with pytest.raises(ValueError, match="not what happens"):
        read_frames("Anna:", {"Anna": "a fox"})
    with pytest.raises(ValueError, match="at least 1; got 1 and 0"):
        story(["x"], window=0)


def test_the_first_place_counts():
    assert find_tokens([1, 2, 3, 1, 2], [1, 2]) == 0
    assert find_tokens([1, 2, 3, 1, 2], [1, 2], start=1) == 3
    assert find_tokens([1, 2], [1, 2, 3]) == find_tokens([1, 2], [2, 1]) == find_tokens([1], []) == -1
