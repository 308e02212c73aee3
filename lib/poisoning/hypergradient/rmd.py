"""Reverse-mode differentiation through T steps: Alg. 1 of Carnerero-Cano et al. 2023.

    p ← ∇_w A(w^(T));  for t = T … 1:
        dX_p −= η(∇_X∇_w F)ᵀp,  dλ −= η(∇_λ∇_w F)ᵀp,  p ← p − η(∇²F)p,

all at w^(t−1). It is exact for the truncated problem (6); its distance from the hypergradient of
the fully trained model falls like the contraction of gradient descent, (1 − η λ_min)^T.

Where w^(t−1) comes from is a choice of memory against time (S is what one step keeps: w, and
curvatures or activations of every row):

- ``stored``: all T steps. Memory T·S, time 1.
- ``checkpointed``: every √T-th w; the steps between are trained again when they are needed. Memory
  2√T·S, and time of one more training, about 1.5.
- ``reversed``: w^(t−1) is found from w^(t) by solving w − η∇F(w) = w^(t) (Newton, conjugate
  gradients). Memory S, time 10 and more. It needs η < 1/λ_max(∇²F) and a smooth F: not L1, and
  with ReLU, whose gradient jumps, a step may have several origins. And it pays in digits: gradient
  descent forgets a direction of curvature h by the factor 1 − ηh a step, going back multiplies
  rounding by its inverse. w^(0) is known, so what was lost is measured, and refused above √eps of
  the numbers' precision.
"""

from math import isqrt
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from poisoning.errors import SolverError
from poisoning.hypergradient.krylov import conjugate_gradients, largest_eigenvalue
from poisoning.hypergradient.problem import Diagnostics, Hypergradient, Problem, Tape

Trajectory: TypeAlias = Literal["stored", "checkpointed", "reversed"]
_NEWTON_STEPS = 30


def largest_stable_step(problem: Problem) -> Float[Tensor, "K"]:
    """2/λ_max(∇²F): at larger η gradient descent diverges or is chaotic.

    λ_max to a relative 1e-3, of a bound that holds at every w for logistic regression, at w^(0) for
    networks, whose curvature may grow on the way.
    """
    with torch.no_grad():
        point = problem.model.linearise(problem, problem.model.curvature_point(problem))

        def product(v: Tensor) -> Tensor:
            Hv, _ = problem.model.product(problem, point.state, v.unsqueeze(0))
            return Hv[0] + problem.decay * v

        start = product(torch.ones_like(problem.initial))
        return 2.0 / largest_eigenvalue(product, start).clamp_min(torch.finfo(start.dtype).tiny)


def check_step(problem: Problem) -> Float[Tensor, "K"]:
    """:func:`largest_stable_step`; ``ValueError`` if a bound says that η is not below it."""
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
    """``SolverError`` if training has diverged."""
    if not bool(torch.isfinite(w).all()):
        raise SolverError(
            f"training diverged within {problem.steps} steps of size {problem.eta.max():.4g} "
            "(parameters are not finite); lower the step size"
        )


def rmd(problem: Problem, *, trajectory: Trajectory = "stored") -> Hypergradient:
    """The hypergradients of all objectives by Alg. 1.

    Raises ``ValueError`` for a step size beyond stability (logistic regression) or a problem that
    cannot be reversed; ``SolverError`` if training diverges or reversal loses too many digits.
    """
    limit = check_step(problem)
    with torch.no_grad():
        if trajectory == "reversed":
            return _reversed(problem, limit)
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
    """The way back: the adjoint and the sums of Alg. 1, from the trained ``w``."""

    def __init__(self, problem: Problem, w: Float[Tensor, "K p"], limit: Tensor) -> None:
        check_finite(problem, w)
        self.problem, self.w, self.limit = problem, w, limit
        self.values, self.p = problem.outer(w)
        self.d_poison: Tensor | float = 0.0
        self.d_lam: Tensor | float = 0.0
        self.most_bytes = 0

    def through(self, tape: Tape) -> None:
        """Down one tape."""
        self.most_bytes = max(self.most_bytes, tape.bytes)
        self.p, d_poison, d_lam = self.problem.model.pull(self.problem, tape, self.p)
        self.d_poison = d_poison + self.d_poison
        self.d_lam = d_lam + self.d_lam

    def result(self, anchors: int, reversal_error: Tensor | None = None) -> Hypergradient:
        """What has come together."""
        problem = self.problem
        gradient = problem.model.linearise(problem, self.w).gradient
        diagnostics = Diagnostics(
            gradient_norm=problem.stationarity(self.w, gradient).norm(dim=1),
            iterations=problem.steps,
            kept_bytes=anchors + self.most_bytes,
            stable_step=self.limit,
            reversal_error=reversal_error,
        )
        lam = problem.per_exponent(self.d_lam)
        return Hypergradient(self.d_poison, lam, self.w, self.values, diagnostics)


def _reversed(problem: Problem, limit: Float[Tensor, "K"]) -> Hypergradient:
    if bool(problem.l1.any()):
        raise ValueError("soft-thresholding forgets what it cut: L1 training cannot be reversed")
    if not bool((problem.eta.squeeze(1) < 0.5 * limit).all()):
        raise ValueError(
            f"training with step size {problem.eta.max():.4g} cannot be reversed: it needs less "
            f"than 1/lambda_max = {0.5 * limit.min():.4g}; use a checkpointed trajectory"
        )
    w = problem.model.train(problem, problem.initial, problem.steps)
    back = _Back(problem, w, limit)
    largest = w.abs().amax(dim=1)
    for _ in range(problem.steps):
        w = _step_back(problem, w)
        largest = torch.maximum(largest, w.abs().amax(dim=1))
        back.through(problem.model.record(problem, w, 1))
    lost = (w - problem.initial).abs().amax(dim=1) / largest
    allowed = torch.finfo(w.dtype).eps ** 0.5
    if not bool((lost <= allowed).all()):
        raise SolverError(
            f"reversed training misses its start by {lost.max():.1e} of the largest parameter, "
            f"tolerance {allowed:.1e}; use a checkpointed trajectory, fewer steps or a smaller one"
        )
    return back.result(0, lost)


def _step_back(problem: Problem, after: Float[Tensor, "K p"]) -> Float[Tensor, "K p"]:
    """w with w − η∇F(w) = ``after``, to rounding."""
    model, eps = problem.model, torch.finfo(after.dtype).eps
    w = after
    before = torch.inf
    for _ in range(_NEWTON_STEPS):
        point = model.linearise(problem, w)
        residual = problem.step(w, point.gradient) - after
        size = float(residual.abs().max())
        if size <= 4.0 * eps * float(after.abs().max()) or (size < 1e3 * eps and size >= before):
            return w
        before = size

        def product(v: Tensor, state=point.state) -> Tensor:
            Hv, _ = model.product(problem, state, v.unsqueeze(0))
            return v - problem.eta * (Hv[0] + problem.decay * v)

        w = w - conjugate_gradients(product, residual, 0.1 * eps**0.5, 200).x
    raise SolverError(
        f"a training step could not be undone: residual {size:.1e} after {_NEWTON_STEPS} Newton "
        "steps; use a checkpointed trajectory"
    )
