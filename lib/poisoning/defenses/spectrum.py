"""Leading singular values of a data matrix and, when rows are added, the new ones.

Everything happens among left singular vectors: A = XXᵀ is n × n and X stays sparse. The eigenpairs
of A come from a block Lanczos process with partial reorthogonalisation, whose residuals ‖Au − λu‖
are known exactly: without such a bound an approximate SVD can be wrong unnoticed, and attacks then
look defeated that are not.

Rows added to X (``captured_with_rows``): let A = UΛUᵀ + (what is left out), V = XᵀUΛ^(-1/2) the
right singular vectors known, and P the new distinct rows, each scaled by the square root of its
number of copies. B = XᵀX + PᵀP couples V to nothing but P, so the wanted eigenvectors of B lie in
span(V) ⊕ Krylov(XᵀX, (I − VVᵀ)Pᵀ). On the second space XᵀX has only the eigenvalues left out, all
below those of V, so few steps suffice however the rows were chosen. That space is the image under
[X; P]ᵀ of the new rows and of Krylov(A, (I − UUᵀ)XPᵀ), on which again a block Lanczos process runs:
no vector of length d is kept, and residuals are bounded as before.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float
from numpy import ndarray

from poisoning import checks
from poisoning.arrays import Matrix, squared_norms

EXACT = 1e-6
"""Residual, as a fraction of the eigenvalue, that is too small to change what a defense removes."""

ROUGH = 0.03
"""The same for a quick update of large data. What vectors capture is wrong by about its square: on
IMDB 0 to 2 of 25,750 points change sides of a 5 % cut at 0.02, 8 at 0.08, 70 at 0.15."""

_BLOCK = 48
_FRESH_BASIS = 2.2  # least number of Lanczos vectors per wanted pair without an update
_SMALL_BASIS = 1_500  # up to this size of its basis an exact update is always used
_MINUTES = 1e11  # n · (size of the basis)² from which a spectrum without an update takes minutes
_FIRST_RESIDUAL = 0.03  # of an update before Chebyshev's rate sets in, typically
_SLOWEST = 1.2  # least factor by which one Lanczos step of an update divides the residual
_GROWTH = 1.15  # of the Lanczos basis between two tests of convergence, at first
_NEGLIGIBLE = 1e-12  # a direction this much shorter than its parent is rounding error
_NEGLIGIBLE_SQUARE = 1e-14  # the same for squared lengths found as differences
_INSIDE = 0.25  # a unit vector with less squared length after a projection has lost accuracy
_WELL_CONDITIONED = 1e-10  # ratio of squares down to which Cholesky may orthogonalise
_OFTEN = 0.1  # density from which a column is multiplied faster as a dense one
_LEADING = 4  # first blocks of a Lanczos basis: they hold the largest eigenvalues
_OVERLAP = 1e-9  # allowed between two blocks of a Lanczos basis; half of all digits would do
_LEAST_TAIL = 1e-12  # rounding may keep the tail of all eigenvalues above a smaller one
_EPS = float(np.finfo(float).eps)
_SEED = 0


@dataclass(frozen=True)
class Spectrum:
    """The leading eigenpairs of XXᵀ, with their accuracy.

    ``vectors`` (n, m), ``values`` (m,) descending (squared singular values), ``total`` = ‖X‖²_F,
    ``rank`` = the k of :func:`rank_for`, ``residual`` = max ‖XXᵀu − λu‖ / λ_k over all m pairs.
    """

    vectors: Float[ndarray, "n m"]
    values: Float[ndarray, "m"]
    total: float
    rank: int
    residual: float

    @property
    def captured(self) -> Float[ndarray, "n"]:
        """Σ_{j≤k} (v_j·x_i)² of every row, v_j being the top k right singular vectors."""
        return np.square(self.vectors[:, : self.rank]) @ self.values[: self.rank]

    @property
    def left_out(self) -> float:
        """An upper bound on the eigenvalues beyond the pairs kept."""
        return max(min(float(self.values[-1]), self.total - float(self.values.sum())), 0.0)


def rank_for(values: Float[ndarray, "m"], total: float, tail: float) -> int | None:
    """The smallest k with Σ_{i>k} σ_i² / Σ σ_i² < ``tail``; None if ``values`` do not reach it.

    Raises ``ValueError`` unless ``tail`` is between 0 and 1.
    """
    tail = checks.share(tail, "tail")
    values = checks.array(values, "values", (None,))
    total = checks.positive(total, "total", zero=True)
    enough = total - np.concatenate([[0.0], np.cumsum(values)]) < tail * total
    return int(np.argmax(enough)) if enough.any() else None


def leading_spectrum(X: Matrix, tail: float, *, reach: float = 1.0, tol: float = EXACT) -> Spectrum:
    """Eigenpairs of XXᵀ up to the smallest rank k whose tail energy is below ``tail``, and beyond.

    ``X`` (n, d); ``tail`` in (0, 1) as in ``rank_for``. For later updates, pairs down to the first
    at ``reach`` · λ_k or less are computed too, but at most k more. Every pair returned has a
    residual of at most ``tol`` · λ_k. Raises ``ValueError`` for a matrix of zeros, a tail that is
    not between 1e-12 and 1, and what is no matrix.
    """
    X, tail = checks.matrix(X, "X"), checks.share(tail, "tail")
    if tail < _LEAST_TAIL:
        raise ValueError(f"tail must be at least {_LEAST_TAIL:g}; {tail:g} is lost in rounding.")
    reach, tol = checks.between(reach, "reach", 0.0, 1.0), checks.positive(tol, "tol")
    n = X.shape[0]
    total = float(squared_norms(X).sum())
    if not total > 0.0:
        raise ValueError("X must not be 0 throughout: it has no leading singular vectors.")
    gram = _gram(X)
    # Started in the range of A: then equal rows of X have equal entries in every vector.
    rng = np.random.default_rng(_SEED)

    def start() -> Float[ndarray, "n b"]:
        return gram(rng.standard_normal((n, min(_BLOCK, n))))

    lanczos = _BlockLanczos(gram, start(), np.empty((n, 0)))
    size, wanted, tests = 2 * _BLOCK, 0, []
    while True:
        while lanczos.size < size and not lanczos.exhausted:
            lanczos.step()
        if lanczos.trace > (1.0 - tail) * total:
            # Values alone take an eighth of the time of pairs.
            values = np.maximum(lanczos.values()[::-1], 0.0)
            rank = rank_for(values, total, tail)
            if rank is not None:
                beyond = 1 + int(np.sum(values > reach * values[rank - 1]))
                nonzero = int(np.sum(values > _NEGLIGIBLE * values[0]))
                wanted = min(max(beyond, rank), 2 * rank, nonzero)
                residual = lanczos.likely_residual(values[wanted - 1]) / values[rank - 1]
                if residual <= tol or lanczos.exhausted:
                    T = lanczos.projection()
                    _, rotation = scipy.linalg.eigh(T, driver="evd", overwrite_a=True)
                    rotation = rotation[:, ::-1][:, :wanted]
                    residual = lanczos.residuals(rotation).max() / values[rank - 1]
                if residual <= tol or lanczos.exhausted:
                    vectors = lanczos.basis @ rotation
                    return Spectrum(vectors, values[:wanted], total, rank, float(residual))
                tests.append((lanczos.size, np.log(residual / tol)))
        if lanczos.exhausted:  # more equal singular values than the block has columns
            lanczos.restart(start())
        size = max(_next_size(lanczos.size, tests), int(_FRESH_BASIS * wanted))


def _next_size(size: int, tests: list[tuple[int, float]]) -> int:
    """The basis size for the next test of convergence: a test costs as much as many steps.

    ``tests`` are (size, log of residual over tolerance). The line through the last two is
    extrapolated to 0; the residual falls faster than this line.
    """
    if len(tests) >= 2 and tests[-1][1] < tests[-2][1]:
        (before, higher), (now, lower) = tests[-2:]
        needed = lower * (now - before) / (higher - lower)
        return size + int(np.clip(needed, (_GROWTH - 1.0) / 3.0 * size, (_GROWTH - 1.0) * size)) + 1
    return int(_GROWTH * size) + 1


@dataclass(frozen=True)
class Update:
    """What the top k right singular vectors of [X; P] capture of every row, with its accuracy.

    ``clean`` (n,) and ``added`` (r,) are Σ_{j≤k} (v_j·x_i)² for the rows of X and of P, ``rank`` =
    the k of ``rank_for``; ``residual`` bounds ‖Bv − λv‖ / λ over those k pairs, given V.
    """

    clean: Float[ndarray, "n"]
    added: Float[ndarray, "r"]
    rank: int
    residual: float


def captured_with_rows(
    spectrum: Spectrum,
    X: Matrix,
    cross: Float[ndarray, "n r"],
    inner: Float[ndarray, "r r"],
    tail: float,
    *,
    tol: float = EXACT,
) -> Update | None:
    """How much of each row the top singular vectors of [X; P] capture, with residuals ≤ tol · λ.

    ``cross`` = XPᵀ and ``inner`` = PPᵀ for the r added rows, each already scaled by the square
    root of its copies.

    Let L be an orthonormal basis of the new rows and the Lanczos vectors Q, S = the Gram matrix of
    (I − VVᵀ)[X; P]ᵀL = E diag(e) Eᵀ, and W = (I − VVᵀ)[X; P]ᵀL E e^(-1/2). In the orthonormal basis
    (V, W), with Φ = VᵀPᵀ (zero for Q), F = E e^(1/2) and N = (next block of Q)ᵀXW,

        B = [[Λ + ΦΦᵀ, ΦF], [FᵀΦᵀ, diag(e) + NᵀN]].

    All that B(V, W) has outside the basis is XᵀQ'N, Q' being the next block: its norm is at most
    that of N times the largest singular value left out of U. So this basis is half a Lanczos step
    larger than the left vectors that it is made of, at no cost.

    The result is None if ``spectrum`` has too few pairs to guarantee it: eigenvectors of A left out
    of U may be among the new leading ones unless their eigenvalues are below the new λ_k.

    Raises ``ValueError`` for arrays that do not fit, a tail that is not between 0 and 1.
    """
    U = checks.instance(spectrum, "spectrum", Spectrum).vectors
    X, tail = checks.matrix(X, "X"), checks.share(tail, "tail")
    if X.shape[0] != len(U):
        raise ValueError(f"X must have the {len(U)} rows of the spectrum, it has {X.shape[0]}.")
    cross = checks.array(cross, "cross", (len(U), None))
    inner = checks.array(inner, "inner", (cross.shape[1], cross.shape[1]))
    tol = checks.positive(tol, "tol")
    U, r, m = spectrum.vectors, inner.shape[0], len(spectrum.values)
    total = spectrum.total + float(np.trace(inner))
    lanczos = _BlockLanczos(_gram(X), cross, U)
    sigma = np.sqrt(spectrum.values)[:, None]
    phi = lanczos.start_locked / sigma
    corner = np.diag(spectrum.values) + phi @ phi.T
    steps = _steps(spectrum, tol)
    while True:
        for _ in range(steps):
            if not lanczos.exhausted:
                lanczos.step()
        steps = 1
        S = np.zeros((r + lanczos.size, r + lanczos.size))
        S[:r, :r] = inner - phi.T @ phi
        S[r : r + lanczos.start_factor.shape[0], :r] = lanczos.start_factor
        S[r:, r:] = lanczos.projection()
        e, E = scipy.linalg.eigh(S)
        kept = e > _NEGLIGIBLE_SQUARE * max(e[-1], inner.diagonal().max())
        # Directions too short to be told from rounding error: left out, and part of the residual.
        lost = np.sqrt(np.abs(e[~kept])) * E[:r, ~kept]
        e, E = e[kept], E[:, kept]
        F = E * np.sqrt(e)
        ahead = lanczos.below[-1] if lanczos.size else lanczos.start_factor
        N = ahead @ (E[len(E) - ahead.shape[1] :] / np.sqrt(e))
        B = np.zeros((m + len(e), m + len(e)))
        B[:m, :m] = corner
        B[m:, :m] = (phi @ F[:r]).T
        B[m:, m:] = np.diag(e) + N.T @ N
        values, rotation = scipy.linalg.eigh(B, driver="evd", overwrite_a=True)
        values, rotation = values[::-1], rotation[:, ::-1]
        rank = rank_for(values, total, tail)
        if rank is not None:
            in_V, in_W = rotation[:m, :rank], rotation[m:, :rank]
            of_rows = phi.T @ in_V
            outside = spectrum.left_out * np.square(N @ in_W).sum(0)
            outside += np.square(lost.T @ of_rows).sum(0)
            residual = float((np.sqrt(outside) / values[:rank]).max())
            if residual <= tol or lanczos.exhausted:
                break
        if lanczos.exhausted:
            return None
    if values[rank - 1] < spectrum.left_out:
        return None
    of_rows = of_rows + F[:r] @ in_W
    left = U @ (sigma * in_V)
    left += lanczos.basis @ (F[r:] @ in_W)
    left += lanczos.ahead @ (N @ in_W)
    return Update(
        np.einsum("ij,ij->i", left, left),
        np.einsum("ij,ij->i", of_rows, of_rows),
        rank,
        residual,
    )


def update_pays(spectrum: Spectrum, added: int, tol: float = EXACT) -> bool:
    """Whether ``captured_with_rows`` should replace ``leading_spectrum`` of all rows.

    Every step of the update costs as many vectors as there are distinct rows ``added``. At residual
    ``EXACT`` both are equally accurate, so the update is used where it is faster; at a larger
    ``tol`` it is used only where ``leading_spectrum`` takes minutes.
    """
    added, tol = checks.whole(added, "added"), checks.positive(tol, "tol")
    size = len(spectrum.values) + added * (1 + _steps(spectrum, tol))
    fresh = _FRESH_BASIS * spectrum.rank
    if tol <= EXACT:
        return size <= max(_SMALL_BASIS, fresh)
    return len(spectrum.vectors) * fresh**2 > _MINUTES and size <= 1.5 * fresh


def _steps(spectrum: Spectrum, tol: float) -> int:
    """Lanczos steps after which an update should have converged, by Chebyshev's bound.

    The wanted eigenvalues are at least λ_k, those of the space searched at most ``left_out``.
    """
    ratio = max(spectrum.left_out / spectrum.values[spectrum.rank - 1], _NEGLIGIBLE)
    gamma = 2.0 / ratio - 1.0
    rate = max(gamma + np.sqrt(gamma**2 - 1.0), _SLOWEST)
    return max(1, int(np.ceil(np.log(_FIRST_RESIDUAL / tol) / np.log(rate))))


def _gram(X: Matrix) -> Callable[[ndarray], ndarray]:
    """V ↦ XXᵀV, prepared for many V: frequent columns of a sparse X dense, the others by rows."""
    if isinstance(X, ndarray):
        return lambda V: X @ (X.T @ V)
    often = np.bincount(X.indices, minlength=X.shape[1]) > _OFTEN * X.shape[0]
    dense, rare = X[:, np.flatnonzero(often)].toarray(), X[:, np.flatnonzero(~often)]
    by_column = rare.T.tocsr()

    def apply(V: Float[ndarray, "n b"]) -> Float[ndarray, "n b"]:
        V = np.ascontiguousarray(V)
        return dense @ (dense.T @ V) + rare @ (by_column @ V)

    return apply


class _BlockLanczos:
    """An orthonormal basis Q of Krylov(A, start), orthogonal to ``locked``, and QᵀAQ.

    ``locked`` spans an invariant subspace of A, and A Q = Q T + ``ahead`` · R: ``residuals`` follow
    from R alone. start = locked · ``start_locked`` + (first block) · ``start_factor``. Blocks
    shrink when directions run out, and the process is exhausted when none is left.

    In exact arithmetic a new block is orthogonal to all but the last two. Rounding adds overlaps
    with the others that grow from step to step, first and fastest in the directions of the largest
    eigenvalues. So each block is projected against the ``_LEADING`` first and the last two, and
    against all, it and its successor, only when a bound on the overlaps passes ``_OVERLAP``:
    partial reorthogonalisation (Simon 1984; Grimes, Lewis & Simon 1994).
    """

    def __init__(
        self,
        apply: Callable[[ndarray], ndarray],
        start: Float[ndarray, "n b"],
        locked: Float[ndarray, "n m"],
    ) -> None:
        self._apply = apply
        self._locked = locked
        self._store = np.empty((0, start.shape[0]))  # Qᵀ: it grows in place
        self._diagonal: list[ndarray] = []
        self.below: list[ndarray] = []
        self._ends: list[ndarray] = []  # least and greatest eigenvalue of each diagonal block
        self._lengths: list[float] = []  # ‖·‖₂ of each block below
        self._overlaps = np.empty(0), np.empty(0)  # of the last block in Q, of ``ahead``: bounds
        self._complete, self._successor = True, False  # of the two projections against all
        self.start_locked = locked.T @ start
        self.ahead, self.start_factor = self._orthonormal(
            start - locked @ self.start_locked, np.linalg.norm(start)
        )

    @property
    def exhausted(self) -> bool:
        """Whether the space is invariant, so that no vector can be added."""
        return self.ahead.shape[1] == 0

    @property
    def size(self) -> int:
        """The number of vectors in Q."""
        return len(self._store)

    @property
    def basis(self) -> Float[ndarray, "n s"]:
        """Q."""
        return self._store.T

    def step(self) -> None:
        """Add one block."""
        block = self.ahead
        W = self._apply(block)
        scale = np.linalg.norm(W)
        own = block.T @ W
        own = 0.5 * (own + own.T)
        # In exact arithmetic A couples a block to itself and its neighbours only.
        W -= block @ own
        if self.below:
            before = self.below[-1].shape[1]
            W -= self.basis[:, self.size - before :] @ self.below[-1].T
        self._store.resize((self.size + len(own), len(block)), refcheck=False)
        self.basis[:, -len(own) :] = block
        self._diagonal.append(own)
        self._watch(W, scale)
        self.ahead, below = self._orthonormal(W, scale)
        self.below.append(below)

    def restart(self, start: Float[ndarray, "n b"]) -> None:
        """Continue from new directions after the space has become invariant."""
        self.ahead, _ = self._orthonormal(self._outside(start), np.linalg.norm(start))
        self.below[-1] = np.zeros((self.ahead.shape[1], self.below[-1].shape[1]))

    def projection(self) -> Float[ndarray, "s s"]:
        """T = QᵀAQ, block tridiagonal."""
        T = np.zeros((self.size, self.size))
        first = 0
        for index, block in enumerate(self._diagonal):
            last = first + len(block)
            T[first:last, first:last] = block
            if index + 1 < len(self._diagonal):
                below = self.below[index]
                T[last : last + below.shape[0], first:last] = below
                T[first:last, last : last + below.shape[0]] = below.T
            first = last
        return T

    @property
    def trace(self) -> float:
        """That of T."""
        return sum(float(np.trace(block)) for block in self._diagonal)

    def band(self) -> Float[ndarray, "b1 s"]:
        """The lower half of T, diagonal by diagonal, as LAPACK's banded routines want it."""
        band, first = np.zeros((2 * max(map(len, self._diagonal)), self.size)), 0
        for index, block in enumerate(self._diagonal):
            last = index + 1 == len(self._diagonal)
            columns = block if last else np.vstack([block, self.below[index]])
            for j in range(len(block)):
                band[: len(columns) - j, first + j] = columns[j:, j]
            first += len(block)
        # Below the diagonal blocks are triangles, but for blocks that had to shrink.
        return band[: 1 + int(np.flatnonzero(band.any(axis=1)).max(initial=0))]

    def values(self) -> Float[ndarray, "s"]:
        """The eigenvalues of T, ascending."""
        return scipy.linalg.eigvals_banded(self.band(), lower=True, overwrite_a_band=True)

    def likely_residual(self, value: float) -> float:
        """‖A Qc − Q T c‖ for an eigenvector c of T by two steps of inverse iteration.

        Of several with equal eigenvalues it is some combination's: no bound for each of them.
        """
        lower = self.band()
        width, size = len(lower) - 1, self.size
        band = np.zeros((2 * width + 1, size))
        band[width:] = lower
        for k in range(1, width + 1):
            band[width - k, k:] = lower[k, : size - k]
        # Off the eigenvalue by more than its rounding, so that the matrix is not singular.
        band[width] -= value * (1.0 + 1e-12)
        c = np.ones(size)
        for _ in range(2):
            c = scipy.linalg.solve_banded((width, width), band, c)
            c /= np.linalg.norm(c)
        return float(self.residuals(c[:, None])[0])

    def residuals(self, coordinates: Float[ndarray, "s k"]) -> Float[ndarray, "k"]:
        """‖A Qc − Q T c‖ for each column c."""
        below = self.below[-1]
        return np.linalg.norm(below @ coordinates[-below.shape[1] :], axis=0)

    def _orthonormal(
        self, W: Float[ndarray, "n b"], scale: float
    ) -> tuple[Float[ndarray, "n c"], Float[ndarray, "c b"]]:
        """W, outside the span so far but for rounding errors, as (orthonormal block) · (factor)."""
        Q, factor = _independent(W, scale)
        # Short directions lost orthogonality when they were scaled up: project again at unit
        # length.
        outside = self._outside(Q)
        gram = outside.T @ outside
        if np.linalg.eigvalsh(gram).min(initial=1.0) < _INSIDE:  # too short for that
            Q, factor = _independent(self._outside(W), scale)
            outside = self._outside(Q)
            gram = outside.T @ outside
        correction = np.linalg.cholesky(gram).T
        return _over(outside, correction), correction @ factor

    def _outside(self, W: Float[ndarray, "n b"]) -> Float[ndarray, "n b"]:
        """W less its part in the span so far, or in those blocks that it may overlap."""
        parts = [self._locked, self.basis]
        if not self._complete:
            first = sum(map(len, self._diagonal[:_LEADING]))
            last = sum(map(len, self._diagonal[-2:]))
            parts[1:] = self.basis[:, :first], self.basis[:, -last:]
        for part in parts:
            W = W - part @ (part.T @ W)
        return W

    def _watch(self, W: Float[ndarray, "n b"], scale: float) -> None:
        """Bound the overlaps of the next block, which spans W, and decide how to project it.

        A Q_j = Q_{j-1} B_{j-1}ᵀ + Q_j A_j + Q_{j+1} B_j with W = Q_{j+1} B_j. From this equation,
        for j and for k, follow bounds ω_jk on ‖Q_kᵀ Q_j‖, to which rounding adds:

            σ_min(B_j) ω_{j+1,k} = ‖B_k‖ ω_{j,k+1} + max |λ(A_k) - λ(A_j)| ω_jk
                                   + ‖B_{k-1}‖ ω_{j,k-1} + ‖B_{j-1}‖ ω_{j-1,k}.
        """
        squares = np.linalg.eigvalsh(W.T @ W)
        self._ends.append(np.linalg.eigvalsh(self._diagonal[-1])[[0, -1]])
        self._lengths.append(float(np.sqrt(max(squares[-1], 0.0))))
        before, now = self._overlaps
        j = len(now)
        ahead = np.full(j + 1, _EPS)
        k = np.arange(_LEADING, j - 1)  # the blocks that W is not projected against in any case
        if k.size:
            ends, lengths = np.array(self._ends), np.array(self._lengths)
            spread = np.maximum(ends[k, 1] - ends[j, 0], ends[j, 1] - ends[k, 0])
            grown = lengths[k] * now[k + 1] + spread * now[k] + lengths[k - 1] * now[k - 1]
            grown += lengths[j - 1] * before[k] + _EPS * scale
            singular = squares[0] <= _NEGLIGIBLE_SQUARE * scale**2
            ahead[k] = np.inf if singular else grown / np.sqrt(squares[0])
        due = ahead.max() > _OVERLAP
        self._complete = not k.size or due or self._successor
        self._successor = due and not self._successor
        self._overlaps = now, np.full(j + 1, _EPS) if self._complete else ahead


def _independent(
    W: Float[ndarray, "n b"], scale: float
) -> tuple[Float[ndarray, "n c"], Float[ndarray, "c b"]]:
    """W as (columns orthonormal to 1e-6 or better) · (factor).

    Directions negligible beside ``scale`` are left out.
    """
    gram = W.T @ W
    squares = np.linalg.eigvalsh(gram)
    if squares.min(initial=np.inf) > _WELL_CONDITIONED * max(scale**2, np.finfo(float).tiny):
        factor = np.linalg.cholesky(gram).T
        return _over(W, factor), factor
    Q, R = np.linalg.qr(W)
    inner, R, order = scipy.linalg.qr(R, mode="economic", pivoting=True)
    kept = int(np.sum(np.abs(np.diag(R)) > _NEGLIGIBLE * scale))
    factor = np.empty((kept, W.shape[1]))
    factor[:, order] = R[:kept]
    return Q @ inner[:, :kept], factor


def _over(W: Float[ndarray, "n b"], R: Float[ndarray, "b b"]) -> Float[ndarray, "n b"]:
    """W R⁻¹ for an upper triangular R."""
    return scipy.linalg.solve_triangular(R, W.T, trans="T").T
