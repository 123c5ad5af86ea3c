"""host/run.py against servers that name files badly, break off, redirect or leave nodes out."""

import pytest
from fake_server import GRAPH, IMAGE, Fake, serving


@pytest.fixture
def fake():
    return Fake()


def written(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_fake_serves_an_ordinary_run(fake, runner, tmp_path):
    with serving(fake) as url:
        result = runner(GRAPH, "--server", url, "--output", "made")
    assert (result.returncode, result.stdout) == (0, "made/a.png\n"), result.stderr
    assert (tmp_path / "made" / "a.png").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("entry", "lands_at"),
    [
        ({"filename": "../../evil.png"}, "made/evil.png"),
        ({"filename": "/etc/evil.png"}, "made/etc/evil.png"),
        ({"filename": "..\\..\\evil.png"}, "made/evil.png"),
        ({"filename": "C:\\evil.png"}, "made/C_/evil.png"),
        ({"filename": "a.png", "subfolder": "../../.."}, "made/a.png"),
        ({"filename": "a.png", "subfolder": "/tmp"}, "made/tmp/a.png"),
        ({"filename": "nul.png"}, "made/_nul.png"),
        ({"filename": "tab\tnull\0.png"}, "made/tab_null_.png"),
        ({"filename": "x" * 5000 + ".png"}, "made/" + "x" * 196 + ".png"),
    ],
)
def test_no_name_leads_out_of_the_folder(fake, runner, tmp_path, entry, lands_at):
    inner = tmp_path / "made"
    fake.outputs = {"1": {"images": [IMAGE | entry]}}
    with serving(fake) as url:
        result = runner(GRAPH, "--server", url, "--output", inner)
    assert result.returncode == 0, result.stderr
    assert written(tmp_path) == sorted(["graph.json", lands_at])


@pytest.mark.parametrize("name", ["..", "/", "...", "a/.."])
def test_a_name_of_nothing_is_an_error(fake, runner, tmp_path, name):
    fake.outputs = {"1": {"images": [IMAGE | {"filename": name}]}}
    with serving(fake) as url:
        result = runner(GRAPH, "--server", url, "--output", "made")
    assert result.returncode == 1
    assert "is no file name" in result.stderr
    assert written(tmp_path) == ["graph.json"]


def test_a_link_out_of_the_folder_is_not_followed(fake, runner, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "sub").symlink_to(tmp_path / "elsewhere")
    fake.outputs = {"1": {"images": [IMAGE | {"subfolder": "sub"}]}}
    with serving(fake) as url:
        result = runner(GRAPH, "--server", url, "--output", "made")
    assert result.returncode == 1
    assert "a link leads there" in result.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nothing_half_written_is_left(fake, runner, tmp_path):
    fake.cut = True
    with serving(fake) as url:
        result = runner(GRAPH, "--server", url, "--output", "made")
    assert result.returncode == 1
    assert "cannot be reached" in result.stderr
    assert written(tmp_path) == ["graph.json"]


def test_an_older_file_of_that_name_is_kept(fake, runner, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.png").write_bytes(b"older")
    with serving(fake) as url:
        first = runner(GRAPH, "--server", url, "--output", "made")
        again = runner(GRAPH, "--server", url, "--output", "made")
    assert (first.stdout, again.stdout) == ("made/a-2.png\n", "made/a-2.png\n")
    assert (tmp_path / "made" / "a.png").read_bytes() == b"older"
    assert (tmp_path / "made" / "a-2.png").read_bytes() == b"content"


def test_an_answer_of_200_that_carries_node_errors_fails_the_run(fake, runner):
    error = {"type": "value_not_in_list", "message": "Value not in list", "details": "mode: 'x'", "extra_info": {}}
    fake.answer["node_errors"] = {"2": {"errors": [error], "dependent_outputs": ["2"], "class_type": "Show"}}
    with serving(fake) as url:
        result = runner(GRAPH | {"2": {"class_type": "Show", "inputs": {}}}, "--server", url)
    assert result.returncode == 1
    assert "error: 2 (Show): Value not in list: mode: 'x'\n" in result.stderr
    assert result.stderr.count("error:") == 1


def test_an_output_node_that_did_not_run_fails_the_run(fake, runner):
    with serving(fake) as url:
        result = runner(GRAPH | {"2": {"class_type": "Show", "inputs": {}}}, "--server", url)
    assert result.returncode == 1
    assert "error: 2 (Show): this output node did not run\n" in result.stderr


@pytest.mark.parametrize(("path", "status"), [("/object_info", 2), ("/prompt", 1), ("/ws", 1), ("/view", 1)])
def test_redirects_are_not_followed(fake, runner, path, status):
    other = Fake()
    with serving(other) as elsewhere, serving(fake) as url:
        fake.redirects = {path: elsewhere + path}
        result = runner(GRAPH, "--server", url)
    assert result.returncode == status
    assert "answered with a redirect" in result.stderr
    assert other.requests == []
