"""Hypergradients of logistic regression by other libraries, as a careful user would write them.

Each takes a :class:`Task` and returns dA/dX_p and dA/dλ. But for the naive one, clean rows are held
apart from the poison, so that nothing is differentiated with respect to them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poisoning.hypergradient.problem import Problem

Answer = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Task:
    """One problem, its clean rows as floating point numbers."""

    clean: Tensor
    clean_y: Tensor
    poison: Tensor
    poison_y: Tensor
    validation: Tensor
    validation_y: Tensor
    lam: Tensor
    eta: float
    steps: int

    @classmethod
    def of(cls, problem: Problem) -> "Task":
        """The first problem of a batch."""
        objective, dtype = problem.objectives[0], problem.poison.dtype
        return cls(
            problem.clean.values(dtype), problem.clean.y, problem.poison[0], problem.poison_y[0],
            objective.X, objective.y, problem.lam[0], float(problem.eta[0]), problem.steps,
        )  # fmt: skip

    def leaves(self) -> tuple[Tensor, Tensor]:
        """Poison and λ to differentiate by."""
        return self.poison.clone().requires_grad_(), self.lam.clone().requires_grad_()

    def loss(self, w: Tensor, b: Tensor, poison: Tensor, lam: Tensor) -> Tensor:
        """The inner objective, clean rows apart."""
        total = softplus(-self.clean_y * (self.clean @ w + b)).sum()
        total = total + softplus(-self.poison_y * (poison @ w + b)).sum()
        data = total / (len(self.clean) + len(poison))
        return data + 0.5 * lam.exp().sum() * ((w * w).sum() + (b * b).sum())

    def outer(self, w: Tensor, b: Tensor) -> Tensor:
        """The outer objective."""
        return softplus(-self.validation_y * (self.validation @ w + b)).mean()


def naive_unroll(task: Task) -> Answer:
    """All rows in one tensor, torch.autograd.grad of the loss with create_graph at every step."""
    poison, lam = task.leaves()
    w, b = (task.clean.new_zeros(size).requires_grad_() for size in (task.clean.shape[1], 1))
    y = torch.cat([task.clean_y, task.poison_y])
    for _ in range(task.steps):
        rows = torch.cat([task.clean, poison])
        loss = softplus(-y * (rows @ w + b)).mean()
        loss = loss + 0.5 * lam.exp().sum() * ((w * w).sum() + (b * b).sum())
        dw, db = torch.autograd.grad(loss, (w, b), create_graph=True)
        w, b = w - task.eta * dw, b - task.eta * db
    return torch.autograd.grad(task.outer(w, b), (poison, lam))


def torch_autograd(task: Task) -> Answer:
    """torch differentiates steps whose gradient is written out: one backward sweep, no second."""
    poison, lam = task.leaves()
    w, b = (task.clean.new_zeros(size) for size in (task.clean.shape[1], 1))
    n = len(task.clean) + len(poison)
    clean_y, poison_y = 0.5 * (task.clean_y + 1.0), 0.5 * (task.poison_y + 1.0)
    for _ in range(task.steps):
        clean = torch.sigmoid(task.clean @ w + b) - clean_y
        own = torch.sigmoid(poison @ w + b) - poison_y
        dw = (task.clean.T @ clean + poison.T @ own) / n + lam.exp() * w
        db = (clean.sum() + own.sum()) / n + lam.exp() * b
        w, b = w - task.eta * dw, b - task.eta * db
    return torch.autograd.grad(task.outer(w, b), (poison, lam))


class _Line(torch.nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(task.clean.new_zeros(task.clean.shape[1]))
        self.b = torch.nn.Parameter(task.clean.new_zeros(1))


def torchopt_sgd(task: Task) -> Answer:
    """torchopt's MetaSGD."""
    import torchopt

    poison, lam = task.leaves()
    line = _Line(task)
    optimiser = torchopt.MetaSGD(line, lr=task.eta)
    for _ in range(task.steps):
        optimiser.step(task.loss(line.w, line.b, poison, lam))
    return torch.autograd.grad(task.outer(line.w, line.b), (poison, lam))


def higher_sgd(task: Task) -> Answer:
    """higher's differentiable SGD."""
    import higher

    poison, lam = task.leaves()
    line = _Line(task)
    optimiser = torch.optim.SGD(line.parameters(), lr=task.eta)
    with higher.innerloop_ctx(line, optimiser) as (functional, differentiable):
        for _ in range(task.steps):
            differentiable.step(task.loss(functional.w, functional.b, poison, lam))
        return torch.autograd.grad(task.outer(functional.w, functional.b), (poison, lam))


def optax_scan(task: Task) -> Answer:
    """jax.grad through lax.scan over optax.sgd steps, compiled once for a task's shapes."""
    jax, gradient, constants = _jax_gradient(task)
    found = gradient(task.poison.numpy(), task.lam.numpy(), *constants)
    return tuple(torch.from_numpy(jax.device_get(array).copy()) for array in found)


def optax_together(problem: Problem) -> Answer:
    """The same for all problems of a batch, by jax.vmap; the first one's is returned."""
    jax, gradients, constants = _jax_gradients(problem)
    found = gradients(problem.poison.numpy(), problem.lam.numpy(), *constants)
    return tuple(torch.from_numpy(jax.device_get(array)[0].copy()) for array in found)


@cache
def _jax_gradients(problem: Problem) -> tuple:
    jax, gradient, (clean, clean_y, _, *validation) = _jax_gradient(Task.of(problem))
    together = jax.vmap(gradient, in_axes=(0, 0, None, None, 0, None, None))
    return jax, jax.jit(together), [clean, clean_y, problem.poison_y.numpy(), *validation]


@cache
def _jax_gradient(task: Task) -> tuple:
    """jax, the compiled gradient, and the arguments that are not differentiated."""
    import jax
    import jax.numpy as jnp
    import optax

    optimiser = optax.sgd(task.eta)
    logistic = lambda y, f: jax.nn.softplus(-y * f)  # noqa: E731

    def outer(poison, lam, clean, clean_y, poison_y, validation, validation_y):
        def inner(parameters):
            w, b = parameters
            data = logistic(clean_y, clean @ w + b).sum() + logistic(poison_y, poison @ w + b).sum()
            norm = (w * w).sum() + (b * b).sum()
            return data / (len(clean) + len(poison)) + 0.5 * jnp.exp(lam).sum() * norm

        def step(carry, _):
            parameters, state = carry
            updates, state = optimiser.update(jax.grad(inner)(parameters), state)
            return (optax.apply_updates(parameters, updates), state), None

        parameters = jnp.zeros(clean.shape[1], clean.dtype), jnp.zeros(1, clean.dtype)
        start = parameters, optimiser.init(parameters)
        ((w, b), _), _ = jax.lax.scan(step, start, length=task.steps)
        return logistic(validation_y, validation @ w + b).mean()

    constants = [
        jnp.asarray(tensor.numpy())
        for tensor in (
            task.clean, task.clean_y, task.poison_y, task.validation, task.validation_y
        )
    ]  # fmt: skip
    return jax, jax.jit(jax.grad(outer, argnums=(0, 1))), constants


def honest() -> dict[str, Callable[[Task], Answer]]:
    """Those that hold clean rows apart and whose libraries are installed; torch always is."""
    found = {"torch autograd": torch_autograd}
    optional = {
        "torchopt MetaSGD": (torchopt_sgd, ("torchopt",)),
        "higher": (higher_sgd, ("higher",)),
        "optax scan and jit": (optax_scan, ("jax", "optax")),
    }
    for name, (peer, needs) in optional.items():
        if all(find_spec(module) for module in needs):
            found[name] = peer
    return found
