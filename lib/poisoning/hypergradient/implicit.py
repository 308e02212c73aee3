"""Hypergradients of the fully trained model: Eq. (4, 5) of Carnerero-Cano et al. 2023.

At a minimiser w* of F the implicit function theorem gives, with v the solution of (∇²F) v = ∇_w A,

    dA/dX_p = −(∇_X∇_w F)ᵀ v,        dA/dλ = −(∇_λ∇_w F)ᵀ v.

Under L1, a weight that is zero stays zero while the data term's derivative is less than e^λ in
size. H, v and ∇_w A are therefore restricted to the other weights, where F is differentiable. That
is the exact derivative unless the derivative at some zero weight equals ±e^λ.

w* comes from Newton's method. Its steps are found by conjugate gradients and shortened by a
backtracking line search; under L1 a step may not leave the orthant of the iterate (Andrew and Gao
2007). Such steps alone can stall at a wrong set of zeros. So under L1 each follows a stretch of
proximal gradient steps, which converge from anywhere and settle the zeros; Newton then makes the
other weights exact. If F is strongly convex with constant μ, ‖w − w*‖ ≤ ‖∇F‖/μ, and the
hypergradient's error is of that order. The gradient's norm and the linear system's residual are
checked and reported.
"""

from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from poisoning import checks
from poisoning.errors import SolverError
from poisoning.hypergradient.krylov import conjugate_gradients
from poisoning.hypergradient.problem import Diagnostics, Hypergradient, Linearisation, Problem
from poisoning.hypergradient.rmd import largest_stable_step

Solver: TypeAlias = Literal["exact", "cg"]
_HALVINGS = 40
_SUFFICIENT = 1e-4
_CG_STEPS = 250  # within one Newton step, which need not be exact
_PROXIMAL_STEPS = 4_096  # at most, before one Newton step
_RIDGE = 0.01  # of the gradient's norm: vanishes on the way to w*
_OF_STABLE = 0.45  # 0.9/λ_max: F falls at every step


def implicit(
    problem: Problem,
    *,
    solver: Solver = "cg",
    tolerance: float = 1e-8,
    residual: float = 1e-10,
    max_newton: int = 200,
    max_cg: int = 10_000,
) -> Hypergradient:
    """The hypergradients of all objectives at the minimiser that Newton finds from w^(0).

    ``rate`` and ``steps`` of the problem play no part. Every problem is trained until
    ‖∇F‖₂ ≤ ``tolerance``; in float32 about 1e-5 can be reached. Then v is solved for, by Cholesky
    (``exact``, p² memory) or by conjugate gradients to ‖Hv − ∇A‖ ≤ ``residual``·‖∇A‖ (``cg``).

    Raises ``ValueError`` for an argument out of range, ``SolverError`` if a tolerance is not
    reached or the Hessian is not positive definite.
    """
    checks.instance(problem, "problem", Problem)
    checks.one_of(solver, "solver", get_args(Solver))
    tolerance = checks.positive(tolerance, "tolerance")
    residual = checks.positive(residual, "residual")
    checks.whole(max_newton, "max_newton")
    checks.whole(max_cg, "max_cg")
    with torch.no_grad():
        w, point, newton, used = _train(problem, tolerance, max_newton)
        alive = ~((problem.shrinkage > 0) & (w == 0))
        values, gradients = problem.outer(w)
        rhs = gradients * alive

        def hessian(v: Tensor) -> Tensor:
            Hv, _ = problem.model.product(problem, point.state, v)
            return (Hv + problem.decay * v) * alive

        kept = w.nbytes + problem.model.bytes(point.state)
        if solver == "exact":
            H = problem.model.hessian(problem, point.state) + torch.diag_embed(problem.decay)
            H = H * (alive.unsqueeze(1) & alive.unsqueeze(2)) + torch.diag_embed((~alive).to(H))
            factor, failed = torch.linalg.cholesky_ex(H)
            if bool(failed.any()):
                raise _not_convex(problem)
            v = torch.cholesky_solve(rhs.movedim(0, -1), factor).movedim(-1, 0)
            gap = (hessian(v) - rhs).norm(dim=-1) / rhs.norm(dim=-1).clamp_min(
                torch.finfo(v.dtype).tiny
            )
            kept += H.nbytes
        else:
            solution = conjugate_gradients(hessian, rhs, residual, max_cg)
            if not bool(solution.curved.all()):
                raise _not_convex(problem)
            v, gap = solution.x, solution.residual
            used += solution.iterations
            # The recursion's residual stops the iteration; the true one may lag by rounding.
            if not bool((gap <= 10.0 * residual).all()):
                raise SolverError(
                    f"implicit hypergradient: conjugate gradients leave {gap.max():.1e} after "
                    f"{solution.iterations} iterations, tolerance {residual:.1e}; raise max_cg, "
                    "the residual or lambda"
                )
        _, cross = problem.model.product(problem, point.state, v)
        direct = problem.decay * w + problem.shrinkage * w.sign()
        return Hypergradient(
            poison=-problem.model.gather([cross]),
            lam=-problem.per_exponent(direct * v),
            w=w,
            values=values,
            diagnostics=Diagnostics(
                gradient_norm=problem.stationarity(w, point.gradient).norm(dim=1),
                iterations=newton,
                kept_bytes=kept,
                residual=gap,
                solver_iterations=used,
            ),
        )


def _not_convex(problem: Problem) -> SolverError:
    return SolverError(
        f"implicit hypergradient ({problem.initial.shape[1]} parameters): the Hessian at the "
        "trained model is not positive definite; raise lambda, or use rmd"
    )


def _objective(problem: Problem, w: Tensor, point: Linearisation) -> Float[Tensor, "K"]:
    return point.loss() + (0.5 * problem.decay * w * w + problem.shrinkage * w.abs()).sum(1)


def _train(
    problem: Problem, tolerance: float, max_newton: int
) -> tuple[Tensor, Linearisation, int, int]:
    """w*, the data term at w*, and the numbers of Newton steps and of conjugate-gradient steps."""
    model, w, used = problem.model, problem.initial, 0
    sparse = problem.shrinkage > 0
    proximal = _Proximal(problem) if bool(sparse.any()) else None
    point = model.linearise(problem, w)

    def state() -> tuple[Tensor, Tensor, Tensor]:
        """The least subgradient at w, its norm, and which problems are not finished."""
        slope = problem.stationarity(w, point.gradient)
        norm = slope.norm(dim=1)
        return slope, norm, norm > tolerance

    for newton in range(max_newton):
        slope, norm, unfinished = state()
        if proximal is not None and bool((unfinished & proximal.chosen).any()):
            w, point = proximal.descend(w, point, unfinished)
            slope, norm, unfinished = state()
        if not bool(unfinished.any()):
            return w, point, newton, used
        free = unfinished.unsqueeze(1) & ~(sparse & (w == 0) & (slope == 0))

        # Under L1 the Hessian may be singular on the weights that are not 0.
        ridge = problem.decay + sparse * _RIDGE * norm.unsqueeze(1)

        def hessian(v: Tensor, state=point.state, free=free, ridge=ridge) -> Tensor:
            Hv, _ = model.product(problem, state, v.unsqueeze(0))
            return (Hv[0] + ridge * v) * free

        solution = conjugate_gradients(
            hessian, -slope * free, norm.sqrt().clamp(max=0.1), _CG_STEPS
        )  # fmt: skip
        used += solution.iterations
        leaves_zero_wrongly = sparse & (w == 0) & (solution.x * slope >= 0)
        direction = solution.x.masked_fill(leaves_zero_wrongly, 0.0)
        w, point = _line_search(problem, w, point, slope, direction, unfinished)
    _, norm, _ = state()
    raise SolverError(
        f"training to a minimum ({w.shape[1]} parameters): gradient norm {norm.max():.1e} after "
        f"{max_newton} Newton steps, tolerance {tolerance:.1e}; raise lambda, tolerance or "
        "max_newton"
    )


class _Proximal:
    """Stretches of proximal gradient steps for the problems under L1, each twice as long."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.size = _OF_STABLE * largest_stable_step(problem)
        self.chosen = (problem.shrinkage > 0).any(dim=1)
        self.steps = 1

    def descend(
        self, w: Float[Tensor, "K p"], point: Linearisation, unfinished: Tensor
    ) -> tuple[Tensor, Linearisation]:
        """w and the data term there after the next stretch.

        Where F rose, as it may if the curvature is not bounded, w stays and later steps are halved.
        """
        problem, move = self.problem, self.chosen & unfinished
        self.steps = min(2 * self.steps, _PROXIMAL_STEPS)
        trial = problem.model.train(replace(problem, rate=self.size), w, self.steps)
        if not problem.model.curvature_is_bound:
            before = _objective(problem, w, point)
            after = _objective(problem, trial, problem.model.linearise(problem, trial))
            rose = ~(after <= before + _rounding(before))
            self.size = torch.where(rose, 0.5 * self.size, self.size)
            move = move & ~rose
        w = torch.where(move.unsqueeze(1), trial, w)
        return w, problem.model.linearise(problem, w)


def _rounding(value: Float[Tensor, "K"]) -> Float[Tensor, "K"]:
    return 8.0 * torch.finfo(value.dtype).eps * value.abs()


def _line_search(
    problem: Problem,
    w: Tensor,
    point: Linearisation,
    slope: Tensor,
    direction: Tensor,
    move: Tensor,
) -> tuple[Tensor, Linearisation]:
    """Halve each problem's step until F falls by 1e-4 of what its slope predicts, or more.

    Under L1 a weight that would change sign stops at 0. Where that takes too much, the step ends
    exactly where the first weight gets to 0, so that the next is free of it. A problem under L1
    without a good step stays where it is: proximal steps go on from there.
    """
    before = _objective(problem, w, point)
    sparse = problem.shrinkage > 0
    crosses = sparse & (w * direction < 0)
    at_zero = torch.where(crosses, -w / torch.where(crosses, direction, 1.0), torch.inf)
    first = at_zero.amin(dim=1)
    rounding = _rounding(before)
    length = move.to(w.dtype)
    for _ in range(_HALVINGS):
        trial = w + length.unsqueeze(1) * direction
        trial = trial.masked_fill(at_zero <= length.unsqueeze(1), 0.0)
        there = problem.model.linearise(problem, trial)
        promised = _SUFFICIENT * (slope * (trial - w)).sum(1)
        short = _objective(problem, trial, there) > before + promised + rounding
        if not bool(short.any()):
            return trial, there
        half = 0.5 * length
        half = torch.where((half < first) & (first < length), first, half)
        length = torch.where(short, half, length)
    if bool((sparse.any(1) | ~short).all()):
        trial = torch.where(short.unsqueeze(1), w, trial)
        return trial, problem.model.linearise(problem, trial)
    raise SolverError(
        "training to a minimum: no step along Newton's direction lowers the objective; the "
        "tolerance is below what rounding allows, use float64 or raise it"
    )
