"""Poison that lies still: what a learner makes of it, and what it could have made of it.

An outer rule moves both players of Eq. (3). To tell the poison's part in the outcome from the
learner's, the rows that an attack ends with stay as they are; λ is learned on them from its start
by each rule, and set to every value of a grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from poisoning.attacks.hyperparameter import (
    HyperparameterSettings,
    OuterRule,
    Policy,
    attack_hyperparameters,
    deploy,
)
from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.problem import Objective, Rows
from replication.hyperparameter_trial import FinalTraining, Pool, Sizes, balanced_draw


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
    settings: HyperparameterSettings,
    testing: FinalTraining,
    rng: np.random.Generator,
    *,
    learners: Sequence[OuterRule],
    grid: Sequence[float],
    device: str = "cpu",
) -> dict[str, Replay]:
    """Logistic regression on all the poison that is aimed at each of ``policies``.

    Draw and attack are those of :func:`replication.hyperparameter_trial.run_trial` with an ``rng``
    in the same state. ``learners`` are rules that λ is learned by, with the policy's penalty;
    ``grid`` holds fixed exponents, −∞ for none. Float32, on ``device``.
    """
    sets = balanced_draw(pool.y, (sizes.train, sizes.validation, sizes.test), rng)
    clean, held, test = (
        Rows(
            torch.from_numpy(pool.X[rows]).to(device),
            torch.from_numpy(pool.y[rows]).float().to(device),
            pool.scale,
            pool.offset,
        )
        for rows in sets
    )
    validation, tested = (Objective(rows.values(torch.float32), rows.y) for rows in (held, test))
    _, attack_seed = rng.spawn(2)
    model = Logistic()
    attack = attack_hyperparameters(
        model, clean, validation, list(policies.values()), settings, attack_seed
    )
    poison, poison_y = attack.rows(settings.batches)
    pixels = clean.pixels(poison)
    kept = attack.remaining(clean, settings.batches)
    at_rest = replace(settings, batches=0)
    found = {}
    for k, (name, policy) in enumerate(policies.items()):
        rows = Rows(
            torch.cat([kept.X, pixels.X[k]]), torch.cat([kept.y, poison_y[k]]), pool.scale,
            pool.offset,
        )  # fmt: skip
        learned = [
            attack_hyperparameters(
                model, rows, validation, [Policy(policy.penalty)], replace(at_rest, rule=rule), rng
            )
            for rule in learners
        ]
        exponents = [*(float(one.lam[0, 0, 0]) for one in learned), *grid]
        chosen = [Policy(policy.penalty, exponent) for exponent in exponents]
        board = attack_hyperparameters(model, rows, validation, chosen, at_rest, rng)
        deployed = deploy(model, rows, board, 0, chosen, tested, testing.epochs, testing.rate, rng)
        loss = validation.loss(model.scores(deployed.w, validation.X), validation.y)
        found[name] = Replay(
            np.array(exponents),
            deployed.error.double().cpu().numpy(),
            loss.double().cpu().numpy(),
        )
    return found
