"""Generated clips in files small enough to travel: brightness only, JPEG, in .safetensors files of at most 16 MiB.

Optical flow needs OpenCV, which the machine that generates the clips may lack; so they are measured elsewhere.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

MAXIMUM_BYTES = 16 * 1024 * 1024
ROOM = 64 * 1024
"""Bytes of a file that are kept for its header."""

QUALITY = 85
"""Of JPEG: optical flow of rendered clips errs no more than without (0.77 and 0.57 pixels against 0.75 and 0.60)."""
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as the DIS node takes it


@dataclass(frozen=True)
class Clips:
    """What some clips are: ``count`` of them, the first scenes of flow_scenes(kind, scenes, seed)."""

    condition: str
    kind: str
    seed: int
    scenes: int
    count: int
    frames: int  # that are kept of each
    step: int  # frames of the video from one that is kept to the next


def to_grey(frames: Tensor) -> Tensor:
    """uint8 [B, T, H, W] of colour frames uint8 [B, T, 3, H, W]."""
    weights = torch.tensor(LUMA, device=frames.device).view(3, 1, 1)
    return (frames.float() * weights).sum(2).round().clamp(0, 255).to(torch.uint8)


def _compress(picture: Tensor) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture.numpy()).save(content, "JPEG", quality=QUALITY, optimize=True)
    return content.getvalue()


def _decompress(content: bytes) -> Tensor:
    with Image.open(io.BytesIO(content)) as picture:
        picture = picture.convert("L")
        return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(picture.height, picture.width)


class ClipWriter:
    """Collects clips and writes them as ``clips_0.safetensors``, ``clips_1.safetensors``, ...

    Args:
        folder: where to; made if missing.
        files: at most so many.
    """

    def __init__(self, folder: Path, files: int = 3):
        self.folder, self.files = folder, files
        self.groups: list[tuple[Clips, list[bytes]]] = []

    def add(self, about: Clips, frames: Tensor) -> None:
        """Keep clips, colour frames uint8 [B, T, 3, H, W] of the whole video.

        Raises:
            ValueError: they are not what ``about`` says.
        """
        grey = to_grey(frames[: about.count, :: about.step]).cpu()
        if tuple(grey.shape[:2]) != (about.count, about.frames):
            raise ValueError(f"clips are {tuple(grey.shape[:2])}; expected {(about.count, about.frames)}.")
        self.groups.append((about, [_compress(picture) for picture in grey.flatten(0, 1)]))

    def _parts(self, count: int) -> list[list[tuple[Clips, list[bytes]]]]:
        """The groups file by file, of each at most ``count`` clips."""
        parts: list[list[tuple[Clips, list[bytes]]]] = [[]]
        size = 0
        for about, pictures in self.groups:
            about = replace(about, count=min(count, about.count))
            pictures = pictures[: about.count * about.frames]
            own = sum(len(content) + 8 for content in pictures)
            if parts[-1] and size + own > MAXIMUM_BYTES - ROOM:
                parts.append([])
                size = 0
            parts[-1].append((about, pictures))
            size += own
        return parts

    def _fits(self, parts: list[list[tuple[Clips, list[bytes]]]]) -> bool:
        sizes = [sum(len(content) + 8 for _, pictures in groups for content in pictures) for groups in parts]
        return len(parts) <= self.files and max(sizes) <= MAXIMUM_BYTES - ROOM

    def write(self) -> list[Path]:
        """Writes the files, none of no clips; where they would be too many, with fewer clips of each group.

        Raises:
            ValueError: not even one clip of each group fits; nothing is written then.
        """
        if not self.groups:
            return []
        count = max(about.count for about, _ in self.groups)
        while not self._fits(parts := self._parts(count)):
            if count == 1:
                raise ValueError(f"one clip of each of {len(self.groups)} groups is more than {self.files} files hold.")
            count -= 1
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, groups in enumerate(parts):
            contents = [content for _, pictures in groups for content in pictures]
            tensors = {
                "jpeg": torch.frombuffer(bytearray(b"".join(contents)), dtype=torch.uint8),
                "bytes": torch.tensor([len(content) for content in contents]),
            }
            paths.append(self.folder / f"clips_{number}.safetensors")
            save_file(tensors, paths[-1], metadata={"clips": json.dumps([asdict(about) for about, _ in groups])})
        return paths


def read_clips(path: Path) -> Iterator[tuple[Clips, Tensor]]:
    """What a file holds: each group, and its frames uint8 [B, T, H, W]."""
    with safe_open(path, framework="pt") as file:
        groups = [Clips(**item) for item in json.loads(file.metadata()["clips"])]
        content = file.get_tensor("jpeg").numpy().tobytes()
        sizes = file.get_tensor("bytes").tolist()
    place, number = 0, 0
    for about in groups:
        pictures = []
        for size in sizes[number : number + about.count * about.frames]:
            pictures.append(_decompress(content[place : place + size]))
            place += size
        number += about.count * about.frames
        yield about, torch.stack(pictures).unflatten(0, (about.count, about.frames))
