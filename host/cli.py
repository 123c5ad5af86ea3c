"""The headless runner's command line, started by host/run.py. Results go to stdout, all else to stderr."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from pathlib import Path

from . import comfyui, results, workflow
from .client import Client, NodeError, Outcome, check_url
from .layout import HostError
from .progress import Progress
from .server import Server

SUCCESS, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

EPILOG = """NODE is a node's id, or its title or class where only one node has it. Exit status: 0 if every output node
ran, 1 if something failed, 2 if the arguments or the server are of no use, 130 after Ctrl-C."""


def say(text: str) -> None:
    """One line for the person who waits."""
    print(text, file=sys.stderr, flush=True)


def read_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; argparse itself ends the process with status 2 if it cannot."""
    parser = argparse.ArgumentParser(
        prog="host/run.py",
        description="Runs a ComfyUI workflow without a browser and copies what it makes.",
        epilog=EPILOG,
    )
    parser.add_argument("workflow", type=Path, metavar="WORKFLOW.json", help="in the editor's format or the API's")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="change one input")
    parser.add_argument("--input", action="append", default=[], type=Path, metavar="FILE",
                        help="a picture, video, latent or flow to copy into the server's input folder")  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("output"), metavar="DIR", help="where results go (./output)"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--comfyui", metavar="DIR", help="start this ComfyUI in place of the embedded one")
    where.add_argument("--server", metavar="URL", help="use a server that runs already")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of paths")
    return parser.parse_args(argv)


def check_files(arguments: argparse.Namespace) -> None:
    """Refuse, before anything is started, files that cannot be read and folders that cannot be written.

    Raises:
        HostError: names the argument.
    """
    names = {}
    for path in arguments.input:
        if not path.is_file():
            raise HostError(f"--input {path}: there is no such file.")
        if names.setdefault(path.name, path.resolve()) != path.resolve():
            raise HostError(
                f"--input names two files called {path.name}; the server's input folder holds one of a name."
            )
    if arguments.output.exists() and not arguments.output.is_dir():
        raise HostError(f"--output {arguments.output} is a file; a folder was expected.")


def cancel_on_signals() -> None:
    """Let Ctrl-C and a request to end cancel the running task, so that it can interrupt the job before it goes.

    Python 3.11 does so for Ctrl-C by itself, 3.10 does not; Windows has no such handlers and does with Python's own.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, task.cancel)


async def run_on(url: str, graph: workflow.Graph, arguments, settings, check_alive=lambda: None):
    """Run the graph on the server at ``url``.

    Returns:
        The outcome and the list of files copied.

    Raises:
        HostError: the arguments do not fit the graph, or the server cannot be used.
    """
    cancel_on_signals()
    async with Client(url, check_alive) as client:
        object_info = await client.object_info()
        prompt = workflow.to_api(graph, object_info)
        for setting in settings:
            workflow.apply_setting(prompt, setting, object_info)
        unknown = [(key, node["class_type"]) for key, node in prompt.items() if node["class_type"] not in object_info]
        if unknown:
            message = "this server has no such node; the custom nodes it belongs to are missing or failed to load"
            return Outcome("error", errors=[NodeError(message, *where) for where in unknown]), []
        workflow.rename_files(prompt, {path.name: await client.upload(path) for path in arguments.input})
        try:
            outcome = await client.run(prompt, graph.content if graph.is_ui else None, Progress(sys.stderr, prompt))
        except HostError as error:  # the server went away at work: the run failed, the arguments were not at fault
            return Outcome("error", errors=[NodeError(str(error))]), []
        blamed = {error.node for error in outcome.errors}
        if outcome.prompt_id is not None:
            for node in workflow.output_nodes(prompt, object_info):
                if node not in outcome.ran and node not in blamed:
                    outcome.errors.append(NodeError("this output node did not run", node, prompt[node]["class_type"]))
        if outcome.errors and outcome.status == "success":
            outcome.status = "error"
        try:
            return outcome, await results.collect(client, outcome.outputs, prompt, arguments.output)
        except HostError as error:
            outcome.status = "error"
            outcome.errors.append(NodeError(str(error)))
            return outcome, []


def run(arguments: argparse.Namespace):
    """Check the arguments, start a server if none is named, run the graph.

    Returns:
        The outcome and the list of files copied.

    Raises:
        HostError: the arguments are of no use.
    """
    settings = [workflow.parse_setting(text) for text in arguments.set]
    graph = workflow.load(arguments.workflow)
    check_files(arguments)
    if not graph.is_ui:
        for setting in settings:  # the editor's format is known only once a server has told of its nodes
            workflow.find_target(graph.content, setting)
    if arguments.server:
        return asyncio.run(run_on(check_url(arguments.server), graph, arguments, settings))
    with Server(comfyui.find(arguments.comfyui), say=say) as server:

        def check_alive() -> None:
            if not server.is_running():
                raise HostError(f"ComfyUI ended unexpectedly. Its last lines:\n{server.log_tail()}")

        return asyncio.run(run_on(server.url, graph, arguments, settings, check_alive))


def report(outcome: Outcome, copied: list[results.Result], seconds: float, as_json: bool) -> None:
    """Print the results and the errors."""
    for error in outcome.errors:
        say(f"error: {error}")
    if not as_json:
        for result in copied:
            print(result.path, flush=True)
        return
    described = {
        "status": outcome.status,
        "prompt_id": outcome.prompt_id,
        "seconds": round(seconds, 2),
        "outputs": [
            {"node": one.node, "type": one.type, "kind": one.kind, "path": str(one.path), "server": one.entry}
            for one in copied
        ],
        "errors": [{"node": error.node, "type": error.type, "message": error.message} for error in outcome.errors],
    }
    print(json.dumps(described, indent=1), flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = read_arguments(argv)
    with contextlib.suppress(ValueError):  # only the main thread may set it
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside is as good as Ctrl-C
    started = time.monotonic()
    copied: list[results.Result] = []
    try:
        outcome, copied = run(arguments)
        status = SUCCESS if outcome.status == "success" else FAILED
    except HostError as error:
        outcome, status = Outcome("error", errors=[NodeError(str(error))]), UNUSABLE
    except (KeyboardInterrupt, asyncio.CancelledError):
        outcome, status = Outcome("interrupted", errors=[NodeError("Interrupted.")]), INTERRUPTED
    report(outcome, copied, time.monotonic() - started, arguments.json)
    return status
