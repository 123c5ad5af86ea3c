"""Starts a ComfyUI server as a child process, waits until it answers, and stops it for sure. Standard library only."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from . import comfyui, layout
from .layout import HostError

READY_SECONDS = 300.0
"""How long a start may take. The first one on a slow disk compiles and reads all of PyTorch."""

STOP_SECONDS = 10.0
LOG_TAIL_LINES = 25
MAXIMUM_UPLOAD_MB = 4096
PORT_TRIES = 3


class Server:
    """A running ComfyUI, used as ``with Server(comfyui.find()) as server: ... server.url``.

    Args:
        installation: which ComfyUI.
        base: base directory of its own (tests); the usual folders if None.
        arguments: further arguments for main.py.
        port: port to listen on; a free one if None.
        cpu: True or False to force it; found out if None.
        database: file for ComfyUI's own records; one in the run's folder if None.
        say: told of what takes long.
    """

    def __init__(
        self,
        installation: comfyui.Installation,
        *,
        base: Path | None = None,
        arguments: tuple[str, ...] = (),
        port: int | None = None,
        cpu: bool | None = None,
        database: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.installation = installation
        self._base, self._arguments, self._port, self._cpu = base, arguments, port, cpu
        self._database, self._say = database, say
        self._process: subprocess.Popen | None = None
        self.folder: Path | None = None
        self.url = ""

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.stop(keep_log=kind is not None)

    @property
    def log(self) -> Path:
        """The file with everything the server said."""
        return self.folder / "comfyui.log"

    def is_running(self) -> bool:
        """Whether the child process is alive."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self) -> str:
        """The end of the log, to show beside a failure."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            HostError: it ended or stayed silent for READY_SECONDS; the message carries the log's end.
        """
        layout.RUNS.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=layout.RUNS))
        try:
            cpu = self._cpu if self._cpu is not None else not comfyui.has_accelerator(self.installation.python)
            for attempt in range(PORT_TRIES):
                self._launch(self._port or free_port(), cpu)
                try:
                    self._wait()
                    return
                except HostError:
                    taken = "address already in use" in self.log_tail().lower()
                    if self._port or not taken or attempt == PORT_TRIES - 1:
                        raise
        except BaseException:
            self.stop(keep_log=True)
            raise

    def _launch(self, port: int, cpu: bool) -> None:
        """Start the child process listening on ``port``."""
        self.url = f"http://127.0.0.1:{port}"
        command = [str(self.installation.python), str(Path(__file__).with_name("guard.py"))]
        command += [str(self.installation.code / "main.py"), "--listen", "127.0.0.1", "--port", str(port)]
        command += comfyui.folder_arguments(self.installation, self.folder, self._base)
        command += ["--database-url", f"sqlite:///{self._database or self.folder / 'comfyui.db'}"]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--max-upload-size", str(MAXIMUM_UPLOAD_MB)]
        command += ["--cpu"] * cpu
        command += self._arguments
        # Threads of PyTorch that wait for each other sleep: on a machine where a browser or another server wants the
        # same processors, spinning makes a job of three seconds one of thirty.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        where = "CPU" if cpu else "accelerator"
        self._say(f"Starting ComfyUI ({self.installation.code}, {where}).")
        with self.log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=self.installation.code,
                    env=environment,
                    # Ctrl-C at the terminal is for the runner, which interrupts the job and then stops the server.
                    start_new_session=sys.platform != "win32",
                )  # fmt: skip
            except OSError as error:
                raise HostError(f"{self.installation.python} cannot be started: {error.strerror}.") from error

    def _wait(self) -> None:
        """Return once the server answers a request."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if not self.is_running():
                raise HostError(f"ComfyUI ended while starting ({self.log}). Its last lines:\n{self.log_tail()}")
            try:
                with opener.open(f"{self.url}/system_stats", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise HostError(
            f"ComfyUI did not answer within {READY_SECONDS:.0f} s ({self.log}). Its last lines:\n{self.log_tail()}"
        )

    def stop(self, keep_log: bool = False) -> None:
        """End the child process, kindly and then by force, and remove the run's folder (all but the log if asked)."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process = None
        if self.folder is not None and self.folder.exists():
            if keep_log and self.log.exists():
                layout.LOGS.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.log, layout.LOGS / "comfyui.log")
            shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """A port of this machine that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
