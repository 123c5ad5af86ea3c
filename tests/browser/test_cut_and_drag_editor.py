"""The Cut and Drag editor in the real graph editor, driven by mouse and keyboard in both node modes."""

import json
import math

import numpy
import torch
from editor_hand import near
from motion_editor import FRAMES, HEIGHT, PARTS, PIVOT, ROTATED, SQUARE, WIDTH, picture
from papernodes.kernels.cut_and_drag import CutAndDrag
from papernodes.kernels.drag_motion import parse_motion


def test_a_polygon_by_clicks(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    (part,) = motion.objects
    assert near(part["polygon"], SQUARE)
    assert part["keys"] == [] and part["name"] == "Part 1"
    assert motion.ask("[hands.tool, hands.selected]") == ["select", part["id"]]
    parse_motion(motion.text, FRAMES)


def test_a_lasso_in_one_stroke(motion):
    motion.open()
    motion.button("lasso").click()
    ring = [(0.5 + 0.25 * math.cos(t / 40 * math.tau), 0.5 + 0.3 * math.sin(t / 40 * math.tau)) for t in range(40)]
    motion.drag(*[motion.screen(*point) for point in ring])
    (part,) = motion.objects
    points = numpy.array(part["polygon"])
    radius = numpy.hypot((points[:, 0] - 0.5) / 0.25, (points[:, 1] - 0.5) / 0.3)
    assert numpy.abs(radius - 1).max() < 0.05
    assert 8 <= len(points) < 160, "the stroke is thinned out, and keeps its shape"


def test_too_little_of_an_outline_is_refused_in_words(motion):
    motion.open()
    motion.button("lasso").click()
    motion.drag(motion.screen(0.5, 0.5), motion.screen(0.505, 0.5))
    assert motion.text == "" and ("small" in motion.words or "three points" in motion.words)


def test_the_first_drag_of_a_part_goes_to_the_last_frame(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    motion.drag(motion.screen(0.4, 0.4), motion.screen(0.6, 0.3))
    (part,) = motion.objects
    first, last = part["keys"]
    assert first == {"frame": 0, "x": 0, "y": 0, "angle": 0, "scale": 1, "way": "linear"}
    assert last["frame"] == FRAMES - 1 and near([last["x"], last["y"]], [0.2, -0.1])
    assert (last["angle"], last["scale"]) == (0, 1)


def test_handles_turn_and_scale(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    motion.seek(6)
    centre, turner = numpy.array(motion.handle(PIVOT)), numpy.array(motion.handle(ROTATED))
    away = turner - centre
    right, below = centre + numpy.array([-away[1], away[0]]), centre - away
    motion.drag(tuple(turner), tuple(right), tuple(below))
    key = motion.objects[0]["keys"][-1]
    assert (
        key["frame"] == 6 and abs(key["angle"] - 180) < 2 and key["scale"] == 1 and near([key["x"], key["y"]], [0, 0])
    )

    corner = numpy.array(motion.handle("square"))
    motion.drag(tuple(corner), tuple(centre + (corner - centre) * 1.5))
    key = motion.objects[0]["keys"][-1]
    assert abs(key["scale"] - 1.5) < 0.03 and abs(key["angle"] - 180) < 2


def test_shift_turns_by_steps(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    centre, turner = numpy.array(motion.handle(PIVOT)), numpy.array(motion.handle(ROTATED))
    away = turner - centre
    motion.page.keyboard.down("Shift")
    motion.drag(tuple(turner), tuple(centre + away @ [[0.74, 0.67], [-0.67, 0.74]]))
    motion.page.keyboard.up("Shift")
    assert motion.objects[0]["keys"][-1]["angle"] == 45


def test_another_pivot_leaves_the_part_where_it_is(motion):
    motion.open(PARTS)
    motion.select("spoon", 6)
    before = motion.ask("hands.handles().filter(each => each.shape === 'square').map(each => each.at)")
    motion.drag(motion.handle(PIVOT), motion.screen(0.4, 0.3))
    after = motion.ask("hands.handles().filter(each => each.shape === 'square').map(each => each.at)")
    assert near(before, after, 0.1)
    spoon = motion.objects[0]
    assert near(
        motion.ask("editor.view.toPicture(hands.handles().find(each => each.shape === 'pivot').at)"), [0.4, 0.3]
    )
    assert spoon["pivot"] != [0.4, 0.3], "it is written where it lies in the first picture"


def test_points_are_moved_added_and_removed(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    motion.button("points").click()
    motion.drag(motion.screen(*SQUARE[2]), motion.screen(0.7, 0.8))
    assert near(motion.objects[0]["polygon"][2], [0.7, 0.8])
    motion.drag(motion.screen(0.45, 0.3), motion.screen(0.45, 0.15))
    points = motion.objects[0]["polygon"]
    assert len(points) == 5 and near(points[1], [0.45, 0.15])
    motion.press("Delete")
    points = motion.objects[0]["polygon"]
    assert len(points) == 4 and near(points[1], SQUARE[1])
    assert len(motion.objects) == 1, "Delete takes the point, not the part"
    before = motion.text
    motion.click(*SQUARE[0])
    motion.drag(motion.screen(0.45, 0.3), motion.screen(0.45, 0.3))
    assert len(motion.objects[0]["polygon"]) == 5, "a press on the outline alone adds a point"
    motion.press("Control+z")
    assert motion.text == before, "a press on a point alone changes nothing"


def test_keys_on_the_timeline(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    motion.drag(motion.screen(0.4, 0.4), motion.screen(0.6, 0.4))
    motion.seek(6)
    motion.button("key").click()
    keys = motion.objects[0]["keys"]
    assert [key["frame"] for key in keys] == [0, 6, 12] and near(keys[1]["x"], keys[2]["x"] / 2)

    motion.button("way").select_option("ease-in")
    assert motion.objects[0]["keys"][1]["way"] == "ease-in"

    box = motion.button("key-1").bounding_box()
    lane = motion.page.locator(".papernodes-editor .lane").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    motion.drag(middle, (lane["x"] + lane["width"] * 9 / 12, middle[1]))
    assert [key["frame"] for key in motion.objects[0]["keys"]] == [0, 9, 12]
    motion.drag(
        (lane["x"] + lane["width"] * 9 / 12, middle[1]), (lane["x"] + lane["width"] * 2, middle[1])
    )  # not past its neighbour
    assert [key["frame"] for key in motion.objects[0]["keys"]] == [0, 11, 12]

    motion.button("key-1").focus()
    motion.page.keyboard.press("ArrowLeft")
    assert [key["frame"] for key in motion.objects[0]["keys"]] == [0, 10, 12]
    motion.page.keyboard.press("Delete")
    assert [key["frame"] for key in motion.objects[0]["keys"]] == [0, 12]
    assert len(motion.editor.missing_nodes()) == 0 and motion.objects, "the node is still there"


def test_the_strip_and_the_slider_seek(motion):
    motion.open(PARTS)
    lane = motion.page.locator(".papernodes-editor .lane").bounding_box()
    motion.page.mouse.click(lane["x"] + lane["width"] * 4 / 12, lane["y"] + 3)
    assert motion.ask("hands.frame") == 4
    motion.button("time").focus()
    motion.page.keyboard.press("ArrowRight")
    assert motion.ask("hands.frame") == 5
    assert motion.button("time").get_attribute("aria-valuenow") == "5"


def test_play_shows_what_python_makes(motion):
    motion.open(PARTS)
    motion.button("play").click()
    seen = set()
    for _ in range(30):
        seen.add(motion.ask("hands.frame"))
        motion.page.wait_for_timeout(60)
    assert len(seen) >= 5, f"the clip stands still: {seen}"
    assert motion.ask("hands.player.playing")
    motion.button("play").click()
    assert not motion.ask("hands.player.playing")

    clip = CutAndDrag(torch.from_numpy(picture()).float() / 255, parse_motion(json.dumps(PARTS), FRAMES), FRAMES)
    differing = []
    for frame in (0, 4, 6, 11):
        shown = numpy.array(motion.shown_frame(frame)).reshape(HEIGHT, WIDTH, 4)[..., :3]
        wanted = clip.frame(frame).composite.numpy() * 255
        assert numpy.abs(shown - wanted).max() <= 1
        differing.append(numpy.abs(shown - picture()).max())
    assert min(differing[1:]) > 50, "the frames are not the picture itself"


def test_undo_and_redo(motion):
    motion.open()
    motion.draw_polygon(SQUARE)
    drawn = motion.text
    motion.drag(motion.screen(0.4, 0.4), motion.screen(0.6, 0.4))
    dragged = motion.text
    assert dragged != drawn
    motion.press("Control+z")
    assert motion.text == drawn
    motion.button("undo").click()
    assert motion.text == ""
    assert motion.button("undo").is_disabled()
    motion.press("Control+y")
    assert motion.text == drawn
    motion.button("redo").click()
    assert motion.text == dragged
    motion.press("Control+z", "Control+Shift+z")
    assert motion.text == dragged
    assert motion.page.evaluate("() => window.app.graph.nodes.length") == 3, "the graph's own undo stayed out of it"


def test_escape_leaves_a_drag_without_a_trace(motion):
    motion.open(PARTS)
    motion.select("spoon", 6)
    before = motion.text
    motion.drag(motion.handle("square"), motion.screen(0.9, 0.9), keep=True)
    assert motion.ask("editor.state.objects[0].keys[1].scale") != 1.2
    motion.page.keyboard.press("Escape")
    motion.page.mouse.up()
    assert motion.ask("editor.state.objects[0].keys[1].scale") == 1.2
    assert motion.text == before


def test_everything_by_keyboard(motion):
    """From drawing to renaming without a pointer."""
    motion.open()
    motion.press("p")
    right, down = ["Shift+ArrowRight"] * 4, ["Shift+ArrowDown"] * 4
    motion.press(" ", *right, " ", *down, " ", "Enter")
    (part,) = motion.objects
    assert near(part["polygon"], [[0.5, 0.5], [0.7, 0.5], [0.7, 0.7]], 1e-4)

    motion.press("ArrowRight", "Shift+ArrowUp", "e", "w")
    key = motion.objects[0]["keys"][-1]
    assert key["frame"] == FRAMES - 1 and near([key["x"] * WIDTH, key["y"] * HEIGHT], [1, -10], 1e-4)
    assert (key["angle"], key["scale"]) == (5, 1.05)

    motion.press("Home", ".", ".", "k")
    assert motion.ask("hands.frame") == 2 and [key["frame"] for key in motion.objects[0]["keys"]] == [0, 2, 12]
    motion.press("Control+d", "[")
    assert [part["name"] for part in motion.objects] == ["Part 2", "Part 1"]
    motion.press("F2")
    motion.page.keyboard.type("Handle")
    motion.page.keyboard.press("Enter")
    assert [part["name"] for part in motion.objects] == ["Handle", "Part 1"]
    motion.press("PageUp", "Delete")
    assert [part["name"] for part in motion.objects] == ["Handle"]
    motion.press(" ")
    assert motion.ask("hands.player.playing")
    motion.press(" ")
    assert not motion.ask("hands.player.playing")
    assert motion.page.evaluate("() => window.app.graph.nodes.length") == 3


def test_copy_cut_and_paste(motion):
    motion.open(PARTS)
    motion.select("spoon")
    motion.press("Control+c", "Control+v")
    first, _, copy = motion.objects
    assert copy["id"] not in ("spoon", "cup") and copy["name"] == "Spoon 2" and copy["polygon"] == first["polygon"]
    assert near([key["x"] for key in copy["keys"]], [key["x"] + 0.03 for key in first["keys"]], 1e-6)
    motion.press("Control+x")
    assert [part["name"] for part in motion.objects] == ["Spoon", "Cup"]
    motion.open({"version": 1, "objects": []})
    motion.press("Control+v")
    assert [part["name"] for part in motion.objects] == ["Spoon 2"], "into another graph"
    assert motion.page.evaluate("() => window.app.graph.nodes.length") == 3, "the graph pasted no node"
    parse_motion(motion.text, FRAMES)


def test_order_and_numbers(motion):
    motion.open(PARTS)
    motion.select("spoon", 6)
    motion.button("raise").click()
    assert [part["id"] for part in motion.objects] == ["cup", "spoon"]
    assert motion.button("raise").is_disabled() and motion.button("lower").is_enabled()
    motion.button("angle").fill("-90")
    motion.button("angle").press("Enter")
    motion.button("x").fill("12.5")
    motion.button("x").press("Tab")
    key = motion.objects[1]["keys"][1]
    assert (key["angle"], key["x"]) == (-90, 0.125)
    motion.page.locator(".papernodes-editor [data-object='cup']").dblclick()
    motion.page.keyboard.type("Saucer")
    motion.page.keyboard.press("Enter")
    assert motion.objects[0]["name"] == "Saucer"


def test_onion_skin_is_drawn(motion):
    motion.open(PARTS)
    motion.select("spoon")
    read = (
        "Array.from(editor.canvas.getContext('2d').getImageData(0, 0, editor.canvas.width, editor.canvas.height).data)"
    )
    before = numpy.array(motion.ask(read))
    motion.button("onion").click()
    motion.settle()
    changed = numpy.mean(numpy.abs(numpy.array(motion.ask(read)) - before) > 8)
    assert 0.005 < changed < 0.5
    motion.button("onion").click()
    motion.settle()
    assert numpy.array_equal(numpy.array(motion.ask(read)), before)
