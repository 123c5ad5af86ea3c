"""A server that speaks as much of ComfyUI's protocol as the runner needs, and misbehaves as a test wishes."""

import asyncio
import threading
from contextlib import contextmanager

from aiohttp import web

PROMPT_ID = "job-1"
OBJECT_INFO = {
    "Make": {"input": {"required": {}}, "output_node": True},
    "Show": {"input": {"required": {}}, "output_node": True},
}
GRAPH = {"1": {"class_type": "Make", "inputs": {}}}
IMAGE = {"filename": "a.png", "subfolder": "", "type": "output"}


class Fake:
    """What the fake answers; tests change the attributes before they start it.

    Attributes:
        outputs: the job's outputs in its history.
        answer: body of the answer to /prompt.
        executed: ids of the nodes said to have been executed.
        files: name -> content that /view hands out.
        cut: whether /view breaks off in the middle.
        redirects: path -> address it redirects to.
        requests: paths that were asked for.
    """

    def __init__(self):
        self.outputs = {"1": {"images": [dict(IMAGE)]}}
        self.answer = {"prompt_id": PROMPT_ID, "number": 1, "node_errors": {}}
        self.executed = ["1"]
        self.files = {"a.png": b"content"}
        self.cut = False
        self.redirects = {}
        self.requests = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.requests.append(request.path)
        if request.path in self.redirects:
            raise web.HTTPFound(self.redirects[request.path])
        if request.path == "/object_info":
            return web.json_response(OBJECT_INFO)
        if request.path == "/prompt":
            return web.json_response(self.answer)
        if request.path == f"/history/{PROMPT_ID}":
            status = {"status_str": "success", "completed": True, "messages": []}
            prompt = [1, PROMPT_ID, {}, {}, self.executed]
            return web.json_response({PROMPT_ID: {"outputs": self.outputs, "status": status, "prompt": prompt}})
        if request.path == "/view":
            content = self.files.get(request.query["filename"], b"content")
            if self.cut:
                response = web.StreamResponse(headers={"Content-Length": str(len(content) + 1000)})
                await response.prepare(request)
                await response.write(content)
                request.transport.close()
                return response
            return web.Response(body=content)
        raise web.HTTPNotFound  # among them /ws: the runner then polls the history


@contextmanager
def serving(fake: Fake):
    """Run the fake in a thread; yields its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[web.AppRunner, str]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", fake.handle)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"

    runner, url = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield url
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
