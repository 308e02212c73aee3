"""Compiled loops of the feasible-set solver: the dual function, and its maximum by Newton's method.

For given multipliers the problem of :mod:`poisoning.feasible.solver` falls apart into one small
problem per coordinate, over the entries x_k that the one or two classes have there:

    min  ½w² + Σ_k [σ/2 (x_k − x⁰_k)² + ν_k f(x_k) + b_k x_k],   w = g − Σ_k s_k x_k,

lower ≤ x_k ≤ upper. Given w, each x_k is a proximal step in closed form, monotone in s_k w; so w
solves a scalar, piecewise-linear equation of slope ≥ 1, to which Newton's method, kept between the
best points on either side of the root, finds the exact answer.

Assumed, and not checked: arrays are float64, C-contiguous and writable, with an entry per
coordinate along their last axis; lower ≤ upper.
"""

import numpy as np
from numba.cpython.unsafe.tuple import tuple_setitem

from poisoning.compiled import njit

NEWTON_STEPS = 200
BACKTRACKS = 60
REACH = 10.0  # a step promises no more than this times what the dual can still gain


@njit(cache=True, forceinline=True)
def proximal(t, tau, shrink, lower, upper, integer):
    """argmin over [lower, upper] of ½(x − t)² + τ f(x), and its derivative in t.

    f is the envelope of Eq. (7) when ``integer`` (then lower = 0 and upper is whole), else x².
    ``shrink`` is 1/(1 + 2τ).
    """
    if not integer:
        x = t * shrink
        if x <= lower:
            return lower, 0.0
        if x >= upper:
            return upper, 0.0
        return x, shrink
    # A kink of f at every integer k holds x there while t runs over a stretch of length 2τ.
    r = t - tau
    if r <= 0.0:
        return 0.0, 0.0
    below = np.floor(r * shrink)
    if below >= upper:
        return upper, 0.0
    fraction = r - below * (1.0 + 2.0 * tau)
    if fraction >= 1.0:
        return below + 1.0, 0.0
    return below + max(fraction, 0.0), 1.0


@njit(cache=True, forceinline=True)
def square(x, integer):
    """f(x): the envelope, linear between the squares of neighbouring integers; or x²."""
    if integer:
        below = np.floor(x)
        return x * (2.0 * below + 1.0) - below * (below + 1.0)
    return x * x


@njit(cache=True, error_model="numpy")
def evaluate(
    G, c, g, s, lower, upper, integer, sigma, x0, y, below, above, x, w, gradient, hessian
):
    """The dual function at multipliers ``y``; its value is returned.

    ``y`` is two tuples of m numbers, so that the compiler knows m; with one class the second is
    not read, and both numbers of classes share one compilation. ``G`` (d, K, m) holds −2μ in
    column 0, then the rows; ``c``, ``x0``, ``x`` are (K, d), ``below`` and ``above`` (K, m) what
    Σf(x) − 2μ·x and the rows' products may range between. Written: the minimiser ``x``, the
    residual ``w`` (d; its old value is the first guess), the ``gradient`` (K, m), 0 where it
    points out of the domain of a multiplier, and ``hessian`` (Km, Km), minus a generalised second
    derivative.
    """
    d, K, m = G.shape[0], G.shape[1], len(y[0])
    two = K == 2
    last = K - 1  # with one class, "the other" is that class again, with weight and point 0
    inverse = 1.0 / sigma
    s0, s1 = s[0], (s[1] if two else 0.0)
    tau0, tau1 = y[0][0] * inverse, y[last][0] * inverse
    damp0, damp1 = sigma / (sigma + s0 * s0), sigma / (sigma + s1 * s1)
    alone0, alone1 = tau0 * damp0, tau1 * damp1
    shrink_alone0, shrink_alone1 = 1.0 / (1.0 + 2.0 * alone0), 1.0 / (1.0 + 2.0 * alone1)
    # The derivative of a proximal step where it moves.
    shrink0 = 1.0 if integer else 1.0 / (1.0 + 2.0 * tau0)
    shrink1 = 1.0 if integer else 1.0 / (1.0 + 2.0 * tau1)
    scale0, scale1 = 1.0 / (1.0 + 2.0 * tau0), 1.0 / (1.0 + 2.0 * tau1)
    x1, slope1, b1, t1 = 0.0, 0.0, 0.0, 0.0
    value = 0.0
    moments = np.zeros((2, m))
    direction = np.zeros((2, m))
    block0, block1, mixed = np.zeros((m, m)), np.zeros((m, m)), np.zeros((m, m))
    for i in range(d):
        gi = g[i]
        b0 = c[0, i]
        for j in range(m):
            b0 += y[0][j] * G[i, 0, j]
        t0 = x0[0, i] + (s0 * gi - b0) * inverse
        still = t0 <= (tau0 if integer else 0.0)
        if two:
            b1 = c[1, i]
            for j in range(m):
                b1 += y[1][j] * G[i, 1, j]
            t1 = x0[1, i] + (s1 * gi - b1) * inverse
            still &= t1 <= (tau1 if integer else 0.0)
        if still and lower[i] == 0.0:
            # x = 0 at w = g; most coordinates of a bag of words end here.
            w[i] = gi
            value += 0.5 * gi * gi
            for k in range(K):
                x[k, i] = 0.0
                value += 0.5 * sigma * x0[k, i] * x0[k, i]
            continue

        # Try each class alone, the other at 0: then x_k is a proximal step of curvature σ + s_k².
        v0, moved = proximal(t0 * damp0, alone0, shrink_alone0, lower[i], upper[i], integer)
        slope0 = shrink0 if moved > 0.0 else 0.0
        x1, slope1 = 0.0, 0.0
        solved = not two
        if two and lower[i] == 0.0:
            solved = t1 - s1 * s0 * v0 * inverse <= (tau1 if integer else 0.0)
            if not solved:
                x1, moved = proximal(t1 * damp1, alone1, shrink_alone1, 0.0, upper[i], integer)
                if t0 - s0 * s1 * x1 * inverse <= (tau0 if integer else 0.0):
                    solved = True
                    v0, slope0 = 0.0, 0.0
                    slope1 = shrink1 if moved > 0.0 else 0.0
        wi = gi - s0 * v0 - s1 * x1
        if not solved:
            low, high = -np.inf, np.inf
            wi = w[i]
            noise = 1e-15 * (abs(gi) + abs(s0 * t0) + abs(s1 * t1))  # rounding in the residual
            for _ in range(200):
                shift = (wi - gi) * inverse
                v0, slope0 = proximal(t0 + s0 * shift, tau0, scale0, lower[i], upper[i], integer)
                if two:
                    x1, slope1 = proximal(
                        t1 + s1 * shift, tau1, scale1, lower[i], upper[i], integer
                    )
                residual = wi - gi + s0 * v0 + s1 * x1
                steepness = 1.0 + (s0 * s0 * slope0 + s1 * s1 * slope1) * inverse
                if abs(residual) <= noise:
                    break
                if residual > 0.0:
                    high = wi
                else:
                    low = wi
                following = wi - residual / steepness
                if following == wi:
                    break
                if not (low < following < high):
                    following = 0.5 * (low + high)
                    if not (low < following < high):
                        break
                wi = following
            # Where x moves fast with w, rounding leaves wi a little off: keep it out of the value.
            wi = gi - s0 * v0 - s1 * x1
        w[i] = wi

        x[0, i] = v0
        f0 = square(v0, integer)
        value += 0.5 * wi * wi + 0.5 * sigma * (v0 - x0[0, i]) ** 2 + y[0][0] * f0 + b0 * v0
        moments[0, 0] += f0
        for j in range(m):
            moments[0, j] += G[i, 0, j] * v0
        if two:
            x[1, i] = x1
            f1 = square(x1, integer)
            value += 0.5 * sigma * (x1 - x0[1, i]) ** 2 + y[1][0] * f1 + b1 * x1
            moments[1, 0] += f1
            for j in range(m):
                moments[1, j] += G[i, 1, j] * x1
        if slope0 == 0.0 and slope1 == 0.0:
            continue

        steepness = 1.0 + (s0 * s0 * slope0 + s1 * s1 * slope1) * inverse
        # (D + ssᵀ)⁻¹ = D⁻¹ − D⁻¹ssᵀD⁻¹ / (1 + sᵀD⁻¹s) with D⁻¹ = slope/σ.
        r0, r1 = slope0 * inverse, slope1 * inverse
        h01 = -r0 * s0 * s1 * r1 / steepness
        for k in range(K):
            direction[k, 0] = (2.0 * np.floor(x[k, i]) + 1.0) if integer else 2.0 * x[k, i]
            direction[k, 0] += G[i, k, 0]
            for j in range(1, m):
                direction[k, j] = G[i, k, j]
        if slope0 > 0.0:
            h00 = r0 - r0 * s0 * s0 * r0 / steepness
            for p in range(m):
                scaled = h00 * direction[0, p]
                for q in range(p, m):
                    block0[p, q] += scaled * direction[0, q]
        if slope1 > 0.0:
            h11 = r1 - r1 * s1 * s1 * r1 / steepness
            for p in range(m):
                scaled = h11 * direction[1, p]
                for q in range(p, m):
                    block1[p, q] += scaled * direction[1, q]
            if slope0 > 0.0:
                for p in range(m):
                    scaled = h01 * direction[0, p]
                    for q in range(m):
                        mixed[p, q] += scaled * direction[1, q]
    for p in range(m):
        for q in range(m):
            first, second = min(p, q), max(p, q)
            hessian[p, q] = block0[first, second]
            if two:
                hessian[m + p, m + q] = block1[first, second]
                hessian[p, m + q] = hessian[m + q, p] = mixed[p, q]
    for k in range(K):
        for j in range(m):
            over, under = moments[k, j] - above[k, j], moments[k, j] - below[k, j]
            if y[k][j] > 0.0 or (y[k][j] == 0.0 and over > 0.0):
                gradient[k, j] = over
            elif y[k][j] < 0.0 or under < 0.0:
                gradient[k, j] = under
            else:
                gradient[k, j] = 0.0
            # An end that is absent has multiplier 0, and 0·∞ must be 0.
            if y[k][j] > 0.0:
                value -= y[k][j] * above[k, j]
            elif y[k][j] < 0.0:
                value -= y[k][j] * below[k, j]
    return value


@njit(cache=True, error_model="numpy")
def maximise(
    G, c, g, s, lower, upper, integer, sigma, x0, y, below, above, scales, ridge, ceiling,
    feasibility, passes, x, w,
):  # fmt: skip
    """Semismooth Newton on the dual function from the multipliers ``y``, two tuples.

    Arguments as for :func:`evaluate`. It ends when no constraint, divided by its ``scales``
    (K, m), is exceeded by more than ``feasibility``, after ``passes`` evaluations, when no step
    helps, or when the value is above ``ceiling``: then the set is empty. ``ridge`` is added to the
    scaled Hessian. Returned: the multipliers, the dual's value, the largest relative excess, the
    number of evaluations; written: ``x``, ``w``.
    """
    K, m = G.shape[1], len(y[0])
    gradient, hessian = np.empty((K, m)), np.empty((K * m, K * m))
    value = evaluate(
        G, c, g, s, lower, upper, integer, sigma, x0, y, below, above, x, w, gradient, hessian
    )
    evaluations, violation = 1, np.inf
    x_new, gradient_new, hessian_new = np.empty(x.shape), np.empty((K, m)), np.empty((K * m, K * m))
    now, goal = np.empty((K, m)), np.empty((K, m))
    for _ in range(NEWTON_STEPS):
        if evaluations > passes or value > ceiling * (1.0 + 1e-9) or value != value:
            break
        violation = largest_ratio(gradient, scales)
        if violation <= feasibility:
            break
        # Where x stays put, H is 0 and the goal of Newton's step is far beyond anything that
        # the dual can gain: no multiplier may promise more than a few times that.
        reach = REACH * max(ceiling - value, 1e-12 * ceiling)
        for k in range(K):
            for j in range(m):
                now[k, j] = y[k][j]
        newton_goal(now, gradient, hessian, scales, ridge, reach, goal)
        length, better = 1.0, False
        trial, value_new = y, value
        for _ in range(BACKTRACKS):
            rise = 0.0
            for k in range(K):
                row = y[k]
                for j in range(m):
                    moved = (1.0 - length) * y[k][j] + length * goal[k, j]
                    rise += gradient[k, j] * (moved - y[k][j])
                    row = tuple_setitem(row, j, moved)
                trial = tuple_setitem(trial, k, row)
            value_new = evaluate(
                G, c, g, s, lower, upper, integer, sigma, x0, trial, below, above, x_new, w,
                gradient_new, hessian_new,
            )  # fmt: skip
            evaluations += 1
            if value_new >= value + 1e-4 * rise:
                better = True
                break
            # Near the maximum rounding hides the rise; then the gradient decides.
            closer = largest_ratio(gradient_new, scales) < 0.9 * violation
            if closer and value_new >= value - 1e-14 * ceiling:
                better = True
                break
            # The derivative along the way has changed sign: aim where a line crosses 0.
            # (Both are 0 where the step is lost in rounding and the value still fell.)
            overshoot = 0.0
            for k in range(K):
                for j in range(m):
                    overshoot += gradient_new[k, j] * (y[k][j] - trial[k][j])
            slope = abs(rise) + max(overshoot, 0.0)
            length *= min(max(rise / slope, 0.2), 0.5) if slope > 0.0 else 0.5
        if not better:
            break
        y, value = trial, value_new
        copy_to(x, x_new)
        copy_to(gradient, gradient_new)
        copy_to(hessian, hessian_new)
    return y, value, violation, evaluations


# Loops, since numba compiles expressions of arrays for seconds.


@njit(cache=True, error_model="numpy")
def largest_ratio(a, b):
    """max |a/b| over two matrices."""
    largest = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            largest = max(largest, abs(a[i, j] / b[i, j]))
    return largest


@njit(cache=True)
def copy_to(target, source):
    """The same numbers in another matrix."""
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]


@njit(cache=True, error_model="numpy")
def newton_goal(y, gradient, hessian, scales, ridge, reach, goal):
    """Where the quadratic model of the dual at ``y`` is largest, no multiplier changing sign.

    One at 0 may leave only towards the end that is exceeded. With t the signs the model is
    −½zᵀ(t∘H∘t)z + (t∘(Hy + ∇))·z over z ≥ 0: non-negative least squares. Written: ``goal`` (K, m).
    """
    K, m = y.shape
    n = K * m
    sign, scaled, relative = np.empty(n), np.empty(n), np.empty(n)
    for k in range(K):
        for j in range(m):
            i = k * m + j
            relative[i] = gradient[k, j] / scales[k, j]
            scaled[i] = y[k, j] * scales[k, j]
            sign[i] = np.sign(y[k, j]) if y[k, j] != 0.0 else np.sign(relative[i])
    A, b = np.empty((n, n)), np.empty(n)
    for p in range(n):
        scale = scales[p // m, p % m]
        b[p] = relative[p]
        for q in range(n):
            entry = hessian[p, q] / (scale * scales[q // m, q % m])
            if p == q:
                # Relative to each entry: two classes' scales may differ by orders of magnitude.
                entry += 1e-12 * entry + ridge + relative[p] ** 2 / reach
            b[p] += entry * scaled[q]
            A[p, q] = sign[p] * entry * sign[q]
        b[p] *= sign[p]
    free, z = np.empty(n, dtype=np.bool_), np.zeros(n)
    for i in range(n):
        free[i] = sign[i] != 0.0
    nonnegative(A, b, free, z)
    for i in range(n):
        goal[i // m, i % m] = sign[i] * z[i] / scales[i // m, i % m]


@njit(cache=True, error_model="numpy")
def nonnegative(A, b, free, z):
    """argmin ½zᵀAz − b·z over z ≥ 0, by the active set of Lawson & Hanson; ``z`` starts at 0.

    ``A`` (n, n) is positive definite where ``free``; elsewhere z stays 0.
    """
    n = len(b)
    inside, target = np.zeros(n, dtype=np.bool_), np.zeros(n)
    for _ in range(10 * n):
        best, chosen = 0.0, -1
        for p in range(n):
            if free[p] and not inside[p]:
                slack, size = b[p], abs(b[p])
                for q in range(n):
                    slack -= A[p, q] * z[q]
                    size += abs(A[p, q] * z[q])
                # In units of the diagonal, and above rounding.
                slack = slack / np.sqrt(A[p, p]) if slack > 1e-14 * size else 0.0
                if slack > best:
                    best, chosen = slack, p
        if chosen < 0:
            return
        inside[chosen] = True
        while True:
            solve_inside(A, b, inside, target)
            share, leaving = 1.0, -1
            for p in range(n):
                if inside[p] and target[p] <= 0.0:
                    way = z[p] / (z[p] - target[p]) if z[p] > target[p] else 0.0
                    if way < share:
                        share, leaving = way, p
            for p in range(n):
                if inside[p]:
                    z[p] += share * (target[p] - z[p])
            if leaving < 0:
                break
            inside[leaving], z[leaving] = False, 0.0


@njit(cache=True, error_model="numpy")
def solve_inside(A, b, inside, solution):
    """A z = b restricted to the entries ``inside``, by Cholesky's factors; 0 elsewhere."""
    index, n = np.empty(len(b), dtype=np.int64), 0
    for i in range(len(b)):
        solution[i] = 0.0
        if inside[i]:
            index[n] = i
            n += 1
    L = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            rest = A[index[i], index[j]]
            for k in range(j):
                rest -= L[i, k] * L[j, k]
            if i == j:
                # Rounding may leave a pivot at 0 or below.
                L[i, i] = np.sqrt(max(rest, 1e-16 * A[index[i], index[i]]))
            else:
                L[i, j] = rest / L[j, j]
    for i in range(n):
        rest = b[index[i]]
        for k in range(i):
            rest -= L[i, k] * solution[index[k]]
        solution[index[i]] = rest / L[i, i]
    for i in range(n - 1, -1, -1):
        rest = solution[index[i]]
        for k in range(i + 1, n):
            rest -= L[k, i] * solution[index[k]]
        solution[index[i]] = rest / L[i, i]
