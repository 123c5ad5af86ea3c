"""Files named in widgets: read from ComfyUI's input and output folders, written to its output folder."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import folder_paths

OUTPUT_MARK = " [output]"
INPUT_MARK = " [input]"


def list_files(suffixes: Iterable[str]) -> list[str]:
    """Names for a combo: files of the input folder, then those of the output folder with the host's `` [output]``.

    Sub-folders are searched; names have forward slashes. Links that lead out of the folder are left out.
    """
    suffixes = tuple(suffixes)
    names = []
    folders = ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), OUTPUT_MARK))
    for folder, mark in folders:
        root = os.path.realpath(folder)
        found = []
        for current, directories, files in os.walk(root):
            directories[:] = [name for name in directories if not name.startswith(".")]
            for name in files:
                path = os.path.join(current, name)
                if name.lower().endswith(suffixes) and not name.startswith(".") and _is_inside(path, root):
                    found.append(os.path.relpath(path, root).replace(os.sep, "/") + mark)
        names.extend(sorted(found))
    return names


def find_file(name: str, suffixes: Iterable[str]) -> Path:
    """The file that a combo's value names.

    Args:
        name: relative to the input folder, or to the output folder where it ends in `` [output]``.
        suffixes: accepted endings, lower case, with the dot.

    Raises:
        ValueError: an absolute path, a path or link that leaves the folder, another ending, or no such file.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError("no file is chosen. Put one into ComfyUI's input folder, reload the page and choose it.")
    suffixes = tuple(suffixes)
    where, folder, relative = "input", folder_paths.get_input_directory(), name
    if name.endswith(OUTPUT_MARK):
        where, folder, relative = "output", folder_paths.get_output_directory(), name[: -len(OUTPUT_MARK)]
    elif name.endswith(INPUT_MARK):
        relative = name[: -len(INPUT_MARK)]
    parts = re.split(r"[\\/]", relative)
    # Windows' drive letters and both slashes are refused everywhere, so that a workflow means the same on every system.
    if "\0" in relative or ":" in relative or relative.startswith(("/", "\\", "~")) or ".." in parts:
        raise ValueError(
            f"{name!r} leaves ComfyUI's {where} folder; only files inside the input and output folders are read."
        )
    if not relative.lower().endswith(suffixes):
        raise ValueError(
            f"{name!r} is none of the files that are read here; expected a name that ends in {', '.join(suffixes)}."
        )
    path = os.path.join(os.path.realpath(folder), *parts)
    if not _is_inside(path, os.path.realpath(folder)):
        raise ValueError(f"{name!r} is a link that leaves ComfyUI's {where} folder; copy the file there instead.")
    if not os.path.isfile(path):
        raise ValueError(f"{name!r} does not exist in ComfyUI's {where} folder ({folder}).")
    return Path(os.path.realpath(path))


def numbered_files(first: Path) -> list[Path]:
    """The file and those that follow it by number: flow_0007.flo, flow_0008.flo, ... up to the first gap.

    Links among them must not leave the folder of the first.

    Raises:
        ValueError: the name does not end in a number.
    """
    match = re.fullmatch(r"(.*?)(\d+)", first.stem)
    if match is None:
        raise ValueError(
            f"{first.name!r} does not end in a number, so no sequence starts with it. Turn 'sequence' off."
        )
    stem, digits = match.groups()
    files = []
    number = int(digits)
    while True:
        path = first.with_name(f"{stem}{number:0{len(digits)}d}{first.suffix}")
        if not path.is_file() or not _is_inside(str(path), str(first.parent)):
            return files
        files.append(path)
        number += 1


def check_prefix(filename_prefix: str) -> list[str]:
    """The parts of a prefix: sub-folders, then the beginning of the file names.

    Raises:
        ValueError: it leaves the output folder, or names no file.
    """
    parts = re.split(r"[\\/]", filename_prefix)
    if (
        "\0" in filename_prefix
        or ":" in filename_prefix
        or filename_prefix.startswith(("/", "\\", "~"))
        or ".." in parts
    ):
        raise _outside(filename_prefix)
    if not parts[-1].strip(" ."):
        raise ValueError(f"'filename_prefix' is {filename_prefix!r}; expected a file name such as flows/clip.")
    return parts


def output_target(filename_prefix: str, width: int = 0, height: int = 0) -> tuple[Path, str, str]:
    """Where a file with this prefix goes in the output folder.

    Args:
        filename_prefix: as the widget has it.
        width, height: what %width% and %height% in it stand for.

    Returns:
        (folder, made if missing; file name without ending, with the next free number; sub-folder as the host names it).

    Raises:
        ValueError: the prefix leaves the output folder.
    """
    folder, (name,), subfolder = output_targets(filename_prefix, 1, width, height)
    return folder, name, subfolder


def output_targets(filename_prefix: str, count: int, width: int, height: int) -> tuple[Path, list[str], str]:
    """``output_target`` for so many files of one batch: %batch_num% in their names becomes their place in it."""
    root = os.path.realpath(folder_paths.get_output_directory())
    parts = check_prefix(filename_prefix)
    if not _is_inside(os.path.join(root, *parts[:-1]), root):
        raise _outside(filename_prefix)
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path("/".join(parts), root, width, height)
    if not _is_inside(folder, root):
        raise _outside(filename_prefix)
    names = [f"{name.replace('%batch_num%', str(place))}_{counter + place:05}_" for place in range(count)]
    return Path(folder), names, subfolder


def _outside(filename_prefix: str) -> ValueError:
    return ValueError(
        f"'filename_prefix' {filename_prefix!r} leaves ComfyUI's output folder; use a name, or sub-folder/name."
    )


@contextmanager
def written_together(paths: list[Path]) -> Iterator[list[Path]]:
    """Lets files appear under their names only when all of them are complete.

    Yields a temporary path for each, in the same folder; on leaving they are moved into place. After an error or an
    interrupt neither the temporary files nor the final ones are left.
    """
    token = secrets.token_hex(4)
    temporary = [path.with_name(f".{path.name}.{token}.part") for path in paths]
    placed = []
    try:
        yield temporary
        for source, target in zip(temporary, paths, strict=True):
            os.replace(source, target)
            placed.append(target)
    except BaseException:
        for path in (*temporary, *placed):
            path.unlink(missing_ok=True)
        raise


def _is_inside(path: str, root: str) -> bool:
    """Whether a path, with every link followed, lies in a folder (itself a real path)."""
    real = os.path.realpath(path)
    return real == root or real.startswith(root.rstrip(os.sep) + os.sep)
