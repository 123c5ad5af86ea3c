"""Copies what a job made to a folder: nothing half-written, nothing outside it, nothing of before overwritten."""

import filecmp
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .client import Client
from .layout import HostError

RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that mean devices on Windows."""

MAXIMUM_NAME_BYTES = 200
MAXIMUM_NUMBER = 10000


@dataclass(frozen=True)
class Result:
    """One output file: the node that made it, its key in the history, what the server calls it, where it lies now."""

    node: str
    type: str
    kind: str
    entry: dict
    path: Path


def entries(outputs: dict) -> Iterator[tuple[str, str, dict]]:
    """Every file in a job's outputs, as (node id, key, entry).

    Other things that nodes show are passed over, and temporary files under a key of a node's own: its editor's.
    """
    for node, shown in outputs.items():
        for kind, values in shown.items() if isinstance(shown, dict) else ():
            for entry in values if isinstance(values, list) else ():
                if not (isinstance(entry, dict) and isinstance(entry.get("filename"), str) and entry["filename"]):
                    continue
                if kind == "images" or entry.get("type") != "temp":
                    yield str(node), str(kind), entry


def safe_parts(entry: dict) -> list[str]:
    """Folder names and file name for an entry, made harmless: whatever the server says, they lead downwards only.

    Raises:
        HostError: nothing is left of the name.
    """
    parts = []
    for part in re.split(r"[\\/]", f"{entry.get('subfolder') or ''}/{entry['filename']}"):
        clean = re.sub(r'[\x00-\x1f\x7f<>:"|?*]', "_", part).strip().rstrip(". ")
        if RESERVED.fullmatch(clean):
            clean = f"_{clean}"
        stem, suffix = os.path.splitext(clean)
        while len((stem + suffix).encode("utf-8", "replace")) > MAXIMUM_NAME_BYTES:
            stem, suffix = stem[:-1], suffix[:20]
        parts.append(stem + suffix)
    if not parts[-1]:
        raise HostError(f"The server names an output file {entry['filename']!r}, which is no file name.")
    return [part for part in parts if part]


def destination(folder: Path, entry: dict) -> Path:
    """Where an entry belongs under ``folder``.

    Raises:
        HostError: a link on the way leads out of ``folder``.
    """
    path = folder.joinpath(*safe_parts(entry))
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise HostError(f"{path} lies outside {folder} (a link leads there); the output is not written.")
    return path


def put(unfinished: Path, path: Path) -> Path:
    """Give a finished file its place: ``path``, or a numbered one beside it where another file has that name."""
    for number in range(1, MAXIMUM_NUMBER):
        candidate = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        if not candidate.exists() and not candidate.is_symlink():
            unfinished.replace(candidate)
            return candidate
        if candidate.is_file() and filecmp.cmp(unfinished, candidate, shallow=False):
            unfinished.unlink()
            return candidate
    raise HostError(f"{path.parent} holds too many files named like {path.name}; tidy it up.")


async def collect(client: Client, outputs: dict, prompt: dict, folder: Path) -> list[Result]:
    """Fetch every output file of a job into ``folder``.

    Raises:
        HostError: a file cannot be fetched or written; files fetched before it stay.
    """
    found, seen = [], set()
    for node, kind, entry in entries(outputs):
        key = tuple(str(entry.get(name, "")) for name in ("filename", "subfolder", "type"))
        if key in seen:
            continue
        seen.add(key)
        path = destination(folder, entry)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".unfinished-", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as stream:
                    await client.download(entry, stream.write)
                os.chmod(name, 0o644)  # mkstemp makes files for the owner alone
                placed = put(Path(name), path)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"{path} cannot be written: {error.strerror or error}.") from error
        found.append(Result(node, prompt.get(node, {}).get("class_type", ""), kind, entry, placed))
    return found
