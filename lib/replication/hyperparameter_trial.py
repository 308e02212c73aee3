"""One repeat of the experiments of Carnerero-Cano et al. 2023, Section V: draw, attack, test.

All λ policies of a repeat share its draw, its clones and its replaced rows, so that they differ in
nothing but λ; so do the random flips that stand beside every optimised attack.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.games.bilevel import BilevelGame, FinalTraining, Policy, PolicyOutcome

FLIPS = "-flips"
"""The suffix of a policy's name where its poison is not optimised."""


@dataclass(frozen=True, eq=False)
class Pool:
    """All images of two classes as published, train and test together: x = scale·X + offset."""

    X: UInt8[ndarray, "n d"]
    y: Float[ndarray, "n"]
    scale: float = 1.0 / 255.0
    offset: float = 0.0

    @property
    def box(self) -> tuple[float, float]:
        """The range of a pixel."""
        return self.offset, 255.0 * self.scale + self.offset


@dataclass(frozen=True)
class Sizes:
    """How many examples of a draw are for training, validation and test; all even."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Trial:
    """For every policy by name, flips included, and every stage 0 … batches.

    ``error`` (K, S): test error, a fraction; ``spread`` (K, S): standard deviation over starts and
    last iterates. ``lam`` (K, S, G): exponents used. ``norm`` (K, S) and ``layer_norms`` (K, S, L):
    ‖w‖₂ divided by the number of parameters, of all and of each layer. ``consistency`` (K, S, F):
    Kuncheva's index of the clean model's and the stage's top features, for each asked number of
    them; none for networks. ``validation`` (K, S): the defender's loss before the last step, NaN
    where nothing was optimised. ``lam_at_bound``, ``features_at_bound`` (K, S): see
    :class:`poisoning.attacks.minimax_bilevel.StagedPoison`. ``cv_at_edge``: the policies
    whose cross-validation ended at an end of its grid.
    """

    names: tuple[str, ...]
    error: Float[ndarray, "K S"]
    spread: Float[ndarray, "K S"]
    lam: Float[ndarray, "K S G"]
    norm: Float[ndarray, "K S"]
    layer_norms: Float[ndarray, "K S L"]
    consistency: Float[ndarray, "K S F"]
    validation: Float[ndarray, "K S"]
    lam_at_bound: Float[ndarray, "K S"]
    features_at_bound: Float[ndarray, "K S"]
    cv_at_edge: tuple[str, ...] = ()

    def row(self, name: str) -> int:
        """The index of a policy."""
        return self.names.index(name)


def kuncheva(first: Int[ndarray, "k"], second: Int[ndarray, "k"], d: int) -> float:
    """(|A ∩ B| d − k²)/(k(d − k)): 1 for equal sets of k of d features, 0 by chance (ref. [54]).

    Raises ``ValueError`` for sets of no or of all features.
    """
    k = len(first)
    if not 0 < k < d:
        raise ValueError(f"sets of 1 to {d - 1} features can be compared, got {k} features")
    common = len(np.intersect1d(first, second))
    return (common * d - k * k) / (k * (d - k))


def balanced_draw(
    y: Float[ndarray, "n"], sizes: Sequence[int], rng: np.random.Generator
) -> list[Int[ndarray, "m"]]:
    """Disjoint random index sets, half of each from either class.

    Raises ``ValueError`` if a size is odd or a class has too few examples.
    """
    if any(size % 2 for size in sizes):
        raise ValueError(f"balanced sets are even, got {tuple(sizes)}")
    classes = [rng.permutation(np.flatnonzero(y == label)) for label in (-1.0, 1.0)]
    if sum(sizes) // 2 > min(map(len, classes)):
        raise ValueError(
            f"{sum(sizes) // 2} examples of each class wanted, the smaller has "
            f"{min(map(len, classes))}"
        )
    found, at = [], 0
    for size in sizes:
        half = size // 2
        found.append(rng.permutation(np.concatenate([c[at : at + half] for c in classes])))
        at += half
    return found


def drawn_game(
    pool: Pool,
    sizes: Sizes,
    rng: np.random.Generator,
    *,
    policies: Mapping[str, Policy],
    training: FinalTraining,
    hidden: tuple[int, ...] = (),
    device: str = "cpu",
) -> BilevelGame:
    """The game of one balanced draw of training, validation and test images."""
    train, held, test = balanced_draw(pool.y, (sizes.train, sizes.validation, sizes.test), rng)
    return BilevelGame(
        pool.X[train], pool.y[train], pool.X[held], pool.y[held], pool.X[test], pool.y[test],
        box=pool.box, policies=policies, hidden=hidden, scale=pool.scale, offset=pool.offset,
        training=training, device=device,
    )  # fmt: skip


def run_trial(
    pool: Pool,
    sizes: Sizes,
    policies: Mapping[str, Policy],
    settings: MinimaxBilevel,
    testing: FinalTraining,
    rng: np.random.Generator,
    *,
    hidden: tuple[int, ...] = (),
    cv: Mapping[str, Sequence[float]] | None = None,
    flips: Sequence[str] = (),
    top: Sequence[int] = (),
    device: str = "cpu",
) -> Trial:
    """Draw, attack every policy, and test it with 0 … batches of poison.

    ``cv`` gives a grid of exponents to policies whose λ is to be cross-validated on the clean
    training data. ``flips`` names the policies that are also attacked without optimisation. ``top``
    are numbers of features whose consistency is wanted. Float32, on ``device``.
    """
    game = drawn_game(
        pool, sizes, rng, policies=policies, training=testing, hidden=hidden, device=device
    )
    plan, attack_rng = rng.spawn(2)
    tests = [int(seed) for seed in rng.integers(2**62, size=settings.batches + 1)]
    chosen = dict(policies)
    edges = []
    for name, grid in (cv or {}).items():
        found = game.cross_validate(policies[name].penalty, grid, plan)
        chosen[name] = replace(policies[name], fixed=found.lam)
        edges += [name] if found.at_edge else []

    attacks = [(chosen, settings)]
    if flips:
        attacks.append(({name: chosen[name] for name in flips}, replace(settings, poison_step=0.0)))
    state = attack_rng.bit_generator.state
    parts = []
    for played, attack in attacks:
        attack_rng.bit_generator.state = state  # so that the flips are the same clones
        parts.append(_measured(game.with_policies(played), attack, attack_rng, tests, top))
    exponents = max(part["lam"].shape[2] for part in parts)
    for part in parts:  # flips of tied policies alone have one exponent where others have more
        part["lam"] = np.broadcast_to(part["lam"], (*part["lam"].shape[:2], exponents))
    return Trial(
        names=(*chosen, *(name + FLIPS for name in flips)),
        cv_at_edge=tuple(edges),
        **{key: np.concatenate([part[key] for part in parts]) for key in parts[0]},
    )


def _measured(
    game: BilevelGame,
    attack: MinimaxBilevel,
    rng: np.random.Generator,
    tests: Sequence[int],
    top: Sequence[int],
) -> dict[str, ndarray]:
    """One attack on all policies of a game: the arrays of a :class:`Trial`.

    ``tests`` are the seeds of the training that is tested, one for each stage.
    """
    poison = attack.play(game, rng)
    stages: list[dict[str, PolicyOutcome]] = []
    for stage, seed in enumerate(tests):
        points, labels, replaced = poison.at(stage)
        stages.append(
            game.evaluate(points, labels, replaced=replaced, lam=poison.lam[:, stage], rng=seed)
        )
    by_policy = [[outcomes[name] for outcomes in stages] for name in game.policies]
    w = np.array([[one.w for one in row] for row in by_policy])
    layers = game.model.layers(poison.points.shape[2]).numpy()
    return {
        "error": np.array([[one.test_error for one in row] for row in by_policy]),
        "spread": np.array([[one.spread for one in row] for row in by_policy]),
        "lam": poison.lam.astype(np.float64),
        "norm": np.linalg.norm(w, axis=2) / w.shape[2],
        "layer_norms": np.stack(
            [
                np.linalg.norm(w[:, :, layers == layer], axis=2) / (layers == layer).sum()
                for layer in range(layers.max() + 1)
            ],
            axis=2,
        ),
        "consistency": _consistency(w[:, :, :-1], () if game.model.hidden else top),
        "validation": poison.validation[:, :, -1].astype(np.float64),
        "lam_at_bound": poison.lam_at_bound.astype(np.float64),
        "features_at_bound": poison.features_at_bound.astype(np.float64),
    }


def _consistency(w: Float[ndarray, "K S d"], top: Sequence[int]) -> Float[ndarray, "K S F"]:
    """Between the largest |w| at stage 0 and at every stage; ties go to the lower index."""
    order = np.argsort(-np.abs(w), axis=2, kind="stable")
    K, S, d = w.shape
    found = np.empty((K, S, len(top)))
    for k, s, f in np.ndindex(found.shape):
        found[k, s, f] = kuncheva(order[k, 0, : top[f]], order[k, s, : top[f]], d)
    return found
