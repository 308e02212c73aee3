"""Each gradient against finite differences of the learner for which it claims to be exact."""

import numpy as np
import pytest
import torch

from poisoning.attacks import patom_gradient
from poisoning.attacks.patom import attack_utility
from poisoning.attacks.patom_gradient import attack_gradient
from poisoning.errors import SolverError
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


@pytest.fixture(params=["factorised", "conjugate gradients"])
def solver(request, monkeypatch):
    if request.param != "factorised":
        monkeypatch.setattr(patom_gradient, "_FEW", 0)
    return request.param


def problem(case, loss, seed=1):
    """Two target tasks; task 0 has no poison and fewer rows. The last rows are the poison."""
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
    clean = TaskData(X[:, :n], y[:, :n], weight[:, :n])
    return train, clean, np.arange(m) < 2


def moved(train, clean):
    """Every poisoned coordinate ± STEP, a problem of the batch each; the shape of the gradient."""
    m, n, d = clean.X.shape
    shape = (m, POISONED, d - 1)
    batch = np.broadcast_to(train.X, (2, *shape, *train.X.shape)).copy()
    for i, j, a in np.ndindex(shape):
        batch[0, i, j, a, i, n + j, a] += STEP
        batch[1, i, j, a, i, n + j, a] -= STEP
    batch = batch.reshape(-1, *train.X.shape)
    data = [np.broadcast_to(a, (len(batch), *a.shape)) for a in (train.y, train.weight)]
    return TaskData(batch, *data), (2, *shape)


def differences(utilities, shape):
    up, down = utilities.reshape(shape)
    return (up - down) / (2.0 * STEP)


def utilities(clean, targets, W, loss):
    return np.array([attack_utility(clean, targets, one, loss)[0] for one in W])


def learned(train, loss, case):
    return solve_mtrl(train, loss, *case[3:5], tol=1e-11, max_iterations=100_000).W


def gradient(train, clean, targets, W, loss, case, method, **options):
    v = attack_utility(clean, targets, W, loss)[1]
    return attack_gradient(train, POISONED, W, v, loss, *case[3:5], method, **options)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@cases
@losses
def test_total_gradient_is_that_of_the_learner(case, loss):
    train, clean, targets = problem(case, loss)
    W = learned(train, loss, case)
    assert np.linalg.matrix_rank(W, 1e-8) == case[5][loss == "hinge"]
    batch, shape = moved(train, clean)
    truth = differences(utilities(clean, targets, learned(batch, loss, case), loss), shape)
    assert relative(gradient(train, clean, targets, W, loss, case, "total"), truth) < 1e-6
    for other in ("paper", "fixed"):  # which also says that the test can tell
        assert relative(gradient(train, clean, targets, W, loss, case, other), truth) > 1e-2


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
    train, clean, targets = problem(case, loss)
    W = learned(train, loss, case)
    np.testing.assert_allclose(
        learned_with_constant_omega(train, loss, case, W), W, atol=1e-7 * np.abs(W).max()
    )
    batch, shape = moved(train, clean)
    models = [
        learned_with_constant_omega(TaskData(*one), loss, case, W)
        for one in zip(batch.X, batch.y, batch.weight, strict=True)
    ]
    truth = differences(utilities(clean, targets, models, loss), shape)
    assert relative(gradient(train, clean, targets, W, loss, case, "fixed"), truth) < 1e-6


@cases
@losses
def test_papers_gradient_is_that_of_equation_13_with_constant_multipliers(case, loss):
    train, clean, targets = problem(case, loss)
    W = learned(train, loss, case)
    scores = np.einsum("mnd,md->mn", train.X, W)
    alpha = -train.weight * loss_slopes(scores, train.y, loss)  # times y for the hinge: Eq. (14)
    Phi = phi(relationship(W), *case[3:5])

    def equation_13(X):
        return np.einsum("ip,ij,...ijd->...pd", Phi, alpha, X)

    np.testing.assert_allclose(equation_13(train.X), W, atol=1e-8 * np.abs(W).max())
    batch, shape = moved(train, clean)
    truth = differences(utilities(clean, targets, equation_13(batch.X), loss), shape)
    assert relative(gradient(train, clean, targets, W, loss, case, "paper"), truth) < 1e-6


def mixed_batch(loss):
    """Three problems of one shape whose solutions differ in rank; the last W is zero."""
    parts = [problem(CASES[0], loss, seed) for seed in (1, 2, 3)]
    X = np.stack([train.X for train, *_ in parts]) * np.array([1.0, 0.1, 1.0])[:, None, None, None]
    X[2] = 0.0
    train = TaskData(X, *(np.stack([getattr(p[0], a) for p in parts]) for a in ("y", "weight")))
    n = parts[0][1].y.shape[-1]
    clean = TaskData(train.X[:, :, :n], train.y[..., :n], train.weight[..., :n])
    return train, clean, np.stack([targets for *_, targets in parts])


@losses
@pytest.mark.parametrize("method", ["paper", "fixed", "total"])
def test_each_problem_of_a_batch_is_as_if_alone_and_torch_agrees(loss, method, solver):
    train, clean, targets = mixed_batch(loss)
    W = learned(train, loss, CASES[0])
    ranks = [int(np.linalg.matrix_rank(one, 1e-8)) for one in W]
    assert len(set(ranks)) == 3
    together = gradient(train, clean, targets, W, loss, CASES[0], method)
    for i in range(3):
        one = [TaskData(data.X[i], data.y[i], data.weight[i]) for data in (train, clean)]
        alone = gradient(*one, targets[i], W[i], loss, CASES[0], method)
        np.testing.assert_allclose(together[i], alone, rtol=0, atol=1e-10)
    tensors = [
        TaskData(*(torch.asarray(a) for a in (data.X, data.y, data.weight)))
        for data in (train, clean)
    ]
    other = gradient(*tensors, torch.asarray(targets), torch.asarray(W), loss, CASES[0], method)
    assert other.dtype == torch.float64
    np.testing.assert_allclose(other.numpy(), together, rtol=0, atol=1e-8)


@cases
@losses
@pytest.mark.parametrize("method", ["fixed", "total"])
def test_both_solvers_agree(case, loss, method, monkeypatch):
    train, clean, targets = problem(case, loss)
    W = learned(train, loss, case)
    factorised = gradient(train, clean, targets, W, loss, case, method)
    monkeypatch.setattr(patom_gradient, "_FEW", 0)
    iterated = gradient(train, clean, targets, W, loss, case, method, tol=1e-11)
    assert relative(iterated, factorised) < 1e-8


def test_absent_points_have_no_gradient():
    train, clean, targets = problem(CASES[0], "square")
    W = learned(train, "square", CASES[0])
    found = gradient(train, clean, targets, W, "square", CASES[0], "total")
    assert np.all(found[0] == 0.0)
    assert np.all(np.abs(found[1:]).max(axis=-1) > 0.0)


def test_utility_is_the_summed_clean_loss_of_the_targets_and_v_its_derivative():
    train, clean, targets = problem(CASES[0], "hinge")
    W = learned(train, "hinge", CASES[0])
    utility, v = attack_utility(clean, targets, W, "hinge")
    scores = np.einsum("mnd,md->mn", clean.X, W)
    present = clean.weight > 0.0
    assert utility == pytest.approx(loss_values(scores, clean.y, "hinge")[:2][present[:2]].sum())
    for i, a in [(0, 0), (1, 3), (2, 1)]:
        shift = np.zeros_like(W)
        shift[i, a] = STEP
        up, down = (attack_utility(clean, targets, W + s * shift, "hinge")[0] for s in (1, -1))
        assert v[i, a] == pytest.approx((up - down) / (2.0 * STEP), rel=1e-6, abs=1e-6)


def test_a_solve_cut_short_is_an_error(monkeypatch):
    monkeypatch.setattr(patom_gradient, "_FEW", 0)
    train, clean, targets = problem(CASES[0], "square")
    W = learned(train, "square", CASES[0])
    with pytest.raises(SolverError, match=r"relative residual .* raise lambda1, max_iterations"):
        gradient(train, clean, targets, W, "square", CASES[0], "total", max_iterations=2)
