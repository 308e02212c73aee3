"""Hypergradients of the fully trained model: Eq. (4, 5) of Carnerero-Cano et al. 2023.

At a minimiser w* of F the implicit function theorem gives, with v the solution of (∇²F) v = ∇_w A,

    dA/dX_p = −(∇_X∇_w F)ᵀ v,        dA/dλ = −(∇_λ∇_w F)ᵀ v.

Under L1, a weight that is zero stays zero while the data term's derivative is less than e^λ in
size. H, v and ∇_w A are therefore restricted to the other weights, where F is differentiable. That
is the exact derivative unless the derivative at some zero weight equals ±e^λ.

w* comes from Newton's method. Its steps are found by conjugate gradients and shortened by a
backtracking line search; under L1 a step may not leave the orthant of the iterate (Andrew and Gao
2007). If F is strongly convex with constant μ, ‖w − w*‖ ≤ ‖∇F‖/μ, and the hypergradient's error is
of that order. The gradient's norm and the linear system's residual are checked and reported.
"""

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from poisoning.errors import SolverError
from poisoning.hypergradient.krylov import conjugate_gradients
from poisoning.hypergradient.problem import Diagnostics, Hypergradient, Linearisation, Problem

Solver: TypeAlias = Literal["exact", "cg"]
_HALVINGS = 40
_SUFFICIENT = 1e-4
_CG_STEPS = 250  # within one Newton step, which need not be exact


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

    Raises ``SolverError`` if a tolerance is not reached or the Hessian is not positive definite.
    """
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
    point = model.linearise(problem, w)
    for newton in range(max_newton):
        slope = problem.stationarity(w, point.gradient)
        norm = slope.norm(dim=1)
        unfinished = norm > tolerance
        if not bool(unfinished.any()):
            return w, point, newton, used
        free = unfinished.unsqueeze(1) & ~(sparse & (w == 0) & (slope == 0))

        def hessian(v: Tensor, state=point.state, free=free) -> Tensor:
            Hv, _ = model.product(problem, state, v.unsqueeze(0))
            return (Hv[0] + problem.decay * v) * free

        solution = conjugate_gradients(
            hessian, -slope * free, norm.sqrt().clamp(max=0.1), _CG_STEPS
        )  # fmt: skip
        used += solution.iterations
        leaves_zero_wrongly = sparse & (w == 0) & (solution.x * slope >= 0)
        direction = solution.x.masked_fill(leaves_zero_wrongly, 0.0)
        w, point = _line_search(problem, w, point, slope, direction, unfinished)
    norm = problem.stationarity(w, point.gradient).norm(dim=1)
    raise SolverError(
        f"training to a minimum ({w.shape[1]} parameters): gradient norm {norm.max():.1e} after "
        f"{max_newton} Newton steps, tolerance {tolerance:.1e}; raise lambda, tolerance or "
        "max_newton"
    )


def _line_search(
    problem: Problem,
    w: Tensor,
    point: Linearisation,
    slope: Tensor,
    direction: Tensor,
    move: Tensor,
) -> tuple[Tensor, Linearisation]:
    """Halve each problem's step until F falls by 1e-4 of what its slope predicts, or more."""
    before = _objective(problem, w, point)
    orthant = torch.where(w != 0, w, -slope).sign()
    sparse = problem.shrinkage > 0
    rounding = 8.0 * torch.finfo(w.dtype).eps * before.abs()
    length = move.to(w.dtype)
    for _ in range(_HALVINGS):
        trial = w + length.unsqueeze(1) * direction
        trial = trial.masked_fill(sparse & (trial * orthant < 0), 0.0)
        there = problem.model.linearise(problem, trial)
        promised = _SUFFICIENT * (slope * (trial - w)).sum(1)
        short = _objective(problem, trial, there) > before + promised + rounding
        if not bool(short.any()):
            return trial, there
        length = torch.where(short, 0.5 * length, length)
    raise SolverError(
        "training to a minimum: no step along Newton's direction lowers the objective; the "
        "tolerance is below what rounding allows, use float64 or raise it"
    )
