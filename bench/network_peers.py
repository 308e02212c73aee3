"""Hypergradients of multilayer perceptrons by other libraries, as a careful user would write them.

Each takes a problem of one network and returns dA/dX_p and dA/dλ.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu, softplus

from bench.hypergradient_peers import Answer
from poisoning.hypergradient.problem import Problem


def _shapes(problem: Problem) -> list[tuple[int, int]]:
    widths = (problem.poison.shape[2], *problem.model.hidden, 1)
    return [(after, before) for before, after in pairwise(widths)]


def _layers(w: Any, shapes: list[tuple[int, int]]) -> list[tuple[Any, Any]]:
    """(W_l, b_l) of every layer; of torch's and of jax's arrays."""
    found, at = [], 0
    for out, inputs in shapes:
        W = w[at : at + out * inputs].reshape(out, inputs)
        found.append((W, w[at + out * inputs : at + out * (inputs + 1)]))
        at += out * (inputs + 1)
    return found


def _scores(w: Tensor, X: Tensor, shapes: list[tuple[int, int]], slope: float) -> Tensor:
    *hidden, (W, b) = _layers(w, shapes)
    for V, c in hidden:
        X = leaky_relu(X @ V.T + c, slope)
    return (X @ W.T + b).squeeze(-1)


def _losses(problem: Problem) -> tuple[Callable[..., Tensor], Callable[[Tensor], Tensor]]:
    """The inner objective of (w, poison, λ) and the outer one of w; clean rows held apart."""
    shapes, slope = _shapes(problem), problem.model.slope
    clean, y = problem.clean.values(problem.poison.dtype), problem.clean.y
    own_y, objective = problem.poison_y[0], problem.objectives[0]
    rows = len(y) + len(own_y)

    def inner(w: Tensor, poison: Tensor, lam: Tensor) -> Tensor:
        total = softplus(-y * _scores(w, clean, shapes, slope)).sum()
        total = total + softplus(-own_y * _scores(w, poison, shapes, slope)).sum()
        return total / rows + 0.5 * lam.exp().sum() * (w @ w)

    def outer(w: Tensor) -> Tensor:
        return softplus(-objective.y * _scores(w, objective.X, shapes, slope)).mean()

    return inner, outer


def torch_autograd(problem: Problem) -> Answer:
    """torch.autograd.grad of the loss with create_graph at every step."""
    inner, outer = _losses(problem)
    poison, lam = (part[0].clone().requires_grad_() for part in (problem.poison, problem.lam))
    w, eta = problem.initial[0].clone().requires_grad_(), float(problem.eta[0])
    for _ in range(problem.steps):
        (gradient,) = torch.autograd.grad(inner(w, poison, lam), w, create_graph=True)
        w = w - eta * gradient
    return torch.autograd.grad(outer(w), (poison, lam))


def torch_func(problem: Problem) -> Answer:
    """torch.func: every w is kept, and the way back is the vjp of each step."""
    inner, outer = _losses(problem)
    poison, lam, eta = problem.poison[0], problem.lam[0], float(problem.eta[0])
    slope = torch.func.grad(inner)

    def step(w: Tensor, poison: Tensor, lam: Tensor) -> Tensor:
        return w - eta * slope(w, poison, lam)

    way = [problem.initial[0]]
    for _ in range(problem.steps):
        way.append(step(way[-1], poison, lam))
    p = torch.func.grad(outer)(way[-1])
    totals = torch.zeros_like(poison), torch.zeros_like(lam)
    for w in reversed(way[:-1]):
        _, back = torch.func.vjp(step, w, poison, lam)
        p, *parts = back(p)
        totals = tuple(total + part for total, part in zip(totals, parts, strict=True))
    return totals


def jax_scan(problem: Problem) -> Answer:
    """jax.grad through lax.scan, compiled once for a problem."""
    jax, differentiate, constants = _jax_gradient(problem)
    found = differentiate(problem.poison[0].numpy(), problem.lam[0].numpy(), *constants)
    return tuple(torch.from_numpy(np.array(jax.device_get(array))) for array in found)


@cache
def _jax_gradient(problem: Problem) -> tuple:
    import jax
    import jax.numpy as jnp

    shapes, slope, eta = _shapes(problem), problem.model.slope, float(problem.eta[0])

    def scores(w, X):
        *hidden, (W, b) = _layers(w, shapes)
        for V, c in hidden:
            X = jax.nn.leaky_relu(X @ V.T + c, slope)
        return (X @ W.T + b)[:, 0]

    def outer(poison, lam, start, clean, y, own_y, validation, validation_y):
        def inner(w):
            total = jax.nn.softplus(-y * scores(w, clean)).sum()
            total += jax.nn.softplus(-own_y * scores(w, poison)).sum()
            return total / (len(y) + len(own_y)) + 0.5 * jnp.exp(lam).sum() * (w @ w)

        def step(w, _):
            return w - eta * jax.grad(inner)(w), None

        w, _ = jax.lax.scan(step, start, length=problem.steps)
        return jax.nn.softplus(-validation_y * scores(w, validation)).mean()

    objective = problem.objectives[0]
    tensors = (problem.initial[0], problem.clean.values(problem.poison.dtype), problem.clean.y,
               problem.poison_y[0], objective.X, objective.y)  # fmt: skip
    constants = [jnp.asarray(tensor.numpy()) for tensor in tensors]
    return jax, jax.jit(jax.grad(outer, argnums=(0, 1))), constants


def installed() -> dict[str, Callable[[Problem], Answer]]:
    """Those whose libraries are installed."""
    found = {"torch autograd": torch_autograd, "torch.func": torch_func}
    return found | ({"jax scan and jit": jax_scan} if find_spec("jax") else {})
