"""The Chromium that browser tests drive: finds an installed one, or installs Debian's. Standard library only."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from . import installer
from .layout import HostError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/usr/lib/chromium/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def find_chromium() -> Path | None:
    """The browser's program: CHROMIUM_PATH if it is set, else one on PATH or in the usual places, else None.

    Raises:
        HostError: CHROMIUM_PATH names no file.
    """
    named = os.environ.get("CHROMIUM_PATH")
    if named:
        if not Path(named).is_file():
            raise HostError(f"CHROMIUM_PATH is {named}, which is no file; correct it or unset it.")
        return Path(named)
    found = (shutil.which(name) for name in NAMES)
    return next((Path(path) for path in (*found, *PLACES) if path and Path(path).is_file()), None)


def install_chromium(say: Callable[[str], None]) -> None:
    """Install Debian's Chromium when there is none and this is root on Debian; otherwise leave things as they are."""
    if find_chromium() is None and installer.is_debian() and installer.can_apt():
        installer.apt_install("chromium", say, "about a minute")
