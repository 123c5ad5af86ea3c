"""What the report on the image models is made of: ComfyUI's sampler in batches, and the measures."""

import argparse
import dataclasses
import json

import pytest
import torch

from demo.eval import image_measures as measures
from demo.eval.image_models import FILES, SAMPLERS, SCHEDULERS, ImageModels, file_hashes, noise_levels
from demo.eval.image_models import schedule as sigmas_of
from demo.eval.image_report import Report, write_report
from demo.eval.reading import UNSURE, Share, truth
from demo.world.captions import plain_lists, relation
from demo.world.render import render
from demo.world.scene import draw_scenes


@pytest.fixture(scope="module")
def schedule():
    """ComfyUI's own noise schedule of SD1.5."""
    from comfy import model_sampling

    class Sampling(model_sampling.ModelSamplingDiscrete, model_sampling.EPS):
        pass

    return Sampling()


@pytest.fixture(scope="module")
def pair():
    return draw_scenes(40, 77_000, characters=2, combinations="all")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize(("steps", "denoise"), [(20, 1.0), (20, 0.3), (7, 0.5)])
def test_sigmas_are_those_of_the_host(schedule, scheduler, steps, denoise):
    from comfy.samplers import calculate_sigmas

    total = int(steps / denoise)
    wanted = calculate_sigmas(schedule, scheduler, total)[-(steps + 1) :]
    torch.testing.assert_close(sigmas_of(scheduler, steps, denoise), wanted, rtol=2e-4, atol=1e-5)
    torch.testing.assert_close(noise_levels(), schedule.sigmas, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", [None, torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_are_those_of_the_host(schedule, sampler, start):
    """On a network that is a plain function, ours and the host's end at the same latents."""
    from comfy.k_diffusion import sampling

    def network(x, times, context, control=None, transformer_options=None):
        return torch.tanh(x * 1.3 + times.view(-1, 1, 1, 1) / 1000 - 0.2)

    models = ImageModels.__new__(ImageModels)
    models.unet, models.device, models.working, models.control = network, torch.device("cpu"), torch.float32, None
    models.sampler = sampler
    noise = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    sigmas = sigmas_of("normal", 12, 1.0 if start is None else 0.4)
    context = torch.zeros(2, 77, 128)
    ours = models.sample(noise, context, context, 3.0, sigmas, start, None)

    def denoise(x, sigma):
        scaled = schedule.calculate_input(sigma, x)
        return schedule.calculate_denoised(sigma, network(scaled, schedule.timestep(sigma).float(), None), x)

    first = torch.zeros_like(noise) if start is None else start
    x = schedule.noise_scaling(sigmas[0], noise, first, start is None)
    theirs = getattr(sampling, f"sample_{sampler}")(lambda x, sigma, **_: denoise(x, sigma), x, sigmas, disable=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3)


def test_prompt_scores_of_the_truth_are_perfect(pair):
    table = measures.prompt_scores(pair, truth(pair))
    assert {share.value for share in table.values()} == {1.0}
    assert {share.value for share in measures.relation_scores(pair, truth(pair)).values() if share.count} == {1.0}


def test_swapped_colours_are_wrong_looks(pair):
    told = truth(pair)
    swapped = dataclasses.replace(told, colour=told.colour[:, [1, 0, 2, 3]])
    differ = (told.colour[:, 0] != told.colour[:, 1]) & (told.shape[:, 0] != told.shape[:, 1])
    assert measures.prompt_scores(pair.select(differ), swapped.select(differ))["look"].value == 0


def test_unsure_and_surplus_are_wrong(pair):
    told = truth(pair)
    unsure = dataclasses.replace(told, shape=torch.full_like(told.shape, UNSURE))
    more = dataclasses.replace(told, present=torch.ones_like(told.present))
    for found in (unsure, more):
        assert measures.prompt_scores(pair, found)["look"].value == 0


def test_mirrored_places_break_the_relation(pair):
    told = truth(pair)
    lists = plain_lists(pair)
    sideways = torch.tensor([relation(lists, b) in ("left", "right") for b in range(pair.size)])
    flipped = dataclasses.replace(told, position=told.position * torch.tensor([-1.0, 1.0]))
    table = measures.relation_scores(pair, flipped)
    assert table["left/right"].value == 0 and table["left/right"].count == int(sideways.sum()) > 0
    assert table["above/below"].value == 1


def test_layout_kept(pair):
    told = truth(pair)
    near = dataclasses.replace(told, position=told.position + 0.1)
    far = dataclasses.replace(told, position=told.position + 0.2)
    assert measures.layout_kept(told, near).value == 1
    assert measures.layout_kept(told, far).value == 0


def test_line_overlap_laws(pair):
    pictures = render(pair.select(slice(0, 6))).frames[:, 0]
    found = measures.edges(pictures)
    share = found.float().mean((1, 2))
    assert (share > 0.05).all() and (share < 0.4).all()
    same, other = measures.line_overlap(found, found), measures.line_overlap(found, found.roll(1, 0))
    torch.testing.assert_close(same, torch.ones(6))
    assert other.max() < 0.6
    torch.testing.assert_close(other, measures.line_overlap(found.roll(1, 0), found))
    plain = measures.line_overlap(found, found.roll(1, 0), tolerance=0)
    both, either = found & found.roll(1, 0), found | found.roll(1, 0)
    torch.testing.assert_close(plain, both.sum((1, 2)) / either.sum((1, 2)))
    # A shift of one pixel is within the tolerance.
    assert measures.line_overlap(found, found.roll(1, 2)).min() > 0.95


def test_no_edges_in_a_flat_picture():
    flat = measures.edges(torch.full((1, 3, 32, 32), 0.5))
    assert not flat.any()
    assert measures.line_overlap(flat, flat).item() == 0


def report_arguments(folder):
    measured = {"n": 100, "seeds": 2, "cfg": 3.0, "sampler": "euler", "scheduler": "normal"}
    return argparse.Namespace(models=folder, lines_only=False, **measured)


def test_report_adds_up_seeds_and_knows_its_bars(tmp_path):
    for kind in FILES:
        (tmp_path / f"{kind}.safetensors").write_bytes(kind.encode())
    report = Report()
    for right in (90, 96):
        report.add("one", {"look": Share(right, 100, 0.01)})
    report.add("two", {"left/right": Share(0, 0, 0.01)})
    report.add_values("line overlap, asked", torch.tensor([0.6, 0.8]))
    arguments = argparse.Namespace(
        models=tmp_path, n=100, seeds=2, cfg=3.0, sampler="euler", scheduler="normal", lines_only=False
    )
    write_report(report, arguments, 1.0, tmp_path)
    found = json.loads((tmp_path / "image.json").read_text())
    row = found["shares"]["one.look"]
    assert (row["n"], row["right"], row["bar"], row["chance"]) == (200, 186, 0.95, 0.01)
    assert row["low"] < 0.93 == row["share"]
    assert "two.left/right" not in found["shares"]  # nothing was counted
    assert found["means"]["line overlap, asked"]["mean"] == pytest.approx(0.7)
    assert found["checkpoints"] == file_hashes(tmp_path)
    assert "| one.look | 200 | 93.0 % |" in (tmp_path / "image.md").read_text()


def test_lines_complete_a_report_of_the_same_files_only(tmp_path):
    for kind in FILES:
        (tmp_path / f"{kind}.safetensors").write_bytes(kind.encode())
    first, second = Report(), Report()
    first.add("one", {"look": Share(99, 100, 0.01)})
    second.add_values("line overlap, asked", torch.tensor([0.9, 0.8]))
    arguments = argparse.Namespace(
        models=tmp_path, n=100, seeds=2, cfg=3.0, sampler="euler", scheduler="normal", lines_only=False
    )
    write_report(first, arguments, 1.0, tmp_path)
    (tmp_path / "image_controlnet_lineart.safetensors").write_bytes(b"trained since")
    arguments.lines_only = True
    write_report(second, arguments, 2.0, tmp_path)
    found = json.loads((tmp_path / "image.json").read_text())
    assert found["shares"]["one.look"]["right"] == 99
    assert found["means"]["line overlap, asked"]["mean"] == pytest.approx(0.85)
    assert (found["seconds"], found["checkpoints"]) == (3, file_hashes(tmp_path))
    (tmp_path / "image_unet.safetensors").write_bytes(b"another")
    with pytest.raises(ValueError, match="image_unet"):
        write_report(second, arguments, 2.0, tmp_path)
    assert json.loads((tmp_path / "image.json").read_text()) == found
