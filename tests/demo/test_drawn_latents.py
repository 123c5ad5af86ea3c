"""Latents that a network draws again."""

import torch

from demo.drawn_latents import LEVELS, drawn_again

CLEAN = torch.randn(64, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_network_without_errors_gives_the_same_latents():
    seen = []

    def exact(x, sigmas):
        seen.append(sigmas)
        return (x - CLEAN) / sigmas.view(-1, 1, 1, 1, 1)

    torch.manual_seed(1)
    torch.testing.assert_close(drawn_again(exact, CLEAN), CLEAN)
    begin = torch.stack(seen).amax(0)
    assert LEVELS[0] < float(begin.min()) < 0.3 and 0.5 < float(begin.max()) < LEVELS[1]


def test_errors_of_the_network_stay():
    torch.manual_seed(1)
    # Whoever never takes anything away leaves the noise that was given.
    left = drawn_again(lambda x, sigmas: torch.zeros_like(x), CLEAN, (0.5, 0.5)) - CLEAN / 2
    assert abs(float(left.std()) - 0.5) < 0.01
    wrong = 0.25 * torch.ones_like(CLEAN[:1])
    off = drawn_again(lambda x, sigmas: (x - CLEAN - wrong) / sigmas.view(-1, 1, 1, 1, 1), CLEAN) - CLEAN
    torch.testing.assert_close(off, wrong.expand_as(off))
