"""Krylov methods for many symmetric systems at once: conjugate gradients and Lanczos.

Vectors are (…, p) tensors. Each leading index is a system of its own: it has its own step lengths
and stops when it has converged, whatever the others do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from poisoning import checks

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """An approximate solution ``x`` of H x = b.

    ``residual`` is ‖b − Hx‖/‖b‖, computed from x, 0 for b = 0. ``iterations`` are those of the
    slowest system. ``curved``: whether H had positive curvature along every direction tried.
    """

    x: Float[Tensor, "*k p"]
    residual: Float[Tensor, "*k"]
    iterations: int
    curved: Bool[Tensor, "*k"]


def conjugate_gradients(
    product: Operator, b: Float[Tensor, "*k p"], tolerance: float | Tensor, max_iterations: int
) -> Solution:
    """Hestenes and Stiefel from x = 0, until ‖b − Hx‖ ≤ tolerance·‖b‖ in every system.

    ``product`` multiplies vectors (…, p) by H. A direction of no positive curvature ends its system
    at the iterate so far, or at b itself if the direction is the first; ``curved`` is then False.
    The caller has to compare ``residual`` with the tolerance: the residual that is updated in the
    iteration, and stops it, differs from b − Hx by accumulated rounding.

    Raises ``ValueError`` or ``TypeError`` for a ``b`` that is no finite tensor, a tolerance that is
    not above 0, and a number of iterations below 1.
    """
    checks.tensor(b, "b", (None,) * getattr(b, "ndim", 1))
    max_iterations = checks.whole(max_iterations, "max_iterations")
    if isinstance(tolerance, Tensor):
        if not bool((tolerance >= 0).all()):
            raise ValueError("tolerance must be at least 0.")
    else:
        tolerance = checks.positive(tolerance, "tolerance", zero=True)
    x = torch.zeros_like(b)
    r, direction = b, b
    rr = (r * r).sum(-1)
    wanted = (tolerance**2) * rr
    open_ = rr > 0
    curved = torch.ones_like(open_)
    iterations = 0
    while iterations < max_iterations and bool(open_.any()):
        Hd = product(direction)
        curvature = (direction * Hd).sum(-1)
        flat = open_ & (curvature <= 0)
        if bool(flat.any()):
            curved = curved & ~flat
            x = torch.where(flat.unsqueeze(-1) & (iterations == 0), b, x)
            open_ = open_ & ~flat
        length = torch.where(open_, rr / torch.where(open_, curvature, 1.0), 0.0).unsqueeze(-1)
        x = x + length * direction
        r = r - length * Hd
        rr, before = torch.where(open_, (r * r).sum(-1), rr), rr
        open_ = open_ & (rr > wanted)
        ratio = torch.where(open_, rr / torch.where(open_, before, 1.0), 0.0).unsqueeze(-1)
        direction = torch.where(open_.unsqueeze(-1), r + ratio * direction, 0.0)
        iterations += 1
    left = torch.linalg.vector_norm(b - product(x), dim=-1)
    size = torch.linalg.vector_norm(b, dim=-1)
    return Solution(x, torch.where(size > 0, left / size, 0.0), iterations, curved)


def largest_eigenvalue(
    product: Operator, start: Float[Tensor, "K p"], tolerance: float = 1e-3, most: int = 40
) -> Float[Tensor, "K"]:
    """λ_max of K symmetric matrices to a relative ``tolerance``, by Lanczos.

    ``product`` multiplies vectors (K, p) by the matrices. Every vector is made orthogonal to all
    earlier ones; after ``most`` of them the estimate stands as it is; from a ``start`` of 0, 0.

    Raises ``ValueError`` or ``TypeError`` for a ``start`` that is no finite tensor (K, p).
    """
    checks.tensor(start, "start", (None, None))
    if not start.numel() or start.dtype not in (torch.float32, torch.float64):
        raise ValueError("start must hold at least one number, of float32 or float64.")
    checks.positive(tolerance, "tolerance")
    most = min(checks.whole(most, "most"), start.shape[-1])
    tiny = torch.finfo(start.dtype).tiny
    basis = [start / torch.linalg.vector_norm(start, dim=-1, keepdim=True).clamp_min(tiny)]
    tridiagonal = start.new_zeros(len(start), most, most)
    for i in range(most):
        q = product(basis[-1])
        tridiagonal[:, i, i] = (q * basis[-1]).sum(-1)
        for _ in range(2):  # two passes make q orthogonal up to rounding
            for b in basis:
                q = q - (q * b).sum(-1, keepdim=True) * b
        beta = torch.linalg.vector_norm(q, dim=-1)
        ritz, vectors = torch.linalg.eigh(tridiagonal[:, : i + 1, : i + 1])
        off = beta * vectors[:, -1, -1].abs()
        if i + 1 == most or bool((off <= tolerance * ritz[:, -1].abs()).all()):
            break
        tridiagonal[:, i, i + 1] = tridiagonal[:, i + 1, i] = beta
        basis.append(q / beta.clamp_min(tiny).unsqueeze(-1))
    return ritz[:, -1]
