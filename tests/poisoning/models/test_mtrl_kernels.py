"""Each compiled kernel beside its plain NumPy twin."""

import cvxpy as cp
import numpy as np
import pytest

from poisoning.models import mtrl_kernels as kernels
from poisoning.models.mtrl import (
    TaskData,
    loss_curvatures,
    loss_slopes,
    loss_values,
)

SHAPES = [(3, 7), (7, 3), (4, 4), (1, 5)]
shapes = pytest.mark.parametrize("shape", SHAPES)
losses = pytest.mark.parametrize("loss", ["square", "hinge"])


def rows(loss, m=3, n=9, d=4):
    """X, y, weights, one of them 0, and W."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(m, n))
    weight = rng.random((m, n))
    weight[1, 2:4] = 0.0
    return (
        rng.normal(size=(m, n, d)), np.sign(y) if loss == "hinge" else y, weight,
        rng.normal(size=(m, d)),
    )  # fmt: skip


def moments(X, y, share):
    return (
        2.0 * np.einsum("mn,mna,mnb->mab", share, X, X),
        2.0 * np.einsum("mn,mn,mna->ma", share, y, X),
    )


@losses
def test_losses_are_those_of_the_formulas(loss):
    X, y, weight, W = rows(loss)
    scores = np.einsum("mna,ma->mn", X, W)
    value, gradient, curved = kernels.losses(X, y, weight, W, loss == "hinge")
    assert value == pytest.approx(np.sum(weight * loss_values(scores, y, loss)), rel=1e-13)
    expected = np.einsum("mn,mna->ma", weight * loss_slopes(scores, y, loss), X)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)
    np.testing.assert_array_equal(curved, weight * loss_curvatures(scores, y, loss) / 2.0)


def test_moments_are_those_of_the_formulas():
    X, y, weight, _ = rows("hinge")
    for mine, expected in zip(TaskData(X, y, weight).moments, moments(X, y, weight), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-13)


def test_added_rows_are_added():
    X, y, weight, _ = rows("square")
    H, c = np.ones((3, 4, 4)), np.ones((3, 4))
    kernels.add_rows(H, c, X, y, weight - 0.5)
    for mine, expected in zip((H, c), moments(X, y, weight - 0.5), strict=True):
        np.testing.assert_allclose(mine, 1.0 + expected, atol=1e-13)


def test_the_distance_from_the_quadratics_gradient():
    X, y, weight, W = rows("square")
    H, c = moments(X, y, weight)
    expected = np.linalg.norm(W - np.einsum("mab,mb->ma", H, 2.0 * W) + c)
    assert kernels.distance_from_gradient(H, c, 2.0 * W, W) == pytest.approx(expected, rel=1e-13)


def test_the_bound_is_that_of_the_norms_of_blocks():
    X, y, weight, _ = rows("square")
    H, _ = moments(X, y, weight)
    expected = 0.0
    for h in H:
        off = np.linalg.norm(h[-1, :-1])
        blocks = np.array([[np.linalg.norm(h[:-1, :-1]), off], [off, h[-1, -1]]])
        expected = max(expected, np.linalg.eigvalsh(blocks)[-1])
        assert np.linalg.eigvalsh(h)[-1] <= expected
    assert kernels.curvature_bound(H) == pytest.approx(expected, rel=1e-13)


def threshold(values, c):
    return np.max(c * np.cumsum(values) / (1.0 + c * np.arange(1, values.size + 1)))


@pytest.mark.parametrize("c", [0.0, 0.01, 0.3, 5.0, 1e9])
@pytest.mark.parametrize("values", [[3.0, 2.0, 1.0, 0.0], [1.0] * 5, [2.0], [0.0, 0.0]])
def test_the_threshold_is_the_largest(values, c):
    values = np.array(values)
    for order in (values, values[::-1].copy()):
        assert kernels.threshold(order, c) == pytest.approx(threshold(values, c), rel=1e-13)


def prox(Z, c):
    """argmin ½‖W − Z‖_F² + c/2 ‖W‖_*², and ‖W‖_*."""
    U, a, Vt = np.linalg.svd(Z, full_matrices=False)
    kept = np.maximum(a - threshold(a, c), 0.0)
    return (U * kept) @ Vt, kept.sum()


def shrink(Z, c, V=None):
    new = np.full_like(Z, np.nan)
    return new, kernels.shrink(Z, c, np.eye(min(Z.shape)) if V is None else V, new)


@shapes
@pytest.mark.parametrize("c", [0.0, 0.01, 0.3, 5.0])
def test_shrinking_is_the_proximal_map(shape, c):
    rng = np.random.default_rng(1)
    V = np.eye(min(shape))
    Z = rng.normal(size=shape)
    for _ in range(5):  # the next one begins with the vectors of the last
        ours, nuclear = shrink(Z, c, V)
        expected, size = prox(Z, c)
        np.testing.assert_allclose(ours, expected, atol=1e-13)
        assert nuclear == pytest.approx(size, rel=1e-13)
        np.testing.assert_allclose(V @ V.T, np.eye(len(V)), atol=1e-14)
        Z = Z + 0.01 * rng.normal(size=shape)


@shapes
@pytest.mark.parametrize("c", [0.01, 0.3, 5.0])
def test_shrinking_agrees_with_cvxpy(shape, c):
    Z = np.random.default_rng(1).normal(size=shape)
    W = cp.Variable(shape)
    cp.Problem(cp.Minimize(cp.sum_squares(W - Z) / 2 + c / 2 * cp.square(cp.normNuc(W)))).solve(
        solver=cp.CLARABEL
    )
    assert shrink(Z, c)[0] == pytest.approx(W.value, abs=1e-4)


def test_zero_stays_zero():
    assert not shrink(np.zeros((3, 5)), 0.5)[0].any()


@pytest.mark.parametrize("rank", [0, 1, 2, 6])
def test_rotations_end_with_eigenvectors(rank):
    """Also of eigenvalues that are equal, or zero."""
    rng = np.random.default_rng(2)
    Q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    S = (Q * np.where(np.arange(6) < rank, 3.0 - np.arange(6) // 2, 0.0)) @ Q.T
    G, V = S.copy(), np.eye(6)
    kernels.diagonalise(G, V)
    np.testing.assert_allclose(V.T @ G @ V, S, atol=1e-14)
    np.testing.assert_allclose(G, np.diag(np.diagonal(G)), atol=1e-14)
    np.testing.assert_allclose(np.sort(np.diagonal(G)), np.linalg.eigvalsh(S), atol=1e-14)


def minimise(H, c, lambda1, lambda2, start, goal, max_iterations):
    L = kernels.curvature_bound(H) + lambda1
    momentum = (1.0 - np.sqrt(lambda1 / L)) / (1.0 + np.sqrt(lambda1 / L))
    Y = W = start
    for step in range(1, max_iterations + 1):
        new, nuclear = prox(Y - ((H @ Y[..., None])[..., 0] + lambda1 * Y - c) / L, lambda2 / L)
        distance = L * np.linalg.norm(Y - new)
        if distance <= goal:
            return new, nuclear, distance, step
        Y = new + momentum * (new - W) if np.sum((Y - new) * (new - W)) <= 0.0 else new
        W = new
    return W, nuclear, distance, max_iterations


@shapes
@pytest.mark.parametrize("most", [3, 1000])
def test_minimising_takes_the_same_steps(shape, most):
    m, d = shape
    rng = np.random.default_rng(3)
    H, c = moments(rng.normal(size=(m, 20, d)), rng.normal(size=(m, 20)), np.full((m, 20), 0.05))
    arguments = H, c, 0.01, 0.02, rng.normal(size=shape), 1e-7, most
    ours, expected = kernels.minimise(*arguments), minimise(*arguments)
    np.testing.assert_allclose(ours[0], expected[0], atol=1e-12)
    assert ours[1] == pytest.approx(expected[1], rel=1e-11)
    assert ours[2] == pytest.approx(expected[2], rel=1e-5)
    assert ours[3] == expected[3]
