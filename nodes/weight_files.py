"""Weights that a person chooses in a widget: found in ComfyUI's model folders or in the pack, read weights-only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import folder_paths
from torch import Tensor

from ..networks import checkpoints
from ..networks.demo_format import FOLDER, DemoFileError, read_metadata


def find_weights(
    folder: str | Sequence[str], name: str, widget: str, where_from: str, ours: Mapping[str, str] | None = None
) -> str:
    """The path of a file of a model folder, or of one that comes with the pack.

    Args:
        folder: one of the host's names, such as "diffusion_models", or several, looked through in their order.
        name: what the widget says.
        widget: its name, for the message.
        where_from: what to get and from where.
        ours: what the widget lists of the pack's own -> kind of file in the demonstration's folder.

    Raises:
        ValueError: it is not there.
    """
    if name in (ours or {}):
        path = FOLDER / f"{ours[name]}.safetensors"
        try:
            read_metadata(path, ours[name])
        except DemoFileError as error:
            raise ValueError(f"'{widget}': {error}") from error
        return str(path)
    # The entry point makes our own folders known; without it they are not there.
    folders = [one for one in ([folder] if isinstance(folder, str) else folder) if one in _known()]
    for one in folders:
        path = folder_paths.get_full_path(one, name)
        if path is not None:
            return path
    searched = " or ".join(path for one in folders for path in folder_paths.get_folder_paths(one))
    raise ValueError(f"'{widget}': {name} is not in {searched}. Get {where_from} and put it there.")


def list_weights(folders: Sequence[str]) -> list[str]:
    """The names of the files of several model folders, in their order, each once; of folders that the host knows."""
    return list(
        dict.fromkeys(name for one in folders if one in _known() for name in folder_paths.get_filename_list(one))
    )


def _known() -> Mapping[str, object]:
    return folder_paths.folder_names_and_paths


def read_weights(path: str, name: str, widget: str, source: str) -> dict[str, Tensor]:
    """The tensors of a file, in the published layout.

    Args:
        path: of the file.
        name: how the message calls it.
        widget: that names it.
        source: where to get it again.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return checkpoints.read_weights(path)
    except DemoFileError as error:
        raise ValueError(f"'{widget}': {error}") from error
    except Exception as error:  # whatever unpickling or the header of a damaged file raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"'{widget}': {name} cannot be read as weights; get it again from {source}. ({reason})"
        ) from error
