"""Files named in widgets stay inside ComfyUI's input and output folders."""

import os
from pathlib import Path

import folder_paths
import pytest
from papernodes.nodes import paths

SUFFIXES = (".flo", ".npy", ".safetensors")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """(input, output, outside), all empty."""
    made = [tmp_path / name for name in ("input", "output", "outside")]
    for folder in made:
        folder.mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(made[0]))
    monkeypatch.setattr(folder_paths, "output_directory", str(made[1]))
    return made


def put(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_lists_both_folders_and_sub_folders(folders):
    put(folders[0], "b.flo")
    put(folders[0], "sub/a.NPY")
    put(folders[0], "picture.png")
    put(folders[0], ".hidden/c.flo")
    put(folders[1], "flows/d.safetensors")
    assert paths.list_files(SUFFIXES) == ["b.flo", "sub/a.NPY", "flows/d.safetensors [output]"]
    for name in paths.list_files(SUFFIXES):
        assert paths.find_file(name, SUFFIXES).is_file()
    assert paths.find_file("b.flo [input]", SUFFIXES).name == "b.flo"


@pytest.mark.parametrize(
    "name",
    [
        "../outside/x.flo",
        "sub/../../outside/x.flo",
        "..\\outside\\x.flo",
        "/etc/x.flo",
        "\\\\server\\share\\x.flo",
        "C:\\x.flo",
        "C:x.flo",
        "~/x.flo",
        "a\0.flo",
        "../outside/x.flo [output]",
        "../outside/x.flo [input]",
    ],
)
def test_names_that_leave_the_folders(folders, name):
    put(folders[2], "x.flo")
    with pytest.raises(ValueError, match="leaves ComfyUI's"):
        paths.find_file(name, SUFFIXES)


@pytest.mark.parametrize(
    "name", ["", "  ", None, 3, "x.txt", "x.pkl", "x.flo.pkl", "missing.flo", "x.flo [temp]", "dir.flo"]
)
def test_names_that_are_no_flow_file(folders, name):
    put(folders[0], "x.pkl")
    (folders[0] / "dir.flo").mkdir()
    with pytest.raises(ValueError, match=r"no file is chosen|none of the files that are read here|does not exist"):
        paths.find_file(name, SUFFIXES)


def test_links_that_leave_the_folders(folders):
    put(folders[2], "x.flo")
    inside = put(folders[0], "inside.flo")
    os.symlink(folders[2] / "x.flo", folders[0] / "link.flo")
    os.symlink(folders[2], folders[0] / "linked")
    os.symlink(inside, folders[0] / "good.flo")
    assert paths.list_files(SUFFIXES) == ["good.flo", "inside.flo"]
    assert paths.find_file("good.flo", SUFFIXES) == inside.resolve()
    for name in ("link.flo", "linked/x.flo"):
        with pytest.raises(ValueError, match="link that leaves"):
            paths.find_file(name, SUFFIXES)


def test_numbered_files(folders):
    for name in ("f_008.flo", "f_009.flo", "f_010.flo", "f_012.flo", "f_9.flo"):
        put(folders[0], name)
    put(folders[2], "f_011.flo")
    os.symlink(folders[2] / "f_011.flo", folders[0] / "f_011.flo")
    assert [p.name for p in paths.numbered_files(folders[0] / "f_008.flo")] == ["f_008.flo", "f_009.flo", "f_010.flo"]
    with pytest.raises(ValueError, match="does not end in a number"):
        paths.numbered_files(put(folders[0], "clip.flo"))


def test_output_target_counts_on(folders):
    folder, name, subfolder = paths.output_target("flows/clip")
    assert (folder, name, subfolder) == (folders[1] / "flows", "clip_00001_", "flows")
    put(folders[1], "flows/clip_00001_.npy")
    assert paths.output_target("flows/clip")[1] == "clip_00002_"
    assert paths.output_target("clip")[0] == folders[1]


@pytest.mark.parametrize(
    "prefix",
    ["../clip", "a/../../clip", "/tmp/clip", "C:\\clip", "\\clip", "~/clip", "a\0b", "", "a/", "..", "linked/clip"],
)
def test_output_prefixes_that_leave_the_folder(folders, prefix):
    os.symlink(folders[2], folders[1] / "linked")
    with pytest.raises(ValueError, match="filename_prefix"):
        paths.output_target(prefix)
    assert not any(folders[2].iterdir())


def test_written_together_is_all_or_nothing(tmp_path):
    targets = [tmp_path / "a.flo", tmp_path / "b.flo"]
    with paths.written_together(targets) as temporary:
        for path in temporary:
            path.write_bytes(b"x")
        assert not any(target.exists() for target in targets)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.flo", "b.flo"]

    targets = [tmp_path / "c.flo", tmp_path / "d.flo"]
    for error in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(error), paths.written_together(targets) as temporary:
            temporary[0].write_bytes(b"x")
            raise error
    with pytest.raises(FileNotFoundError), paths.written_together(targets) as temporary:
        temporary[0].write_bytes(b"x")  # the second is never written, so its move fails
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.flo", "b.flo"]
