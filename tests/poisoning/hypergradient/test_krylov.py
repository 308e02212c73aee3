import numpy as np
import pytest
import torch

from poisoning.hypergradient.krylov import conjugate_gradients, largest_eigenvalue


def spd(rng, k, p):
    A = rng.normal(size=(k, p, p))
    return torch.from_numpy(A @ A.transpose(0, 2, 1) + 0.1 * np.eye(p))


def times(H):
    return lambda v: (H @ v.unsqueeze(-1)).squeeze(-1)


def test_every_system_is_solved_to_its_own_tolerance():
    rng = np.random.default_rng(0)
    H, b = spd(rng, 4, 12), torch.from_numpy(rng.normal(size=(3, 4, 12)))
    b[1, 2] = 0.0
    found = conjugate_gradients(times(H), b, 1e-11, 200)
    exact = torch.linalg.solve(H, b.unsqueeze(-1)).squeeze(-1)
    assert (found.x - exact).abs().max() < 1e-8
    assert found.residual.max() < 1e-10
    assert found.residual[1, 2] == 0.0
    assert bool(found.curved.all())


def test_the_iterate_returned_is_the_last_one():
    """After k iterations x minimises the energy over the k-th Krylov space, not the (k − 1)-th."""
    rng = np.random.default_rng(1)
    H, b = spd(rng, 1, 9), torch.from_numpy(rng.normal(size=(1, 9)))
    for k in (1, 3, 9):
        basis = [b[0]]
        for _ in range(k - 1):
            basis.append(H[0] @ basis[-1])
        B = torch.linalg.qr(torch.stack(basis, dim=1))[0]
        best = B @ torch.linalg.solve(B.T @ H[0] @ B, B.T @ b[0])
        found = conjugate_gradients(times(H), b, 0.0, k)
        assert found.iterations == k
        np.testing.assert_allclose(found.x[0], best, rtol=1e-6)
        true = torch.linalg.norm(b[0] - H[0] @ found.x[0]) / torch.linalg.norm(b[0])
        assert found.residual[0] == pytest.approx(float(true), abs=1e-14)


def test_a_direction_without_curvature_ends_its_system_only():
    H = torch.stack([torch.diag(torch.tensor(v)) for v in ([-1.0, -2.0], [1.0, -1.0], [1.0, 2.0])])
    b = torch.tensor([[1.0, 1.0], [2.0, 0.5], [1.0, 1.0]])
    found = conjugate_gradients(times(H), b, 1e-6, 10)
    assert found.curved.tolist() == [False, False, True]
    assert torch.equal(found.x[0], b[0])  # steepest descent
    assert float(found.x[1] @ b[1]) > 0.0  # still a descent direction
    np.testing.assert_allclose(found.x[2], [1.0, 0.5], rtol=1e-6)


def test_the_largest_eigenvalue():
    rng = np.random.default_rng(2)
    H, start = spd(rng, 3, 20), torch.from_numpy(rng.normal(size=(3, 20)))
    exact = torch.linalg.eigvalsh(H)[:, -1]
    np.testing.assert_allclose(largest_eigenvalue(times(H), start), exact, rtol=2e-3)
    tight = largest_eigenvalue(times(H), start, tolerance=1e-12)
    np.testing.assert_allclose(tight, exact, rtol=1e-10)
