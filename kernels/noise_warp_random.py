"""Counter-based random numbers for the Triton kernels: Philox 4x32-7 and the Box-Muller transform.

Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011: seven rounds pass BigCrush; ten cost a third
more here.

A number depends on (seed, frame, stream, pixel, channel) alone, so the order in which threads run cannot change it.
"""

from __future__ import annotations

import triton
import triton.language as tl

START = 0  # the first frame and pixels that enter the image
SPLIT_CHILD = 1
SPLIT_OWN = 2
BRIDGE = 3  # 3, 4, 5, 6: one for each bilinear neighbour


@triton.jit
def _pair(first, second):
    """Two uniform 32-bit integers to two independent standard normals; at most 6.8 in magnitude.

    Sine and cosine are polynomials on a quarter turn (error below 1e-7): the libraries' ones cost as much as all the
    rest.
    """
    radius = tl.sqrt(
        -1.3862943611198906 * tl.log2(first.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10)
    )
    quadrant = (second >> 30).to(tl.int32)
    part = (second & 0x3FFFFFFF).to(tl.int32).to(
        tl.float32
    ) * 9.313225746154785e-10 - 0.5  # quarter turns from the middle
    angle = part * 1.5707963267948966
    square = angle * angle
    sine = angle * (1 + square * (-0.16666665 + square * (0.0083332 + square * (-0.00019516))))
    cosine = 1 + square * (-0.5 + square * (0.041666646 + square * (-0.0013887316 + square * 2.443316e-05)))
    swapped = (quadrant & 1) == 1
    x = tl.where(swapped, -sine, cosine)
    y = tl.where(swapped, cosine, sine)
    radius = tl.where(quadrant >= 2, -radius, radius)
    return radius * x, radius * y


@triton.jit
def standard_normal(seed, frame, number, stream, C: tl.constexpr):
    """N(0, 1) for pixels ``number`` [P], ``stream`` a scalar or [P, 1], and ``C`` channels (a power of two >= 4)."""
    quarter = tl.arange(0, C // 4)[None, :]
    zero = number[:, None] * 0 + quarter * 0
    c0 = number[:, None] + zero
    c1 = quarter + zero
    c2 = frame + zero
    c3 = stream + zero
    a, b, c, d = tl.philox(seed, c0, c1, c2, c3, n_rounds=7)
    za, zb = _pair(a, b)
    zc, zd = _pair(c, d)
    # join puts the new axis last: [P, C/4, 2 (c), 2 (a)] reads a, b, c, d when (a, c) and (b, d) are joined last.
    pairs = tl.join(tl.join(za, zc), tl.join(zb, zd))
    return tl.reshape(pairs, [number.shape[0], C])
