"""Each gradient against finite differences of the learner for which it claims to be exact."""

import numpy as np
import pytest

from poisoning.attacks import patom_gradient
from poisoning.attacks.patom_gradient import attack_gradient
from poisoning.errors import SolverError
from poisoning.games.multi_task import MultiTaskGame
from poisoning.models.mtrl import TaskData, loss_slopes, loss_values, phi, relationship, solve_mtrl

POISONED = 3
STEP = 1e-5
CASES = [  # tasks, clean rows, features with the bias, λ1, λ2, rank of W for square loss and hinge
    (4, 20, 6, 0.1, 0.1, (3, 3)),
    (4, 20, 6, 0.05, 5.0, (1, 1)),
    (7, 15, 4, 0.1, 1.0, (2, 2)),
    (7, 15, 4, 0.01, 0.02, (4, 4)),
    (3, 30, 8, 0.1, 0.1, (3, 3)),
    (5, 40, 5, 0.01, 0.001, (5, 5)),
]
cases = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "m{}-d{}-{}-{}".format(*case[:3:2], *case[3:5])
)
losses = pytest.mark.parametrize("loss", ["square", "hinge"])


def problem(case, loss, seed=1):
    """Data with poison in the last rows, and the game without; task 0 has no poison, fewer rows."""
    m, n, d, *_ = case
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(m, n + POISONED, d))
    X[..., -1] = 1.0
    truth = rng.normal(size=(m, 2)) @ rng.normal(size=(2, d)) + 0.3 * rng.normal(size=(m, d))
    y = (X @ truth[..., None])[..., 0] + 0.5 * rng.normal(size=(m, n + POISONED))
    y[:, n:] = rng.normal(size=(m, POISONED))
    weight = np.full(y.shape, 1.0 / (n + POISONED))
    weight[0, n - 2 :] = 0.0
    weight[0, : n - 2] = 1.0 / (n - 2)
    y = np.sign(y) if loss == "hinge" else y
    train = TaskData(X, y, weight)
    sizes = [n - 2] + [n] * (m - 1)
    tasks = [(X[i, :size, :-1], y[i, :size]) for i, size in enumerate(sizes)]
    game = MultiTaskGame(
        tasks, tasks, targets=[0, 1], attacking=[1], loss=loss, lambda1=case[3], lambda2=case[4]
    )
    return train, game


def differences(train, utility):
    """Differences of ``utility``, a function of training data, in every poisoned coordinate."""
    m, rows, d = train.X.shape
    found = np.zeros((m, POISONED, d - 1))
    for i, j, a in np.ndindex(found.shape):
        ends = []
        for sign in (1.0, -1.0):
            X = train.X.copy()
            X[i, rows - POISONED + j, a] += sign * STEP
            ends.append(utility(TaskData(X, train.y, train.weight)))
        found[i, j, a] = (ends[0] - ends[1]) / (2.0 * STEP)
    return found


def learned(train, loss, case):
    return solve_mtrl(train, loss, *case[3:5], tol=1e-11, max_iterations=100_000).W


def gradient(train, game, W, method, **options):
    v = game.utility(W)[1]
    rates = game.loss, game.lambda1, game.lambda2
    return attack_gradient(train, POISONED, W, v, *rates, method, **options)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@cases
@losses
def test_total_gradient_is_that_of_the_learner(case, loss):
    train, game = problem(case, loss)
    W = learned(train, loss, case)
    assert np.linalg.matrix_rank(W, 1e-8) == case[5][loss == "hinge"]
    truth = differences(train, lambda data: game.utility(learned(data, loss, case))[0])
    assert relative(gradient(train, game, W, "total"), truth) < 1e-6
    for other in ("paper", "fixed"):  # which also says that the test can tell
        assert relative(gradient(train, game, W, other), truth) > 1e-2


def learned_with_constant_omega(train, loss, case, W):
    """Eq. (8) on the range of Ω = relationship(W): Newton in Z, W = B Z, B a basis of the range."""
    lambda1, lambda2 = case[3:5]
    values, vectors = np.linalg.eigh(relationship(W))
    kept = values > 1e-9
    B, stiff = vectors[:, kept], lambda1 + lambda2 / values[kept]
    Z = B.T @ W
    for _ in range(50):
        scores = np.einsum("mnd,md->mn", train.X, B @ Z)
        slopes = train.weight * loss_slopes(scores, train.y, loss)
        bends = 2.0 * train.weight * ((loss == "square") | (train.y * scores < 1.0))
        residual = np.einsum("mr,mn,mnd->rd", B, slopes, train.X) + stiff[:, None] * Z
        H = np.einsum("mr,ms,mn,mna,mnb->rasb", B, B, bends, train.X, train.X, optimize=True)
        H = H.reshape(Z.size, Z.size) + np.diag(np.repeat(stiff, Z.shape[1]))
        step = np.linalg.solve(H, residual.ravel()).reshape(Z.shape)
        Z = Z - step
        if np.abs(step).max() < 1e-13:
            return B @ Z
    raise AssertionError("Newton's method did not converge.")


@cases
@losses
def test_fixed_gradient_is_that_of_a_learner_with_constant_omega(case, loss):
    train, game = problem(case, loss)
    W = learned(train, loss, case)
    np.testing.assert_allclose(
        learned_with_constant_omega(train, loss, case, W), W, atol=1e-7 * np.abs(W).max()
    )
    truth = differences(
        train, lambda data: game.utility(learned_with_constant_omega(data, loss, case, W))[0]
    )
    assert relative(gradient(train, game, W, "fixed"), truth) < 1e-6


@cases
@losses
def test_papers_gradient_is_that_of_equation_13_with_constant_multipliers(case, loss):
    train, game = problem(case, loss)
    W = learned(train, loss, case)
    scores = np.einsum("mnd,md->mn", train.X, W)
    alpha = -train.weight * loss_slopes(scores, train.y, loss)  # times y for the hinge: Eq. (14)
    Phi = phi(relationship(W), *case[3:5])

    def equation_13(X):
        return np.einsum("ip,ij,ijd->pd", Phi, alpha, X)

    np.testing.assert_allclose(equation_13(train.X), W, atol=1e-8 * np.abs(W).max())
    truth = differences(train, lambda data: game.utility(equation_13(data.X))[0])
    assert relative(gradient(train, game, W, "paper"), truth) < 1e-6


@losses
@pytest.mark.parametrize("method", ["paper", "fixed", "total"])
@pytest.mark.parametrize("few", [0, 300], ids=["conjugate gradients", "factorised"])
def test_where_nothing_is_learned_nothing_moves(loss, method, few, monkeypatch):
    """W = 0 has rank 0: no direction is free."""
    monkeypatch.setattr(patom_gradient, "_FEW", few)
    train, game = problem(CASES[0], loss)
    train = TaskData(0.0 * train.X, train.y, train.weight)
    found = gradient(train, game, learned(train, loss, CASES[0]), method)
    assert not found.any()


@cases
@losses
@pytest.mark.parametrize("method", ["fixed", "total"])
def test_both_solvers_agree(case, loss, method, monkeypatch):
    train, game = problem(case, loss)
    W = learned(train, loss, case)
    factorised = gradient(train, game, W, method)
    monkeypatch.setattr(patom_gradient, "_FEW", 0)
    iterated = gradient(train, game, W, method, tol=1e-11)
    assert relative(iterated, factorised) < 1e-8


def test_absent_points_have_no_gradient():
    train, game = problem(CASES[0], "square")
    W = learned(train, "square", CASES[0])
    found = gradient(train, game, W, "total")
    assert np.all(found[0] == 0.0)
    assert np.all(np.abs(found[1:]).max(axis=-1) > 0.0)


def test_utility_is_the_summed_clean_loss_of_the_targets_and_v_its_derivative():
    train, game = problem(CASES[0], "hinge")
    W = learned(train, "hinge", CASES[0])
    utility, v = game.utility(W)
    scores = np.einsum("mnd,md->mn", game.data.X, W)
    present = game.data.weight > 0.0
    losses = loss_values(scores, game.data.y, "hinge")
    assert utility == pytest.approx(losses[:2][present[:2]].sum())
    for i, a in [(0, 0), (1, 3), (2, 1)]:
        shift = np.zeros_like(W)
        shift[i, a] = STEP
        up, down = (game.utility(W + s * shift)[0] for s in (1, -1))
        assert v[i, a] == pytest.approx((up - down) / (2.0 * STEP), rel=1e-6, abs=1e-6)


def test_a_solve_cut_short_is_an_error(monkeypatch):
    monkeypatch.setattr(patom_gradient, "_FEW", 0)
    train, game = problem(CASES[0], "square")
    W = learned(train, "square", CASES[0])
    with pytest.raises(SolverError, match=r"relative residual .* raise lambda1, max_iterations"):
        gradient(train, game, W, "total", max_iterations=2)
