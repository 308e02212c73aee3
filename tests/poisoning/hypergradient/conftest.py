"""Small problems of every kind, in float64 unless a test asks otherwise."""

from itertools import pairwise

import pytest
import torch

from poisoning.hypergradient.logistic import Logistic
from poisoning.hypergradient.mlp import MLP
from poisoning.hypergradient.problem import Objective, Problem, Rows
from tests.poisoning.hypergradient.autograd import Module

D, N, M, FROZEN, V = 7, 31, 5, 1, 9


def signs(generator, *shape):
    return torch.where(torch.rand(*shape, generator=generator) < 0.5, 1.0, -1.0).double()


def network(widths, activation):
    layers = []
    for before, after in pairwise(widths):
        layers += [torch.nn.Linear(before, after), activation]
    return Module(torch.nn.Sequential(*layers[:-1]))


MODELS = {
    "logistic": Logistic(),
    "logistic by matrix products": MLP(),
    "logistic by autograd": network((D, 1), torch.nn.Identity()),
    "mlp": MLP((4, 3), 0.01),
    "relu": MLP((6,), 0.0),
    "mlp by autograd": network((D, 4, 3, 1), torch.nn.LeakyReLU(0.01)),
}


def make(
    model, *, K=3, penalty=("l2", "l1", "l2"), exponents=1, steps=12, rate=0.3, seed=0, pixels=False
):
    """K problems with a pixel that is black on all clean rows, weights 0 and 1, two objectives.

    ``pixels``: the frozen poison is bytes, too.
    """
    g = torch.Generator().manual_seed(seed)
    X = torch.randint(0, 256, (N, D), generator=g, dtype=torch.uint8)
    X[:, 2] = 0
    y = signs(g, N)
    X[:, 0] = X[:, 0] // 2 + (127 * (y > 0)).to(torch.uint8)  # something to learn
    clean = Rows(X, y, 1.0 / 255.0, -0.1)
    poison = torch.rand(K, M, D, generator=g, dtype=torch.float64)
    if pixels:
        poison[:, :FROZEN] = clean.nearest(poison[:, :FROZEN])
    validation = Objective(torch.rand(V, D, generator=g, dtype=torch.float64), signs(g, V))
    target = Objective(
        torch.rand(K, 2, D, generator=g, dtype=torch.float64),
        signs(g, K, 2),
        lambda scores, y: (scores * y).tanh().sum(-1),
    )
    p = len(model.layers(D))
    start = 0.7 * torch.randn(K, p, generator=g, dtype=torch.float64)
    return Problem(
        model=model,
        clean=clean,
        poison=poison,
        poison_y=signs(g, K, M),
        objectives=(validation, target),
        lam=torch.rand(K, exponents, generator=g, dtype=torch.float64) - 3.5,
        rate=rate,
        steps=steps,
        initial=torch.zeros_like(start) if isinstance(model, Logistic) else start,
        penalty=penalty,
        frozen=FROZEN,
        frozen_pixels=clean.pixels(poison[:, :FROZEN]),
        weights=(torch.rand(K, N, generator=g) < 0.8).double(),
    )


@pytest.fixture
def problem_of():
    return lambda name, **options: make(MODELS[name], **options)
