"""Multi-task learning with a kernel: the explicit features, their gradient, and the attack."""

import numpy as np
import pytest

from poisoning.attacks.patom import PATOM, draw_poison
from poisoning.datasets.multitask import MultiTaskDraw
from poisoning.games.multi_task import MultiTaskGame
from replication.kernel_tasks import KernelMap, attack_kernel, map_draw

TARGETS = np.array([True, False, False])
LEARNER = {"loss": "square", "lambda1": 0.01, "lambda2": 0.01}


def inputs(rng, *shape):
    X = rng.normal(size=shape)
    return X / np.maximum(1.0, np.linalg.norm(X, axis=-1, keepdims=True))


@pytest.fixture
def draw():
    """Three tasks that no linear model explains, on common inputs."""
    rng = np.random.default_rng(0)
    m, n, n_test = 3, 40, 60
    X, X_test = inputs(rng, n, 2), inputs(rng, n_test, 2)

    def labels(X):
        return np.stack([np.cos(4.0 * X[:, 0] + shift) for shift in (0.0, 0.2, 0.4)])

    def with_bias(X):
        return np.concatenate([X, np.ones((len(X), 1))], axis=1)

    return MultiTaskDraw(
        np.stack([with_bias(X)] * m), labels(X), np.full((m, n), 1.0 / n),
        (with_bias(X_test),) * m, tuple(labels(X_test)),
    )  # fmt: skip


def test_inner_products_of_features_are_the_kernels_values():
    Z = inputs(np.random.default_rng(0), 30, 4)
    phi = KernelMap.of(Z)
    features = phi(Z)
    np.testing.assert_allclose(features @ features.T, phi.similarities(Z), atol=1e-6)
    np.testing.assert_allclose(np.diag(phi.similarities(Z)), 1.0)


def test_a_gradient_is_pulled_back_through_the_features():
    rng = np.random.default_rng(0)
    phi = KernelMap.of(inputs(rng, 12, 3))
    X, G = inputs(rng, 2, 5, 3), rng.normal(size=(2, 5, len(phi.roots)))
    e, h = rng.normal(size=X.shape), 1e-6
    slope = np.sum(G * (phi(X + h * e) - phi(X - h * e))) / (2.0 * h)
    assert np.sum(phi.pull_back(X, G) * e) == pytest.approx(slope, rel=1e-5)


def test_the_learner_with_a_kernel_learns_what_the_linear_one_cannot(draw):
    rules = {"targets": TARGETS, "attacking": TARGETS} | LEARNER
    linear = MultiTaskGame.from_draw(draw, **rules).clean.measure
    _, mapped = map_draw(draw)
    assert MultiTaskGame.from_draw(mapped, **rules).clean.measure < 0.5 * linear


@pytest.mark.parametrize("attacking", [TARGETS, ~TARGETS])
def test_the_attack_begins_at_random_points_and_does_more_harm(draw, attacking):
    attack = PATOM(0.3, iterations=4)
    rules = {"targets": TARGETS, "attacking": attacking}
    game = MultiTaskGame.from_draw(draw, **rules, **LEARNER)
    start = draw_poison(game, 0.3, attack.labels, attack.radius, np.random.default_rng(3))
    found = attack_kernel(
        attack, LEARNER, draw, rng=np.random.default_rng(3), transferred=start, **rules
    )
    _, mapped = map_draw(draw)
    clean = MultiTaskGame.from_draw(mapped, **rules, **LEARNER).clean.measure
    assert found["clean"] == clean
    assert found["transferred"] == pytest.approx(found["random"], rel=1e-3)
    assert found["moved"] > found["random"]
