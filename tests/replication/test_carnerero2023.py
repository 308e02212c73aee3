"""What the notebooks of Carnerero-Cano et al. share: variants of settings, and what they make."""

import json
from dataclasses import asdict

import numpy as np

from poisoning.attacks.hyperparameter import HyperparameterSettings
from replication import carnerero2023
from replication import notebook as notebook_module


def test_every_variant_changes_one_setting():
    settings = HyperparameterSettings(steps=100, rate=0.2, poison_step=0.4, lam_step=0.6)
    base = asdict(settings)
    changes = {
        label: {key: value for key, value in asdict(varied).items() if value != base[key]}
        for label, varied in carnerero2023.variants(settings).items()
    }
    assert changes == {
        "poison step × 0.5": {"poison_step": 0.2},
        "poison step × 2": {"poison_step": 0.8},
        "λ step × 0.5": {"lam_step": 0.3},
        "λ step × 2": {"lam_step": 1.2},
        "T × 0.5": {"steps": 50},
        "η × 0.5": {"rate": 0.1},
        "adaptive steps": {"rule": "adaptive"},
    }


def test_the_least_and_the_most_favourable_variants_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("POISON_RESULTS", str(tmp_path))
    book = notebook_module.Notebook("carnerero2023/logistic", "demo")
    groups = {"mnist": {carnerero2023.AS_ABOVE: 1.0, "T × 0.5": -3.0, "η × 0.5": 2.0}}

    def quantities(group):
        of_some = {"optimised": np.array([1.0])} if group > 0 else {}
        return of_some | {"rise": group + np.array([-0.5, 0.5])}

    frame = carnerero2023.record_sensitivity(book, "lr", groups, quantities)
    book.finish()
    assert list(frame["value"]) == [1.0, -3.0, 2.0]
    metrics = json.loads((book.folder / "metrics.json").read_text())["metrics"]
    assert metrics["mnist.lr.sensitivity.rise.least"]["value"] == -3.0
    assert metrics["mnist.lr.sensitivity.rise.most"]["value"] == 2.0
    assert not [name for name in metrics if "optimised" in name]  # T × 0.5 does not have it
