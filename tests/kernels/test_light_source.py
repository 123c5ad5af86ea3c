"""Lights: the spec's four gradients to the bit, the laws of lights of other kinds, key frames, and every message."""

import json

import numpy
import pytest
import torch
from papernodes.kernels.light_source import SIDES, STYLES, Light, light_maps, parse_lights

SIZES = [(1, 1), (1, 7), (5, 1), (2, 3), (64, 48), (131, 216), (512, 640)]


def text(*lights, version=1):
    return json.dumps({"version": version, "lights": list(lights)})


def drawn(*lights, frames=1, size=(33, 47), style="fc"):
    return light_maps(parse_lights(text(*lights), frames), frames, *size, style)


def side(angle, **fields):
    return {"kind": "side", "angle": angle, **fields}


def point(x, y, **fields):
    return {"kind": "point", "x": x, "y": y, **fields}


def levels(maps):
    """Whole 8-bit levels, after checking that they are whole."""
    assert maps.dtype == torch.float32 and maps.shape[-1] == 3
    whole = (maps * 255).round()
    assert torch.equal(whole / 255, maps)
    return whole.to(torch.int64)


def official(name, height, width, first, last):
    """The spec's gradient: linspace from the side that the light comes from, as 8-bit numbers [H, W]."""
    size = width if name in ("left", "right") else height
    line = numpy.linspace(first, last, size).astype(numpy.uint8)
    line = torch.from_numpy(line[::-1].copy() if name in ("right", "below") else line).to(torch.int64)
    return line[None, :].expand(height, width) if name in ("left", "right") else line[:, None].expand(height, width)


@pytest.mark.parametrize(("style", "first", "last"), [("fc", 255, 0), ("fbc", 224, 32)])
@pytest.mark.parametrize("name", SIDES)
def test_the_four_sides_are_the_specs_gradients(name, style, first, last):
    for height, width in SIZES:
        found = levels(drawn(side(SIDES[name]), size=(height, width), style=style))[0]
        gradient = official(name, height, width, first, last)[..., None].expand(-1, -1, 3)
        assert torch.equal(found, gradient), (height, width)


def test_every_width_is_the_specs_gradient():
    lights = parse_lights(text(side(180)), 1)
    for style, first, last in (("fc", 255, 0), ("fbc", 224, 32)):
        for width in range(1, 1200):
            line = numpy.linspace(first, last, width).astype(numpy.uint8)
            assert (levels(light_maps(lights, 1, 1, width, style))[0, 0, :, 0].numpy() == line).all(), width


@pytest.mark.parametrize("turns", [-720, -360, 360, 3600])
def test_whole_turns_change_nothing(turns):
    for angle in (0, 180, 37.5):
        assert torch.equal(drawn(side(angle + turns)), drawn(side(angle)))


@pytest.mark.parametrize("angle", [0, 20, 45, 90, 117.25, 200, 300])
def test_a_mirrored_light_gives_a_mirrored_picture(angle):
    light = levels(drawn(side(angle)))
    assert (light - levels(drawn(side(180 - angle))).flip(2)).abs().max() <= 1
    assert (light - levels(drawn(side(-angle))).flip(1)).abs().max() <= 1
    square, turned = (levels(drawn(side(a), size=(31, 31))) for a in (angle, angle + 90))
    assert torch.equal(square.rot90(-1, (1, 2)), turned), "a quarter turn clockwise"


@pytest.mark.parametrize("angle", [13, 45, 100, 250, 333])
def test_slanted_light_runs_evenly_from_corner_to_corner(angle):
    height, width = 40, 61
    found = levels(drawn(side(angle), size=(height, width)))[0, :, :, 0]
    corners = found[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.max() == 255 and corners.min() == 0
    assert found.max() == 255 and found.min() == 0
    to_light = torch.tensor(angle).deg2rad()
    x, y = torch.arange(width) - (width - 1) / 2, torch.arange(height) - (height - 1) / 2
    along = x[None] * to_light.cos() + y[:, None] * to_light.sin()
    exact = 127.5 + 127.5 * along / along.max()
    assert (found - exact).max() < 1e-3 and (exact - found).max() < 1 + 1e-3


@pytest.mark.parametrize("style", STYLES)
def test_no_light_is_dark_and_much_light_is_bright(style):
    dark, bright = STYLES[style]
    for nothing in ("", text(), text(side(0, intensity=0)), text(point(0.5, 0.5, colour="#000000"))):
        assert (levels(light_maps(parse_lights(nothing, 2), 2, 3, 5, style)) == dark).all()
    glaring = levels(drawn(*[side(0, intensity=100), side(180, intensity=100)], style=style))
    assert (glaring == bright).all()


def test_lights_add_up():
    first, second = point(0.2, 0.3, intensity=0.4), side(90, intensity=0.5)
    for style, (dark, _) in STYLES.items():
        both = levels(drawn(first, second, style=style)) - dark
        apart = sum(levels(drawn(light, style=style)) - dark for light in (first, second))
        assert ((both - apart) >= 0).all() and ((both - apart) <= 1).all(), "only what is cut off of each may differ"
        assert torch.equal(both, levels(drawn(second, first, style=style)) - dark)
    assert torch.equal(drawn(first, first), drawn({**first, "intensity": 0.8}))
    # From both sides at once every pixel gets the same; the halves that are cut off leave at most one level.
    assert set(levels(drawn(side(0), side(180))).unique().tolist()) <= {254, 255}


def test_colours():
    white = drawn(side(180))
    assert torch.equal(white[..., 0], white[..., 1]) and torch.equal(white[..., 0], white[..., 2])
    assert torch.equal(drawn(side(180, colour="#fFfFfF")), white)
    assert torch.equal(drawn(side(180, colour=[1, 1, 1.0])), white)
    red = levels(drawn(side(180, colour="#ff0080")))
    assert torch.equal(red[..., 0], levels(white)[..., 0]) and (red[..., 1] == 0).all()
    assert red[0, 0, 0, 2] == 128
    half = levels(drawn(side(180, colour=[0.5, 0.5, 0.5])))
    assert torch.equal(half, levels(drawn(side(180, intensity=0.5))))
    assert (levels(drawn(side(180, colour="#ff0000"), style="fbc"))[..., 1] == 32).all()


@pytest.mark.parametrize(("column", "row"), [(0, 0), (12, 31), (46, 32), (23, 16)])
@pytest.mark.parametrize("style", STYLES)
def test_a_point_light_is_brightest_where_it_is(column, row, style):
    found = levels(drawn(point((column + 0.5) / 47, (row + 0.5) / 33), style=style))[0, :, :, 0]
    assert found[row, column] == STYLES[style][1]
    assert (found == found.max()).sum() == 1
    line = found[row]
    assert (line[column:].diff() <= 0).all() and (line[: column + 1].diff() >= 0).all()


@pytest.mark.parametrize("falloff", [0.5, 1, 1.5, 4])
def test_a_point_lights_law(falloff):
    height, width, radius = 41, 61, 0.3
    maps = levels(drawn(point(0.4, 0.6, radius=radius, falloff=falloff), size=(height, width)))[0, :, :, 1]
    for row, column in ((0, 0), (20, 30), (40, 60), (24, 24), (3, 50)):
        squared = (column + 0.5 - 0.4 * width) ** 2 + (row + 0.5 - 0.6 * height) ** 2
        expected = 255 * (1 + squared / (radius * height) ** 2) ** -falloff
        assert 0 <= expected - maps[row, column] + 1e-9 < 1 + 1e-6


def test_point_lights_keep_symmetry():
    light = levels(drawn(point(0.2, 0.7), size=(24, 40)))
    assert (light - levels(drawn(point(0.8, 0.7), size=(24, 40))).flip(2)).abs().max() <= 1
    square, turned = levels(drawn(point(0.2, 0.7), size=(25, 25))), levels(drawn(point(0.3, 0.2), size=(25, 25)))
    assert (square.rot90(-1, (1, 2)) - turned).abs().max() <= 1, "a quarter turn clockwise"
    # It may stand outside the picture; then the nearest edge is the brightest.
    assert levels(drawn(point(-0.5, 0.5)))[0, 16, :, 0].diff().max() <= 0


def test_keys_hit_their_values_and_rest_outside():
    keys = [
        {"frame": 2, "angle": 0, "intensity": 0.25, "colour": "#ff0000"},
        {"frame": 6, "angle": 90, "intensity": 1, "colour": "#0000ff"},
    ]
    clip = drawn(side(180, keys=keys), frames=9)
    assert clip.shape == (9, 33, 47, 3)
    start = drawn(side(0, intensity=0.25, colour="#ff0000"))[0]
    end = drawn(side(90, colour="#0000ff"))[0]
    for frame in (0, 1, 2):
        assert torch.equal(clip[frame], start)
    for frame in (6, 7, 8):
        assert torch.equal(clip[frame], end)
    assert torch.equal(clip[4], drawn(side(45, intensity=0.625, colour=[0.5, 0, 0.5]))[0])


@pytest.mark.parametrize(("way", "part"), [("linear", 0.25), ("ease", 0.15625), ("ease-in", 0.0625), ("hold", 0)])
def test_ways_bend_the_time_of_every_value(way, part):
    keys = [{"frame": 0, "x": 0, "radius": 0.2}, {"frame": 4, "x": 1, "radius": 1.2, "way": way}]
    numbers, colours = parse_lights(text(point(0.5, 0.75, keys=keys)), 5)[0].values(5)
    assert float(numbers["x"][1]) == pytest.approx(part)
    assert float(numbers["radius"][1]) == pytest.approx(0.2 + part)
    assert (numbers["y"] == 0.75).all(), "what a key does not say is as in its light"
    red = parse_lights(text(side(0, colour="#ff0000", keys=[{"frame": 1}])), 2)[0]
    assert red.keys[0].colour == (1, 0, 0) and red.keys[0].numbers == red.numbers
    assert float(numbers["x"][4]) == 1
    assert (colours == 1).all() and colours.dtype == torch.float64


def test_an_orbit_follows_its_angle():
    keys = [{"frame": 0, "angle": 0}, {"frame": 8, "angle": 360}]
    clip = drawn(side(0, keys=keys), frames=9)
    for frame in range(9):
        assert torch.equal(clip[frame], drawn(side(45 * frame))[0])
    assert not torch.equal(clip[0], clip[1])


def test_what_may_be_missing():
    assert parse_lights(text({"kind": "side"}), 1) == (Light("side", {"angle": 180.0, "intensity": 1.0}),)
    light = parse_lights(text({"kind": "point", "keys": None, "shadow": 5}), 1)[0]
    assert light.numbers == {"x": 0.5, "y": 0.5, "radius": 0.25, "falloff": 1.0, "intensity": 1.0}
    assert light.keys == () and light.colour == (1, 1, 1)


def test_bad_styles_and_sizes():
    with pytest.raises(ValueError, match=r"^style: got 'bright'; expected one of fc, fbc\.$"):
        light_maps((), 1, 4, 4, "bright")
    for sizes in ((0, 4, 4), (1, 0, 4), (1, 4, 0)):
        with pytest.raises(ValueError, match="expected at least 1 of each"):
            light_maps((), *sizes)


RANGE = "expected a number from"
BAD_LIGHTS = [
    ("lamp", "lights: light 1 is a text; expected an object with kind, colour, intensity and keys."),
    (None, "lights: light 1 is missing; expected an object with kind, colour, intensity and keys."),
    ({}, 'lights: light 1: "kind" is missing; expected one of side, point.'),
    ({"kind": "sun"}, 'lights: light 1: "kind" is "sun"; expected one of side, point.'),
    ({"kind": ["side"]}, 'lights: light 1: "kind" is a list; expected one of side, point.'),
    (side("left"), f'lights: light 1: "angle" is "left"; {RANGE} -36000 to 36000.'),
    (side(None), f'lights: light 1: "angle" is missing; {RANGE} -36000 to 36000.'),
    (side(0, intensity=-1), f'lights: light 1: "intensity" is -1; {RANGE} 0 to 100.'),
    (side(0, intensity=True), f'lights: light 1: "intensity" is true; {RANGE} 0 to 100.'),
    (point(11, 0), f'lights: light 1: "x" is 11; {RANGE} -10 to 10.'),
    (point(0, -11), f'lights: light 1: "y" is -11; {RANGE} -10 to 10.'),
    (point(0, 0, radius=0), f'lights: light 1: "radius" is 0; {RANGE} 0.001 to 10.'),
    (point(0, 0, falloff=0), f'lights: light 1: "falloff" is 0; {RANGE} 0.1 to 10.'),
    (side(0, colour="red"), 'lights: light 1: "colour" is "red"; expected "#rrggbb", or [red, green, blue] in 0 to 1.'),
    (side(0, colour=[1]), 'lights: light 1: "colour" is a list; expected "#rrggbb", or [red, green, blue] in 0 to 1.'),
    (
        side(0, colour="#12345"),
        'lights: light 1: "colour" is "#12345"; expected "#rrggbb", or [red, green, blue] in 0 to 1.',
    ),
    (
        side(0, colour=None),
        'lights: light 1: "colour" is missing; expected "#rrggbb", or [red, green, blue] in 0 to 1.',
    ),
    (side(0, colour=[0, 255, 0]), f'lights: light 1: "colour": green is 255; {RANGE} 0 to 1.'),
    (side(0, colour=[0, 0, "0"]), f'lights: light 1: "colour": blue is "0"; {RANGE} 0 to 1.'),
    (side(0, keys={}), 'lights: light 1: "keys" is an object; expected a list.'),
    (
        side(0, keys=[5]),
        "lights: light 1: key 1 is a number; expected an object with frame, angle, intensity, colour and way.",
    ),
    (
        point(0, 0, keys=[[]]),
        "lights: light 1: key 1 is a list; expected an object with frame, x, y, radius, falloff,"
        " intensity, colour and way.",
    ),
    (side(0, keys=[{}]), 'lights: light 1: key 1: "frame" is missing; expected a whole number from 0 to 8.'),
    (side(0, keys=[{"frame": 0.5}]), 'lights: light 1: key 1: "frame" is 0.5; expected a whole number from 0 to 8.'),
    (
        side(0, keys=[{"frame": 9}]),
        "lights: light 1: key 1 is at frame 9, beyond the clip of 9 frames (0 to 8). Move or"
        " delete the key, or raise 'frames'.",
    ),
    (
        side(0, keys=[{"frame": 3}, {"frame": 3}]),
        "lights: light 1: key 2 is at frame 3, but key 1 is at frame 3; frames must increase from key to key.",
    ),
    (
        side(0, keys=[{"frame": 0, "way": "jump"}]),
        'lights: light 1: key 1: "way" is "jump"; expected one of linear, ease, ease-in, ease-out, hold.',
    ),
    (
        side(0, keys=[{"frame": 0, "angle": 1e6}]),
        f'lights: light 1: key 1: "angle" is 1000000.0; {RANGE} -36000 to 36000.',
    ),
    (
        side(0, keys=[{"frame": 0, "colour": 7}]),
        'lights: light 1: key 1: "colour" is 7; expected "#rrggbb", or [red, green, blue] in 0 to 1.',
    ),
]


@pytest.mark.parametrize(("entry", "message"), BAD_LIGHTS)
def test_bad_lights(entry, message):
    with pytest.raises(ValueError) as caught:
        parse_lights(text(entry), 9)
    assert str(caught.value) == message


BAD_TEXTS = [
    (
        "{",
        "lights: this is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1));"
        " expected the text of the Light Source editor.",
    ),
    (5, "lights: got a int; expected the JSON text of the Light Source editor."),
    ("[]", 'lights: got a list; expected {"version": 1, "lights": [...]}.'),
    ('{"lights": []}', 'lights: "version" is missing; expected 1.'),
    (
        text(version=2),
        "lights: it was written by a newer version of this pack (format 2, this pack reads up to 1)."
        " Update ComfyUI-PaperNodes.",
    ),
    ('{"version": 1, "lights": 5}', 'lights: "lights" is a number; expected a list.'),
    ("[" * 100_000, "lights: the JSON is nested too deeply to be lights."),
    (text(*[side(0)] * 101), "lights: there are 101 lights; at most 100 can shine."),
    (
        text(side(12345)).replace("12345", "NaN"),
        "lights: this is not JSON (NaN is not a number); expected the text of the Light Source editor.",
    ),
]


@pytest.mark.parametrize(("written", "message"), BAD_TEXTS, ids=range(len(BAD_TEXTS)))
def test_bad_texts(written, message):
    with pytest.raises(ValueError) as caught:
        parse_lights(written, 9)
    assert str(caught.value) == message


def test_the_second_light_is_named():
    with pytest.raises(ValueError, match=r'^lamps: light 2: "kind" is 3;'):
        parse_lights(text(side(0), {"kind": 3}), 9, "lamps")
