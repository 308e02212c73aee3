"""The SVD defense: points with a large component outside the leading singular subspace."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from poisoning.arrays import Matrix, squared_norms
from poisoning.defenses.spectrum import leading_spectrum

TAIL = 0.05
_BLOCK = 2_000
_ROUNDING = 1e-10


@dataclass(frozen=True)
class SVDDetector:
    """s(x) = ‖(I − ββᵀ)x‖₂ with β (d, k) the top right singular vectors."""

    basis: Float[ndarray, "d k"]

    def score(self, X: Matrix, y: Float[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every point from the subspace."""
        captured = np.empty(X.shape[0])
        for first in range(0, X.shape[0], _BLOCK):
            block = slice(first, first + _BLOCK)
            captured[block] = squared_norms(np.asarray(X[block] @ self.basis))
        return distance_outside(squared_norms(X), captured)


def distance_outside(
    norms: Float[ndarray, "n"], captured: Float[ndarray, "n"]
) -> Float[ndarray, "n"]:
    """√(‖x‖² − ‖βᵀx‖²); 0 where the difference is rounding error, lest noise rank such points."""
    outside = norms - captured
    return np.sqrt(np.where(outside > _ROUNDING * norms, outside, 0.0))


def fit_svd(X: Matrix, y: Float[ndarray, "n"], *, tail: float = TAIL) -> SVDDetector:
    """β = the top k right singular vectors of X, not centred (Koh et al. 2021, Section 2.2).

    k is the smallest whose normalised Frobenius error Σ_{i>k} σ_i² / Σ σ_i² is below ``tail``.
    """
    spectrum = leading_spectrum(X, tail)
    k = spectrum.rank
    return SVDDetector((X.T @ spectrum.vectors[:, :k]) / np.sqrt(spectrum.values[:k]))
