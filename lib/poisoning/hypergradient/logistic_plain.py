"""The passes of :mod:`poisoning.hypergradient.logistic_kernels` by NumPy, for small problems.

Nothing has to be compiled for them, which takes longer than small problems do. Arguments are the
same, but for any number of problems, with rows X of the problem's type, and no poison in bytes.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expit

Arrays = tuple[ndarray, ...]


def data_term(
    rows: tuple[Any, ...],
    clean: Arrays,
    poison: Arrays,
    bent: bool,
    states: Arrays,
    v: Float[ndarray, "K d1"],
    out: Float[ndarray, "K d1"],
) -> None:
    """Σ s(σ − y) x̃ at v, or where ``bent`` Σ s σ(1 − σ) (x̃·v) x̃, into ``out``."""
    X, columns, scale, offset, _, P = rows
    curvature, poison_curvature, pull = states
    bias = v[:, -1:] + offset * v[:, :-1].sum(axis=1, keepdims=True)
    z = scale * v[:, columns] @ X.T + bias
    z_poison = (P @ v[:, :-1, None])[..., 0] + v[:, -1:]
    if bent:
        r, pull[:] = curvature * z, poison_curvature * z_poison
    else:
        r = _pulls(z, *clean, curvature)
        pull[:] = _pulls(z_poison, *poison, poison_curvature)
    total = r.sum(axis=1)
    out[:, :-1] = offset * total[:, None] + (pull[:, None] @ P)[:, 0]
    out[:, columns] += scale * (r @ X)
    out[:, -1] = total + pull.sum(axis=1)


def _pulls(z: ndarray, y: ndarray, share: ndarray, curvature: ndarray) -> ndarray:
    """s(σ − y), while the curvature becomes s σ(1 − σ)."""
    s = expit(z)
    curvature[:] = share * s * (1.0 - s)
    return share * (s - y)


def descend(
    rows: tuple[Any, ...], clean: Arrays, poison: Arrays, step: Arrays, w: ndarray, states: Arrays
) -> None:
    """Steps of Eq. (6)."""
    eta, decay, shrinkage = step[0][:, None], *step[1:]
    g = np.empty_like(decay)
    for t in range(w.shape[1] - 1):
        here = tuple(part[:, t] for part in states)
        data_term(rows, clean, poison, False, here, w[:, t], g)
        u = w[:, t] - eta * (g + decay * w[:, t])
        w[:, t + 1] = np.sign(u) * np.maximum(np.abs(u) - eta * shrinkage, 0.0)


def ascend(
    rows: tuple[Any, ...],
    clean: Arrays,
    poison: Arrays,
    step: Arrays,
    w: ndarray,
    states: Arrays,
    p: ndarray,
    way: ndarray,
    products: ndarray,
    d_lam: ndarray,
) -> None:
    """Lines 7–13 of Alg. 1."""
    eta, decay, shrinkage = step[0][:, None], *step[1:]
    g = np.empty_like(p)
    for t in range(w.shape[1] - 2, -1, -1):
        p[(shrinkage > 0.0) & (w[:, t + 1] == 0.0)] = 0.0
        d_lam -= eta * p * (shrinkage * np.sign(w[:, t + 1]) + decay * w[:, t])
        way[:, t] = p
        here = states[0][:, t], states[1][:, t], products[:, t]
        data_term(rows, clean, poison, True, here, p, g)
        p -= eta * (g + decay * p)
