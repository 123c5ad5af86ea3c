"""The motion JSON: what it reads, how values travel, and what it says when something is wrong."""

import json
import math

import pytest
import torch
from papernodes.kernels.drag_motion import Motion, MotionKey, middle, parse_motion

TRIANGLE = [[0.1, 0.1], [0.5, 0.1], [0.1, 0.5]]


def text(*objects, version=1):
    return json.dumps({"version": version, "objects": list(objects)})


def thing(**fields):
    return {"id": "a1", "polygon": TRIANGLE, **fields}


def moving(*keys, frames=9):
    return parse_motion(text(thing(keys=list(keys))), frames).objects[0].places(frames)


@pytest.mark.parametrize("empty", ["", "  \n", '{"version": 1}', '{"version": 1, "objects": []}', text()])
def test_no_objects_is_no_motion(empty):
    assert parse_motion(empty, 5) == Motion()


def test_everything_that_is_written_is_read():
    key = {"frame": 3, "x": 0.5, "y": -0.25, "angle": 30, "scale": 2, "way": "ease"}
    motion = parse_motion(text(thing(name="rabbit", pivot=[0.3, 0.4], keys=[key], colour="red"), thing(id="b")), 4)
    first, second = motion.objects
    assert (first.id, first.name, first.pivot) == ("a1", "rabbit", (0.3, 0.4))
    assert first.polygon == ((0.1, 0.1), (0.5, 0.1), (0.1, 0.5))
    assert first.keys == (MotionKey(3, 0.5, -0.25, 30.0, 2.0, "ease"),)
    assert second.keys == ()
    assert second.pivot == pytest.approx((0.7 / 3, 0.7 / 3))


def test_fields_may_be_missing_or_null():
    moved = parse_motion(text(thing(name=None, pivot=None, keys=[{"frame": 2.0}])), 4).objects[0]
    assert moved.keys == (MotionKey(2),)
    assert moved.name == ""


def test_without_keys_it_rests():
    places = parse_motion(text(thing()), 3).objects[0].places(3)
    assert places.tolist() == [[0, 0, 0, 1]] * 3


def test_values_are_held_outside_the_keys():
    places = moving({"frame": 2, "x": 0.5}, {"frame": 4, "x": 1, "angle": 90, "scale": 4})
    assert places[:, 0].tolist() == [0.5, 0.5, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert places[:, 2].tolist() == [0, 0, 0, 45, 90, 90, 90, 90, 90]
    assert places[3, 3] == pytest.approx(2)  # by equal ratios


@pytest.mark.parametrize(
    ("way", "middle_value"), [("linear", 0.25), ("ease", 0.15625), ("ease-in", 0.0625), ("ease-out", 0.4375)]
)
def test_ways_bend_the_time_of_every_value(way, middle_value):
    places = moving({"frame": 0}, {"frame": 4, "x": 1, "y": 2, "angle": -8, "scale": 16, "way": way})
    assert places[1].tolist() == pytest.approx([middle_value, 2 * middle_value, -8 * middle_value, 16**middle_value])
    assert places[4].tolist() == [1, 2, -8, 16]


def test_hold_jumps_on_its_key():
    places = moving({"frame": 0}, {"frame": 4, "x": 1, "scale": 3, "way": "hold"}, frames=6)
    assert places[:, 0].tolist() == [0, 0, 0, 0, 1, 1]
    assert places[:, 3].tolist() == [1, 1, 1, 1, 3, 3]


def test_equal_keys_give_exactly_their_value():
    places = moving({"frame": 0, "x": 0.1, "scale": 0.7}, {"frame": 8, "x": 0.1, "scale": 0.7, "way": "ease"})
    assert bool((places == places[0]).all())
    assert places.dtype == torch.float64


def test_the_middle_of_a_polygon():
    assert middle(((0, 0), (1, 0), (1, 1), (0, 1))) == pytest.approx((0.5, 0.5))
    assert middle(((0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2))) == pytest.approx((5 / 6, 5 / 6))
    assert middle(((0.2, 0.2), (0.4, 0.2), (0.9, 0.2))) == pytest.approx((0.5, 0.2))  # no area: the points' mean
    bow_tie = ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.000001))  # its areas nearly cancel
    assert middle(bow_tie) == pytest.approx((0.5, 0.5), abs=1e-3)


WHERE = 'motion: object 1 ("rabbit")'
NAMED = {"name": "rabbit"}
BAD_OBJECTS = [
    ("rabbit", "motion: object 1 is a text; expected an object with id, polygon and keys."),
    (None, "motion: object 1 is missing; expected an object with id, polygon and keys."),
    (thing(name=5), 'motion: object 1: "name" is a number; expected a text of up to 80 characters.'),
    (thing(name="x" * 81), 'motion: object 1: "name" is 81 characters long; expected a text of up to 80 characters.'),
    (
        {"polygon": TRIANGLE},
        'motion: object 1: "id" is missing; expected 1 to 40 letters, digits, underscores or hyphens.',
    ),
    (
        thing(id="a b"),
        'motion: object 1: "id" is "a b"; expected 1 to 40 letters, digits, underscores or hyphens.',
    ),
    ({"id": "a1"}, 'motion: object 1 ("a1"): "polygon" is missing; expected a list of points [x, y].'),
    (thing(**NAMED, polygon="x"), f'{WHERE}: "polygon" is a text; expected a list of points [x, y].'),
    (thing(**NAMED, polygon=TRIANGLE[:2]), f"{WHERE}: its polygon has 2 points; expected 3 to 2000."),
    (thing(**NAMED, polygon=TRIANGLE[:1]), f"{WHERE}: its polygon has 1 point; expected 3 to 2000."),
    (thing(**NAMED, polygon=TRIANGLE * 700), f"{WHERE}: its polygon has 2100 points; expected 3 to 2000."),
    (thing(**NAMED, polygon=[*TRIANGLE, [1]]), f"{WHERE}: point 4 of its polygon is a list; expected [x, y]."),
    (thing(**NAMED, polygon=[*TRIANGLE, 7]), f"{WHERE}: point 4 of its polygon is 7; expected [x, y]."),
    (
        thing(**NAMED, polygon=[*TRIANGLE, [0, 2.5]]),
        f"{WHERE}: point 4 of its polygon: y is 2.5; expected a number from -1 to 2.",
    ),
    (
        thing(**NAMED, polygon=[*TRIANGLE, ["0", 0]]),
        f'{WHERE}: point 4 of its polygon: x is "0"; expected a number from -1 to 2.',
    ),
    (
        thing(**NAMED, polygon=[*TRIANGLE, [True, 0]]),
        f"{WHERE}: point 4 of its polygon: x is true; expected a number from -1 to 2.",
    ),
    (thing(**NAMED, pivot=[0, 11]), f"{WHERE}: its pivot: y is 11; expected a number from -10 to 10."),
    (thing(**NAMED, pivot={}), f"{WHERE}: its pivot is an object; expected [x, y]."),
    (thing(**NAMED, keys={}), f'{WHERE}: "keys" is an object; expected a list.'),
    (thing(name="\n", polygon=[]), 'motion: object 1 ("a1"): its polygon has 0 points; expected 3 to 2000.'),
]


@pytest.mark.parametrize(("entry", "message"), BAD_OBJECTS)
def test_bad_objects(entry, message):
    with pytest.raises(ValueError) as caught:
        parse_motion(text(entry), 9)
    assert str(caught.value) == message


BAD_KEYS = [
    ([5], f"{WHERE}: key 1 is a number; expected an object with frame, x, y, angle, scale and way."),
    ([{"x": 1}], f'{WHERE}: key 1: "frame" is missing; expected a whole number from 0 to 8.'),
    ([{"frame": 1.5}], f'{WHERE}: key 1: "frame" is 1.5; expected a whole number from 0 to 8.'),
    ([{"frame": -1}], f'{WHERE}: key 1: "frame" is -1; expected a whole number from 0 to 8.'),
    ([{"frame": True}], f'{WHERE}: key 1: "frame" is true; expected a whole number from 0 to 8.'),
    (
        [{"frame": 0}, {"frame": 9}],
        f"{WHERE}: key 2 is at frame 9, beyond the clip of 9 frames (0 to 8). Move or delete the key, or raise"
        " 'frames'.",
    ),
    (
        [{"frame": 10**400}],
        f"{WHERE}: key 1 is at frame a huge number, beyond the clip of 9 frames (0 to 8). Move or delete the key, or"
        " raise 'frames'.",
    ),
    (
        [{"frame": 5}, {"frame": 3}],
        f"{WHERE}: key 2 is at frame 3, but key 1 is at frame 5; frames must increase from key to key.",
    ),
    (
        [{"frame": 5}, {"frame": 5}],
        f"{WHERE}: key 2 is at frame 5, but key 1 is at frame 5; frames must increase from key to key.",
    ),
    ([{"frame": 0, "scale": 0}], f'{WHERE}: key 1: "scale" is 0; expected a number from 0.001 to 1000.'),
    ([{"frame": 0, "scale": -2}], f'{WHERE}: key 1: "scale" is -2; expected a number from 0.001 to 1000.'),
    ([{"frame": 0, "x": 101}], f'{WHERE}: key 1: "x" is 101; expected a number from -100 to 100.'),
    ([{"frame": 0, "y": "1"}], f'{WHERE}: key 1: "y" is "1"; expected a number from -100 to 100.'),
    ([{"frame": 0, "y": None}], f'{WHERE}: key 1: "y" is missing; expected a number from -100 to 100.'),
    ([{"frame": 0, "x": 10**400}], f'{WHERE}: key 1: "x" is a huge number; expected a number from -100 to 100.'),
    (
        [{"frame": 0, "angle": 1e6}],
        f'{WHERE}: key 1: "angle" is 1000000.0; expected a number from -36000 to 36000.',
    ),
    (
        [{"frame": 0, "way": "jump"}],
        f'{WHERE}: key 1: "way" is "jump"; expected one of linear, ease, ease-in, ease-out, hold.',
    ),
    (
        [{"frame": 0, "way": []}],
        f'{WHERE}: key 1: "way" is a list; expected one of linear, ease, ease-in, ease-out, hold.',
    ),
]


@pytest.mark.parametrize(("keys", "message"), BAD_KEYS)
def test_bad_keys(keys, message):
    with pytest.raises(ValueError) as caught:
        parse_motion(text(thing(**NAMED, keys=keys)), 9)
    assert str(caught.value) == message


BAD_TEXTS = [
    (
        "not JSON",
        "motion: this is not JSON (Expecting value: line 1 column 1 (char 0)); expected the text of the Cut and Drag"
        " editor.",
    ),
    (5, "motion: got a int; expected the JSON text of the Cut and Drag editor."),
    ("[]", 'motion: got a list; expected {"version": 1, "objects": [...]}.'),
    ("null", 'motion: got nothing; expected {"version": 1, "objects": [...]}.'),
    ('{"objects": []}', 'motion: "version" is missing; expected 1.'),
    ('{"version": "1"}', 'motion: "version" is "1"; expected 1.'),
    ('{"version": true}', 'motion: "version" is true; expected 1.'),
    ('{"version": 0}', 'motion: "version" is 0; expected 1.'),
    (
        '{"version": 2, "objects": 7}',
        "motion: it was written by a newer version of this pack (format 2, this pack reads up to 1). Update"
        " ComfyUI-PaperNodes.",
    ),
    ('{"version": 1, "objects": {}}', 'motion: "objects" is an object; expected a list.'),
    ("[" * 100_000, "motion: the JSON is nested too deeply to be a motion."),
    (" " * 16_000_000 + "x", "motion: the text has 16000001 characters; at most 16000000 are read."),
    (
        text(*[thing(id=f"o{k}") for k in range(200)]),
        "motion: there are 200 objects; at most 100 can be moved.",
    ),
    (
        text(thing(id="x"), thing(id="y"), thing(id="x")),
        'motion: objects 1 and 3 have the same id "x"; ids must differ.',
    ),
]


@pytest.mark.parametrize(("written", "message"), BAD_TEXTS, ids=range(len(BAD_TEXTS)))
def test_bad_texts(written, message):
    with pytest.raises(ValueError) as caught:
        parse_motion(written, 9)
    assert str(caught.value) == message


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_that_are_not_numbers(word):
    written = text(thing(keys=[{"frame": 0, "x": 12345}])).replace("12345", word)
    with pytest.raises(ValueError) as caught:
        parse_motion(written, 9)
    assert str(caught.value) == (
        f"motion: this is not JSON ({word} is not a number); expected the text of the Cut and Drag editor."
    )


def test_a_number_beyond_all_bounds():
    written = text(thing(keys=[{"frame": 0, "x": 12345}])).replace("12345", "1e999")
    with pytest.raises(ValueError, match=r'^motion: object 1 \("a1"\): key 1: "x" is Infinity; expected a number'):
        parse_motion(written, 9)
    with pytest.raises(ValueError, match=r'"frame" is Infinity; expected a whole number from 0 to 8\.$'):
        parse_motion(text(thing(keys=[{"frame": 54321}])).replace("54321", "1e999"), 9)


def test_one_hundred_objects_of_two_thousand_points():
    points = [[0.5 + 0.4 * math.cos(k), 0.5 + 0.4 * math.sin(k)] for k in range(2000)]
    motion = parse_motion(text(*[thing(id=f"o{k}", polygon=points) for k in range(100)]), 9)
    assert len(motion.objects) == 100
