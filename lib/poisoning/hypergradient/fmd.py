"""Forward-mode differentiation through T steps: Eq. (7, 8) of Carnerero-Cano et al. 2023.

    Z^(t) = (I − η∇²F) Z^(t−1) − η∇_Λ∇_w F,      dA/dΛ = Z^(T)ᵀ ∇_w A,

one column of Z per exponent in Λ, carried along with training. Nothing of the trajectory is kept,
but every column costs a Hessian product per step. That is affordable for the exponents. For poison
every feature of every point would have a column, which is prohibitive: use
:func:`poisoning.hypergradient.rmd.rmd` or :func:`poisoning.hypergradient.implicit.implicit` there.
"""

import torch

from poisoning import checks
from poisoning.hypergradient.problem import Diagnostics, Hypergradient, Problem
from poisoning.hypergradient.rmd import check_derivatives, check_finite, check_step


def fmd(problem: Problem) -> Hypergradient:
    """The hypergradients of all objectives for λ; ``poison`` of the result is None.

    Raises ``ValueError`` for a step size beyond stability (logistic regression), ``SolverError`` if
    training, or the hypergradient, diverges.
    """
    checks.instance(problem, "problem", Problem)
    exponents = problem.lam.shape[1]
    limit = check_step(problem)
    with torch.no_grad():
        # λ_g reaches the parameters of group g.
        own = torch.eye(exponents).to(problem.poison)[:, problem.groups].unsqueeze(1)
        Z = problem.poison.new_zeros(exponents, *problem.initial.shape)
        w = problem.initial
        for _ in range(problem.steps):
            point = problem.model.linearise(problem, w)
            after = problem.step(w, point.gradient)
            HZ, _ = problem.model.product(problem, point.state, Z)
            Z = Z - problem.eta * (HZ + problem.decay * Z)
            direct = problem.decay * w + problem.shrinkage * after.sign()
            Z -= problem.eta * own * direct
            Z = Z.masked_fill((problem.shrinkage > 0) & (after == 0), 0.0)
            w = after
        check_finite(problem, w)
        values, gradients = problem.outer(w)
        gradient = problem.model.linearise(problem, w).gradient
        lam = torch.einsum("qkp,jkp->jkq", Z, gradients)
        check_derivatives(problem, lam)
        return Hypergradient(
            poison=None,
            lam=lam,
            w=w,
            values=values,
            diagnostics=Diagnostics(
                gradient_norm=problem.stationarity(w, gradient).norm(dim=1),
                iterations=problem.steps,
                kept_bytes=w.nbytes + Z.nbytes,
                stable_step=limit,
            ),
        )
