import json

import numpy as np
import pytest

from replication import notebook as notebook_module
from replication import wang2021


def test_a_curve_that_rises_and_falls_does_so_by_as_much():
    curve = np.array([0.80, 0.90, 0.95, 0.85])
    found = wang2021.bend(np.stack([curve, curve + 0.01, curve - 0.01]))
    assert found.peak.value == pytest.approx(0.95)
    assert found.rise.value == pytest.approx(0.15)
    assert found.fall.value == pytest.approx(0.10)
    assert found.fall.half_width == pytest.approx(0.0, abs=1e-12)  # seeds agree on the shape
    assert found.narrowest.value == pytest.approx(0.80)
    assert found.widest.half_width > 0.0


def test_noise_alone_neither_rises_nor_falls():
    rng = np.random.default_rng(0)
    found = [wang2021.bend(0.9 + 0.05 * rng.standard_normal((5, 6))) for _ in range(400)]
    naive = [np.ptp(a) for a in (0.05 * rng.standard_normal((400, 5, 6))).mean(axis=1)]
    assert abs(np.mean([f.rise.value for f in found])) < 0.005
    assert abs(np.mean([f.fall.value for f in found])) < 0.005
    assert np.mean(naive) > 0.03  # what the best of all widths would have claimed


def test_a_single_repeat_is_its_own_judge_and_has_no_interval():
    found = wang2021.bend(np.array([[0.5, 0.9, 0.7]]))
    assert found.fall.value == pytest.approx(0.2)
    assert found.fall.ci95 is None


@pytest.mark.parametrize("repeats", [1, 4])
def test_lower_ends_are_recorded_where_there_is_an_interval(tmp_path, monkeypatch, repeats):
    monkeypatch.setenv("POISON_RESULTS", str(tmp_path))
    book = notebook_module.Notebook("wang2021/width", "demo")
    accuracy = np.linspace(0.5, 0.6, repeats)[:, None] + np.array([0.0, 0.2, 0.1])
    wang2021.record_bend(book, "mnist.C.early", accuracy)
    book.finish()
    metrics = json.loads((book.folder / "metrics.json").read_text())["metrics"]
    assert metrics["mnist.C.early.fall"]["value"] == pytest.approx(0.1)
    assert metrics["mnist.C.early.peak"]["n"] == repeats
    assert ("mnist.C.early.fall_low" in metrics) == (repeats > 1)


def test_the_exponent_of_a_power_law_is_found():
    n = np.array([64.0, 256.0, 1024.0])
    estimate = wang2021.slope_interval(n, np.array([[2.0], [3.0]]) * n**-0.5)
    assert estimate.value == pytest.approx(-0.5)
    assert estimate.half_width == pytest.approx(0.0, abs=1e-9)


def test_the_poster_has_every_attack_for_both_data_sets():
    for curves in wang2021.POSTER.values():
        assert set(curves) == {"clean", "A", "B", "C"}
        for curve in curves.values():
            assert curve.peak >= max(curve.narrow, curve.wide)
