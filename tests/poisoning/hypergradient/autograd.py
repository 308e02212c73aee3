"""The reference of the tests: any differentiable torch module, by automatic differentiation.

Let g(w, X) = (∇_w, ∇_X) of the data term. Second derivatives are symmetric, so the pull-back of
(v, Ẋ) through g is (Hv + (∇_w∇_X)Ẋ, (∇_X∇_w)ᵀv + ∇²_X Ẋ): for Ẋ = 0 both products of Alg. 1 come
from one sweep, reverse over reverse. Nothing but w^(t) is kept of a step; the price is that each
step back goes forward again.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call, grad_and_value, vjp, vmap
from torch.nn.functional import softplus

from poisoning.hypergradient.problem import Linearisation, Model, Problem


@dataclass(frozen=True, eq=False)
class Module(Model):
    """f_w = ``module`` with its parameters replaced by w, in their registered order.

    ``module`` maps (rows, d) to one logit a row and must be free of buffers that training changes.
    Parameters of one submodule form a layer.
    """

    module: torch.nn.Module

    def layers(self, d: int) -> Int[Tensor, "p"]:
        """The submodule of each parameter; ``d`` is the module's own affair."""
        owners = [name.rpartition(".")[0] for name, _ in self.module.named_parameters()]
        order = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
        sizes = torch.tensor([parameter.numel() for parameter in self.module.parameters()])
        return torch.repeat_interleave(torch.tensor([order[owner] for owner in owners]), sizes)

    def _call(self, w: Float[Tensor, "p"], X: Float[Tensor, "v d"]) -> Float[Tensor, "v"]:
        parameters, at = {}, 0
        for name, parameter in self.module.named_parameters():
            parameters[name] = w[at : at + parameter.numel()].view(parameter.shape)
            at += parameter.numel()
        return functional_call(self.module, parameters, (X,)).reshape(len(X))

    def scores(self, w: Float[Tensor, "K p"], X: Float[Tensor, "*K v d"]) -> Float[Tensor, "K v"]:
        """f_w(x)."""
        return vmap(self._call, in_dims=(0, 0 if X.ndim == 3 else None))(w, X)

    def _gradients(
        self, problem: Problem, w: Float[Tensor, "K p"], poison: Float[Tensor, "K m d"]
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """The data term's gradients in w and in the poison, and its value."""
        X = problem.clean.values(poison.dtype)

        def loss(w: Tensor, P: Tensor, shares: Tensor, targets: Tensor) -> Tensor:
            f = torch.cat([self._call(w, X), self._call(w, P)])
            return (shares * (softplus(f) - targets * f)).sum()

        both = grad_and_value(loss, argnums=(0, 1))
        return vmap(both)(w, poison, problem.shares, problem.targets)

    def linearise(self, problem: Problem, w: Float[Tensor, "K p"]) -> Linearisation:
        """Reverse mode."""
        (gradient, _), loss = self._gradients(problem, w, problem.poison)
        return Linearisation(gradient.detach(), loss.detach, w)

    def product(
        self,
        problem: Problem,
        state: Float[Tensor, "K p"],
        v: Float[Tensor, "J K p"],
    ) -> tuple[Float[Tensor, "J K p"], Float[Tensor, "J K free d"]]:
        """Reverse over reverse."""
        gradients = partial(self._gradients, problem)
        shift = problem.poison.new_zeros(len(v), *problem.poison.shape)
        _, back, _loss = vjp(gradients, state, problem.poison, has_aux=True)
        Hv, cross = vmap(back)((v, shift))
        return Hv.detach(), cross[:, :, problem.frozen :].detach()

    def gather(self, crosses: list[Tensor]) -> Float[Tensor, "J K free d"]:
        """Their sum."""
        return torch.stack(crosses).sum(0)

    def bytes(self, state: Tensor) -> int:
        """Nothing: a state is a row of the tape."""
        return 0
