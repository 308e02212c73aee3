"""Forward-mode differentiation through T steps: Eq. (7, 8) of Carnerero-Cano et al. 2023.

    Z^(t) = (I − η∇²F) Z^(t−1) − η∇_Λ∇_w F,      dA/dΛ = Z^(T)ᵀ ∇_w A,

one column of Z per outer variable Λ, carried along with training. Nothing of the trajectory is
kept, but every column costs a Hessian product per step: a fair price for the exponents λ, a
prohibitive one for poison, where (m − frozen)·d columns take as many products per step.
"""

import torch

from poisoning.hypergradient.problem import Diagnostics, Hypergradient, Problem
from poisoning.hypergradient.rmd import check_finite, check_step

_MOST_FEATURES = 4096  # their unit vectors alone are this number squared


def fmd(problem: Problem, *, poison: bool = False) -> Hypergradient:
    """The hypergradients of all objectives for λ and, if asked, for every poison feature.

    Raises ``ValueError`` for a step size beyond stability (logistic regression) or more than 4096
    poison features, ``SolverError`` if training diverges.
    """
    K, m, d = problem.poison.shape
    exponents = problem.lam.shape[1]
    shape = (m - problem.frozen, d)
    features = shape[0] * d if poison else 0
    if features > _MOST_FEATURES:
        raise ValueError(
            f"forward mode would carry a column for each of {features} poison features, at most "
            f"{_MOST_FEATURES} are sensible; use rmd or implicit"
        )
    limit = check_step(problem)
    with torch.no_grad():
        # λ_g reaches the parameters of group g; poison feature f moves itself.
        own = torch.eye(exponents).to(problem.poison)[:, problem.groups].unsqueeze(1)
        moved = None
        if poison:
            units = torch.eye(features).to(problem.poison).unflatten(1, shape).unsqueeze(1)
            moved = units.new_zeros(exponents + features, K, *shape)
            moved[exponents:] = units
        Z = problem.poison.new_zeros(exponents + features, K, problem.initial.shape[1])
        w = problem.initial
        for _ in range(problem.steps):
            point = problem.model.linearise(problem, w)
            after = problem.step(w, point.gradient)
            HZ, _ = problem.model.product(problem, point.state, Z, moved)
            Z = Z - problem.eta * (HZ + problem.decay * Z)
            direct = problem.decay * w + problem.shrinkage * after.sign()
            Z[:exponents] -= problem.eta * own * direct
            Z = Z.masked_fill((problem.shrinkage > 0) & (after == 0), 0.0)
            w = after
        check_finite(problem, w)
        values, gradients = problem.outer(w)
        found = torch.einsum("qkp,jkp->jkq", Z, gradients)
        gradient = problem.model.linearise(problem, w).gradient
        return Hypergradient(
            poison=found[..., exponents:].unflatten(2, shape) if poison else None,
            lam=found[..., :exponents],
            w=w,
            values=values,
            diagnostics=Diagnostics(
                gradient_norm=problem.stationarity(w, gradient).norm(dim=1),
                iterations=problem.steps,
                kept_bytes=w.nbytes + Z.nbytes,
                stable_step=limit,
            ),
        )
