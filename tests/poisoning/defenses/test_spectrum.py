"""The sparse SVD against LAPACK, with and without spectral gaps, with copies, with added rows."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp

from poisoning.defenses import spectrum as module
from poisoning.defenses.centroid import L2Defense
from poisoning.defenses.filters import Together
from poisoning.defenses.spectrum import (
    EXACT,
    ROUGH,
    Spectrum,
    captured_with_rows,
    leading_spectrum,
    rank_for,
    update_pays,
)
from poisoning.defenses.svd import SVDDefense
from poisoning.games.linear import LinearGame
from poisoning.learners import SVM

TAIL = 0.05


def with_singular_values(sigma, n, d, seed=0):
    rng = np.random.default_rng(seed)
    U = scipy.linalg.qr(rng.normal(size=(n, len(sigma))), mode="economic")[0]
    V = scipy.linalg.qr(rng.normal(size=(d, len(sigma))), mode="economic")[0]
    return U * sigma @ V.T


def words(n, d, seed=0):
    rng = np.random.default_rng(seed)
    rates = 2.0 / np.arange(1, d + 1) ** 0.7
    return rng.poisson(rates * rng.gamma(1.0, 1.0, (n, 1)), (n, d)).astype(float)


def copies(n, d):
    X = words(n, d, 3)
    X[n // 2 :] = X[: n - n // 2]
    return X


MATRICES = {
    "words": words(400, 600),
    "more rows than columns": words(700, 120),
    "clear gap": with_singular_values(np.r_[np.full(12, 9.0), np.full(200, 0.1)], 300, 250),
    "no gap": np.random.default_rng(1).normal(size=(300, 320)),
    "slow decay": with_singular_values(1.0 / np.sqrt(np.arange(1, 251)), 300, 260),
    "power law": np.diag(np.arange(1.0, 801.0) ** -0.9),
    "copies": copies(300, 400),
    "low rank": with_singular_values(np.arange(7.0, 0.0, -1.0), 200, 90),
    "all equal": 3.0 * np.eye(163),
    "one row": np.arange(1.0, 9.0)[None],
    "empty rows": np.vstack([np.zeros((20, 90)), words(180, 90, 4)]),
}


def exact(X):
    _, sigma, Vt = scipy.linalg.svd(X, full_matrices=False)
    error = np.array([(sigma[k:] ** 2).sum() for k in range(len(sigma) + 1)]) / (sigma**2).sum()
    k = int(np.argmax(error < TAIL))
    return k, sigma, ((X @ Vt[:k].T) ** 2).sum(1)


@pytest.mark.parametrize("name", ["words", "copies", "no gap", "all equal", "low rank"])
def test_the_band_and_one_vector_stand_for_the_whole_projection(name):
    """Blocks of full size, of shrinking size, and none that is left."""
    X = MATRICES[name]
    start = X @ (X.T @ np.random.default_rng(0).normal(size=(len(X), 10)))
    lanczos = module._BlockLanczos(lambda V: X @ (X.T @ V), start, np.empty((len(X), 0)))
    for _ in range(6):
        if not lanczos.exhausted:
            lanczos.step()
    T = lanczos.projection()
    values, vectors = np.linalg.eigh(T)
    assert lanczos.trace == pytest.approx(np.trace(T))
    np.testing.assert_allclose(lanczos.values(), values, atol=1e-12 * values[-1])
    alone = np.diff(values, prepend=-np.inf, append=np.inf) > 1e-6 * values[-1]
    for k in np.flatnonzero(alone[:-1] & alone[1:]):
        exact = lanczos.residuals(vectors[:, [k]])[0]
        assert lanczos.likely_residual(values[k]) == pytest.approx(exact, abs=1e-8 * values[-1])


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("layout", ["sparse", "dense"])
def test_agrees_with_lapack(name, layout):
    X = MATRICES[name]
    spectrum = leading_spectrum(sp.csr_array(X) if layout == "sparse" else X, TAIL)
    k, sigma, captured = exact(X)
    assert spectrum.rank == k
    assert spectrum.residual <= 1e-6
    m = len(spectrum.values)
    assert np.allclose(spectrum.values, sigma[:m] ** 2, rtol=1e-9, atol=1e-9 * sigma[0] ** 2)
    assert np.allclose(spectrum.vectors.T @ spectrum.vectors, np.eye(m), atol=1e-10)
    true_residual = X @ (X.T @ spectrum.vectors) - spectrum.vectors * spectrum.values
    assert np.linalg.norm(true_residual, axis=0).max() <= 2e-6 * spectrum.values[k - 1]
    if name != "all equal":  # there any k vectors are right
        assert np.allclose(spectrum.captured, captured, atol=1e-5 * captured.max())


def test_equal_rows_have_equal_vectors():
    X = MATRICES["copies"]
    spectrum = leading_spectrum(sp.csr_array(X), TAIL)
    vectors, captured = spectrum.vectors, spectrum.captured
    assert np.allclose(vectors[:150], vectors[150:], rtol=0.0, atol=1e-10)
    assert np.allclose(captured[:150], captured[150:], rtol=1e-11)


@pytest.mark.parametrize("name", ["words", "more rows than columns", "clear gap", "no gap",
                                  "slow decay", "copies", "low rank"])  # fmt: skip
@pytest.mark.parametrize("distinct", [1, 2, 9])
@pytest.mark.parametrize(("strength", "reach"), [(0.1, 0.5), (1.0, 0.5), (30.0, 0.5), (1.0, 1.0)])
def test_added_rows_agree_with_starting_over(name, distinct, strength, reach):
    X = MATRICES[name]
    rng = np.random.default_rng(distinct)
    mean = X[rng.choice(len(X), 30)].mean(0)
    P = strength * (mean + np.abs(X).mean() * rng.random((distinct, X.shape[1])))
    data, rows = sp.csr_array(X), sp.csr_array(P)
    clean = leading_spectrum(data, TAIL, reach=reach)
    update = captured_with_rows(
        clean, data, (data @ rows.T).toarray(), (rows @ rows.T).toarray(), TAIL
    )
    if update is None:  # allowed only where nothing beyond rank k was kept
        assert reach == 1.0
        return
    assert update.residual <= 1e-6
    expected_k, _, captured = exact(np.vstack([X, P]))
    assert update.rank == expected_k
    found = np.r_[update.clean, update.added]
    assert np.allclose(found, captured, rtol=1e-4, atol=1e-5 * captured.max())


def test_update_knows_when_vectors_it_left_out_may_matter():
    """k grows to take in a direction of X that was left out and that the new row cannot see."""
    X = np.diag(np.r_[np.sqrt(np.linspace(40.0, 20.0, 25)), np.full(25, 1.0)])
    clean = leading_spectrum(X, 0.049)
    assert len(clean.values) == clean.rank
    added = np.zeros((1, 50))
    added[0, -1] = 9.0
    assert captured_with_rows(clean, X, X @ added.T, added @ added.T, 0.02) is None


def test_added_rows_already_in_the_data():
    X = MATRICES["words"]
    data, rows = sp.csr_array(X), sp.csr_array(np.sqrt(5.0) * X[:3])
    clean = leading_spectrum(data, TAIL)
    update = captured_with_rows(
        clean, data, (data @ rows.T).toarray(), (rows @ rows.T).toarray(), TAIL
    )
    expected_k, _, captured = exact(np.vstack([X, np.repeat(X[:3], 5, axis=0)]))
    assert update.rank == expected_k
    assert np.allclose(update.clean, captured[:400], atol=1e-6 * captured.max())
    assert np.allclose(update.added / 5.0, captured[400::5], atol=1e-6 * captured.max())


def test_added_rows_that_share_nothing_with_the_data():
    X = np.hstack([MATRICES["words"], np.zeros((400, 3))])
    P = np.zeros((3, X.shape[1]))
    P[:, -3:] = np.diag([900.0, 1.0, 0.0])
    clean = leading_spectrum(X, TAIL, reach=0.5)
    update = captured_with_rows(clean, X, X @ P.T, P @ P.T, TAIL)
    expected_k, _, captured = exact(np.vstack([X, P]))
    assert update.rank == expected_k
    found = np.r_[update.clean, update.added]
    assert np.allclose(found, captured, atol=1e-6 * captured.max())


@pytest.mark.parametrize("tol", [0.3, ROUGH, 1e-3, EXACT])
def test_what_an_update_gets_wrong_is_about_the_square_of_its_residual(tol):
    X = MATRICES["words"]
    rng = np.random.default_rng(5)
    P = np.floor(X.mean(0) + rng.random((40, X.shape[1])))
    data, rows = sp.csr_array(X), sp.csr_array(P)
    clean = leading_spectrum(data, TAIL, reach=0.5)
    cross, inner = (data @ rows.T).toarray(), (rows @ rows.T).toarray()
    update = captured_with_rows(clean, data, cross, inner, TAIL, tol=tol)
    assert update.residual <= tol
    everything = np.vstack([X, P])
    k, _, captured = exact(everything)
    assert abs(update.rank - k) <= (1 if tol > ROUGH else 0)
    if update.rank == k:
        outside = np.square(everything).sum(1) - captured
        error = np.abs(np.r_[update.clean, update.added] - captured).max()
        assert error <= max(10.0 * tol**2, 1e-5) * outside.max()


def test_updating_pays_for_few_rows_only():
    words_like = leading_spectrum(sp.csr_array(MATRICES["words"]), TAIL, reach=0.5)
    assert update_pays(words_like, 2)
    assert not update_pays(words_like, 2000)


def test_rough_updates_are_for_large_data_only():
    def text(n, k):
        values = np.arange(1.0, int(1.7 * k) + 1.0) ** -1.2
        return Spectrum(np.broadcast_to(0.0, (n, len(values))), values, 30.0, k, 0.0)

    enron, imdb = text(4_100, 270), text(25_000, 1_400)
    assert update_pays(enron, 62)
    assert update_pays(imdb, 2)
    assert not update_pays(imdb, 375)
    assert update_pays(imdb, 375, ROUGH)
    assert not update_pays(enron, 375, ROUGH)
    assert not update_pays(imdb, 5_000, ROUGH)


@pytest.mark.parametrize("kind", ["exact", "rough", "afresh"])
def test_the_game_says_how_exact_its_singular_vectors_are(kind, monkeypatch):
    monkeypatch.setattr(module, "_SMALL_BASIS", 1_500 if kind == "exact" else 0)
    monkeypatch.setattr(module, "_MINUTES", 0.0 if kind == "rough" else np.inf)
    X = MATRICES["words"]
    y = np.where(np.arange(400) % 2, 1.0, -1.0)
    rng = np.random.default_rng(5)
    P = np.floor(X.mean(0) + rng.random((40, X.shape[1])))
    data = sp.csr_array(X)
    game = LinearGame(
        data, y, data, y, domain="counts", learner=SVM(0.1),
        defenses=[L2Defense(), SVDDefense(), Together([L2Defense(), SVDDefense()])],
    )  # fmt: skip
    poison = sp.csr_array(P), np.ones(40)
    found = game.attacked(*poison, exact=False)
    assert found.outcome("l2").residual == found.outcome("none").residual == 0.0
    low, high = (EXACT, ROUGH) if kind == "rough" else (0.0, EXACT)
    assert low <= found.outcome("svd").residual <= high
    assert found.outcome("all").residual == 0.0 or kind != "exact"
    assert game.evaluate(*poison)["svd"].residual <= EXACT
    keep = found.keep("svd")
    scores = np.square(np.vstack([X, P])).sum(1) - exact(np.vstack([X, P]))[2]
    labels = np.r_[y, np.ones(40)]
    for label in (-1.0, 1.0):
        members = labels == label
        slack = 1e-2 if kind == "rough" else 1e-4
        assert scores[members & keep].max() < scores[members & ~keep].min() + slack


def test_rank_rule_is_strict():
    values = np.array([95.0, 3.0, 2.0])
    assert rank_for(values, 100.0, 0.05) == 2
    assert rank_for(values, 100.0, 0.051) == 1
    assert rank_for(values[:1], 100.0, 0.05) is None


def test_same_input_same_bits():
    X = sp.csr_array(MATRICES["words"])
    first, second = leading_spectrum(X, TAIL), leading_spectrum(X, TAIL)
    assert first.vectors.tobytes() == second.vectors.tobytes()


def test_zeros_are_refused():
    with pytest.raises(ValueError, match="0 throughout"):
        leading_spectrum(np.zeros((4, 3)), TAIL)


def test_a_tail_below_rounding_is_refused_and_not_searched_forever():
    X = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(ValueError, match=r"tail must be at least 1e-12; 1e-17 is lost"):
        leading_spectrum(X, 1e-17)
    assert leading_spectrum(X, 1e-12).rank == 3
