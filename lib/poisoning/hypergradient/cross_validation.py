"""λ by k-fold cross-validation on clean training rows: the λ_CLEAN of Section V-B.

All folds and all values of the grid are trained side by side, as problems of one batch; a row that
is held out has weight 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from poisoning import checks
from poisoning.errors import SolverError
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Objective, Penalty, Problem, Rows

FOLDS = 5


@dataclass(frozen=True)
class CrossValidation:
    """``lam``: the exponent of least held-out loss; ``losses`` (grid,): the held-out losses.

    ``at_edge``: whether ``lam`` is the first or the last value of the grid, so that a wider grid
    might have held a better one.
    """

    lam: float
    losses: Float[Tensor, "grid"]
    at_edge: bool


def cross_validate(
    model: MLP,
    clean: Rows,
    penalty: Penalty,
    grid: Sequence[float],
    steps: int,
    rate: float,
    rng: np.random.Generator,
    dtype: torch.dtype,
) -> CrossValidation:
    """The exponent in ``grid`` of least mean held-out logistic loss over five folds.

    Models are trained for ``steps`` steps of size ``rate``. ``rng`` draws the folds and a network's
    initial parameters. Of equal losses the first counts.

    Raises ``ValueError`` or ``TypeError`` for an empty grid, fewer than five rows or another
    invalid argument, ``SolverError`` if training diverges.
    """
    checks.instance(model, "model", MLP)
    checks.one_of(penalty, "penalty", get_args(Penalty))
    grid = [float(lam) for lam in checks.bounds(grid, "grid", None)]
    for lam in grid:
        if lam != -np.inf:
            checks.between(lam, "grid", -80.0, 80.0)
    if not grid:
        raise ValueError("grid must hold at least one exponent, it is empty.")
    if len(checks.instance(clean, "clean", Rows).y) < FOLDS:
        raise ValueError(f"clean must have at least {FOLDS} rows, it has {len(clean.y)}.")
    rng = checks.generator(rng)
    n, d = clean.X.shape
    fold = torch.from_numpy(rng.permutation(n) % FOLDS)
    held_out: Bool[Tensor, "folds n"] = fold == torch.arange(FOLDS).unsqueeze(1)
    held_out = held_out.repeat(len(grid), 1).to(clean.X.device)
    K = len(held_out)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    lam = torch.tensor(grid, dtype=dtype).repeat_interleave(FOLDS).unsqueeze(1)
    X = clean.values(dtype)
    problem = Problem(
        model=model,
        clean=clean,
        poison=X.new_zeros(K, 0, d),
        poison_y=X.new_zeros(K, 0),
        objectives=(Objective(X, clean.y.to(dtype)),),
        lam=lam.to(X),
        rate=rate,
        steps=steps,
        initial=model.initial(d, generator).to(X).repeat(K, 1),
        penalty=penalty,
        weights=(~held_out).to(X),
    )
    with torch.no_grad():
        scores = model.scores(model.train(problem, problem.initial, steps), X)
        loss = torch.nn.functional.softplus(-clean.y.to(X) * scores) * held_out
    means = (loss.sum(1) / held_out.sum(1)).unflatten(0, (len(grid), FOLDS)).mean(1)
    if not bool(torch.isfinite(means).all()):
        raise SolverError(
            f"cross-validation: training diverged within {steps} steps of size {rate:.4g}; lower "
            "the step size"
        )
    best = int(means.argmin())
    return CrossValidation(float(grid[best]), means, best in (0, len(grid) - 1))
