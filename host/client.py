"""Talks to a ComfyUI server: uploads files, queues a graph, follows it, fetches what it made. Needs aiohttp."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from .layout import HostError

CONNECT_SECONDS = 15.0
SILENCE_SECONDS = 300.0
"""Longest wait for the next byte of an answer. Validating a graph may read large files before it answers."""

POLL_SECONDS = 2.0
HISTORY_SECONDS = 30.0
"""The end of a job is announced a moment before its record is written; how long that moment may be."""

END_EVENTS = ("execution_success", "execution_error", "execution_interrupted")

Watch = Callable[[str, dict], None]


@dataclass(frozen=True)
class NodeError:
    """One thing that went wrong, at a node if one is to blame."""

    message: str
    node: str | None = None
    type: str | None = None

    def __str__(self) -> str:
        return f"{self.node} ({self.type}): {self.message}" if self.node is not None else self.message


@dataclass
class Outcome:
    """What became of a queued graph.

    Attributes:
        status: "success", "error" or "interrupted".
        prompt_id: the server's name for the job, None if it was refused.
        outputs: node id -> key -> list of entries, as in the server's history.
        ran: ids of the nodes that were executed or taken from the cache.
        errors: in the order they came.
    """

    status: str
    prompt_id: str | None = None
    outputs: dict[str, dict] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    errors: list[NodeError] = field(default_factory=list)


def check_url(text: str) -> str:
    """The address of a server, without a trailing slash.

    Raises:
        HostError: it is no plain http or https address.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError on a port that is none
    except ValueError as error:
        raise HostError(
            f"--server {text!r} is no address ({error}); expected one such as http://127.0.0.1:8188."
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HostError(f"--server {text!r} is no address; expected one such as http://127.0.0.1:8188.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise HostError("--server takes scheme, host, port and path only, without a user name, a query or a fragment.")
    return text.rstrip("/")


async def _refuse_redirect(session, context, parameters) -> None:
    """Called by aiohttp before it follows a redirect, which might lead to another host."""
    raise HostError(f"{parameters.url} answered with a redirect; give the address it leads to, if it is to be trusted.")


class Client:
    """A connection to one server, used as ``async with Client(url) as client``.

    Args:
        url: address as ``check_url`` returns it.
        check_alive: called now and then while waiting; raises HostError when waiting has become pointless.
    """

    def __init__(self, url: str, check_alive: Callable[[], None] = lambda: None):
        self.url = url
        self._check_alive = check_alive
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Client":
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)
        self._session = aiohttp.ClientSession(timeout=timeout, trace_configs=[trace], trust_env=False)
        return self

    async def __aexit__(self, *failure) -> None:
        await self._session.close()

    @contextlib.asynccontextmanager
    async def _request(self, method: str, path: str, **options):
        """An answer of any status; connection failures come as HostError."""
        try:
            async with self._session.request(method, self.url + path, **options) as response:
                yield response
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            self._check_alive()
            raise HostError(f"{self.url} cannot be reached: {error or 'no answer in time'}.") from error

    async def _json(self, method: str, path: str, accept: tuple[int, ...] = (200,), **options) -> tuple[int, dict]:
        """Status and decoded body of an answer whose status is among ``accept``."""
        async with self._request(method, path, **options) as response:
            body = await response.read()
            if response.status not in accept:
                text = body.decode("utf-8", "replace").strip()[:200]
                raise HostError(f"{self.url}{path} answered {response.status} {response.reason}: {text}")
        try:
            value = json.loads(body)
        except ValueError as error:
            raise HostError(f"{self.url}{path} did not answer with JSON; is it a ComfyUI server?") from error
        if not isinstance(value, dict):
            raise HostError(f"{self.url}{path} answered with something unexpected; is it a ComfyUI server?")
        return response.status, value

    async def object_info(self) -> dict:
        """The server's description of every node class."""
        return (await self._json("GET", "/object_info"))[1]

    async def upload(self, path: Path) -> str:
        """Copy a file of any kind into the server's input folder.

        Returns:
            The name it got there: another than its own if a different file of that name was there already.
        """
        with path.open("rb") as stream:
            form = aiohttp.FormData()
            form.add_field("image", stream, filename=path.name, content_type="application/octet-stream")
            form.add_field("type", "input")
            async with self._request("POST", "/upload/image", data=form) as response:
                if response.status == 413:
                    raise HostError(
                        f"The server refuses {path} as too large; start it with a larger --max-upload-size."
                    )
                body = await response.text()
                if response.status != 200:
                    raise HostError(f"The server refuses {path}: {response.status} {response.reason} {body[:200]}")
        try:
            answer = json.loads(body)
            folder = answer.get("subfolder")
            return f"{folder}/{answer['name']}" if folder else answer["name"]
        except (ValueError, KeyError, AttributeError) as error:
            raise HostError(
                f"The server's answer to the upload of {path} cannot be understood: {body[:200]}"
            ) from error

    async def download(self, entry: dict, write: Callable[[bytes], object]) -> None:
        """Hand the content of one output file to ``write``, piece by piece.

        Args:
            entry: filename, subfolder and type, as the server's history has them.
            write: takes bytes.
        """
        query = {name: str(entry.get(name, "")) for name in ("filename", "subfolder", "type")}
        async with self._request("GET", "/view", params=query) as response:
            if response.status != 200:
                raise HostError(
                    f"The server does not hand out {query['filename']!r}: {response.status} {response.reason}"
                )
            async for piece in response.content.iter_chunked(1 << 20):
                write(piece)

    async def run(self, prompt: dict, workflow: dict | None = None, watch: Watch = lambda kind, data: None) -> Outcome:
        """Queue a graph and wait for its end. Cancelling this call interrupts the job on the server.

        Args:
            prompt: the graph in API format.
            workflow: the same in the editor's format, which nodes write into their files.
            watch: called with the type and data of each message about this job.
        """
        client_id = uuid.uuid4().hex
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
        socket = await self._listen(client_id)
        try:
            body = {"prompt": prompt, "client_id": client_id, "extra_data": extra}
            status, answer = await self._json("POST", "/prompt", accept=(200, 400), json=body)
            errors = list(read_refusal(answer, prompt))
            if status == 400 or "prompt_id" not in answer:
                return Outcome("error", errors=errors or [NodeError("The server refused the graph without a reason.")])
            outcome = Outcome("error", prompt_id=str(answer["prompt_id"]), errors=errors)
            try:
                await self._follow(socket, outcome, watch)
                record = await self._history(outcome.prompt_id)
            except asyncio.CancelledError:
                await self.interrupt(outcome.prompt_id)
                raise
            read_history(record, outcome)
            return outcome
        finally:
            if socket is not None:
                await socket.close()

    async def _listen(self, client_id: str) -> aiohttp.ClientWebSocketResponse | None:
        """The stream of messages for ``client_id``, or None where none can be had (the history is polled then)."""
        try:
            return await self._session.ws_connect(f"{self.url}/ws?clientId={client_id}", max_msg_size=0)
        except (aiohttp.ClientError, asyncio.TimeoutError):
            return None

    async def _follow(self, socket, outcome: Outcome, watch: Watch) -> None:
        """Return when the job has ended."""
        while True:
            message = None
            if socket is None:
                await asyncio.sleep(POLL_SECONDS)
            else:
                with contextlib.suppress(asyncio.TimeoutError):
                    message = await socket.receive(timeout=POLL_SECONDS)
            if message is None:
                self._check_alive()
                if await self._find_record(outcome.prompt_id) is not None:
                    return
                if socket is None:
                    await self._check_queued(outcome.prompt_id)
            elif message.type == aiohttp.WSMsgType.TEXT:
                if note(message.data, outcome, watch):
                    return
            elif message.type != aiohttp.WSMsgType.BINARY:  # closed or broken; BINARY are preview pictures
                socket = None

    async def _find_record(self, prompt_id: str) -> dict | None:
        return (await self._json("GET", f"/history/{prompt_id}"))[1].get(prompt_id)

    async def _check_queued(self, prompt_id: str) -> None:
        """Raise HostError if the server no longer knows the job (it was restarted, say)."""
        _, queue = await self._json("GET", "/queue")
        jobs = [*queue.get("queue_running", ()), *queue.get("queue_pending", ())]
        if not any(prompt_id in job for job in jobs) and await self._find_record(prompt_id) is None:
            raise HostError(f"{self.url} no longer knows this job; it was restarted or its queue was cleared.")

    async def _history(self, prompt_id: str) -> dict:
        """The server's record of an ended job."""
        deadline = time.monotonic() + HISTORY_SECONDS
        while (record := await self._find_record(prompt_id)) is None:
            if time.monotonic() > deadline:
                raise HostError(f"{self.url} keeps no record of the job that it ended; its results cannot be found.")
            self._check_alive()
            await asyncio.sleep(0.1)
        return record

    async def interrupt(self, prompt_id: str) -> None:
        """Stop the job if it runs and take it from the queue if it waits; failures are of no use to anybody by then."""
        with contextlib.suppress(HostError, asyncio.TimeoutError):
            for path, body in (("/queue", {"delete": [prompt_id]}), ("/interrupt", {"prompt_id": prompt_id})):
                async with self._request("POST", path, json=body, timeout=aiohttp.ClientTimeout(total=5)):
                    pass


def note(text: str, outcome: Outcome, watch: Watch) -> bool:
    """Take in one message of the stream; returns whether it says that the job has ended."""
    try:
        message = json.loads(text)
        kind, data = message["type"], message["data"]
        concerns_us = data.get("prompt_id") == outcome.prompt_id
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    if not concerns_us:
        return False
    if kind == "execution_cached":
        outcome.ran.update(map(str, data.get("nodes") or ()))
    elif kind in ("executing", "executed") and data.get("node") is not None:
        outcome.ran.add(str(data["node"]))
    watch(kind, data)
    return kind in END_EVENTS or (kind == "executing" and data.get("node") is None)


def read_refusal(answer: dict, prompt: dict):
    """The errors in an answer to /prompt; an answer of status 200 can carry some as well.

    Yields:
        NodeError: one for each message at each node; the general one only where no node is to blame.
    """
    found = False
    for node, described in (answer.get("node_errors") or {}).items():
        kind = described.get("class_type") or prompt.get(node, {}).get("class_type")
        for error in described.get("errors") or ():
            found = True
            yield NodeError(": ".join(filter(None, (error.get("message"), error.get("details")))), str(node), kind)
    general = answer.get("error")
    if general and not found:
        if isinstance(general, dict):
            general = ": ".join(filter(None, (general.get("message"), str(general.get("details") or ""))))
        yield NodeError(str(general))


def read_history(record: dict, outcome: Outcome) -> None:
    """Complete ``outcome`` with the server's record of the job."""
    outcome.outputs = record.get("outputs") or {}
    outcome.ran.update(outcome.outputs)
    status = record.get("status") or {}
    for kind, data in status.get("messages") or ():
        if kind == "execution_cached":
            outcome.ran.update(map(str, data.get("nodes") or ()))
        elif kind in ("execution_error", "execution_interrupted"):
            message = "interrupted"
            if kind == "execution_error":
                message = f"{data.get('exception_type', 'error')}: {str(data.get('exception_message', '')).strip()}"
            node = data.get("node_id")
            outcome.errors.append(NodeError(message, None if node is None else str(node), data.get("node_type")))
            outcome.status = "interrupted" if kind == "execution_interrupted" else "error"
            return
    if status.get("status_str") == "success":
        # Where the stream of messages broke off, the job's own list says what a success has run.
        queued = record.get("prompt") or ()
        if len(queued) > 4:
            outcome.ran.update(map(str, queued[4]))
        outcome.status = "error" if outcome.errors else "success"
    elif not outcome.errors:
        outcome.errors.append(NodeError(f"The server ended the job as {status.get('status_str')!r} without a reason."))
