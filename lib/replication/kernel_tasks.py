"""Multi-task relationship learning with a kernel, and an attack on it.

Zhao et al. 2018: "it is easy to extend to non-linear cases using kernel methods". With

    k(z, x) = exp(−‖z − x‖²/(2 s²)),    φ(x) = K^{−1/2} k(Z, x),    K = k(Z, Z),

φ(z)·φ(z') = k(z, z') for the landmarks Z, which are all clean training inputs. So the learner of
Eq. (1) with the kernel is the linear one on φ(x), and has its solver. A poisoned point x̂, which is
no landmark, enters by φ(x̂) too: by its projection on the span of the landmarks (Nyström).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.spatial.distance import cdist, pdist

from poisoning.attacks.patom import PATOM, draw_poison, project_to_ball
from poisoning.attacks.patom_gradient import attack_gradient
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.games.multi_task import MultiTaskGame, Poison
from poisoning.models.mtrl import TaskData

_NEGLIGIBLE = 1e-10
"""Eigenvalues of K below this share of the largest are rounding."""

_TRIALS = 12
"""Steps tried by one line search, each a quarter of the one before."""


@dataclass(frozen=True)
class KernelMap:
    """φ(x) of the module: ``landmarks`` (r, f), ``roots`` (q, r) with roots·K·rootsᵀ = I, s."""

    landmarks: Float[ndarray, "r f"]
    roots: Float[ndarray, "q r"]
    width: float

    @classmethod
    def of(cls, landmarks: Float[ndarray, "r f"]) -> "KernelMap":
        """The map for these landmarks; s is the median of their distances."""
        width = float(np.median(pdist(landmarks)))
        K = np.exp(-cdist(landmarks, landmarks, "sqeuclidean") / (2.0 * width**2))
        values, vectors = np.linalg.eigh(K)
        kept = values > _NEGLIGIBLE * values[-1]
        return cls(landmarks, (vectors[:, kept] / np.sqrt(values[kept])).T, width)

    def similarities(self, X: Float[ndarray, "*n f"]) -> Float[ndarray, "*n r"]:
        """k(x, z) with every landmark z."""
        distances = cdist(X.reshape(-1, X.shape[-1]), self.landmarks, "sqeuclidean")
        return np.exp(-distances / (2.0 * self.width**2)).reshape(*X.shape[:-1], -1)

    def __call__(self, X: Float[ndarray, "*n f"]) -> Float[ndarray, "*n q"]:
        """φ(x)."""
        return self.similarities(X) @ self.roots.T

    def pull_back(
        self, X: Float[ndarray, "*n f"], G: Float[ndarray, "*n q"]
    ) -> Float[ndarray, "*n f"]:
        """The gradient in x of a function whose gradient in φ(x) is ``G``."""
        C = (G @ self.roots) * self.similarities(X)
        return (C @ self.landmarks - C.sum(axis=-1, keepdims=True) * X) / self.width**2


def map_draw(draw: MultiTaskDraw) -> tuple[KernelMap, MultiTaskDraw]:
    """The map whose landmarks are the training inputs, and the draw with φ(x) for x.

    The constant 1 of the bias stays the last feature.
    """
    inputs = draw.X[draw.weight > 0.0][:, :-1]
    phi = KernelMap.of(np.unique(inputs, axis=0))

    def mapped(X: Float[ndarray, "*n d"]) -> Float[ndarray, "*n q"]:
        return np.concatenate([phi(X[..., :-1]), X[..., -1:]], axis=-1)

    return phi, replace(draw, X=mapped(draw.X), X_test=tuple(mapped(X) for X in draw.X_test))


@dataclass(frozen=True)
class _Point:
    """Inputs ``X`` of the poison, all training data mapped, what is learned, U, and ∂U/∂W."""

    X: Float[ndarray, "m k f"]
    data: TaskData
    W: Float[ndarray, "m d"]
    U: float
    v: Float[ndarray, "m d"]


def attack_kernel(
    attack: PATOM,
    learner: dict[str, Any],
    draw: MultiTaskDraw,
    targets: Bool[ndarray, "m"],
    attacking: Bool[ndarray, "m"],
    rng: np.random.Generator,
    transferred: Poison,
) -> dict[str, float]:
    """The targets' measure of the learner with a kernel, under four kinds of poison.

    ``clean``: none. ``random``: the points that ``attack`` begins with. ``moved``: these, moved in
    the ball of inputs by the ascent along the gradient through φ, with a line search. Labels and
    start are those of ``attack`` on the linear learner, for the same ``rng``. ``transferred``: what
    was made for another learner of the same tasks.

    Raises ``SolverError`` if the learner's problem, or the gradient's, is not solved.
    """
    rules = {"targets": targets, "attacking": attacking}
    phi, mapped = map_draw(draw)
    game = MultiTaskGame.from_draw(mapped, **rules, **learner)
    inputs = MultiTaskGame.from_draw(draw, **rules, **learner)
    start = draw_poison(inputs, attack.budget, attack.labels, attack.radius, rng)

    def received(poison: Poison) -> TaskData:
        features = np.where(poison.mask[..., None], phi(poison.X), 0.0)
        return game.poisoned(replace(poison, X=features))

    def learned(X: Float[ndarray, "m k f"], near: Float[ndarray, "m d"] | None) -> _Point:
        data = received(replace(start, X=X))
        W = game.learn(data, near)
        return _Point(X, data, W, *game.utility(W))

    now = first = learned(project_to_ball(start.X, attack.radius), None)
    eta = None
    for _ in range(attack.iterations):
        G = attack_gradient(
            now.data, now.X.shape[1], now.W, now.v, game.loss, game.lambda1, game.lambda2,
            attack.gradient, tol=game.tol,
        )  # fmt: skip
        G = phi.pull_back(now.X, G) * start.mask[..., None]
        longest = float(np.linalg.norm(G, axis=-1).max())
        eta = eta or attack.step * attack.radius / (longest or 1.0)
        for trial in range(_TRIALS):
            share = 0.25**trial
            new = learned(project_to_ball(now.X + share * eta * G, attack.radius), now.W)
            if now.U * (1.0 + game.tol) < new.U:
                break
        else:
            break  # no step raises U
        now, eta = new, eta * (2.0 if share == 1.0 else share)
    return {
        "clean": game.clean.measure,
        "random": game.measure(first.W),
        "moved": game.measure(now.W),
        "transferred": game.measure(game.learn(received(transferred), first.W)),
    }
