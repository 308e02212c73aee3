"""The benchmark of online SGD: its sides take the same steps, its record says what was measured."""

import json

import numpy as np
import pytest
from tqdm import tqdm

from bench import online_sgd
from bench.timing import timed
from poisoning.datasets import Split


@pytest.fixture
def small(monkeypatch):
    """Few examples, neurons and rounds."""
    rng = np.random.default_rng(0)
    X, y = rng.random((90, 20)), np.arange(90) % 10
    monkeypatch.setattr(
        online_sgd, "examples", lambda name: (Split(X, y, X, y), f"{name}, generated")
    )
    for name, value in {
        "WIDTH": 32, "WIDTHS": (4, 8), "BEYOND_CACHE": 64, "ROUNDS": 2,
        "OURS": 40, "LOOP": 24, "AUTOGRAD": 8,
    }.items():  # fmt: skip
        monkeypatch.setattr(online_sgd, name, value)


@pytest.mark.slow
def test_the_sides_take_the_same_steps_and_the_record_is_whole(small, monkeypatch):
    seconds = {"_blocks": 1.0, "_products": 0.5, "_loop": 6.0, "_autograd": 10.0}

    def clock(side, *arguments):
        # A side is called by name in rounds, and through a partial where widths are compared.
        name = getattr(side, "__name__", "_blocks")
        return seconds[name], timed(side, *arguments)[1]

    monkeypatch.setattr(online_sgd, "timed", clock)
    with tqdm(disable=True) as bar:
        record = online_sgd.run(bar)
    json.dumps(record, allow_nan=False)
    assert record["agreement"] <= 1e-5
    assert record["ours_s"] == 1.0 / 40
    assert record["peer_s"] == 10.0 / 8
    assert record["ratio"] == pytest.approx(50.0)
    assert record["spread"] == [50.0, 50.0]
    assert record["loop_ratio"] == pytest.approx(10.0)
    assert record["gemm_fraction"] == 0.5
    assert record["beyond_cache"]["m"] == 64
    assert record["beyond_cache"]["loop_ratio"] == pytest.approx(10.0)
    assert [row["m"] for row in record["growth"]] == [4, 8]
    assert record["growth"][0]["ns_per_neuron"] == pytest.approx(1e9 / 40 / 4)
    assert record["many_runs"]["ratio"] == pytest.approx(online_sgd.RUNS)
    line = online_sgd.summary(record)
    assert line.startswith("mnist, generated, 20 features, m = 32: ")
    assert "50 times as fast" in line
    assert "50 % of the speed of its matrix products" in line
