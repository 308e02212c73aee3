import numpy as np
import pytest
from scipy import stats

from poisoning.metrics import mean_interval


def test_interval_is_students():
    values = np.array([0.21, 0.25, 0.23, 0.28, 0.24])
    estimate = mean_interval(values)
    expected = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.ci95 == pytest.approx(expected)
    assert estimate.n == 5
    assert estimate.half_width == pytest.approx(expected[1] - values.mean())


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        low, high = mean_interval(rng.normal(3.0, 2.0, 5)).ci95
        hits += low <= 3.0 <= high
    assert 930 <= hits <= 970


def test_one_repeat_has_no_interval():
    assert mean_interval([0.5]).ci95 is None
    assert mean_interval([0.5]).value == 0.5
    assert np.isnan(mean_interval([0.5]).half_width)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_nothing_to_average_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)
