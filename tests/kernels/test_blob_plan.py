"""Layouts from words: a model's lines read tolerantly, the conversation, and the planner by rules."""

import math
import re

import pytest
import torch
from papernodes.kernels.blob_dialogue import plan_by_model
from papernodes.kernels.blob_layout import Ellipse, blobs_to_json, parse_blobs
from papernodes.kernels.blob_placing import plan_by_rules
from papernodes.kernels.blob_plan import (
    ANGLE_ZEROS,
    PlannedBlob,
    angle_from,
    angle_to,
    read_descriptions,
    read_parameters,
    write_parameters,
)
from papernodes.kernels.blob_prompts import DEMONSTRATIONS, parameter_messages
from papernodes.kernels.blob_rules import understand

GOOD = "cat {major-radius: 128px; minor-radius: 64px; cx: 256px; cy: 128px; angle: 90}"


def test_a_good_line_is_read_without_a_word():
    answer = read_parameters(GOOD, 512, 512, "vertical")
    assert answer.things == (PlannedBlob("cat", Ellipse(0.5, 0.25, 0.25, 0.125, 0.0)),)
    assert answer.errors == answer.notes == ()
    assert read_parameters(GOOD, 512, 512, "horizontal").things[0].ellipse.angle == 90.0


@pytest.mark.parametrize(("text", "ellipse", "notes"), [
    (GOOD.replace("256px; ", "256"), Ellipse(0.5, 0.25, 0.25, 0.125), ["after cx the semicolon", "cx has no px"]),
    (GOOD.replace("px", ""), Ellipse(0.5, 0.25, 0.25, 0.125), ["major-radius has no px", "cy has no px"]),
    (f"Sure!\n```css\n{GOOD}\n```\nBye.", Ellipse(0.5, 0.25, 0.25, 0.125), ["Code fences", "Sure! Bye."]),
    (GOOD.replace("; ", ";\n  "), Ellipse(0.5, 0.25, 0.25, 0.125), []),
    (GOOD[:-1], Ellipse(0.5, 0.25, 0.25, 0.125), ["closing brace"]),
    (GOOD.replace("; angle: 90", ""), Ellipse(0.5, 0.25, 0.25, 0.125, 90.0), ["angle is missing"]),
    (GOOD.replace("minor-radius: 64px; ", ""), Ellipse(0.5, 0.25, 0.25, 0.25), ["taken as a circle"]),
    (GOOD.replace("256px", "50%"), Ellipse(0.5, 0.25, 0.25, 0.125), ["in percent"]),
    (GOOD.replace("256px", "256px or so"), Ellipse(0.5, 0.25, 0.25, 0.125), ["'or so'"]),
    (GOOD.replace("major-radius: 128", "Major_Radius = 128.0"), Ellipse(0.5, 0.25, 0.25, 0.125), []),
    (GOOD.replace("angle: 90", "angle: 270deg"), Ellipse(0.5, 0.25, 0.25, 0.125), []),
    (GOOD.replace("}", "; cx: 3px}"), Ellipse(0.5, 0.25, 0.25, 0.125), ["cx is given twice"]),
])  # fmt: skip
def test_what_is_read_all_the_same(text, ellipse, notes):
    answer = read_parameters(text, 512, 512, "vertical")
    assert [thing.ellipse for thing in answer.things] == [ellipse]
    assert answer.errors == ()
    for words in notes:
        assert any(words in note for note in answer.notes), answer.notes
    assert bool(notes) == bool(answer.notes)


@pytest.mark.parametrize(("text", "things", "words"), [
    ("", 0, "no line of the form"),
    ("I cannot do that.", 0, "no line of the form"),
    ("a {}", 0, r"line 1 \(a\): it has no values"),
    ("a {cx: 3px; angle: 4}", 0, "cy and major-radius are missing"),
    (GOOD.replace("128px; minor", "-3px; minor"), 0, "a radius is -3px; expected more than 0"),
    (GOOD.replace("256px", "center"), 0, "cx has no number"),
    (GOOD.replace("256px", "900px"), 1, "cx is 900px; expected 0 to 512"),
    (GOOD.replace("128px; minor", "9999px; minor"), 1, "a radius is 9999px"),
    ("\n".join([GOOD] * 101), 100, "There are 101 objects"),
    ("a {cx: 1\n" + GOOD, 1, r"line 1 \(a\): cy and major"),
    ("{" * 5000, 0, ""),
    ("x " * 90_000 + "{cx:1 " * 9_000 + "cx:1 " * 9_000, 0, ""),
])  # fmt: skip
def test_what_is_worth_asking_again(text, things, words):
    answer = read_parameters(text, 512, 512, "vertical")
    assert len(answer.things) == things
    assert answer.errors
    assert any(re.search(words, error) for error in answer.errors), answer.errors


@pytest.mark.parametrize("angle_zero", ANGLE_ZEROS)
@pytest.mark.parametrize(("width", "height"), [(512, 512), (832, 480), (300, 900)])
def test_what_is_written_is_read_again(angle_zero, width, height):
    for _, things, *_ in DEMONSTRATIONS:
        planned = [PlannedBlob(name, ellipse) for name, ellipse, _ in things]
        text = write_parameters(planned, width, height, angle_zero)
        answer = read_parameters(text, width, height, angle_zero)
        assert not answer.notes
        for one, other in zip(planned, answer.things, strict=True):
            assert one.name == other.name
            assert other.ellipse.x == pytest.approx(one.ellipse.x, abs=0.005)
            assert other.ellipse.a == pytest.approx(one.ellipse.a, abs=0.005)
            assert (other.ellipse.angle - one.ellipse.angle + 90) % 180 == pytest.approx(90, abs=0.6)
    assert angle_from(0, "vertical") == 90
    assert all(angle_to(angle_from(angle, angle_zero), angle_zero) == angle for angle in range(180))


def test_the_demonstrations_are_good_answers():
    for _, things in DEMONSTRATIONS:
        for _, e, _ in things:
            turned = math.radians(e.angle)
            across, down = math.hypot(e.a * math.cos(turned), e.b * math.sin(turned)), math.hypot(
                e.a * math.sin(turned), e.b * math.cos(turned))  # fmt: skip
            assert across <= e.x <= 1 - across
            assert down <= e.y <= 1 - down
    for size in ((512, 512), (300, 900), (900, 300)):
        for message in parameter_messages("a cat", *size, "vertical"):
            if message["role"] == "assistant":
                assert not read_parameters(message["content"], *size, "vertical").errors


def test_descriptions():
    good = read_descriptions("cat {a grey cat,\n asleep}\n2. **dog** {'a dog'}", ["cat", "dog"])
    assert good.things == (("cat", "a grey cat, asleep"), ("dog", "a dog"))
    assert not good.errors
    short = read_descriptions("Dog {a brown dog}", ["cat", "dog"])
    assert short.things == (("cat", "cat"), ("dog", "a brown dog"))
    assert "1 descriptions for 2 objects (cat, dog)" in short.errors[0]
    assert "nothing between the braces" in read_descriptions("cat {}", ["cat"]).errors[0]
    other = read_descriptions("object {a}\nhorse {b}", ["cat", "dog"])
    assert [caption for _, caption in other.things] == ["a", "b"]
    assert "'horse'" in " ".join(other.notes)


def test_a_conversation():
    asked = []

    def model(messages):
        asked.append(messages)
        return answers[len(asked) - 1]

    answers = ["<think>cat {}</think>" + GOOD, "cat {a grey cat}"]
    layout, log = plan_by_model("a cat", 832, 480, "vertical", model)
    assert [blob.caption for blob in layout.blobs] == ["a grey cat"]
    assert (layout.width, layout.height) == (832, 480)
    assert "the layout is valid" in log[-1]
    assert parse_blobs(blobs_to_json(layout), 832, 480, 1) == layout
    assert "caption: a cat" in asked[0][-1]["content"]
    assert "major-radius: 128px" in asked[1][-1]["content"]

    asked.clear()  # both answers have a mistake first
    answers = [GOOD.replace("256px", "900px"), GOOD, "nothing", "cat {a cat}"]
    layout, log = plan_by_model("a cat", 512, 512, "vertical", model)
    assert layout.blobs[0].ellipse.x == 0.5
    assert "cx is 900px" in asked[1][-1]["content"]
    assert asked[1][-2] == {"role": "assistant", "content": answers[0]}
    assert "Places, sent back" in log[0]
    assert sum("the second answer is right" in line for line in log) == 2

    asked.clear()  # a second answer that is worse is not taken, captions that never come are the names
    answers = [GOOD.replace("256px", "900px"), "sorry", "no", "no"]
    layout, log = plan_by_model("a cat", 512, 512, "vertical", model)
    assert layout.blobs[0].ellipse.x == 1.0
    assert layout.blobs[0].caption == "cat"
    assert any("still wrong: line 1 (cat): cx is 900px" in line for line in log)

    asked.clear()
    answers = ["no", "no"]
    with pytest.raises(ValueError, match="answered twice without a thing"):
        plan_by_model("a cat", 512, 512, "vertical", model)
    with pytest.raises(ValueError, match="at most 10000"):
        plan_by_model("a" * 10001, 512, 512, "vertical", model)


@pytest.mark.parametrize(("prompt", "groups", "relations"), [
    ("three red balls", [(3, "a red ball")], []),
    ("a cat and two dogs", [(1, "a cat"), (2, "a dog")], []),
    ("a photo of an owl, a fox and a couple of mice", [(1, "an owl"), (1, "a fox"), (2, "a mouse")], []),
    ("There is a big red ball to the left of a small blue cube.", [(1, "a big red ball"), (1, "a small blue cube")],
     [(0, "left", (1,))]),
    ("a cat and a dog on a sofa", [(1, "a cat"), (1, "a dog"), (1, "a sofa")], [(0, "on", (2,)), (1, "on", (2,))]),
    ("a cat on a sofa and a dog under a table", [(1, "a cat"), (1, "a sofa"), (1, "a dog"), (1, "a table")],
     [(0, "on", (1,)), (2, "below", (3,))]),
    ("a ball on a cube on a table", [(1, "a ball"), (1, "a cube"), (1, "a table")], [(0, "on", (1,)), (1, "on", (2,))]),
    ("a red ball left of a blue box and a green cone above the blue box",
     [(1, "a red ball"), (1, "a blue box"), (1, "a green cone")], [(0, "left", (1,)), (2, "above", (1,))]),
    ("to the right of the tree is a house", [(1, "a tree"), (1, "a house")], [(1, "right", (0,))]),
    ("a bird between a tree and a house", [(1, "a bird"), (1, "a tree"), (1, "a house")], [(0, "between", (1, 2))]),
    ("a red and white striped ball next to a man wearing a hat", [(1, "a red and white striped ball"),
     (1, "a man wearing a hat")], [(0, "beside", (1,))]),
    ("cat, dog and horse", [(1, "a cat"), (1, "a dog"), (1, "a horse")], []),
    ("a fox sitting in front of a tree in a forest", [(1, "a fox"), (1, "a tree")], [(0, "front", (1,))]),
    ("a room with a cat in a hat", [(1, "a cat"), (1, "a hat")], [(0, "inside", (1,))]),
    ("a woman with a hat is left of a tree, next to it a dog. It is below a bird.",
     [(1, "a woman with a hat"), (1, "a tree"), (1, "a dog"), (1, "a bird")],
     [(0, "left", (1,)), (2, "beside", (1,)), (2, "below", (3,))]),
    ("a boat above the sea. It is in the sea", [(1, "a boat"), (1, "a sea")], [(0, "above", (1,))]),
    ("boxes", [(3, "a box")], []),
])  # fmt: skip
def test_prompts_are_understood(prompt, groups, relations):
    read = understand(prompt)
    assert [(group.count, group.caption) for group in read.groups] == groups
    assert read.relations == relations


def test_what_the_log_says():
    layout, log = plan_by_rules("a dog in the middle, oil painting, 99 cats. A ball left of a cube. The cube left of "
                                "the ball. Above of", 512, 512, 0)  # fmt: skip
    text = "\n".join(log)
    for words in ("1 x a dog, in the middle", "Left to the prompt: 'oil painting'", "99 of 'cat' are too many",
                  "a ball left of a cube", "contradicts what was said before: a cube left of a ball",
                  "Not understood: 'Above of'"):  # fmt: skip
        assert words in text, text
    assert len(layout.blobs) == 23
    crowd, _ = plan_by_rules("7 cats left of 7 dogs and 7 birds above 7 fish", 512, 512, 0)
    assert len(crowd.blobs) == 28
    for prompt in ("", "  ,,, ", "0 cats"):
        with pytest.raises(ValueError, match="could be read as a thing"):
            plan_by_rules(prompt, 512, 512, 0)
    assert len(plan_by_rules(", ".join(f"20 {name}s" for name in "abcdefg"), 512, 512, 0)[0].blobs) == 100


PLACED = [
    ("three red balls", None),
    ("a big red ball left of a small blue cube", lambda b: right_edge(b[0]) < left_edge(b[1])),
    ("a man to the right of a car", lambda b: left_edge(b[0]) > right_edge(b[1])),
    ("a bird above a tree", lambda b: b[0].y + b[0].b < b[1].y - b[1].b),
    ("a dog below a bird", lambda b: b[0].y - b[0].b > b[1].y + b[1].b),
    ("a cat on a sofa", lambda b: b[0].y < b[1].y and b[0].y + b[0].b > b[1].y - b[1].b),
    ("an owl in the top left corner", lambda b: b[0].x < 0.5 and b[0].y < 0.5),
    ("a ball in the middle and a cube on the right", lambda b: abs(b[0].x - 0.5) < 0.1 and b[1].x > 0.5),
    ("a vase between two candles", lambda b: min(b[1].x, b[2].x) < b[0].x < max(b[1].x, b[2].x)),
    ("five cats next to five dogs and ten birds", None),
]  # fmt: skip
ASPECT = [1.0]


def left_edge(e):
    return e.x * ASPECT[0] - e.a


def right_edge(e):
    return e.x * ASPECT[0] + e.a


@pytest.mark.parametrize(("prompt", "holds"), PLACED)
def test_things_stand_as_asked_inside_and_apart(prompt, holds):
    for seed, (width, height) in enumerate([(512, 512), (960, 480), (480, 800)]):
        layout, log = plan_by_rules(prompt, width, height, seed)
        assert not [line for line in log if "No room" in line]
        ASPECT[0] = width / height
        named = [group.caption for group in understand(prompt).groups for _ in range(group.count)]
        order = sorted(layout.blobs, key=lambda blob: named.index(blob.caption))
        e = [blob.ellipse for blob in order]
        for one in e:
            assert one.a * height / width - 1e-5 <= one.x <= 1 - one.a * height / width + 1e-5
            assert one.b - 1e-5 <= one.y <= 1 - one.b + 1e-5
        assert holds is None or holds(e)
        if " on a sofa" not in prompt:
            drawn = (torch.tensor([[1.0]]) if not e else layout_masks(layout)).sum(0)
            assert float(drawn.max()) <= 1


def layout_masks(layout):
    from papernodes.kernels.ellipses import distances

    return (distances(layout.geometry()[0].float(), 200, round(200 * layout.width / layout.height)) <= 1).float()


def test_depth_seeds_and_sizes():
    layout, _ = plan_by_rules("a fox in front of a house and a tree behind the house", 512, 512, 3)
    assert [blob.caption for blob in layout.blobs] == ["a tree", "a house", "a fox"]
    assert plan_by_rules("three cats", 512, 512, 3)[0] == plan_by_rules("three cats", 512, 512, 3)[0]
    assert plan_by_rules("three cats", 512, 512, 3)[0] != plan_by_rules("three cats", 512, 512, 4)[0]
    plan_by_rules("a cat", 16, 16384, 2**64 - 1)
    sizes = [plan_by_rules(f"a {size} ball and a cube", 512, 512, 0)[0] for size in ("tiny", "small", "big", "huge")]
    radii = [next(blob.ellipse.a for blob in layout.blobs if "ball" in blob.caption) for layout in sizes]
    assert radii == sorted(radii)
    assert radii[0] < 0.6 * radii[2]
    (box, *mice) = plan_by_rules("three mice in a box", 512, 512, 0)[0].blobs
    assert all(abs(mouse.ellipse.x - box.ellipse.x) + mouse.ellipse.a < box.ellipse.a for mouse in mice)
