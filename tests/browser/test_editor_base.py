"""The base of the editors, module by module: undo, places, outlines, pictures, playing, the timeline; its manners."""

import json
import re
from pathlib import Path

import pytest
from papernodes import __path__ as pack_path
from papernodes.host import layout

WEB = Path(pack_path[0]) / "web"
SOURCES = sorted([*WEB.rglob("*.mjs"), *WEB.rglob("*.js")])
LIBRARY = f"/extensions/{layout.PACK_NAME}/lib/"

FORBIDDEN = {
    "listeners outside the editor's element": r"\b(document|window|globalThis)\.addEventListener",
    "something written to the page": r"\b(window|globalThis)\.[\w.]+\s*=[^=]|document\.body",
    "a patch of the graph's classes": r"LGraph\w*\.prototype|LiteGraph\.\w+\s*=[^=]|onDrawForeground|onDrawBackground",
    "something fetched from elsewhere": r"https?://(?!www\.w3\.org)",
    "a picture inside the workflow": r"toDataURL",
}


@pytest.fixture(scope="module")
def page(chromium, server):
    """A page of the server's with nothing on it."""
    opened = chromium.new_page()
    opened.goto(f"{server.url}/system_stats")
    yield opened
    opened.close()


@pytest.fixture
def run(page):
    """Runs a function body in the page, with a module of web/lib as ``lib``."""
    return lambda module, body, argument=None: page.evaluate(
        f"async ([module, argument]) => {{ const lib = await import(module); {body} }}", [LIBRARY + module, argument]
    )


def broken_manners(text: str) -> list[str]:
    return [rule for rule, pattern in FORBIDDEN.items() if re.search(pattern, text)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_manners(path):
    text = path.read_bytes().decode("ascii")
    assert broken_manners(text) == []
    assert text.count("\n") <= 410


@pytest.mark.parametrize(
    "line",
    [
        'document.addEventListener("keydown", f)',
        "window.papernodes = editor",
        "document.body.append(element)",
        "LGraphCanvas.prototype.draw = f",
        'import "https://cdn.example.org/three.js"',
    ],
)
def test_bad_manners_would_be_noticed(line):
    assert broken_manners(line)


def test_only_entry_points_are_loaded_by_the_page():
    """The page runs every .js it finds; what is only imported ends in .mjs."""
    assert [path.relative_to(WEB).as_posix() for path in SOURCES if path.suffix == ".js"] == [
        "blob_layout.js",
        "cut_and_drag.js",
        "light_source.js",
        "match_points.js",
        "panorama_preview.js",
    ]


def test_history(run):
    found = run(
        "history.mjs",
        """const history = new lib.History("a"), seen = [];
        for (const text of ["b", "b", "c"]) seen.push(history.push(text));
        seen.push(history.undo(), history.undo(), history.undo(), history.canUndo, history.redo(), history.canRedo);
        history.push("d");
        seen.push(history.canRedo, history.undo(), history.text);
        return seen;""",
    )
    assert found == [True, False, True, "b", "a", "a", False, "b", True, False, "b", "b"]


def test_history_forgets_the_oldest(run):
    found = run(
        "history.mjs",
        """const few = new lib.History("0", {states: 3}), short = new lib.History("0", {characters: 10});
        for (let index = 1; index < 9; index++) { few.push(`${index}`); short.push("x".repeat(index)); }
        return [few.states, short.states.map(text => text.length), short.text.length];""",
    )
    assert found == [["6", "7", "8"], [7, 8], 8]


@pytest.mark.parametrize(("width", "height"), [(320, 200), (3840, 2000), (100, 900)])
def test_places_and_points_are_each_others_inverse(run, width, height):
    found = run(
        "view.mjs",
        """const view = new lib.View();
        view.area = {x: 7, y: 3, width: argument[0], height: argument[1]};
        view.picture = {width: 1600, height: 900};
        const fitted = view.frame, point = [0.3, 0.8];
        const place = view.toCanvas(point);
        view.zoomAt(place, 3);
        view.zoomAt(place, 1.7);
        const kept = view.toCanvas(point);
        view.moveBy([11, -5]);
        return {fitted, place, kept, zoom: view.zoom, back: view.toPicture(view.toCanvas(point))};""",
        [width, height],
    )
    fitted = found["fitted"]
    assert fitted["width"] / fitted["height"] == pytest.approx(16 / 9)
    assert fitted["x"] >= 7 and fitted["x"] + fitted["width"] <= 7 + width
    assert fitted["y"] >= 3 and fitted["y"] + fitted["height"] <= 3 + height
    assert found["kept"] == pytest.approx(found["place"])
    assert found["zoom"] == pytest.approx(5.1)
    assert found["back"] == pytest.approx([0.3, 0.8])


def test_a_picture_cannot_be_lost_from_view(run):
    frame, zoom = run(
        "view.mjs",
        """const view = new lib.View();
        view.area = {x: 0, y: 0, width: 400, height: 300};
        view.moveBy([-9000, 9000]);
        const frame = view.frame;
        view.zoomAt([0, 0], 1e9);
        return [frame, view.zoom];""",
    )
    assert frame["x"] + frame["width"] > 10 and frame["y"] < 290
    assert zoom == 60


def test_two_pictures_share_a_canvas(run):
    wide, high = run("view.mjs", "return [lib.splitAreas(2, 600, 300), lib.splitAreas(2, 300, 600)];")
    assert [(part["x"], part["y"], part["width"], part["height"]) for part in wide] == [
        (0, 0, 300, 300),
        (300, 0, 300, 300),
    ]
    assert [(part["x"], part["y"], part["width"], part["height"]) for part in high] == [
        (0, 0, 300, 300),
        (0, 300, 300, 300),
    ]


def test_the_nearest_handle(run):
    found = run(
        "view.mjs",
        """const handles = [{at: [0, 0], name: "a"}, {at: [10, 0], name: "b"}, {at: [10, 0], name: "c"}];
        return [[4, 0], [6, 0], [5, 0], [30, 0]].map(place => lib.nearestHandle(handles, place, 8)?.name ?? null);""",
    )
    assert found == ["a", "c", "c", None]


def test_outlines(run):
    found = run(
        "outline.mjs",
        """const square = [[0, 0], [4, 0], [4, 4], [0, 4]];
        const circle = Array.from({length: 400}, (_, step) =>
            [100 * Math.cos(step / 400 * 2 * Math.PI), 100 * Math.sin(step / 400 * 2 * Math.PI)]);
        const thin = lib.simplify(circle, 1);
        return {
            inside: [[2, 2], [5, 2], [-1, 2], [0.1, 3.9]].map(point => lib.isInside(square, point)),
            area: lib.area(square), edge: lib.nearestEdge(square, [3, -2]),
            count: thin.length, far: Math.max(...circle.map(point => lib.nearestEdge(thin, point).far)),
            few: lib.simplify(circle, 0, 12).length, ends: [thin[0], thin.at(-1)], wanted: [circle[0], circle.at(-1)],
            line: lib.simplify([[0, 0], [1, 0], [2, 0], [3, 0]], 0.01),
        };""",
    )
    assert found["inside"] == [True, False, False, True]
    assert found["area"] == 16
    assert found["edge"] == {"index": 0, "at": [3, 0], "far": 2}
    assert found["count"] < 40 and found["far"] <= 1
    assert 3 <= found["few"] <= 12
    assert found["ends"] == found["wanted"]
    assert found["line"] == [[0, 0], [3, 0]]


@pytest.mark.parametrize(
    ("value", "query"),
    [
        ("a.jpg", "filename=a.jpg&subfolder=&type=input"),
        ("clips/b c.png", "filename=b+c.png&subfolder=clips&type=input&channel=rgb"),
        ("x/y/d.webp [output]", "filename=d.webp&subfolder=x%2Fy&type=output&channel=rgb"),
        ("e&f=1.jpg [temp]", "filename=e%26f%3D1.jpg&subfolder=&type=temp"),
    ],
)
def test_addresses_of_pictures(run, value, query):
    assert run("picture_source.mjs", "return lib.viewPath(lib.widgetEntry(argument));", value) == f"/view?{query}"


def test_where_a_picture_comes_from(run):
    """From a loader by its file, through reroutes; from anything else by the node's own last run; else from nowhere."""
    found = run(
        "picture_source.mjs",
        """const loader = {comfyClass: "LoadImage", mode: 0, widgets: [{name: "image", value: "a.jpg"}]};
        const reroute = {type: "Reroute", getInputNode: () => loader};
        const other = {comfyClass: "ImageScale", mode: 0, widgets: [{name: "image", value: "not a file"}]};
        const inputs = [{name: "mask"}, {name: "picture"}];
        const node = origin => ({inputs, getInputNode: slot => slot === 1 ? origin : null});
        const shown = {filename: "s.jpg", type: "temp"};
        const ask = (origin, last) => { const source = lib.pictureSource(node(origin), "picture", last);
            return [source.connected, source.path && new URLSearchParams(source.path.slice(6)).get("filename")]; };
        return [ask(loader), ask(reroute, shown), ask(other), ask(other, shown), ask(null, shown),
            ask({...loader, mode: 2}), ask({...loader, mode: 4}, shown)];""",
    )
    assert found == [
        [True, "a.jpg"],
        [True, "a.jpg"],
        [True, None],
        [True, "s.jpg"],
        [False, None],
        [False, None],
        [True, "s.jpg"],
    ]


def test_which_frame_is_due(run):
    found = run(
        "player.mjs",
        """return [[0, 0], [0, 125], [3, 250], [3, 1000]].map(([start, passed]) =>
            [true, false].map(loop => lib.frameAt(start, passed, 8, 5, loop)).map(due => [due.frame, due.ended]));""",
    )
    assert found == [
        [[0, False], [0, False]],
        [[1, False], [1, False]],
        [[0, False], [4, True]],
        [[1, False], [4, True]],
    ]


def test_the_player_ends_and_begins_anew(run):
    found = run(
        "player.mjs",
        """const shown = [], changes = [];
        const player = new lib.Player({frames: () => 4, show: frame => shown.push(frame), rate: 50, loop: false,
            changed: () => changes.push(player.playing)});
        player.play(3);
        player.play(3);
        await new Promise(done => setTimeout(done, 600));
        return {shown, changes};""",
    )
    assert found["shown"][-1] == 3 and sorted(set(found["shown"])) == found["shown"], found
    assert found["shown"][0] <= 1
    assert found["changes"] == [True, False]


KEYS = [
    {"frame": 0, "x": 0, "y": 0, "angle": 0, "scale": 1, "way": "linear"},
    {"frame": 10, "x": 0.2, "y": -0.1, "angle": 90, "scale": 2, "way": "hold"},
]
PART = {"id": "a", "name": "A", "polygon": [[0.2, 0.2], [0.6, 0.2], [0.6, 0.5], [0.2, 0.5]], "keys": KEYS}


def edit(run, body: str, part: dict = PART):
    return run(
        "motion_edits.mjs",
        f"const before = JSON.stringify(argument), part = argument; const made = (() => {{ {body} }})();"
        " if (JSON.stringify(argument) !== before) throw new Error('the old one was changed'); return made;",
        part,
    )


def test_poses_make_keys(run):
    still = {**PART, "keys": []}
    made = edit(run, "return lib.setPose(part, 5, {x: 0.1, y: 0, angle: 0, scale: 1});", still)
    assert [(key["frame"], key["x"]) for key in made["keys"]] == [(0, 0), (5, 0.1)]
    made = edit(run, "return lib.setPose(part, 0, {x: 0.1, y: 0, angle: 0, scale: 1});", still)
    assert [(key["frame"], key["x"]) for key in made["keys"]] == [(0, 0.1)]
    made = edit(run, "return lib.setPose(part, 10, {x: 999, y: NaN, angle: -1e9, scale: 0});")
    changed = made["keys"][1]
    assert (changed["x"], changed["y"], changed["angle"], changed["scale"]) == (100, 0, -36000, 0.001)
    assert changed["way"] == "hold"


def test_a_new_key_changes_no_frame(run):
    """Adding a key on a straight way, or on one that is held, leaves the clip as it was."""
    for way in ("linear", "hold"):
        part = {**PART, "keys": [KEYS[0], {**KEYS[1], "way": way}]}
        same = run(
            "motion_edits.mjs",
            """const drag = await import(argument.module), made = lib.addKey(argument.part, 4);
            return Array.from({length: 12}, (_, frame) => {
                const one = drag.poseAt(argument.part, frame), other = drag.poseAt(made, frame);
                return Math.max(...["x", "y", "angle", "scale"].map(field => Math.abs(one[field] - other[field])));
            });""",
            {"part": part, "module": LIBRARY + "drag_motion.mjs"},
        )
        assert max(same) < 1e-4, way


def test_points_and_pivot(run):
    made = edit(run, "return lib.addPoint(part, 3, [0.1, 0.3]);")
    assert made["polygon"][4] == [0.1, 0.3] and made["pivot"] == [0.4, 0.35], "reshaping leaves the motion alone"
    triangle = {**PART, "polygon": PART["polygon"][:3]}
    assert edit(run, "return lib.removePoint(part, 0);", triangle)["polygon"] == triangle["polygon"]
    assert edit(run, "return lib.setPoint(part, 0, [-7, 9]);")["polygon"][0] == [-1, 2]

    away = run(
        "motion_edits.mjs",
        """const drag = await import(argument.module), made = lib.setPivot(argument.part, [0.9, 0.1], 160, 90);
        return [made.pivot, ...argument.part.keys.flatMap(key => argument.part.polygon.map(point => {
            const one = lib.shownPoint(argument.part, key.frame, point, 160, 90);
            const other = lib.shownPoint(made, key.frame, point, 160, 90);
            return Math.hypot(one[0] - other[0], one[1] - other[1]);
        }))];""",
        {"part": PART, "module": LIBRARY + "drag_motion.mjs"},
    )
    assert away[0] == [0.9, 0.1] and max(away[1:]) < 1e-6


def test_order_copies_and_names(run):
    motion = {"version": 1, "objects": [{**PART, "id": name, "name": name} for name in ("a", "b", "c")]}
    orders = run(
        "motion_edits.mjs",
        """return [["a", 1], ["a", 9], ["c", -1], ["c", 1], ["?", 1]].map(([id, steps]) =>
            lib.reorder(argument, id, steps).objects.map(object => object.id).join(""));""",
        motion,
    )
    assert orders == ["bac", "bca", "acb", "abc", "abc"]
    full = {"version": 1, "objects": [{**PART, "id": f"part-{number}", "name": "Cup 7"} for number in range(100)]}
    found = run(
        "motion_edits.mjs",
        """const few = {...argument, objects: argument.objects.slice(0, 3)};
        const copy = lib.addCopy(few, few.objects[0]).objects.at(-1);
        return [lib.addObject(argument, [[0, 0], [1, 0], [1, 1]]), lib.addCopy(argument, argument.objects[0]),
            copy.name, few.objects.some(object => object.id === copy.id)];""",
        full,
    )
    assert found == [None, None, "Cup 2", False]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([{"frame": 9}, {"frame": 2}, {"frame": 2, "x": 1}], [(2, 1), (9, 0)]),
        ([{"frame": -1}, {"frame": 1.5}, {"frame": "3"}, {"frame": 4, "way": "fly"}], [(4, 0)]),
    ],
)
def test_what_is_read_can_be_written(run, given, wanted):
    """Keys out of order, ids that the node refuses, names too long: repaired, so that the node takes what is saved."""
    text = json.dumps(
        {
            "version": 1,
            "objects": [
                {**PART, "id": "no good!", "name": "n" * 200, "keys": given},
                {**PART, "id": "b"},
                {**PART, "id": "b"},
            ],
        }
    )
    motion = run("drag_motion.mjs", "return lib.parseMotion(argument).motion;", text)
    assert [(key["frame"], key["x"]) for key in motion["objects"][0]["keys"]] == wanted
    from papernodes.kernels.drag_motion import parse_motion

    parse_motion(json.dumps(motion), 49)


TIMELINE = """
    const { Player } = await import(argument);
    const keys = [{frame: 0, way: "linear"}, {frame: 10, way: "ease"}, {frame: 20, way: "hold"}];
    const state = {keys, frame: 5, log: []};
    const timeline = new lib.Timeline({
        ways: ["linear", "ease", "hold"], travel: t => t,
        frames: () => 16, frame: () => state.frame, keys: () => state.keys,
        title: () => "thing", canKey: () => true, player: new Player({frames: () => 16, show: () => {}}),
        seek: frame => { state.frame = frame; timeline.refresh(); }, addKey: frame => state.log.push(["add", frame]),
        removeKey: frame => state.log.push(["remove", frame]), setWay: (frame, way) => state.log.push([way, frame]),
        moveKey: (index, frame) => { state.keys = state.keys.with(index, {...state.keys[index], frame}); },
        keyMoved: () => state.log.push("moved"),
    });
    document.documentElement.append(timeline.element);
    timeline.refresh();
    const press = (element, key, more = {}) =>
        element.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, ...more}));
    try { BODY } finally { timeline.dispose(); timeline.element.remove(); }
"""


def timeline(run, body: str):
    return run("timeline.mjs", TIMELINE.replace("BODY", body), LIBRARY + "player.mjs")


def test_the_timeline_says_where_it_is(run):
    found = timeline(
        run,
        """const marks = [...timeline.marks.children];
        return {span: timeline.span, now: timeline.scale.getAttribute("aria-valuetext"), beyond: timeline.beyond.hidden,
            names: marks.map(mark => mark.getAttribute("aria-label")), curves: timeline.curves.children.length,
            way: [timeline.way.disabled, (timeline.seek(10), timeline.way.disabled), timeline.way.value]};""",
    )
    assert found["span"] == 21 and found["beyond"] is False, "the key beyond the clip is shown"
    assert found["now"] == "Frame 5 of 0 to 15"
    assert found["names"] == [
        "thing: Key at frame 0",
        "thing: Key at frame 10, ease",
        "thing: Key at frame 20, hold, beyond the clip",
    ]
    assert found["curves"] == 2
    assert found["way"] == [True, False, "ease"]


def test_the_timeline_by_keys(run):
    found = timeline(
        run,
        """const seen = [];
        for (const key of [",", ".", ".", "<", ">", "End", ".", "Home", "k", "x"])
            seen.push(timeline.key(new KeyboardEvent("keydown", {key})) && state.frame);
        press(timeline.scale, "ArrowRight", {shiftKey: true});
        seen.push(state.frame);
        timeline.seek(3);
        timeline.key(new KeyboardEvent("keydown", {key: "k"}));
        return [seen, state.log];""",
    )
    assert found == [[4, 5, 6, 0, 10, 15, 15, 0, 0, False, 10], [["remove", 0], ["add", 3]]]


def test_keys_stay_between_their_neighbours(run):
    found = timeline(
        run,
        """const [first, second, third] = timeline.marks.children;
        press(second, "ArrowLeft");
        press(second, "ArrowLeft", {shiftKey: true});
        const left = state.keys.map(key => key.frame);
        press(second, "ArrowRight", {shiftKey: true});
        press(third, "ArrowLeft");
        press(first, "ArrowLeft");
        press(first, "Delete");
        return [left, state.keys.map(key => key.frame), state.log];""",
    )
    assert found[0] == [0, 1, 20]
    assert found[1] == [0, 11, 15], "from beyond the clip back to its last frame"
    assert found[2] == ["moved"] * 4 + [["remove", 0]]
