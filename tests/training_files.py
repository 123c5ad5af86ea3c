"""What a training script is started with and leaves behind, for tests."""

import json
from pathlib import Path

from demo import training, training_state


def check_folder(folder: Path, *pictures: str) -> None:
    """Whether a run of three steps left its state, its losses and these pictures."""
    _, progress = training.read_state(folder / "state.safetensors")
    assert progress.step == 3
    assert json.loads((folder / "losses.json").read_text()) == [[3, progress.losses[0][1]]]
    assert (folder / "state.safetensors").stat().st_size <= training_state.MAXIMUM_STATE_BYTES
    for name in ("losses.png", *pictures):
        assert (folder / name).stat().st_size > 200, name


def run(monkeypatch, module, *arguments: str) -> None:
    """Has a training script's module run in this process, with --tiny and these arguments."""
    monkeypatch.setattr("sys.argv", [module.__name__, "--tiny", *arguments])
    module.main()
