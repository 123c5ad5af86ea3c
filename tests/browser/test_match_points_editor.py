"""The Match Points editor in the real graph editor, driven by mouse and keyboard in both node modes."""

import json
import time
import urllib.request

import pytest
from editor_hand import near
from match_editor import SIZES, graph, pair, points_text
from papernodes.kernels.matched_points import MOST_PAIRS, parse_points

FIRST = pair([0.2, 0.3], [0.7, 0.6])
SECOND = pair([0.6, 0.7], [0.3, 0.2])
RUN_SECONDS = 120


def get(url: str, path: str) -> bytes:
    with urllib.request.urlopen(url + path, timeout=60) as answer:
        return answer.read()


def run(match) -> dict:
    """Queue the graph from the page; the record of the job when it has ended."""
    job = match.editor.queue()
    end = time.monotonic() + RUN_SECONDS
    while time.monotonic() < end:
        record = json.loads(get(match.editor.url, f"/history/{job}")).get(job)
        if record:
            return record
        match.page.wait_for_timeout(200)
    raise AssertionError(f"the job did not end within {RUN_SECONDS} s")


def test_click_here_then_there(match):
    match.open()
    assert "Click a place in the reference" in match.words
    match.put("reference", 0.3, 0.4)
    assert match.ask("hands.wanted") == "target" and "Pair 1: now click the same place in the target" in match.words
    with pytest.raises(ValueError, match=r"pair 1 has a point in the reference and none in the target"):
        parse_points(match.text)
    match.put("target", 0.8, 0.1)
    match.put("target", 0.2, 0.6)
    assert match.ask("hands.wanted") == "reference", "either picture may be the first"
    match.put("reference", 0.9, 0.95)
    first, second = match.pairs
    assert near(first["reference"], [0.3, 0.4]) and near(first["target"], [0.8, 0.1])
    assert near(second["reference"], [0.9, 0.95]) and near(second["target"], [0.2, 0.6])
    assert parse_points(match.text).count == 2 and match.ask("hands.wanted") is None


def test_a_second_click_in_the_same_picture_moves_the_waiting_point(match):
    match.open(FIRST)
    match.put("reference", 0.8, 0.2)
    match.put("reference", 0.5, 0.9)
    assert len(match.pairs) == 2 and near(match.pairs[1]["reference"], [0.5, 0.9])
    match.put("target", 0.9, 0.9)
    assert match.pairs[0] == FIRST and near(match.pairs[1]["target"], [0.9, 0.9])


def test_outside_the_pictures_nothing_is_put(match):
    match.open(FIRST)
    _, y, width, height = match.frame("reference")
    top = match.at("reference", 0.5, -0.2)
    assert y > 0.2 * height and width > height, "there is room over the picture"
    match.page.mouse.click(*top)
    assert match.text == points_text(FIRST)


def test_a_press_may_go_on_as_a_drag(match):
    match.open()
    match.drag(match.at("reference", 0.2, 0.2), match.at("reference", 0.6, 0.5))
    match.drag(match.at("target", 0.5, 0.5), match.at("target", 0.9, -0.3))
    (made,) = match.pairs
    assert near(made["reference"], [0.6, 0.5]) and near(made["target"], [0.9, 0.0]), "at most to the rim"


def test_points_are_dragged(match):
    match.open(FIRST, SECOND)
    match.drag(match.marker(1, "target"), match.at("target", 0.45, 0.85))
    assert match.pairs[0] == FIRST and match.pairs[1]["reference"] == SECOND["reference"]
    assert near(match.pairs[1]["target"], [0.45, 0.85]) and match.selected == 1
    match.page.keyboard.down("Shift")
    match.drag(match.marker(0, "reference"), match.at("reference", 0.5, 0.34))
    match.page.keyboard.up("Shift")
    x, y = match.pairs[0]["reference"]
    assert near(x, 0.5) and y == FIRST["reference"][1]


def test_a_press_on_a_point_alone_writes_nothing(match):
    match.open(FIRST, SECOND)
    match.page.mouse.click(*match.marker(1, "reference"))
    match.settle()
    assert match.selected == 1 and match.text == points_text(FIRST, SECOND)
    match.select(0)
    assert match.selected == 0 and match.text == points_text(FIRST, SECOND)


def test_delete_and_delete_all(match):
    match.open(FIRST, SECOND, FIRST)
    match.select(0)
    match.button("remove").click()
    assert match.pairs == [SECOND, FIRST] and match.selected == 0
    match.press("Delete")
    assert match.pairs == [FIRST]
    match.press("Control+z", "Control+z")
    assert match.pairs == [FIRST, SECOND, FIRST]
    match.button("clear").click()
    assert match.pairs == [] and match.button("clear").is_disabled()
    match.press("Delete", "Backspace")
    assert match.page.evaluate("() => window.app.graph.nodes.length") == 4, "Delete takes pairs, not the node"
    match.press("Control+z")
    assert match.pairs == [FIRST, SECOND, FIRST]


def test_undo_and_redo(match):
    match.open(FIRST)
    match.put("reference", 0.8, 0.8)
    half = match.text
    match.put("target", 0.1, 0.9)
    whole = match.text
    match.button("undo").click()
    assert match.text == half and match.ask("hands.wanted") == "target"
    match.press("Control+z")
    assert match.text == points_text(FIRST) and match.button("undo").is_disabled()
    match.press("Control+y")
    match.button("redo").click()
    assert match.text == whole
    match.drag(match.marker(1, "target"), match.at("target", 0.5, 0.5), keep=True)
    assert near(match.ask("editor.state.points[1].target"), [0.5, 0.5])
    match.page.keyboard.press("Escape")
    match.page.mouse.up()
    assert match.text == whole and near(match.ask("editor.state.points[1].target"), [0.1, 0.9])


def test_escape_takes_back_what_was_begun(match):
    match.open(FIRST)
    match.put("target", 0.1, 0.9)
    assert len(match.pairs) == 2
    match.press("Escape")
    assert match.pairs == [FIRST] and match.selected is None
    match.select(0)
    match.press("Escape")
    assert match.pairs == [FIRST] and match.selected is None


def test_each_picture_is_zoomed_and_moved_on_its_own(match):
    match.open(FIRST)
    before = {side: match.frame(side) for side in SIZES}
    match.put("reference", 0.5, 0.9)
    place = match.at("target", 0.7, 0.6)
    match.page.mouse.move(*place)
    match.page.mouse.wheel(0, -600)
    match.settle()
    assert match.frame("reference") == before["reference"] and match.frame("target")[2] > 2 * before["target"][2]
    assert near(match.marker(0, "target"), place, 1.0), "what is under the wheel stays there"
    match.page.mouse.down(button="middle")
    match.page.mouse.move(place[0] + 30, place[1] - 20, steps=3)
    match.page.mouse.up(button="middle")
    match.settle()
    scale = match.ask("editor.scale")
    assert near(match.marker(0, "target"), [place[0] + 30, place[1] - 20], 2.0 + scale)
    x, y = match.at("target", 0.71, 0.66)
    match.page.mouse.click(x, y)
    match.settle()
    assert near(match.pairs[1]["target"], [0.71, 0.66], 0.005)
    match.press("t")
    moved = match.frame("target")
    match.press("Control+ArrowLeft")
    assert match.frame("target")[0] > moved[0] and match.frame("reference") == before["reference"]
    match.press("0")
    assert near(match.frame("target"), before["target"], 0.5)
    match.press("+")
    assert all(match.frame(side)[2] > before[side][2] for side in SIZES)


def test_points_out_of_view_cannot_be_pressed(match):
    match.open(pair([0.98, 0.5], [0.02, 0.5]))
    assert len(match.ask("hands.handles().map(each => each.side)")) == 2
    match.page.mouse.move(*match.at("reference", 0.1, 0.5))
    match.ask("editor.canvas.focus()")
    match.page.mouse.wheel(0, -800)
    match.settle()
    assert match.ask("hands.handles().map(each => each.side)") == ["target"]


def test_numbers_are_typed(match):
    match.open(FIRST, SECOND)
    match.select(1)
    match.write("reference-x", 12.5)
    match.write("target-y", 250)
    assert match.pairs == [FIRST, pair([0.125, 0.7], [0.3, 1])], "never what the node would refuse"
    match.put("reference", 0.9, 0.1)
    assert match.button("target-x").input_value() == ""
    match.write("target-x", 40)
    assert match.pairs[2]["target"] == [0.4, 0.5] and parse_points(match.text).count == 3


def test_everything_by_keyboard(match):
    match.open()
    match.press("n")
    assert match.pairs == [pair([0.5, 0.5], [0.5, 0.5])]
    match.press("ArrowRight", "Shift+ArrowUp", "t", "ArrowLeft", "Shift+ArrowDown")
    (made,) = match.pairs
    width, height = SIZES["reference"]
    assert near(made["reference"], [0.5 + 1 / width, 0.5 - 10 / height], 1e-5)
    width, height = SIZES["target"]
    assert near(made["target"], [0.5 - 1 / width, 0.5 + 10 / height], 1e-5)
    match.press("n", "PageUp")
    assert match.selected == 0
    match.press("PageUp", "Delete")
    assert match.pairs == [made]
    match.put("reference", 0.1, 0.1)
    match.press("n")
    assert match.pairs[1]["target"] == [0.5, 0.5], "n puts the missing point"
    lines = match.ask("hands.lines")
    match.press("l")
    assert match.ask("hands.lines") is not lines
    assert match.page.evaluate("() => window.app.graph.nodes.length") == 4


def test_as_many_as_can_be_used(match):
    many = [pair([0.5, 0.5], [0.5, 0.5])] * MOST_PAIRS
    match.open(*many)
    assert match.button("add").is_disabled()
    match.put("reference", 0.9, 0.9)
    assert len(match.pairs) == MOST_PAIRS and "There are 100 pairs already" in match.words
    match.press("n")
    assert len(match.pairs) == MOST_PAIRS
    match.open(*many, FIRST)
    assert "1 pair could not be read" in match.words


def test_what_it_does_not_know_is_kept(match):
    match.open(points_text({**FIRST, "name": "eye"}, SECOND, author="somebody"))
    match.drag(match.marker(0, "target"), match.at("target", 0.5, 0.5))
    saved = json.loads(match.text)
    assert (saved["author"], saved["version"], saved["points"][0]["name"]) == ("somebody", 1, "eye")
    assert saved["points"][1] == SECOND


@pytest.mark.parametrize("text", ['{"version": 2, "points": [], "new": [1]}', '{"version":7,"places":[{}]}'])
def test_what_a_newer_version_wrote_is_left_as_it_is(match, text):
    match.open(text)
    assert "newer version" in match.words and match.button("add").is_disabled()
    match.press("n", "Delete", "Control+z", "Escape")
    match.put("reference", 0.5, 0.5)
    match.put("target", 0.5, 0.5)
    assert match.text == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "first change replaces it"),
        ("[1]", "first change replaces it"),
        (points_text(FIRST, {"reference": "here"}), "1 pair could not be read"),
    ],
)
def test_a_text_that_cannot_be_read_can_be_replaced_and_brought_back(match, text, words):
    match.open(text)
    assert words in match.words and match.text == text
    match.press("n")
    parse_points(match.text)
    match.press("Control+z")
    assert match.text == text


def test_an_unfinished_pair_of_the_text_is_finished(match):
    match.open(pair(None, [0.2, 0.2]), pair([0.5, 0.9]), FIRST)
    assert "Pair 1: now click the same place in the reference" in match.words
    match.put("target", 0.9, 0.9)
    assert near(match.pairs[1]["target"], [0.9, 0.9]), "the first that lacks a point there"
    match.put("reference", 0.9, 0.2)
    assert near(match.pairs[0]["reference"], [0.9, 0.2]) and len(match.pairs) == 3


def test_save_load_and_run(match):
    match.open(FIRST)
    match.put("reference", 0.5, 0.9)
    match.put("target", 0.1, 0.9)
    text = match.text
    prompt, saved = match.editor.export()
    assert prompt["2"]["inputs"] == {"points": text, "reference": ["1", 0], "target": ["4", 0]}
    (node,) = [node for node in saved["nodes"] if node["id"] == 2]
    assert node["widgets_values"] == [text]
    match.editor.load(json.loads(json.dumps(saved)))
    assert match.text == text and match.ask("editor.state.points.length") == 2
    assert match.editor.export()[0] == prompt
    record = run(match)
    assert record["status"]["status_str"] == "success", record["status"]["messages"]
    assert record["outputs"]["3"]["images"]


def test_pictures_of_other_nodes_are_seen_after_a_run(match):
    changed = graph(points_text(FIRST))
    (second,) = [node for node in changed["nodes"] if node["id"] == 4]
    inverted = {
        **{key: second[key] for key in ("flags", "mode", "properties")},
        "id": 5,
        "type": "ImageInvert",
        "pos": [60, 800],
        "size": [280, 30],
        "order": 1,
        "inputs": [{"name": "image", "type": "IMAGE", "link": 3}],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [4]}],
    }
    changed["nodes"].append(inverted)
    changed["links"] = [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 1, 3, 0, "IMAGE"], [3, 4, 0, 5, 0, "IMAGE"]]
    changed["links"].append([4, 5, 0, 2, 1, "IMAGE"])
    changed |= {"last_node_id": 5, "last_link_id": 4}
    next(node for node in changed["nodes"] if node["id"] == 2)["inputs"][1]["link"] = 4
    match.show(changed)
    assert match.ask("editor.panes.map(pane => [pane.connected, Boolean(pane.picture)])") == [
        [True, True],
        [True, False],
    ]
    assert run(match)["status"]["status_str"] == "success"
    match.wait(f"Boolean({match.found_editor}.panes[1].picture)")
    found = match.ask("[editor.panes[1].picture.naturalWidth, editor.panes[1].path]")
    assert found[0] == SIZES["target"][0] and "type=temp" in found[1]
    assert match.ask("editor.panes[0].path").startswith("/view?filename=coffee.jpg")


def test_without_pictures(match):
    match.open(target=None)
    match.put("reference", 0.5, 0.5)
    match.put("target", 0.25, 0.75)
    assert near(match.pairs[0]["target"], [0.25, 0.75])


def test_screen_readers(match):
    match.open(FIRST, SECOND)
    match.select(1)
    unnamed = match.ask(
        "[...editor.root.querySelectorAll('button, input, select, canvas, [role]')].filter(each =>"
        " !(each.getAttribute('aria-label') || each.textContent.trim()"
        " || each.classList.contains('group') || each.getAttribute('role') === 'status')).map(each => each.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize(("width", "height", "least"), [(320, 568, 120), (3840, 2160, 1400)])
def test_large_view_from_phone_to_4k(match, width, height, least):
    window = match.page.viewport_size
    match.open(FIRST, SECOND)
    try:
        match.page.set_viewport_size({"width": width, "height": height})
        match.ask("editor.enlarge()")
        match.page.wait_for_timeout(300)
        match.select(1)
        cut = match.ask(
            """[...editor.root.querySelectorAll("button, input, select, canvas")].filter(each => {
                const box = each.getBoundingClientRect();
                return each.checkVisibility({visibilityProperty: true})
                    && (box.left < -1 || box.right > innerWidth + 1);
            }).map(each => each.getAttribute("aria-label"))"""
        )
        assert cut == []
        box = match.ask("(box => [box.width, box.height])(editor.canvas.getBoundingClientRect())")
        assert min(box) >= least
        match.drag(match.marker(1, "target"), match.at("target", 0.6, 0.7))
        assert near(match.pairs[1]["target"], [0.6, 0.7], 0.02)
        match.press("f")
        assert not match.ask("editor.dialog.open")
    finally:
        match.page.set_viewport_size(window)
