"""The dual of the support vector machine by an interior point, for data that descent crawls on.

With rows zᵢ = yᵢx̃ᵢ of Z and the bounds uᵢ, the optimal w, α, slacks ξ and excesses s satisfy

    w = Zᵀα,    Zw − 1 = s − ξ,    αᵢsᵢ = 0,    (uᵢ − αᵢ)ξᵢ = 0,    0 ≤ α ≤ u,    s, ξ ≥ 0.

Newton steps on these equations, the products held at a falling μ (Mehrotra 1992), converge in some
twenty iterations whatever the scale of the data. Each factors matrices no larger than the smaller
side of Z (:class:`_Newton`).
"""

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray

from poisoning.arrays import Matrix, distinct_rows, squared_norms, to_dense

LARGEST_SYSTEM = 5_000  # unknowns; four matrices of that size take 800 MB
_ITERATIONS = 100
_TO_BOUNDARY = 0.995
_ROUNDING = 1e-15
_REFINEMENTS = 3


def interior_point(
    X: Matrix, y: Float[ndarray, "n"], upper: Float[ndarray, "n"], tol: float
) -> tuple[Float[ndarray, "d1"], Float[ndarray, "n"], float, float]:
    """max Σαᵢ − ½‖Σ αᵢyᵢx̃ᵢ‖² over 0 ≤ α ≤ ``upper``, all above 0.

    Returns w (d + 1,), α (n,), the primal value of w, and how far the dual value of α lies below
    it: at most ``tol`` of the primal value, or the least that was reached.
    """
    Z, _, which = distinct_rows(_signed_rows(X, y))
    each, upper = upper, np.bincount(which, weights=upper)
    w, alpha, primal, gap = _solve(Z, upper, tol)
    return w, (alpha / upper)[which] * each, primal, gap


def _solve(
    Z: Matrix, upper: Float[ndarray, "n"], tol: float
) -> tuple[Float[ndarray, "d1"], Float[ndarray, "n"], float, float]:
    squares = squared_norms(Z)
    alpha = 0.5 * upper
    room = upper - alpha  # kept apart: near a bound the difference would be rounding
    w = Z.T @ alpha
    excess = Z @ w - 1.0
    floor = max(1.0, float(np.abs(excess).mean()))
    s, xi = np.maximum(excess, 0.0) + floor, np.maximum(-excess, 0.0) + floor
    best = (w, alpha, np.inf, np.inf)
    for _ in range(_ITERATIONS):
        combined = Z.T @ alpha
        dual = alpha.sum() - 0.5 * combined @ combined
        for candidate in (w, combined):
            primal = float(0.5 * candidate @ candidate)
            primal += float(upper @ np.maximum(0.0, 1.0 - Z @ candidate))
            gap = float(primal - dual)
            if gap < best[3]:
                best = (candidate, alpha, primal, gap)
        if best[3] <= tol * best[2]:
            break
        try:
            newton = _Newton(Z, squares, combined - w, w, alpha, room, s, xi)
        except FloatingPointError:
            break
        products = float(alpha @ s + room @ xi)
        dw, dalpha, ds, dxi = newton.step(-alpha * s, -room * xi)
        length = _longest((alpha, dalpha), (room, -dalpha), (s, ds), (xi, dxi))
        after = (alpha + length * dalpha) @ (s + length * ds)
        after += (room - length * dalpha) @ (xi + length * dxi)
        mu = (max(after, 0.0) / products) ** 3 * products / (2 * len(upper))
        dw, dalpha, ds, dxi = newton.step(
            mu - alpha * s - dalpha * ds, mu - room * xi + dalpha * dxi
        )
        length = _TO_BOUNDARY * _longest((alpha, dalpha), (room, -dalpha), (s, ds), (xi, dxi))
        w, alpha, room = w + length * dw, alpha + length * dalpha, room - length * dalpha
        s, xi = s + length * ds, xi + length * dxi
    return best


def _signed_rows(X: Matrix, y: Float[ndarray, "n"]) -> Matrix:
    if sp.issparse(X):
        return sp.hstack([sp.diags_array(y) @ X, y[:, None]], format="csr")
    return np.hstack([y[:, None] * X, y[:, None]])


def _longest(*pairs: tuple[ndarray, ndarray]) -> float:
    """The largest step ≤ 1 that keeps every value + step · change at least 0."""
    longest = 1.0
    for value, change in pairs:
        falling = change < 0.0
        if falling.any():
            longest = min(longest, float(np.min(-value[falling] / change[falling])))
    return longest


class _Newton:
    """The equations linearised at (w, α, s, ξ), with ``room`` = u − α and ``rest_w`` = Zᵀα − w.

    Elimination of ds and dξ leaves dw − Zᵀdα = a and Z dw + D dα = b, D = s/α + ξ/room. D differs
    by twenty orders of magnitude: it is tiny for the points on the margin, F, and huge for those
    whose αᵢ is at a bound. Elimination of all α would drown the huge in the rounding of the tiny.
    So only the αᵢ outside F are eliminated, then w, and what is left is a system in α_F:

        G = I + Z_Bᵀ D_B⁻¹ Z_B,    (D_F + Z_F G⁻¹ Z_Fᵀ) dα_F = b_F − Z_F G⁻¹ (a + Z_Bᵀ D_B⁻¹ b_B).

    F are as many points as w has entries, or all if there are fewer; then G = I.

    Raises ``FloatingPointError`` if D, G or the last matrix overflows.
    """

    def __init__(
        self,
        Z: Matrix,
        squares: Float[ndarray, "n"],
        rest_w: Float[ndarray, "d1"],
        w: Float[ndarray, "d1"],
        alpha: Float[ndarray, "n"],
        room: Float[ndarray, "n"],
        s: Float[ndarray, "n"],
        xi: Float[ndarray, "n"],
    ) -> None:
        self.Z, self.alpha, self.room, self.s, self.xi = Z, alpha, room, s, xi
        self.rest_w, self.rest_margins = rest_w, 1.0 - Z @ w + s - xi
        self.D = s / alpha + xi / room
        if not np.isfinite(self.D).all():
            raise FloatingPointError("a variable reached its bound")
        size = min(Z.shape)
        order = np.argpartition(self.D / squares, size - 1)
        self.F, self.B = order[:size], order[size:]
        self.Z_F, self.Z_B = Z[self.F], Z[self.B]
        self.first = None
        if self.B.size:
            G = self.Z_B.T @ _scaled(self.Z_B, 1.0 / self.D[self.B])
            self.first = _Factor(to_dense(G), np.ones(Z.shape[1]))
            half = self.first.half(to_dense(self.Z_F).T)
            S = half.T @ half
        else:
            S = to_dense(self.Z_F @ self.Z_F.T)
        self.second = _Factor(S, self.D[self.F])

    def step(self, to_s: Float[ndarray, "n"], to_xi: Float[ndarray, "n"]) -> tuple[ndarray, ...]:
        """dw, dα, ds, dξ that change αᵢsᵢ by ``to_s`` and (uᵢ − αᵢ)ξᵢ by ``to_xi``."""
        a, b = self.rest_w, self.rest_margins + to_s / self.alpha - to_xi / self.room
        dw, dalpha = self._once(a, b)
        for _ in range(_REFINEMENTS):
            more_w, more_alpha = self._once(
                a - dw + self.Z.T @ dalpha, b - self.Z @ dw - self.D * dalpha
            )
            dw, dalpha = dw + more_w, dalpha + more_alpha
        ds = (to_s - self.s * dalpha) / self.alpha
        return dw, dalpha, ds, (to_xi + self.xi * dalpha) / self.room

    def _once(self, a: ndarray, b: ndarray) -> tuple[Float[ndarray, "d1"], Float[ndarray, "n"]]:
        F, B, D = self.F, self.B, self.D
        right = a + self.Z_B.T @ (b[B] / D[B])
        dalpha = np.empty_like(D)
        dalpha[F] = self.second.inverse(b[F] - self.Z_F @ self._inverse(right))
        dw = self._inverse(right + self.Z_F.T @ dalpha[F])
        dalpha[B] = (b[B] - self.Z_B @ dw) / D[B]
        return dw, dalpha

    def _inverse(self, v: ndarray) -> ndarray:
        return v if self.first is None else self.first.inverse(v)


class _Factor:
    """The Cholesky factor of A + diag(``added``), scaled to a unit diagonal; A is overwritten."""

    def __init__(self, A: ndarray, added: ndarray) -> None:
        diagonal = np.diag_indices(len(added))
        A[diagonal] += added
        self.unit = 1.0 / np.sqrt(A[diagonal])
        A *= self.unit[:, None]
        A *= self.unit
        if not np.isfinite(A).all():
            raise FloatingPointError("the normal equations overflow")
        ridge = _ROUNDING
        while True:
            A[diagonal] = 1.0 + ridge
            try:
                self.lower = scipy.linalg.cholesky(A, lower=True, check_finite=False)
                return
            except scipy.linalg.LinAlgError:
                ridge *= 10.0

    def half(self, V: ndarray) -> ndarray:
        """L⁻¹V, so that half(V)ᵀ half(V) = Vᵀ A⁻¹ V."""
        return scipy.linalg.solve_triangular(
            self.lower, self.unit[:, None] * V, lower=True, check_finite=False
        )

    def inverse(self, v: ndarray) -> ndarray:
        """A⁻¹v."""
        return self.unit * scipy.linalg.cho_solve(
            (self.lower, True), self.unit * v, check_finite=False
        )


def _scaled(Z: Matrix, by: ndarray) -> Matrix:
    return sp.diags_array(by) @ Z if sp.issparse(Z) else by[:, None] * Z
