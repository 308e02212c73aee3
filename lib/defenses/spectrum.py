"""Leading singular values of a data matrix and, when rows are added, the exact new ones.

Everything happens among left singular vectors: A = XXᵀ is n × n and X stays sparse. The
eigenpairs of A come from a block Lanczos process with full reorthogonalisation, whose residuals
‖Au − λu‖ are known exactly: without such a bound an approximate SVD quietly answers a different
question, and attacks look defeated that are not.

Rows added to X (``captured_with_rows``): with P the new distinct rows, each scaled by the square
root of its number of copies,

    [X; P][X; P]ᵀ = [[A, XPᵀ], [PXᵀ, PPᵀ]].

Let U hold the known eigenvectors of A. The wanted eigenvectors lie in span(U) ⊕ span(new rows) ⊕
Krylov(A, (I − UUᵀ)XPᵀ), because A couples U to nothing else. On the last space A has only the
eigenvalues below those of U, so a few steps suffice however the rows were chosen, and the same
residual bound holds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float
from numpy import ndarray

from lib.arrays import Matrix, squared_norms

_BLOCK = 48
_FRESH_BASIS = 2.2  # Lanczos vectors per wanted pair, roughly, when starting from nothing
_SMALL_BASIS = 1_500  # up to this size the update is quick whatever the alternative
_GROWTH = 1.15  # of the Lanczos basis between two tests of convergence
_NEGLIGIBLE = 1e-12  # a direction this much shorter than its parent is rounding error
_SEED = 0


@dataclass(frozen=True)
class Spectrum:
    """The leading eigenpairs of XXᵀ, and how well they hold.

    ``vectors`` (n, m), ``values`` (m,) descending (squared singular values), ``total`` = ‖X‖²_F,
    ``rank`` = the k of the rule that asked for them, ``residual`` = max ‖XXᵀu − λu‖ / λ_k over
    all m pairs.
    """

    vectors: Float[ndarray, "n m"]
    values: Float[ndarray, "m"]
    total: float
    rank: int
    residual: float

    @property
    def captured(self) -> Float[ndarray, "n"]:
        """Σ_{j≤k} (v_j·x_i)², what the top k right singular vectors hold of every row."""
        return np.square(self.vectors[:, : self.rank]) @ self.values[: self.rank]


def rank_for(values: Float[ndarray, "m"], total: float, tail: float) -> int | None:
    """The smallest k with Σ_{i>k} σ_i² / Σ σ_i² < ``tail``; None if ``values`` do not reach it."""
    enough = total - np.concatenate([[0.0], np.cumsum(values)]) < tail * total
    return int(np.argmax(enough)) if enough.any() else None


def leading_spectrum(X: Matrix, tail: float, *, surplus: int = 0, tol: float = 1e-6) -> Spectrum:
    """Eigenpairs of XXᵀ up to the smallest rank k whose tail energy is below ``tail``, and beyond.

    ``X`` (n, d); ``tail`` in (0, 1) as in ``rank_for``. ``surplus`` more pairs, but at most k, are
    computed for the sake of rows to be added. Every pair returned has a residual of at most
    ``tol`` · λ_k. Raises ``ValueError`` for a matrix of zeros.
    """
    n = X.shape[0]
    total = float(squared_norms(X).sum())
    if not total > 0.0:
        raise ValueError("a matrix of zeros has no leading singular vectors")
    gram = _gram(X)
    # Started in the range of A: then equal rows of X have equal entries in every vector.
    rng = np.random.default_rng(_SEED)

    def start() -> Float[ndarray, "n b"]:
        return gram(rng.standard_normal((n, min(_BLOCK, n))))

    lanczos = _BlockLanczos(gram, start(), np.empty((n, 0)))
    size = 2 * _BLOCK
    while True:
        while lanczos.size < size and not lanczos.exhausted:
            lanczos.step()
        T = lanczos.projection()
        if np.trace(T) > (1.0 - tail) * total:
            values, rotation = scipy.linalg.eigh(T, driver="evd", overwrite_a=True)
            values, rotation = np.maximum(values[::-1], 0.0), rotation[:, ::-1]
            rank = rank_for(values, total, tail)
            if rank is not None:
                wanted = min(
                    rank + min(rank, surplus), int(np.sum(values > _NEGLIGIBLE * values[0]))
                )
                residual = lanczos.residuals(rotation[:, :wanted]).max() / values[rank - 1]
                if residual <= tol or lanczos.exhausted:
                    vectors = lanczos.basis @ rotation[:, :wanted]
                    return Spectrum(vectors, values[:wanted], total, rank, float(residual))
        if lanczos.exhausted:  # more equal singular values than the block has columns
            lanczos.restart(start())
        size = int(_GROWTH * size)


def captured_with_rows(
    spectrum: Spectrum,
    X: Matrix,
    cross: Float[ndarray, "n r"],
    inner: Float[ndarray, "r r"],
    tail: float,
    *,
    tol: float = 1e-6,
) -> tuple[Float[ndarray, "n"], Float[ndarray, "r"], int] | None:
    """How much of each row the top singular vectors of [X; P] capture, exactly; and their k.

    ``cross`` = XPᵀ and ``inner`` = PPᵀ for the r added rows, each already scaled by the square
    root of its copies. Returns Σ_{j≤k} (v_j·x_i)² for the rows of X, the same for those of P, and
    the k of ``rank_for``. Residuals are at most ``tol`` · λ_k beside those of ``spectrum``.

    The answer is None if the spectrum kept too few pairs to be sure of it: eigenvectors of A left
    out of U may be new leading ones, untouched by P, unless their eigenvalues are below the new
    λ_k.
    """
    U, r, m = spectrum.vectors, inner.shape[0], len(spectrum.values)
    left_out = min(spectrum.values[-1], spectrum.total - spectrum.values.sum())
    total = spectrum.total + float(np.trace(inner))
    coupling = U.T @ cross
    lanczos = _BlockLanczos(_gram(X), cross, U)
    steps = _steps(spectrum, tol)
    while True:
        for _ in range(steps):
            if not lanczos.exhausted:
                lanczos.step()
        steps = 1
        N = m + r + lanczos.size
        H = np.zeros((N, N))
        H[np.arange(m), np.arange(m)] = spectrum.values
        H[m : m + r, m : m + r] = inner
        H[m : m + r, :m] = coupling.T
        first = lanczos.start_factor
        H[m + r : m + r + first.shape[0], m : m + r] = first
        H[m + r :, m + r :] = lanczos.projection()
        values, rotation = scipy.linalg.eigh(H, driver="evd", overwrite_a=True)
        values, rotation = values[::-1], rotation[:, ::-1]
        rank = rank_for(values, total, tail)
        if rank is not None:
            residual = lanczos.residuals(rotation[m + r :, :rank]).max(initial=0.0)
            if residual <= tol * values[rank - 1] or lanczos.exhausted:
                break
        if lanczos.exhausted:
            return None
    if values[rank - 1] < left_out:
        return None
    top = rotation[:, :rank] * np.sqrt(values[:rank])
    left = U @ top[:m] + lanczos.basis @ top[m + r :]
    return (
        np.einsum("ij,ij->i", left, left),
        np.einsum("ij,ij->i", top[m : m + r], top[m : m + r]),
        rank,
    )


def update_pays(spectrum: Spectrum, added: int, *, tol: float = 1e-6) -> bool:
    """Whether ``captured_with_rows`` beats ``leading_spectrum`` of all rows, both being exact.

    Every step of the update costs as many vectors as there are distinct rows added.
    """
    size = len(spectrum.values) + added * (1 + _steps(spectrum, tol))
    return size <= max(_SMALL_BASIS, _FRESH_BASIS * spectrum.rank)


def _steps(spectrum: Spectrum, tol: float) -> int:
    """Lanczos steps after which an update should have converged, by Chebyshev's bound.

    The wanted eigenvalues are at least λ_k, those of the space searched at most λ_m.
    """
    gamma = 2.0 * spectrum.values[spectrum.rank - 1] / spectrum.values[-1] - 1.0
    rate = gamma + np.sqrt(gamma**2 - 1.0)
    if rate <= 1.0 + 1e-3:
        return 1
    return max(1, int(np.ceil(np.log(0.03 / tol) / np.log(rate))))


def _gram(X: Matrix) -> Callable[[ndarray], ndarray]:
    """V ↦ XXᵀV, with Xᵀ laid out by rows once."""
    Xt = X.T.tocsr() if not isinstance(X, ndarray) else X.T
    return lambda V: X @ (Xt @ np.ascontiguousarray(V))


class _BlockLanczos:
    """An orthonormal basis Q of Krylov(A, start), orthogonal to ``locked``, and QᵀAQ.

    A Q = Q T + (next block) · R: ``residuals`` follow from R alone. The block shrinks when
    directions run out, and the process is exhausted when none is left.
    """

    def __init__(
        self,
        apply: Callable[[ndarray], ndarray],
        start: Float[ndarray, "n b"],
        locked: Float[ndarray, "n m"],
    ) -> None:
        self._apply = apply
        self._locked = locked
        self._store = np.empty((start.shape[0], 0), order="F")
        self.size = 0
        self._diagonal: list[ndarray] = []
        self._below: list[ndarray] = []
        self._next, self.start_factor = self._orthonormal(start, np.linalg.norm(start))

    @property
    def exhausted(self) -> bool:
        """Whether the space is invariant: nothing is left to add."""
        return self._next.shape[1] == 0

    @property
    def basis(self) -> Float[ndarray, "n s"]:
        """Q."""
        return self._store[:, : self.size]

    def step(self) -> None:
        """Add one block."""
        block = self._next
        self._append(block)
        W = self._apply(block)
        scale = np.linalg.norm(W)
        own = block.T @ W
        self._diagonal.append(0.5 * (own + own.T))
        self._next, below = self._orthonormal(W, scale)
        self._below.append(below)

    def restart(self, start: Float[ndarray, "n b"]) -> None:
        """Go on from new directions after the space has closed."""
        self._next, _ = self._orthonormal(start, np.linalg.norm(start))
        self._below[-1] = np.zeros((self._next.shape[1], self._below[-1].shape[1]))

    def projection(self) -> Float[ndarray, "s s"]:
        """T = QᵀAQ, block tridiagonal."""
        T = np.zeros((self.size, self.size))
        first = 0
        for index, block in enumerate(self._diagonal):
            last = first + len(block)
            T[first:last, first:last] = block
            if index + 1 < len(self._diagonal):
                below = self._below[index]
                T[last : last + below.shape[0], first:last] = below
                T[first:last, last : last + below.shape[0]] = below.T
            first = last
        return T

    def residuals(self, coordinates: Float[ndarray, "s k"]) -> Float[ndarray, "k"]:
        """‖A Qc − Q T c‖ for each column c."""
        if self.exhausted or not self._below:
            return np.zeros(coordinates.shape[1])
        below = self._below[-1]
        return np.linalg.norm(below @ coordinates[-below.shape[1] :], axis=0)

    def _orthonormal(
        self, W: Float[ndarray, "n b"], scale: float
    ) -> tuple[Float[ndarray, "n c"], Float[ndarray, "c b"]]:
        """W less its part in the span so far, as (orthonormal block) · (factor)."""
        W = self._outside(W)
        Q, R, order = scipy.linalg.qr(W, mode="economic", pivoting=True)
        kept = int(np.sum(np.abs(np.diag(R)) > _NEGLIGIBLE * scale))
        factor = np.empty((kept, W.shape[1]))
        factor[:, order] = R[:kept]
        # Short directions lost orthogonality when they were scaled up: once more, from unit length.
        Q, correction = np.linalg.qr(self._outside(Q[:, :kept]))
        return Q, correction @ factor

    def _outside(self, W: Float[ndarray, "n b"]) -> Float[ndarray, "n b"]:
        """W less its part in the span so far."""
        W = W - self._locked @ (self._locked.T @ W)
        return W - self.basis @ (self.basis.T @ W)

    def _append(self, block: Float[ndarray, "n c"]) -> None:
        needed = self.size + block.shape[1]
        if needed > self._store.shape[1]:
            larger = np.empty((block.shape[0], max(needed, int(1.5 * self.size))), order="F")
            larger[:, : self.size] = self.basis
            self._store = larger
        self._store[:, self.size : needed] = block
        self.size = needed
