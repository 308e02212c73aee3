"""Random problems for every solver, each answer judged by arithmetic that the solver does not use.

A problem is drawn from a seed: its sizes, scales and degeneracies (copies, opposite copies, columns
of zeros, one class, thin and touching constraints, more weights than rows). An answer is right if
it satisfies, in arithmetic of 64 bits or in closed form, what the solver promises of it; every
``_CVXPY``-th is compared with cvxpy as well where there is such a model. ``SolverError`` counts as
refused, any other exception or more than ``_SECONDS`` as crashed.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import scipy.sparse as sp
import torch
from numpy import ndarray
from numpy.random import Generator
from tqdm import tqdm

from poisoning.errors import SolverError
from poisoning.feasible import reference, solver
from poisoning.feasible.sets import ClassSet, FeasibleSet, InputDomain
from poisoning.hypergradient import problem as problems
from poisoning.hypergradient.implicit import implicit
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.problem import Objective, Problem, Rows
from poisoning.hypergradient.rmd import largest_stable_step, rmd
from poisoning.models.logistic import train_logistic
from poisoning.models.mtrl import TaskData, solve_mtrl
from poisoning.models.svm import train_svm

NAME = "solvers"
_CVXPY = 50
_SECONDS = 10.0
_KINDS = ("counts", "box01", "nonnegative", "real")

Judged = str | None
"""None if the answer is right, else what is wrong with it."""


@dataclass(frozen=True)
class Solver:
    """``draw`` makes a problem, ``solve`` answers it, ``judge`` says what is wrong with it."""

    draw: Callable[[Generator], Any]
    solve: Callable[[Any], Any]
    judge: Callable[[Any, Any, Generator], Judged]


def run(
    seed: int, count: int = 5_000, budget_seconds: float = 600.0, names: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Try ``count`` problems a solver, fewer if the seconds run out; what happened, by solver."""
    chosen = names or tuple(SOLVERS)
    return {
        name: _attempt(SOLVERS[name], name, seed, count, budget_seconds / len(chosen))
        for name in chosen
    }


def _attempt(
    target: Solver, name: str, seed: int, count: int, budget_seconds: float
) -> dict[str, Any]:
    found: dict[str, Any] = {"tried": 0, "right": 0, "refused": 0, "wrong": 0, "crashed": 0}
    found |= {"seed": seed, "slowest_s": 0.0, "samples": []}
    begun = time.perf_counter()
    for number in tqdm(range(count), desc=name, leave=False, mininterval=5.0):
        if time.perf_counter() - begun > budget_seconds:
            break
        verdict, said, seconds = attempt(target, seed, number)
        if seconds > _SECONDS:  # of which compiling a kernel, at its first use, is the larger part
            verdict, said, seconds = attempt(target, seed, number)
        found["tried"] += 1
        found[verdict] += 1
        found["slowest_s"] = max(found["slowest_s"], round(seconds, 2))
        if verdict != "right" and len(found["samples"]) < 20:
            found["samples"].append(f"{number}: {verdict}: {said}")
    return found


def attempt(target: Solver, seed: int, number: int) -> tuple[str, str, float]:
    """Draw, solve and judge one problem: the verdict, what was said, and CPU seconds."""
    rng = np.random.default_rng([seed, number])
    problem = target.draw(rng)
    begun = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answer = target.solve(problem)
        said = target.judge(problem, answer, rng)
        verdict = "right" if said is None else "wrong"
    except SolverError as error:
        verdict, said = "refused", str(error)
    except Exception as error:
        verdict, said = "crashed", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - begun
    if seconds > _SECONDS:
        verdict, said = "crashed", f"took {seconds:.0f} s"
    return verdict, said or "", seconds


# Two-class learners --------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """Labelled rows, a penalty, weights."""

    X: Any
    y: ndarray
    lam: float
    weights: ndarray

    @property
    def dense(self) -> ndarray:
        """(x, 1) in 64-bit fractions."""
        X = self.X.toarray() if sp.issparse(self.X) else self.X
        return np.hstack([X, np.ones((len(self.y), 1))]).astype(np.longdouble)


def _examples(rng: Generator) -> Examples:
    n, d = int(rng.integers(1, 90)), int(rng.integers(1, 30))
    X = 10 ** rng.uniform(-3, 4) * rng.normal(size=(n, d))
    if rng.random() < 0.3:
        X *= 10 ** rng.uniform(-2, 2, size=d)
    if rng.random() < 0.2:
        X += 10 ** rng.uniform(0, 4)
    if rng.random() < 0.2:
        X = np.round(X)
    if rng.random() < 0.2:
        X[:, rng.integers(0, d)] = 0.0
    if rng.random() < 0.3:
        X = X[rng.integers(0, n, size=n)]
    if rng.random() < 0.15:
        X = X * (1.0 + 10 ** rng.uniform(-14, -6) * rng.normal(size=X.shape))
    if rng.random() < 0.05:
        X[:] = X[0]
    y = np.where(rng.random(n) < rng.random(), 1.0, -1.0)
    if rng.random() < 0.3:
        y = np.where(X[:, 0] > np.median(X[:, 0]), 1.0, -1.0)
    weights = np.ones(n)
    if rng.random() < 0.3:
        weights = rng.integers(0, 4, size=n).astype(float)
        weights[rng.integers(0, n)] = 1.0
    X = sp.csr_array(X) if rng.random() < 0.3 else X
    return Examples(X, y, float(10 ** rng.uniform(-4, 1)), weights)


def _judge_svm(problem: Examples, answer: Any, rng: Generator) -> Judged:
    Z = problem.y[:, None] * problem.dense
    upper = problem.weights / (problem.lam * problem.weights.sum())
    w = np.append(answer.model.theta, answer.model.bias).astype(np.longdouble)
    alpha = answer.alpha.astype(np.longdouble)
    if np.any(alpha < 0.0) or np.any(alpha > upper * (1.0 + 1e-15)):
        return "alpha leaves its bounds"
    primal = 0.5 * w @ w + upper @ np.maximum(0.0, 1.0 - Z @ w)
    combined = Z.T @ alpha
    gap = float((primal - alpha.sum() + 0.5 * combined @ combined) / primal)
    return None if gap <= 1.01e-6 else f"relative gap {gap:.1e}"


def _judge_logistic(problem: Examples, answer: Any, rng: Generator) -> Judged:
    X, share = problem.dense, problem.weights / problem.weights.sum()
    w = np.append(answer.model.theta, answer.model.bias).astype(np.longdouble)
    pull = share * problem.y / (1.0 + np.exp(problem.y * (X @ w)))
    norm = float(np.linalg.norm((problem.lam * w - X.T @ pull).astype(float)))
    lengths = np.linalg.norm(X.astype(float), axis=1)
    # What 53 bits of w leave of the gradient comes on top of the tolerance.
    rounding = 1e-14 * float(np.linalg.norm(w.astype(float)) * (share @ lengths**2 + problem.lam))
    allowed = 1e-9 * 0.5 * float(share @ lengths) + rounding
    return None if norm <= allowed else f"gradient norm {norm:.1e}, allowed {allowed:.1e}"


# Multi-task relationship learning ------------------------------------------------------------


def _tasks(rng: Generator) -> tuple[TaskData, str, float, float]:
    m, d = int(rng.integers(1, 6)), int(rng.integers(1, 8))
    loss = str(rng.choice(["square", "hinge"]))
    shared = rng.normal(size=d)
    X, y = [], []
    for _ in range(m):
        n = int(rng.integers(1, 30))
        rows = 10 ** rng.uniform(-1, 1) * rng.normal(size=(n, d))
        rows[:, -1] = 1.0
        if rng.random() < 0.2:
            rows = rows[rng.integers(0, n, size=n)]
        target = rows @ (shared + 0.5 * rng.normal(size=d)) + 0.1 * rng.normal(size=n)
        X.append(rows)
        y.append(np.where(target > 0.0, 1.0, -1.0) if loss == "hinge" else target)
    lambda1, lambda2 = 10 ** rng.uniform(-3, 1), rng.choice([0.0, 10 ** rng.uniform(-3, 1)])
    return TaskData.from_tasks(X, y), loss, float(lambda1), float(lambda2)


def _judge_mtrl(problem: Any, answer: Any, rng: Generator) -> Judged:
    """The distance of 0 from ∂F(W), the nuclear norm's subgradient chosen in closed form."""
    data, loss, lambda1, lambda2 = problem
    W = answer.W
    scores = np.einsum("mnd,md->mn", data.X, W)

    def gradient(scores: ndarray) -> ndarray:
        margin = np.maximum(1.0 - data.y * scores, 0.0)
        slopes = 2.0 * (scores - data.y) if loss == "square" else -2.0 * data.y * margin
        return np.einsum("mn,mnd->md", data.weight * slopes, data.X)

    scale = np.linalg.norm(gradient(np.zeros_like(scores))) or 1.0
    G = gradient(scores) + lambda1 * W
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    kept = s > 1e-9 * s[0]
    if s[0] > 0.0 and lambda2 > 0.0:
        strength = lambda2 * s.sum()
        U, Vt = U[:, kept], Vt[kept]
        G = G + strength * U @ Vt
        outside = G - U @ (U.T @ G)
        outside = outside - (outside @ Vt.T) @ Vt
        A, t, Bt = np.linalg.svd(outside, full_matrices=False)
        G = G - (A * np.minimum(t, strength)) @ Bt
    distance = float(np.linalg.norm(G) / scale)
    return None if distance <= 2e-6 else f"relative distance {distance:.1e} of 0 from dF"


# Feasible sets -------------------------------------------------------------------------------


def _class_set(rng: Generator, d: int, kind: str) -> tuple[ClassSet, ndarray]:
    """A set around a point of it."""
    some, scale = rng.random(d) < 0.6, 1.0
    lower, upper = np.zeros(d), np.full(d, np.inf)
    if kind == "counts":
        upper = rng.integers(0, 5, size=d).astype(float)
        inside, centre = np.minimum(rng.poisson(0.8, size=d), upper), upper * rng.random(d)
    elif kind == "box01":
        upper, inside, centre = np.ones(d), some * rng.random(d), rng.random(d)
    else:
        scale = 10 ** rng.uniform(-2, 2)
        inside, centre = scale * some * rng.gamma(1.0, size=d), scale * rng.gamma(1.0, size=d)
    if kind == "real":
        lower, inside, centre = -upper, inside - scale, centre - scale
    domain = InputDomain(kind, lower, upper)
    ball = ClassSet(domain, centre, 1.0, np.zeros((0, d)), np.zeros(0), np.zeros(0))
    radius = np.sqrt(reference.square(inside, ball)) or scale
    radius *= 1.0 + rng.choice([0.0, 1e-9, 1e-6, 1e-3, 0.3, 2.0])
    R = int(rng.integers(1, 4))
    rows = 10 ** rng.uniform(-2, 1) * rng.normal(size=(R, d))
    if rng.random() < 0.3:
        rows *= rng.random((R, d)) < 0.3
    products = rows @ inside
    width = np.abs(products).mean() * rng.choice([0.0, 1e-9, 1e-6, 1e-3, 0.1, 1.0], size=R)
    low = np.where(rng.random(R) < 0.3, -np.inf, products - width * rng.random(R))
    high = np.where(rng.random(R) < 0.3, np.inf, products + width * rng.random(R))
    return replace(ball, radius=float(radius), rows=rows, lower=low, upper=high), inside


def _point_and_set(rng: Generator) -> tuple[ndarray, ClassSet, ndarray]:
    d = int(rng.integers(1, 25))
    feasible, inside = _class_set(rng, d, str(rng.choice(_KINDS)))
    far = 10 ** rng.uniform(-2, 2) * (feasible.radius if feasible.radius > 0.0 else 1.0)
    return inside + far * rng.normal(size=d), feasible, inside


def _outside(part: ClassSet, x: ndarray) -> Judged:
    excess = reference.violation(x, part)
    return None if excess <= 1e-7 else f"outside the set by {excess:.1e}"


def _no_better(answer: Any, value: float, size: float) -> Judged:
    """``value`` is what the objective is at a point of the set."""
    if answer.objective - answer.gap <= value + 1e-7 * size:
        return None
    return f"{answer.objective:.9g} less {answer.gap:.1e} is above {value:.9g} at a feasible point"


def _against_cvxpy(answer: Any, size: float, rng: Generator, solve: Callable) -> Judged:
    if rng.integers(0, _CVXPY) > 0:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best, _ = solve()
    except SolverError:
        return None  # Clarabel gives up on some thin sets
    if abs(answer.objective - best) <= 1e-4 * max(abs(best), size):
        return None
    return f"objective {answer.objective:.9g}, cvxpy {best:.9g}"


def _judge_projection(problem: Any, answer: Any, rng: Generator) -> Judged:
    p, feasible, inside = problem
    value = 0.5 * float(np.sum((inside - p) ** 2))
    return (
        _outside(feasible, answer.points[0])
        or _no_better(answer, value, 0.5 * float(p @ p))
        or _against_cvxpy(answer, 0.5 * float(p @ p), rng, lambda: reference.project(p, feasible))
    )


def _judge_linear(problem: Any, answer: Any, rng: Generator) -> Judged:
    c, feasible, inside = problem
    size = float(np.linalg.norm(c) * (np.linalg.norm(feasible.centre) + feasible.radius))
    return (
        _outside(feasible, answer.points[0])
        or _no_better(answer, float(c @ inside), size)
        or _against_cvxpy(answer, size, rng, lambda: reference.minimise_linear(c, feasible))
    )


def _gradient_and_sets(rng: Generator) -> tuple[ndarray, float, float, FeasibleSet, ndarray]:
    d, kind = int(rng.integers(1, 20)), str(rng.choice(_KINDS))
    positive, plus = _class_set(rng, d, kind)
    negative, minus = _class_set(rng, d, kind)
    negative = replace(negative, domain=positive.domain)
    if kind == "counts":  # both classes have one domain; the second's constraints are its ball
        minus = np.minimum(minus, positive.domain.upper)
        none = np.zeros((0, d)), np.zeros(0), np.zeros(0)
        negative = ClassSet(positive.domain, negative.centre, 1.0, *none)
        negative = replace(negative, radius=1.3 * np.sqrt(reference.square(minus, negative)) + 0.1)
    weights = rng.choice([0.0, 0.01, 0.03, 0.3], size=2)
    weights[rng.integers(0, 2)] = 0.02
    g = 10 ** rng.uniform(-3, 1) * rng.normal(size=d)
    at = float(0.5 * np.sum((g - weights[0] * plus + weights[1] * minus) ** 2))
    return g, float(weights[0]), float(weights[1]), FeasibleSet(positive, negative), np.array(at)


def _judge_kkt(problem: Any, answer: Any, rng: Generator) -> Judged:
    g, plus, minus, feasible, at = problem
    size = 0.5 * float(g @ g)
    parts = ((plus, feasible.positive, 0), (minus, feasible.negative, 1))
    outside = [_outside(part, answer.points[k]) for weight, part, k in parts if weight > 0.0]
    residual = g - plus * answer.points[0] + minus * answer.points[1]
    value = 0.5 * float(residual @ residual)
    if abs(value - answer.objective) > 1e-9 * max(value, size):
        return f"objective {answer.objective:.9g} at a point where it is {value:.9g}"
    return (
        next((said for said in outside if said), None)
        or _no_better(answer, float(at), size)
        or _against_cvxpy(
            answer, size, rng, lambda: reference.match_gradient(g, plus, minus, feasible)
        )
    )


# Hypergradients ------------------------------------------------------------------------------


def _inner_problem(rng: Generator) -> Problem:
    n, d, m = int(rng.integers(2, 40)), int(rng.integers(1, 24)), int(rng.integers(1, 6))
    scale = 10 ** rng.uniform(-1, 1)

    def rows(*shape: int) -> torch.Tensor:
        return torch.from_numpy(scale * rng.normal(size=(*shape, d)))

    def labels(*shape: int) -> torch.Tensor:
        return torch.from_numpy(np.where(rng.random(shape) < 0.5, 1.0, -1.0))

    clean = rows(n)
    if rng.random() < 0.3:
        clean = clean[rng.integers(0, n, size=n)]
    if rng.random() < 0.2:
        clean[:, rng.integers(0, d)] = 0.0
    penalty = str(rng.choice(["l1", "l2"]))
    lam = torch.from_numpy(rng.uniform(-6.0, 0.0, size=(1, 1)))
    start = torch.zeros(1, d + 1, dtype=torch.float64)
    problem = Problem(
        Logistic(), Rows(clean, labels(n)), rows(1, m), labels(1, m),
        (Objective(rows(7), labels(7)),), lam, 1.0, int(rng.integers(1, 30)), start, penalty,
    )  # fmt: skip
    return replace(problem, rate=0.5 * float(largest_stable_step(problem)))


def _arrays(problem: Problem) -> tuple[ndarray, ndarray, ndarray, ndarray, ndarray]:
    """Clean rows and labels, poison and its labels, e^λ."""
    return (
        problem.clean.X.numpy(), problem.clean.y.numpy(), problem.poison[0].numpy(),
        problem.poison_y[0].numpy(), problem.lam.exp().numpy()[0, 0],
    )  # fmt: skip


def _judge_implicit(problem: Problem, answer: Any, rng: Generator) -> Judged:
    """Stationarity, and the derivative by the poison from the equations written out."""
    X, y, P, q, strength = _arrays(problem)
    w = answer.w[0].numpy()
    rows = np.hstack([np.vstack([X, P]), np.ones((len(y) + len(q), 1))])
    signs, share = np.append(y, q), 1.0 / (len(y) + len(q))
    sigma = 1.0 / (1.0 + np.exp(-signs * (rows @ w)))
    pull = -share * signs * (1.0 - sigma)
    gradient, alive = rows.T @ pull, np.ones(len(w), dtype=bool)
    if problem.penalty == "l2":
        excess = np.abs(gradient + strength * w)
    else:
        alive = w != 0.0
        off = np.maximum(np.abs(gradient) - strength, 0.0)
        excess = np.where(alive, np.abs(gradient + strength * np.sign(w)), off)
    if excess.max() > 2e-8:
        return f"gradient {excess.max():.1e} at the minimum"
    curvature = share * sigma * (1.0 - sigma)
    H = (rows.T * curvature) @ rows + (strength if problem.penalty == "l2" else 0.0) * np.eye(
        len(w)
    )
    V, z = problem.objectives[0].X.numpy(), problem.objectives[0].y.numpy()
    V = np.hstack([V, np.ones((len(z), 1))])
    outer = -(V.T @ (z / (1.0 + np.exp(z * (V @ w))))) / len(z)
    v = np.zeros(len(w))
    if alive.any():
        part = H[np.ix_(alive, alive)]
        if np.linalg.cond(part) > 1e9:
            return None  # the derivative is not determined to any useful accuracy
        v[alive] = np.linalg.solve(part, outer[alive])
    of_poison = slice(len(y), None)
    products = curvature[of_poison] * (rows[of_poison] @ v)
    expected = -(np.outer(products, w[:-1]) + np.outer(pull[of_poison], v[:-1]))
    error = np.abs(answer.poison[0, 0].numpy() - expected).max()
    allowed = 1e-5 * (np.abs(expected).max() + np.abs(v).max())
    return None if error <= allowed else f"hypergradient off by {error:.1e}, allowed {allowed:.1e}"


def _judge_rmd(problem: Problem, answer: Any, rng: Generator) -> Judged:
    """A directional derivative by a complex step through the same training, written out."""
    X, y, P, q, strength = _arrays(problem)
    along = rng.normal(size=P.shape)
    P = P + 1e-30j * along
    rows = np.hstack([np.vstack([X, P]), np.ones((len(y) + len(q), 1))])
    signs = np.append(y, q)
    w = np.zeros(rows.shape[1], dtype=complex)
    eta = float(problem.eta[0, 0])
    for _ in range(problem.steps):
        gradient = -(rows.T @ (signs / (1.0 + np.exp(signs * (rows @ w))))) / len(signs)
        if problem.penalty == "l2":
            w = w - eta * (gradient + strength * w)
        else:
            w = w - eta * gradient
            kept = np.abs(w.real) > eta * strength
            w = np.where(kept, w - eta * strength * np.sign(w.real), 0.0)
    V, z = problem.objectives[0].X.numpy(), problem.objectives[0].y.numpy()
    V = np.hstack([V, np.ones((len(z), 1))])
    outer = np.log(1.0 + np.exp(-z * (V @ w))).mean()
    expected = float(outer.imag) / 1e-30
    found = float(np.sum(answer.poison[0, 0].numpy() * along))
    allowed = 1e-8 * (abs(expected) + float(answer.poison.abs().max()) * P.size)
    return None if abs(found - expected) <= allowed else f"{found:.9g}, complex step {expected:.9g}"


def _by_either_pass(solve: Callable[[Problem], Any]) -> Callable[[Problem], Any]:
    """Every other problem by the compiled passes, which ones as small as these do without."""

    def solved(problem: Problem) -> Any:
        small = 0 if len(problem.clean.y) % 2 else problems.SMALL
        with patch.object(problems, "SMALL", small):
            return solve(problem)

    return solved


SOLVERS = {
    "svm": Solver(_examples, lambda p: train_svm(p.X, p.y, p.lam, weights=p.weights), _judge_svm),
    "logistic": Solver(
        _examples, lambda p: train_logistic(p.X, p.y, p.lam, weights=p.weights), _judge_logistic
    ),
    "mtrl": Solver(_tasks, lambda p: solve_mtrl(*p), _judge_mtrl),
    "projection": Solver(_point_and_set, lambda p: solver.project(p[0], p[1]), _judge_projection),
    "linear": Solver(_point_and_set, lambda p: solver.minimise_linear(p[0], p[1]), _judge_linear),
    "kkt": Solver(_gradient_and_sets, lambda p: solver.match_gradient(*p[:4]), _judge_kkt),
    "implicit": Solver(_inner_problem, _by_either_pass(implicit), _judge_implicit),
    "rmd": Solver(_inner_problem, _by_either_pass(rmd), _judge_rmd),
}
