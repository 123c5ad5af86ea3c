"""Lines of pictures: broad and fine ones, of line art in either polarity, and what is no line."""

import pytest
import torch
from papernodes.kernels.line_art import (
    METHODS,
    POLARITIES,
    control_hint,
    found_lines,
    is_line_art,
    lines_of_line_art,
    without_faint,
)


def strokes(ground=1.0, ink=0.0):
    """A picture with a cross on an even ground, and where it is."""
    where = torch.zeros(1, 40, 48)
    where[:, 19:21], where[:, :, 23:25] = 1, 1
    return (ground + (ink - ground) * where)[..., None].expand(-1, -1, -1, 3).contiguous(), where


@pytest.mark.parametrize("method", METHODS)
def test_an_even_picture_has_no_lines(method):
    assert float(found_lines(torch.full((1, 32, 32, 3), 0.4), method).max()) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_broad_strokes_need_a_broad_line(method):
    picture = torch.ones(1, 96, 96, 3)
    picture[:, 40:56] = 0
    middle = [float(found_lines(picture, method, width)[0, 47, 48]) for width in (1.0, 12.0)]
    assert middle[0] < 0.3 < 0.9 < middle[1]


@pytest.mark.parametrize(("ground", "ink"), [(1.0, 0.0), (0.0, 1.0), (0.6, 0.3), (0.3, 0.6), (0.9, 0.8)])
def test_line_art_of_any_polarity_and_grey(ground, ink):
    picture, where = strokes(ground, ink)
    for polarity in ("auto", "dark on light" if ink < ground else "light on dark"):
        torch.testing.assert_close(lines_of_line_art(picture, polarity), where, atol=1e-5, rtol=0)


def test_the_wrong_polarity_finds_no_lines():
    picture, _ = strokes()
    with pytest.raises(ValueError, match=r"a picture has no lines: its brightness differs by 0\.00"):
        lines_of_line_art(picture, "light on dark")


def test_faint_lines_and_the_hint():
    lines = torch.tensor([[[0.0, 0.2, 0.24, 0.25, 1.0]]])
    kept = without_faint(lines)
    assert kept.tolist() == [[[0.0, 0.0, 0.0, 0.25, 1.0]]]
    hint = control_hint(kept)
    assert hint.shape == (1, 1, 5, 3) and hint[0, 0, :, 1].tolist() == [-1.0, -1.0, -1.0, -0.5, 1.0]
    assert torch.equal(without_faint(lines, 0.0), lines)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: found_lines(torch.zeros(4, 4, 3), METHODS[0]), r"pictures has shape \[4, 4, 3\]"),
        (lambda: found_lines(torch.zeros(1, 4, 4, 3), "x"), "method is 'x'; expected one of difference of Gaussians"),
        (lambda: found_lines(torch.zeros(1, 4, 4, 3), METHODS[0], 0.0), "width is 0.0"),
        (lambda: lines_of_line_art(torch.zeros(4, 4, 3)), r"pictures has shape \[4, 4, 3\]"),
        (lambda: lines_of_line_art(strokes()[0], "x"), "polarity is 'x'; expected one of auto, dark on light"),
        (lambda: lines_of_line_art(torch.zeros(1, 4, 4, 3), POLARITIES[0]), "a picture has no lines"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def drawn_with(ground, ink, height=64, width=64):
    """A ring and a cross of ink on a ground, each a colour, some 15 % of it covered."""
    y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
    radius = torch.hypot(x, y)
    cover = ((radius - 20).abs() < 2) | ((x.abs() < 1.5) | (y.abs() < 1.5)) & (radius < 20)
    return torch.where(cover[..., None], torch.tensor(ink), torch.tensor(ground))


@pytest.mark.parametrize(
    ("ground", "ink"),
    [
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        ((0.72, 0.72, 0.72), (0.2, 0.2, 0.2)),
        ((0.83, 0.81, 0.79), (0.15, 0.13, 0.12)),
    ],
)
def test_line_art_is_known(ground, ink):
    picture = drawn_with(ground, ink)
    assert is_line_art(picture)
    scan = picture + 0.01 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    assert is_line_art(scan.clamp(0, 1)), "with the grain of a scan"
    small = torch.nn.functional.avg_pool2d(picture.movedim(-1, 0), 2).movedim(0, -1)
    assert is_line_art(small), "with soft edges"


@pytest.mark.parametrize(
    ("ground", "ink"),
    [((1.0, 1.0, 1.0), (0.9, 0.1, 0.1)), ((0.0, 0.0, 0.0), (0.2, 0.4, 0.9)), ((0.9, 0.6, 0.3), (0.0, 0.0, 0.0))],
)
def test_what_is_coloured_is_no_line_art(ground, ink):
    assert not is_line_art(drawn_with(ground, ink))
    small = torch.tensor(ground).expand(160, 160, 3).clone()
    small[48:112, 48:112] = drawn_with(ground, ink)
    assert not is_line_art(small), "be it small on a large ground"


def test_blank_paper_could_be_line_art():
    assert all(is_line_art(torch.full((8, 8, 3), grey)) for grey in (0.0, 0.5, 1.0))


def test_pictures_are_no_line_art_and_lines_are(repository):
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    def read(name, mode="RGB"):
        return to_tensor(Image.open(repository / "demo" / "media" / name).convert(mode).convert("RGB")).movedim(0, -1)

    for name in ("coffee.jpg", "toy_scene.png", "toy_reposed.png", "toy_twins.png", "toy_sheet.png"):
        assert not is_line_art(read(name)), name
    assert not is_line_art(read("coffee.jpg", "L")), "a photograph without colours"
    for name in ("toy_reposed_lines.png", "line_art.png", "toy_twins_lines.png", "toy_clip_lines.gif"):
        assert is_line_art(read(name)) and is_line_art(1 - read(name)) and is_line_art(0.3 + 0.4 * read(name)), name
