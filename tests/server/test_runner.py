"""host/run.py against the real server, with ComfyUI's own nodes and those of the tests' own pack."""

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy
import pytest
from papernodes.host import layout
from PIL import Image

RED, GREEN = 0xFF0000, 0x00FF00


def picture_graph(color: int = RED) -> dict:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 2, "color": color}},
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": "deep/er/picture"},
            "_meta": {"title": "Keep it. Please"},
        },
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {"class_type": "SaveLatent", "inputs": {"samples": ["3", 0], "filename_prefix": "flat"}},
    }


def name_node(**inputs) -> dict:
    defaults = {"text": "t", "number": 0.5, "flag": False, "choice": "one"}
    return {"class_type": "PaperNodesTest_Name", "inputs": defaults | inputs}


def ui_graph() -> dict:
    """EmptyImage -> SaveImage as the editor saves it, with a muted and a noted node beside."""

    def node(number, kind, inputs, outputs, values, mode=0):
        return {
            "id": number, "type": kind, "pos": [number * 300, 0], "size": [200, 100], "flags": {}, "order": number,
            "mode": mode, "inputs": inputs, "outputs": outputs, "properties": {"Node name for S&R": kind},
            "widgets_values": values,
        }  # fmt: skip

    return {
        "id": "8a1a4d0f-33f0-4d0e-8b2c-9f6a5c6a1d11", "revision": 0, "last_node_id": 4, "last_link_id": 1,
        "nodes": [
            node(1, "EmptyImage", [], [{"name": "IMAGE", "type": "IMAGE", "links": [1]}], [16, 8, 1, GREEN]),
            node(2, "SaveImage", [{"name": "images", "type": "IMAGE", "link": 1}], [], ["from_ui"]),
            node(3, "PaperNodesTest_Fail", [], [], ["never", False], mode=2),
            node(4, "Note", [], [], ["a remark"]),
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]], "groups": [], "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


def history(server, prompt_id: str) -> dict:
    with urllib.request.urlopen(f"{server.url}/history/{prompt_id}", timeout=30) as answer:
        return json.load(answer)[prompt_id]


def pixels(path: str | Path) -> numpy.ndarray:
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB"))


def test_results_are_copied_and_their_paths_printed(runner, server, tmp_path):
    result = runner(picture_graph(), "--server", server.url, "--output", "made")
    assert result.returncode == 0, result.stderr
    paths = result.stdout.split("\n")[:-1]
    assert len(paths) == 3
    pictures = [tmp_path / path for path in paths if path.endswith(".png")]
    assert [path.parent for path in pictures] == [tmp_path / "made" / "deep" / "er"] * 2
    for path in pictures:
        assert pixels(path).shape == (8, 16, 3)
        assert (pixels(path) == (255, 0, 0)).all()
    assert sum(path.endswith(".latent") for path in paths) == 1
    assert "2 Keep it. Please (SaveImage)" in result.stderr
    assert not [path for path in (tmp_path / "made").rglob("*") if path.name.startswith(".")]


def test_nodes_taken_from_the_cache_count_as_run(runner, server):
    first = runner(picture_graph(0x123456), "--server", server.url, "--json")
    second = runner(picture_graph(0x123456), "--server", server.url, "--json")
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert "computed before" in second.stderr
    outputs = [json.loads(result.stdout)["outputs"] for result in (first, second)]
    # Two output nodes, neither of which needs the other: their order is the server's.
    assert sorted(one["path"] for one in outputs[0]) == sorted(one["path"] for one in outputs[1])


def test_json_names_every_output(runner, server, tmp_path):
    result = runner(picture_graph(), "--server", server.url, "--json", "--set", "1.color=7")
    report = json.loads(result.stdout)
    assert report["status"] == "success"
    assert report["errors"] == []
    kinds = sorted((one["node"], one["type"], one["kind"], one["server"]["type"]) for one in report["outputs"])
    assert kinds == [("2", "SaveImage", "images", "output")] * 2 + [("4", "SaveLatent", "latents", "output")]
    assert all((tmp_path / one["path"]).is_file() for one in report["outputs"])


def test_editor_format_runs_and_is_written_into_the_picture(runner, server, tmp_path):
    result = runner(ui_graph(), "--server", server.url, "--set", "EmptyImage.height=24")
    assert result.returncode == 0, result.stderr
    path = tmp_path / result.stdout.strip()
    assert pixels(path).shape == (24, 16, 3)
    assert (pixels(path) == (0, 255, 0)).all()
    with Image.open(path) as image:
        assert json.loads(image.info["workflow"])["nodes"][3]["type"] == "Note"


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("n.text=a=b.c", "a=b.c|0.5|False|one"),
        ("PaperNodesTest_Name.number=2", "t|2.0|False|one"),
        ("n.flag=TRUE", "t|0.5|True|one"),
        ("A title. With dots.choice=two", "t|0.5|False|two"),
    ],
)
def test_set_finds_nodes_by_id_title_and_class(runner, server, setting, shown):
    graph = {"n": {**name_node(), "_meta": {"title": "A title. With dots"}}}
    result = runner(graph, "--server", server.url, "--json", "--set", setting)
    assert result.returncode == 0, result.stderr
    assert history(server, json.loads(result.stdout)["prompt_id"])["outputs"]["n"]["text"] == [shown]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nonsense", "is not of the form NODE.INPUT=VALUE"),
        ("7.seed=1", "no node has the id, title or class '7'"),
        ("1.colour=1", "EmptyImage has no input 'colour'; its inputs are width, height, batch_size, color"),
        ("1.color=red", "a whole number was expected, 'red' came"),
        ("2.images=5", "this input is a socket of type IMAGE"),
    ],
)
def test_useless_settings_are_refused_in_one_sentence(runner, server, setting, message):
    result = runner(picture_graph(), "--server", server.url, "--set", setting)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_set_refuses_a_name_that_two_nodes_share(runner, server):
    result = runner({"a": name_node(), "b": name_node()}, "--server", server.url, "--set", "PaperNodesTest_Name.text=x")
    assert result.returncode == 2
    assert "is 2 nodes; give one's id: a, b" in result.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"hello": 1}', "no ComfyUI workflow"),
        ("{}", "no ComfyUI workflow"),
        ('{"1": {"class_type": "EmptyImage", "inputs": 5}}', "inputs are no object"),
    ],
)
def test_unreadable_graphs_are_refused_in_one_sentence(runner, tmp_path, content, message):
    path = tmp_path / "given.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = runner(path, "--server", "http://127.0.0.1:9")
    assert (result.returncode, message in result.stderr) == (2, True), result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_input_file_is_refused_before_anything_starts(runner):
    result = runner(picture_graph(), "--input", "nowhere.mp4")
    assert (result.returncode, result.stderr) == (2, "error: --input nowhere.mp4: there is no such file.\n")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8188", "is no address"),
        ("file:///etc/passwd", "is no address"),
        ("http://user:secret@host", "without a user name"),
        ("http://127.0.0.1:99999", "is no address"),
        ("http://127.0.0.1:9", "cannot be reached"),
    ],
)
def test_useless_server_addresses_are_refused(runner, url, message):
    result = runner(picture_graph(), "--server", url)
    assert (result.returncode, message in result.stderr) == (2, True), result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.stderr


def test_an_uploaded_file_is_the_one_that_is_used(runner, server, base_directory, tmp_path):
    """Also where the input folder holds another file of the same name, which must not be touched."""
    theirs, ours = base_directory / "input" / "same.png", tmp_path / "same.png"
    Image.new("RGB", (4, 4), (1, 2, 3)).save(theirs)
    Image.new("RGB", (4, 4), (200, 100, 50)).save(ours)
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "same.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "same"}},
    }
    result = runner(graph, "--server", server.url, "--input", ours)
    assert result.returncode == 0, result.stderr
    assert (pixels(tmp_path / result.stdout.strip()) == (200, 100, 50)).all()
    assert (pixels(theirs) == (1, 2, 3)).all()


def test_a_node_refused_while_others_run_fails_the_run(runner, server, tmp_path):
    graph = picture_graph() | {"9": {"class_type": "PaperNodesTest_Fail", "inputs": {"message": "m", "early": True}}}
    result = runner(graph, "--server", server.url)
    assert result.returncode == 1
    assert "error: 9 (PaperNodesTest_Fail): " in result.stderr
    assert "refused on purpose" in result.stderr
    assert len(result.stdout.splitlines()) == 3, "what the other nodes made is copied all the same"


def test_a_graph_refused_as_a_whole_names_the_input(runner, server):
    graph = picture_graph()
    graph["1"]["inputs"]["width"] = -4
    del graph["2"], graph["3"], graph["4"]["inputs"]["samples"]
    graph["5"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    result = runner(graph, "--server", server.url, "--json")
    report = json.loads(result.stdout)
    assert (result.returncode, report["status"]) == (1, "error")
    found = {(error["node"], error["type"]): error["message"] for error in report["errors"]}
    assert "width" in found["1", "EmptyImage"]
    assert "samples" in found["4", "SaveLatent"]


def test_a_node_that_fails_at_work_is_named(runner, server):
    graph = {"f": {"class_type": "PaperNodesTest_Fail", "inputs": {"message": "too much work", "early": False}}}
    result = runner(graph, "--server", server.url)
    assert result.returncode == 1
    assert "error: f (PaperNodesTest_Fail): ValueError: too much work\n" in result.stderr


def test_a_node_the_server_lacks_is_named(runner, server):
    graph = picture_graph() | {"x": {"class_type": "NoSuchNode", "inputs": {}}}
    result = runner(graph, "--server", server.url)
    assert result.returncode == 1
    assert "error: x (NoSuchNode): this server has no such node" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_job_on_the_server(server, tmp_path, number):
    (tmp_path / "wait.json").write_text(
        json.dumps({"w": {"class_type": "PaperNodesTest_Wait", "inputs": {"seconds": 120}}}), encoding="utf-8"
    )
    command = [sys.executable, str(layout.ROOT / "host" / "run.py"), "wait.json", "--server", server.url, "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while "PaperNodesTest_Wait" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert json.loads(output)["status"] == "interrupted"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{server.url}/queue", timeout=30) as answer:
            if not json.load(answer)["queue_running"]:
                return
        time.sleep(0.1)
    pytest.fail("the job still runs on the server")
