"""The readers as they were before any generated picture was looked at: their hash, kept in frozen.json.

What is measured with other readers is another measurement, so the evaluation refuses to run when the hash differs.
"""

import hashlib
import json
from pathlib import Path

FILE = Path(__file__).parent / "frozen.json"
ROOT = Path(__file__).resolve().parent.parent
READERS = {
    "analytic": (
        "eval/analytic_library.py",
        "eval/analytic_poses.py",
        "eval/analytic_reader.py",
        "world/attributes.py",
        "world/dress.py",
        "world/render.py",
        "world/shapes.py",
    ),
    "network": ("eval/network_reader.py", "eval/reader.safetensors"),
    "counting": ("eval/reading.py",),
}
"""Reader -> the files in demo/ that it is made of."""


class NotFrozenError(Exception):
    """A reader is not the one that was frozen."""


def current(root: Path = ROOT) -> dict[str, str]:
    """Reader -> SHA-256 over the names and contents of its files.

    Raises:
        FileNotFoundError: a file is missing.
    """
    found = {}
    for reader, names in READERS.items():
        digest = hashlib.sha256()
        for name in names:
            content = (root / name).read_bytes()
            if not name.endswith(".safetensors"):
                content = content.replace(b"\r\n", b"\n")
            digest.update(f"{name} {len(content)}\n".encode("ascii") + content)
        found[reader] = digest.hexdigest()
    return found


def check(root: Path = ROOT, file: Path = FILE) -> None:
    """Checks that the readers are the frozen ones.

    Raises:
        NotFrozenError: they are not, or were never frozen; names them.
    """
    if not file.is_file():
        raise NotFrozenError("The readers were never frozen: run `python -m demo.eval.freeze` before evaluating.")
    wanted = json.loads(file.read_text(encoding="ascii"))["readers"]
    found = current(root)
    if changed := [reader for reader in READERS if wanted.get(reader) != found[reader]]:
        raise NotFrozenError(
            f"Changed since the readers were frozen: {', '.join(changed)}. Reports made before do not compare with what"
            " these readers would find; freeze them anew (`python -m demo.eval.freeze`) and make the reports again."
        )
