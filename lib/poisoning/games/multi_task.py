"""The game of Zhao et al. 2018: tasks learned together, an attacker who adds examples to some.

The learner solves multi-task relationship learning (:mod:`poisoning.models.mtrl`) on the training
examples of m tasks. The attacker owns the *attacking* tasks, to which it may add examples, and
wants the *target* tasks to be learned badly: it maximises

    U = Σ_{i target} Σ_j ℓ(w_i·x_ij, y_ij),        Eq. (2),

summed over the clean training examples. In a direct attack the two sets of tasks are the same, in
an indirect one they have none in common, in a hybrid one they overlap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import to_dense
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.models.mtrl import Loss, TaskData, solve_mtrl
from poisoning.models.mtrl_evaluation import auc, nmse
from poisoning.models.mtrl_kernels import add_rows, losses

NONE = "none"
"""The name of the outcome without a defense, the only one in this game."""


@dataclass(frozen=True)
class Poison:
    """Injected examples of m tasks, padded to k each.

    ``X`` (m, k, f): features, without the constant of the bias. ``y`` (m, k): labels. ``mask``
    (m, k): which of them exist, n̂_i in task i. Absent ones are 0.

    Raises ``ValueError`` or ``TypeError`` for arrays that do not fit together or are not finite.
    """

    X: Float[ndarray, "m k f"]
    y: Float[ndarray, "m k"]
    mask: Bool[ndarray, "m k"]

    def __post_init__(self) -> None:
        X = checks.array(self.X, "X", (None, None, None))
        object.__setattr__(self, "X", X)
        object.__setattr__(self, "y", checks.array(self.y, "y", X.shape[:2]))
        object.__setattr__(self, "mask", checks.mask(self.mask, "mask", X.shape[:2]))

    @classmethod
    def of(
        cls, points: Mapping[int, tuple[Float[ndarray, "_ f"], Float[ndarray, "_"]]], tasks: int
    ) -> "Poison":
        """Examples (X, y) of some of the ``tasks`` by their number; at least one.

        Raises ``ValueError`` or ``TypeError`` for no examples, or ones that do not fit.
        """
        tasks, f = checks.whole(tasks, "tasks"), None
        if not isinstance(points, Mapping) or not points:
            raise TypeError(f"points must map tasks to pairs (X, y), at least one, not {points!r}.")
        checked = {}
        for task, pair in points.items():
            checks.whole(task, "points", 0, tasks - 1)
            checked[task] = _set(pair, f"points[{task}]", f)
            f = checked[task][0].shape[1]
        points = checked
        k = max(len(y) for _, y in points.values())
        f = next(X.shape[1] for X, _ in points.values())
        made = cls(np.zeros((tasks, k, f)), np.zeros((tasks, k)), np.zeros((tasks, k), dtype=bool))
        for task, (X, y) in points.items():
            made.X[task, : len(y)], made.y[task, : len(y)] = X, y
            made.mask[task, : len(y)] = True
        return made

    @property
    def points(self) -> dict[int, tuple[Float[ndarray, "_ f"], Float[ndarray, "_"]]]:
        """The examples (X, y) of every poisoned task by its number."""
        return {
            task: (self.X[task, self.mask[task]], self.y[task, self.mask[task]])
            for task in np.flatnonzero(self.mask.any(axis=1)).tolist()
        }


@dataclass(frozen=True)
class MultiTaskOutcome:
    """What the learner learned, and its performance on the target tasks.

    ``utility`` is U of Eq. (2), which the attacker maximises. ``measure`` is the targets' mean NMSE
    (square loss, the attacker wants it high) or mean AUC (hinge, the attacker wants it low) on the
    test sets. ``model`` (m, d) has the weights of task i in row i, its bias last.
    """

    utility: float
    measure: float
    model: Float[ndarray, "m d"]


class MultiTaskGame:
    """Several tasks learned together: what attacker and learner both know.

    ``tasks`` are the clean training sets, a pair (X_i, y_i) for each of m tasks: X_i (n_i, f) has
    the f features that all tasks share, y_i (n_i,) real targets for the ``loss`` "square", or −1
    and +1 for "hinge" (the squared one). ``tests`` are the test sets in the same form. ``targets``
    and ``attacking`` say which tasks are targets and which the attacker owns, as a boolean mask of
    length m or as numbers from 0.

    The game appends the constant 1 to every example: the bias is the last of d = f + 1 weights and
    is regularised like the others, as in Eq. (1). The game does not scale inputs. An attacker keeps
    its points in a ball around 0, so inputs should have norms of about 1: Zhao et al. divide all of
    them by the largest norm in the training sets.

    The learner minimises Eq. (1) with ``lambda1`` and ``lambda2``, both positive, to the relative
    residual ``tol`` of :func:`~poisoning.models.mtrl.solve_mtrl`.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument; the message names it.
    """

    def __init__(
        self,
        tasks: Sequence[tuple[Any, Any]],
        tests: Sequence[tuple[Any, Any]],
        *,
        targets: Any,
        attacking: Any,
        loss: Loss,
        lambda1: float = 0.1,
        lambda2: float = 0.1,
        tol: float = 1e-6,
    ) -> None:
        train = _sets(tasks, "tasks")
        test = _sets(tests, "tests", train[0][0].shape[1])
        if len(test) != len(train):
            raise ValueError(
                f"tests must hold a pair for each of {len(train)} tasks, it holds {len(test)}."
            )
        self.data = TaskData.from_tasks([_with_bias(X) for X, _ in train], [y for _, y in train])
        self.X_test = tuple(_with_bias(X) for X, _ in test)
        self.y_test = tuple(y for _, y in test)
        self._set_rules(targets, attacking, loss, lambda1, lambda2, tol)

    @classmethod
    def from_draw(
        cls,
        draw: MultiTaskDraw,
        *,
        targets: Any,
        attacking: Any,
        loss: Loss,
        lambda1: float = 0.1,
        lambda2: float = 0.1,
        tol: float = 1e-6,
    ) -> "MultiTaskGame":
        """The game on a draw of tasks, whose examples are scaled and end with the constant 1.

        Raises what the constructor raises.
        """
        checks.instance(draw, "draw", MultiTaskDraw)
        game = object.__new__(cls)
        game.data = TaskData.of(draw)
        m, _, d = game.data.X.shape
        if not len(draw.X_test) == len(draw.y_test) == m:
            raise ValueError(
                f"X_test and y_test of draw must hold a test set for each of {m} tasks."
            )
        game.X_test = tuple(
            checks.array(X, f"X_test[{i}] of draw", (None, d)) for i, X in enumerate(draw.X_test)
        )
        game.y_test = tuple(
            checks.vector(y, f"y_test[{i}] of draw", len(game.X_test[i]))
            for i, y in enumerate(draw.y_test)
        )
        game._set_rules(targets, attacking, loss, lambda1, lambda2, tol)
        return game

    def _set_rules(
        self,
        targets: Any,
        attacking: Any,
        loss: Any,
        lambda1: Any,
        lambda2: Any,
        tol: Any,
    ) -> None:
        m = len(self.data.y)
        self.targets = _members(targets, "targets", m)
        self.attacking = _members(attacking, "attacking", m)
        if loss not in get_args(Loss):
            raise ValueError(f"loss must be square or hinge, not {loss!r}.")
        self.loss: Loss = loss
        self.lambda1 = checks.positive(lambda1, "lambda1")
        self.lambda2 = checks.positive(lambda2, "lambda2")
        self.tol = checks.positive(tol, "tol")
        for i in range(m):
            if loss == "hinge":
                _binary(self.data.y[i, self.data.weight[i] > 0.0], f"tasks[{i}]")
                _binary(self.y_test[i], f"tests[{i}]")
            if self.targets[i] and np.ptp(self.y_test[i]) == 0.0:
                measure = "an NMSE" if loss == "square" else "an AUC"
                raise ValueError(
                    f"tests[{i}] must hold different labels: task {i} is a target and would not "
                    f"have {measure}."
                )

    # Used by attacks -----------------------------------------------------------------------------

    @cached_property
    def clean(self) -> MultiTaskOutcome:
        """The outcome without poison."""
        return self.outcome(self.learn(self.data))

    def poisoned(self, poison: Poison) -> TaskData:
        """Clean examples, then ``poison``, each of weight 1/(n_i + n̂_i) in task i."""
        clean = self.data
        if checks.instance(poison, "poison", Poison).X.shape[::2] != (
            len(clean.y),
            clean.X.shape[2] - 1,
        ):
            raise ValueError(
                f"poison must be for {len(clean.y)} tasks of {clean.X.shape[2] - 1} features, its "
                f"shape is {poison.X.shape}."
            )
        m, n, d = clean.X.shape
        X = np.empty((m, n + poison.y.shape[1], d))
        X[:, :n], X[:, n:, :-1], X[:, n:, -1] = clean.X, poison.X, poison.mask
        y = np.concatenate([clean.y, poison.y], axis=-1)
        present = np.concatenate([clean.weight > 0.0, poison.mask], axis=-1).astype(np.float64)
        share = 1.0 / np.sum(present, axis=-1, keepdims=True)
        weight = present * share
        # The clean examples' moments were summed up once: only the poison's are new.
        H, c = self._clean_moments
        H, c, added = share[..., None] * H, share * c, weight.copy()
        added[:, :n] = 0.0
        add_rows(H, c, X, y, added)
        return TaskData.of_checked(X, y, weight, (H, c))

    @cached_property
    def _clean_moments(self) -> tuple[Float[ndarray, "m d d"], Float[ndarray, "m d"]]:
        """The moments of the clean examples, each of weight 1."""
        present = (self.data.weight > 0.0).astype(np.float64)
        return TaskData.of_checked(self.data.X, self.data.y, present).moments

    def learn(
        self, data: TaskData, start: Float[ndarray, "m d"] | None = None
    ) -> Float[ndarray, "m d"]:
        """The learner's weights on ``data``; ``start`` are weights to begin from.

        Raises ``SolverError`` if the learner does not reach its tolerance.
        """
        return solve_mtrl(data, self.loss, self.lambda1, self.lambda2, tol=self.tol, start=start).W

    def utility(self, W: Float[ndarray, "m d"]) -> tuple[float, Float[ndarray, "m d"]]:
        """U of Eq. (2) and ∂U/∂W."""
        data = self.data
        W = self._weights(W)
        value, gradient, _ = losses(data.X, data.y, self._counted, W, self.loss == "hinge")
        return value, gradient

    @cached_property
    def _counted(self) -> Float[ndarray, "m n"]:
        """1 for every example that counts in U, else 0."""
        return (self.targets[:, None] & (self.data.weight > 0.0)).astype(np.float64)

    def _weights(self, W: Any) -> Float[ndarray, "m d"]:
        return checks.array(W, "W", (len(self.data.y), self.data.X.shape[2]))

    def measure(self, W: Float[ndarray, "m d"]) -> float:
        """The targets' mean NMSE (square loss) or AUC (hinge) on their test sets."""
        measured = nmse if self.loss == "square" else auc
        W, chosen = self._weights(W), np.flatnonzero(self.targets)
        tests = [self.X_test[i] for i in chosen], [self.y_test[i] for i in chosen]
        return float(measured(W[chosen], *tests).mean())

    # Evaluation ----------------------------------------------------------------------------------

    def outcome(self, W: Float[ndarray, "m d"]) -> MultiTaskOutcome:
        """Utility and measure of a model."""
        W = self._weights(W)
        return MultiTaskOutcome(self.utility(W)[0], self.measure(W), W)

    def evaluate(
        self, poison: Poison | Mapping[int, tuple[Any, Any]]
    ) -> dict[str, MultiTaskOutcome]:
        """The effect of any given poison: {"none": outcome}, for this game has no defense.

        ``poison`` is an attack's, or a pair (X, y) for each poisoned task by its number, X (n̂_i, f)
        without the constant. An empty mapping is no poison. Points need not lie in any ball.

        Raises:
            ValueError: poison in a task that is not the attacker's, or not of this form.
            TypeError: poison of another type.
            SolverError: the learner does not reach its tolerance.
        """
        points = self._points(poison)
        if not points:
            return {NONE: self.clean}
        not_owned = [task for task in points if not self.attacking[task]]
        if not_owned:
            raise ValueError(f"poison: task {not_owned[0]} is none of the attacker's.")
        return {NONE: self.outcome(self.learn(self.poisoned(Poison.of(points, len(self.targets)))))}

    def _points(self, poison: Any) -> dict[int, tuple[ndarray, ndarray]]:
        """The examples of every poisoned task, checked."""
        m, _, d = self.data.X.shape
        if isinstance(poison, Poison):
            if len(poison.X) != m:
                raise ValueError(f"poison must be for {m} tasks, it is for {len(poison.X)}.")
            poison = poison.points
        elif not isinstance(poison, Mapping):
            raise TypeError(
                f"poison must be a Poison, or a mapping from tasks to pairs (X, y), not {poison!r}."
            )
        strange = [task for task in poison if task not in range(m)]
        if strange:
            raise ValueError(f"poison: {strange[0]!r} is no task, there are 0 to {m - 1}.")
        points = {task: _set(pair, f"poison[{task}]", d - 1) for task, pair in poison.items()}
        if self.loss == "hinge":
            for task, (_, y) in points.items():
                _binary(y, f"poison[{task}]")
        return points


def _sets(
    pairs: Any, name: str, features: int | None = None
) -> list[tuple[Float[ndarray, "_ f"], Float[ndarray, "_"]]]:
    """Examples of every task, all with the same features."""
    if isinstance(pairs, str | Mapping) or not isinstance(pairs, Sequence):
        raise TypeError(f"{name} must be a list of pairs (X, y), one for each task, not {pairs!r}.")
    if not pairs:
        raise ValueError(f"{name} must hold at least one task.")
    found = []
    for i, pair in enumerate(pairs):
        found.append(_set(pair, f"{name}[{i}]", features))
        features = found[0][0].shape[1]
    return found


def _set(
    pair: Any, name: str, features: int | None
) -> tuple[Float[ndarray, "n f"], Float[ndarray, "n"]]:
    """Examples of one task."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{name} must be a pair (X, y), not {pair!r}.")
    X = to_dense(checks.matrix(pair[0], f"{name}, X", columns=features))
    return X, checks.vector(pair[1], f"{name}, y", X.shape[0])


def _members(chosen: Any, name: str, m: int) -> Bool[ndarray, "m"]:
    """A choice of tasks as a mask."""
    array = np.atleast_1d(np.asarray(chosen))
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iub"):
        raise TypeError(f"{name} must be a boolean mask or numbers of tasks, not {chosen!r}.")
    if array.dtype == bool:
        if array.size != m:
            raise ValueError(f"{name}, a mask, must have {m} entries, it has {array.size}.")
        mask = array.copy()
    else:
        strange = [task for task in array.tolist() if task not in range(m)]
        if strange:
            raise ValueError(f"{name}: {strange[0]} is no task, there are 0 to {m - 1}.")
        mask = np.isin(np.arange(m), array)
    if not mask.any():
        raise ValueError(f"{name} must name at least one of {m} tasks.")
    return mask


def _binary(y: Float[ndarray, "_"], name: str) -> None:
    strange = y[np.abs(y) != 1.0]
    if strange.size:
        raise ValueError(
            f"{name}, y must be -1 and +1 for the hinge loss; it holds {strange[0]:g}."
        )


def _with_bias(X: Float[ndarray, "n f"]) -> Float[ndarray, "n d"]:
    return np.hstack([X, np.ones((len(X), 1))])
