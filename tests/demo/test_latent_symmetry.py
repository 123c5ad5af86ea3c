"""Latents that turn and shrink as their pictures do."""

import torch
from torch.nn import functional

from demo.latent_symmetry import halved, turned_alike

ROWS = 400


def pairs(rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips, and as their latents the means of 4 x 4 pixels, which turn as the clips do."""
    clips = torch.rand(rows, 3, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    return functional.avg_pool3d(clips, (1, 4, 4)), clips


def symmetries(value: torch.Tensor) -> list[torch.Tensor]:
    turned = [torch.rot90(value, k, (-2, -1)) for k in range(4)]
    return turned + [one.flip(-1) for one in turned]


def test_latents_and_clips_are_changed_alike_by_all_symmetries_of_a_square():
    torch.manual_seed(1)
    latents, clips = pairs()
    found, moved = turned_alike(latents, clips, 1.0)
    torch.testing.assert_close(found, functional.avg_pool3d(moved, (1, 4, 4)))
    hits = torch.stack([(one == moved).flatten(1).all(1) for one in symmetries(clips)])
    assert bool((hits.sum(0) == 1).all()), "every row by one of the eight"
    assert int(hits.sum(1).min()) > ROWS / 16 and int(hits.sum(1).max()) < ROWS / 5


def test_a_share_of_the_rows_is_changed():
    torch.manual_seed(2)
    latents, clips = pairs()
    for share in (0.0, 0.4):
        _, moved = turned_alike(latents, clips, share)
        changed = float((moved != clips).flatten(1).any(1).float().mean())
        assert abs(changed - share * 7 / 8) < 0.08
    assert all(torch.equal(a, b) for a, b in zip(turned_alike(latents, clips, 0.0), (latents, clips), strict=True))


def test_half_the_size_is_the_mean_of_four():
    _, clips = pairs(2)
    small = halved(clips)
    assert small.shape == (2, 3, 2, 8, 8)
    torch.testing.assert_close(small[..., 3, 5], clips[..., 6:8, 10:12].mean((-2, -1)))
