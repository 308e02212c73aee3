import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from poisoning.arrays import to_dense
from poisoning.errors import SolverError
from poisoning.models import svm
from poisoning.models.svm import train_svm
from poisoning.models.svm_kernels import descend_csr, descend_dense, shuffle


def problem(seed=0, n=120, d=30, sparse=True):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.4, 1.0, d), (n, d)).astype(float)
    direction = rng.normal(size=d)
    signal = counts @ direction
    y = np.where(signal - np.median(signal) + rng.normal(size=n) > 0.0, 1.0, -1.0)
    return (sp.csr_array(counts) if sparse else counts), y


def objective(theta, bias, X, y, lam, weights):
    hinge = np.maximum(0.0, 1.0 - y * (X @ theta + bias))
    return 0.5 * lam * (theta @ theta + bias**2) + weights @ hinge / weights.sum()


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("lam", [1e-3, 0.09, 1.1])
def test_optimality_conditions_hold(sparse, lam):
    X, y = problem(sparse=sparse)
    solution = train_svm(X, y, lam, tol=1e-10)
    upper = 1.0 / (lam * len(y))
    margins = solution.model.margins(X, y)
    assert np.all((solution.alpha >= 0.0) & (solution.alpha <= upper))
    assert np.allclose(solution.model.theta, X.T @ (solution.alpha * y), atol=1e-10)
    assert np.isclose(solution.model.bias, solution.alpha @ y)
    slack = 1e-4
    assert np.all(solution.alpha[margins > 1.0 + slack] == 0.0)
    assert np.allclose(solution.alpha[margins < 1.0 - slack], upper)
    assert 0.0 <= solution.gap + 1e-12 <= 1e-10 * solution.objective + 1e-12


@pytest.mark.parametrize("lam", [0.01, 0.3])
def test_agrees_with_liblinear(lam):
    X, y = problem(1, n=300)
    ours = train_svm(X, y, lam, tol=1e-9)
    peer = LinearSVC(loss="hinge", C=1.0 / (lam * len(y)), tol=1e-10, max_iter=1_000_000)
    peer.fit(X.tocsr().astype(float), y)
    assert np.allclose(ours.model.theta, peer.coef_.ravel(), atol=1e-4)
    assert np.isclose(ours.model.bias, peer.intercept_[0], atol=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_cvxpy_under_weights(seed):
    X, y = problem(seed, n=60, d=15)
    lam, weights = 0.05, np.random.default_rng(seed).choice([0.0, 0.5, 1.0, 3.0], 60)
    theta, bias = cp.Variable(15), cp.Variable()
    hinge = cp.pos(1.0 - cp.multiply(y, to_dense(X) @ theta + bias))
    value = lam / 2 * (cp.sum_squares(theta) + bias**2) + weights @ hinge / weights.sum()
    expected = cp.Problem(cp.Minimize(value)).solve(solver="CLARABEL")
    ours = train_svm(X, y, lam, weights=weights, tol=1e-9)
    assert np.isclose(ours.objective, expected, rtol=1e-6)
    assert np.allclose(ours.model.theta, theta.value, atol=1e-4)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 40),
    d=st.integers(1, 12),
    lam=st.sampled_from([1e-3, 0.1, 10.0]),
)
def test_certificate_is_true_and_no_perturbation_does_better(seed, n, d, lam):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(n, d)), rng.choice([-1.0, 1.0], n)
    weights = rng.integers(0, 3, n) + (np.arange(n) == 0)
    solution = train_svm(X, y, lam, weights=weights.astype(float))
    value = objective(solution.model.theta, solution.model.bias, X, y, lam, weights)
    assert np.isclose(value, solution.objective, rtol=1e-9)
    assert solution.gap <= 1e-6 * solution.objective
    for _ in range(5):
        theta = solution.model.theta + 1e-2 * rng.normal(size=d)
        assert objective(theta, solution.model.bias, X, y, lam, weights) >= value - solution.gap


def test_integer_weights_are_copies_and_zero_weights_are_absent():
    X, y = problem(2)
    weights = np.random.default_rng(2).integers(0, 4, len(y))
    copies = np.repeat(np.arange(len(y)), weights)
    weighted = train_svm(X, y, 0.05, weights=weights.astype(float), tol=1e-9)
    repeated = train_svm(X[copies], y[copies], 0.05, tol=1e-9)
    assert np.allclose(weighted.model.theta, repeated.model.theta, atol=1e-4)
    assert np.all(weighted.alpha[weights == 0] == 0.0)


def test_sparse_and_dense_data_give_the_same_model():
    X, y = problem(3)
    ours, dense = train_svm(X, y, 0.02, tol=1e-9), train_svm(to_dense(X), y, 0.02, tol=1e-9)
    assert np.allclose(ours.model.theta, dense.model.theta, atol=1e-5)


def test_warm_start_reaches_the_same_answer_sooner():
    X, y = problem(4, n=2000, d=200)
    cold = train_svm(X, y, 0.01, tol=1e-8)
    again = train_svm(X, y, 0.01, tol=1e-8, alpha0=cold.alpha)
    assert again.epochs == 0
    weights = np.ones(2000)
    weights[:40] = 0.0
    start = cold.alpha * 2000 / 1960
    fresh = train_svm(X, y, 0.01, weights=weights, tol=1e-8)
    warm = train_svm(X, y, 0.01, weights=weights, alpha0=start, tol=1e-8)
    assert warm.epochs < fresh.epochs
    assert np.allclose(warm.model.theta, fresh.model.theta, atol=1e-4)


def test_collinear_poison_of_both_labels_does_not_stall():
    X, y = problem(5, n=400, d=50)
    cluster = np.repeat(10.0 * to_dense(X[:2]), 100, axis=0)
    X = sp.vstack([X, sp.csr_array(cluster), sp.csr_array(cluster)], format="csr")
    y = np.concatenate([y, np.ones(200), -np.ones(200)])
    assert train_svm(X, y, 1e-3, tol=1e-9).gap >= -1e-12


def test_same_input_same_bits():
    X, y = problem(6)
    first, second = train_svm(X, y, 0.01), train_svm(X, y, 0.01)
    assert first.model.theta.tobytes() == second.model.theta.tobytes()


def test_a_single_class_is_answered():
    X, _ = problem(7)
    assert train_svm(X, np.ones(X.shape[0]), 0.1).model.error(X, np.ones(X.shape[0])) == 0.0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": np.full(40, 2.0)}, "y must be -1 and +1, it holds 2."),
        ({"y": np.ones(39)}, "y must have one label for each of 40 rows, it has 39."),
        ({"lam": 0.0}, "lam must be a finite number above 0, not 0.0."),
        ({"weights": np.zeros(40)}, "weights must not all be 0."),
        ({"weights": -np.ones(40)}, "weights must be at least 0, it holds -1."),
        ({"alpha0": np.full(40, np.nan)}, "alpha0 must be finite, it holds NaN or infinity."),
        ({"tol": np.nan}, "tol must be a finite number above 0, not nan."),
        ({"max_epochs": -1}, "max_epochs must be a whole number of at least 0, not -1."),
    ],
)
def test_bad_input_is_refused(change, sentence):
    X, y = problem(8, n=40)
    with pytest.raises(ValueError) as refusal:
        train_svm(**({"X": X, "y": y, "lam": 0.1} | change))
    assert str(refusal.value) == sentence


def test_features_too_far_from_0_are_an_error_that_says_what_to_change():
    rng = np.random.default_rng(0)
    X, y = 1e12 + rng.normal(size=(30, 3)), np.where(rng.random(30) < 0.5, 1.0, -1.0)
    with pytest.raises(SolverError, match=r"gap .* after .* epochs.*bring the features nearer"):
        train_svm(X, y, 1e-4, max_epochs=20)


def test_training_goes_on_where_rounding_takes_most_of_the_tolerance(monkeypatch):
    """As with thousands of long rows: there it takes 6e-10 of the objective."""

    def widened(self, w, alpha, primal, gap, tol):
        return w, primal, gap + 6e-10 * primal

    monkeypatch.setattr(svm._Problem, "beyond_rounding", widened)
    for seed in range(8):
        X, y = problem(seed)
        for tol in np.geomspace(6.2e-10, 1e-7, 20):
            solution = train_svm(X, y, 0.09, tol=tol)
            assert solution.gap <= tol * solution.objective
    with pytest.raises(SolverError, match=r"tolerance 5.0e-10"):
        train_svm(X, y, 0.09, tol=5e-10)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e5])
@pytest.mark.parametrize("lam", [1e-4, 0.1, 10.0])
def test_overlapping_classes_at_any_scale_are_certified(scale, lam):
    rng = np.random.default_rng(3)
    X, y = scale * rng.normal(size=(120, 6)), np.where(rng.random(120) < 0.5, 1.0, -1.0)
    solution = train_svm(X, y, lam)
    margins = y * (X @ solution.model.theta + solution.model.bias)
    square = solution.model.theta @ solution.model.theta + solution.model.bias**2
    primal = 0.5 * lam * square + np.mean(np.maximum(0.0, 1.0 - margins))
    combined = np.append(X.T @ (solution.alpha * y), solution.alpha @ y)
    dual = lam * (solution.alpha.sum() - 0.5 * combined @ combined)
    assert solution.alpha.min() >= 0.0 and solution.alpha.max() <= 1.0 / (lam * 120)
    assert solution.objective == pytest.approx(primal, rel=1e-12)
    assert primal - dual <= 1e-6 * primal


def test_copies_of_a_point_with_flipped_labels_are_certified():
    solution = train_svm(np.array([[100.0], [100.0]]), np.array([1.0, -1.0]), 0.1)
    assert solution.objective == pytest.approx(1.0, rel=1e-6)
    assert solution.gap <= 1e-6


def test_an_interior_point_agrees_with_descent():
    X, y = problem(9, n=400)
    weights = np.arange(400) % 3.0
    descent = train_svm(X, y, 0.01, weights=weights, tol=1e-9)
    interior = train_svm(X, y, 0.01, weights=weights, tol=1e-9, max_epochs=0)
    assert interior.epochs == 0
    assert interior.objective == pytest.approx(descent.objective, rel=2e-9)
    assert np.allclose(interior.model.theta, descent.model.theta, atol=1e-4)
    assert np.all(interior.alpha[weights == 0.0] == 0.0)


def plain_descent(X, y, upper, alpha, w, active, tolerance, epochs):
    """What the kernels compute, shuffled the same way."""
    diagonal, active, size = (X**2).sum(1) + 1.0, active.copy(), len(active)
    state = np.ones(1, dtype=np.uint64)
    highest, lowest = np.inf, -np.inf
    for epoch in range(epochs):
        shuffle.py_func(active, size, state)
        seen, position = [], 0
        while position < size:
            i = active[position]
            gradient = y[i] * (X[i] @ w[:-1] + w[-1]) - 1.0
            at_zero, at_top = alpha[i] == 0.0, alpha[i] == upper[i]
            out = (at_zero and gradient > max(highest, 0)) or (
                at_top and gradient < min(lowest, 0) and not at_zero
            )
            if out:
                size -= 1
                active[position], active[size] = active[size], active[position]
                continue
            projected = (
                min(gradient, 0.0) if at_zero else max(gradient, 0.0) if at_top else gradient
            )
            seen.append(projected)
            if projected != 0.0:
                new = np.clip(alpha[i] - gradient / diagonal[i], 0.0, upper[i])
                w += (new - alpha[i]) * y[i] * np.append(X[i], 1.0)
                alpha[i] = new
            position += 1
        if size == 0 or max(seen) - min(seen) <= tolerance:
            return epoch + 1
        highest = max(seen) if max(seen) > 0.0 else np.inf
        lowest = min(seen) if min(seen) < 0.0 else -np.inf
    return epochs


@pytest.mark.parametrize("tolerance", [0.0, 0.5])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # modular, on purpose
def test_kernels_do_what_plain_numpy_does(tolerance):
    X, y = problem(10, n=60, d=10)
    dense, upper = to_dense(X), np.full(60, 0.3)
    diagonal = (dense**2).sum(1) + 1.0
    runs = []
    for kernel, rows in (
        (descend_csr, (X.data, X.indices, X.indptr)),
        (descend_dense, (dense,)),
    ):
        alpha, w, state = np.zeros(60), np.zeros(11), np.ones(1, dtype=np.uint64)
        done = kernel(*rows, y, upper, diagonal, alpha, w, np.arange(60), state, tolerance, 30)
        runs.append((done, alpha, w))
    alpha, w = np.zeros(60), np.zeros(11)
    done = plain_descent(dense, y, upper, alpha, w, np.arange(60), tolerance, 30)
    for run in runs:
        assert run[0] == done
        assert np.allclose(run[1], alpha, atol=1e-9)
        assert np.allclose(run[2], w, atol=1e-9)


@pytest.mark.parametrize("seed", [1, 5, 9])
def test_near_copies_of_one_point_do_not_stall_training(seed):
    # Poison looks like this. Between near copies the dual is nearly flat: a Newton direction there
    # is long, and runs into the bounds of a point that has to give way before the others can move.
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(120) < 0.5, 1.0, -1.0)
    X = rng.random((120, 40)) + 0.3 * y[:, None] * rng.random(40)
    copies = X[y < 0.0].mean(axis=0) + 0.01 * rng.normal(size=(12, 40))
    X, y = np.vstack([X, copies]), np.append(y, np.ones(12))
    solution = train_svm(X, y, 0.001)
    assert solution.gap <= 1e-6 * solution.objective
