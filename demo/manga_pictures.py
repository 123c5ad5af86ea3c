"""Draws MangaNinja's pictures of web/docs and of the README with the demonstration: ``python -m demo.manga_pictures``.

In web/docs reference, lines and points are those of the template demo_manga_ninja; in the README they are held-out
looks, below them characters that differ in nothing but their colours. Noise is torch's own.
"""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_tensor

from demo.bare_machine import use_host, use_pack
from demo.colour_pairs import draw_pairs
from demo.colour_pictures import inputs_of
from demo.eval.colour_models import ColourModels, dual_scales
from demo.eval.colour_report import PLACES, SCALES, maps_of, scenes_of
from demo.eval.image_models import SIZE
from demo.media_pictures import MEDIA, sheet
from demo.story_pictures import save
from kernels.matched_points import parse_points, point_map

GRAPH = "demo_manga_ninja"
ROLE_SCALES = ((1, 1), (3, 4), (9, 15), (20, 30))
"""Of reference and points, for the guider's picture; the third are the authors'."""

README_SEED, TWINS_SEED, COLUMNS = 821_000_003, 821_000_004, 4


def loaded(title: str) -> Tensor:
    """float32 [1, 3, H, W]: the picture that a node of the template loads."""
    return to_tensor(Image.open(MEDIA / inputs_of(title, GRAPH)["image"]).convert("RGB"))[None]


def as_image(picture: Tensor) -> Tensor:
    """[1 or 3, H, W] -> [H, W, 3]."""
    return picture.expand(3, -1, -1).movedim(0, -1)


def components(tokens: Tensor) -> Tensor:
    """float32 [H, W, 3], 0..1: the first three principal components of tokens [1, L, C] of a square picture."""
    side = round(tokens.shape[1] ** 0.5)
    centred = tokens[0].float() - tokens[0].float().mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False)[2][:3]
    shown = centred @ axes.T
    low, high = shown.amin(0), shown.amax(0)
    picture = ((shown - low) / (high - low)).T.view(1, 3, side, side)
    return as_image(torch.nn.functional.interpolate(picture, (SIZE, SIZE))[0])


def help_pictures(models: ColourModels) -> None:
    """Those of the three nodes."""
    reference, lines = loaded("Reference"), loaded("Line art")[:, :1]
    seed = inputs_of("RandomNoise", GRAPH)["noise_seed"]
    (pairs,) = parse_points(inputs_of("Match Points", GRAPH)["points"]).frames
    maps = tuple(point_map(pairs, side, SIZE, SIZE) for side in ("target", "reference"))

    def drawn(scales: tuple[float, float], points=maps) -> Tensor:
        return as_image(models.draw(reference, lines, points, seed, scales)[0])

    guided = inputs_of("MangaNinja Guider", GRAPH)
    scales = dual_scales(guided["reference_scale"], guided["point_scale"])
    shown = [as_image(reference[0]), as_image(lines[0]), drawn((0, 0)), drawn(scales, None), drawn(scales)]
    told = ["reference", "line art", "without reference", "with it", "with points, too"]
    save("MangaNinjaApply", shown, told, 5)
    save(
        "MangaNinjaGuider",
        [drawn(dual_scales(*pair)) for pair in ROLE_SCALES],
        [f"{one} and {other}" for one, other in ROLE_SCALES],
        4,
    )
    embedding = models.embed(reference)
    bank = models.read(models.vae.encode(reference).float(), embedding)
    places = (("input", 1, 0), ("input", 4, 0), ("output", 8, 0), ("output", 11, 0))
    seen = [components(bank[place]) for place in places]
    save("MangaNinjaLoader", [as_image(reference[0]), *seen], ["reference", *(f"{p[0]} {p[1]}" for p in places)], 5)


def readme_picture(models: ColourModels) -> None:
    """References, lines and what is drawn, side by side; then twins, with points beside."""
    rows: list[Tensor] = []
    for seed, twins in ((README_SEED, False), (TWINS_SEED, True)):
        scenes, others = scenes_of(COLUMNS, seed, twins)
        pairs = draw_pairs(scenes, others, SIZE, seed, PLACES)
        torch.manual_seed(seed)
        maps = maps_of(pairs, 1)
        drawn = models.draw(pairs.reference, pairs.lines, maps, seed, SCALES)
        for some in zip(pairs.reference, pairs.lines.expand(-1, 3, -1, -1), drawn, strict=True):
            rows += some
    picture = sheet(torch.stack(rows), 6)
    Image.fromarray(picture).save(MEDIA / "coloured.webp", quality=88, method=6)
    print(f"coloured.webp: {(MEDIA / 'coloured.webp').stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draws all of them."""
    use_host()
    use_pack()
    models = ColourModels(torch.device("cpu"))
    help_pictures(models)
    readme_picture(models)


if __name__ == "__main__":
    main()
