"""Points of two pictures that look like the same place: mutual nearest neighbours of features, or classic keypoints.

Features of a diffusion model's network match places by what they mean (Tang et al., Emergent Correspondence from Image
Diffusion, NeurIPS 2023); keypoints by how the picture looks around them (Lowe, SIFT, IJCV 2004), as OpenCV finds them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .matched_points import MOST_PAIRS, Pairs

AROUND = 2
"""Cells round the best match that are no second choice."""

RATIO = 0.85
"""Of keypoints: how much nearer the nearest must be than the second nearest."""

NOISE = 0.05
"""Added to both: descriptors of one thing are so far apart, and of its copies none is nearer; those of others 0.5."""

QUERIES_AT_ONCE = 1 << 24
"""Similarities that are held together."""

MOST_KEYPOINTS = 8192
"""Of a picture; of more the clearest are compared."""

FLAT = 1e-4
"""A cell that is no farther from the mean, in parts of how large features are, has nothing of its own."""

NOTHING = torch.zeros(0, 2)


def match_features(
    reference: Tensor,
    target: Tensor,
    most: int = 8,
    least: float = 0.0,
    spacing: float = 0.08,
    mask: Tensor | None = None,
) -> Pairs:
    """Pairs of cells that are each other's nearest, surest first.

    The similarity is the cosine of what a cell's feature has beyond its picture's mean. A pair's confidence is by how
    much the similarity exceeds that of the best cell elsewhere in the target (0 at least), over what is left to 1.

    Args:
        reference: float32 [C, h, w].
        target: float32 [C, h', w'].
        most: pairs at most, 1..MOST_PAIRS.
        least: confidence at least, 0..1.
        spacing: between points in either picture, in fractions of its longer side; of nearer ones the surest stays.
        mask: [H, W] of any size, over 0.5 where in the reference points may be; None = anywhere.

    Returns:
        Pairs on the CPU, with confidence; none where nothing matches.

    Raises:
        ValueError: shapes that do not fit, or numbers out of range.
    """
    if reference.ndim != 3 or target.ndim != 3 or reference.shape[0] != target.shape[0]:
        raise ValueError(
            f"reference and target have shapes {list(reference.shape)} and {list(target.shape)}; expected [channels, "
            "height, width] with as many channels."
        )
    _check(most, least, spacing)
    known, asked = (_directions(some) for some in (reference, target))
    there = _nearest(known, asked)[0]
    back = _nearest(asked, known)[0]
    cells = torch.arange(known.shape[0], device=known.device)
    # Of a cell without anything of its own the similarity to all is 0, and the nearest one means nothing.
    alike = (known * asked[there]).sum(1) > 0
    cells = cells[(back[there] == cells) & alike]
    if not cells.numel():
        return Pairs(NOTHING, NOTHING, torch.zeros(0))
    best, similarity, second = _nearest(known[cells], asked, target.shape[1:])
    second = second.clamp_min(0)
    confidence = ((similarity - second) / (1 - second).clamp_min(1e-6)).clamp(0, 1)
    places = [_middles(some, shape) for some, shape in ((cells, reference.shape), (best, target.shape))]
    sizes = [_proportions(shape[1], shape[2]) for shape in (reference.shape, target.shape)]
    return _spread(*places, confidence, sizes, most, least, spacing, mask)


def match_keypoints(
    reference: Tensor,
    target: Tensor,
    most: int = 8,
    least: float = 0.0,
    spacing: float = 0.08,
    mask: Tensor | None = None,
) -> Pairs:
    """Pairs of SIFT keypoints that are each other's nearest and clearly nearer than the second.

    Args:
        reference, target: float32 [H, W] grey pictures, 0..1, of any sizes.
        most, least, spacing, mask: as in match_features; the confidence is 1 - (distance / second distance), and under
            1 - RATIO there are no pairs.

    Returns:
        As match_features.

    Raises:
        ValueError: shapes that are no grey pictures, or numbers out of range.
        ImportError: OpenCV is not installed.
    """
    if reference.ndim != 2 or target.ndim != 2:
        raise ValueError(
            f"reference and target have shapes {list(reference.shape)} and {list(target.shape)}; expected [height, "
            "width] each."
        )
    _check(most, least, spacing)
    import cv2

    detector, found = cv2.SIFT_create(nfeatures=MOST_KEYPOINTS, contrastThreshold=0.02), []
    for picture in (reference, target):
        grey = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        points, descriptors = detector.detectAndCompute(grey, None)
        if descriptors is None or len(points) < 2:
            return Pairs(NOTHING, NOTHING, torch.zeros(0))
        height, width = picture.shape
        size = torch.tensor([width, height], dtype=torch.float32)
        places = (torch.tensor([point.pt for point in points]) + 0.5) / size
        # The root of normed histograms: Arandjelovic and Zisserman, CVPR 2012.
        values = torch.from_numpy(descriptors)
        found.append((places.clamp(0, 1), (values / values.sum(1, keepdim=True).clamp_min(1e-6)).sqrt()))
    distances = torch.cdist(found[0][1], found[1][1])
    near, there = distances.topk(2, 1, largest=False)
    ratio = (near[:, 0] + NOISE) / (near[:, 1] + NOISE)
    kept = (distances.argmin(0)[there[:, 0]] == torch.arange(len(there))) & (ratio < RATIO)
    places = found[0][0][kept], found[1][0][there[kept, 0]]
    sizes = [_proportions(*some.shape) for some in (reference, target)]
    return _spread(*places, 1 - ratio[kept], sizes, most, least, spacing, mask)


def _check(most: int, least: float, spacing: float) -> None:
    if not 1 <= most <= MOST_PAIRS or not 0 <= least <= 1 or not 0 <= spacing <= 1:
        raise ValueError(
            f"most is {most}, least {least} and spacing {spacing}; expected 1..{MOST_PAIRS}, 0..1 and 0..1."
        )


def _directions(features: Tensor) -> Tensor:
    """[cells, C]: unit vectors of what each cell has beyond the mean; zeros where that is nothing but rounding."""
    cells = features.flatten(1).T.float()
    beyond = cells - cells.mean(0)
    own = beyond.norm(dim=1, keepdim=True) > FLAT * cells.norm(dim=1).mean()
    return F.normalize(beyond, dim=1) * own


def _nearest(queries: Tensor, keys: Tensor, shape: tuple[int, int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Of each query the nearest key, its similarity, and (with the keys' height and width) the best one's elsewhere."""
    best, first, second = [], [], []
    for part in queries.split(max(1, QUERIES_AT_ONCE // keys.shape[0])):
        similarity = part @ keys.T
        value, place = similarity.max(1)
        best.append(place)
        first.append(value)
        if shape is not None:
            rows, columns = (torch.arange(size, device=keys.device) for size in shape)
            row, column = place[:, None] // shape[1], place[:, None] % shape[1]
            near = ((rows - row).abs() <= AROUND)[:, :, None] & ((columns - column).abs() <= AROUND)[:, None]
            second.append(similarity.masked_fill(near.flatten(1), -1.0).amax(1))
    return torch.cat(best), torch.cat(first), torch.cat(second) if second else torch.empty(0)


def _middles(cells: Tensor, shape: torch.Size) -> Tensor:
    """[N, 2]: the middles of cells of a picture [C, h, w], x then y, 0..1."""
    width, height = shape[2], shape[1]
    return torch.stack(((cells % width + 0.5) / width, (cells // width + 0.5) / height), -1).cpu()


def _proportions(height: int, width: int) -> Tensor:
    """[2]: a picture's width and height over the longer of them."""
    return torch.tensor([width, height], dtype=torch.float32) / max(height, width)


def _within(places: Tensor, mask: Tensor) -> Tensor:
    """bool [N]: which places [N, 2] are where a mask [H, W] is over 0.5."""
    size = torch.tensor([mask.shape[1], mask.shape[0]])
    columns, rows = (places * size).long().minimum(size - 1).unbind(-1)
    return mask.cpu()[rows, columns] > 0.5


def _spread(
    reference: Tensor,
    target: Tensor,
    confidence: Tensor,
    sizes: list[Tensor],
    most: int,
    least: float,
    spacing: float,
    mask: Tensor | None,
) -> Pairs:
    """The surest pairs within the mask that keep their distance from surer ones."""
    confidence = confidence.cpu()
    if mask is not None:
        inside = _within(reference, mask)
        reference, target, confidence = reference[inside], target[inside], confidence[inside]
    kept: list[int] = []
    for pair in confidence.argsort(descending=True, stable=True).tolist():
        if float(confidence[pair]) < least or len(kept) == most:
            break
        gaps = [
            ((some[kept] - some[pair]) * size).norm(dim=1)
            for some, size in zip((reference, target), sizes, strict=True)
        ]
        if not kept or float(torch.stack(gaps).min()) >= spacing:
            kept.append(pair)
    return Pairs(reference[kept].float(), target[kept].float(), confidence[kept].float())
