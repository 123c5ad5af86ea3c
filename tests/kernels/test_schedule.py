"""The grammar of values over frames: what it reads, what it gives, and what it says when the text is wrong."""

import numpy
import pytest
import torch
from papernodes.kernels.schedule import Schedule


def values(text, frames, **options):
    return Schedule.parse(text, **options).at(frames).tolist()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("  -3 ", -3.0),
        ("+.25", 0.25),
        ("2.", 2.0),
        ("1e-3", 1e-3),
        ("-2.5E+2", -250.0),
        ("0.5,", 0.5),
        ("0:0.5", 0.5),
        (0.5, 0.5),
        (3, 3.0),
        (numpy.float64(0.25), 0.25),
    ],
)
def test_a_plain_number_holds_everywhere(text, value):
    schedule = Schedule.parse(text)
    assert schedule.constant
    result = schedule.at(4)
    assert result.dtype == torch.float32
    assert torch.equal(result, torch.full((4,), value))


def test_the_grammars_own_example():
    result = Schedule.parse("0:0, 12:0.5 ease, 24:1").at(25)
    assert result[0] == 0 and result[12] == 0.5 and result[24] == 1
    assert result[6] == 0.25  # smoothstep crosses its middle half-way
    assert result[3] == pytest.approx(0.5 * (3 * 0.25**2 - 2 * 0.25**3))
    assert result[18] == 0.75  # the way belongs to the key it stands at, so this part is linear
    assert bool((result[1:] > result[:-1]).all())


def test_linear_between_keys_and_constant_outside():
    assert values("2:1, 4:3", 7) == [1, 1, 1, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("", [0, 0.25, 0.5, 0.75, 1]),
        (" linear", [0, 0.25, 0.5, 0.75, 1]),
        (" hold", [0, 0, 0, 0, 1]),
        (" ease", [0, 0.15625, 0.5, 0.84375, 1]),
        (" ease-in", [0, 0.0625, 0.25, 0.5625, 1]),
        (" ease-out", [0, 0.4375, 0.75, 0.9375, 1]),
        (" EASE", [0, 0.15625, 0.5, 0.84375, 1]),
    ],
)
def test_ways(way, expected):
    assert values(f"0:0, 4:1{way}", 5) == expected


def test_hold_jumps_on_its_key():
    assert values("0:1, 2:5 hold, 4:7 hold", 6) == [1, 1, 5, 5, 7, 7]


@pytest.mark.parametrize(
    "text",
    ["0:0,4:1", " 0 : 0 , 4 : 1 , ", "0:0;4:1", "0:0\n4:1\n", "0:0,\t4:1,,", "00:0, 004:1.0"],
)
def test_spaces_separators_and_trailing_commas(text):
    assert values(text, 5) == [0, 0.25, 0.5, 0.75, 1]


def test_keys_beyond_the_clip_still_shape_it():
    assert values("0:0, 10:10", 3) == [0, 1, 2]


def test_positions_as_a_tensor():
    schedule = Schedule.parse("1:0, 3:1")
    positions = torch.tensor([[0.0, 1.5], [2.25, 9.0]], dtype=torch.float64)
    assert schedule.at(positions).tolist() == [[0, 0.25], [0.625, 1]]
    assert schedule.at(torch.tensor([2])).tolist() == [0.5]
    assert schedule.at(0).shape == (0,)


def test_percent_keys_follow_the_length():
    assert values("0%:0, 50%:1, 100%:0", 5) == [0, 0.5, 1, 0.5, 0]
    assert values("0%:0, 100 %:2", 3) == [0, 1, 2]
    assert values("0:0, 100%:4 hold", 3) == [0, 0, 4]
    assert Schedule.parse("0%:0, 100%:1").at(torch.tensor([1.0]), length=5).tolist() == [0.25]
    assert values("0%:3, 100%:7", 1) == [7]


def test_percent_keys_need_a_length():
    schedule = Schedule.parse("0%:0, 100%:1", "weight")
    with pytest.raises(
        ValueError, match=r"^weight: it has keys in percent, but here the number of frames is not known\.$"
    ):
        schedule.at(torch.tensor([1.0]))


def test_percent_and_frame_keys_that_cross():
    schedule = Schedule.parse("0:0, 50%:1, 12:0", "weight")
    assert schedule.at(21)[10] == 1
    with pytest.raises(ValueError) as caught:
        schedule.at(49)
    assert str(caught.value) == (
        "weight: with 49 frames the key at 12 falls on frame 12, not after the key at 50% (frame 24); positions must"
        " increase."
    )


@pytest.mark.parametrize(
    "text",
    ["0.5", "-3", "1e-05", "0:0, 12:0.5 ease, 24:1", "3:1", "0:0, 50%:1 hold, 100%:0.1 ease-in", "1:2 ease-out, 7:1"],
)
def test_format_gives_the_same_schedule_back(text):
    schedule = Schedule.parse(text)
    assert schedule.format() == text
    assert Schedule.parse(schedule.format()).keys == schedule.keys


GRAMMAR = 'a number such as 0.5, or keys such as "0:0, 12:0.5 ease, 24:1"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"weight: it is empty; expected {GRAMMAR}."),
        (" , ,", f"weight: it is empty; expected {GRAMMAR}."),
        ("half", f'weight: "half" is not a number; expected {GRAMMAR}.'),
        ("nan", f'weight: "nan" is not a number; expected {GRAMMAR}.'),
        ("1e999", f'weight: "1e999" is not a number; expected {GRAMMAR}.'),
        ("0x10", f'weight: "0x10" is not a number; expected {GRAMMAR}.'),
        ("1_000", f'weight: "1_000" is not a number; expected {GRAMMAR}.'),
        ("__import__('os')", f"weight: \"__import__('os')\" is not a number; expected {GRAMMAR}."),
        ("\u0661", f'weight: "\u0661" is not a number; expected {GRAMMAR}.'),
        ("0:0, 5:x", f'weight: "x" in "5:x" is not a number; expected {GRAMMAR}.'),
        ("0:0, 5:", f'weight: "" in "5:" is not a number; expected {GRAMMAR}.'),
        ("0:0, 5:inf", f'weight: "inf" in "5:inf" is not a number; expected {GRAMMAR}.'),
        ("0:0, 5", 'weight: key 2 is "5"; expected position:value, for example 12:0.5.'),
        ("0,5", 'weight: key 1 is "0"; expected position:value, for example 12:0.5.'),
        ("1:2:3", 'weight: key 1 is "1:2:3"; expected position:value, for example 12:0.5.'),
        ("0:0,, 5:1", f"weight: key 2 is empty (two separators in a row); expected {GRAMMAR}."),
        (
            "-1:0, 5:1",
            'weight: the position "-1" of key 1 ("-1:0") is not a whole number of 0 or more, nor a percentage such as'
            " 50%.",
        ),
        (
            "0:0, 2.5:1",
            'weight: the position "2.5" of key 2 ("2.5:1") is not a whole number of 0 or more, nor a percentage such as'
            " 50%.",
        ),
        (
            ":1",
            'weight: the position "" of key 1 (":1") is not a whole number of 0 or more, nor a percentage such as 50%.',
        ),
        ("0:0, 101%:1", 'weight: the position "101%" of key 2 is beyond 100%.'),
        (
            "0:0, 9:1 bounce",
            'weight: "bounce" in key 2 ("9:1 bounce") is not a way to reach the key; expected nothing or one of linear,'
            " ease, ease-in, ease-out, hold.",
        ),
        (
            "0:0, 9:1 ease hold",
            'weight: "ease hold" in key 2 ("9:1 ease hold") is not a way to reach the key; expected nothing or one of'
            " linear, ease, ease-in, ease-out, hold.",
        ),
        ("0:0, 9:1, 9:2", "weight: the key at 9 comes after the key at 9; positions must increase from key to key."),
        ("5:0, 1:1", "weight: the key at 1 comes after the key at 5; positions must increase from key to key."),
        ("50%:0, 20%:1", "weight: the key at 20% comes after the key at 50%; positions must increase from key to key."),
        (None, f"weight: got a NoneType; expected {GRAMMAR}."),
        (True, f"weight: got a bool; expected {GRAMMAR}."),
        (float("nan"), f'weight: "nan" is not a number; expected {GRAMMAR}.'),
    ],
)
def test_messages_name_the_offending_piece(text, message):
    with pytest.raises(ValueError) as caught:
        Schedule.parse(text, "weight")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "minimum", "maximum", "message"),
    [
        ("1.5", 0, 1, "weight: the value 1.5 is out of range; expected 0 to 1."),
        ("0:0, 12:-0.5 ease", 0, 1, "weight: the value -0.5 at 12 is out of range; expected 0 to 1."),
        ("0:0, 50%:2", 0, 1, "weight: the value 2 at 50% is out of range; expected 0 to 1."),
        ("-1", 0, None, "weight: the value -1 is too small; expected at least 0."),
        ("9", None, 8.5, "weight: the value 9 is too large; expected at most 8.5."),
    ],
)
def test_ranges(text, minimum, maximum, message):
    with pytest.raises(ValueError) as caught:
        Schedule.parse(text, "weight", minimum=minimum, maximum=maximum)
    assert str(caught.value) == message
    assert Schedule.parse("0:0, 9:1", minimum=0, maximum=1).at(10)[9] == 1


def test_long_and_hostile_text_is_refused_quickly():
    with pytest.raises(ValueError, match="at most 100000 are read"):
        Schedule.parse("9" * 100_001)
    with pytest.raises(ValueError, match="is not a number"):
        Schedule.parse("9" * 99_000)
    with pytest.raises(ValueError, match="not a whole number"):
        Schedule.parse("9" * 99_000 + ":1")
    with pytest.raises(ValueError, match=r"^schedule: ") as caught:
        Schedule.parse("0:" + "a" * 90_000)
    assert len(str(caught.value)) < 300


def test_extreme_values_stay_finite():
    assert bool(torch.isfinite(Schedule.parse("0:-1e37, 10:1e37").at(11)).all())
    with pytest.raises(ValueError, match="is not a number"):
        Schedule.parse("2e38")


def test_negative_count():
    with pytest.raises(ValueError, match=r"^weight: asked for -1 frames; expected 0 or more"):
        Schedule.parse("1", "weight").at(-1)
