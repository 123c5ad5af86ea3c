"""Two processes that train one model give what one with both batches gives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from demo import training
from demo.training_group import TrainingGroup

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import argparse, sys
from pathlib import Path
import torch
from demo.training import Trainer
from demo.training_group import TrainingGroup

folder = Path(sys.argv[1])
group = TrainingGroup.join(False)
generator = torch.Generator().manual_seed(0)
inputs, outputs = torch.randn(2, 8, 6, generator=generator), torch.randn(2, 8, 5, generator=generator)
start = torch.randn(5, 6, generator=generator)
chosen = [group.number] if group.size > 1 else [0, 1]
parameters = {"matrix": (start + group.number).requires_grad_(), "unused": torch.zeros(3).requires_grad_()}


def loss():
    return torch.stack([(inputs[k] @ parameters["matrix"].T - outputs[k]).square().mean() for k in chosen]).mean()


arguments = argparse.Namespace(
    resume=None, seed=0, rate=0.01, decay=0.35, minutes=1, steps=60, final=True, no_graph=True, state=folder, muon=False
)
arguments.group = group
trainer = Trainer(parameters, loss, arguments)
trainer.train()
group.leave()
print("the first one is left")
"""


def run(folder: Path, *launcher: str) -> dict[str, torch.Tensor]:
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="ascii")
    found = subprocess.run(
        [sys.executable, *launcher, str(program), str(folder)],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert found.stdout.count("the first one is left") == 1
    weights, progress = training.read_state(folder / "state.safetensors")
    assert progress.step == 60
    return weights


def test_two_processes_train_as_one_with_both_batches(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = run(tmp_path / "one")
    two = run(tmp_path / "two", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    torch.testing.assert_close(two["matrix"], one["matrix"], rtol=1e-3, atol=1e-3)
    assert len(json.loads((tmp_path / "two" / "losses.json").read_text())) == 2


def test_a_process_alone_has_nothing_to_do(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = TrainingGroup.join(False)
    gradient = torch.ones(3)
    group.average(gradient)
    group.share_first([gradient])
    group.leave()
    assert group == TrainingGroup() and group.agree(0.25) == 0.25 and torch.equal(gradient, torch.ones(3))


def test_a_script_for_one_process_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(TrainingGroup, "join", classmethod(lambda cls, cuda: cls(size=2)))
    arguments = training.parser("test", minutes=1, batch=2, rate=0.1, pictures=4).parse_args(
        ["--state", str(tmp_path), "--tiny"]
    )
    with pytest.raises(SystemExit, match="one process"):
        training.settle(arguments)
    assert training.settle(arguments, several=True) == torch.device("cpu")
