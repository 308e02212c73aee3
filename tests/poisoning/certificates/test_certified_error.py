"""No poison exceeds the certificate; every proof is checked by plain NumPy; cvxpy for the bound."""

import os

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import poisoning as po
from poisoning.arrays import vstack
from poisoning.attacks.kkt import KKT
from poisoning.certificates import certified_error
from poisoning.certificates.certified_error import certify_over_lambda, certify_test_error
from poisoning.datasets import binary, fetch, load, prepare, split
from poisoning.errors import SolverError
from poisoning.models.svm import train_svm


def game(seed=0, n=60, d=2, lam=0.1, apart=1.0, domain="real"):
    rng = np.random.default_rng(seed)

    def draw(size):
        y = np.where(np.arange(size) % 3 == 0, 1.0, -1.0)
        X = rng.normal(size=(size, d)) + apart * y[:, None] / np.sqrt(d)
        if domain == "counts":
            return sp.csr_array(np.maximum(np.floor(X + 1.5), 0.0)), y
        return X, y

    X, y = draw(n)
    X_test, y_test = draw(50)
    if domain == "counts":
        X_test = X_test.minimum(X.max())
    return po.LinearGame(
        X, y, X_test, y_test, domain=domain, learner=po.SVM(lam=lam), defenses=()
    )  # fmt: skip


def poisons(certificate, count, rng):
    """Points at the rim of the set's balls, where they do most harm."""
    y = rng.choice([1.0, -1.0], size=count)
    feasible = certificate.feasible
    parts = [feasible.positive if label > 0.0 else feasible.negative for label in y]
    centres = np.array([part.centre for part in parts])
    towards = rng.normal(size=centres.shape)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    return centres + towards * np.array([[part.radius] for part in parts]), y


def with_intercept(X):
    return np.hstack([X.toarray() if sp.issparse(X) else X, np.ones((X.shape[0], 1))])


def trained(played, X, y):
    solution = train_svm(
        vstack([played.X, X]), np.append(played.y, y), played.lam, tol=1e-9
    )  # fmt: skip
    return np.append(solution.model.theta, solution.model.bias)


@pytest.mark.parametrize(
    ("seed", "lam", "points", "d"),
    [(0, 0.1, 1, 2), (1, 1.0, 1, 2), (2, 0.3, 3, 2), (3, 1.0, 6, 5), (4, 0.03, 1, 5)],
)
def test_no_poison_exceeds_the_certificate(seed, lam, points, d):
    played = game(seed, lam=lam, d=d)
    found = certify_test_error(played, points, attacks=())
    X, y = with_intercept(played.X), played.y
    X_test = with_intercept(played.X_test)
    rng = np.random.default_rng(seed)
    for repeat in range(60):
        poison, labels = poisons(found, points, rng)
        if repeat % 2:  # all in one place, as the strongest poison is
            poison, labels = np.tile(poison[:1], (points, 1)), np.tile(labels[:1], points)
        w = trained(played, poison, labels)
        for region in found.regions:
            loss = np.maximum(0.0, 1.0 - y * (X @ w)).mean()
            assert 0.5 * region.a * np.sum((w - region.v) ** 2) + loss <= region.level + 1e-7
            assert np.linalg.norm(w - region.w) <= region.radius + 1e-4
        wrong = X_test @ w * played.y_test <= 0.0
        assert not np.any(wrong & found.certified)
        assert wrong.mean() <= found.bound
    assert found.bound <= found.one_by_one
    assert found.clean <= found.bound


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "lam", "points", "d"), [(6, 0.5, 1, 2), (7, 1.0, 3, 3)])
def test_of_thousands_of_models_none_flips_a_certified_point(seed, lam, points, d):
    played = game(seed, n=40, lam=lam, d=d)
    found = certify_test_error(played, points, attacks=())
    assert found.certified.sum() > 20
    X_test, rng = with_intercept(played.X_test), np.random.default_rng(seed)
    most = 0.0
    for _ in range(1_500):
        poison, labels = poisons(found, 1, rng)
        w = trained(played, np.tile(poison, (points, 1)), np.repeat(labels, points))
        wrong = X_test @ w * played.y_test <= 0.0
        assert not np.any(wrong & found.certified)
        most = max(most, wrong.mean())
    assert found.clean < most <= found.bound


@pytest.mark.parametrize(
    ("seed", "n", "lam", "reached"),
    [(0, 10, 0.5, True), (2, 20, 0.3, True), (1, 20, 0.3, True), (1, 10, 1.0, False)],
)
def test_on_a_line_every_place_of_one_point_is_tried(seed, n, lam, reached):
    rng = np.random.default_rng(seed)
    parts = []
    for size in (n, 12):
        y = np.where(np.arange(size) % 2 == 0, 1.0, -1.0)
        apart = 0.3 if lam == 1.0 else 0.5
        parts += [0.5 * rng.normal(size=(size, 1)) + apart * y[:, None], y]
    played = po.LinearGame(*parts, domain="real", learner=po.SVM(lam=lam), defenses=())
    found = certify_test_error(played, 1, attacks=())
    worst = 0.0
    for label, part in ((1.0, found.feasible.positive), (-1.0, found.feasible.negative)):
        for place in np.linspace(-part.radius, part.radius, 101):
            w = trained(played, part.centre[None] + place, np.array([label]))
            wrong = with_intercept(played.X_test) @ w * played.y_test <= 0.0
            assert not np.any(wrong & found.certified)
            worst = max(worst, wrong.mean())
    assert worst <= found.bound < 1.0
    assert not reached or found.bound == worst


@pytest.mark.parametrize("domain", ["real", "counts"])
def test_every_certified_point_has_a_proof(domain):
    played = game(1, lam=0.5, d=8, apart=2.0, domain=domain)
    found = certify_test_error(played, 1, attacks=())
    X, X_test = with_intercept(played.X), with_intercept(played.X_test)
    assert 10 < found.certified.sum() < 50
    for i in np.flatnonzero(found.certified):
        proof = found.proof(int(i))
        alpha, region = proof.alpha, proof.region
        assert np.all((alpha >= 0.0) & (alpha <= 1.0 / played.n)) and proof.beta >= 0.0
        u = (alpha * played.y) @ X - proof.beta * played.y_test[i] * X_test[i]
        value = alpha.sum() - u @ region.v - u @ u / (2.0 * region.a)
        assert value == pytest.approx(proof.value, rel=1e-9)
        assert value > region.level
    with pytest.raises(ValueError, match="i must be a certified test point"):
        found.proof(int(np.flatnonzero(~found.certified)[0]))


@pytest.mark.parametrize(("domain", "d", "lam"), [("real", 2, 0.3), ("counts", 5, 1.0)])
def test_the_bound_for_all_together_has_a_proof(domain, d, lam):
    played = game(5, lam=lam, d=d, apart=0.7, domain=domain)
    found = certify_test_error(played, 1, attacks=())
    assert found.bound < found.one_by_one
    proof, region, n = found.together, found.together.region, played.n
    X, y = with_intercept(played.X), played.y

    def least(alpha, u, region):
        return alpha.sum() - u @ region.v - u @ u / (2.0 * region.a)

    np.testing.assert_array_equal(proof.tests, np.flatnonzero(~found.certified))
    signed = played.y_test[proof.tests, None] * with_intercept(played.X_test)[proof.tests]
    for one in found.regions:
        assert np.all((one.alpha >= 0.0) & (one.alpha <= 1.0 / n))
        assert least(one.alpha, (one.alpha * y) @ X, one) == pytest.approx(one.least, rel=1e-9)
        reach = np.sqrt(2.0 * (one.level - one.least) / one.a) * np.linalg.norm(signed, axis=1)
        assert np.all(proof.scales <= signed @ one.w + reach + 1e-9)
    may = proof.scales > 0.0
    assert proof.mu > 0.0
    assert np.all((proof.alpha >= 0.0) & (proof.alpha <= 1.0 / n))
    assert (
        np.all((proof.beta >= 0.0) & (proof.beta <= 1.0 / proof.mu)) and not proof.beta[~may].any()
    )
    u = (proof.alpha * y) @ X - (proof.beta[may] / proof.scales[may]) @ signed[may]
    assert least(proof.alpha, u, region) == pytest.approx(proof.value, rel=1e-9)
    errors = len(proof.tests) - proof.mu * (proof.value - region.level)
    assert proof.errors == np.floor(errors + 1e-6)
    assert found.bound == proof.errors / len(played.y_test)


def test_where_all_may_err_together_there_is_no_proof():
    found = certify_test_error(game(3, lam=0.01), 20, attacks=())
    assert found.together is None
    assert found.bound == found.one_by_one


def test_the_bound_for_all_together_is_that_of_a_generic_solver():
    played = game(5, lam=0.2, apart=0.7)
    found = certify_test_error(played, 2, attacks=())
    X, X_test = with_intercept(played.X), with_intercept(played.X_test)
    left = np.flatnonzero(~found.certified)
    assert len(left) > 5
    margins = played.y_test[left, None] * X_test[left]
    largest = np.min(
        [
            margins @ region.w + region.radius * np.linalg.norm(X_test[left], axis=1)
            for region in found.regions
        ],
        axis=0,
    )
    may = largest > 0.0
    errors = []
    for region in found.regions:
        w = cp.Variable(X.shape[1])
        loss = cp.sum(cp.pos(1.0 - cp.multiply(played.y, X @ w))) / played.n
        spread = cp.sum(cp.pos(cp.multiply(1.0 / largest[may], margins[may] @ w)))
        within = 0.5 * region.a * cp.sum_squares(w - region.v) + loss <= region.level
        problem = cp.Problem(cp.Minimize(spread), [within])
        problem.solve(solver=cp.CLARABEL)
        errors.append(np.floor(len(left) - problem.value + 1e-4))
    best = min(errors) / len(played.y_test)
    assert best <= found.bound <= best + 0.04 + 1e-12  # the multiplier is searched on a grid


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_more_points_or_a_wider_set_certify_less(seed):
    played = game(seed, lam=0.5)
    one = certify_test_error(played, 1, attacks=())
    four = certify_test_error(played, 4, attacks=())
    wide = certify_test_error(played, 1, radius_percentile=100.0, attacks=())
    for more in (four, wide):
        assert one.certified.mean() >= more.certified.mean() - 0.04
        assert one.bound <= more.bound + 0.04


def test_the_best_attack_and_the_trivial_error_stand_beside_the_bound():
    played = game(2, lam=0.3, apart=2.0)
    found = certify_test_error(played, 3)
    assert found.clean <= found.attacked <= found.bound
    assert 0 < found.attack_points <= 3
    assert found.majority == pytest.approx(np.mean(played.y_test == 1.0))


def test_where_no_attack_has_a_point_in_the_set_the_clean_error_stands():
    played = game(2, lam=0.3, apart=2.0)
    for attacks in ((), (po.RandomFlips(1.0 / 60),)):
        found = certify_test_error(played, 1, attacks=attacks, radius_percentile=1.0)
        assert (found.attacked, found.attack_points) == (found.clean, 0)


@pytest.mark.usefixtures("unchecked")
def test_wrong_attacks_and_more_points_than_an_attack_adds_are_refused():
    with pytest.raises(ValueError, match="attacks must be a sequence of attacks, not RandomFlips"):
        certify_test_error(game(), 1, attacks=po.RandomFlips(0.03))
    with pytest.raises(ValueError, match="attacks: each must be an attack such as KKT"):
        certify_test_error(game(), 1, attacks=[po.RandomFlips])
    with pytest.raises(ValueError, match=r"points must be at most 30, half of the 60 .*, not 31"):
        certify_test_error(game(), 31)
    assert certify_test_error(game(lam=1.0), 31, attacks=()).bound <= 1.0


def test_an_attack_is_of_as_many_points_as_the_bound(monkeypatch):
    played = game(2, lam=0.3)
    with pytest.raises(ValueError, match="attacks: KKT adds 3 points, more than 2"):
        certify_test_error(played, 2, attacks=(KKT(3.0 / 60),))
    seen = []
    evaluate = po.LinearGame.evaluate

    def counted(self, points, labels, **options):
        seen.append(len(labels))
        return evaluate(self, points, labels, **options)

    attack = KKT(2.0 / 60)
    monkeypatch.setattr(po.LinearGame, "evaluate", counted)
    found = certify_test_error(played, 5, attacks=(attack,))
    assert seen == [5]
    assert found.attack_points == 2


def test_an_attack_above_the_bound_is_an_error(monkeypatch):
    monkeypatch.setattr(certified_error, "_best_attack", lambda *_: (1.0, 3))
    with pytest.raises(SolverError, match="an attack reaches 1, above the bound"):
        certify_test_error(game(1, lam=1.0, apart=2.0), 1)


def test_a_sweep_over_lambda_is_one_certificate_after_another():
    played, lams = game(3, lam=5.0), (0.03, 0.3, 3.0)
    sweep = certify_over_lambda(played, 2, lams, radius_percentile=80.0)
    for lam, column, found in zip(lams, sweep.table["bound"], sweep.certificates, strict=True):
        alone = certify_test_error(game(3, lam=lam), 2, radius_percentile=80.0)
        assert (column, found.lam) == (alone.bound, lam)
        assert (found.clean, found.attacked) == (alone.clean, alone.attacked)
        assert found.attacked <= found.bound
    assert sweep.best.bound == sweep.table["bound"].min()
    assert list(sweep.table) == ["lam", "clean", "attacked", "bound", "one_by_one", "majority"]
    assert sweep.table["bound"][0] > sweep.table["bound"].min()  # a small λ is moved far


@pytest.mark.parametrize("lams", [[], [0.1, 0.0], [np.nan], np.ones((1, 1))])
def test_lambdas_are_checked(lams, unchecked):
    with pytest.raises(ValueError, match="lams must"):
        certify_over_lambda(game(), 1, lams)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"points": 0}, "points must be"),
        ({"radius_percentile": 0.0}, "radius_percentile must be above 0"),
    ],
)
def test_arguments_are_checked(change, told):
    with pytest.raises(ValueError, match=told):
        certify_test_error(game(), **{"points": 1, "attacks": ()} | change)


def test_other_learners_are_refused():
    X, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    three = po.LinearGame(
        X, y, X, y, domain="real", learner=po.CrammerSingerSVM(), defenses=()
    )  # fmt: skip
    with pytest.raises(TypeError, match="certify_test_error: the game's learner must be SVM"):
        certify_test_error(three, 1)


@pytest.mark.real
@pytest.mark.skipif("DATA_MIRROR" not in os.environ, reason="needs the real mails and digits")
@pytest.mark.parametrize(
    ("name", "domain", "lam", "points", "most"),
    [("enron", "counts", 0.09, 1, 0.21), ("mnist", "box01", 0.3, 13, 0.025)],
)
def test_what_is_certain_of_real_data(tmp_path, name, domain, lam, points, most):
    fetch(name, tmp_path)
    prepare(name, "real", tmp_path)
    loaded = load(tmp_path / "real" / name)
    loaded = binary(loaded, positive=7, negative=1) if name == "mnist" else loaded
    part = split(loaded, np.random.default_rng(0))
    played = po.LinearGame(
        part.X, part.y, part.X_test, part.y_test, domain=domain, learner=po.SVM(lam), defenses=()
    )  # fmt: skip
    attack = KKT(points / played.n, quantiles=(0.4,), decoy_copies=(8,))
    found = certify_test_error(played, points, attacks=(attack,))
    assert found.clean < found.attacked <= found.bound <= most < found.majority
