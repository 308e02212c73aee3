"""Two sides timed on the same problems, in alternation."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import cvxpy as cp
import numpy as np
import torch

from poisoning.feasible import reference
from poisoning.feasible.sets import ClassSet


@contextmanager
def one_core() -> Iterator[None]:
    """One core for this thread and those it starts, where the system can do that.

    Libraries that bring thread pools of their own, as XLA does, heed no variable.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def timed(function: Callable, *arguments: Any, **options: Any) -> tuple[float, Any]:
    """Seconds, and what the call returned."""
    begun = perf_counter()
    result = function(*arguments, **options)
    return perf_counter() - begun, result


def product_speed(real: type) -> float:
    """FLOP/s of a product of large matrices on this core, the faster of NumPy's and torch's."""
    square = np.ones((1024, 1024), real)
    seconds = min(
        timed(lambda a=a: a @ a)[0] for a in (square, torch.from_numpy(square)) for _ in range(9)
    )
    return 2.0 * len(square) ** 3 / seconds


def read_speed(size: int) -> float:
    """Bytes a second of summing up an array of so many bytes."""
    array = np.ones(size // 8, np.uint64)
    return array.nbytes / min(timed(array.sum)[0] for _ in range(9))


def ratio(ratios: np.ndarray, prefix: str = "") -> dict[str, Any]:
    """Ratios pair by pair: their geometric mean and their extremes."""
    return {
        f"{prefix}ratio": float(np.exp(np.log(ratios).mean())),
        f"{prefix}spread": [float(ratios.min()), float(ratios.max())],
    }


class Race:
    """Seconds of ours and of a peer, a pair for every problem.

    Ours, the shorter, is the median of ``repeats`` runs before the peer's one and as many after,
    so that a machine that slows down meanwhile slows both.
    """

    def __init__(self, repeats: int = 5) -> None:
        self.repeats = repeats
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def run(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any]:
        """Time both on one problem; what they return."""
        runs = [timed(ours) for _ in range(self.repeats)]
        seconds, answer = timed(theirs)
        runs += [timed(ours) for _ in range(self.repeats)]
        self.ours.append(float(np.median([own for own, _ in runs])))
        self.theirs.append(seconds)
        return runs[-1][1], answer

    def record(self, prefix: str = "") -> dict[str, Any]:
        """Medians; the ratio pair by pair, its geometric mean and its extremes."""
        return {
            f"{prefix}ours_s": float(np.median(self.ours)),
            f"{prefix}peer_s": float(np.median(self.theirs)),
            **ratio(np.array(self.theirs) / np.array(self.ours), prefix),
        }


class Resolved:
    """min f(x, p) over one class's set as one cvxpy problem, solved again for every parameter p.

    Clarabel has no warm start of its own: what is saved is the canonicalisation.
    """

    def __init__(
        self,
        objective: Callable[[cp.Variable, cp.Parameter], cp.Expression],
        part: ClassSet,
        first: np.ndarray,
    ) -> None:
        x = cp.Variable(first.size)
        self._parameter = cp.Parameter(first.size)
        self._problem = cp.Problem(
            cp.Minimize(objective(x, self._parameter)), reference.constraints(x, part)
        )
        self(first)

    def __call__(self, value: np.ndarray) -> float:
        """The optimal value for the parameter ``value``."""
        self._parameter.value = value
        return float(self._problem.solve(solver=cp.CLARABEL))


class ColdAndWarm:
    """A problem's two races against cvxpy with Clarabel.

    Cold against cold, each side from nothing; warm against warm, each with what it can keep from
    similar problems.
    """

    def __init__(self) -> None:
        self._cold, self._warm = Race(), Race()
        self._agreement: list[float] = []

    def run(
        self,
        ours: Callable[[], Any],
        theirs: Callable[[], tuple[float, Any]],
        ours_warm: Callable[[], Any],
        theirs_warm: Callable[[], float],
    ) -> None:
        """Time all four on one problem, and compare each of the others' optimum with Clarabel's."""
        solution, (optimum, _points) = self._cold.run(ours, theirs)
        warm, optimum_warm = self._warm.run(ours_warm, theirs_warm)
        for objective in (solution.objective, warm.objective, optimum_warm):
            self._agreement.append(abs(objective / optimum - 1.0))

    def record(self, data: str) -> dict[str, Any]:
        """The entry's record."""
        return {
            "data": data,
            "peer": "cvxpy/CLARABEL",
            "n": len(self._cold.ours),
            "agreement": float(max(self._agreement)),
            **self._cold.record(),
            **self._warm.record("warm_"),
        }

    @staticmethod
    def summary(record: dict[str, Any]) -> str:
        """One line for a reader."""
        return (
            f"{record['data']}: cold {1e3 * record['ours_s']:.1f} ms beside "
            f"{record['peer_s']:.1f} s of {record['peer']} ({record['ratio']:.0f} times as fast, "
            f"geometric mean of {record['n']}), warm {1e3 * record['warm_ours_s']:.1f} ms beside "
            f"{record['warm_peer_s']:.1f} s ({record['warm_ratio']:.0f} times), objectives equal "
            f"to {record['agreement']:.0e}"
        )
