"""The readers are those that were frozen before any generated picture was looked at."""

import json
import shutil

import pytest

from demo.eval import frozen


@pytest.fixture
def copied(tmp_path):
    """A copy of the readers' files, and a file that freezes them."""
    for names in frozen.READERS.values():
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(frozen.ROOT / name, tmp_path / name)
    file = tmp_path / "frozen.json"
    file.write_text(json.dumps({"readers": frozen.current(tmp_path)}))
    return tmp_path, file


def test_readers_are_the_frozen_ones():
    frozen.check()


def test_a_copy_has_the_same_hash(copied):
    root, file = copied
    assert frozen.current(root) == frozen.current()
    frozen.check(root, file)


@pytest.mark.parametrize(
    ("name", "reader"), [("eval/analytic_reader.py", "analytic"), ("eval/reader.safetensors", "network")]
)
def test_a_changed_file_is_noticed(copied, name, reader):
    root, file = copied
    with (root / name).open("ab") as changed:
        changed.write(b"\n# x")
    with pytest.raises(frozen.NotFrozenError, match=reader):
        frozen.check(root, file)


def test_line_endings_do_not_count(copied):
    root, file = copied
    path = root / "eval/analytic_reader.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    frozen.check(root, file)


def test_never_frozen(tmp_path):
    with pytest.raises(frozen.NotFrozenError, match="never frozen"):
        frozen.check(file=tmp_path / "none.json")
