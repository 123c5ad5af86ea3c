"""Counter-based random numbers for the Triton kernels: Philox 4x32-10 (Salmon et al. 2011) and the Box-Muller transform.

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
    """Two uniform 32-bit integers to two independent standard normals; at most 6.8 in magnitude."""
    radius = tl.sqrt(-2.0 * tl.log(first.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10))
    angle = second.to(tl.float32) * 1.4629180792671596e-09
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def standard_normal(seed, frame, number, stream, C: tl.constexpr):
    """N(0, 1) for pixels ``number`` [P], ``stream`` a scalar or [P, 1], and ``C`` channels (a power of two, 4 or more): [P, C]."""
    quarter = tl.arange(0, C // 4)[None, :]
    zero = number[:, None] * 0 + quarter * 0
    c0 = number[:, None] + zero
    c1 = quarter + zero
    c2 = frame + zero
    c3 = stream + zero
    a, b, c, d = tl.philox(seed, c0, c1, c2, c3)
    za, zb = _pair(a, b)
    zc, zd = _pair(c, d)
    # join puts the new axis last: [P, C/4, 2 (c), 2 (a)] reads a, b, c, d when (a, c) and (b, d) are joined last.
    pairs = tl.join(tl.join(za, zc), tl.join(zb, zd))
    return tl.reshape(pairs, [number.shape[0], C])
