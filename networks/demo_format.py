"""Files of the demonstration models: safetensors, int8 per output channel, with metadata that says what they are.

Knows torch and safetensors only: what trains the models, what reads pictures back and what loads them into ComfyUI all
use this format.
"""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FOLDER = Path(__file__).resolve().parent.parent / "demo" / "checkpoints"
"""Where the files lie that come with the pack."""

WORLD_VERSION = 1
"""Counts changes of the drawn world after which models trained before no longer know it."""

KINDS = (
    "image_unet",
    "image_text_encoder",
    "image_vae",
    "image_clip_vision",
    "image_controlnet_lineart",
    "reader",
    "video_unet",
    "video_text_encoder",
    "video_vae",
    "video_lora_warped_noise",
    "image_lora_story",
    "ic_light_fc",
    "ic_light_fbc",
    "relight_motion",
    "manga_ninja_denoising",
    "manga_ninja_reference",
    "manga_ninja_points",
    "manga_ninja_control",
    "blob_adapter",
    "imagine360",
)

_FORMAT = "papernodes-demo"
_SCALE = ".scale"
_SMALLEST = 1024  # below this many numbers int8 saves nothing worth its error


class DemoFileError(Exception):
    """A file of a demonstration model cannot be used; the message is for the person at the graph."""


def pack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they are stored.

    Args:
        state: name -> tensor of any shape, device and dtype; floating point values must be finite.

    Returns:
        On the CPU: a floating point tensor ``X`` with at least two axes and 1024 numbers becomes int8 ``X`` and float16
        ``X.scale`` [X.shape[0]], X = int8 * scale, the largest of each output channel at 127; other floating point
        tensors become float16; integers and bools stay as they are.

    Raises:
        ValueError: a value is NaN, infinite, or too large for float16.
    """
    packed = {}
    for name, value in state.items():
        value = value.detach().to("cpu", copy=True).contiguous()
        if not value.is_floating_point():
            packed[name] = value
            continue
        value = value.to(torch.float32)
        if value.ndim < 2 or value.numel() < _SMALLEST:
            packed[name] = _half(name, value)
            continue
        rows = value.flatten(start_dim=1)
        scale = _half(name, rows.abs().amax(dim=1) / 127)
        # A channel so small that its scale is 0 in float16 is stored as zeros.
        steps = rows / scale.to(torch.float32).clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(1)
        packed[name] = steps.round().clamp(-127, 127).to(torch.int8).view(value.shape)
        packed[name + _SCALE] = scale
    return packed


def unpack(packed: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The weights that ``pack`` stored: floating point tensors in ``dtype``, integers as they are."""
    state = {}
    for name, value in packed.items():
        if name.endswith(_SCALE) and _is_packed(packed, name.removesuffix(_SCALE)):
            continue
        if _is_packed(packed, name):
            scale = packed[name + _SCALE].to(torch.float32)
            value = value.to(torch.float32) * scale.view(-1, *[1] * (value.ndim - 1))
        state[name] = value.to(dtype) if value.is_floating_point() else value
    return state


def save(
    path: str | os.PathLike, state: Mapping[str, Tensor], metadata: Mapping[str, str], *, packed: bool = True
) -> None:
    """Writes a file of a demonstration model; it appears under its name only when it is complete.

    Args:
        path: where to; its folder is made if missing.
        state: name -> tensor.
        metadata: strings; "kind", one of ``KINDS``, must be among them. Format, world version and licence are added.
        packed: False stores every floating point tensor as float16, which other programs can read.

    Raises:
        ValueError: an unknown kind; metadata that is not text; values that are not finite in float16.
    """
    if metadata.get("kind") not in KINDS:
        raise ValueError(f"kind: got {metadata.get('kind')!r}; expected one of {', '.join(KINDS)}.")
    if wrong := [key for key, value in metadata.items() if not isinstance(value, str)]:
        raise ValueError(f"metadata: {', '.join(wrong)} must be text.")
    metadata = {**metadata, "format": _FORMAT, "world_version": str(WORLD_VERSION), "licence": "CC0-1.0"}
    if packed:
        tensors = pack(state)
    else:
        tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in state.items()}
        tensors = {name: _half(name, value) if value.is_floating_point() else value for name, value in tensors.items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        save_file(tensors, temporary, metadata=metadata)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def kind_of(path: str | os.PathLike) -> str | None:
    """Which of ``KINDS`` a file says that it is; None for files of others, and for what is no safetensors file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    return metadata.get("kind") if metadata.get("format") == _FORMAT else None


def read_metadata(path: str | os.PathLike, kind: str) -> dict[str, str]:
    """The metadata of a file, without reading its weights; finds whatever would stop ``load``.

    Raises:
        DemoFileError: the file is missing, damaged, incomplete, of another kind or of another world version.
    """
    path = Path(path)
    where = f"{path.name} in {path.parent}"
    if not path.is_file():
        raise DemoFileError(
            f"The demonstration model {where} is missing: it was deleted, or the pack was copied or cloned only in"
            f" part. {_restore(path)}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise DemoFileError(_damage(path, error)) from error
    if metadata.get("format") != _FORMAT or metadata.get("kind") != kind:
        found = metadata.get("kind", "something else") if metadata.get("format") == _FORMAT else "something else"
        raise DemoFileError(
            f"{where} is not the demonstration model that belongs there: it holds {found!r}, expected {kind!r}."
            f" {_restore(path)}"
        )
    if metadata.get("world_version") != str(WORLD_VERSION):
        raise DemoFileError(
            f"The demonstration model {where} was trained on version {metadata.get('world_version')} of the drawn"
            f" world; this version of the pack needs version {WORLD_VERSION}. The files and the code come from"
            f" different versions of the pack: update the whole pack. {_restore(path)}"
        )
    return metadata


def load(path: str | os.PathLike, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads what ``save`` wrote.

    Returns:
        (name -> tensor on the CPU, floating point ones in float32; metadata).

    Raises:
        DemoFileError: the file is missing, damaged, incomplete, of another kind or of another world version.
    """
    metadata = read_metadata(path, kind)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise DemoFileError(_damage(Path(path), error)) from error
    state = unpack(tensors)
    if broken := [name for name, value in state.items() if not bool(torch.isfinite(value).all())]:
        raise DemoFileError(_damage(Path(path), f"{broken[0]} holds NaN or infinite values"))
    return state, metadata


def check_fit(path: str | os.PathLike, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Checks that a file holds exactly the weights of a network.

    Args:
        path: how the message calls the file.
        state: what the file holds.
        wanted: the network's own names and shapes.

    Raises:
        DemoFileError: a weight is missing, is not expected or has another shape; names the first of each.
    """
    path = Path(path)
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    reshaped = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    found = [
        f"{len(names)} {what} (first {names[0]})"
        for names, what in ((missing, "missing"), (unexpected, "not expected"), (reshaped, "of another shape"))
        if names
    ]
    if found:
        raise DemoFileError(
            f"The weights in {path.name} in {path.parent} do not fit the network of this version of the pack:"
            f" {'; '.join(found)}. {_restore(path)}"
        )


def _half(name: str, value: Tensor) -> Tensor:
    half = value.to(torch.float16)
    if not bool(torch.isfinite(half).all()):
        raise ValueError(f"{name}: holds values that are not finite in float16.")
    return half


def _is_packed(packed: Mapping[str, Tensor], name: str) -> bool:
    """Whether both halves of an int8 tensor are there."""
    return name + _SCALE in packed and packed.get(name) is not None and packed[name].dtype == torch.int8


def _restore(path: Path) -> str:
    return f"Get it back with `git checkout -- {path.name}` in that folder, or install the pack again."


def _damage(path: Path, reason: object) -> str:
    size = path.stat().st_size if path.is_file() else 0
    text = f"The demonstration model {path.name} in {path.parent} is damaged or only partly downloaded ({size} bytes)"
    with path.open("rb") as file:
        if file.read(64).startswith(b"version https://git-lfs"):
            return f"{text}: it is a Git LFS pointer, not the file itself. Run `git lfs pull` in the pack's folder."
    return f"{text}: {reason}. {_restore(path)}"
