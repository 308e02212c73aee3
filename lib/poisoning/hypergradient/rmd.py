"""Reverse-mode differentiation through T steps: Alg. 1 of Carnerero-Cano et al. 2023.

    p ← ∇_w A(w^(T));  for t = T … 1:
        dX_p −= η(∇_X∇_w F)ᵀp,  dλ −= η(∇_λ∇_w F)ᵀp,  p ← p − η(∇²F)p,

all at w^(t−1). It is exact for the truncated problem (6); its distance from the hypergradient of
the fully trained model falls like the contraction of gradient descent, (1 − η λ_min)^T.

The backward pass needs every w^(t−1) and, per step, curvatures or activations of every row, which
take memory S. ``trajectory`` trades memory for time:

- ``stored``: all T steps are kept. Memory T·S, time 1.
- ``checkpointed``: every √T-th w is kept; the steps between are trained again when they are needed.
  Memory 2√T·S, and the time of one more training, about 1.5.
"""

from math import isqrt
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from poisoning import checks
from poisoning.errors import SolverError
from poisoning.hypergradient.krylov import largest_eigenvalue
from poisoning.hypergradient.problem import Diagnostics, Hypergradient, Problem, Tape

Trajectory: TypeAlias = Literal["stored", "checkpointed"]


def largest_stable_step(problem: Problem) -> Float[Tensor, "K"]:
    """2/λ_max(∇²F): at larger η gradient descent diverges or is chaotic.

    λ_max is accurate to a relative 1e-3. For logistic regression it is that of a Hessian which
    bounds the Hessian at every w; for networks it is that at w^(0), and curvature may grow later.
    """
    checks.instance(problem, "problem", Problem)
    with torch.no_grad():
        point = problem.model.linearise(problem, problem.model.curvature_point(problem))

        def product(v: Tensor) -> Tensor:
            Hv, _ = problem.model.product(problem, point.state, v.unsqueeze(0))
            return Hv[0] + problem.decay * v

        start = product(torch.ones_like(problem.initial))
        return 2.0 / largest_eigenvalue(product, start).clamp_min(torch.finfo(start.dtype).tiny)


def check_step(problem: Problem) -> Float[Tensor, "K"]:
    """:func:`largest_stable_step`.

    Raises ``ValueError`` if η is not below it, for models whose curvature is bounded everywhere.
    """
    limit = largest_stable_step(problem)
    eta = problem.eta.squeeze(1)
    if problem.model.curvature_is_bound and not bool((eta < limit).all()):
        k = int((eta / limit).argmax())
        raise ValueError(
            f"step size {eta[k]:.4g} is beyond stability: gradient descent on problem {k} needs "
            f"less than 2/lambda_max = {limit[k]:.4g}"
        )
    return limit


def check_finite(problem: Problem, w: Float[Tensor, "K p"]) -> None:
    """Raise ``SolverError`` if training has diverged."""
    if not bool(torch.isfinite(w).all()):
        raise SolverError(
            f"training diverged within {problem.steps} steps of size {problem.eta.max():.4g} "
            "(parameters are not finite); lower the step size"
        )


def check_derivatives(problem: Problem, *derivatives: Tensor) -> None:
    """Raise ``SolverError`` if a hypergradient has overflowed, as through chaotic training."""
    if not all(bool(torch.isfinite(part).all()) for part in derivatives):
        raise SolverError(
            f"the hypergradient through {problem.steps} steps of size {problem.eta.max():.4g} is "
            "not finite; lower the step size or the number of steps"
        )


def rmd(problem: Problem, *, trajectory: Trajectory = "stored") -> Hypergradient:
    """The hypergradients of all objectives by Alg. 1.

    Raises ``ValueError`` for a step size beyond stability (logistic regression), ``SolverError`` if
    training, or the hypergradient, diverges.
    """
    checks.instance(problem, "problem", Problem)
    checks.one_of(trajectory, "trajectory", get_args(Trajectory))
    limit = check_step(problem)
    with torch.no_grad():
        length = problem.steps if trajectory == "stored" else max(1, isqrt(problem.steps))
        starts = range(0, problem.steps, length)
        points = [problem.initial]
        for _ in starts[1:]:
            points.append(problem.model.train(problem, points[-1], length))
        anchors = sum(point.nbytes for point in points[1:])

        tape = problem.model.record(problem, points[-1], problem.steps - starts[-1])
        back = _Back(problem, tape.w[-1].contiguous(), limit)
        back.through(tape)
        for point in reversed(points[:-1]):
            tape = problem.model.record(problem, point, length)
            back.through(tape)
        return back.result(anchors)


class _Back:
    """Alg. 1 from t = T to 1: the adjoint p and the sums for poison and λ, tape after tape.

    ``w`` are the trained parameters, ``limit`` the largest stable step size.
    """

    def __init__(self, problem: Problem, w: Float[Tensor, "K p"], limit: Tensor) -> None:
        check_finite(problem, w)
        self.problem, self.w, self.limit = problem, w, limit
        self.values, self.p = problem.outer(w)
        self.d_poison: Tensor | float = 0.0
        self.d_lam: Tensor | float = 0.0
        self.most_bytes = 0

    def through(self, tape: Tape) -> None:
        """Lines 7–13 of Alg. 1 along one tape, from its end to its beginning."""
        self.most_bytes = max(self.most_bytes, tape.bytes)
        self.p, d_poison, d_lam = self.problem.model.pull(self.problem, tape, self.p)
        self.d_poison = d_poison + self.d_poison
        self.d_lam = d_lam + self.d_lam

    def result(self, anchors: int) -> Hypergradient:
        """The hypergradient; ``anchors`` are the bytes of the checkpoints."""
        problem = self.problem
        gradient = problem.model.linearise(problem, self.w).gradient
        diagnostics = Diagnostics(
            gradient_norm=problem.stationarity(self.w, gradient).norm(dim=1),
            iterations=problem.steps,
            kept_bytes=anchors + self.most_bytes,
            stable_step=self.limit,
        )
        lam = problem.per_exponent(self.d_lam)
        check_derivatives(problem, lam, self.d_poison)
        return Hypergradient(self.d_poison, lam, self.w, self.values, diagnostics)
