"""The SVD defense: points with a large component outside the leading singular subspace."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, squared_norms
from poisoning.defenses.data import CleanData, PoisonedData
from poisoning.defenses.detector import examples, fitted
from poisoning.defenses.spectrum import (
    EXACT,
    ROUGH,
    Spectrum,
    captured_with_rows,
    leading_spectrum,
    update_pays,
)

_BLOCK = 2_000
_ROUNDING = 1e-10
_REACH = 0.55  # of λ_k: clean singular vectors beyond the top k are kept down to this eigenvalue


@dataclass
class SVDDefense:
    """s(x) = ‖(I − ββᵀ)x‖₂ with β (d, k) the top k right singular vectors of X, not centred.

    Koh et al. 2021, Section 2.2. k is the smallest whose normalised Frobenius error
    Σ_{i>k} σ_i² / Σ σ_i² is below ``tail``.
    """

    tail: float = 0.05

    name = "svd"
    cost = 4

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless the tail is a fraction between 0 and 1."""
        checks.share(self.tail, "SVDDefense: tail")

    def fit(self, X: Matrix, y: Shaped[ndarray, "n"]) -> "SVDDefense":
        """Compute β, as ``basis_`` (d, k).

        Raises ``ValueError`` for a matrix of zeros, and for what is no data set.
        """
        X, _ = examples(X, y)
        spectrum = leading_spectrum(X, self.tail)
        k = spectrum.rank
        self.basis_ = (X.T @ spectrum.vectors[:, :k]) / np.sqrt(spectrum.values[:k])
        return self

    def score(self, X: Matrix, y: Shaped[ndarray, "n"]) -> Float[ndarray, "n"]:
        """Distance of every point from the subspace.

        Raises ``NotFittedError`` before ``fit``.
        """
        X, y = examples(X, y, columns=len(fitted(self, "basis_")))
        captured = np.empty(X.shape[0])
        for first in range(0, X.shape[0], _BLOCK):
            block = slice(first, first + _BLOCK)
            captured[block] = squared_norms(np.asarray(X[block] @ self.basis_))
        return distance_outside(squared_norms(X), captured)

    def score_added(self, data: PoisonedData) -> Float[ndarray, "n"]:
        """The scores of clean data and poison, from the singular vectors of the clean data.

        Unless ``data.exact``, large data get a rough update where an exact one is slow.
        ``data.residuals`` holds max ‖XᵀXv − λv‖ / λ over the k vectors behind the scores: at most
        ``EXACT`` of :mod:`poisoning.defenses.spectrum`, or ``ROUGH``.
        """
        scores, residual = self._updated(data)
        data.residuals[id(self)] = residual
        return scores

    def _updated(self, data: PoisonedData) -> tuple[Float[ndarray, "n"], float]:
        spectrum = self._clean_spectrum(data.clean)
        norms = data.clean.products.norms
        if not data.X_poison.shape[0]:
            return distance_outside(norms, spectrum.captured), spectrum.residual
        P, copies, which = data.distinct
        scale = np.sqrt(copies)
        for tol in (EXACT,) if data.exact else (EXACT, ROUGH):
            if not update_pays(spectrum, P.shape[0], tol):
                continue
            inner = data.inner * np.outer(scale, scale)
            update = captured_with_rows(
                spectrum, data.clean.X, data.cross * scale, inner, self.tail, tol=tol
            )
            if update is None:
                break
            captured = np.concatenate([update.clean, (update.added / copies)[which]])
            norms = np.concatenate([norms, squared_norms(P)[which]])
            residual = max(update.residual, spectrum.residual)
            return distance_outside(norms, captured), residual
        fresh = leading_spectrum(data.X, self.tail)
        return distance_outside(data.norms, fresh.captured), fresh.residual

    def _clean_spectrum(self, clean: CleanData) -> Spectrum:
        return clean.remember(
            ("svd", self.tail), lambda: leading_spectrum(clean.X, self.tail, reach=_REACH)
        )


def distance_outside(
    norms: Float[ndarray, "n"], captured: Float[ndarray, "n"]
) -> Float[ndarray, "n"]:
    """√(‖x‖² − ‖βᵀx‖²); 0, so that noise ranks no points, if the difference is rounding error.

    Raises ``ValueError`` unless both have a number for every point.
    """
    norms = checks.array(norms, "norms", (None,))
    captured = checks.array(captured, "captured", norms.shape)
    outside = norms - captured
    return np.sqrt(np.where(outside > _ROUNDING * norms, outside, 0.0))
