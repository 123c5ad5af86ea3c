"""The training scripts' shared parts: schedule, pieces, state file, moving average, noise schedule, words."""

import argparse
import json
from pathlib import Path

import comfy.model_sampling
import comfy.sd1_clip
import numpy as np
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.util import make_beta_schedule

from demo import diffusion, training, training_drawings, training_state, world_tokens
from demo.world.captions import captions
from demo.world.scene import draw_scenes


def arguments(folder: Path, **changes) -> argparse.Namespace:
    parser = training.parser("test", minutes=1, batch=2, rate=0.05, pictures=4)
    found = parser.parse_args(["--state", str(folder), "--no-graph"])
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def make_trainer(folder: Path, **changes) -> tuple[training.Trainer, torch.Tensor]:
    """Moves a vector to 3; the moving average forgets half in each step."""
    weights = torch.zeros(4, requires_grad=True)
    trainer = training.Trainer(
        {"weights": weights}, lambda: (weights - 3).square().mean(), arguments(folder, **changes), average=0.5
    )
    return trainer, weights


def test_the_rate_rises_stays_and_falls_only_in_the_last_piece():
    factor = training.rate_factor
    assert factor(0, 0.0, final=False) == 1 / training.WARM_UP
    assert factor(training.WARM_UP - 1, 0.0, final=False) == 1
    assert factor(training.WARM_UP * 9, 0.99, final=False) == 1
    last = [factor(training.WARM_UP * 9, done, final=True) for done in (0.5, 0.65, 0.825, 1.0)]
    assert last == pytest.approx([1, 1, 0.5, 0])
    assert factor(training.WARM_UP * 9, 0.25, final=True, share=1.0) == pytest.approx(0.75)


def test_a_resumed_piece_goes_on_where_the_first_ended(tmp_path):
    first, weights = make_trainer(tmp_path, steps=130)
    first.train()
    assert [step for step, _ in first.progress.losses] == [50, 100, 130]
    losses = first.progress.losses
    assert losses[-1][1] < losses[0][1]
    second, again = make_trainer(tmp_path, steps=60, resume=tmp_path)
    assert torch.equal(again.detach(), weights.detach().half().float())
    second.train()
    assert [step for step, _ in second.progress.losses] == [50, 100, 130, 180, 190]
    assert second.progress.losses[:3] == losses
    assert json.loads((tmp_path / "losses.json").read_text()) == [list(item) for item in second.progress.losses]
    assert second.progress.seconds > first.progress.seconds > 0
    assert second.metadata("image_unet")["steps"] == "190"


def test_the_moving_average_follows_the_weights(tmp_path):
    trainer, weights = make_trainer(tmp_path, steps=15)
    seen = [weights.detach().clone()]
    trainer.loss = lambda: (seen.append(weights.detach().clone()), (weights - 3).square().mean())[1]
    trainer.train()
    expected = seen[0]
    for value in [*seen[2:], weights.detach()]:  # the second entry is the first again: the loss of the first step
        expected = (expected + value) / 2
    torch.testing.assert_close(trainer.averaged()["weights"], expected)
    trainer.use_averages()
    assert torch.equal(weights.detach(), trainer.averages[0])


@pytest.mark.parametrize("size", [0.01, 5.0])
def test_gradients_are_clipped_together(tmp_path, size):
    """As PyTorch clips them, whatever their layout; a parameter without a gradient is left alone."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"matrix": (4, 3), "bias": (4,), "filters": (2, 3, 3, 3), "unused": (2,)}
    values = {name: torch.zeros(shape).requires_grad_() for name, shape in shapes.items()}
    values["filters"] = torch.zeros(2, 3, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    trainer = training.Trainer(values, lambda: torch.zeros(()), arguments(tmp_path))
    used = [value for name, value in values.items() if name != "unused"]
    expected = []
    for value in used:
        value.grad = torch.randn(value.shape, generator=generator) * size
        value.grad = value.grad.contiguous(
            memory_format=torch.channels_last if value.ndim == 4 else torch.contiguous_format
        )
        expected.append(value.grad.clone())
    norm = torch.stack([value.norm() for value in expected]).norm()
    trainer.settle_gradients()
    for value, before in zip(used, expected, strict=True):
        torch.testing.assert_close(value.grad, before * min(1.0, 1 / (float(norm) + 1e-6)))
        assert value.grad.stride() == before.stride()
    assert values["unused"].grad is None


def test_pieces_draw_other_numbers(tmp_path):
    """The same seed and step give the same numbers, the next piece others."""
    drawn = []
    for resume, folder in ((None, tmp_path / "a"), (None, tmp_path / "b"), (tmp_path / "a", tmp_path / "a")):
        trainer, weights = make_trainer(folder, steps=1, resume=resume)
        trainer.loss = lambda weights=weights: (drawn.append(torch.rand(()).item()), weights.sum())[1]
        trainer.train()
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_loss_that_is_not_finite_ends_the_piece_and_keeps_the_last_state(tmp_path):
    first, _ = make_trainer(tmp_path, steps=5)
    first.train()
    before = (tmp_path / "state.safetensors").read_bytes()
    trainer, weights = make_trainer(tmp_path, steps=5, resume=tmp_path)
    trainer.loss = lambda: weights.sum() * float("nan")
    with pytest.raises(FloatingPointError, match="nan at step 10"):
        trainer.train()
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_a_state_is_at_most_16_mib(tmp_path):
    path = tmp_path / "state.safetensors"
    training.write_state(path, {"a": torch.zeros(8_380_000)}, training.Progress())
    assert path.stat().st_size <= training_state.MAXIMUM_STATE_BYTES
    with pytest.raises(ValueError, match="more than 16 MiB"):
        training.write_state(path, {"a": torch.zeros(8_400_000)}, training.Progress())
    with pytest.raises(ValueError, match="not finite"):
        training.write_state(path, {"a": torch.tensor([float("inf")])}, training.Progress())
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_pictures_of_losses_and_results_are_written(tmp_path):
    training_drawings.draw_losses([(50, 1.0), (100, 0.1)], tmp_path / "losses.png")
    training_drawings.save_grid([torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)], tmp_path / "grid.png")
    from PIL import Image

    line = np.asarray(Image.open(tmp_path / "losses.png").convert("RGB"))
    assert ((line[..., 2] > 150) & (line[..., 0] < 80)).sum() > 200
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (16, 16, 3)
    assert grid[:8].max() == 0
    assert grid[8:].min() == 255


def test_the_noise_schedule_is_the_hosts():
    sampling = comfy.model_sampling.ModelSamplingDiscrete()
    levels = 1 / (1 + sampling.sigmas.double() ** 2)
    torch.testing.assert_close(diffusion.signal_levels().double(), levels, rtol=1e-5, atol=1e-7)
    betas = make_beta_schedule("linear", diffusion.STEPS, 0.00085, 0.012)
    torch.testing.assert_close(diffusion.signal_levels(), (1 - betas).cumprod(0).float())


def test_sampling_with_the_true_noise_gives_the_picture():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(3, 4, 8, 8, generator=generator)
    levels = diffusion.signal_levels()

    def predict(x, times):
        level = levels[times.long()].view(-1, 1, 1, 1)
        return (x - level.sqrt() * clean) / (1 - level).sqrt()

    found = diffusion.sample(predict, torch.randn(3, 4, 8, 8, generator=generator), 5)
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-3)


def test_layout_rows_come_from_the_noisier_times_and_count_the_clean_error():
    levels = diffusion.signal_levels()
    times, weights = diffusion.TimeDraw(levels, 4000, 5.0, 0.25, 0.5).draw()
    assert times[:1000].min() >= diffusion.LAYOUT_TIMES and times[1000:].min() < diffusion.LAYOUT_TIMES
    assert times.max() == 999
    # An error e in the noise is an error e * noise / signal in the clean latent; the limit only binds at the very end.
    ratio = (1 - levels) / levels
    assert torch.equal(weights[:1000], 0.5 * ratio[times[:1000]].clamp_max(60))
    assert torch.equal(weights[1000:], diffusion.loss_weights(levels, 5.0)[times[1000:]])
    assert ratio[800] < 60 < ratio[999]


def test_loss_weights_are_1_where_noise_is_strong():
    levels = torch.tensor([0.01, 0.5, 5 / 6, 0.99])
    torch.testing.assert_close(diffusion.loss_weights(levels, 5), torch.tensor([1, 1, 1, 5 / 99]))
    assert torch.equal(diffusion.loss_weights(levels, 0), torch.ones(4))


def test_the_table_of_words_is_up_to_date():
    assert world_tokens.table() == world_tokens.make_table()


def test_captions_are_tokenised_as_the_host_does():
    tokenizer = comfy.sd1_clip.SD1Tokenizer()
    scenes = draw_scenes(200, 77)
    rows = world_tokens.token_rows(captions(scenes, 3))
    known = np.array(world_tokens.vocabulary())
    for caption, row in zip(
        [*captions(scenes, 3), *captions(scenes.select(slice(0, 50)), 4, full=True), ""],
        [*rows, *[None] * 51],
        strict=True,
    ):
        expected = [token for token, _ in tokenizer.tokenize_with_weights(caption)["l"][0]]
        assert world_tokens.token_ids(caption) == expected, caption
        if row is not None:
            assert known[row].tolist() == expected
    with pytest.raises(KeyError):
        world_tokens.token_ids("a crocodile")
    with pytest.raises(ValueError, match="more than 75"):
        world_tokens.token_rows(["red " * 76])
