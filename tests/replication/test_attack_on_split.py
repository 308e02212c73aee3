"""A record of an attack holds what notebooks read, and little else."""

import numpy as np

from poisoning.attacks.kkt import KKT
from poisoning.datasets import Dataset
from replication import records
from replication.koh2021 import attack_on_split


def heaps():
    """Two heaps in the plane."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random(120) < 0.5, 1.0, -1.0)
    return Dataset("heaps", "test", "real", rng.normal(y[:, None], 1.0, (120, 2)), y)


def test_models_stay_only_where_notebooks_read_them(tmp_path):
    attack = KKT(0.05, quantiles=(0.3, 0.5), decoy_copies=(2, 4))
    rngs = np.random.default_rng(1), np.random.default_rng(2)
    found = attack_on_split(attack, heaps(), rngs[0], 0.1, 0.05, rngs[1])
    assert found.source.decoy.model.theta.shape == (2,)
    assert {name for name, one in found.outcomes.items() if one.model is not None} == {"none"}
    assert found.history
    assert all(one.source is None for one in found.history)
    assert max(one.first_error for one in found.history) >= found.value
    records.write(tmp_path / "record.npz", {}, found)
    _, read = records.read(tmp_path / "record.npz")
    assert records.compare(found, read).verdict == "equal"
