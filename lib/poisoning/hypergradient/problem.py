"""The bilevel problems of Carnerero-Cano et al. 2023, many at a time, and their hypergradients.

Problem k trains parameters w on shared clean rows and poison rows of its own,

    F(w) = (1/N) Σ c_i ℓ(f_w(x_i), y_i) + (1/N) Σ ℓ(f_w(x^p_i), y^p_i) + Σ_j r_λ(w_j)

with N = Σ c + m, ℓ the logistic loss log(1 + exp(−y f)), r_λ(w) = e^λ w²/2 (L2) or e^λ|w| (L1)
with one λ for all parameters, one per layer or one per parameter. Training is Eq. (6), T steps of

    w ← w − η ∇F(w)                                       L2: gradient descent,
    w ← soft(w − η ∇data(w), η e^λ)                       L1: its proximal form,

and an outer objective A is evaluated at w^(T). A hypergradient is dA/dX_p and dA/dλ.

L1 has no derivative at zero. The subgradient step jumps whenever a weight changes sign, so its
trajectory is a discontinuous function of the poison; the proximal step (soft-thresholding) is
continuous and piecewise smooth, reaches exact zeros, and its derivative is 1 where the weight
survives the threshold and 0 where it does not. Only where |w − η∇data| = η e^λ exactly, a null set,
is there a choice: 0 is taken.

Arrays are torch tensors with a leading dimension K of problems; device and dtype are those of the
poison. Labels are −1/+1.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import softplus

from poisoning import checks

SMALL = 2**17
"""Below so many numbers in the clean rows nothing is compiled: NumPy then takes about 2.5 times as
long, and compiling some ten seconds once."""

_COLUMNS = 64  # of a Hessian, computed at once
_LARGEST_EXPONENT = 80.0  # e^λ must fit single precision

Penalty: TypeAlias = Literal["l2", "l1"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Keeper:
    """Data with a cache of arrays derived from them, shared by all problems that use the object."""

    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """The result of ``make()``, computed at the first call with this key."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclass(frozen=True, eq=False)
class Pixels(Keeper):
    """Every problem's finished rows of poison, as bytes.

    Raises ``TypeError`` or ``ValueError`` for what is not.
    """

    X: UInt8[Tensor, "K frozen d"]

    def __post_init__(self) -> None:
        _bytes(self.X, "X", 3)


@dataclass(frozen=True, eq=False)
class Rows(Keeper):
    """Labelled examples x = scale·X + offset, X numbers or bytes, with labels ``y`` of ±1.

    Raises ``ValueError`` or ``TypeError`` for tensors that do not fit together or are not finite.
    """

    X: UInt8[Tensor, "n d"] | Float[Tensor, "n d"]
    y: Float[Tensor, "n"]
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.X, Tensor) and self.X.dtype == torch.uint8:
            _bytes(self.X, "X", 2)
        else:
            checks.tensor(self.X, "X", (None, None))
        if not self.X.shape[1]:
            raise ValueError("X must have at least one column.")
        checks.tensor(self.y, "y", (len(self.X),))
        if self.y.device != self.X.device:
            raise TypeError(f"y must be on {self.X.device} like X, it is on {self.y.device}.")
        _signs(self.y, "y")
        if checks.between(self.scale, "scale", -1e30, 1e30) == 0.0:
            raise ValueError("scale must not be 0.")
        checks.between(self.offset, "offset", -1e30, 1e30)

    def values(self, dtype: torch.dtype) -> Float[Tensor, "n d"]:
        """The examples as floating point numbers."""
        return self.keep(("values", dtype), lambda: self.X.to(dtype) * self.scale + self.offset)

    def transposed(self, dtype: torch.dtype) -> Float[Tensor, "d n"]:
        """The same transposed, contiguous in memory."""
        return self.keep(("transposed", dtype), lambda: self.values(dtype).T.contiguous())

    def nearest(self, values: Float[Tensor, "*k m d"]) -> Float[Tensor, "*k m d"]:
        """``values`` rounded to what rows of this type can hold: 256 levels for bytes."""
        if self.X.dtype != torch.uint8:
            return values
        return self._levels(values).mul_(self.scale).add_(self.offset)

    def pixels(self, values: Float[Tensor, "K frozen d"]) -> Pixels | None:
        """The bytes X with scale·X + offset = ``values`` to rounding.

        None if there are no such bytes, or if these rows are not bytes either.
        """
        if self.X.dtype != torch.uint8:
            return None
        levels = self._levels(values)
        distance = (levels * self.scale).add_(self.offset).sub_(values).abs_()
        largest = 255.0 * abs(self.scale) + abs(self.offset)
        close = distance <= 4.0 * torch.finfo(values.dtype).eps * largest
        return Pixels(levels.to(torch.uint8)) if bool(close.all()) else None

    def _levels(self, values: Float[Tensor, "*k m d"]) -> Float[Tensor, "*k m d"]:
        return values.sub(self.offset).div_(self.scale).round_().clamp_(0, 255)


def log_loss(scores: Float[Tensor, "K v"], y: Float[Tensor, "... v"]) -> Float[Tensor, "K"]:
    """Mean of log(1 + exp(−y f)) for every problem."""
    return softplus(-y * scores).mean(dim=-1)


@dataclass(frozen=True, eq=False)
class Objective:
    """An outer objective A: ``loss(f_w(X), y)``, by default the mean logistic loss.

    ``X`` (v, d) and ``y`` (v,) for all problems, or (K, v, d) and (K, v) with a leading dimension
    of problems. The defender's L on D_val and the attacker's A on D_target (Eq. 2) are two of
    them; ``loss`` maps scores (K, v) and ``y`` to (K,) and must be differentiable by torch.

    Raises ``ValueError`` or ``TypeError`` for tensors that do not fit together or are not finite.
    """

    X: Float[Tensor, "*K v d"]
    y: Float[Tensor, "*K v"]
    loss: Callable[[Tensor, Tensor], Tensor] = log_loss

    def __post_init__(self) -> None:
        several = isinstance(self.X, Tensor) and self.X.ndim == 3
        checks.tensor(self.X, "X", (None,) * (3 if several else 2))
        if not self.X.shape[-2]:
            raise ValueError("X must have at least one row, it has none.")
        checks.tensor(self.y, "y", tuple(self.X.shape[:-1]), like=self.X)
        if not callable(self.loss):
            raise TypeError(f"loss must be a function of scores and y, not {self.loss!r}.")
        if self.loss is log_loss:
            _signs(self.y, "y")


@dataclass(frozen=True)
class Linearisation:
    """The data term of F at w: its ``gradient``, and ``loss()`` (K,) on demand.

    ``state`` is what :meth:`Model.product` needs of this w.
    """

    gradient: Float[Tensor, "K p"]
    loss: Callable[[], Tensor]
    state: Any


@dataclass(frozen=True)
class Tape:
    """s steps of training: w^(0) … w^(s), and the states of each step for the backward pass.

    ``bytes`` is what all that occupies.
    """

    w: Float[Tensor, "s1 K p"]
    states: Any
    bytes: int


class Model(ABC):
    """What is trained: f_w, and first and second derivatives of the data term of F."""

    @abstractmethod
    def layers(self, d: int) -> Int[Tensor, "p"]:
        """The layer (0, 1, …) of each parameter when examples have d features."""

    @abstractmethod
    def scores(self, w: Float[Tensor, "K p"], X: Float[Tensor, "*K v d"]) -> Float[Tensor, "K v"]:
        """f_w(x), differentiable by torch."""

    @abstractmethod
    def linearise(self, problem: "Problem", w: Float[Tensor, "K p"]) -> Linearisation:
        """The data term at w."""

    @abstractmethod
    def product(
        self,
        problem: "Problem",
        state: Any,
        v: Float[Tensor, "J K p"],
    ) -> tuple[Float[Tensor, "J K p"], Any]:
        """∇²v, and (∇_X∇_w)ᵀv in a form that :meth:`gather` understands.

        The first is the derivative of ∇_w when w moves along v: the R-operator (Pearlmutter 1994;
        Eq. 5).
        """

    @abstractmethod
    def gather(self, crosses: list[Any]) -> Float[Tensor, "J K free d"]:
        """Σ over the steps of (∇_X∇_w)ᵀv, all at once."""

    @abstractmethod
    def bytes(self, state: Any) -> int:
        """The bytes that a state occupies."""

    def hessian(self, problem: "Problem", state: Any) -> Float[Tensor, "K p p"]:
        """The data term's Hessian, column by column."""
        p = problem.initial.shape[1]
        units = torch.eye(p).to(problem.poison).unsqueeze(1).expand(-1, len(problem.poison), -1)
        parts = [self.product(problem, state, part)[0] for part in units.split(_COLUMNS)]
        return torch.cat(parts).permute(1, 2, 0)

    def curvature_point(self, problem: "Problem") -> Float[Tensor, "K p"]:
        """The w at which the largest curvature is computed; see :attr:`curvature_is_bound`."""
        return problem.initial

    curvature_is_bound: bool = False
    """Whether the Hessian at :meth:`curvature_point` bounds the Hessian everywhere."""

    def train(self, problem: "Problem", w: Float[Tensor, "K p"], steps: int) -> Tensor:
        """w after ``steps`` steps; nothing is recorded."""
        for _ in range(steps):
            w = problem.step(w, self.linearise(problem, w).gradient)
        return w

    def record(self, problem: "Problem", w: Float[Tensor, "K p"], steps: int) -> Tape:
        """``steps`` steps of training, with all that the backward pass needs."""
        states, way = [], [w]
        for _ in range(steps):
            point = self.linearise(problem, way[-1])
            states.append(point.state)
            way.append(problem.step(way[-1], point.gradient))
        kept = torch.stack(way)
        return Tape(kept, states, kept.nbytes + sum(map(self.bytes, states)))

    def pull(
        self, problem: "Problem", tape: Tape, p: Float[Tensor, "J K p"]
    ) -> tuple[Float[Tensor, "J K p"], Float[Tensor, "J K free d"], Float[Tensor, "J K p"]]:
        """Lines 7–13 of Alg. 1 along the tape, from its end, where the adjoint is ``p``.

        Returns the adjoint at the tape's beginning, and the sums for the poison and for λ, the
        latter parameter by parameter.
        """
        crosses = []
        d_lam = torch.zeros_like(p)
        for t in range(len(tape.states) - 1, -1, -1):
            p, direct = problem.through_threshold(tape.w[t + 1], p)
            d_lam += direct - problem.eta * problem.decay * tape.w[t] * p
            Hp, cross = self.product(problem, tape.states[t], p)
            crosses.append(cross)
            p = p - problem.eta * (Hp + problem.decay * p)
        return p, -problem.eta.unsqueeze(-1) * self.gather(crosses), d_lam


@dataclass(frozen=True, eq=False)
class Problem:
    """K inner problems on shared ``clean`` rows, and the outer objectives of them all.

    ``poison`` (K, m, d) with labels ``poison_y`` (K, m); its first ``frozen`` rows train but are
    not differentiated. ``frozen_pixels`` are those as bytes (:meth:`Rows.pixels` of ``clean``),
    faster to read. ``weights`` (K, n) are the c_i ≥ 0, by default all 1. ``lam`` (K, G) holds the
    exponents λ: G is 1, the number of layers or that of parameters; −∞ is no regularisation.
    ``penalty`` is one for all problems or one for each. ``rate`` is η, likewise. ``initial`` (K, p)
    is w^(0), ``steps`` is T.

    Tensors but those of ``clean`` have the dtype and the device of ``poison``.

    Raises ``ValueError`` or ``TypeError`` for labels other than ±1, tensors that do not fit
    together or are not finite, η ≤ 0, or another penalty.
    """

    model: Model
    clean: Rows
    poison: Float[Tensor, "K m d"]
    poison_y: Float[Tensor, "K m"]
    objectives: tuple[Objective, ...]
    lam: Float[Tensor, "K G"]
    rate: float | Float[Tensor, "K"]
    steps: int
    initial: Float[Tensor, "K p"]
    penalty: Penalty | tuple[Penalty, ...] = "l2"
    frozen: int = 0
    frozen_pixels: Pixels | None = None
    weights: Float[Tensor, "K n"] | None = None

    def __post_init__(self) -> None:
        checks.instance(self.model, "model", Model)
        n, d = checks.instance(self.clean, "clean", Rows).X.shape
        checks.tensor(self.poison, "poison", (None, None, d))
        K, m, _ = self.poison.shape
        if not K:
            raise ValueError("poison must be that of at least one problem, it is of none.")
        if self.clean.X.device != self.poison.device:
            raise TypeError(f"clean must be on {self.poison.device} like poison.")
        checks.tensor(self.poison_y, "poison_y", (K, m), like=self.poison)
        _signs(self.poison_y, "poison_y")
        if self.weights is not None:
            checks.tensor(self.weights, "weights", (K, n), like=self.poison)
            if not bool((self.weights >= 0).all()):
                raise ValueError("weights must be at least 0.")
        if not bool((self.total > 0).all()):
            raise ValueError("poison and clean rows must have a weight above 0 in every problem.")
        checks.whole(self.frozen, "frozen", 0, m)
        if self.frozen_pixels is not None:
            pixels = checks.instance(self.frozen_pixels, "frozen_pixels", Pixels)
            if pixels.X.shape != (K, self.frozen, d) or pixels.X.device != self.poison.device:
                raise ValueError(
                    f"frozen_pixels of shape {tuple(pixels.X.shape)} cannot be the first "
                    f"{self.frozen} rows of poison of shape {(K, m, d)}."
                )
        if isinstance(self.rate, Tensor):
            checks.tensor(self.rate, "rate", (K,), like=self.poison)
        elif not 0.0 < checks.positive(self.rate, "rate") < 1e30:
            raise ValueError(f"rate must be below 1e30, not {self.rate:g}.")
        if not bool((self.eta > 0).all()):
            raise ValueError("rate must be above 0.")
        checks.whole(self.steps, "steps")
        layers = self.model.layers(d)
        checks.tensor(self.initial, "initial", (K, len(layers)), like=self.poison)
        checks.tensor(self.lam, "lam", (K, None), like=self.poison, infinite=True)
        if self.lam.shape[1] not in {1, int(layers.max()) + 1, len(layers)}:
            raise ValueError(
                f"lam has {self.lam.shape[1]} exponents: there is one, one for each of the "
                f"{int(layers.max()) + 1} layers or one for each of the {len(layers)} parameters."
            )
        if bool((self.lam > _LARGEST_EXPONENT).any()):
            raise ValueError(
                f"lam must be at most {_LARGEST_EXPONENT:g}, it is {self.lam.max():g}."
            )
        several = isinstance(self.penalty, tuple) and len(self.penalty) == K
        if not several and not isinstance(self.penalty, str):
            raise ValueError(
                f"penalty must be one, or a tuple of one for each of {K} problems, not "
                f"{self.penalty!r}."
            )
        for penalty in (self.penalty,) if isinstance(self.penalty, str) else self.penalty:
            checks.one_of(penalty, "penalty", get_args(Penalty))
        if not isinstance(self.objectives, tuple) or not self.objectives:
            raise ValueError("objectives must be a tuple of at least one outer objective.")
        for objective in self.objectives:
            X = checks.instance(objective, "objectives", Objective).X
            checks.tensor(X, "X of objectives", (*((K,) if X.ndim == 3 else ()), None, d),
                          like=self.poison)  # fmt: skip

    @property
    def compiled(self) -> bool:
        """Whether compiled passes serve: on a CPU, where clean rows are not few."""
        return self.poison.device.type == "cpu" and self.clean.X.numel() >= SMALL

    @cached_property
    def eta(self) -> Float[Tensor, "K 1"]:
        """η of every problem."""
        rate = torch.as_tensor(self.rate, dtype=self.poison.dtype, device=self.poison.device)
        return rate.expand(len(self.poison)).unsqueeze(1)

    @cached_property
    def groups(self) -> Int[Tensor, "p"]:
        """Which exponent regularises each parameter."""
        layers = self.model.layers(self.poison.shape[2]).to(self.poison.device)
        if self.lam.shape[1] == 1:
            return torch.zeros_like(layers)
        if self.lam.shape[1] == int(layers.max()) + 1:
            return layers
        return torch.arange(len(layers), device=layers.device)

    @cached_property
    def l1(self) -> Tensor:
        """(K, 1): which problems have the L1 penalty."""
        chosen = (
            [self.penalty] * len(self.poison) if isinstance(self.penalty, str) else self.penalty
        )
        marks = [[penalty == "l1"] for penalty in chosen]
        return torch.tensor(marks, device=self.poison.device)

    @cached_property
    def strength(self) -> Float[Tensor, "K p"]:
        """e^λ of every parameter."""
        return self.lam.exp()[:, self.groups]

    @cached_property
    def decay(self) -> Float[Tensor, "K p"]:
        """e^λ under L2, 0 under L1."""
        return torch.where(self.l1, 0.0, self.strength)

    @cached_property
    def shrinkage(self) -> Float[Tensor, "K p"]:
        """e^λ under L1, 0 under L2."""
        return torch.where(self.l1, self.strength, 0.0)

    @cached_property
    def counts(self) -> Float[Tensor, "K n"]:
        """The c_i."""
        K, n = len(self.poison), len(self.clean.y)
        return self.poison.new_ones(K, n) if self.weights is None else self.weights

    @cached_property
    def total(self) -> Float[Tensor, "K"]:
        """N = Σ c + m."""
        return self.counts.sum(dim=1) + self.poison.shape[1]

    @cached_property
    def targets(self) -> Float[Tensor, "K n_m"]:
        """Labels of all rows, clean and poison, as 0/1."""
        clean = self.clean.y.to(self.poison.dtype).expand(len(self.poison), -1)
        return 0.5 * (torch.cat([clean, self.poison_y], dim=1) + 1.0)

    def data_loss(self, scores: Float[Tensor, "K n_m"]) -> Float[Tensor, "K"]:
        """Σ (c_i/N) log(1 + exp(−y_i f_i)) over all rows."""
        return (self.shares * (softplus(scores) - self.targets * scores)).sum(1)

    @cached_property
    def shares(self) -> Float[Tensor, "K n_m"]:
        """c_i/N of all rows, 1/N for poison."""
        K, m, _ = self.poison.shape
        return torch.cat([self.counts, self.counts.new_ones(K, m)], dim=1) / self.total[:, None]

    @cached_property
    def split_labels(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Targets and shares of the clean rows, (K, n), and of poison, (K, m), each contiguous."""
        n, both = len(self.clean.y), (self.targets, self.shares)
        clean = tuple(part[:, :n].contiguous() for part in both)
        return clean, tuple(part[:, n:].contiguous() for part in both)

    def step(self, w: Float[Tensor, "K p"], gradient: Float[Tensor, "K p"]) -> Tensor:
        """One step of Eq. (6), ``gradient`` of the data term given."""
        u = w - self.eta * (gradient + self.decay * w)
        return u.sign() * (u.abs() - self.eta * self.shrinkage).clamp_min(0.0)

    def through_threshold(
        self, w: Float[Tensor, "K p"], p: Float[Tensor, "J K p"]
    ) -> tuple[Float[Tensor, "J K p"], Float[Tensor, "J K p"]]:
        """The adjoint ``p`` pulled back through soft-thresholding, whose result was ``w``.

        The second result is the direct derivative by λ, through the threshold, by parameter.
        """
        dead = (self.shrinkage > 0) & (w == 0)
        return p.masked_fill(dead, 0.0), -self.eta * self.shrinkage * w.sign() * p

    def per_exponent(self, values: Float[Tensor, "J K p"]) -> Float[Tensor, "J K G"]:
        """Sums over the parameters that share an exponent."""
        sums = values.new_zeros(*values.shape[:2], self.lam.shape[1])
        return sums.index_add_(2, self.groups, values)

    def outer(self, w: Float[Tensor, "K p"]) -> tuple[Float[Tensor, "J K"], Float[Tensor, "J K p"]]:
        """Value and gradient in w of every objective."""
        values, gradients = [], []
        with torch.enable_grad():
            leaf = w.detach().requires_grad_()
            for objective in self.objectives:
                value = objective.loss(self.model.scores(leaf, objective.X), objective.y)
                gradients.append(torch.autograd.grad(value.sum(), leaf)[0])
                values.append(value.detach())
        return torch.stack(values), torch.stack(gradients)

    def stationarity(self, w: Float[Tensor, "K p"], gradient: Float[Tensor, "K p"]) -> Tensor:
        """(K, p): the subgradient of F at w of least norm, ``gradient`` of the data term given."""
        smooth = gradient + self.decay * w
        at_zero = smooth.sign() * (smooth.abs() - self.shrinkage).clamp_min(0.0)
        return torch.where(w == 0, at_zero, smooth + self.shrinkage * w.sign())


def _bytes(X: Any, name: str, dimensions: int) -> None:
    if not isinstance(X, Tensor) or X.dtype != torch.uint8 or X.ndim != dimensions:
        raise TypeError(f"{name} must be a torch tensor of bytes with {dimensions} dimensions.")


def _signs(y: Tensor, name: str) -> None:
    if not bool((y.abs() == 1).all()):
        raise ValueError(f"{name} must be -1 and +1.")


@dataclass(frozen=True)
class Diagnostics:
    """How a hypergradient was obtained.

    ``gradient_norm`` (K,): norm at ``w`` of the least subgradient of F, 0 where training has
    converged. ``stable_step`` (K,): 2/λ_max of F's Hessian, bounded for logistic regression, at
    w^(0) for networks; None without gradient descent. ``kept_bytes``: the most that was kept of the
    trajectory at any time, in bytes. ``residual`` (J, K): ‖Hv − ∇A‖/‖∇A‖ of the implicit solve.
    ``iterations``: training steps, or Newton steps of the implicit method; ``solver_iterations``:
    those of conjugate gradients.
    """

    gradient_norm: Float[Tensor, "K"]
    iterations: int
    kept_bytes: int
    stable_step: Float[Tensor, "K"] | None = None
    residual: Float[Tensor, "J K"] | None = None
    solver_iterations: int = 0


@dataclass(frozen=True)
class Hypergradient:
    """dA/dX_p, dA/dλ, the trained w and A itself, for J objectives and K problems.

    ``poison`` (J, K, m − frozen, d) is None where the method gives dA/dλ alone.
    """

    poison: Float[Tensor, "J K free d"] | None
    lam: Float[Tensor, "J K G"]
    w: Float[Tensor, "K p"]
    values: Float[Tensor, "J K"]
    diagnostics: Diagnostics
