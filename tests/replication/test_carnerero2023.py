"""What the notebooks of Carnerero-Cano et al. share: variants of settings, and what they make."""

import json
from dataclasses import asdict, replace

import numpy as np

from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.metrics import mean_interval
from replication import carnerero2023
from replication import notebook as notebook_module
from replication.hyperparameter_trial import Trial


def test_every_variant_changes_one_setting():
    settings = MinimaxBilevel(steps=100, rate=0.2, poison_step=0.4, lam_step=0.6)
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
    half = mean_interval([-0.5, 0.5]).half_width
    for which, mean in (("least", -3.0), ("most", 2.0)):
        found = metrics[f"mnist.lr.sensitivity.rise.{which}"]
        np.testing.assert_allclose(found["ci95"], [mean - half, mean + half])
        assert found["n"] == 2 and "repeats" not in found
    assert not [name for name in metrics if "optimised" in name]  # T × 0.5 does not have it


def trial(error, lam):
    """A trial with errors (K, S) and exponents (K, S, 3) of the networks' policies."""
    names = tuple(carnerero2023.network_policies(-2.5, -5.0))
    shape = len(names), error.shape[1]
    nothing = np.zeros(shape)
    return Trial(names, error, nothing, lam, nothing, np.zeros((*shape, 3)), np.zeros((*shape, 0)),
                 nothing, nothing, nothing)  # fmt: skip


def test_the_lead_of_the_later_layers_is_their_growth_beyond_the_first_layers():
    error = np.zeros((7, 4))
    error[0] = 0.1, 0.2, 0.3, 0.4  # no regularisation
    error[3] = 0.1, 0.1, 0.15, 0.2  # an L2 exponent per layer
    error[1, 2] = 0.49  # a large λ
    lam = np.zeros((7, 4, 3))
    lam[3] = [[0, 0, 0], [0, 1, 3], [1, 2, 3], [2, 2, 2]]
    found = carnerero2023.network_quantities([trial(error, lam)])
    np.testing.assert_allclose(found["l2.layers-relief"], 0.2)
    assert found["l2.early-later-first"] == 2.0
    assert found["l2.later-first"] == 1.5
    assert (found["l2.early-second-first"], found["l2.early-output-first"]) == (1.0, 3.0)
    assert (found["l2.second-first"], found["l2.output-first"]) == (1.0, 2.0)
    assert found["l2.first-catches-up"] == 2.0
    assert found["l2.evened-out"] == 3.0
    np.testing.assert_allclose(found["l2.layers-save"], error[2, 3] - 0.2)
    assert found["l2.dead"] == 1.0
    assert found["l1.dead"] == 0.0


def test_a_learned_lambda_is_followed_from_the_first_batch_of_poison():
    lam = np.zeros((7, 6, 3))
    lam[2] = np.array([-8.0, -3.0, -2.0, -1.0, -0.8, -0.5])[:, None]  # one L2 exponent
    found = carnerero2023.policy_quantities([trial(np.zeros((7, 6)), lam)])
    np.testing.assert_allclose(found["l2.growth"], 2.5)
    np.testing.assert_allclose(found["l2.saturation"], 2.0 - 0.5)


def test_norms_that_fall_where_lambda_grows_follow_it():
    lam, norms = np.zeros((7, 4, 3)), np.ones((7, 4, 3))
    lam[3] = np.arange(4.0)[:, None]
    norms[3, :, 0] = np.exp(-np.arange(4.0))
    norms[3, :, 1] = np.exp(np.arange(4.0))
    one = replace(trial(np.zeros((7, 4)), lam), layer_norms=norms)
    found = carnerero2023.network_quantities([one])
    np.testing.assert_allclose(found["l2.norm-follows-lambda"], (-1.0 + 1.0 + 0.0) / 3, atol=1e-12)
    assert found["l1.norm-follows-lambda"] == 0.0  # λ stands still


def test_a_rise_is_moderate_beside_that_without_regularisation(tmp_path, monkeypatch):
    monkeypatch.setenv("POISON_RESULTS", str(tmp_path))
    book = notebook_module.Notebook("carnerero2023/networks", "demo")
    error = np.zeros((7, 2))
    error[0] = 0.1, 0.3  # no regularisation
    error[1] = 0.2, 0.27  # a large λ
    carnerero2023.summarise(
        book, {"mnist": [trial(error, np.zeros((7, 2, 3)))]}, [0.0, 0.07], "dnn"
    )
    book.finish()
    metrics = json.loads((book.folder / "metrics.json").read_text())["metrics"]
    assert metrics["mnist.dnn.l2-large.0.07.moderate"]["value"] == 0.05  # 60 % of .2, less .07
    assert "mnist.dnn.l2-large.0.moderate" not in metrics
    assert metrics["mnist.dnn.l2-layers.0.07.at-bound"]["value"] == 0.0


def test_trials_are_grouped_by_their_data_set():
    plan = [("a", 0), ("b", 0), ("a", 1)]
    one, two, three = (trial(np.zeros((7, 1)) + k, np.zeros((7, 1, 3))) for k in range(3))
    assert carnerero2023.by_data_set(dict(zip(plan, [one, two, three], strict=True))) == {
        "a": [one, three],
        "b": [two],
    }
