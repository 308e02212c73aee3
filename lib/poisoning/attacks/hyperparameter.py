"""The minimax attack on learned hyperparameters: Alg. 2 of Carnerero-Cano et al. 2023.

    min_λ L(D_val, w*),   max_{X_p ∈ Φ} A(D_target, w*)   s.t.   w* ∈ argmin_w F(w; D'_tr, λ)

Eq. (2); Eq. (3), the worst case, is A = L and D_target = D_val. The attacker owns batches of rows:
validation points cloned with the label flipped, each in the place of a clean training row. Batch
after batch is optimised and then stays where it is, rounded to bytes if the clean rows are bytes.
For every batch λ starts anew, and H times

    X ← Π(X + α_h dX / (‖dX‖_F/√batch)),        λ ← Π(λ − β_h sign(dλ)),                       (10)

with the hypergradients of Alg. 1 at the same (X, λ), "normalised with respect to their norm" and
"to their value". α is thus the root mean square length of a row's step, β a step in the exponent.

Every problem has a policy of its own: a fixed λ (−∞ for none), or a learned one. All problems share
clean rows, clones and replaced rows, so that policies differ in nothing but λ.

Both rules for α_h and β_h need gradients alone, since a minimax problem has no value that all steps
improve. ``decayed`` is α(1 − h/H) and β(1 − h/H), with α and β chosen data set by data set.
``adaptive`` lengthens a step by a quarter while the hypergradient still agrees with the last move,
and halves it when it does not (Rprop's rule, Riedmiller and Braun 1993; per problem for the poison,
per exponent for λ); it starts from 0.6 % of the box's diagonal on every data set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from poisoning.hypergradient.implicit import implicit
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import (
    Hypergradient,
    Objective,
    Penalty,
    Pixels,
    Problem,
    Rows,
)
from poisoning.hypergradient.rmd import rmd

Method: TypeAlias = Literal["rmd", "implicit"]
OuterRule: TypeAlias = Literal["decayed", "adaptive"]

NO_REGULARISATION = float("-inf")
ADAPTIVE_START = 0.006  # of the box's diagonal; what hand-tuned steps on three data sets amount to
LONGER, SHORTER = 1.25, 0.5
SHORTEST_LAM_STEP, LONGEST_LAM_STEP = 0.02, 1.5
_IMPLICIT_TOLERANCE = {torch.float64: (1e-7, 1e-6), torch.float32: (1e-5, 1e-4)}


@dataclass(frozen=True)
class Policy:
    """Who chooses λ: ``fixed`` is the exponent, −∞ for none; None if it is learned.

    ``per_layer``: a learned exponent for every layer, otherwise one for all parameters.
    """

    penalty: Penalty = "l2"
    fixed: float | None = None
    per_layer: bool = False


@dataclass(frozen=True)
class LamRange:
    """A learned exponent's start at every batch and its feasible domain Φ(Λ)."""

    start: float
    low: float
    high: float


@dataclass(frozen=True)
class HyperparameterSettings:
    """What Alg. 2 is run with.

    ``batch`` and ``batches``: rows optimised together, and how many times; ``steps`` and ``rate``:
    T and η of the inner training (``implicit`` trains to the minimum instead, from the last one);
    ``hyperiterations``: H. ``poison_step``: α in the units of a feature; 0 leaves the flipped
    clones where they are, the baseline of random flips. ``lam_step``: β, the first step of λ.
    ``box``: Φ(D_p), the range of every feature. ``adaptive`` takes its first α from the box.
    """

    batch: int = 350
    batches: int = 5
    steps: int = 300
    rate: float = 0.1
    hyperiterations: int = 20
    poison_step: float = 0.2
    lam_step: float = 0.6
    box: tuple[float, float] = (0.0, 1.0)
    l2: LamRange = LamRange(-4.0, -8.0, 3.0)
    l1: LamRange = LamRange(-6.0, -9.0, -1.5)
    method: Method = "rmd"
    rule: OuterRule = "decayed"


@dataclass(frozen=True)
class HyperparameterAttack:
    """Poison and λ after each of S = batches + 1 stages; stage s has s batches, stage 0 none.

    ``poison`` (K, m, d) and ``poison_y`` (K, m) of all batches: a stage's are the first s·batch.
    ``replaced`` (m,): the clean rows whose place they take. ``lam_path`` (K, S, H + 1, G): λ before
    every hyperiteration and at last. ``validation`` and ``target`` (K, S, H): the defender's and
    the attacker's objective at w^(T) before every step; NaN where nothing was to be learned.
    ``lam_at_bound`` (K, S): share of hyperiterations that left a learned λ on its box's edge;
    ``features_at_bound`` (K, S): share of the stage's poison features on theirs at the end.
    """

    poison: Float[Tensor, "K m d"]
    poison_y: Float[Tensor, "K m"]
    replaced: Int[Tensor, "m"]
    lam_path: Float[Tensor, "K S H1 G"]
    validation: Float[Tensor, "K S H"]
    target: Float[Tensor, "K S H"]
    lam_at_bound: Float[Tensor, "K S"]
    features_at_bound: Float[Tensor, "K S"]
    batch: int

    @property
    def lam(self) -> Float[Tensor, "K S G"]:
        """λ at the end of every stage."""
        return self.lam_path[:, :, -1]

    def rows(self, stage: int) -> tuple[Float[Tensor, "K s d"], Float[Tensor, "K s"]]:
        """The poison of a stage and its labels."""
        return self.poison[:, : stage * self.batch], self.poison_y[:, : stage * self.batch]

    def remaining(self, clean: Rows, stage: int) -> Rows:
        """The clean rows that are still there at a stage."""
        return _without(clean, self.replaced[: stage * self.batch])


def attack_hyperparameters(
    model: MLP,
    clean: Rows,
    validation: Objective,
    policies: Sequence[Policy],
    settings: HyperparameterSettings,
    rng: np.random.Generator,
    *,
    target: Objective | None = None,
) -> HyperparameterAttack:
    """Alg. 2 for all ``policies`` at once, K problems side by side.

    ``validation`` is the trusted D_val (v, d) that λ is learned on and that poison is cloned from;
    ``target`` the attacker's D_target and A, by default the same (Eq. 3). Both are shared by the
    problems. Device and precision are those of ``validation.X``. Networks start anew at every
    hyperiteration, all problems from the same parameters; logistic regression starts from zero.

    Raises ``ValueError`` for a batch larger than the validation set, more poison than training
    rows, a box without width, or the implicit method without regularisation; whatever the
    hypergradient raises.
    """
    v = len(validation.y)
    n, batch = len(clean.y), settings.batch
    m = batch * settings.batches
    if batch > v:
        raise ValueError(f"a batch of {batch} cannot be cloned from {v} validation points")
    if m > n:
        raise ValueError(f"{m} poison rows cannot replace rows of {n}")
    if settings.box[0] >= settings.box[1]:
        raise ValueError(f"the box {settings.box} has no width")
    if settings.method == "implicit" and any(p.fixed == NO_REGULARISATION for p in policies):
        raise ValueError("the implicit method needs a finite lambda: without one, w* may not exist")

    replaced = torch.from_numpy(rng.permutation(n)[:m].copy())
    starts = torch.Generator().manual_seed(int(rng.integers(2**62)))
    # Without duplicates within a batch; batches may meet again when D_val is small.
    sources = [rng.choice(v, batch, replace=False) for _ in range(settings.batches)]
    state = _State(model, clean, validation, target, tuple(policies), settings, replaced, m)
    for stage in range(settings.batches + 1):
        if stage > 0:
            chosen = torch.from_numpy(sources[stage - 1])
            now = slice((stage - 1) * batch, stage * batch)
            state.poison[:, now] = validation.X[chosen].clamp(*settings.box)
            state.poison_y[:, now] = -validation.y[chosen]
        state.play(stage, starts)
    return state.result()


class _State:
    """The board: what Alg. 2 writes to."""

    def __init__(
        self,
        model: MLP,
        clean: Rows,
        validation: Objective,
        target: Objective | None,
        policies: tuple[Policy, ...],
        settings: HyperparameterSettings,
        replaced: Int[Tensor, "m"],
        m: int,
    ) -> None:
        self.model, self.clean, self.settings = model, clean, settings
        self.policies, self.replaced = policies, replaced
        self.objectives = (validation,) if target is None else (validation, target)
        K, d = len(policies), validation.X.shape[1]
        S, H = settings.batches + 1, settings.hyperiterations
        layers = int(model.layers(d).max()) + 1
        G = layers if any(policy.per_layer for policy in policies) else 1
        new = validation.X.new_zeros
        self.poison, self.poison_y = new(K, m, d), new(K, m)
        self.lam_path = new(K, S, H + 1, G)
        self.validation, self.target = new(K, S, H) * np.nan, new(K, S, H) * np.nan
        self.lam_at_bound, self.features_at_bound = new(K, S), new(K, S)
        ranges = [settings.l2 if p.penalty == "l2" else settings.l1 for p in policies]
        self.low = new(K, 1) + torch.tensor([[r.low] for r in ranges]).to(new(0))
        self.high = new(K, 1) + torch.tensor([[r.high] for r in ranges]).to(new(0))
        first = [
            r.start if p.fixed is None else p.fixed for p, r in zip(policies, ranges, strict=True)
        ]
        self.first = torch.tensor(first).to(new(0)).unsqueeze(1).expand(K, G)
        device = validation.X.device
        self.learned = torch.tensor([p.fixed is None for p in policies], device=device)
        self.tied = torch.tensor([not p.per_layer for p in policies], device=device)
        self.last_w: Tensor | None = None

    def play(self, stage: int, starts: torch.Generator) -> None:
        """Lines 3–10 of Alg. 2 for one batch."""
        settings = self.settings
        self.lam_path[:, stage] = self.first.unsqueeze(1)
        moving = settings.poison_step > 0 and stage > 0
        live = torch.nonzero(self.learned | moving).squeeze(1)
        if len(live):
            self._play(stage, live, moving, starts)
        if stage > 0:
            now = self.poison[:, : stage * settings.batch]
            low, high = settings.box
            self.features_at_bound[:, stage] = ((now <= low) | (now >= high)).to(now).mean((1, 2))

    def _play(
        self, stage: int, live: Int[Tensor, "k"], moving: bool, starts: torch.Generator
    ) -> None:
        settings, batch = self.settings, self.settings.batch
        end = stage * batch
        free = batch if moving else 0
        clean = _without(self.clean, self.replaced[:end])
        rule = _Steps(
            settings, self.poison.shape[2], len(live), self.lam_path.shape[3], self.poison
        )
        lam = self.lam_path[live, stage, 0]
        poison = self.poison[live, :end]
        pixels = clean.pixels(poison[:, : end - free])
        box = self.low[live], self.high[live]
        learned, tied = self.learned[live, None], self.tied[live, None]
        hits = torch.zeros(len(live)).to(lam)
        for h in range(settings.hyperiterations):
            found = self._hypergradients(clean, live, poison, pixels, lam, free, starts)
            self.validation[live, stage, h] = found.values[0]
            self.target[live, stage, h] = found.values[-1]
            if moving:
                move = rule.poison(found.poison[-1], h)
                poison[:, -batch:] = (poison[:, -batch:] + move).clamp_(*settings.box)
            d_lam = torch.where(tied, found.lam[0].sum(1, keepdim=True), found.lam[0])
            moved = (lam - rule.lam(d_lam, h)).clamp(*box)
            lam = torch.where(learned, moved, lam)
            self.lam_path[live, stage, h + 1] = lam
            edge = learned & ((lam <= box[0]) | (lam >= box[1]))
            hits += edge.any(dim=1).to(lam)
        if moving:
            poison[:, -batch:] = clean.nearest(poison[:, -batch:]).clamp(*settings.box)
        self.poison[live, :end] = poison
        self.lam_at_bound[live, stage] = hits / settings.hyperiterations

    def _hypergradients(
        self,
        clean: Rows,
        live: Int[Tensor, "k"],
        poison: Float[Tensor, "k s d"],
        pixels: Pixels | None,
        lam: Float[Tensor, "k G"],
        free: int,
        starts: torch.Generator,
    ) -> Hypergradient:
        """Lines 5 and 6: fresh parameters, and Alg. 1."""
        settings = self.settings
        end = poison.shape[1]
        problem = Problem(
            model=self.model,
            clean=clean,
            poison=poison,
            poison_y=self.poison_y[live, :end],
            objectives=self.objectives,
            lam=lam,
            rate=settings.rate,
            steps=settings.steps,
            initial=self._initial(live, starts),
            penalty=tuple(self.policies[k].penalty for k in live.tolist()),
            frozen=end - free,
            frozen_pixels=pixels,
        )
        if settings.method == "rmd":
            return rmd(problem)
        tolerance, residual = _IMPLICIT_TOLERANCE[poison.dtype]
        found = implicit(problem, tolerance=tolerance, residual=residual)
        self.last_w[live] = found.w
        return found

    def _initial(self, live: Int[Tensor, "k"], starts: torch.Generator) -> Float[Tensor, "k p"]:
        if self.settings.method == "implicit" and self.last_w is not None:
            return self.last_w[live]  # where training ends does not depend on where it starts
        w = initial_parameters(self.model, self.poison.shape[2], starts).to(self.poison)
        self.last_w = w.repeat(len(self.policies), 1)
        return w.expand(len(live), -1)

    def result(self) -> HyperparameterAttack:
        """What was played."""
        return HyperparameterAttack(
            self.poison,
            self.poison_y,
            self.replaced,
            self.lam_path,
            self.validation,
            self.target,
            self.lam_at_bound,
            self.features_at_bound,
            self.settings.batch,
        )


class _Steps:
    """The steps of Eq. (10), decayed or adaptive."""

    def __init__(
        self, settings: HyperparameterSettings, d: int, K: int, G: int, like: Tensor
    ) -> None:
        self.settings = settings
        self.adaptive = settings.rule == "adaptive"
        diagonal = (settings.box[1] - settings.box[0]) * d**0.5
        first = ADAPTIVE_START * diagonal if self.adaptive else settings.poison_step
        self.longest = 0.1 * diagonal
        self.poison_length = like.new_full((K, 1, 1), first)
        self.lam_length = like.new_full((K, G), settings.lam_step)
        self.last_poison: Tensor | None = None
        self.last_lam: Tensor | None = None

    def poison(self, gradient: Float[Tensor, "K b d"], h: int) -> Float[Tensor, "K b d"]:
        """Ascent: a step whose rows have the root mean square length α_h."""
        size = gradient.flatten(1).norm(dim=1)[:, None, None] / gradient.shape[1] ** 0.5
        direction = gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)
        if not self.adaptive:
            return self._decay(h) * self.poison_length * direction
        if self.last_poison is not None:
            agree = (direction * self.last_poison).sum((1, 2), keepdim=True)
            self.poison_length = _adapt(self.poison_length, agree).clamp(max=self.longest)
        self.last_poison = direction
        return self.poison_length * direction

    def lam(self, gradient: Float[Tensor, "K G"], h: int) -> Float[Tensor, "K G"]:
        """What is taken from λ: a step of its own sign."""
        sign = gradient.sign()
        if not self.adaptive:
            return self._decay(h) * self.lam_length * sign
        if self.last_lam is not None:
            self.lam_length = _adapt(self.lam_length, sign * self.last_lam).clamp(
                SHORTEST_LAM_STEP, LONGEST_LAM_STEP
            )
        self.last_lam = sign
        return self.lam_length * sign

    def _decay(self, h: int) -> float:
        return 1.0 - h / self.settings.hyperiterations


def _adapt(length: Tensor, agree: Tensor) -> Tensor:
    return torch.where(agree > 0, LONGER * length, torch.where(agree < 0, SHORTER * length, length))


def _without(clean: Rows, replaced: Int[Tensor, "r"]) -> Rows:
    """The clean rows but for those ``replaced``."""
    if len(replaced) == 0:
        return clean
    kept = torch.ones(len(clean.y), dtype=torch.bool)
    kept[replaced] = False
    kept = kept.to(clean.y.device)
    return Rows(clean.X[kept], clean.y[kept], clean.scale, clean.offset)


def initial_parameters(model: MLP, d: int, generator: torch.Generator) -> Float[Tensor, "1 p"]:
    """w^(0): zero for logistic regression, Xavier-uniform for networks (Sections V-A and V-C).

    Drawn on the CPU, so that an attack starts alike on every device.
    """
    if not model.hidden:
        return torch.zeros(1, d + 1, dtype=torch.float64)
    return model.initial(d, 1, generator)


@dataclass(frozen=True)
class CrossValidation:
    """``lam``: the exponent of least held-out loss; ``losses`` (grid,); whether it is an end's."""

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
    *,
    folds: int = 5,
    dtype: torch.dtype = torch.float32,
) -> CrossValidation:
    """λ by k-fold cross-validation on the clean training rows: the λ_CLEAN of Section V-B.

    All folds and grid values are trained side by side, a held-out row having weight 0. Raises
    ``ValueError`` for fewer than two folds or an empty grid.
    """
    if folds < 2 or not grid:
        raise ValueError(f"cross-validation needs two folds and a grid, got {folds} and {grid}")
    n, d = clean.X.shape
    fold = torch.from_numpy(rng.permutation(n) % folds)
    held_out: Bool[Tensor, "folds n"] = fold == torch.arange(folds).unsqueeze(1)
    held_out = held_out.repeat(len(grid), 1).to(clean.X.device)
    K = len(held_out)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    lam = torch.tensor(grid, dtype=dtype).repeat_interleave(folds).unsqueeze(1)
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
        initial=initial_parameters(model, d, generator).to(X).repeat(K, 1),
        penalty=penalty,
        weights=(~held_out).to(X),
    )
    with torch.no_grad():
        scores = model.scores(model.train(problem, problem.initial, steps), X)
        loss = torch.nn.functional.softplus(-clean.y.to(X) * scores) * held_out
    means = (loss.sum(1) / held_out.sum(1)).unflatten(0, (len(grid), folds)).mean(1)
    best = int(means.argmin())
    return CrossValidation(float(grid[best]), means, best in (0, len(grid) - 1))


@dataclass(frozen=True)
class Deployment:
    """Test errors of models trained on a stage's data with its λ, and what they look like.

    ``error`` (K,): share of the test set, averaged over starts and last iterates. ``spread`` (K,):
    standard deviation over them. ``w`` (K, p): parameters of the last start and iterate.
    """

    error: Float[Tensor, "K"]
    spread: Float[Tensor, "K"]
    w: Float[Tensor, "K p"]


def deploy(
    model: MLP,
    clean: Rows,
    attack: HyperparameterAttack,
    stage: int,
    policies: Sequence[Policy],
    test: Objective,
    epochs: int,
    rate: float,
    rng: np.random.Generator,
    *,
    starts: int = 1,
    checkpoints: int = 1,
    spacing: int = 10,
) -> Deployment:
    """Train every problem on the data of ``stage`` with its λ and test it (Table V).

    Full-batch descent of ``epochs`` steps from ``starts`` initialisations; a network's error jumps
    from step to step, so it is averaged over ``checkpoints`` iterates ``spacing`` steps apart, the
    last of them at ``epochs``. Raises ``ValueError`` if they do not fit.
    """
    before = epochs - (checkpoints - 1) * spacing
    if before < 1:
        raise ValueError(f"{checkpoints} checkpoints {spacing} steps apart exceed {epochs} epochs")
    poison, poison_y = attack.rows(stage)
    d = poison.shape[2]
    clean = attack.remaining(clean, stage)
    pixels = clean.pixels(poison)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    wrong = []
    for _ in range(starts):
        w = initial_parameters(model, d, generator).to(poison).repeat(len(poison), 1)
        problem = Problem(
            model=model,
            clean=clean,
            poison=poison,
            poison_y=poison_y,
            objectives=(test,),
            lam=attack.lam[:, stage],
            rate=rate,
            steps=epochs,
            initial=w,
            penalty=tuple(policy.penalty for policy in policies),
            frozen=poison.shape[1],
            frozen_pixels=pixels,
        )
        with torch.no_grad():
            for number in range(checkpoints):
                w = model.train(problem, w, before if number == 0 else spacing)
                # A score of exactly 0 decides nothing: half an error.
                agreement = (model.scores(w, test.X) * test.y).sign()
                wrong.append(0.5 * (1.0 - agreement).mean(1))
    errors = torch.stack(wrong)
    return Deployment(errors.mean(0), errors.std(0, correction=0), w)
