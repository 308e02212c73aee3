"""Stand-ins are fixed, of the same kind as the real sets, and worth attacking."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from poisoning.datasets import binary, load, prepare, split
from poisoning.datasets.standins import AXES, GRAVITY, LENGTHS, MASSES, STANDINS, newton_euler


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in STANDINS:
        prepare(name, "standin", folder)
    return {name: load(folder / "standin" / name) for name in STANDINS}


def svm_error(X, y, X_test, y_test, decay: float) -> float:
    model = LinearSVC(loss="hinge", C=1 / (len(y) * decay), max_iter=100_000, random_state=0)
    return float(np.mean(model.fit(X, y).predict(X_test) != y_test))


@pytest.mark.parametrize("name", STANDINS)
@pytest.mark.slow
def test_two_preparations_are_identical_and_say_what_they_are(tmp_path, name):
    manifests = [prepare(name, "standin", tmp_path / run) for run in ("first", "second")]
    for path in (tmp_path / "first/standin" / name).iterdir():
        assert path.read_bytes() == (tmp_path / "second/standin" / name / path.name).read_bytes()
    assert manifests[0]["variant"] == "standin"
    assert manifests[0]["source"] == "standin"
    assert manifests[0]["note"] == STANDINS[name].description


@pytest.mark.parametrize("origin", ["stand-in", "", None])
def test_an_unknown_origin_is_refused_by_name(origin, tmp_path):
    """In another process: here, type hints are enforced."""
    code = (
        "from pathlib import Path\nfrom poisoning.datasets import prepare\n"
        f"try: prepare('enron', {origin!r}, Path({str(tmp_path)!r}))\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"origin must be one of real, standin, not {origin!r}.\n"
    assert list(tmp_path.iterdir()) == []


def test_domains(prepared):
    domains = {name: dataset.domain for name, dataset in prepared.items()}
    assert domains == {
        "mnist": "box01", "fashion-mnist": "box01", "cifar-10": "box01",
        "enron": "counts", "imdb": "counts",
        "dogfish": "real", "sarcos": "real", "landmine": "real",
    }  # fmt: skip
    for dataset in prepared.values():
        if dataset.domain == "box01":
            assert dataset.X.min() == 0.0
            assert dataset.X.max() == 1.0
        if dataset.domain == "counts":
            assert np.array_equal(dataset.X.data, np.rint(dataset.X.data))
            assert dataset.X.data.min() > 0
            assert len(dataset.vocabulary) == dataset.X.shape[1]


def test_enron_is_spam_like(prepared):
    enron = prepared["enron"]
    assert np.mean(enron.y == 1.0) == pytest.approx(0.29, abs=0.005)
    errors = []
    for seed in range(5):
        parts = split(enron, np.random.default_rng(seed))
        errors.append(svm_error(parts.X, parts.y, parts.X_test, parts.y_test, 0.09))
    assert 0.01 < np.mean(errors) < 0.06


def test_words_are_named_after_the_class_they_are_frequent_in(prepared):
    enron = prepared["enron"]
    rates = [np.asarray(enron.X[enron.y == label].mean(axis=0)).ravel() for label in (1.0, -1.0)]
    spam = np.array([word.startswith("spam") for word in enron.vocabulary])
    assert rates[0][spam].sum() > 2 * rates[1][spam].sum()


def test_imdb_is_as_hard_as_the_real_one(prepared):
    imdb = prepared["imdb"]
    assert 0.08 < svm_error(imdb.X, imdb.y, imdb.X_test, imdb.y_test, 0.01) < 0.16


def test_dogfish_is_nearly_separable(prepared):
    dogfish = prepared["dogfish"]
    error = svm_error(dogfish.X, dogfish.y, dogfish.X_test, dogfish.y_test, 1.1)
    assert 0.0 < error < 0.03


@pytest.mark.parametrize(
    "name, pair, worst",
    [
        ("mnist", (7, 1), 0.05),
        ("mnist", (0, 8), 0.05),
        ("fashion-mnist", (1, 2), 0.25),
        ("cifar-10", (0, 6), 0.2),
    ],
)
def test_the_papers_pairs_of_classes_can_be_told_apart(prepared, name, pair, worst):
    two = binary(prepared[name], *pair)
    assert svm_error(two.X, two.y, two.X_test, two.y_test, 0.01) < worst


def test_landmine_tasks_help_one_another(prepared):
    """A classifier learned from other tasks of the same terrain beats one of the other terrain."""
    mine = prepared["landmine"]
    assert np.unique(mine.tasks).tolist() == list(range(29))

    def accuracy(train, test):
        model = LogisticRegression().fit(mine.X[train], mine.y[train])
        score = model.decision_function(mine.X[test])
        positive, negative = score[mine.y[test] == 1.0], score[mine.y[test] == -1.0]
        return np.mean(positive[:, None] > negative)

    first = mine.tasks == 0
    same = accuracy((mine.tasks > 0) & (mine.tasks < 15), first)
    other = accuracy(mine.tasks >= 15, first)
    assert same > 0.75
    assert same > other + 0.1


def test_sarcos_torques_depend_on_the_inputs(prepared):
    arm = prepared["sarcos"]
    assert (arm.X.shape[1], arm.y.shape[1]) == (21, 7)
    scores = [LinearRegression().fit(arm.X, t).score(arm.X, t) for t in arm.y.T]
    assert min(scores) > 0.2


class TestNewtonEuler:
    """Against mechanics: potential energy, symmetry of the inertia, conservation of energy."""

    rng = np.random.default_rng(0)
    q = rng.uniform(-1.5, 1.5, (5, 7))
    qd = rng.uniform(-1.5, 1.5, (5, 7))
    still = np.zeros((5, 7))

    @staticmethod
    def potential(q):
        """Σ m g z of the links' centres, by forward kinematics."""
        orientation, place, energy = np.eye(3), np.zeros(3), 0.0
        for i, axis in enumerate(AXES):
            K = np.cross(axis, np.eye(3)).T
            orientation = orientation @ (np.eye(3) + np.sin(q[i]) * K + (1 - np.cos(q[i])) * K @ K)
            rod = orientation @ [LENGTHS[i], 0.0, 0.0]
            energy += MASSES[i] * GRAVITY * (place + rod / 2)[2]
            place = place + rod
        return energy

    def inertia(self, q):
        gravity = newton_euler(q, self.still, self.still)
        columns = [newton_euler(q, self.still, np.tile(e, (5, 1))) - gravity for e in np.eye(7)]
        return np.stack(columns, axis=2)

    def test_holding_torque_is_the_slope_of_the_potential(self):
        torque = newton_euler(self.q, self.still, self.still)
        for q, expected in zip(self.q, torque, strict=True):
            slope = [
                (self.potential(q + 1e-6 * e) - self.potential(q - 1e-6 * e)) / 2e-6
                for e in np.eye(7)
            ]
            assert np.allclose(slope, expected, atol=1e-6)

    def test_inertia_is_symmetric_and_positive(self):
        M = self.inertia(self.q)
        assert np.allclose(M, M.transpose(0, 2, 1), atol=1e-12)
        assert np.linalg.eigvalsh(M).min() > 0.0

    def test_power_is_the_rate_of_energy(self):
        """q̇·(τ(q, q̇, 0) − g(q)) = ½ q̇ᵀ Ṁ q̇ along the motion."""
        coriolis = newton_euler(self.q, self.qd, self.still) - newton_euler(
            self.q, self.still, self.still
        )
        step = 1e-6
        rate = (self.inertia(self.q + step * self.qd) - self.inertia(self.q - step * self.qd)) / (
            2 * step
        )
        expected = 0.5 * np.einsum("ni,nij,nj->n", self.qd, rate, self.qd)
        assert np.allclose(np.einsum("ni,ni->n", self.qd, coriolis), expected, atol=1e-6)
