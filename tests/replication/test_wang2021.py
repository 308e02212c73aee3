import json

import numpy as np
import pytest

from replication import claims, wang2021
from replication import notebook as notebook_module


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


def test_a_curve_that_only_rises_has_a_negative_fall_with_an_interval():
    rng = np.random.default_rng(1)
    curves = np.array([0.7, 0.8, 0.9]) + 0.01 * rng.standard_normal((6, 3))
    found = wang2021.bend(curves)
    assert found.fall.value == pytest.approx(-0.1, abs=0.02)
    assert found.fall.half_width > 0.0
    assert found.rise.value == pytest.approx(0.2, abs=0.02)
    assert wang2021.bend(-curves).rise.value == pytest.approx(-0.1, abs=0.02)


def test_a_single_repeat_is_its_own_judge_and_has_no_interval():
    found = wang2021.bend(np.array([[0.5, 0.9, 0.7]]))
    assert found.fall.value == pytest.approx(0.2)
    assert found.fall.ci95 is None


@pytest.mark.parametrize("repeats", [1, 4])
def test_a_bend_is_recorded_with_an_interval_where_there_are_repeats(
    tmp_path, monkeypatch, repeats
):
    monkeypatch.setenv("POISON_RESULTS", str(tmp_path))
    book = notebook_module.Notebook("wang2021/width", "demo")
    accuracy = np.linspace(0.5, 0.6, repeats)[:, None] + np.array([0.0, 0.2, 0.1])
    wang2021.record_bend(book, "mnist.C.early", accuracy)
    book.finish()
    metrics = json.loads((book.folder / "metrics.json").read_text())["metrics"]
    assert metrics["mnist.C.early.fall"]["value"] == pytest.approx(0.1)
    assert metrics["mnist.C.early.peak"]["n"] == repeats
    assert (metrics["mnist.C.early.fall"]["ci95"] is None) == (repeats == 1)


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


def test_the_claims_numbers_are_those_of_the_poster():
    of_figure = [c for c in claims.load_claims() if c.id.startswith("wang2021.figure.")]
    numbers = [c for c in of_figure if c.number is not None]
    assert len(numbers) > 30
    for claim in numbers:
        data, curve, *part = claim.id.split(".")[2:]
        curves = wang2021.POSTER[data.removesuffix("-wide")]
        found = curves[curve[0] if part else "clean"]
        value = {
            "clean": found.wide, "level": found.peak, "rise": found.peak - found.narrow,
            "fall": found.peak - found.wide,
        }[part[0] if part else "clean"]  # fmt: skip
        assert claim.paper_value == pytest.approx(value / 100)
        if part == ["level"]:
            assert claim.number.over == pytest.approx(curves["clean"].peak / 100)
        for level in claim.level:
            assert level.at_least == pytest.approx(found.peak / 100 - 0.05)
            assert level.at_most == pytest.approx(min(found.peak / 100 + 0.05, 1.0))
