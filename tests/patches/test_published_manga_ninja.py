"""Reference rows in the host's networks, sampled as MangaNinja is, against the authors' loop as it is described."""

import pytest
import torch
from papernodes.benchmarks.manga_ninja_run import TINY, Ours, random_networks, random_picture

LATENT, STEPS = 16, 4


@pytest.fixture(scope="module")
def drawn():
    """Networks, a picture, and the authors' latent of it."""
    from papernodes.benchmarks.published_manga_ninja import PublishedMangaNinja

    networks = random_networks(torch.device("cpu"), TINY)
    picture = random_picture(torch.device("cpu"), TINY, LATENT)
    return networks, picture, PublishedMangaNinja(*vars(networks).values(), steps=STEPS)(picture)


def gap(found, wanted):
    """The largest difference over the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_the_latent_is_theirs(drawn):
    networks, picture, wanted = drawn
    ours = Ours(networks, networks.reference, STEPS)
    # The authors keep the bank in float16, whose rounding is what is left.
    assert gap(ours(picture), wanted) < 1e-4
    assert gap(ours(picture, move=True), wanted) < 1e-4


@pytest.mark.parametrize("name", ("reference", "image", "empty", "edge", "target_points", "reference_points"))
def test_the_latent_depends_on_all_that_it_is_drawn_from(name, drawn):
    """So that what is compared above could not be left out of both."""
    networks, picture, wanted = drawn
    other = random_picture(torch.device("cpu"), TINY, LATENT)
    setattr(other, name, getattr(picture, name).flip(-1))
    assert gap(Ours(networks, networks.reference, STEPS)(other), wanted) > 1e-3


def test_a_batch_of_pictures_is_drawn_as_each_of_them_alone(drawn):
    networks, _, _ = drawn
    ours = Ours(networks, networks.reference, STEPS)
    pictures = random_picture(torch.device("cpu"), TINY, LATENT, 2)
    alone = torch.cat([ours(picture) for picture in pictures.split()])
    assert gap(alone[:1], alone[1:]) > 1e-1
    assert gap(ours(pictures), alone) < 1e-5


@pytest.mark.parametrize("side", ("ours", "published"))
def test_a_run_in_the_same_memory_is_the_run(side, drawn):
    """What a GPU records and replays, over and over."""
    from papernodes.benchmarks.published_manga_ninja import PublishedMangaNinja
    from papernodes.benchmarks.static_run import static_ours, static_published

    networks, picture, _ = drawn
    if side == "ours":
        plain = Ours(networks, networks.reference, STEPS)
        static, first = static_ours(plain, picture), plain.noisy(picture, 1)
        prepared = plain.prepare(picture, plain.kept_bank(picture))
        wanted = plain(picture)
    else:
        plain = PublishedMangaNinja(*vars(networks).values(), steps=STEPS)
        static, first = static_published(plain, picture), picture.noise
        prepared = plain.prepare(picture)
        wanted = plain(picture)
    address = static.x.data_ptr()
    for _ in range(2):
        found = static()
        assert gap(plain.scaled(found, STEPS) if side == "ours" else found, wanted) < 1e-6
        assert gap(static.step(first, plain.schedule[1]), plain.step(first, plain.schedule[1], prepared)) < 1e-6
    assert static.x.data_ptr() == address


def test_the_last_step_ends_at_the_first_trained_one():
    from papernodes.benchmarks.published_manga_ninja import leading_times

    assert leading_times(50) == list(range(981, 0, -20))
