"""Decoy parameters: what the attacker would like the defender to learn.

Section 4.2.1, Algorithm 3 and Appendix B.2 of Koh et al. 2021. For a quantile q and r copies,

    θ_decoy(q, r) = argmin L(θ; D_c ∪ r copies of D_flip(q)),

D_flip(q) being the test points that the clean model classifies worst, with their labels flipped.
Such a model errs on these points and still fits the clean data, so that little poison suffices to
move a learner near it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, vstack
from poisoning.games.linear import LinearGame
from poisoning.models.linear import LinearModel
from poisoning.models.svm import train_svm


@dataclass(frozen=True)
class Decoy:
    """Decoy parameters with their test error and their clean training loss.

    ``test_error`` is the 0-1 error on the test data as they are, ``train_loss`` the regularised
    loss of Eq. (2) on the clean training data; ``quantile`` and ``copies`` are q and r.
    """

    model: LinearModel
    test_error: float
    train_loss: float
    quantile: float
    copies: int


def find_decoys(
    X: Matrix,
    y: Float[ndarray, "n"],
    X_test: Matrix,
    y_test: Float[ndarray, "m"],
    lam: float,
    quantiles: Sequence[float],
    copies: Sequence[int],
    *,
    clean: LinearModel,
) -> list[Decoy]:
    """Algorithm 3 over the grid quantiles × copies, pruned, in the order of the grid.

    ``clean`` is the model θ_c trained on (X, y). D_flip(q) holds the test points whose margin under
    θ_c is at most its q-quantile over the test data, both classes together: Algorithm 3 flips those
    with loss ℓ(θ_c; x, y) ≥ γ, and γ runs over quantiles of the loss. (Appendix B.2 has the loss of
    the flipped label instead, which would choose the points classified best.) The margin orders the
    points like the loss, and also those whose hinge loss is 0.

    Raises ``ValueError`` or ``TypeError`` for an invalid argument.
    """
    X = checks.matrix(X, "X", columns=len(checks.instance(clean, "clean", LinearModel).theta))
    y = checks.signs(y, "y", X.shape[0])
    X_test = checks.matrix(X_test, "X_test", columns=X.shape[1])
    y_test, lam = checks.signs(y_test, "y_test", X_test.shape[0]), checks.positive(lam, "lam")
    quantiles = [checks.share(quantile, "quantiles") for quantile in quantiles]
    copies = [checks.whole(many, "copies") for many in copies]
    margins = clean.margins(X_test, y_test)
    everything, labels = vstack([X, X_test]), np.concatenate([y, -y_test])
    decoys = []
    for quantile in quantiles:
        flipped = margins <= np.quantile(margins, quantile)
        alpha = None
        for many in copies:
            weights = np.concatenate([np.ones(len(y)), many * flipped])
            solution = train_svm(everything, labels, lam, weights=weights, alpha0=alpha)
            alpha, model = solution.alpha, solution.model
            square = float(model.theta @ model.theta) + model.bias**2
            train_loss = 0.5 * lam * square + float(model.hinge(X, y).mean())
            error = model.error(X_test, y_test)
            decoys.append(Decoy(model, error, train_loss, float(quantile), int(many)))
    return prune(decoys)


def decoy_grid(game: LinearGame, quantiles: Sequence[float], copies: Sequence[int]) -> list[Decoy]:
    """:func:`find_decoys` on the data of a game whose learner solves Eq. (2).

    The grid is trained once for all attacks on the game. Raises what ``find_decoys`` raises, and
    ``TypeError`` for another learner.
    """
    checks.instance(game, "game", LinearGame)
    key = "decoys", tuple(quantiles), tuple(copies)
    data = game.X, game.y, game.X_test, game.y_test, game.lam
    clean = game.clean_svm.model
    find = partial(find_decoys, *data, quantiles, copies, clean=clean)
    return list(game.remember(key, find, tested=True))


def likely_first(
    game: LinearGame,
    quantiles: Sequence[float],
    copies: Sequence[int],
    opening: tuple[float, int],
    rng: np.random.Generator,
) -> Iterator[tuple[Decoy, np.random.Generator]]:
    """The decoy of ``opening`` (q, r), then those of the pruned grid.

    The opening decoy is yielded before any other is trained. The others follow by increasing
    distance of their test error from the opening one's, so that a good attack is found early. Each
    decoy has its own generator, which depends neither on the order nor on what is pruned.
    """
    checks.instance(game, "game", LinearGame)
    own, rest = checks.generator(rng).spawn(2)
    (first,) = decoy_grid(game, opening[:1], opening[1:])
    yield first, own
    cells = list(product(quantiles, copies))
    streams = dict(zip(cells, rest.spawn(len(cells)), strict=True))
    grid = decoy_grid(game, quantiles, copies)
    grid.sort(key=lambda decoy: abs(decoy.test_error - first.test_error))
    for decoy in grid:
        cell = decoy.quantile, decoy.copies
        if cell != opening:
            yield decoy, streams[cell]


def prune(decoys: Sequence[Decoy]) -> list[Decoy]:
    """The decoys that no other dominates by no less test error at no more training loss.

    Appendix B.2. Of decoys that are equal in both the first remains.
    """

    def beaten(i: int, decoy: Decoy) -> bool:
        for j, other in enumerate(decoys):
            as_good = other.test_error >= decoy.test_error and other.train_loss <= decoy.train_loss
            equal = other.test_error == decoy.test_error and other.train_loss == decoy.train_loss
            if as_good and (j < i if equal else True):
                return True
        return False

    return [decoy for i, decoy in enumerate(decoys) if not beaten(i, decoy)]
