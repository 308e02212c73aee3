"""Every real data set that the mirror holds, by the path a user takes."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from poisoning.datasets import binary, fetch, load, prepare, registry, split

MIRROR = os.environ.get("DATA_MIRROR")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not MIRROR, reason="DATA_MIRROR is not set"),
]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Fetch, prepare and load a data set once; skip where the mirror has none of its files."""
    data, found = tmp_path_factory.mktemp("data"), {}

    def get(name):
        if name not in found:
            if "://" not in MIRROR and not (Path(MIRROR) / name).is_dir():
                pytest.skip(f"the mirror has no {name}")
            fetch(name, data)
            prepare(name, "real", data)
            found[name] = load(data / "real" / name)
        return found[name]

    return get


@pytest.mark.parametrize("name", registry())
def test_counts_and_content_are_the_registered_ones(real, name):
    dataset = real(name)
    variant = registry()[name].variants[dataset.variant]
    n_test = 0 if dataset.X_test is None else dataset.X_test.shape[0]
    assert (*dataset.X.shape, n_test) == (variant.n, variant.d, variant.n_test)
    assert variant.content in (None, dataset.manifest["content"])
    assert len(dataset.y) == variant.n


def error(parts, decay):
    model = LinearSVC(
        loss="hinge", C=1 / (len(parts.y) * decay), max_iter=20_000, random_state=0
    ).fit(parts.X, parts.y)
    return 100 * np.mean(model.predict(parts.X_test) != parts.y_test)


def test_enron_is_as_hard_as_in_the_paper(real):
    """Table 1 of Koh et al. 2021: 2.9 % at λ = 0.09."""
    errors = [error(split(real("enron"), np.random.default_rng(s)), 0.09) for s in range(5)]
    assert np.mean(errors) == pytest.approx(2.9, abs=0.6)


def test_imdb_is_as_hard_as_in_the_paper(real):
    """Table 1: 11.9 % at λ = 0.01."""
    imdb = real("imdb")
    assert error(imdb, 0.01) == pytest.approx(11.9, abs=0.2)


def test_the_tokenisation_recovers_the_vocabulary_of_imdb(real):
    """All but 281 of 5,802,231 training tokens are counted, and all but 4 of the words occur."""
    X = real("imdb").X
    assert X.sum() == 5_802_231 - 281
    assert np.count_nonzero(X.sum(axis=0) == 0) == 4


def test_mnist_one_against_seven(real):
    """Table 1: n = 13,007, 2,163 test images, 0.7 % at λ = 0.01."""
    pair = binary(real("mnist"), positive=7, negative=1)
    assert (len(pair.y), len(pair.y_test)) == (13_007, 2_163)
    assert error(pair, 0.01) == pytest.approx(0.7, abs=0.15)


def test_landmine_labels(real):
    mine = real("landmine")
    assert np.bincount(mine.tasks).min() == 445
    assert np.bincount(mine.tasks).max() == 690
    assert set(mine.y) == {-1.0, 1.0}
