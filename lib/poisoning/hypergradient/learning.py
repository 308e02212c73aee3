"""Learning λ by its hypergradient: the outer loop of Alg. 2 of Carnerero-Cano et al. 2023.

The defender minimises its validation loss L(D_val, w*(λ)) over exponents λ in a box Φ(Λ), by H
steps of the sign of the hypergradient,

    λ ← Π(λ − β_h sign(dλ)),                                                            (10)

each at a model that is trained anew. An attacker may move poison in the same loop, at the same
(X, λ): that makes the loop the minimax attack.

In a minimax problem no value improves at every step, so both rules for β_h use gradients only.
``decayed`` is β(1 − h/H), with β chosen by hand. ``adaptive`` lengthens a step by a quarter while
the hypergradient agrees with the last move, and halves it when it does not (Rprop's rule,
Riedmiller and Braun 1993), exponent by exponent.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from poisoning import checks
from poisoning.hypergradient.implicit import implicit
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Hypergradient, Problem
from poisoning.hypergradient.rmd import rmd
from poisoning.settings import COUNT, EXPONENT, STEP, Settings, choice, setting

LONGER, SHORTER = 1.25, 0.5
SHORTEST_LAM_STEP, LONGEST_LAM_STEP = 0.02, 1.5
_IMPLICIT_TOLERANCE = {torch.float64: (1e-7, 1e-6), torch.float32: (1e-5, 1e-4)}


@dataclass(frozen=True)
class LamRange(Settings):
    """A learned exponent's start and its feasible domain Φ(Λ), an interval.

    Raises ``ValueError`` unless low ≤ start ≤ high.
    """

    start: float = setting(-4.0, EXPONENT, "where learning starts")
    low: float = setting(-8.0, EXPONENT, "the least exponent allowed")
    high: float = setting(1.5, EXPONENT, "the largest exponent allowed")

    def __post_init__(self) -> None:
        """Check the order of the three too."""
        super().__post_init__()
        if not self.low <= self.start <= self.high:
            raise ValueError(
                f"LamRange: start must lie between low and high, {self.start:g} is not between "
                f"{self.low:g} and {self.high:g}."
            )


@dataclass(frozen=True)
class HyperparameterLearning(Settings):
    """How exponents are learned: inner training, hypergradient and outer steps.

    ``l2`` and ``l1`` are the ranges of the two penalties' exponents. With ``adaptive`` steps
    ``lam_step`` is the first one.
    """

    steps: int = setting(300, COUNT, "T, steps of the inner training, for method rmd")
    rate: float = setting(0.1, STEP, "η, the step size of the inner training, for method rmd")
    hyperiterations: int = setting(20, COUNT, "H, the number of outer steps")
    lam_step: float = setting(0.6, STEP, "β, the first outer step of an exponent")
    l2: LamRange = LamRange()
    l1: LamRange = LamRange(-6.0, -9.0, -1.5)
    method: Literal["rmd", "implicit"] = setting(
        "rmd", choice("rmd", "implicit"), "through T steps of training, or at its minimum"
    )
    rule: Literal["decayed", "adaptive"] = setting(
        "decayed", choice("decayed", "adaptive"), "how outer steps change"
    )

    def decay(self, h: int) -> float:
        """The factor of the first step at hyperiteration h, under ``decayed``."""
        return 1.0 - h / self.hyperiterations


@dataclass(frozen=True)
class Exponents:
    """Which exponents K problems start from and which of them are learned; G each.

    ``first`` (K, G); ``low`` and ``high`` (K, 1), the box Φ(Λ); ``learned`` (K,): whether the
    problem's λ is learned at all; ``tied`` (K,): whether one exponent serves all G groups.
    """

    first: Float[Tensor, "K G"]
    low: Float[Tensor, "K 1"]
    high: Float[Tensor, "K 1"]
    learned: Bool[Tensor, "K"]
    tied: Bool[Tensor, "K"]

    def __post_init__(self) -> None:
        """Raise ``ValueError`` or ``TypeError`` for tensors that do not fit together."""
        checks.tensor(self.first, "first", (None, None), infinite=True)
        K = len(self.first)
        checks.tensor(self.low, "low", (K, 1), like=self.first)
        checks.tensor(self.high, "high", (K, 1), like=self.first)
        if not bool((self.low <= self.high).all()):
            raise ValueError("low must not be above high.")
        for name, marks in (("learned", self.learned), ("tied", self.tied)):
            marked = isinstance(marks, Tensor) and marks.dtype == torch.bool
            if not marked or marks.shape != (K,):
                raise TypeError(f"{name} must be a tensor of true and false, one for each problem.")

    def of(self, problems: Int[Tensor, "k"]) -> "Exponents":
        """The exponents of some of the problems."""
        parts = (self.first, self.low, self.high, self.learned, self.tied)
        return Exponents(*(part[problems] for part in parts))


@dataclass(frozen=True)
class Learned:
    """The course of H hyperiterations on k problems.

    ``lam_path`` (k, H + 1, G): λ before every hyperiteration and after the last. ``validation``
    and ``target`` (k, H): the first and the last objective of the problem at w^(T), before each
    step. ``at_bound`` (k,): the share of hyperiterations that left a learned λ on its box's edge.
    """

    lam_path: Float[Tensor, "k H1 G"]
    validation: Float[Tensor, "k H"]
    target: Float[Tensor, "k H"]
    at_bound: Float[Tensor, "k"]


class Starts:
    """w^(0) of every inner training of K problems.

    Networks start from parameters that are drawn anew each time, the same for all problems;
    logistic regression starts from zero. The implicit method trains to a minimum, where the start
    plays no part: training continues from the problem's last minimum.
    """

    def __init__(
        self, model: MLP, K: int, method: str, generator: torch.Generator, like: Tensor
    ) -> None:
        self._model, self._K, self._method = model, K, method
        self._generator, self._like = generator, like
        self._last: Tensor | None = None

    def draw(self, problems: Int[Tensor, "k"], d: int) -> Float[Tensor, "k p"]:
        """The next start of these problems, whose examples have d features."""
        if self._method == "implicit" and self._last is not None:
            return self._last[problems]
        w = self._model.initial(d, self._generator).to(self._like)
        self._last = w.repeat(self._K, 1)
        return w.expand(len(problems), -1)

    def ended(self, problems: Int[Tensor, "k"], w: Float[Tensor, "k p"]) -> None:
        """Keep the minima that the problems were trained to."""
        if self._method == "implicit":
            self._last[problems] = w


Move: TypeAlias = Callable[[Hypergradient, int], None]
"""The attacker's step at a hyperiteration, which changes the problem's poison in place."""


def learn(
    learning: HyperparameterLearning,
    problem: Problem,
    problems: Int[Tensor, "k"],
    exponents: Exponents,
    starts: Starts,
    move: Move | None = None,
) -> Learned:
    """H hyperiterations for k problems side by side; lines 4–10 of Alg. 2.

    ``problem`` holds the k problems with poison, λ and w^(0) of the first hyperiteration;
    ``problems`` are their numbers among those of ``starts``, and ``exponents`` those of the k. Of
    the problem's objectives the first is the defender's. ``move`` is called after each
    hypergradient, before λ is changed.

    Raises what the hypergradient raises, ``ValueError`` or ``TypeError`` for invalid arguments.
    """
    checks.instance(learning, "learning", HyperparameterLearning)
    checks.instance(problem, "problem", Problem)
    checks.instance(exponents, "exponents", Exponents)
    checks.instance(starts, "starts", Starts)
    if checks.instance(problems, "problems", Tensor).dtype != torch.int64 or problems.ndim != 1:
        raise TypeError("problems must be an int64 tensor of one dimension.")
    if exponents.first.shape != problem.lam.shape or len(problems) != len(problem.lam):
        raise ValueError(
            f"exponents and problems must be those of {len(problem.lam)} problems with "
            f"{problem.lam.shape[1]} exponents, they are of {len(exponents.first)} and "
            f"{len(problems)}."
        )
    H, d = learning.hyperiterations, problem.poison.shape[2]
    lam = problem.lam
    path, objectives = [lam], []
    rule = _LamSteps(learning, lam)
    learned, tied = exponents.learned[:, None], exponents.tied[:, None]
    low, high = exponents.low, exponents.high
    hits = torch.zeros(len(problems)).to(lam)
    for h in range(H):
        if h > 0:
            problem = replace(problem, lam=lam, initial=starts.draw(problems, d))
        found = _hypergradient(learning.method, problem)
        starts.ended(problems, found.w)
        objectives.append(found.values)
        if move is not None:
            move(found, h)
        d_lam = torch.where(tied, found.lam[0].sum(1, keepdim=True), found.lam[0])
        moved = (lam - rule.step(d_lam, h)).clamp(low, high)
        lam = torch.where(learned, moved, lam)
        path.append(lam)
        edge = learned & ((lam <= low) | (lam >= high))
        hits += edge.any(dim=1).to(lam)
    values = torch.stack(objectives, dim=2)
    return Learned(torch.stack(path, dim=1), values[0], values[-1], hits / H)


def _hypergradient(method: str, problem: Problem) -> Hypergradient:
    if method == "rmd":
        return rmd(problem)
    tolerance, residual = _IMPLICIT_TOLERANCE[problem.poison.dtype]
    return implicit(problem, tolerance=tolerance, residual=residual)


class _LamSteps:
    """The steps of λ in Eq. (10), decayed or adaptive."""

    def __init__(self, learning: HyperparameterLearning, lam: Float[Tensor, "k G"]) -> None:
        self._learning = learning
        self._length = torch.full_like(lam, learning.lam_step)
        self._last: Tensor | None = None

    def step(self, gradient: Float[Tensor, "k G"], h: int) -> Float[Tensor, "k G"]:
        """The step that is subtracted from λ at hyperiteration h."""
        sign = gradient.sign()
        if self._learning.rule == "decayed":
            return self._learning.decay(h) * self._length * sign
        if self._last is not None:
            self._length = adapted(self._length, sign * self._last).clamp(
                SHORTEST_LAM_STEP, LONGEST_LAM_STEP
            )
        self._last = sign
        return self._length * sign


def adapted(length: Tensor, agree: Tensor) -> Tensor:
    """Step lengths after Rprop's rule: longer where ``agree`` > 0, shorter where it is < 0."""
    return torch.where(agree > 0, LONGER * length, torch.where(agree < 0, SHORTER * length, length))
