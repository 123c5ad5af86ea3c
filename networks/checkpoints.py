"""Weights of the methods' files: read weights-only, compared with what a network takes, the pack's own made large.

Published files hold whole networks or offsets for them. What comes with the pack for the demonstration models is stored
small and says so in its metadata; here it becomes what a published file holds, so that from here on both are one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

import comfy.utils
from torch import Tensor

from .demo_format import kind_of

_SHOWN = 3


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """What a file holds, in the published layout.

    Args:
        path: safetensors, or a pickled state dictionary, of which nothing but tensors is read.

    Returns:
        The file's names -> tensors on the CPU.

    Raises:
        DemoFileError: one of the pack's own files, damaged.
        Exception: whatever unpickling or a damaged header raises.
    """
    kind = kind_of(path)
    expand = _expansions().get(kind)
    return comfy.utils.load_torch_file(str(path), safe_load=True) if expand is None else expand(path, kind)


def _expansions() -> Mapping[str, Callable[[str | os.PathLike, str], dict[str, Tensor]]]:
    """Kind of a small file -> what makes the published layout of it."""
    # These modules use what is below.
    from . import demo_blob_adapter, demo_imagine360, demo_light, demo_manga_ninja, demo_motion

    lights = dict.fromkeys(demo_light.FILE_KINDS, demo_light.load_light)
    manga = dict.fromkeys((demo_manga_ninja.REFERENCE, demo_manga_ninja.POINTS), demo_manga_ninja.load_published)
    whole = {
        demo_motion.KIND: lambda path, _: demo_motion.load_motion(path),
        demo_blob_adapter.KIND: lambda path, _: demo_blob_adapter.load_adapter(path),
        demo_imagine360.KIND: lambda path, _: demo_imagine360.load_imagine360(path),
    }
    return {**lights, **manga, **whole}


def difference(wanted: Iterable[str], came: Iterable[str]) -> str:
    """What a file lacks and has too much, as the end of a sentence that began with a colon; "" where it is complete.

    Args:
        wanted: names that a network has.
        came: names that the file has.
    """
    wanted, came = set(wanted), set(came)
    missing, unknown = sorted(wanted - came), sorted(came - wanted)
    found = f" it lacks {some(missing)}." if missing else ""
    return found + (f" it has more than that, {some(unknown)}." if unknown else "")


def wrong_shape(wanted: Mapping[str, Tensor], came: Mapping[str, Tensor]) -> str:
    """The first weight of a file that has another shape than a network's, as a sentence; "" where all fit.

    Args:
        wanted: the network's, of which shapes count.
        came: the file's, with the same names.
    """
    for name, weight in came.items():
        if weight.shape != wanted[name].shape:
            return f"{name} has shape {list(weight.shape)}; expected {list(wanted[name].shape)}."
    return ""


def some(names: Iterable[str]) -> str:
    """The first names of several, for a message."""
    names = [str(name)[:120] for name in names]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
