"""Alg. 1 of Carnerero-Cano et al. 2023 as one CUDA graph: captured once, started as a whole.

A step of training, or of its way back, is some thirty small kernels. While problems are few, a GPU
takes longer to be told of a kernel than to run it. The outer loop of Alg. 2 asks for one
hypergradient after another of problems that differ in poison, λ and w^(0) alone: these are copied
into the tensors that the graph was captured with. Without CUDA the same operations run one by one.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from poisoning.hypergradient.problem import Problem

_OF_LAM = ("strength", "decay", "shrinkage")
"""What a problem computes from λ and keeps."""


@dataclass(frozen=True)
class Swept:
    """The trained w, and values and hypergradients of J objectives for K problems."""

    w: Float[Tensor, "K p"]
    values: Float[Tensor, "J K"]
    poison: Float[Tensor, "J K free d"]
    lam: Float[Tensor, "J K G"]


def sweep(problem: Problem) -> Swept:
    """Training and Alg. 1 as :func:`poisoning.hypergradient.rmd.rmd`, without its checks.

    The checks look at numbers, for which a GPU has to be waited for.
    """
    for name in _OF_LAM:
        vars(problem).pop(name, None)  # a replay changes λ
    with torch.no_grad():
        tape = problem.model.record(problem, problem.initial, problem.steps)
        w = tape.w[-1].contiguous()
        values, p = problem.outer(w)
        _, d_poison, d_lam = problem.model.pull(problem, tape, p)
        return Swept(w, values, d_poison, problem.per_exponent(d_lam))


class Replay:
    """:func:`sweep` for problems that differ from ``problem`` in poison, λ and w^(0) alone.

    What a call returns is overwritten by the next.
    """

    def __init__(self, problem: Problem) -> None:
        own = (problem.poison, problem.lam, problem.initial)
        self._inputs = [tensor.clone(memory_format=torch.contiguous_format) for tensor in own]
        poison, lam, initial = self._inputs
        self._problem = replace(problem, poison=poison, lam=lam, initial=initial)
        self._graph = None
        if poison.device.type == "cuda":
            self._capture()

    def _capture(self) -> None:
        # A run before the capture fills what problem and rows keep, and starts cuBLAS.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            sweep(self._problem)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._found = sweep(self._problem)

    def __call__(
        self,
        poison: Float[Tensor, "K m d"],
        lam: Float[Tensor, "K G"],
        initial: Float[Tensor, "K p"],
    ) -> Swept:
        """The hypergradients at this poison, λ and w^(0)."""
        for kept, new in zip(self._inputs, (poison, lam, initial), strict=True):
            kept.copy_(new)
        if self._graph is None:
            return sweep(self._problem)
        self._graph.replay()
        return self._found
