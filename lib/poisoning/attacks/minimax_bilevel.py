"""The minimax bilevel attack on learned hyperparameters: Alg. 2 of Carnerero-Cano et al. 2023.

    min_λ L(D_val, w*),   max_{X_p ∈ Φ} A(D_target, w*)   s.t.   w* ∈ argmin_w F(w; D'_tr, λ)

Eq. (2), or (3) where the game has no target of the attacker's own. Poison comes in batches:
validation points are cloned, their labels flipped, and each takes the place of a clean training
row. A batch is optimised and then no longer changed, rounded to bytes if the clean rows are bytes;
then the next batch is added. For every batch λ starts anew, and H times

    X ← Π(X + α_h dX / (‖dX‖_F/√batch)),        λ ← Π(λ − β_h sign(dλ)),                       (10)

with the hypergradients of Alg. 1 at the same (X, λ). The paper normalises dX "with respect to their
norm" and dλ "to their value"; so α is the root mean square length of a row's step, and β a step in
the exponent. Steps follow the rules of :mod:`poisoning.hypergradient.learning`; ``adaptive`` takes
its first α from the box, 0.6 % of its diagonal, so that it needs no choice per data set.

The attack runs on all policies of the game side by side, each with its own poison. Clean rows,
clones and replaced rows are the same for all, so that policies differ in nothing but λ.
"""

from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from poisoning import checks
from poisoning.attacks.attacked import Attacked, playing
from poisoning.games.bilevel import NO_REGULARISATION, BilevelGame
from poisoning.hypergradient.learning import HyperparameterLearning, Starts, adapted, learn
from poisoning.hypergradient.problem import Hypergradient
from poisoning.settings import LENGTH, ROWS, setting

ADAPTIVE_START = 0.006  # of the box's diagonal; what hand-tuned steps on three data sets amount to
LONGEST = 0.1  # of the diagonal, for an adaptive step


@dataclass(frozen=True)
class StagedPoison:
    """Poison and λ of K policies after each of S stages; stage s has s batches, stage 0 none.

    ``points`` (K, m, d) and ``labels`` (K, m) of all batches: a stage's are the first s·batch.
    ``replaced`` (m,): the clean rows whose place they take. ``lam_path`` (K, S, H + 1, G): λ before
    every hyperiteration and after the last. ``validation`` and ``target`` (K, S, H): the defender's
    and the attacker's objective at w^(T) before every step; NaN where neither λ was learned nor
    poison moved. ``lam_at_bound`` (K, S): share of hyperiterations that left a learned λ on its
    box's edge; ``features_at_bound`` (K, S): share of the stage's poison features on theirs at the
    end.
    """

    points: Float[ndarray, "K m d"]
    labels: Float[ndarray, "K m"]
    replaced: Int[ndarray, "m"]
    lam_path: Float[ndarray, "K S H1 G"]
    validation: Float[ndarray, "K S H"]
    target: Float[ndarray, "K S H"]
    lam_at_bound: Float[ndarray, "K S"]
    features_at_bound: Float[ndarray, "K S"]
    batch: int

    @property
    def lam(self) -> Float[ndarray, "K S G"]:
        """λ at the end of every stage."""
        return self.lam_path[:, :, -1]

    def at(
        self, stage: int
    ) -> tuple[Float[ndarray, "K s d"], Float[ndarray, "K s"], Int[ndarray, "s"]]:
        """The points of a stage, their labels, and the clean rows that they replace.

        Raises ``ValueError`` for a stage that there is not.
        """
        stage = checks.whole(stage, "stage", 0, self.lam_path.shape[1] - 1)
        size = stage * self.batch
        return self.points[:, :size], self.labels[:, :size], self.replaced[:size]


@dataclass(frozen=True)
class MinimaxBilevel(HyperparameterLearning):
    """Alg. 2: ``MinimaxBilevel(batch=350, batches=5)(game, rng)``.

    The attacker models a defender who learns λ with these settings, whatever the game's own
    ``learning`` is. With ``poison_step`` 0 the clones stay where they are: random label flips, the
    baseline of every optimised attack. With ``adaptive`` steps only whether ``poison_step`` is 0
    matters.
    """

    batch: int = setting(350, ROWS, "rows of poison that are optimised together")
    batches: int = setting(5, ROWS, "how many batches there are, one after the other")
    poison_step: float = setting(
        0.2, LENGTH, "α, the first outer step of the poison, in the units of a feature"
    )

    def __call__(self, game: BilevelGame, rng: int | np.random.Generator) -> Attacked:
        """All batches, and models trained on them with the λ that Alg. 2 ends with.

        ``poison`` is a :class:`StagedPoison`, ``outcomes`` are by policy,
        :class:`~poisoning.games.bilevel.PolicyOutcome`, at the last stage. ``value`` is the least
        test error over the policies that regularise, see
        :meth:`poisoning.games.bilevel.BilevelGame.value`. ``seconds`` are those of Alg. 2 alone. A
        defender who learns λ anew on the finished poison may end with another λ, and so with
        another error: that is what ``game.evaluate`` measures without ``lam``.

        Raises what :meth:`play` raises.
        """
        playing(self, game, BilevelGame)
        begun = perf_counter()
        rng = checks.generator(rng)
        poison = self.play(game, rng)
        seconds = perf_counter() - begun
        points, labels, replaced = poison.at(self.batches)
        outcomes = game.evaluate(points, labels, replaced=replaced, lam=poison.lam[:, -1], rng=rng)
        return Attacked(poison, game.value(outcomes), outcomes, seconds=seconds)

    def play(self, game: BilevelGame, rng: int | np.random.Generator) -> StagedPoison:
        """Alg. 2 alone: poison and λ of every stage; nothing is trained for testing.

        Raises ``ValueError`` for a batch larger than the validation set, more poison than training
        rows, or the implicit method without regularisation, ``TypeError`` for another game;
        whatever the hypergradient raises.
        """
        playing(self, game, BilevelGame)
        n, v, m = game.n, len(game.validation.y), self.batch * self.batches
        if self.batch > v:
            raise ValueError(f"a batch of {self.batch} cannot be cloned from {v} validation points")
        if m > n:
            raise ValueError(f"{m} poison rows cannot replace rows of {n}")
        fixed = [policy.fixed for policy in game.policies.values()]
        if self.method == "implicit" and NO_REGULARISATION in fixed:
            raise ValueError(
                "the implicit method needs a finite lambda: without one, w* may not exist"
            )
        rng = checks.generator(rng)
        replaced = rng.permutation(n)[:m]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        # Without duplicates within a batch; batches may share points when D_val is small.
        sources = [rng.choice(v, self.batch, replace=False) for _ in range(self.batches)]
        stages = _Stages(self, game, replaced, generator)
        for stage in range(self.batches + 1):
            if stage > 0:
                stages.add(stage, torch.from_numpy(sources[stage - 1]))
            stages.play(stage)
        return stages.result()


class _Stages:
    """The arrays of a :class:`StagedPoison` while Alg. 2 fills them, stage by stage."""

    def __init__(
        self,
        attack: MinimaxBilevel,
        game: BilevelGame,
        replaced: Int[ndarray, "m"],
        generator: torch.Generator,
    ) -> None:
        self.attack, self.game, self.replaced = attack, game, replaced
        self.exponents = game.exponents(attack)
        K, G = self.exponents.first.shape
        m, d = len(replaced), game.validation.X.shape[1]
        S, H = attack.batches + 1, attack.hyperiterations
        new = game.validation.X.new_zeros
        self.points, self.labels = new(K, m, d), new(K, m)
        self.lam_path = new(K, S, H + 1, G)
        self.validation, self.target = new(K, S, H) * np.nan, new(K, S, H) * np.nan
        self.lam_at_bound, self.features_at_bound = new(K, S), new(K, S)
        self.starts = Starts(game.model, K, attack.method, generator, self.points)

    def add(self, stage: int, sources: Int[Tensor, "batch"]) -> None:
        """Clone these validation points into the stage's batch, their labels flipped."""
        batch, validation = self.attack.batch, self.game.validation
        now = slice((stage - 1) * batch, stage * batch)
        self.points[:, now] = validation.X[sources].clamp(*self.game.box)
        self.labels[:, now] = -validation.y[sources]

    def play(self, stage: int) -> None:
        """Lines 3–10 of Alg. 2 for one batch."""
        self.lam_path[:, stage] = self.exponents.first.unsqueeze(1)
        moving = self.attack.poison_step > 0 and stage > 0
        live = torch.nonzero(self.exponents.learned | moving).squeeze(1)
        if len(live):
            self._hyperiterations(stage, live, self.attack.batch if moving else 0)
        if stage > 0:
            now = self.points[:, : stage * self.attack.batch]
            low, high = self.game.box
            self.features_at_bound[:, stage] = ((now <= low) | (now >= high)).to(now).mean((1, 2))

    def _hyperiterations(self, stage: int, live: Int[Tensor, "k"], free: int) -> None:
        """Optimise λ and the last ``free`` rows of poison for the policies of index ``live``."""
        attack, game = self.attack, self.game
        end = stage * attack.batch
        clean = game.remaining(self.replaced[:end])
        points = self.points[live, :end]
        problem = game.problem(
            clean, points, self.labels[live, :end], self.lam_path[live, stage, 0], live,
            self.starts.draw(live, points.shape[2]), attack.steps, attack.rate, free=free,
        )  # fmt: skip
        steps = _PoisonSteps(attack, game.box, points)

        def move(found: Hypergradient, h: int) -> None:
            step = steps.step(found.poison[-1], h)
            points[:, -free:] = (points[:, -free:] + step).clamp_(*game.box)

        exponents = self.exponents.of(live)
        found = learn(attack, problem, live, exponents, self.starts, move if free else None)
        if free:
            points[:, -free:] = clean.nearest(points[:, -free:]).clamp(*game.box)
        self.points[live, :end] = points
        self.lam_path[live, stage] = found.lam_path
        self.validation[live, stage], self.target[live, stage] = found.validation, found.target
        self.lam_at_bound[live, stage] = found.at_bound

    def result(self) -> StagedPoison:
        """The filled arrays as a :class:`StagedPoison`."""
        filled = (
            self.lam_path, self.validation, self.target, self.lam_at_bound, self.features_at_bound
        )  # fmt: skip
        points, labels, *others = (
            tensor.cpu().numpy() for tensor in (self.points, self.labels, *filled)
        )
        return StagedPoison(points, labels, self.replaced, *others, self.attack.batch)


class _PoisonSteps:
    """The steps of poison in Eq. (10), decayed or adaptive."""

    def __init__(
        self, attack: MinimaxBilevel, box: tuple[float, float], points: Float[Tensor, "k s d"]
    ) -> None:
        self._attack = attack
        diagonal = (box[1] - box[0]) * points.shape[2] ** 0.5
        adaptive = attack.rule == "adaptive"
        first = ADAPTIVE_START * diagonal if adaptive else attack.poison_step
        self._longest = LONGEST * diagonal
        self._length = points.new_full((len(points), 1, 1), first)
        self._last: Tensor | None = None

    def step(self, gradient: Float[Tensor, "k b d"], h: int) -> Float[Tensor, "k b d"]:
        """A step uphill whose rows have the root mean square length α_h."""
        size = gradient.flatten(1).norm(dim=1)[:, None, None] / gradient.shape[1] ** 0.5
        direction = gradient / size.clamp_min(torch.finfo(gradient.dtype).tiny)
        if self._attack.rule == "decayed":
            return self._attack.decay(h) * self._length * direction
        if self._last is not None:
            agree = (direction * self._last).sum((1, 2), keepdim=True)
            self._length = adapted(self._length, agree).clamp(max=self._longest)
        self._last = direction
        return self._length * direction
