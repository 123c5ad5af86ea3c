"""Steps along the nearest orthogonal matrix of the momentum, for the matrices of a network.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); the size of a step as in Liu et al.,
"Muon is Scalable for LLM Training" (arXiv 2502.16982), so that AdamW's rates go on to suit. Neither keeps anything on
the CPU nor waits for the GPU: a step can be captured in a CUDA graph. PyTorch's own Muon takes no convolutions and
multiplies one matrix at a time; here those of one shape, lying or standing, go together: small kernels are what a step
of a small network takes its time for.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that brings every singular value near 1 in five steps."""

ITERATIONS = 5
STEP_SIZE = 0.2
"""Root mean square of a step at rate 1, about what AdamW's steps have."""


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices [K, R, C] with their singular values brought to about 1 (0.7 to 1.2), in bfloat16 on a GPU."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    x = x if wide else x.mT
    x = x / x.float().flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None].to(x.dtype)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)


class Muon:
    """Moves parameters by their orthogonalised momentum.

    Args:
        parameters: float32 leaves of two dimensions or more; all but the first count as columns.
        rate: tensor without dimensions, on the parameters' device; read in every step.
        momentum: how much of it each step keeps.
        weight_decay: of every step, times the rate.
    """

    def __init__(self, parameters: Sequence[Tensor], rate: Tensor, momentum: float = 0.95, weight_decay: float = 0.01):
        self.rate, self.momentum, self.weight_decay = rate, momentum, weight_decay
        groups = defaultdict(list)
        for parameter in parameters:
            groups[tuple(sorted(parameter.flatten(1).shape))].append(parameter)
        self.groups = list(groups.values())  # of one shape: their matrices are multiplied together
        self.momenta = [rate.new_zeros(len(group), *shape) for shape, group in groups.items()]

    @torch.no_grad()
    def step(self) -> None:
        """One step along the parameters' gradients."""
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradients = torch.stack([_lying(parameter.grad.flatten(1)) for parameter in group])
            momentum.lerp_(gradients, 1 - self.momentum)
            ahead = gradients.lerp(momentum, self.momentum)
            moves = orthogonalised(ahead) * (self.rate * (STEP_SIZE * max(ahead.shape[-2:]) ** 0.5))
            torch._foreach_mul_(group, 1 - self.rate * self.weight_decay)
            shaped = [
                _lying(move, parameter.flatten(1).shape).reshape(parameter.shape)
                for parameter, move in zip(group, moves, strict=True)
            ]
            torch._foreach_sub_(group, shaped)


def _lying(matrix: Tensor, shape: tuple[int, int] | None = None) -> Tensor:
    """A matrix, or its transpose if that has the shape wanted: as many columns as rows or more where left out."""
    rows, columns = matrix.shape
    return matrix.mT if (matrix.shape != shape if shape else rows > columns) else matrix
