"""λ learned again on finished poison, to separate the learner's steps from the attacker's.

The outer rule of Alg. 2 moves both players of Eq. (3), the poison and λ. Here the poison that an
attack ends with is no longer changed: λ is learned on it from its start by each rule, and set to
every value of a grid. Differences between the rules then come from the learner alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.games.bilevel import FinalTraining, Policy
from replication.hyperparameter_trial import Pool, Sizes, drawn_game


@dataclass(frozen=True)
class Replay:
    """Models trained on the same poison with P exponents: the learners', then the grid's.

    ``lam`` (P,); ``error`` (P,): test errors; ``loss`` (P,): validation losses, which learners
    descend.
    """

    lam: Float[ndarray, "P"]
    error: Float[ndarray, "P"]
    loss: Float[ndarray, "P"]


def run_replay(
    pool: Pool,
    sizes: Sizes,
    policies: Mapping[str, Policy],
    settings: MinimaxBilevel,
    testing: FinalTraining,
    rng: np.random.Generator,
    *,
    learners: Sequence[str],
    grid: Sequence[float],
    device: str = "cpu",
) -> dict[str, Replay]:
    """Logistic regression on all the poison that is aimed at each of ``policies``.

    Draw and attack are those of :func:`replication.hyperparameter_trial.run_trial` with an ``rng``
    in the same state. ``learners`` are rules that λ is learned by, with the policy's penalty;
    ``grid`` holds fixed exponents, −∞ for none. Float32, on ``device``.
    """
    game = drawn_game(pool, sizes, rng, policies=policies, training=testing, device=device)
    _, attack_rng = rng.spawn(2)
    points, labels, replaced = settings.play(game, attack_rng).at(settings.batches)
    no_poison = points[0, :0], labels[0, :0]
    found = {}
    for k, (name, policy) in enumerate(policies.items()):
        at_rest = game.poisoned(points[k], labels[k], replaced)
        learner = at_rest.with_policies({name: Policy(policy.penalty)})
        learned = [
            learner.with_learning(replace(settings, rule=rule)).learn(*no_poison, rng=rng)
            for rule in learners
        ]
        exponents = [*(float(lam[0, 0]) for lam in learned), *grid]
        fixed = {str(p): Policy(policy.penalty, lam) for p, lam in enumerate(exponents)}
        outcomes = at_rest.with_policies(fixed).evaluate(*no_poison, rng=rng).values()
        found[name] = Replay(
            np.array(exponents),
            np.array([one.test_error for one in outcomes]),
            np.array([one.loss for one in outcomes]),
        )
    return found
