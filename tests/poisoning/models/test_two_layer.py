import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poisoning.models.two_layer import TwoLayerNets, block_of_steps, train_online
from poisoning.models.two_layer_kernels import output_of_tile, take_steps


def problem(runs, n, m, d, dtype, seed=0):
    """Unit examples, labels of a halfspace with each run's own flips, nets and step sizes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = np.where(X @ rng.normal(size=d) > 0.0, 1.0, -1.0) * np.where(
        rng.random((runs, n)) < 0.1, -1.0, 1.0
    )
    nets = TwoLayerNets.draw(runs, m, d, rng, dtype)
    return nets, X.astype(dtype), y.astype(dtype), np.linspace(1.0, 4.0, runs).astype(dtype)


def one_at_a_time(nets, X, y, steps):
    """The definition: a forward pass and a rank-one update per example."""
    W, a, m = nets.W.copy(), nets.a, nets.W.shape[1]
    scores = []
    for t, x in enumerate(X):
        z = W @ x
        f = (a * np.maximum(z, 0.0)).sum(axis=1) / np.sqrt(m)
        pull = steps * y[:, t] / (np.sqrt(m) * (1.0 + np.exp(y[:, t] * f)))
        W += (pull[:, None] * a * (z > 0.0))[:, :, None] * x
        scores.append(f)
    return W, np.array(scores).T


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-10)])
@pytest.mark.parametrize("block", [1, 7, 64, 256])
@pytest.mark.slow
def test_blocks_have_the_iterates_of_one_example_at_a_time(dtype, tolerance, block):
    nets, X, y, steps = problem(3, 150, 40, 12, dtype)
    W, scores = one_at_a_time(nets, X, y, steps)
    run = train_online(nets, X, y, steps, block=block)
    assert np.abs(run.nets.W - W).max() <= tolerance
    assert np.abs(run.scores - scores).max() <= tolerance
    assert run.nets.W.dtype == dtype
    assert np.abs(W - nets.W).max() > 0.1


def test_nets_wider_than_a_tile_and_a_product_have_them_too():
    nets, X, y, steps = problem(3, 40, 9000, 4, np.float64)
    W, _ = one_at_a_time(nets, X, y, steps)
    assert np.abs(train_online(nets, X, y, steps).nets.W - W).max() <= 1e-10


def test_a_step_is_the_gradient_of_the_logistic_loss():
    nets, X, y, steps = problem(1, 1, 30, 6, np.float64)
    W = torch.tensor(nets.W[0], requires_grad=True)
    f = torch.tensor(nets.a[0]) @ torch.relu(W @ torch.tensor(X[0])) / np.sqrt(30)
    torch.nn.functional.softplus(-y[0, 0] * f).backward()
    expected = nets.W[0] - steps[0] * W.grad.numpy()
    assert np.allclose(train_online(nets, X, y, steps).nets.W[0], expected, atol=1e-14)


def test_torch_and_numpy_agree():
    arrays = problem(3, 150, 40, 12, np.float64)
    nets, X, y, steps = arrays
    probe = (X[:50], y[0, :50])
    ours = train_online(nets, X, y, steps, probe=probe, checkpoints=[0, 60, 150])
    tensors = [torch.as_tensor(array) for array in (nets.W, nets.a, X, y, steps, *probe)]
    W, a, X, y, steps, *probe = tensors
    theirs = train_online(
        TwoLayerNets(W, a), X, y, steps, probe=tuple(probe), checkpoints=[0, 60, 150], block=50
    )
    assert isinstance(theirs.nets.W, torch.Tensor)
    assert np.allclose(theirs.nets.W.numpy(), ours.nets.W, atol=1e-12)
    assert np.allclose(theirs.scores.numpy(), ours.scores, atol=1e-12)
    for one, other in zip(ours.checkpoints, theirs.checkpoints, strict=True):
        assert one.examples == other.examples
        assert np.allclose(one.accuracy, other.accuracy)
        assert np.allclose(one.active_fraction, other.active_fraction)
        assert np.allclose(one.distance, other.distance)


def test_the_compiled_steps_are_those_of_the_matrix_form():
    nets, X, y, steps = problem(2, 40, 33, 5, np.float64)
    plain, scores = nets.W.copy(), np.empty_like(y)
    scores = block_of_steps(plain, nets.a, X, y, steps)
    Z = X @ nets.W.reshape(-1, 5).T
    D, compiled = np.empty_like(Z), np.empty_like(y)
    take_steps(Z, D, nets.a.reshape(-1), X @ X.T, y, steps, compiled, 0, 40)
    assert np.allclose(compiled, scores, atol=1e-12)
    assert np.allclose(nets.W + (D.T @ X).reshape(nets.W.shape), plain, atol=1e-12)


@pytest.mark.parametrize("count", range(6))
def test_a_tile_is_brought_up_to_date_and_summed(count):
    rng = np.random.default_rng(count)
    z, a, gram = rng.normal(size=19), rng.choice([-1.0, 1.0], 19), rng.normal(size=count)
    D = rng.normal(size=(8, 30))
    expected = z + gram @ D[2 : 2 + count, 4:23]
    total = output_of_tile(z, a, D, gram, 2, 4)
    assert np.allclose(z, expected)
    assert total == pytest.approx(a @ np.maximum(expected, 0.0))


@settings(derandomize=True, max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(1, 20), st.integers(0, 10**6))
def test_runs_side_by_side_are_the_runs_alone(runs, n, m, seed):
    nets, X, y, steps = problem(runs, n, m, 5, np.float64, seed)
    together = train_online(nets, X, y, steps, block=16)
    for r in range(runs):
        one = slice(r, r + 1)
        alone = train_online(TwoLayerNets(nets.W[one], nets.a[one]), X, y[one], steps[one])
        assert np.allclose(alone.nets.W, together.nets.W[one], atol=1e-10)


def test_the_same_call_gives_the_same_bits_and_leaves_its_input():
    nets, X, y, steps = problem(2, 300, 64, 12, np.float32)
    before = nets.W.copy()
    first, second = (train_online(nets, X, y, steps).nets.W for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(nets.W, before)
    fortran = TwoLayerNets(np.asfortranarray(nets.W), nets.a)
    assert np.array_equal(train_online(fortran, X, y, steps).nets.W, first)


def test_checkpoints_measure_the_networks_at_that_time():
    nets, X, y, steps = problem(2, 90, 25, 8, np.float64)
    probe = (X[:40], y[0, :40])
    run = train_online(nets, X, y, steps, probe=probe, checkpoints=[50, 0, 90, 50], block=32)
    assert [check.examples for check in run.checkpoints] == [0, 50, 90]
    assert np.array_equal(run.checkpoints[0].distance, [0.0, 0.0])
    half = train_online(nets, X[:50], y[:, :50], steps).nets
    check = run.checkpoints[1]
    z = np.einsum("rmd,nd->rnm", half.W, probe[0])
    f = np.einsum("rnm,rm->rn", np.maximum(z, 0.0), nets.a)
    assert np.allclose(check.active_fraction, (z > 0.0).mean(axis=(1, 2)))
    assert np.allclose(check.accuracy, (probe[1] * f > 0.0).mean(axis=1))
    assert np.allclose(check.distance, np.linalg.norm((half.W - nets.W).reshape(2, -1), axis=1))


def test_scores_before_the_steps_are_those_of_the_iterates():
    nets, X, y, steps = problem(1, 30, 25, 8, np.float64)
    run = train_online(nets, X, y, steps)
    early = train_online(nets, X[:20], y[:, :20], steps).nets
    assert np.allclose(run.scores[:, 0], nets.scores(X[:1])[:, 0])
    assert np.allclose(run.scores[:, 20], early.scores(X[20:21])[:, 0])


def test_input_gradients_are_those_of_autograd():
    nets, X, _, _ = problem(2, 9, 25, 8, np.float64)
    inputs = torch.tensor(X, requires_grad=True)
    hidden = torch.relu(torch.einsum("rmd,nd->rnm", torch.tensor(nets.W), inputs))
    scores = torch.einsum("rnm,rm->rn", hidden, torch.tensor(nets.a)) / 5.0
    assert np.allclose(nets.scores(X), scores.detach().numpy())
    for run in range(2):
        (gradient,) = torch.autograd.grad(scores[run].sum(), inputs, retain_graph=True)
        assert np.allclose(nets.input_gradients(X)[run], gradient.numpy())


def test_a_net_is_the_same_in_either_precision():
    single, double = (
        TwoLayerNets.draw(2, 30, 5, np.random.default_rng(3), dtype)
        for dtype in (np.float32, np.float64)
    )
    assert np.array_equal(single.W, double.W.astype(np.float32))
    assert set(np.unique(double.a)) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": lambda y: 0.5 * y}, "y must be -1"),
        ({"steps": lambda s: 0.0 * s}, "steps must be above 0"),
        ({"X": lambda X: X.astype(np.float32)}, "X must hold float64"),
    ],
)
def test_wrong_arguments_are_refused(change, message):
    nets, X, y, steps = problem(2, 10, 5, 4, np.float64)
    arguments = {"X": X, "y": y, "steps": steps}
    arguments |= {name: alter(arguments[name]) for name, alter in change.items()}
    with pytest.raises((ValueError, TypeError), match=message):
        train_online(nets, **arguments)


def test_checkpoints_need_a_probe_and_a_place():
    nets, X, y, steps = problem(1, 10, 5, 4, np.float64)
    with pytest.raises(ValueError, match="probe"):
        train_online(nets, X, y, steps, checkpoints=[3])
    with pytest.raises(ValueError, match="from 0 to 10"):
        train_online(nets, X, y, steps, checkpoints=[11], probe=(X, y[0]))
