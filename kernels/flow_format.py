"""Flow files as bytes: Middlebury .flo, NumPy .npy and .safetensors.

Everything that a header claims is checked against the number of bytes that are really there before anything is
allocated, and nothing is unpickled or evaluated: a hostile file gives a ValueError.

.flo (Baker et al., IJCV 2011): float32 202021.25, int32 width, int32 height, then height x width pairs (dx, dy) of
float32, all little-endian; numbers above 1e9 mean "unknown". One flow per file.
.npy: one array, float16/32/64, [T-1, 2, H, W], [T-1, H, W, 2], [2, H, W] or [H, W, 2]; without a direction.
.safetensors: tensor "flow" [T-1, 2, H, W] and optionally "occlusion" [T-1, H, W]; the metadata hold the direction.
"""

import io
import json
import math
import os
import struct
from pathlib import Path

import torch
from torch import Tensor

from .file_kinds import looks_like
from .flow import DIRECTIONS, Flow, check_vectors

SUFFIXES = (".flo", ".npy", ".safetensors")
LARGEST_FILE = 4 << 30  # bytes

_FLO_MAGIC = struct.pack("<f", 202021.25)
_UNKNOWN = 1e9
_LAYOUTS = "[frames - 1, 2, H, W], [frames - 1, H, W, 2], [2, H, W] or [H, W, 2]"
_LARGEST_HEADER = 1 << 20  # bytes; ours has some hundreds
_SAFETENSORS_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def read_flow(
    source: bytes | str | os.PathLike,
    suffix: str | None = None,
    *,
    direction: str = "forward",
    name: str | None = None,
    largest: int = LARGEST_FILE,
) -> Flow:
    """Read a flow file.

    Args:
        source: the file's bytes, or a path that the caller has already allowed.
        suffix: ".flo", ".npy" or ".safetensors"; None = the path's own.
        direction: what the vectors mean where the file does not say it itself (.flo, .npy).
        name: how messages call the file; None = the path's last part.
        largest: refuse files of more bytes than this.

    Returns:
        The flow, on the CPU. Unknown vectors of a .flo file are 0 and marked in the occlusion mask.

    Raises:
        ValueError: names the file, what is wrong and what was expected.
        OSError: the path cannot be read.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = name or "flow file"
        size, data = len(source), source
    else:
        path = Path(source)
        name = name or path.name
        suffix = suffix or path.suffix
        size, data = path.stat().st_size, None
    suffix = (suffix or "").lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{name}: the type {suffix!r} is not known; expected {', '.join(SUFFIXES)}.")
    if size > largest:
        raise ValueError(f"{name}: it has {size} bytes; files of at most {largest} bytes are read.")
    if data is None:
        data = path.read_bytes()
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: got {direction!r}; expected 'forward' or 'backward'.")
    if suffix == ".flo":
        return _parse_flo(memoryview(data), direction, name)
    if suffix == ".npy":
        return _flow(_arrange(_parse_npy(memoryview(data), name), name), direction, None, name)
    return _parse_safetensors(memoryview(data), direction, name)


def write_flow(flow: Flow, suffix: str, *, pair: int | None = None) -> bytes:
    """The bytes of a flow file.

    Args:
        flow: what to write.
        suffix: ".flo" (one pair only, no occlusion), ".npy" (float32 [T-1, 2, H, W]) or ".safetensors" (everything).
        pair: write only this pair of frames; needed for .flo if the flow has several.

    Returns:
        The file's content.

    Raises:
        ValueError: an unknown type, a pair that does not exist, several pairs for .flo.
    """
    vectors, occlusion = flow.vectors.detach().cpu(), flow.occlusion
    if pair is not None:
        if not 0 <= pair < vectors.shape[0]:
            raise ValueError(f"pair: got {pair}; the flow has the pairs 0 to {vectors.shape[0] - 1}.")
        vectors = vectors[pair : pair + 1]
        occlusion = None if occlusion is None else occlusion[pair : pair + 1]
    if suffix == ".flo":
        if vectors.shape[0] != 1:
            raise ValueError(f"A .flo file holds one pair of frames, but the flow has {vectors.shape[0]}.")
        height, width = vectors.shape[2:]
        return _FLO_MAGIC + struct.pack("<ii", width, height) + _bytes(vectors[0].permute(1, 2, 0))
    if suffix == ".npy":
        return _npy_header(tuple(vectors.shape)) + _bytes(vectors)
    if suffix == ".safetensors":
        tensors = {"flow": vectors}
        if occlusion is not None:
            tensors["occlusion"] = occlusion.detach().cpu()
        return _safetensors(tensors, {"format": "pt", "content": "optical flow", "direction": flow.direction})
    raise ValueError(f"The type {suffix!r} is not known; expected {', '.join(SUFFIXES)}.")


def _bytes(values: Tensor) -> bytes:
    """float32 little-endian bytes."""
    return values.contiguous().numpy().astype("<f4", copy=False).tobytes()


def _numbers(data: memoryview, dtype: torch.dtype) -> Tensor:
    """The bytes as a float32 tensor of its own (little-endian source)."""
    return torch.frombuffer(bytearray(data), dtype=dtype).to(torch.float32)


def _parse_flo(data: memoryview, direction: str, name: str) -> Flow:
    if len(data) < 12 or data[:4] != _FLO_MAGIC:
        raise ValueError(
            f"{name}: not a .flo file{looks_like(data)}; expected the number 202021.25 (bytes 50 49 45 48) at its"
            " start."
            if len(data) >= 12
            else f"{name}: only {len(data)} bytes; a .flo file has at least 20."
        )
    width, height = struct.unpack("<ii", data[4:12])
    if width < 1 or height < 1:
        raise ValueError(f"{name}: its header says width {width} and height {height}; expected at least 1 of each.")
    _check_length(len(data) - 12, width * height * 8, f"{width}x{height} vectors", name)
    vectors = _numbers(data[12:], torch.float32).view(height, width, 2).permute(2, 0, 1).unsqueeze(0).contiguous()
    unknown = (vectors.abs() > _UNKNOWN).any(dim=1)
    if not bool(unknown.any()):
        return _flow(vectors, direction, None, name)
    vectors = torch.where(unknown.unsqueeze(1), 0.0, vectors)
    return _flow(vectors, direction, unknown.to(torch.float32), name)


def _parse_npy(data: memoryview, name: str) -> Tensor:
    import numpy

    if data[:6] != b"\x93NUMPY":
        raise ValueError(f"{name}: not a .npy file{looks_like(data)}; expected an array saved by numpy.save.")
    head = io.BytesIO(data[: 10 + 2 * _LARGEST_HEADER])
    try:
        version = numpy.lib.format.read_magic(head)
        if version == (1, 0):
            shape, fortran, dtype = numpy.lib.format.read_array_header_1_0(head)
        elif version == (2, 0):
            shape, fortran, dtype = numpy.lib.format.read_array_header_2_0(head)
        else:
            raise ValueError(f"version {version} is not read")
    except Exception as error:  # noqa: BLE001 - numpy raises whatever its header parser meets
        raise ValueError(f"{name}: its .npy header cannot be read ({_first_line(error)}).") from None
    if dtype.hasobject or dtype.kind != "f" or dtype.itemsize not in (2, 4, 8):
        raise ValueError(f"{name}: its numbers are of type {dtype}; expected float16, float32 or float64.")
    if any(type(edge) is not int or edge < 1 for edge in shape):
        raise ValueError(f"{name}: its shape is {str(list(shape))[:80]}; every edge must be at least 1.")
    body = data[head.tell() :]
    _check_length(len(body), math.prod(shape) * dtype.itemsize, f"{dtype} {list(shape)}", name)
    with numpy.errstate(over="ignore"):
        values = numpy.frombuffer(body, dtype=dtype).astype(numpy.float32)
    return torch.from_numpy(values.reshape(shape, order="F" if fortran else "C").copy(order="C"))


def _parse_safetensors(data: memoryview, direction: str, name: str) -> Flow:
    if len(data) < 8:
        raise ValueError(f"{name}: only {len(data)} bytes; not a .safetensors file.")
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8 or length > _LARGEST_HEADER or data[8:9] != b"{":
        raise ValueError(
            f"{name}: not a .safetensors file{looks_like(data)}; its header would have {length} bytes and the file has"
            f" {len(data)}."
        )
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: its .safetensors header cannot be read ({_first_line(error)}).") from None
    if not isinstance(header, dict):
        raise ValueError(f"{name}: its .safetensors header is not a table of tensors.")
    metadata = header.pop("__metadata__", {})
    if "flow" not in header:
        found = ", ".join(sorted(map(str, header))[:5]) or "none"
        raise ValueError(f'{name}: it holds no tensor named "flow" (found: {found[:200]}).')
    body = data[8 + length :]
    vectors = _arrange(_tensor(header["flow"], "flow", body, name), name)
    occlusion = None
    if "occlusion" in header:
        occlusion = _tensor(header["occlusion"], "occlusion", body, name)
    said = metadata.get("direction", direction) if isinstance(metadata, dict) else direction
    if said not in DIRECTIONS:
        raise ValueError(f"{name}: its direction is {str(said)[:40]!r}; expected 'forward' or 'backward'.")
    return _flow(vectors, said, occlusion, name)


def _tensor(entry, key: str, body: memoryview, name: str) -> Tensor:
    """One tensor of a .safetensors body, after checking that what its header claims is there."""
    entry = entry if isinstance(entry, dict) else {}
    kind, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(kind, str) or kind not in _SAFETENSORS_TYPES:
        raise ValueError(f'{name}: the tensor "{key}" is of type {str(kind)[:40]}; expected F32, F16, BF16 or F64.')
    if not isinstance(shape, list) or not all(type(edge) is int and edge >= 1 for edge in shape):
        raise ValueError(f'{name}: the tensor "{key}" has the shape {str(shape)[:80]}; every edge must be at least 1.')
    good = isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets)
    if not good or not 0 <= offsets[0] <= offsets[1] <= len(body):
        raise ValueError(f'{name}: the tensor "{key}" lies at {str(offsets)[:80]}, but the file has {len(body)} bytes.')
    dtype = _SAFETENSORS_TYPES[kind]
    piece = body[offsets[0] : offsets[1]]
    _check_length(len(piece), math.prod(shape) * dtype.itemsize, f'"{key}" {kind} {shape}', name)
    return _numbers(piece, dtype).view(shape)


def _check_length(there: int, expected: int, what: str, name: str) -> None:
    if there != expected:
        state = "it is cut short or its header is wrong" if there < expected else "more follows than its header says"
        needs = f"{expected}" if expected < 1 << 64 else "more than 2^64"
        raise ValueError(f"{name}: {what[:200]} need {needs} bytes, but {there} are there: {state}.")


def _arrange(values: Tensor, name: str) -> Tensor:
    """Any of the accepted layouts -> [N, 2, H, W]."""
    shape = list(values.shape)
    if values.ndim not in (3, 4) or 2 not in (shape[-3], shape[-1]):
        raise ValueError(f"{name}: its shape is {shape}; expected {_LAYOUTS}.")
    if shape[-3] == 2 and shape[-1] == 2:
        raise ValueError(
            f"{name}: the shape {shape} is ambiguous: dx and dy could be axis {values.ndim - 3} or axis"
            f" {values.ndim - 1}. Save it as .safetensors, or with a height and width other than 2."
        )
    if shape[-1] == 2:
        values = values.movedim(-1, -3)
    return (values if values.ndim == 4 else values.unsqueeze(0)).contiguous()


def _flow(vectors: Tensor, direction: str, occlusion: Tensor | None, name: str) -> Flow:
    check_vectors(vectors, name)
    try:
        return Flow(vectors, direction, occlusion)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """A version 1.0 header for little-endian float32 in C order; its length is a multiple of 64."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("ascii")


def _safetensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": metadata}
    pieces, offset = [], 0
    for key, values in tensors.items():
        piece = _bytes(values)
        header[key] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + len(piece)]}
        pieces.append(piece)
        offset += len(piece)
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *pieces])
