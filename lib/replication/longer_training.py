"""Logistic regression that is trained for longer than the paper's models are.

Gradient descent that is stopped early regularises by itself: on clean data, which a line nearly
separates, it leaves nothing for a penalty to do. So cross-validation chooses no penalty, and norms
have not grown to where they would. Here the poison of a repeat of Figure 2 meets models that are
trained on, and λ is cross-validated with the longest training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.games.bilevel import FinalTraining, Policy
from poisoning.hypergradient.cross_validation import cross_validate
from poisoning.hypergradient.rmd import check_finite
from replication.hyperparameter_trial import Pool, Sizes, drawn_game


@dataclass(frozen=True)
class Longer:
    """For K policies, S stages of poison and E lengths of training.

    ``error`` (K, S, E): test error, a fraction. ``norm`` (K, S, E): ‖w‖₂ divided by the number of
    parameters. ``lam`` (K, S): exponents used. ``cv_at_edge``: the policies whose cross-validation
    ended at an end of its grid.
    """

    names: tuple[str, ...]
    error: Float[ndarray, "K S E"]
    norm: Float[ndarray, "K S E"]
    lam: Float[ndarray, "K S"]
    cv_at_edge: tuple[str, ...]

    def row(self, name: str) -> int:
        """The index of a policy."""
        return self.names.index(name)


def run_longer(
    pool: Pool,
    sizes: Sizes,
    policies: Mapping[str, Policy],
    settings: MinimaxBilevel,
    testing: FinalTraining,
    rng: np.random.Generator,
    *,
    cv: Mapping[str, Sequence[float]],
    epochs: Sequence[int],
    device: str = "cpu",
) -> Longer:
    """Attack every policy, and test it after each of ``epochs``, which increase.

    Draw, clones and cross-validation's folds are those of
    :func:`replication.hyperparameter_trial.run_trial` with an ``rng`` in the same state. ``cv``
    gives a grid of exponents to policies whose λ is to be cross-validated on the clean training
    data, with the last of ``epochs``. Of ``testing`` only the step size counts. Float32, on
    ``device``. Raises what the attack raises; ``SolverError`` if training diverges.
    """
    game = drawn_game(pool, sizes, rng, policies=policies, training=testing, device=device)
    plan, attack_rng = rng.spawn(2)
    chosen, edges = dict(policies), []
    for name, grid in cv.items():
        found = cross_validate(
            game.model, game.clean, policies[name].penalty, grid, epochs[-1], testing.rate, plan,
            game.dtype,
        )  # fmt: skip
        chosen[name] = replace(policies[name], fixed=found.lam)
        edges += [name] if found.at_edge else []
    game = game.with_policies(chosen)
    poison = settings.play(game, attack_rng)
    K, every = len(chosen), torch.arange(len(chosen))
    error, norm = np.empty((2, K, settings.batches + 1, len(epochs)))
    for stage in range(settings.batches + 1):
        points, labels, replaced = poison.at(stage)
        w = torch.zeros(K, points.shape[2] + 1, dtype=game.dtype, device=game.device)
        points, labels, lam = (
            torch.from_numpy(part).to(w) for part in (points, labels, poison.lam[:, stage])
        )
        problem = game.problem(
            game.remaining(replaced), points, labels, lam, every, w, epochs[-1], testing.rate
        )
        for e, (before, after) in enumerate(pairwise((0, *epochs))):
            with torch.no_grad():
                w = game.model.train(problem, w, after - before)
                check_finite(problem, w)
                agreement = (game.model.scores(w, game.test.X) * game.test.y).sign()
            error[:, stage, e] = 0.5 * (1.0 - agreement.double().mean(1).cpu().numpy())
            norm[:, stage, e] = w.double().norm(dim=1).cpu().numpy() / w.shape[1]
    lam = poison.lam[:, :, 0].astype(np.float64)
    return Longer(tuple(chosen), error, norm, lam, tuple(edges))
