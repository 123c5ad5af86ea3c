"""Line Art as the host runs it, with the network of random weights, and what it says of bad input."""

import folder_paths
import pytest
import torch
from papernodes.kernels.line_art import METHODS, found_lines, without_faint
from papernodes.networks.line_drawing import FILE, LineDrawing, LineDrawingFileError, read_line_drawing
from papernodes.nodes.line_art import AT_ONCE, AUTO, NETWORK, LineArt

SETTINGS = ("auto", 0.24, 1.0)


def pictures(batch=1, size=(22, 33), seed=0):
    return torch.rand(batch, *size, 3, generator=torch.Generator().manual_seed(seed))


def random_network(seed=1):
    network = LineDrawing(device="cpu", dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return network


@pytest.fixture
def annotators(tmp_path, monkeypatch):
    """models/annotators, empty."""
    known = ([str(tmp_path)], set(folder_paths.supported_pt_extensions))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "annotators", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


def lines(image, method, is_line_art=False, settings=SETTINGS):
    return LineArt.execute(image, method, is_line_art, *settings).args


def test_without_a_file(annotators):
    image = pictures()
    for method, meant in ((AUTO, METHODS[0]), *((method, method) for method in METHODS)):
        found, hint = lines(image, method)
        wanted = without_faint(found_lines(image, meant, 1.0))
        torch.testing.assert_close(found, wanted[..., None].expand(-1, -1, -1, 3))
        torch.testing.assert_close(hint, found * 2 - 1)


def test_the_network_of_the_published_layout(annotators):
    """Sizes that are no multiples of four, more pictures than are drawn together; chosen by auto where its file is."""
    network = random_network()
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_290_945
    assert {
        "model0.1.weight",
        "model1.3.bias",
        "model2.2.conv_block.5.weight",
        "model3.3.weight",
        "model4.1.bias",
    } <= set(network.state_dict())
    torch.save(network.state_dict(), annotators / FILE)
    image = pictures(AT_ONCE + 1)
    found, _ = lines(image, NETWORK, settings=("auto", 0.0, 1.0))
    with torch.no_grad():
        padded = torch.nn.functional.pad(image.movedim(-1, 1), (0, 3, 0, 2), mode="replicate")
        wanted = 1 - network(padded)[:, 0, :22, :33]
    torch.testing.assert_close(found[..., 0], wanted, atol=1e-4, rtol=0)
    assert torch.equal(lines(image, AUTO)[0], lines(image, NETWORK)[0])
    assert not torch.equal(lines(image, METHODS[0])[0], lines(image, NETWORK)[0])


def test_line_art_is_taken_as_it_is(annotators):
    image = torch.ones(1, 20, 20, 3)
    image[:, 9:11] = 0.2
    found, _ = lines(image, AUTO, is_line_art=True)
    assert float(found[0, 10].min()) == 1 and float(found[0, :8].max()) == 0
    torch.testing.assert_close(lines(1 - image, AUTO, is_line_art=True)[0], found)


def test_wrong_files(annotators):
    state = random_network().state_dict()
    for broken, said in (
        ({"a": torch.zeros(1)}, "is not the line drawing network: it lacks model0.1.bias"),
        ({**state, "more": torch.zeros(1)}, "it has more than that, more"),
        ({**state, "model4.1.bias": torch.zeros(2)}, r"model4.1.bias has shape \[2\]; expected \[1\]"),
    ):
        with pytest.raises(LineDrawingFileError, match=said):
            read_line_drawing("x.pth", broken)
        torch.save(broken, annotators / FILE)
        with pytest.raises(ValueError, match=rf"'method': {FILE}"):
            lines(pictures(), AUTO)
    (annotators / FILE).write_bytes(b"1234")
    with pytest.raises(ValueError, match=r"'method': .* cannot be read as weights"):
        lines(pictures(), AUTO)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lines(pictures(), NETWORK), r"'method' line drawing network needs sk_model\.pth, which is not in"),
        (lambda: lines(pictures(), "x"), "'method' is 'x'"),
        (
            lambda: lines(torch.full((1, 8, 8, 3), 0.5), AUTO, True),
            "'image': a picture has no lines.* Connect line art",
        ),
        (lambda: lines(pictures(), AUTO, settings=("x", 0.2, 1.0)), "'polarity' is 'x'"),
        (lambda: lines(pictures(), AUTO, settings=("auto", 2.0, 1.0)), "'threshold' is 2.0"),
        (lambda: lines(pictures(), AUTO, settings=("auto", 0.2, 0.0)), "'line_width' is 0.0"),
        (lambda: lines(pictures() / 0, AUTO), "'image' holds NaN or infinite"),
    ],
)
def test_bad_input(annotators, call, message):
    with pytest.raises(ValueError, match=message):
        call()
