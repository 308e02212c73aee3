import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from poisoning.errors import SolverError
from poisoning.models.small_cnn import (
    Examples,
    TrainingRecord,
    alexnet,
    early_stopped,
    evaluate,
    small_cnn,
    softmax_regression,
    train_classifier,
    train_classifiers,
)


@pytest.fixture(scope="module")
def digits():
    """scikit-learn's digits in three parts."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    parts = order[:900], order[900:1200], order[1200:]
    return [Examples.on("cpu", X[rows] / 16.0, y[rows]) for rows in parts]


def test_the_network_is_the_figures():
    model = small_cnn(1, 28, 10, 1000, seed=0)
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    assert shapes[::2] == [(8, 1, 5, 5), (16, 8, 5, 5), (1000, 256), (10, 1000)]
    assert model(torch.zeros(3, 784)).shape == (3, 10)
    assert small_cnn(3, 32, 10, 20, seed=0)(torch.zeros(2, 3072)).shape == (2, 10)
    assert alexnet(3, 32, 10, seed=0)(torch.zeros(2, 3072)).shape == (2, 10)
    assert alexnet(3, 12, 10, seed=0)(torch.zeros(2, 432)).shape == (2, 10)


def test_weights_follow_the_seed_and_leave_the_global_generator():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same, other = (small_cnn(1, 8, 10, 5, seed, kernel=3, padding=1) for seed in (1, 1, 2))
    softmax_regression(4, 2, 3)
    assert torch.equal(torch.rand(3), expected)
    first, second, third = (next(iter(model.parameters())) for model in (one, same, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="8 x 8"):
        small_cnn(1, 8, 10, 5, 0)
    with pytest.raises(ValueError, match="7 x 7"):
        alexnet(1, 7, 10, 0)


@pytest.mark.slow
def test_training_learns_digits_and_records_every_epoch(digits):
    train, validation, test = digits
    model = small_cnn(1, 8, 10, 50, 0, kernel=3, padding=1)
    record = train_classifier(model, train, validation, test, rate=0.3, epochs=12, seed=0, batch=32)
    assert isinstance(record, TrainingRecord)
    assert record.train_loss.shape == record.test_accuracy.shape == (12,)
    assert record.test_accuracy[-1] > 0.93
    assert record.train_loss[-1] < record.train_loss[0]
    loss, accuracy = evaluate(model, validation)
    assert record.validation_loss[-1] == loss
    assert record.validation_accuracy[-1] == accuracy
    assert record.test_accuracy[-1] == evaluate(model, test)[1]
    again = train_classifier(
        small_cnn(1, 8, 10, 50, 0, kernel=3, padding=1), train, validation, test,
        rate=0.3, epochs=3, seed=0, batch=32,
    )  # fmt: skip
    assert np.array_equal(again.test_accuracy, record.test_accuracy[:3])
    assert np.array_equal(again.validation_loss, record.validation_loss[:3])


@pytest.mark.slow
def test_only_epochs_that_somebody_reads_are_tested(digits):
    train, validation, test = digits
    every, some = (
        train_classifier(
            small_cnn(1, 8, 10, 50, 0, kernel=3, padding=1), train, validation, test,
            rate=0.5, epochs=20, seed=0, batch=32, tested=tested,
        )
        for tested in (None, (4, 19))
    )  # fmt: skip
    assert np.array_equal(some.validation_accuracy, every.validation_accuracy)
    measured = ~np.isnan(some.test_accuracy)
    assert np.array_equal(some.test_accuracy[measured], every.test_accuracy[measured])
    kept = {early_stopped(1.0 - every.validation_accuracy, patience) for patience in range(1, 20)}
    assert measured[[4, 19, *kept]].all()
    assert not measured.all()


def test_pooling_before_the_rectifier_is_the_figures_network(digits):
    """conv – relu – pool as the figure draws it, and conv – pool – relu as it is computed."""
    few = Examples(digits[0].X[:64], digits[0].y[:64])
    ours = small_cnn(1, 8, 10, 50, 0, kernel=3, padding=1)
    layers = list(ours)
    drawn = torch.nn.Sequential(*(layers[place] for place in (0, 1, 3, 2, 4, 6, 5, 7, 8, 9, 10)))
    gradients = []
    for model in (ours, drawn):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(few.X), few.y).backward()
        gradients.append([parameter.grad.clone() for parameter in ours.parameters()])
    for first, second in zip(*gradients, strict=True):
        assert torch.allclose(first, second, rtol=1e-5, atol=1e-7)


def test_a_step_is_that_of_plain_sgd(digits):
    few = Examples(digits[0].X[:32], digits[0].y[:32])
    model, plain = softmax_regression(64, 10, 0), softmax_regression(64, 10, 0)
    train_classifier(model, few, few, few, rate=0.5, epochs=1, seed=0, batch=32)
    torch.nn.functional.cross_entropy(plain(few.X), few.y).backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs - 0.5 * theirs.grad, atol=1e-6)


def test_the_mean_of_an_epochs_iterates_is_measured_and_training_is_the_same(digits):
    few = Examples(digits[0].X[:90], digits[0].y[:90])
    plain, averaged, twin, mean = (softmax_regression(64, 10, 0) for _ in range(4))
    settings = {"rate": 0.5, "epochs": 2, "seed": 3, "batch": 40}
    train_classifier(plain, few, few, few, **settings)
    record = train_classifier(averaged, few, few, few, averaged=True, **settings)
    for ours, theirs in zip(averaged.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    order = torch.Generator().manual_seed(3)
    for epoch in range(2):
        iterates = []
        for rows in torch.randperm(90, generator=order).split(40):
            loss = torch.nn.functional.cross_entropy(twin(few.X[rows]), few.y[rows])
            weights = list(twin.parameters())
            with torch.no_grad():
                for w, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    w -= 0.5 * gradient
            iterates.append(torch.nn.utils.parameters_to_vector(weights).detach())
        torch.nn.utils.vector_to_parameters(torch.stack(iterates).mean(dim=0), mean.parameters())
        loss, accuracy = evaluate(mean, few)
        assert record.validation_loss[epoch] == pytest.approx(loss, rel=1e-5)
        assert record.test_accuracy[epoch] == accuracy


@pytest.mark.parametrize("averaged", [False, True])
def test_networks_side_by_side_take_the_steps_that_each_takes_alone(digits, averaged):
    train, validation, test = digits
    settings = {"rate": 0.3, "epochs": 3, "seed": 5, "batch": 32, "averaged": averaged,
                "tested": (2,)}  # fmt: skip

    def networks():
        return [
            small_cnn(1, 8, 10, width, seed, kernel=3, padding=1)
            for width, seed in ((20, 0), (50, 1), (50, 2))
        ]

    together, alone = networks(), networks()
    records = train_classifiers(together, train, validation, test, **settings)
    for ours, model, record in zip(together, alone, records, strict=True):
        other = train_classifier(model, train, validation, test, **settings)
        for w, w_alone in zip(ours.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(w, w_alone, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(record.validation_loss, other.validation_loss, rtol=1e-4)
        np.testing.assert_allclose(record.train_loss, other.train_loss, rtol=1e-4)
        np.testing.assert_allclose(record.test_accuracy, other.test_accuracy, atol=0.004)
        assert record.train_loss[-1] < 0.9 * record.train_loss[0]  # steps of a length that matters


@pytest.mark.parametrize(
    ("models", "error"),
    [
        ([], TypeError),
        (small_cnn(1, 8, 10, 5, 0, kernel=3, padding=1), TypeError),
        ([softmax_regression(64, 10, 0)] * 2, ValueError),
        ([small_cnn(1, 8, 10, 5, 0, kernel=3, padding=p) for p in (1, 2)], ValueError),
        ([small_cnn(1, 8, 10, 5, 0, kernel=3, padding=1), torch.nn.Identity()], ValueError),
    ],
)
def test_only_small_cnns_of_one_kind_are_trained_side_by_side(digits, models, error):
    with pytest.raises(error, match="models"):
        train_classifiers(models, *digits, rate=0.1, epochs=1, seed=0)


def test_one_network_that_overflows_ends_all(digits):
    models = [small_cnn(1, 8, 10, width, 0, kernel=3, padding=1) for width in (5, 50)]
    with pytest.raises(SolverError, match="lower it"):
        train_classifiers(models, *digits, rate=1e6, epochs=5, seed=0)


def test_evaluation_counts_every_example_once():
    X = np.random.default_rng(0).normal(size=(4500, 3))
    data = Examples.on("cpu", X, np.argmax(X, axis=1))
    loss, accuracy = evaluate(torch.nn.Identity(), data)
    assert accuracy == 1.0
    expected = np.mean(np.log(np.exp(X).sum(axis=1)) - X.max(axis=1))
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("criterion", "patience", "kept"),
    [
        ([3.0, 2.0, 2.0, 1.0, 4.0], 2, 3),
        ([3.0, 2.0, 2.5, 2.5, 1.0], 2, 1),  # the last one comes too late
        ([3.0, 2.0, 2.5, 2.5, 1.0], 3, 4),
        ([1.0], 1, 0),
    ],
)
def test_early_stopping_keeps_the_best_within_patience(criterion, patience, kept):
    assert early_stopped(np.array(criterion), patience) == kept


def test_a_training_that_diverges_says_so(digits):
    train, validation, test = digits
    model = small_cnn(1, 8, 10, 50, 0, kernel=3, padding=1)
    with pytest.raises(SolverError, match="lower it"):
        train_classifier(model, train, validation, test, rate=1e6, epochs=5, seed=0)
