"""A language model behind an address: chat completions as OpenAI's servers, Ollama, llama.cpp and vLLM take them.

Address and key come from the environment together and from nowhere else: a stranger's workflow must not be able to send
the key to a server of its own. So no redirect is followed, and no message holds the key.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

URL, KEY, MODEL = "PAPERNODES_ENDPOINT_URL", "PAPERNODES_ENDPOINT_KEY", "PAPERNODES_ENDPOINT_MODEL"

TIMEOUT = 120.0
"""Seconds that one answer may take."""

LARGEST_ANSWER = 1_000_000
"""Bytes."""

POLL = 0.1
"""Seconds between looks at whether the person has cancelled."""

CHUNK = 65536
LONGEST_MODEL_NAME = 200

SETUP = (
    f"Set {URL} (for example http://127.0.0.1:11434/v1) and {KEY} (any word where the server wants none) in the "
    "environment that ComfyUI is started in, and start it again, or set 'planner' to rules."
)


class EndpointError(ValueError):
    """Why there is no answer, in a sentence for the person at the graph."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask."""

    url: str
    model: str
    key: str = field(repr=False)


def endpoint_from_environment(model: str = "") -> Endpoint:
    """The endpoint that the environment names.

    Args:
        model: its name; empty = the environment's.

    Raises:
        EndpointError: an address or a key is missing or unusable, or no model is named.
    """
    url, key = os.environ.get(URL, "").strip(), os.environ.get(KEY, "").strip()
    missing = [name for name, value in ((URL, url), (KEY, key)) if not value]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise EndpointError(f"No endpoint is set up: {' and '.join(missing)} {are} not set. {SETUP}")
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or parts.username or parts.password or parts.query or parts.fragment or not _plain(url):
        raise EndpointError(
            f"{URL} is no base address; expected http:// or https:// with a host and a path such as /v1, and no "
            f"password, question mark or space in it. {SETUP}"
        )
    if not _plain(key):
        raise EndpointError(f"{KEY} holds a space or a character that no key has. {SETUP}")
    model = model.strip() or os.environ.get(MODEL, "").strip()
    if not model or len(model) > LONGEST_MODEL_NAME:
        raise EndpointError(
            f"No model is named: write its name into 'model', at most {LONGEST_MODEL_NAME} characters, or set {MODEL} "
            "in ComfyUI's environment."
        )
    url = url.rstrip("/")
    return Endpoint(url if url.endswith("/chat/completions") else f"{url}/chat/completions", model, key)


def ask(endpoint: Endpoint, messages: list[dict[str, str]], seed: int, check: Callable[[], None]) -> str:
    """One answer of the model.

    Args:
        messages: role and content.
        seed: passed on; not every server heeds it.
        check: called ten times a second; what it raises ends the waiting.

    Raises:
        EndpointError: no answer, a redirect, an error of the server, too slow, too large, or no chat completion.
    """
    body = {"model": endpoint.model, "messages": messages, "seed": seed % 2**31, "stream": False}
    request = urllib.request.Request(
        endpoint.url,
        data=json.dumps(body).encode(),
        headers={
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Authorization": f"Bearer {endpoint.key}",
            "User-Agent": "ComfyUI-PaperNodes",
        },
        method="POST",
    )
    call = _Call(request, endpoint)
    call.start()
    until = time.monotonic() + TIMEOUT
    try:
        while call.is_alive():
            check()
            call.join(POLL)
            if time.monotonic() > until and call.is_alive():
                raise EndpointError(
                    f"{_host(endpoint)} did not finish its answer within {TIMEOUT:g} seconds. Try again, or a smaller "
                    "model."
                )
    finally:
        call.stopped.set()
    if call.error:
        raise EndpointError(call.error)
    return _content(call.answer, endpoint)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the key would go along."""

    def redirect_request(self, *_):
        return None


class _Call(threading.Thread):
    """The request, in a thread that may be left behind; what it found is in ``answer`` or ``error``."""

    def __init__(self, request: urllib.request.Request, endpoint: Endpoint) -> None:
        super().__init__(daemon=True, name="papernodes-endpoint")
        self.request, self.endpoint = request, endpoint
        self.stopped = threading.Event()
        self.answer, self.error = b"", ""

    def run(self) -> None:
        """Never raises: a thread's traceback would be printed."""
        host = _host(self.endpoint)
        try:
            opener = urllib.request.build_opener(_NoRedirect)
            with opener.open(self.request, timeout=TIMEOUT) as response:
                self._read(response)
        except urllib.error.HTTPError as error:
            with error:
                self.error = _said(error.code, _server_words(error, self.endpoint), host)
        except TimeoutError:
            self.error = f"{host} did not answer within {TIMEOUT:g} seconds. Try again, or a smaller model."
        except urllib.error.URLError as error:
            slow = isinstance(error.reason, TimeoutError)
            why = (
                f"did not answer within {TIMEOUT:g} seconds" if slow else f"cannot be reached ({_reason(error.reason)})"
            )
            self.error = f"{host} {why}. Is the server running, and is {URL} right?"
        except Exception as error:  # noqa: BLE001 - its text may hold the headers, hence the key
            self.error = f"{host} broke off ({type(error).__name__}). Try again."

    def _read(self, response) -> None:
        chunks, size = [], 0
        while not self.stopped.is_set():
            chunk = response.read1(CHUNK)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_ANSWER:
                self.error = (
                    f"{_host(self.endpoint)} answered with more than {LARGEST_ANSWER} bytes; that is no layout."
                )
                return
        self.answer = b"".join(chunks)


def _host(endpoint: Endpoint) -> str:
    return f"The endpoint {urllib.parse.urlsplit(endpoint.url).netloc}"


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _reason(reason: object) -> str:
    return reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__


def _said(code: int, words: str, host: str) -> str:
    """What an HTTP status means for the person."""
    if code in (401, 403):
        return f"{host} refused the key (HTTP {code}). Check {KEY}."
    if code == 429:
        return f"{host} is asked too often, or its quota is used up (HTTP 429). Wait, and try again."
    if 300 <= code < 400:
        return f"{host} redirects to another address (HTTP {code}), which is not followed. Set {URL} to the final one."
    words = f" It says: {words}" if words else ""
    if code >= 500:
        return f"{host} failed (HTTP {code}). Try again later.{words}"
    if code == 404:
        return f"{host} knows no such address or model (HTTP 404). Check {URL} and 'model'.{words}"
    return f"{host} refused the request (HTTP {code}).{words}"


def _server_words(error: urllib.error.HTTPError, endpoint: Endpoint) -> str:
    """The server's own message, unless it holds a piece of the key."""
    try:
        content = json.loads(error.read1(CHUNK))["error"]
        words = content["message"] if isinstance(content, dict) else content
        words = " ".join("".join(c if c.isprintable() else " " for c in words).split())[:200]
    except Exception:  # noqa: BLE001 - any server may say anything
        return ""
    piece = endpoint.key[:6]
    return "" if piece in words else words


def _content(answer: bytes, endpoint: Endpoint) -> str:
    """The text of a chat completion."""
    try:
        text = json.loads(answer)["choices"][0]["message"]["content"]
        if isinstance(text, list):
            text = "".join(part["text"] for part in text if part.get("type") == "text")
        if isinstance(text, str):
            return text
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise EndpointError(
        f"{_host(endpoint)} answered with something that is no chat completion. Is {URL} the address of an "
        "OpenAI-compatible server, with /v1 where it has one?"
    )
