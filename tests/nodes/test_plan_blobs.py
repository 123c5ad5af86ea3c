"""Plan Blobs as the host runs it: the rules, and an endpoint that answers well, badly, slowly or not at all.

The endpoint is a thread of this process on 127.0.0.1; nothing here reaches further.
"""

import http.server
import json
import logging
import threading
import time

import comfy.model_management
import pytest
from papernodes.kernels.blob_layout import BlobLayout, parse_blobs
from papernodes.nodes import endpoint as module
from papernodes.nodes.endpoint import KEY, MODEL, URL, Endpoint, EndpointError, endpoint_from_environment
from papernodes.nodes.plan_blobs import ENDPOINT, RULES, PlanBlobs

SECRET = "sk-secret-4711"
CAT = "cat {major-radius: 128px; minor-radius: 64px; cx: 256px; cy: 128px; angle: 90}"
BAD_CAT = "cat {major-radius: 128px; minor-radius: 64px; cy: 128px; angle: 90}"
WORDS = "cat {a grey cat}"


class Server(http.server.ThreadingHTTPServer):
    """Gives its answers one after the other, and keeps what was asked."""

    daemon_threads = True

    def __init__(self):
        self.answers, self.asked = [], []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    """A text = a chat completion of it; bytes = sent as they are; a number = that status; a function = called."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        answer = self.server.answers[min(len(self.server.asked), len(self.server.answers)) - 1]
        if callable(answer):
            return answer(self)
        if isinstance(answer, int):
            said = {
                "error": {"message": f"the server's\nown words about {SECRET[:8]}" if answer == 418 else "its words"}
            }
            return self.give(json.dumps(said).encode(), answer)
        if isinstance(answer, str):
            answer = json.dumps({"choices": [{"message": {"role": "assistant", "content": answer}}]}).encode()
        return self.give(answer)

    do_GET = do_POST  # noqa: N815 - the server looks for this name

    def give(self, body, status=200):
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def running():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(running, monkeypatch):
    running.answers, running.asked = [], []
    monkeypatch.setenv(URL, running.url)
    monkeypatch.setenv(KEY, SECRET)
    monkeypatch.setenv(MODEL, "small-one")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "POLL", 0.01)
    return running


def plan(prompt="a cat", planner=ENDPOINT, width=512, height=512, angle_zero="vertical", seed=0, model=""):
    return PlanBlobs.execute(prompt, planner, width, height, angle_zero, seed, model).result


def test_the_rules():
    blobs, log, layout = plan("two red balls left of a tree", RULES, 640, 384, seed=7)
    assert isinstance(blobs, BlobLayout)
    assert (blobs.width, blobs.height, blobs.frames) == (640, 384, 1)
    assert sorted(blob.caption for blob in blobs.blobs) == ["a red ball", "a red ball", "a tree"]
    assert "2 x a red ball" in log
    assert parse_blobs(layout, 640, 384, 1) == blobs
    assert plan("two red balls left of a tree", RULES, 640, 384, seed=7)[0] == blobs
    for changed, words in (
        ({"prompt": " "}, "'prompt' is empty"),
        ({"prompt": "..."}, "'prompt': nothing in '...' could be read"),
        ({"planner": "magic"}, "'planner' is 'magic'; expected one of: rules, endpoint"),
        ({"angle_zero": "up"}, "'angle_zero' is 'up'"),
        ({"width": 0}, "'width' is 0"),
        ({"height": 20000}, "'height' is 20000"),
    ):
        with pytest.raises(ValueError, match=words):
            plan(**{"planner": RULES, **changed})


def test_a_good_answer(server):
    server.answers = [CAT, WORDS]
    blobs, log, _ = plan(seed=2**40 + 5)
    (blob,) = blobs.blobs
    assert blob.caption == "a grey cat"
    assert (blob.ellipse.x, blob.ellipse.y, blob.ellipse.a, blob.ellipse.angle) == (0.5, 0.25, 0.25, 0.0)
    assert "1 blob planned" in log
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert body["model"] == "small-one"
    assert body["seed"] == 2**40 % 2**31 + 5
    assert len(server.asked) == 2
    server.answers = [*server.answers, CAT, WORDS]
    assert plan(angle_zero="horizontal", model=" other ")[0].blobs[0].ellipse.angle == 90.0
    assert server.asked[2][2]["model"] == "other"


def test_a_malformed_answer_is_repaired(server):
    server.answers = [BAD_CAT, CAT, WORDS]
    blobs, log, _ = plan()
    assert blobs.blobs[0].ellipse.x == 0.5
    assert "cx is missing" in server.asked[1][2]["messages"][-1]["content"]
    assert "sent back: line 1 (cat): cx is missing" in log
    server.answers, server.asked = ["I would rather not."], []
    with pytest.raises(ValueError, match="'prompt': the model answered twice without a thing that could be placed"):
        plan()
    assert len(server.asked) == 2


@pytest.mark.parametrize(("answer", "words"), [
    (b"<html>hello</html>", "answered with something that is no chat completion"),
    (b"", "no chat completion"),
    (b'{"choices": []}', "no chat completion"),
    (b'{"choices": [{"message": {"content": null}}]}', "no chat completion"),
    (b"\xff\xfe{", "no chat completion"),
    (b"[" * 100_000, "no chat completion"),
    (b"x" * 1_100_000, "answered with more than 1000000 bytes"),
    (302, r"redirects to another address \(HTTP 302\), which is not followed"),
    (308, "HTTP 308"),
    (401, rf"refused the key \(HTTP 401\). Check {KEY}"),
    (429, "asked too often, or its quota is used up"),
    (500, r"failed \(HTTP 500\). Try again later. It says: its words"),
    (404, r"knows no such address or model \(HTTP 404\)"),
    (418, r"refused the request \(HTTP 418\).$"),
    (lambda handler: handler.connection.close(), "broke off|cannot be reached"),
])  # fmt: skip
def test_what_goes_wrong_is_a_sentence_without_the_key(server, caplog, answer, words):
    server.answers = [answer]
    with caplog.at_level(logging.DEBUG), pytest.raises(EndpointError, match=words) as caught:
        plan()
    assert len(server.asked) == 1  # a redirect is not followed
    assert f"127.0.0.1:{server.server_port}" in str(caught.value)
    everything = repr(caught.value) + caplog.text
    assert SECRET not in everything
    assert SECRET[:8] not in everything
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or SECRET not in repr(caught.value.__context__)


def slowly(handler):
    """Headers at once, then one byte at a time."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(60):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def test_slow_ones_and_those_who_wait_for_them(server, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    server.answers = [slowly]
    with pytest.raises(EndpointError, match=r"did not finish its answer within 0.3 seconds"):
        plan()
    server.answers = [lambda _: time.sleep(1)]
    with pytest.raises(EndpointError, match=r"within 0.3 seconds"):
        plan()
    monkeypatch.setattr(module, "TIMEOUT", 30.0)
    threading.Timer(0.2, comfy.model_management.interrupt_current_processing).start()
    start = time.monotonic()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        plan()
    assert time.monotonic() - start < 10
    assert not comfy.model_management.processing_interrupted()


def test_nobody_there(server, monkeypatch):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv(URL, f"http://127.0.0.1:{port}/v1")
    with pytest.raises(EndpointError, match=rf"127.0.0.1:{port} cannot be reached .*Is the server running"):
        plan()


@pytest.mark.parametrize(("settings", "words"), [
    ({URL: None}, f"No endpoint is set up: {URL} is not set"),
    ({KEY: " "}, f"{KEY} is not set"),
    ({URL: None, KEY: None}, f"{URL} and {KEY} are not set"),
    ({MODEL: None}, "No model is named: write its name into 'model'"),
    ({URL: "ftp://127.0.0.1/v1"}, f"{URL} is no base address"),
    ({URL: "http://name:word@127.0.0.1/v1"}, "no base address"),
    ({URL: "http://127.0.0.1/v1?key=3"}, "no base address"),
    ({URL: "http://127.0.0.1:99999/v1"}, "no base address"),
    ({URL: "nonsense"}, "no base address"),
    ({KEY: "two words"}, f"{KEY} holds a space"),
    ({KEY: "one\ntwo"}, f"{KEY} holds a space"),
])  # fmt: skip
def test_what_the_environment_must_have(server, monkeypatch, settings, words):
    for name, value in settings.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(EndpointError, match=words) as caught:
        plan()
    assert "two words" not in str(caught.value)
    assert "name:word" not in str(caught.value)
    assert not server.asked


def test_the_key_is_not_shown(server):
    found = endpoint_from_environment("m")
    assert found == Endpoint(f"{server.url}/chat/completions", "m", SECRET)
    assert SECRET not in repr(found)
    inputs = {item.id for item in PlanBlobs.GET_SCHEMA().inputs}
    assert not inputs & {"url", "key", "api_key", "base_url"}
