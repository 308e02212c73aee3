"""Algorithm 3: the flip set, the weights, and the pruning rule."""

import numpy as np
import pytest
import scipy.sparse as sp

from poisoning.attacks import decoy as module
from poisoning.attacks.decoy import Decoy, decoy_grid, find_decoys, prune
from poisoning.attacks.kkt import KKT
from poisoning.attacks.min_max import MinMax
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM
from poisoning.models.linear import LinearModel
from poisoning.models.svm import train_svm

LAMBDA = 0.05


def corpus(seed=0, n=160, d=20):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.4, 1.0, -1.0)
    X = rng.poisson(np.exp(0.4 * np.outer(y, rng.normal(size=d)) - 0.5)).astype(float)
    return sp.csr_array(X[:120]), y[:120], sp.csr_array(X[120:]), y[120:]


def decoy(test_error, train_loss):
    return Decoy(LinearModel(np.zeros(1), 0.0), test_error, train_loss, 0.5, 1)


def test_a_decoy_is_the_svm_on_clean_data_and_copies_of_flipped_test_points():
    X, y, X_test, y_test = corpus()
    clean = train_svm(X, y, LAMBDA).model
    (found,) = find_decoys(X, y, X_test, y_test, LAMBDA, [0.3], [3], clean=clean)
    margins = clean.margins(X_test, y_test)
    worst = np.flatnonzero(margins <= np.quantile(margins, 0.3))
    copies = np.repeat(worst, 3)
    enlarged = sp.vstack([X, X_test[copies]], format="csr")
    plain = train_svm(enlarged, np.append(y, -y_test[copies]), LAMBDA, tol=1e-8).model
    np.testing.assert_allclose(found.model.theta, plain.theta, atol=2e-3)
    assert found.test_error == found.model.error(X_test, y_test)
    assert (found.quantile, found.copies) == (0.3, 3)


def test_more_copies_err_more_and_fit_the_clean_data_less():
    X, y, X_test, y_test = corpus()
    clean = train_svm(X, y, LAMBDA).model
    found = find_decoys(X, y, X_test, y_test, LAMBDA, [0.4], [1, 4, 16], clean=clean)
    errors, losses = zip(*((d.test_error, d.train_loss) for d in found), strict=True)
    assert list(errors) == sorted(errors) and list(losses) == sorted(losses)
    assert errors[-1] > clean.error(X_test, y_test)


@pytest.fixture
def game():
    return LinearGame(*corpus(), domain="counts", learner=SVM(LAMBDA))


def test_a_grid_is_that_of_the_games_data(game):
    data = game.X, game.y, game.X_test, game.y_test, LAMBDA
    found = decoy_grid(game, [0.4, 0.2], [1, 4])
    direct = find_decoys(*data, [0.4, 0.2], [1, 4], clean=game.clean_svm.model)
    assert [decoy.quantile for decoy in found] == [decoy.quantile for decoy in direct]
    for mine, other in zip(found, direct, strict=True):
        np.testing.assert_array_equal(mine.model.theta, other.model.theta)
    blind = decoy_grid(game.blind(), [0.4, 0.2], [1, 4])
    assert [decoy.test_error for decoy in blind] != [decoy.test_error for decoy in found]


def test_all_attacks_on_one_game_share_one_grid(game, monkeypatch):
    trained = []

    def counted(*arguments, **options):
        trained.append(arguments[5:])
        return find_decoys(*arguments, **options)

    monkeypatch.setattr(module, "find_decoys", counted)
    grid = {"quantiles": (0.2, 0.4), "decoy_copies": (1, 4), "opening": (0.4, 4)}
    alone = KKT(0.05, **grid)(game, 1)
    assert trained == [((0.4,), (4,)), ((0.2, 0.4), (1, 4))]
    MinMax(0.05, **grid)(game, 1)
    again = KKT(0.05, **grid)(game.against(alone.poison).with_defenses([]), 1)
    assert len(trained) == 2
    assert any(again.source.decoy is tried.source.decoy for tried in alone.history)
    KKT(0.05, **grid)(game.blind(), 1)
    assert len(trained) == 4


def test_what_a_caller_does_with_a_grid_changes_no_other(game):
    first = decoy_grid(game, [0.2, 0.4], [1, 4])
    before = list(first)
    first.clear()
    assert decoy_grid(game, [0.2, 0.4], [1, 4]) == before


@pytest.mark.parametrize(
    ("decoys", "kept"),
    [
        ([(0.2, 0.5), (0.3, 0.4)], [1]),  # beaten in both
        ([(0.2, 0.4), (0.3, 0.5)], [0, 1]),  # a trade-off
        ([(0.2, 0.5), (0.2, 0.4)], [1]),  # equal error, more loss
        ([(0.2, 0.5), (0.2, 0.5)], [0]),  # equal in both
        ([(0.1, 0.1), (0.2, 0.2), (0.15, 0.3)], [0, 1]),
    ],
)
def test_pruning_keeps_the_pareto_front(decoys, kept):
    made = [decoy(*pair) for pair in decoys]
    assert prune(made) == [made[i] for i in kept]


def test_games_with_other_test_data_have_decoys_of_their_own():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    y = np.where(X[:, 0] + 0.3 * rng.normal(size=80) > 0.0, 1.0, -1.0)
    game = LinearGame(
        X[:40], y[:40], X[40:60], y[40:60], domain="real", learner=SVM(0.1), defenses=()
    )

    def grid(game):
        return [decoy.model.theta for decoy in decoy_grid(game, (0.2, 0.4), (1, 4))]

    grid(game)
    for other in (game.with_test(X[60:], y[60:]), game.blind()):
        fresh = LinearGame(
            X[:40], y[:40], other.X_test, other.y_test, domain="real", learner=SVM(0.1), defenses=()
        )
        np.testing.assert_array_equal(grid(other), grid(fresh))
