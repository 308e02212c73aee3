"""The game of Carnerero-Cano et al. 2023: a defender who chooses λ, an attacker who replaces rows.

    min_λ L(D_val, w*),   max_{X_p ∈ Φ} A(D_target, w*)   s.t.   w* ∈ argmin_w F(w; D'_tr, λ)

Eq. (2). F is the mean logistic loss on the training data D'_tr, in which poison has taken the place
of some clean rows, and a penalty: e^λ‖w‖²/2 (L2) or e^λ‖w‖₁ (L1). The defender has a small trusted
validation set D_val; the attacker knows it. Without a target of the attacker's own, A = L on D_val:
Eq. (3), the worst case. A :class:`Policy` says how λ is chosen; the defender's models are tested
policy by policy.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int, Shaped
from numpy import ndarray
from torch import Tensor

from poisoning import checks
from poisoning.arrays import Matrix
from poisoning.hypergradient.cross_validation import CrossValidation, cross_validate
from poisoning.hypergradient.learning import Exponents, HyperparameterLearning, Starts, learn
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Objective, Penalty, Problem, Rows
from poisoning.hypergradient.rmd import check_finite
from poisoning.settings import COUNT, STEP, Settings, setting

NO_REGULARISATION = float("-inf")
"""The exponent λ of no penalty: e^λ = 0."""

NONE = "none"
"""The name of the policy without a penalty."""

_SPACING = 10  # steps between the iterates that a test error is averaged over
_SLACK = 1e-5  # of the box's width: bytes times a scale are rounded
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Policy:
    """How λ is chosen: ``fixed`` is the exponent, −∞ for no penalty, None if λ is learned.

    ``penalty`` is "l2" or "l1". ``per_layer``: a learned exponent for every layer of a network,
    otherwise one for all parameters.

    Raises ``ValueError`` for another penalty, or a ``fixed`` that is NaN or above 20.
    """

    penalty: Penalty = "l2"
    fixed: float | None = None
    per_layer: bool = False

    def __post_init__(self) -> None:
        checks.one_of(self.penalty, "Policy: penalty", ("l2", "l1"))
        if self.fixed is not None and self.fixed != NO_REGULARISATION:
            checks.between(self.fixed, "Policy: fixed", -20.0, 20.0)
        checks.instance(self.per_layer, "Policy: per_layer", (bool, np.bool_))


POLICIES = {
    NONE: Policy(fixed=NO_REGULARISATION),
    "l2-learned": Policy("l2"),
    "l1-learned": Policy("l1"),
}
"""No penalty, and one learned exponent of either."""


@dataclass(frozen=True)
class FinalTraining(Settings):
    """Training of the models that are tested: full-batch gradient descent (Table V).

    A network's error varies from step to step and from start to start; so it is averaged over
    ``starts`` initial parameters and over ``checkpoints`` iterates ten steps apart, the last of
    them after ``epochs`` steps.

    Raises ``ValueError`` if the checkpoints need more than ``epochs`` steps.
    """

    epochs: int = setting(600, COUNT, "steps of gradient descent")
    rate: float = setting(0.1, STEP, "the step size")
    starts: int = setting(1, COUNT, "how often a model is trained, from different parameters")
    checkpoints: int = setting(1, COUNT, "how many of the last iterates are tested")

    def __post_init__(self) -> None:
        """Check that the checkpoints fit."""
        super().__post_init__()
        if self.before < 1:
            raise ValueError(
                f"FinalTraining: {self.checkpoints} checkpoints {_SPACING} steps apart exceed "
                f"{self.epochs} epochs."
            )

    @property
    def before(self) -> int:
        """The steps before the first checkpoint."""
        return self.epochs - (self.checkpoints - 1) * _SPACING


LEARNING, TRAINING = HyperparameterLearning(), FinalTraining()


@dataclass(frozen=True)
class PolicyOutcome:
    """The model that the defender ends with under a policy, and its errors.

    ``test_error``, a fraction, is the mean over starts and checkpoints, ``spread`` their standard
    deviation; a score of exactly 0 counts as half an error. ``error_by_label`` is the same for
    either class. ``loss`` is the validation loss, which a defender sees. ``lam`` (G,) are the
    exponents that were used, one, or one for each layer. ``w`` (p,) are the parameters of the last
    start and checkpoint, for which ``loss`` is.
    """

    test_error: float
    spread: float
    error_by_label: dict[float, float]
    loss: float
    lam: Float[ndarray, "G"]
    w: Float[ndarray, "p"]


class BilevelGame:
    """Learned hyperparameters: what attacker and defender both know.

    ``X`` (n, d) and ``y`` (n,) of −1 and +1 are the clean training data, ``X_val`` (v, d) and
    ``y_val`` (v,) the trusted validation data, ``X_test`` and ``y_test`` those that errors are
    measured on; without them the validation data are used. An array of bytes (``uint8``) is read as
    scale·X + offset, and poison in the place of its rows is rounded to bytes too; an array of other
    numbers is taken as it is. ``box`` is Φ, the range of every feature.

    ``policies``, by name, say how λ is chosen. ``hidden`` are the widths of a network's hidden
    layers, none for logistic regression. ``target``, a pair (X, y), is the attacker's D_target of
    Eq. (2); without it the attacker aims at the validation data, Eq. (3). ``learning`` sets how a
    defender learns λ on given data, ``training`` how the tested models are trained. ``dtype`` is
    "float32" or "float64", ``device`` where torch computes: "cpu", "cuda", or "auto", which is the
    latter where there is one.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument; the message names it.
    """

    def __init__(
        self,
        X: Matrix,
        y: Shaped[ndarray, "n"],
        X_val: Matrix,
        y_val: Shaped[ndarray, "v"],
        X_test: Matrix | None = None,
        y_test: Shaped[ndarray, "m"] | None = None,
        *,
        box: tuple[float | int, float | int],
        policies: Mapping[str, Policy] = POLICIES,
        hidden: Sequence[int] = (),
        target: tuple[ndarray, ndarray] | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
        learning: HyperparameterLearning = LEARNING,
        training: FinalTraining = TRAINING,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        self.dtype = _DTYPES[checks.one_of(dtype, "dtype", _DTYPES)]
        self.device = _device(device)
        self.box = _interval(box)
        self.policies = _policies(policies)
        self.learning = checks.instance(learning, "learning", HyperparameterLearning)
        self.training = checks.instance(training, "training", FinalTraining)
        self._affine = (
            checks.positive(scale, "scale"),
            checks.between(offset, "offset", -1e30, 1e30),
        )
        values, labels = self._examples(X, y, "X", "y")
        affine = self._affine if values.dtype == torch.uint8 else (1.0, 0.0)
        self.clean = Rows(values, labels, *affine)
        self.validation = self._objective(X_val, y_val, "X_val", "y_val")
        self.test = self.validation
        if X_test is None and y_test is not None:
            raise ValueError("X_test must be given with y_test, it is None.")
        if X_test is not None:
            self.test = self._objective(X_test, y_test, "X_test", "y_test")
        if len(self.test.y.unique()) < 2:  # there is an error for either label
            raise ValueError(
                f"{'y_val' if X_test is None else 'y_test'} must hold both of -1 and +1, all it "
                f"holds is {self.test.y[0]:g}."
            )
        self.target = None
        if target is not None:
            if not isinstance(target, tuple | list) or len(target) != 2:
                raise TypeError(f"target must be a pair (X, y), not {target!r:.100}.")
            self.target = self._objective(*target, "X of target", "y of target")
        self.model = _model(hidden)

    def _examples(self, X: Any, y: Any, name: str, of_labels: str) -> tuple[Tensor, Tensor]:
        """Examples, bytes as they are, and labels, checked."""
        if sp.issparse(X):
            raise TypeError(f"{name} must be a dense array, it is sparse.")
        columns = self.clean.X.shape[1] if hasattr(self, "clean") else None
        checked = checks.matrix(X, name, columns=columns)
        as_bytes = np.asarray(X).dtype == np.uint8
        labels = checks.labels(y, of_labels, checked.shape[0])
        if not set(np.unique(labels)) <= {-1.0, 1.0}:
            raise ValueError(f"{of_labels} must hold -1 and +1.")
        scale, offset = self._affine if as_bytes else (1.0, 0.0)
        low, high = self.box
        slack = _SLACK * (high - low)
        values = scale * checked + offset
        outside = np.flatnonzero(((values < low - slack) | (values > high + slack)).any(axis=1))
        if outside.size:
            raise ValueError(f"box: row {outside[0]} of {name} lies outside it.")
        kind = torch.uint8 if as_bytes else self.dtype
        examples = torch.tensor(np.asarray(X) if as_bytes else checked, dtype=kind)
        return (
            examples.to(self.device),
            torch.tensor(labels, dtype=self.dtype).to(self.device),
        )

    def _objective(self, X: Any, y: Any, name: str, of_labels: str) -> Objective:
        values, labels = self._examples(X, y, name, of_labels)
        if values.dtype == torch.uint8:
            scale, offset = self._affine
            values = values.to(self.dtype) * scale + offset
        return Objective(values, labels)

    # Other games on the same data -----------------------------------------------------------------

    def with_policies(self, policies: Mapping[str, Policy]) -> "BilevelGame":
        """The same game with other policies."""
        other = copy(self)
        other.policies = _policies(policies)
        return other

    def with_learning(self, learning: HyperparameterLearning) -> "BilevelGame":
        """The same game with a defender who learns λ in another way."""
        other = copy(self)
        other.learning = checks.instance(learning, "learning", HyperparameterLearning)
        return other

    def poisoned(
        self,
        points: Float[ndarray, "r d"],
        labels: Float[ndarray, "r"],
        replaced: Int[ndarray, "r"] | None = None,
    ) -> "BilevelGame":
        """The game whose training data already hold this poison, behind the rows that are left.

        Points are kept as bytes where the clean rows are bytes and the points, to rounding, too.

        Raises ``ValueError`` for poison that differs from policy to policy, which is that of as
        many games, and as :meth:`evaluate` does.
        """
        sets, (points, labels) = np.ndim(labels), self._poison(points, labels)
        if sets == 2:
            raise ValueError(
                f"points must be (rows, {points.shape[2]}), one set for all policies, not one for "
                f"each of {len(points)}: give those of policy k, points[k] and labels[k]."
            )
        clean = self.remaining(replaced)
        rows = clean.pixels(points[:1])
        other = copy(self)
        if rows is not None:
            X = torch.cat([clean.X, rows.X[0]])
            other.clean = Rows(X, torch.cat([clean.y, labels[0]]), clean.scale, clean.offset)
        else:
            X = torch.cat([clean.values(self.dtype), points[0]])
            other.clean = Rows(X, torch.cat([clean.y, labels[0]]))
        return other

    # Used by attacks -----------------------------------------------------------------------------

    @property
    def n(self) -> int:
        """The number of clean training examples."""
        return len(self.clean.y)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The defender's objective and, where the attacker has one of its own, the attacker's."""
        return (self.validation,) if self.target is None else (self.validation, self.target)

    @property
    def penalties(self) -> tuple[Penalty, ...]:
        """Each policy's penalty, in the order of the policies."""
        return tuple(policy.penalty for policy in self.policies.values())

    def remaining(self, replaced: Int[ndarray, "r"] | None) -> Rows:
        """The clean rows but for those whose place poison has taken.

        Raises ``ValueError`` for a row that there is not, or is named twice.
        """
        if replaced is None:
            return self.clean
        rows = checks.indices(replaced, "replaced", self.n)
        if not rows.size:
            return self.clean
        kept = torch.ones(self.n, dtype=torch.bool)
        kept[torch.from_numpy(rows)] = False
        kept = kept.to(self.clean.y.device)
        clean = self.clean
        return Rows(clean.X[kept], clean.y[kept], clean.scale, clean.offset)

    def exponents(self, learning: HyperparameterLearning) -> Exponents:
        """Where each policy's λ starts, and which are learned."""
        policies = list(self.policies.values())
        ranges = [learning.l2 if p.penalty == "l2" else learning.l1 for p in policies]
        first = [
            r.start if p.fixed is None else p.fixed for p, r in zip(policies, ranges, strict=True)
        ]
        layers = int(self.model.layers(self.clean.X.shape[1]).max()) + 1
        G = layers if any(policy.per_layer for policy in policies) else 1

        def column(numbers: list[float]) -> Float[Tensor, "K 1"]:
            return torch.tensor(numbers, dtype=self.dtype, device=self.device).unsqueeze(1)

        return Exponents(
            first=column(first).expand(-1, G),
            low=column([r.low for r in ranges]),
            high=column([r.high for r in ranges]),
            learned=torch.tensor([p.fixed is None for p in policies], device=self.device),
            tied=torch.tensor([not p.per_layer for p in policies], device=self.device),
        )

    # What defenders do ---------------------------------------------------------------------------

    def cross_validate(
        self, penalty: Penalty, grid: Sequence[float], rng: int | np.random.Generator
    ) -> CrossValidation:
        """λ by five-fold cross-validation on the clean training data, trained as for testing.

        See :func:`poisoning.hypergradient.cross_validation.cross_validate`.
        """
        training, rng = self.training, checks.generator(rng)
        return cross_validate(
            self.model, self.clean, penalty, grid, training.epochs, training.rate, rng, self.dtype
        )

    def learn(
        self,
        points: ndarray,
        labels: ndarray,
        *,
        replaced: Int[ndarray, "r"] | None = None,
        rng: int | np.random.Generator = 0,
    ) -> Float[ndarray, "K G"]:
        """λ of every policy: fixed ones as they are, the others learned on this constant poison.

        This is Alg. 2 without its attacker. Arguments are those of :meth:`evaluate`. Raises what
        the hypergradient raises, including ``ValueError`` for a step size beyond stability.
        """
        points, labels = self._poison(points, labels)
        exponents = self.exponents(self.learning)
        lam = exponents.first.clone()
        live = torch.nonzero(exponents.learned).squeeze(1)
        if len(live):
            generator = _generator(checks.generator(rng))
            starts = Starts(self.model, len(lam), self.learning.method, generator, points)
            clean = self.remaining(replaced)
            learning = self.learning
            problem = self.problem(
                clean, points[live], labels[live], lam[live], live,
                starts.draw(live, points.shape[2]), learning.steps, learning.rate,
                objectives=(self.validation,),
            )  # fmt: skip
            found = learn(learning, problem, live, exponents.of(live), starts)
            lam[live] = found.lam_path[:, -1]
        return lam.cpu().numpy()

    def evaluate(
        self,
        points: ndarray,
        labels: ndarray,
        *,
        replaced: Int[ndarray, "r"] | None = None,
        lam: Float[ndarray, "K G"] | None = None,
        rng: int | np.random.Generator = 0,
    ) -> dict[str, PolicyOutcome]:
        """The effect of any given poison: an outcome for every policy.

        ``points`` (r, d) and ``labels`` (r,) may have no rows; they are the same for all K
        policies, or with a leading axis K those that each policy meets. They take the place of the
        clean rows ``replaced``, or are added. ``lam`` (K, G) are exponents to be used, in the order
        of the policies; without it they are learned on this poison, see :meth:`learn`. ``rng``
        draws networks' initial parameters.
        """
        rng = checks.generator(rng)
        if lam is None:
            lam = self.learn(points, labels, replaced=replaced, rng=rng)
        points, labels = self._poison(points, labels)
        exponents = self._exponents(lam)
        wrong, w = self._tested(self.remaining(replaced), points, labels, exponents, rng)
        loss = self.validation.loss(self.model.scores(w, self.validation.X), self.validation.y)
        errors = wrong.mean(2)
        by_label = {
            label: wrong[:, :, self.test.y == label].mean(2).mean(0) for label in (1.0, -1.0)
        }
        return {
            name: PolicyOutcome(
                test_error=float(errors.mean(0)[k]),
                spread=float(errors.std(0, correction=0)[k]),
                error_by_label={label: float(error[k]) for label, error in by_label.items()},
                loss=float(loss[k]),
                lam=exponents[k].double().cpu().numpy(),
                w=w[k].double().cpu().numpy(),
            )
            for k, name in enumerate(self.policies)
        }

    def _exponents(self, lam: Any) -> Float[Tensor, "K G"]:
        """Exponents of every policy, checked."""
        K = len(self.policies)
        layers = int(self.model.layers(self.clean.X.shape[1]).max()) + 1
        lam = checks.array(lam, "lam", None, infinite=True)
        if lam.ndim != 2 or len(lam) != K or lam.shape[1] not in (1, layers):
            raise ValueError(
                f"lam must have a row for each of {K} policies, and one exponent or {layers}; its "
                f"shape is {lam.shape}."
            )
        if lam.max() > 20.0:
            raise ValueError(f"lam must be at most 20, it holds {lam.max():g}.")
        return torch.tensor(lam, dtype=self.dtype, device=self.device)

    def value(self, outcomes: Mapping[str, PolicyOutcome]) -> float:
        """The value of poison: the least test error over the policies that regularise.

        That is the error of the defender who picks the best of them. If "none" is the only policy,
        the value is its error.
        """
        behind = [outcome.test_error for name, outcome in outcomes.items() if name != NONE]
        return min(behind) if behind else outcomes[NONE].test_error

    def problem(
        self,
        clean: Rows,
        points: Float[Tensor, "k r d"],
        labels: Float[Tensor, "k r"],
        lam: Float[Tensor, "k G"],
        which: Int[Tensor, "k"],
        initial: Float[Tensor, "k p"],
        steps: int,
        rate: float,
        *,
        free: int = 0,
        objectives: tuple[Objective, ...] | None = None,
    ) -> Problem:
        """The inner problems of the policies of index ``which``, on ``clean`` rows and poison.

        The last ``free`` rows of ``points`` are differentiated, the others only train.
        ``objectives`` are by default those of both players.
        """
        frozen = points.shape[1] - free
        penalties = self.penalties
        return Problem(
            model=self.model,
            clean=clean,
            poison=points,
            poison_y=labels,
            objectives=self.objectives if objectives is None else objectives,
            lam=lam,
            rate=rate,
            steps=steps,
            initial=initial,
            penalty=tuple(penalties[k] for k in which.tolist()),
            frozen=frozen,
            frozen_pixels=clean.pixels(points[:, :frozen]),
        )

    def _tested(
        self,
        clean: Rows,
        points: Float[Tensor, "K r d"],
        labels: Float[Tensor, "K r"],
        lam: Float[Tensor, "K G"],
        rng: np.random.Generator,
    ) -> tuple[Float[Tensor, "iterates K m"], Float[Tensor, "K p"]]:
        """Errors (0, ½ or 1) on the test data, start by start and checkpoint by checkpoint.

        Also the parameters w of the last of them.
        """
        model, training, test = self.model, self.training, self.test
        K, _, d = points.shape
        generator = _generator(rng)
        every = torch.arange(K)
        wrong = []
        for _ in range(training.starts):
            w = model.initial(d, generator).to(points).repeat(K, 1)
            problem = self.problem(
                clean, points, labels, lam, every, w, training.epochs, training.rate
            )
            with torch.no_grad():
                for number in range(training.checkpoints):
                    w = model.train(problem, w, training.before if number == 0 else _SPACING)
                    check_finite(problem, w)
                    agreement = (model.scores(w, test.X) * test.y).sign()
                    wrong.append(0.5 * (1.0 - agreement))
        return torch.stack(wrong), w

    def _poison(self, points: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """Points (K, r, d) and labels (K, r) of every policy, checked."""
        K, d = len(self.policies), self.clean.X.shape[1]
        given, points = points, checks.array(points, "points", None)
        if points.ndim not in (2, 3) or points.shape[-1] != d:
            raise ValueError(
                f"points must be (rows, {d}) or (policies, rows, {d}), their shape is "
                f"{points.shape}."
            )
        labels = checks.array(labels, "labels", (None,) * (points.ndim - 1))
        if labels.shape != points.shape[:-1] or (points.ndim == 3 and len(points) != K):
            raise ValueError(
                f"labels must have one label for each point, and points a set for each of {K} "
                f"policies or one for all; their shapes are {labels.shape} and {points.shape}."
            )
        if not np.all(np.abs(labels) == 1.0):
            raise ValueError("labels must hold -1 and +1.")
        found = [
            torch.as_tensor(_writable(array), dtype=self.dtype).to(self.device)
            for array in (points, labels)
        ]
        if getattr(given, "dtype", None) == np.uint8:
            scale, offset = self._affine
            found[0] = found[0] * scale + offset
        if points.ndim == 2:
            found = [part.expand(K, *part.shape) for part in found]
        return found[0], found[1]


def _writable(array: ndarray) -> ndarray:
    """The array, or a copy: torch shares no memory that may not be written to."""
    return array if array.flags.writeable else array.copy()


def _generator(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def _model(hidden: Sequence[int]) -> MLP:
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise TypeError(f"hidden must be a sequence of widths, not {hidden!r}.")
    widths = tuple(checks.whole(width, "hidden") for width in hidden)
    return MLP(widths) if widths else Logistic()


def _device(device: Any) -> str:
    """A device that torch can compute on here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).item()  # there may be no such device, or one without numbers
    except (RuntimeError, TypeError, AssertionError):
        raise ValueError(
            f"device must be auto, cpu, or cuda where torch finds one, not {device!r}."
        ) from None
    return str(found)


def _interval(box: Any) -> tuple[float, float]:
    if isinstance(box, str) or not isinstance(box, Sequence) or len(box) != 2:
        raise TypeError(f"box must be a pair (low, high), not {box!r}.")
    low, high = (checks.between(end, "box", -1e30, 1e30) for end in box)
    if not low < high:
        raise ValueError(f"box must be (low, high) with low < high, not ({low:g}, {high:g}).")
    return low, high


def _policies(policies: Mapping[str, Policy]) -> dict[str, Policy]:
    if not isinstance(policies, Mapping):
        raise TypeError(
            f"policies must be a mapping from names to policies, not {policies!r:.100}."
        )
    if not policies:
        raise ValueError("policies must hold at least one policy, it is empty.")
    for name, policy in policies.items():
        if not isinstance(policy, Policy):
            raise TypeError(f"policies: {name!r} must be a Policy, not {policy!r}.")
    return dict(policies)
