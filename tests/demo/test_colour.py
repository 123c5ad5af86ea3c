"""MangaNinja's demonstration: pairs of pictures, the small files against published ones, training and measures."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from demo.colour_pairs import draw_pairs, numbered_maps, shuffled, with_twins
from demo.eval import colour_report
from demo.eval.colour_measures import colour_errors, own_colours, read_colours, region_colours, regions_of, to_lab
from demo.eval.colour_models import dual_scales
from demo.eval.network_reader import NetworkReader
from demo.world.attributes import HELD_OUT
from demo.world.render import render
from demo.world.scene import draw_scenes, repose
from networks import demo_format, demo_manga_ninja
from networks.demo_controlnet import assemble
from networks.demo_image import UNET_CONFIG
from networks.demo_manga_ninja import CONTROL, DENOISING, KINDS, POINTS, REFERENCE
from networks.manga_ninja import HEAD, diffusers_names, read_point_net, reference_weights

SIZE = 128


@pytest.fixture(scope="module")
def scenes():
    """Eight scenes of two twins each."""
    drawn = draw_scenes(64, 5, characters=2)
    twins, changed = with_twins(drawn, torch.ones(64, dtype=torch.bool))
    return twins.select(changed).select(slice(0, 8))


@pytest.fixture(scope="module")
def pairs(scenes):
    return draw_pairs(scenes, repose(scenes, 9, scenery=False), SIZE, 1, 6)


@pytest.mark.parametrize("combinations", ["train", "held_out", "all"])
def test_twins_differ_in_nothing_but_their_colours(combinations):
    drawn = draw_scenes(200, 3, combinations=combinations)
    asked = torch.arange(200) % 2 == 0
    found, changed = with_twins(drawn, asked, combinations)
    assert (
        int(changed.sum()) > (1 if combinations == "held_out" else 10)
        and not bool((changed & ~asked).any())
        and not bool((changed & (found.count == 1)).any())
    )
    for name in ("shape", "pattern", "face", "accessory"):
        assert bool((getattr(found, name)[changed, 0] == getattr(found, name)[changed, 1]).all())
    assert bool((found.colour[changed, 0] != found.colour[changed, 1]).all())
    assert torch.equal(found.colour, drawn.colour) and torch.equal(found.shape[~changed], drawn.shape[~changed])
    looks = HELD_OUT[found.shape[changed, 1], found.colour[changed, 1], found.pattern[changed, 1]]
    if combinations != "all":
        assert bool((looks == (combinations == "held_out")).all())


def test_lines_of_twins_are_alike_where_they_stand_alike(scenes):
    """Nothing but colours tells them apart: with both characters at one place the lines are the same."""

    def alone(k):
        kept = scenes.map(lambda value: value)
        fields = {name: getattr(kept, name)[:, k : k + 1].expand(-1, 4) for name in
                  ("shape", "pattern", "face", "accessory", "colour")}  # fmt: skip
        return dataclasses.replace(kept, count=torch.ones_like(kept.count), **fields)

    first, second = (render(alone(k), 64, 64, layers=("lines", "flat")) for k in (0, 1))
    assert torch.equal(first.lines, second.lines) and not torch.equal(first.flat, second.flat)


@pytest.mark.parametrize("cuts", [2, 4, 8])
def test_shuffled_points_lie_on_what_they_lay_on(cuts):
    generator = torch.Generator().manual_seed(cuts)
    pictures = torch.rand(3, 3, SIZE, SIZE, generator=generator)
    points = torch.randint(0, SIZE, (3, 20, 2), generator=generator).float()
    order = torch.rand(3, cuts * cuts, generator=generator).argsort(1)
    moved, places = shuffled(pictures, points, cuts, order)
    for row in range(3):
        for before, after in zip(points[row].long(), places[row].long(), strict=True):
            assert torch.equal(pictures[row, :, before[1], before[0]], moved[row, :, after[1], after[0]])
    assert torch.equal(moved.flatten().sort().values, pictures.flatten().sort().values)
    same = torch.arange(cuts * cuts).expand(3, -1)
    unmoved = shuffled(pictures, points, cuts, same)
    assert torch.equal(unmoved[0], pictures) and torch.equal(unmoved[1], points)


def test_numbered_maps_hold_matching_numbers(pairs):
    places = torch.cat((pairs.wanted_points, pairs.reference_points), -1).round().flatten(1, 2)
    places = torch.where(pairs.visible.flatten(1)[..., None], places, -1.0).to(torch.int16)
    count = torch.tensor([0, 1, 2, 3, 4, 5, 6, 50])
    torch.manual_seed(4)
    target, reference = numbered_maps(places, count, SIZE)
    there = {tuple(place) for place in places[7].tolist()}
    for row in range(8):
        numbers = target[row, 0][target[row, 0] > 0].sort().values
        # Two points at one pixel leave one number there.
        assert len(numbers) <= min(int(count[row]), int((places[row, :, 0] >= 0).sum()))
        assert len(numbers) >= min(int(count[row]), int((places[row, :, 0] >= 0).sum())) - 1
        assert set(numbers.tolist()) <= set(range(1, int(count[row]) + 1))
    matched = 0
    y, x = (target[7, 0] > 0).nonzero().unbind(1)
    for row, column in zip(y.tolist(), x.tolist(), strict=True):
        number = target[7, 0, row, column]
        found = (reference[7, 0] == number).nonzero()
        matched += any((column, row, int(b), int(a)) in there for a, b in found.tolist())
    # One may share its pixel in the reference with a later number.
    assert matched >= len(y) - 1 > 3
    torch.manual_seed(5)
    assert not torch.equal(numbered_maps(places, count, SIZE)[0], target), "another order, other numbers"


def test_colours_are_measured(scenes, pairs):
    regions = regions_of(scenes, SIZE)
    assert bool(regions.there[:, :2].all())
    errors = colour_errors(pairs.wanted, pairs.wanted, regions)
    assert float(errors.max()) == 0
    swapped = render(dataclasses.replace(scenes, colour=scenes.colour[:, [1, 0, 2, 3]]), SIZE, SIZE).frames[:, 0]
    assert float(colour_errors(swapped, pairs.wanted, regions).min()) > 10
    assert bool(own_colours(pairs.wanted, pairs.wanted, regions).all())
    assert not bool(own_colours(swapped, pairs.wanted, regions).any())
    reader = NetworkReader()
    for picture, right in ((pairs.wanted, True), (swapped, False)):
        read, there = read_colours(reader.read(picture), scenes)
        assert there.shape == read.shape and float((read[there] == right).float().mean()) > 0.85
    grey = torch.full((1, 3, 4, 4), 0.5)
    torch.testing.assert_close(to_lab(grey)[0, :, 0, 0], torch.tensor([53.389, 0.0, 0.0]), atol=0.01, rtol=0)
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(to_lab(red).flatten(), torch.tensor([53.24, 80.09, 67.20]), atol=0.02, rtol=0)
    assert region_colours(pairs.wanted, regions).shape == (8, 8, 3)


def test_scales_are_the_guiders():
    from papernodes.patches.manga_ninja import dual_guidance

    for scales in ((9.0, 15.0), (3.0, 8.0), (1.0, 0.0)):
        assert dual_scales(*scales) == dual_guidance(*scales)[::-1]


@pytest.fixture(scope="module")
def begun():
    """kind -> what training begins with."""
    unet = demo_format.load(demo_format.FOLDER / "image_unet.safetensors", "image_unet")[0]
    kind = "image_controlnet_lineart"
    lines = assemble(demo_format.load(demo_format.FOLDER / f"{kind}.safetensors", kind)[0], unet)
    return unet, lines, {kind: demo_manga_ninja.initial(kind, 0, lines if kind == CONTROL else None) for kind in KINDS}


@pytest.fixture(scope="module")
def files(begun, tmp_path_factory):
    folder = tmp_path_factory.mktemp("manga")
    for kind, state in begun[2].items():
        begun_at = {"steps": "0", "training_seconds": "0"}
        demo_format.save(folder / f"{kind}.safetensors", state, {"kind": kind, **begun_at})
    return folder


def test_training_begins_with_the_image_model(begun, files):
    unet, lines, _ = begun
    for kind in (DENOISING, REFERENCE):
        whole = demo_manga_ninja.load_unet(files / f"{kind}.safetensors", kind)
        assert whole.keys() == unet.keys() and all(torch.equal(whole[name], unet[name]) for name in unet)
    control = demo_manga_ninja.load_control(files / f"{CONTROL}.safetensors")
    assert control.keys() == lines.keys()
    first = "input_hint_block.0."
    for name, value in lines.items():
        if not name.startswith(first):
            torch.testing.assert_close(control[name], value, atol=2e-2, rtol=2e-2)
    # Away from the border, where the padding is grey now, a hint from -1 to 1 does what the one from 0 to 1 did.
    hint = torch.rand(1, 3, 16, 16)
    old, new = (
        torch.nn.functional.conv2d(some, weights[first + "weight"], weights[first + "bias"])
        for some, weights in ((hint, lines), (hint * 2 - 1, control))
    )
    torch.testing.assert_close(old, new, atol=2e-2, rtol=2e-2)


def test_files_become_what_is_published(files):
    """Under diffusers' names, by the door through which published files go."""
    from papernodes.networks import checkpoints

    state = checkpoints.read_weights(files / f"{REFERENCE}.safetensors")
    names = set(diffusers_names(UNET_CONFIG).values()) - set(HEAD)
    # SD1.5's 682 but for the convolution that widens between two levels as wide as each other here.
    assert state.keys() == names and len(names) == 680
    config, weights = reference_weights("file", state)
    assert config is UNET_CONFIG and len(weights) == 680
    points = checkpoints.read_weights(files / f"{POINTS}.safetensors")
    assert len(points) == 12
    network = read_point_net("file", points)
    assert [some.shape[1:] for some in network(torch.zeros(1, 1, 64, 96))] == [(96, 48), (24, 96), (6, 96), (2, 96)]


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_another_version_are_refused(begun, tmp_path, kind):
    state = dict(begun[2][kind])
    state.pop(next(iter(state)))
    path = tmp_path / f"{kind}.safetensors"
    demo_format.save(path, state, {"kind": kind})
    with pytest.raises(demo_format.DemoFileError, match="missing"):
        demo_manga_ninja.load_small(path, kind)


def test_training_from_end_to_end(repository, files, tmp_path):
    command = [sys.executable, "-m", "demo.train_manga_ninja", "--tiny", "--final", "--state", str(tmp_path)]
    process = subprocess.run(
        [*command, "--begin-with", str(files)], cwd=repository, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    for kind in KINDS:
        before, after = (
            demo_manga_ninja.load_small(folder / f"{kind}.safetensors", kind) for folder in (files, tmp_path)
        )
        # The warm-up's first steps are small, and int8 has steps of its own; factors that were 0 are not any more.
        assert any(not torch.equal(before[name], after[name]) for name in before), kind
    assert (tmp_path / "samples.png").is_file()


def test_the_report_runs(repository, files, tmp_path):
    command = [sys.executable, "-m", colour_report.__name__, "--tiny", "--files", str(files), "--out", str(tmp_path)]
    process = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    for arm in (*colour_report.ARMS, colour_report.IMAGE_MODEL, colour_report.WANTED):
        assert process.stdout.count(f"| {arm} |") == 2
    assert not list(tmp_path.iterdir()), "a trial writes nothing"
