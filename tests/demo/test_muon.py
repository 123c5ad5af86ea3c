"""Muon: what its steps look like, and that they learn."""

import argparse

import pytest
import torch

from demo.muon import STEP_SIZE, Muon, orthogonalised
from demo.training import Trainer


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 7
    found = orthogonalised(matrices)
    values = torch.linalg.svdvals(found)
    assert found.shape == matrices.shape
    assert values.min() > 0.3 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    inside = u.mT @ found @ v.mT  # in the matrix's own axes nothing but its diagonal is left
    assert (inside - torch.diag_embed(inside.diagonal(dim1=1, dim2=2))).abs().max() < 1e-3


def test_the_scale_of_a_gradient_does_not_matter():
    matrices = torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalised(matrices * 1e4), orthogonalised(matrices), rtol=1e-4, atol=1e-5)
    assert torch.equal(orthogonalised(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


def test_a_step_has_the_size_of_adams_and_reads_the_rate():
    weight = torch.zeros(16, 4, 3, 3).requires_grad_()
    rate = torch.tensor(0.01)
    muon = Muon([weight], rate)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    muon.step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.01 * STEP_SIZE, rel=0.3)
    before = weight.detach().clone()
    rate.zero_()
    muon.step()
    assert torch.equal(weight.detach(), before)


@pytest.mark.parametrize("muon", [False, True])
def test_the_trainer_moves_the_chosen_matrices_by_muon(tmp_path, muon):
    generator = torch.Generator().manual_seed(3)
    wanted, inputs = torch.randn(12, 20, generator=generator), torch.randn(64, 20, generator=generator)
    parameters = {"matrix": torch.zeros(12, 20).requires_grad_(), "bias": torch.zeros(12).requires_grad_()}

    def loss():
        return (inputs @ (parameters["matrix"] - wanted).T + parameters["bias"] - 1).square().mean()

    arguments = argparse.Namespace(
        resume=None, seed=0, rate=0.05, decay=0.35, minutes=1, steps=250, final=True, no_graph=True, state=tmp_path,
        muon=muon,
    )  # fmt: skip
    first = float(loss().detach())
    trainer = Trainer(parameters, loss, arguments, is_matrix=lambda name, value: name == "matrix")
    assert (trainer.muon is not None) == muon
    in_adam = [value for group in trainer.optimiser.param_groups for value in group["params"]]
    assert any(value is parameters["matrix"] for value in in_adam) != muon
    assert any(value is parameters["bias"] for value in in_adam)
    trainer.train()
    assert float(loss().detach()) < 0.05 * first


def test_a_script_that_knows_no_matrices_refuses_muon(tmp_path):
    parameters = {"matrix": torch.zeros(4, 4).requires_grad_()}
    arguments = argparse.Namespace(resume=None, seed=0, rate=0.05, state=tmp_path, muon=True)
    with pytest.raises(SystemExit, match="--muon"):
        Trainer(parameters, lambda: parameters["matrix"].sum(), arguments)


def test_lying_and_standing_matrices_go_together_as_they_go_apart():
    generator = torch.Generator().manual_seed(4)
    shapes = (8, 20), (20, 8), (8, 5, 2, 2), (6, 6)
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    gradients = [torch.randn(shape, generator=generator) for shape in shapes]
    rate = torch.tensor(0.02)
    together = [value.clone().requires_grad_() for value in starts]
    alone = [value.clone().requires_grad_() for value in starts]
    optimisers = [Muon(together, rate), *(Muon([value], rate) for value in alone)]
    assert len(optimisers[0].groups) == 2
    for factor in (1.0, 0.7):
        for values in (together, alone):
            for value, gradient in zip(values, gradients, strict=True):
                value.grad = gradient * factor
        for optimiser in optimisers:
            optimiser.step()
    for one, other, start in zip(together, alone, starts, strict=True):
        torch.testing.assert_close(one, other)
        assert (one.detach() - start).abs().max() > 1e-3
