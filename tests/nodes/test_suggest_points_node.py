"""Suggest Points as the host runs it: how many pairs of the toy world are right, clips, masks, what it refuses."""

import sys
from pathlib import Path

import pytest
import torch
from manga_models import manga
from papernodes import __path__ as pack_path
from papernodes.kernels.match_picture import match_picture
from papernodes.kernels.matched_points import MatchedPoints
from papernodes.nodes import suggest_points as module
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.nodes.ic_light import ICLightModel
from papernodes.nodes.manga_ninja import MangaNinjaLoader
from papernodes.nodes.sockets import check_points
from papernodes.nodes.suggest_points import (
    AS_THEY_ARE,
    AUTO,
    FEATURES,
    KEYPOINTS,
    LINES,
    SuggestPoints,
    shown_as_lines,
)
from tiny_models import tiny_model

if str(Path(pack_path[0])) not in sys.path:
    sys.path.append(str(Path(pack_path[0])))

from demo.world.render import render
from demo.world.scene import draw_scenes, repose

SIZE, PAIRS = 128, 12
RIGHT = 0.35
"""How far apart, in units of a character, two points may be that are the same place."""


class Toys:
    """Pairs of pictures of the same characters in two poses, and what is where in them."""

    def __init__(self):
        scenes = draw_scenes(PAIRS, 21, characters=2, combinations="held_out")
        both = (scenes, repose(scenes, 8, scenery=False))
        self.drawn = [render(some, SIZE, SIZE, layers=("frames", "lines", "labels", "local")) for some in both]

    def picture(self, side, number, layer="frames"):
        """[1, H, W, 3]"""
        return getattr(self.drawn[side], layer)[number].expand(-1, 3, -1, -1).movedim(1, -1)

    def there(self, side, number, places):
        """The character at each place, and where of it."""
        columns, rows = (places * SIZE).long().clamp_max(SIZE - 1).unbind(-1)
        drawn = self.drawn[side]
        return drawn.labels[number, 0][rows, columns], drawn.local[number, 0][:, rows, columns]

    def judged(self, number, pairs):
        """How many pairs begin on a character, and how many of them are right."""
        (one, at), (other, there) = (
            self.there(side, number, places) for side, places in enumerate((pairs.reference, pairs.target))
        )
        on = one >= 0
        return int(on.sum()), int((on & (one == other) & ((at - there).norm(dim=0) < RIGHT)).sum())


@pytest.fixture(scope="module")
def toys():
    return Toys()


@pytest.fixture(scope="module")
def demo():
    """Its VAE, and MangaNinja's networks."""
    names = (f"papernodes_demo_manga_ninja_{part}.safetensors" for part in ("reference", "points"))
    return {
        "vae": DemoCheckpoint.execute("manganinja").args[2],
        "manga_ninja": MangaNinjaLoader.execute(*names).args[0],
    }


def suggested(reference, target, method=KEYPOINTS, compared=AUTO, most=8, confidence=0.2, spacing=0.08, **more):
    return SuggestPoints.execute(reference, target, method, compared, most, confidence, spacing, **more).args


def soft(batch=1, height=96, width=128, seed=0):
    """Coloured pictures of soft spots."""
    noise = torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic").clamp(0, 1)
    return large.movedim(1, -1)


def line_art(batch=1, height=96, width=128, seed=0):
    """Black lines on white paper: rims of the soft spots."""
    bright = soft(batch, height, width, seed).mean(-1, keepdim=True)
    return 1 - (1 - (bright - 0.5).abs() * 30).clamp(0, 1).expand(-1, -1, -1, 3)


@pytest.mark.parametrize(
    ("method", "layer", "share", "least"),
    [(KEYPOINTS, "frames", 0.9, 50), (FEATURES, "frames", 0.85, 30), (KEYPOINTS, "lines", 0.62, 30)],
)
def test_most_pairs_on_characters_are_right(toys, demo, method, layer, share, least):
    """Measured on 30 pairs: 99, 93 and 76 of a hundred."""
    on, right = 0, 0
    for number in range(PAIRS):
        points, preview = suggested(toys.picture(0, number), toys.picture(1, number, layer), method, **demo)
        assert isinstance(points, MatchedPoints) and check_points(points) is points
        assert len(points.frames) == 1 and len(points.frames[0]) <= 8
        assert torch.equal(
            preview, match_picture(toys.picture(0, number)[0], toys.picture(1, number, layer)[0], points.frames[0])
        )
        some, good = toys.judged(number, points.frames[0])
        on, right = on + some, right + good
    assert on >= least and right / on >= share


def test_what_is_sure_is_more_often_right(toys):
    """Of lines, where some are wrong."""
    shares = []
    for confidence in (0.0, 0.4):
        judged = [
            toys.judged(
                n, suggested(toys.picture(0, n), toys.picture(1, n, "lines"), confidence=confidence)[0].frames[0]
            )
            for n in range(PAIRS)
        ]
        shares.append(sum(right for _, right in judged) / sum(on for on, _ in judged))
    assert shares[1] > shares[0]


@pytest.mark.parametrize("method", [KEYPOINTS, FEATURES])
def test_a_clip_has_pairs_of_its_own_in_every_frame(toys, demo, method):
    reference = toys.picture(0, 0)
    clip = torch.cat([toys.picture(1, number) for number in (0, 1, 2)])
    points, preview = suggested(reference, clip, method, **demo)
    assert len(points.frames) == len(preview) == 3
    for number, pairs in enumerate(points.frames):
        (alone,), drawn = suggested(reference, clip[number : number + 1], method, **demo)[0].frames, None
        torch.testing.assert_close(pairs.reference, alone.reference)
        torch.testing.assert_close(pairs.target, alone.target)
        drawn = match_picture(reference[0], clip[number], pairs)
        assert torch.equal(preview[number : number + 1], drawn)
    assert not torch.equal(points.frames[0].target, points.frames[1].target)


@pytest.mark.parametrize("method", [KEYPOINTS, FEATURES])
def test_a_mask_says_where_points_are_wanted(toys, demo, method):
    mask = (toys.drawn[0].labels[0] == 1).float()
    given = toys.picture(0, 0), toys.picture(1, 0), method
    free = suggested(*given, **demo)[0].frames[0]
    assert bool((toys.there(0, 0, free.reference)[0] != 1).any())
    for some in (mask, mask[0]):
        pairs = suggested(*given, mask=some, **demo)[0].frames[0]
        assert 2 <= len(pairs) <= 8 and bool((toys.there(0, 0, pairs.reference)[0] == 1).all())
    assert len(suggested(*given, mask=torch.zeros(1, SIZE, SIZE), **demo)[0].frames[0]) == 0


def test_most_confidence_and_spacing_are_heeded():
    picture = soft()
    every = suggested(picture, picture, most=100, confidence=0.0, spacing=0.0)[0].frames[0]
    assert len(every) > 20
    assert len(suggested(picture, picture, most=3, confidence=0.0, spacing=0.0)[0].frames[0]) == 3
    sure = suggested(picture, picture, most=100, confidence=0.9, spacing=0.0)[0].frames[0]
    assert 0 < len(sure) < len(every) and float(sure.confidence.min()) >= 0.9
    far = suggested(picture, picture, most=100, confidence=0.0, spacing=0.3)[0].frames[0]
    assert float(torch.pdist(far.reference * torch.tensor([1.0, 0.75])).min()) >= 0.3


def test_keypoints_take_pictures_of_any_size():
    reference, target = soft(1, 91, 133), soft(1, 50, 67)
    for compared in (AUTO, AS_THEY_ARE, LINES):
        points, preview = suggested(reference, target, compared=compared)
        assert preview.shape[0] == 1 and points.count <= 8
    assert suggested(reference, reference)[0].count == 8
    transparent = torch.cat((reference, torch.zeros(1, 91, 133, 1)), -1)
    assert torch.equal(
        suggested(transparent, transparent)[0].frames[0].target, suggested(reference, reference)[0].frames[0].target
    )


@pytest.mark.parametrize("compared", [AS_THEY_ARE, AUTO, LINES])
def test_nothing_found_is_no_error(compared):
    red = torch.tensor([0.8, 0.2, 0.1]).expand(1, 64, 64, 3)
    points, preview = suggested(soft(), red, compared=compared)
    assert points.count == 0 and len(points.frames) == 1 and preview.ndim == 4
    points, preview = suggested(soft(), torch.cat((red, red)), compared=compared)
    assert [len(pairs) for pairs in points.frames] == [0, 0] and preview.shape[0] == 2
    assert suggested(soft(), torch.ones(1, 64, 64, 3), compared=AS_THEY_ARE)[0].count == 0


def watched(monkeypatch):
    """What the two ways to match are given, by name."""
    calls = []
    for name in ("match_features", "match_keypoints"):
        real = getattr(module, name)

        def spy(reference, target, name=name, real=real, **limits):
            calls.append((name, reference, target))
            return real(reference, target, **limits)

        monkeypatch.setattr(module, name, spy)
    return calls


def test_what_auto_chooses(demo, monkeypatch):
    calls = watched(monkeypatch)
    coloured, drawn = soft(), line_art(seed=3)
    for reference, target, method, compared, connected, way in (
        (coloured, coloured, AUTO, AUTO, True, "match_features"),
        (coloured, coloured, AUTO, AUTO, False, "match_keypoints"),
        (coloured, drawn, AUTO, AUTO, True, "match_keypoints"),
        (drawn, coloured, AUTO, AUTO, True, "match_keypoints"),
        (coloured, coloured, AUTO, LINES, True, "match_keypoints"),
        (coloured, drawn, AUTO, AS_THEY_ARE, True, "match_features"),
        (coloured, coloured, KEYPOINTS, AUTO, True, "match_keypoints"),
        (coloured, drawn, FEATURES, AUTO, True, "match_features"),
    ):
        calls.clear()
        suggested(reference, target, method, compared, **(demo if connected else {}))
        assert [name for name, *_ in calls] == [way]
    model = {"model": demo["manga_ninja"].reference, "vae": demo["vae"]}
    one, other = (
        suggested(coloured, soft(seed=1), AUTO, confidence=0.0, **given)[0].frames[0] for given in (model, demo)
    )
    assert len(one) and torch.equal(one.target, other.target), "model and manga_ninja are the same"


def test_what_is_compared(monkeypatch):
    calls = watched(monkeypatch)
    coloured, drawn = soft(), line_art(seed=3)
    for reference, target, compared, lines in (
        (coloured, coloured, AUTO, False),
        (coloured, drawn, AUTO, True),
        (drawn, coloured, AUTO, True),
        (1 - drawn, drawn, AUTO, True),
        (coloured, coloured, LINES, True),
        (coloured, drawn, AS_THEY_ARE, False),
    ):
        calls.clear()
        suggested(reference, target, compared=compared)
        ((_, *seen),) = calls
        for some, picture, name in zip(seen, (reference, target), ("reference", "target"), strict=True):
            wanted = shown_as_lines(picture, name) if lines else picture
            torch.testing.assert_close(some, module.brightness(wanted)[0, 0])
            if lines:
                assert float(some.median()) < 0.1, "white on black"


def test_line_art_of_both_polarities_is_matched_alike():
    drawn = line_art()
    one = suggested(drawn, drawn)[0].frames[0]
    other = suggested(drawn, 1 - drawn)[0].frames[0]
    assert len(one) == 8
    torch.testing.assert_close(one.target, other.target, atol=0.01, rtol=0)


def test_a_blank_frame_of_a_clip_of_line_art_has_no_pairs():
    drawn = line_art()
    clip = torch.cat((drawn, torch.ones_like(drawn), drawn))
    points, preview = suggested(drawn, clip)
    assert [len(pairs) for pairs in points.frames] == [8, 0, 8] and preview.shape[0] == 3


class Encoder:
    """A VAE with other latents."""

    def encode(self, image):
        return torch.zeros(1, 16, image.shape[1] // 8, image.shape[2] // 8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": soft(2)}, r"'reference' holds 2 pictures; expected one\. Put ImageFromBatch between"),
        ({"reference": soft()[0]}, r"'reference' has shape \[96, 128, 3\]; expected a batch"),
        ({"target": soft() * float("nan")}, "'target' holds NaN"),
        ({"method": "sift"}, "'method' is 'sift'; expected one of: auto, keypoints, features of a UNet"),
        ({"compared": "edges"}, "'compared' is 'edges'; expected one of: auto, pictures as they are, lines of both"),
        ({"most": 0}, "'most' is 0; expected a number from 1 to 100"),
        ({"most": 101}, "'most' is 101"),
        ({"confidence": 1.5}, r"'confidence' is 1\.5; expected a number from 0 to 1"),
        ({"spacing": float("nan")}, "'spacing' is nan"),
        ({"mask": torch.ones(1, 64, 64)}, r"'mask' is 64x64 pixels and 'reference' 128x96; they must be of one size"),
        ({"mask": torch.ones(2, 96, 128)}, "'mask' holds 2 pictures and 'reference' 1"),
        ({"target": torch.ones(1, 64, 64, 3)}, "'target' looks like line art, but a picture has no lines.*'compared'"),
        ({"reference": torch.zeros(1, 64, 64, 3)}, "'reference' looks like line art, but a picture has no lines"),
        ({"target": torch.ones(3, 64, 64, 3)}, "'target' looks like line art, but a picture has no lines"),
    ],
)
def test_bad_input_is_refused(changes, said):
    given = {"reference": soft(), "target": soft(seed=1), "method": KEYPOINTS, "compared": AUTO, "most": 8,
             "confidence": 0.2, "spacing": 0.08}  # fmt: skip
    SuggestPoints.execute(**given)
    with pytest.raises(ValueError, match=said):
        SuggestPoints.execute(**given | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"manga_ninja": None}, r"features of a UNet need model \(or manga_ninja\)\. Connect a UNet of SD1\.5's kind"),
        ({"vae": None}, r"features of a UNet need vae\. .*its VAE, or set 'method' to keypoints"),
        ({"manga_ninja": None, "vae": None}, r"need model \(or manga_ninja\) and vae\. Connect"),
        ({"manga_ninja": "x"}, "'manga_ninja' holds a str; connect MangaNinja Loader"),
        ({"reference": soft(1, 90, 128)}, r"'reference' is 128x90 .*multiples of 8\. .* Or set 'method' to keypoints"),
        ({"target": soft(1, 96, 125)}, r"'target' is 125x96 pixels; both sides must be multiples of 8\. .* Or set"),
        ({"vae": Encoder()}, r"^'vae' gives latents of shape \[1, 16, 12, 16\]; expected \[1, 4, 12, 16\]"),
    ],
)
@pytest.mark.parametrize("method", [FEATURES, AUTO])
def test_what_features_need(demo, method, changes, said):
    if method == AUTO and "manga_ninja" in changes and changes["manga_ninja"] is None:
        return  # then it takes keypoints
    given = {"reference": soft(), "target": soft(seed=1), "method": method, **demo, **changes}
    with pytest.raises(ValueError, match=said):
        suggested(**given)


def test_two_models_are_one_too_many(demo):
    for method in (FEATURES, KEYPOINTS, AUTO):
        with pytest.raises(ValueError, match=r"'model' and 'manga_ninja' are both connected.*Disconnect one of them"):
            suggested(soft(), soft(), method, model=manga().reference, **demo)


@pytest.mark.parametrize(
    ("family", "said"),
    [("sdxl", "'model' is an SDXL-class UNet"), ("wan", r"'model' is a WAN21.*no SD1\.5 UNet")],
)
def test_other_families_are_refused(demo, family, said):
    with pytest.raises(ValueError, match=said + r".*Or set 'method' to keypoints"):
        suggested(soft(), soft(), AUTO, model=tiny_model(family), vae=demo["vae"])
    assert suggested(soft(), soft(), KEYPOINTS, model=tiny_model(family))[0].count == 8, "keypoints need none"


def test_unets_without_such_features_are_refused(demo):
    with pytest.raises(ValueError, match=r"'model' has no self attention at 1/2 .*in its decoder\. Connect"):
        suggested(soft(), soft(), FEATURES, model=tiny_model("sd15"), vae=demo["vae"])
    model = DemoCheckpoint.execute("image").args[0]
    (lit,) = ICLightModel.execute(model, "papernodes_demo_ic_light_fc.safetensors", 1.0).args
    with pytest.raises(ValueError, match=r"'model' has IC-Light .*Connect the MODEL from before it"):
        suggested(soft(), soft(), FEATURES, model=lit, vae=demo["vae"])
    assert suggested(soft(), soft(), FEATURES, confidence=0.0, model=model, vae=demo["vae"])[0].count > 0
