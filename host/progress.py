"""Shows on the terminal what a job is at: a bar for each node on a screen, plain lines in a file or a log."""

import time
from typing import TextIO

from . import workflow

BAR_WIDTH = 30
LINE_SECONDS = 10.0
"""At most one line in this time about one node's progress, where lines cannot be redrawn."""


class Progress:
    """Takes the messages about a job (Client.run's ``watch``) and writes about them.

    Args:
        stream: where to; a screen if it says it is one.
        prompt: the graph in API format, for the nodes' names.
    """

    def __init__(self, stream: TextIO, prompt: dict):
        self._stream, self._prompt = stream, prompt
        self._is_screen = stream.isatty()
        self._node: str | None = None
        self._started = self._told = time.monotonic()

    def __call__(self, kind: str, data: dict) -> None:
        """Take in one message."""
        if kind == "execution_cached" and data.get("nodes"):
            self._write(f"{len(data['nodes'])} nodes were computed before and are not run again.\n")
        elif kind == "executing":
            self._begin(data.get("display_node") or data.get("node"))
        elif kind == "progress" and data.get("max"):
            self._show(float(data.get("value") or 0), float(data["max"]))
        elif kind in ("execution_success", "execution_error", "execution_interrupted"):
            self._begin(None)

    def _name(self, node: str) -> str:
        described = self._prompt.get(node, {})
        kind = described.get("class_type", "?")
        title = workflow.title(described)
        return f"{node} {title} ({kind})" if title and title != kind else f"{node} ({kind})"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _begin(self, node: str | None) -> None:
        """The running node is done; ``node`` is the next one."""
        if node == self._node:
            return
        if self._node is not None:
            seconds = f"{time.monotonic() - self._started:.1f} s"
            if self._is_screen:
                self._write(f"\r\x1b[K{self._name(self._node)}  {seconds}\n")
            else:
                self._write(f"  done in {seconds}\n")
        self._node, self._started, self._told = node, time.monotonic(), time.monotonic()
        if node is not None:
            self._write(self._name(node) + ("" if self._is_screen else "\n"))

    def _show(self, value: float, total: float) -> None:
        """The running node has done ``value`` of ``total``."""
        if self._node is None:
            return
        share = min(max(value / total, 0.0), 1.0)
        if self._is_screen:
            filled = round(share * BAR_WIDTH)
            bar = "#" * filled + "." * (BAR_WIDTH - filled)
            self._write(f"\r\x1b[K{self._name(self._node)}  [{bar}] {value:g}/{total:g}")
        elif time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            self._write(f"  {value:g} of {total:g}\n")
