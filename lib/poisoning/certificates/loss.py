"""A certified upper bound on the loss that any poison within a feasible set can cause.

Steinhardt, Koh & Liang 2017 ("Certified defenses for data poisoning attacks"), in the form of
Eq. (19)-(21) of Koh et al. 2021. Let the defender train θ̂ on D_c and poison D_p ⊆ F, |D_p| ≤ εn.
Then for every θ, with U of Eq. (21),

    (1/n) Σ_{D_c} ℓ(θ̂; x, y) ≤ max_{D_p ⊆ F} min_θ' [(1 + ε) L(θ'; D_c ∪ D_p)] ≤ U(θ).

The left-hand side is also at least the clean training error, since the hinge loss is at least 1 on
an error. The least U is the value of a convex-concave game between learner and attacker. For
weights p on poisoned points, V(p) = min_θ (1 + ε) L(θ; D_c ∪ p) is a lower bound on this value,
which the attack p attains.

*Solution.* Generalised conditional gradients on the concave V: train the SVM for the present
weights, find the worst feasible point, and move 2/(t + 2) of the weight to it. The worst point is
computed at the average of the models, with the same weights; then U at this average falls as fast
as V rises. U and V are exact up to the gaps of the inner problems, which the bound includes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, vstack
from poisoning.attacks.worst_point import WorstPointSearch
from poisoning.errors import SolverError
from poisoning.feasible.sets import FeasibleSet
from poisoning.models.linear import LinearModel
from poisoning.models.svm import train_svm

_INNER_TOL = 1e-4


@dataclass(frozen=True)
class Certificate:
    """``attained`` ≤ value of the game ≤ ``bound``, both in units of mean loss over clean points.

    No poison of fraction ε within the set brings (1 + ε)·(the defender's training objective),
    hence its mean clean hinge loss and its clean training error, above ``bound``. The weighted
    poison ``X`` (k, d), ``y`` (k,), ``weights`` (k,) with sum ε reaches ``attained``. ``model``
    proves the bound: U(model) = ``bound``.
    """

    bound: float
    attained: float
    model: LinearModel
    X: Matrix
    y: Float[ndarray, "k"]
    weights: Float[ndarray, "k"]
    rounds: int

    @property
    def gap(self) -> float:
        """``bound`` − ``attained``, relative to the bound."""
        return (self.bound - self.attained) / self.bound


def certify_loss(
    X: Matrix,
    y: Float[ndarray, "n"],
    lam: float,
    epsilon: float,
    feasible: FeasibleSet,
    *,
    tol: float = 0.02,
    max_rounds: int = 500,
) -> Certificate:
    """The saddle point of Eq. (21) for clean data (X, y), to a relative gap of ``tol``.

    Poison may lie anywhere in ``feasible``; for counts, in its relaxation, whose constraints
    rounded points satisfy in expectation. Raises ``ValueError`` or ``TypeError`` for an invalid
    argument, ``EmptySetError`` if the set is empty, ``SolverError`` if ``max_rounds`` do not close
    the gap.
    """
    X = checks.matrix(X, "X")
    y = checks.signs(y, "y", X.shape[0])
    d = checks.instance(feasible, "feasible", FeasibleSet).positive.centre.size
    if d != X.shape[1]:
        raise ValueError(f"feasible must have the {X.shape[1]} features of X, it has {d}.")
    lam, tol = checks.positive(lam, "lam"), checks.positive(tol, "tol")
    epsilon, max_rounds = (
        checks.positive(epsilon, "epsilon"),
        checks.whole(max_rounds, "max_rounds"),
    )
    n = len(y)
    search = WorstPointSearch(feasible, _INNER_TOL)
    solution = train_svm(X, y, lam)
    average = np.append(solution.model.theta, solution.model.bias)
    rows, labels, weights = X[:0], np.zeros(0), np.zeros(0)
    bound, proof = np.inf, solution.model
    attained, poison = 0.0, (rows, labels, weights)
    for rounds in range(1, max_rounds + 1):
        model = LinearModel(average[:-1], float(average[-1]))
        worst = search.find(model)
        value = 0.5 * (1.0 + epsilon) * lam * float(average @ average)
        value += float(model.hinge(X, y).mean()) + epsilon * max(0.0, worst.bound)
        if value < bound:
            bound, proof = value, model
        if bound - attained <= tol * bound:
            return Certificate(bound, attained, proof, *poison, rounds)

        share = 2.0 / (rounds + 1.0)
        rows, labels = vstack([rows, worst.x[None, :]]), np.append(labels, worst.label)
        weights = np.append((1.0 - share) * weights, share * epsilon)
        solution = train_svm(
            vstack([X, rows]), np.append(y, labels), lam, tol=_INNER_TOL,
            weights=np.append(np.ones(n), n * weights), alpha0=np.append(solution.alpha, 0.0),
        )  # fmt: skip
        reached = (1.0 + epsilon) * (solution.objective - solution.gap)
        if reached > attained:
            attained, poison = reached, (rows, labels, weights)
        latest = np.append(solution.model.theta, solution.model.bias)
        average = average + share * (latest - average)
    raise SolverError(
        f"certificate (epsilon {epsilon:g}, lambda {lam:g}): relative gap "
        f"{(bound - attained) / bound:.1e} after {max_rounds} rounds, tolerance {tol:.1e}; raise "
        "max_rounds or tol"
    )
