"""What a piece of training hands to the next: one file of weights in half precision, and what was done so far."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

MAXIMUM_STATE_BYTES = 16 * 1024 * 1024


@dataclass
class Progress:
    """What a piece hands to the next beside the weights."""

    step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)  # (step, mean loss of the TICK steps up to it)
    seconds: float = 0.0  # of training, start-up and evaluation left out, all pieces together


def write_state(path: Path, weights: Mapping[str, Tensor], progress: Progress) -> None:
    """Writes weights in half precision and the progress into one file, which appears when it is complete.

    Raises:
        ValueError: the file would be larger than 16 MiB, or a weight is not finite.
    """
    tensors = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in weights.items()}
    if broken := [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]:
        raise ValueError(f"{broken[0]} is not finite: this piece diverged, go on from the one before.")
    size = sum(value.numel() * 2 for value in tensors.values())
    metadata = {"step": str(progress.step), "seconds": str(progress.seconds), "losses": json.dumps(progress.losses)}
    if size + len(metadata["losses"]) + 300 * len(tensors) > MAXIMUM_STATE_BYTES:
        raise ValueError(f"the state would be {size / 2**20:.1f} MiB, more than 16 MiB.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    save_file(tensors, temporary, metadata=metadata)
    os.replace(temporary, path)


def read_state(path: Path) -> tuple[dict[str, Tensor], Progress]:
    """What ``write_state`` wrote, the weights in float32."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (no mapping)
    losses = [(int(step), float(loss)) for step, loss in json.loads(metadata["losses"])]
    return weights, Progress(int(metadata["step"]), losses, float(metadata["seconds"]))


def progress_of(path: Path, kind: str) -> Progress:
    """What a finished file says of its training: where its state is lost, the next piece counts from there."""
    from networks.demo_format import read_metadata

    metadata = read_metadata(path, kind)
    return Progress(int(metadata["steps"]), [], float(metadata["training_seconds"]))


def earlier_progress(arguments, flag: str = "", file: Path | None = None, kind: str = "") -> Progress:
    """What the pieces before this one did: as the state tells, or a finished file where their state is lost.

    Args:
        arguments: the script's; ``resume`` counts.
        flag: that names the finished files.
        file: one of them; None if there are none.
        kind: its kind.

    Raises:
        SystemExit: two beginnings are asked for.
    """
    if arguments.resume and file:
        raise SystemExit(f"--resume and {flag} exclude each other.")
    if arguments.resume:
        return read_state(arguments.resume / "state.safetensors")[1]
    return progress_of(file, kind) if file else Progress()
