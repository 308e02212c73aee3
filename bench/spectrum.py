"""Singular vectors of the clean data, which the SVD defense needs once a split.

A peer finds as many leading eigenpairs of XXᵀ as we do, with residuals no larger; how many are
needed it is told. Both multiply by X with the same function. ``whole_s`` is ours on all of IMDB,
where the peers take hours, with the further vectors that later updates need.
"""

from functools import partial
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh
from tqdm import tqdm

from bench.data import examples
from bench.timing import Race
from poisoning.arrays import Matrix
from poisoning.defenses.spectrum import EXACT, Spectrum, _gram, leading_spectrum
from poisoning.defenses.svd import _REACH

NAME = "koh2021.spectrum"
TAIL = 0.05
CELLS = (("enron", None), ("imdb", 4_000))
"""Data sets, and how many of their rows."""


def run(bar: tqdm) -> dict[str, Any]:
    """Each data set beside each peer, then all of IMDB alone."""
    if find_spec("primme") is None:
        raise ModuleNotFoundError("a peer is not installed: pip install primme")
    peers = {"scipy (ARPACK)": _arpack, "PRIMME": _primme}
    bar.reset(total=len(CELLS) * len(peers) + 1)
    cells, races = [], {}
    for name, rows in CELLS:
        data, _ = examples(name)
        X = data.X[:rows]
        ours = leading_spectrum(X, TAIL)  # compiled and read once before anything is timed
        for peer, solve in peers.items():
            race = Race(repeats=1)
            _, (values, vectors) = race.run(
                partial(leading_spectrum, X, TAIL), partial(solve, X, ours)
            )
            found = np.sort(values)[::-1] / ours.values[: ours.rank]
            apart = np.linalg.norm(_gram(X)(vectors) - vectors * values, axis=0)
            races[name, peer] = race.record()
            cells.append({
                "data": name, "rows": X.shape[0], "rank": ours.rank, "peer": peer,
                "residual": ours.residual, "peer_residual": float(apart.max() / _least(ours)),
                "agreement": float(np.abs(found - 1.0).max()),
                **races[name, peer],
            })  # fmt: skip
            bar.update()
    data, source = examples("imdb")
    begun = perf_counter()
    whole = leading_spectrum(data.X, TAIL, reach=_REACH)
    bar.update()
    name, rows = CELLS[-1]
    best = min(peers, key=lambda peer: races[name, peer]["peer_s"])
    return {
        "data": f"{source}, {rows} rows",
        "peer": f"{best}, told how many vectors are needed",
        "n": 1,
        "agreement": max(cell["agreement"] for cell in cells),
        "whole_s": perf_counter() - begun,
        "whole_vectors": len(whole.values),
        "cells": cells,
        **races[name, best],
    }


def summary(record: dict[str, Any]) -> str:
    """One line for a reader."""
    return (
        f"{record['data']}: {record['ours_s']:.1f} s beside {record['peer_s']:.1f} s of "
        f"{record['peer']}; {record['whole_s']:.0f} s for {record['whole_vectors']} vectors of all"
    )


def _least(spectrum: Spectrum) -> float:
    return float(spectrum.values[spectrum.rank - 1])


def _operator(X: Matrix) -> LinearOperator:
    gram = _gram(X)
    n = X.shape[0]
    return LinearOperator(
        (n, n), matvec=lambda v: gram(v.reshape(n, 1)).ravel(), matmat=gram, dtype=float
    )


def _arpack(X: Matrix, ours: Spectrum) -> tuple[np.ndarray, np.ndarray]:
    return eigsh(_operator(X), k=ours.rank, tol=EXACT, v0=np.ones(X.shape[0]))


def _primme(X: Matrix, ours: Spectrum) -> tuple[np.ndarray, np.ndarray]:
    import primme  # not among the pins

    # The fastest of its methods here. Its tolerance is a fraction of the largest eigenvalue.
    return primme.eigsh(
        _operator(X), k=ours.rank, tol=EXACT * _least(ours) / ours.values[0],
        method="PRIMME_LOBPCG_OrthoBasis_Window", maxBlockSize=16,
    )  # fmt: skip
