"""Each compiled kernel of the gradient beside its plain NumPy twin."""

import numpy as np
import pytest

from poisoning.attacks import patom_kernels as kernels
from poisoning.models.mtrl import loss_curvatures, loss_slopes

SHAPES = [(3, 7, 2), (7, 3, 2), (4, 4, 4), (1, 5, 1)]  # tasks, features, rank
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "{}-{}-{}".format(*shape))


@pytest.mark.parametrize("loss", ["square", "hinge"])
@pytest.mark.parametrize("bent", [True, False])
def test_pulling_back(loss, bent):
    rng = np.random.default_rng(0)
    X, y, weight = rng.normal(size=(3, 9, 4)), rng.normal(size=(3, 9)), rng.random((3, 9))
    W, u = rng.normal(size=(2, 3, 4))
    weight[1, 6:] = 0.0
    y = np.sign(y) if loss == "hinge" else y
    scores, along = np.einsum("mnd,md->mn", X, W), np.einsum("mnd,md->mn", X, u)
    expected = (weight * loss_slopes(scores, y, loss))[..., None] * u[:, None]
    if bent:
        bend = weight * loss_curvatures(scores, y, loss) * along
        expected = expected + bend[..., None] * W[:, None]
    found = kernels.pull_back(X, y, weight, 5, W, u, loss == "hinge", bent)
    np.testing.assert_allclose(found, -expected[:, 5:, :-1], atol=1e-13)


def operator(shape, following):
    """R's parts, Hessians A, the frame, and A + R as a function of C: free entries to free ones."""
    m, d, rank = shape
    rng = np.random.default_rng(1)
    k, rows = min(m, d), np.arange(m)[:, None] < rank
    free = rows | (np.arange(d) < rank) if following else np.broadcast_to(rows, (m, d))
    stiffness = 2.0 + rng.random((m, d))
    stiffness[:k, :k] += stiffness[:k, :k].T.copy()
    both = free[:k, :k] & free[:k, :k].T
    swap = both * rng.random((k, k)) if following else np.zeros((k, k))
    swap, coupling = swap + swap.T, 0.3 * following
    X = rng.normal(size=(m, 2, d))
    A = X.mT @ X
    left, right = (np.linalg.qr(rng.normal(size=(size, size)))[0] for size in (m, d))

    def apply(C):
        out = stiffness * C + coupling * np.trace(C) * np.eye(m, d)
        out[:k, :k] -= swap * C[:k, :k].T
        out += left.T @ (A @ (left @ C @ right)[..., None])[..., 0] @ right.T
        return out * free

    return free, stiffness, swap, coupling, A, left, right, apply


@shapes
@pytest.mark.parametrize("following", [True, False])
def test_both_ways_to_solve_for_the_free_entries(shape, following):
    free, stiffness, swap, coupling, A, left, right, apply = operator(shape, following)
    units = np.eye(free.size).reshape(-1, *free.shape)[free.ravel()]
    expected = np.stack([apply(unit)[free] for unit in units], axis=1)

    a, b = np.nonzero(free)
    H = kernels.system(right @ A @ right.T, left, a, b, stiffness, swap, coupling)
    np.testing.assert_allclose(H, expected, atol=1e-12)

    target, widths = np.random.default_rng(2).normal(size=free.shape), free.sum(axis=1)
    transposed = np.ascontiguousarray(left.T)
    C, reached = kernels.conjugate_gradients(
        A, transposed, right, widths, stiffness, swap, coupling, stiffness + 1.0, target, 1e-11, 99
    )
    assert not C[~free].any()
    np.testing.assert_allclose(C[free], np.linalg.solve(expected, target[free]), atol=1e-9)
    residual = np.linalg.norm((target - apply(C))[free]) / np.linalg.norm(target[free])
    assert residual == pytest.approx(reached, abs=1e-13)
    assert reached <= 1e-11

    image = np.zeros_like(C)
    curvature = kernels.apply(A, transposed, right, widths, stiffness, swap, coupling, C, image)
    np.testing.assert_allclose(image, apply(C), atol=1e-12)
    assert curvature == pytest.approx(np.sum(C * image))


@shapes
def test_pairs_are_solved_by_cramers_rule(shape):
    free, stiffness, swap, *_ = operator(shape, True)
    k = len(swap)
    C = free * np.random.default_rng(3).normal(size=free.shape)
    image = stiffness * C
    image[:k, :k] -= swap * C[:k, :k].T
    found = np.zeros_like(C)
    trace = kernels.invert_pairs(image, free.sum(axis=1), stiffness, swap, found)
    np.testing.assert_allclose(found, C, atol=1e-13)
    assert trace == pytest.approx(np.trace(C))


def test_a_target_of_zero_needs_no_step():
    free, stiffness, swap, coupling, A, left, right, _ = operator(SHAPES[0], True)
    C, reached = kernels.conjugate_gradients(
        A, left, right, free.sum(axis=1), stiffness, swap, coupling, stiffness, 0.0 * free, 1e-9, 9
    )
    assert reached == 0.0
    assert not C.any()
