"""Every public function of the library that takes arrays, called with arguments that are wrong.

``python doors.py [first call] [every] [pattern of names]`` calls each with its right arguments,
then with one of them replaced by every variant of :func:`variants` (or by one in ``every``), and
prints a verdict per call, as JSON
lines. It runs in a process of its own (``test_doors.py``): a call may crash, and one that hangs is
ended after ten seconds.

A variant with the same content (strided, read-only, of another byte order, a list, …) must give the
same result, or be refused by a sentence of ours that names the argument. A wrong one (too short,
with NaN, transposed, …) must be refused, unless the case says that it is right too: then the result
must be free of NaN. No call may change what it is given.
"""

import copy
import dataclasses
import faulthandler
import importlib
import inspect
import json
import pkgutil
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

import poisoning
from poisoning.errors import SolverError

LIMIT = 10.0  # seconds of the processor that a call may take
COMPILING = 120.0  # the same for the first call of a function, which may have to be compiled
WAITING = 900.0  # seconds that a call may take if it does nothing
LIBRARY = str(Path(poisoning.__file__).parent)

# -------------------------------------------------------------------------------------------------
# What is enumerated

ARRAYS = ("ndarray", "csr_array", "Tensor", "jaxtyping")
EVERYTHING = ("X", "y", "points", "labels", "data", "tasks")
ELSEWHERE = {
    "arrays": "operations on matrices that were checked",
    "checks": "the checks themselves, in test_checks.py",
    "compiled": "no arrays",
    "datasets": "reads files, in tests/poisoning/datasets",
    "errors": "no arrays",
    "feasible.reference": "the same problems as cvxpy models, for tests and benchmarks",
    "hypergradient.logistic_plain": "what kernels do, by NumPy: reached where they are",
    "lazy": "no arrays",
    "metrics": "in test_metrics.py",
    "settings": "no arrays",
}
"""Modules without cases, and why. Kernels are reached through other modules only."""

RESULT = "what the library returns, not what it takes"
CHECKED = "for data that were checked when the object was made"
TENSORS = "torch: no kernel is reached, and what does not fit is refused by torch"
ELEMENTWISE = "an elementwise formula: no kernel is reached"

WITHOUT = {
    "certificates.certified_error.ErrorCertificate": RESULT,
    "certificates.certified_error.JointProof": RESULT,
    "certificates.certified_error.Proof": RESULT,
    "certificates.certified_error.Region": RESULT,
    "certificates.loss.Certificate": RESULT,
    "certificates.partition.PartitionCertificate": RESULT,
    "attacks.concentrate.WeightedPoints": RESULT,
    "attacks.min_max_multiclass.MulticlassPoison": RESULT,
    "attacks.minimax_bilevel.StagedPoison": RESULT,
    "attacks.reference_ascent.ReferencePoison": RESULT,
    "attacks.worst_point.WorstPoint": RESULT,
    "defenses.spectrum.Spectrum": RESULT,
    "defenses.spectrum.Update": RESULT,
    "feasible.solver.Solution": RESULT,
    "games.bilevel.PolicyOutcome": RESULT,
    "games.multi_task.MultiTaskOutcome": RESULT,
    "hypergradient.cross_validation.CrossValidation": RESULT,
    "hypergradient.krylov.Solution": RESULT,
    "hypergradient.learning.Learned": RESULT,
    "hypergradient.problem.Diagnostics": RESULT,
    "hypergradient.problem.Hypergradient": RESULT,
    "hypergradient.problem.Linearisation": RESULT,
    "hypergradient.problem.Tape": RESULT,
    "models.mtrl.MTRLSolution": RESULT,
    "models.mtrl_alternating.AlternatingSolution": RESULT,
    "models.oracle_sgd.OracleCall": RESULT,
    "models.oracle_sgd.OracleRun": RESULT,
    "models.small_cnn.TrainingRecord": RESULT,
    "models.smoothed_svm.Curvature": RESULT,
    "models.svm.SVMSolution": RESULT,
    "models.two_layer.Checkpoint": RESULT,
    "models.two_layer.OnlineRun": RESULT,
    "defenses.products.InnerProducts.block": CHECKED,
    "defenses.products.InnerProducts.like": CHECKED,
    "defenses.products.InnerProducts.squares": CHECKED,
    "models.mtrl.TaskData.of_checked": CHECKED,
    "models.svm_interior.interior_point": "for data that train_svm checked",
    "defenses.detector.scored": "for data that its callers checked; anybody's defense takes them",
    "models.oracle_sgd.GaussianLogistic.gradients": CHECKED,
    "models.oracle_sgd.LinearPair.gradients": CHECKED,
    "attacks.ascent.OverallBudget.project": CHECKED,
    "attacks.ascent.OverallBudget.step": CHECKED,
    "attacks.ascent.PerSampleBudget.project": CHECKED,
    "attacks.ascent.PerSampleBudget.step": CHECKED,
    "models.two_layer.block_of_steps": TENSORS,
    "games.stream.StreamGame.evaluate": "takes a function",
    "models.oracle_sgd.poisoned_sgd": "takes a function",
    "attacks.oracle.ShiftOracle.poison": "gives a function",
    "attacks.oracle.RepelOracle.poison": "gives a function",
    "attacks.oracle.CleanLabelOracle.poison": "gives a function",
    "feasible.rounding.expected_square": ELEMENTWISE,
    "models.mtrl.task_scores": ELEMENTWISE,
    "models.mtrl.combine": ELEMENTWISE,
    "models.mtrl.loss_values": ELEMENTWISE,
    "models.mtrl.loss_slopes": ELEMENTWISE,
    "models.mtrl.loss_curvatures": ELEMENTWISE,
    "hypergradient.learning.adapted": ELEMENTWISE,
    "hypergradient.learning.Exponents.of": TENSORS,
    "hypergradient.learning.Starts": TENSORS,
    "hypergradient.learning.Starts.draw": TENSORS,
    "hypergradient.learning.Starts.ended": TENSORS,
    "hypergradient.logistic.Logistic.gather": TENSORS,
    "hypergradient.logistic.Logistic.scores": TENSORS,
    "hypergradient.mlp.MLP.gather": TENSORS,
    "hypergradient.mlp.MLP.linearise": TENSORS,
    "hypergradient.mlp.MLP.product": TENSORS,
    "hypergradient.mlp.MLP.pull": TENSORS,
    "hypergradient.mlp.MLP.record": TENSORS,
    "hypergradient.mlp.MLP.scores": TENSORS,
    "hypergradient.mlp.MLP.train": TENSORS,
    "hypergradient.problem.Model.pull": TENSORS,
    "hypergradient.problem.Model.record": TENSORS,
    "hypergradient.problem.Model.train": TENSORS,
    "hypergradient.problem.Rows.nearest": TENSORS,
    "hypergradient.problem.Rows.pixels": TENSORS,
    "hypergradient.problem.log_loss": TENSORS,
    "hypergradient.problem.Objective.loss": TENSORS,
    "hypergradient.problem.Problem.data_loss": TENSORS,
    "hypergradient.problem.Problem.outer": TENSORS,
    "hypergradient.problem.Problem.per_exponent": TENSORS,
    "hypergradient.problem.Problem.stationarity": TENSORS,
    "hypergradient.problem.Problem.step": TENSORS,
    "hypergradient.problem.Problem.through_threshold": TENSORS,
    "hypergradient.rmd.check_finite": TENSORS,
    "hypergradient.rmd.check_derivatives": TENSORS,
    "games.bilevel.BilevelGame.problem": "makes a Problem, which checks them",
}
"""Functions that take arrays and have no case, and why."""


def functions() -> dict[str, Any]:
    """Every public function, method and constructor whose signature has an array, by its name."""
    found = {}
    for module in pkgutil.walk_packages(poisoning.__path__, "poisoning."):
        short = module.name.removeprefix("poisoning.")
        parts = short.split(".")
        homes = {".".join(parts[:k]) for k in range(1, len(parts) + 1)}
        if module.name.endswith(("_kernels", "__main__")) or homes & ELSEWHERE.keys():
            continue
        for name, thing in vars(importlib.import_module(module.name)).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.name:
                continue
            for key, function in _callables(name, thing):
                if _takes_arrays(function):
                    found[f"{short}.{key}"] = function
    return found


def _callables(name: str, thing: Any) -> Iterator[tuple[str, Any]]:
    if inspect.isfunction(thing):
        yield name, thing
    elif inspect.isclass(thing):
        if getattr(thing, "_is_protocol", False) or issubclass(thing, BaseException):
            return
        if thing.__init__ is not object.__init__:
            yield name, thing
        for key in dir(thing):
            member = inspect.getattr_static(thing, key)
            member = getattr(member, "__func__", member)
            own = inspect.isfunction(member) and member.__module__.startswith("poisoning.")
            if own and not key.startswith("_") and not getattr(member, "__isabstractmethod__", 0):
                yield f"{name}.{key}", member


def _takes_arrays(function: Any) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(
        any(kind in str(p.annotation) for kind in ARRAYS)
        or (p.name in EVERYTHING and "Any" in str(p.annotation))
        for p in parameters
    )


# -------------------------------------------------------------------------------------------------
# Variants of an argument: name -> (value, whether its content is the same)

SIZES = frozenset({"short", "long", "empty"})
SHAPES = SIZES | {"transposed", "narrow", "wide", "column", "row", "scalar"}
INFINITE = frozenset({"infinite"})

SCALARS: dict[str, list[Any]] = {
    "positive": [0.0, -1.0, np.nan, np.inf, "x", None, [1.0], 1e300],
    "nonnegative": [-1.0, np.nan, np.inf, "x", None],
    "share": [0.0, 1.0, -0.1, np.nan, "x", None],
    "fraction": [-0.1, 1.5, np.nan, np.inf, "x", None],
    "percentile": [0.0, -1.0, 101.0, np.nan, "x", None],
    "finite": [np.nan, np.inf, "x", None],
    "count": [0, -1, 1.5, np.nan, "x", None],
    "index": [-1, 1.5, np.nan, "x", None],
    "choice": ["zzz", "L1", 3, None],
    "rng": ["x", None, -1, np.random.RandomState(0)],
    "object": [None, "x", 3],
}


def variants(value: Any, kind: str) -> Iterator[tuple[str, Any, bool]]:
    """Name, value, and whether the content is that of ``value``."""
    if kind in SCALARS:
        yield from ((repr(wrong), wrong, False) for wrong in SCALARS[kind])
    elif kind == "tensor":
        yield from _tensors(value)
    elif kind == "arrays":  # a list of arrays
        yield from (("empty", [], False), ("short", value[:-1], False), ("none", None, False))
        for name, first, same in variants(value[0], "array"):
            yield name, [first, *value[1:]], same
    else:
        yield from _same(value)
        yield from _wrong(value)
        if kind == "matrix":
            yield from _sparse(value)


def _same(a: np.ndarray) -> Iterator[tuple[str, Any, bool]]:
    yield "strided", np.repeat(a, 2, axis=0)[::2], True
    yield "reversed", a[::-1].copy()[::-1], True
    if a.ndim > 1:
        yield "fortran", np.asfortranarray(a), True
    readonly = a.copy()
    readonly.flags.writeable = False
    yield "read-only", readonly, True
    if a.dtype != bool:
        yield "big-endian", a.astype(a.dtype.newbyteorder(">")), True
        if np.array_equal(a, np.rint(a)):
            yield "integer", a.astype(np.int64), True
            yield "short integer", a.astype(np.int8), True
        if np.array_equal(a, a.astype(np.float32)):
            yield "single", a.astype(np.float32), True
    yield "object", a.astype(object), True
    yield "list", a.tolist(), True
    if a.ndim == 2:
        yield "frame", pd.DataFrame(a), True
        yield "np.matrix", np.asmatrix(a), True
    if a.ndim == 1:
        yield "series", pd.Series(a, index=np.arange(len(a))[::-1]), True


def _wrong(a: np.ndarray) -> Iterator[tuple[str, Any, bool]]:
    yield "short", a[:-1], False
    yield "long", np.concatenate([a, a[-1:]]), False
    yield "empty", a[:0], False
    yield "scalar", a.flat[0], False
    yield "none", None, False
    yield "text", "x", False
    if a.ndim > 1:
        yield "transposed", np.swapaxes(a, 0, 1), False
        yield "narrow", a[..., :-1], False
        yield "wide", np.concatenate([a, a[..., -1:]], axis=-1), False
        yield "flat", a.ravel(), False
    else:
        yield "column", a[:, None], False
        yield "row", a[None], False
    yield "masked", np.ma.array(a, mask=np.arange(a.size).reshape(a.shape) == 0), False
    yield "strings", np.full(a.shape, "1"), False
    if a.dtype == bool:
        return
    yield "complex", a + 1j, False
    for name, strange in (("NaN", np.nan), ("infinite", np.inf), ("huge", 1e200)):
        changed = a.astype(np.float64)
        changed.flat[0] = strange
        yield name, changed, False
    ragged = a.tolist()
    ragged[0] = [1.0, 2.0, [3.0]]
    yield "ragged", ragged, False


def _sparse(a: np.ndarray) -> Iterator[tuple[str, Any, bool]]:
    rows = sp.csr_array(a)
    yield "csr", rows, True
    yield "csc", sp.csc_array(a), True
    yield "coo", sp.coo_array(a), True
    yield "csr_matrix", sp.csr_matrix(a), True
    yield "integer csr", sp.csr_array(a.astype(np.int8)), True
    long = rows.copy()
    long.indices, long.indptr = long.indices.astype(np.int64), long.indptr.astype(np.int64)
    yield "long indices", long, True
    readonly = rows.copy()
    readonly.data.flags.writeable = readonly.indices.flags.writeable = False
    yield "read-only csr", readonly, True
    turned = rows.copy()
    for i in range(len(a)):
        part = slice(turned.indptr[i], turned.indptr[i + 1])
        turned.indices[part], turned.data[part] = (
            turned.indices[part][::-1],
            turned.data[part][::-1],
        )
    turned.has_sorted_indices = False
    yield "unsorted", turned, True
    doubled = sp.csr_array(
        (np.repeat(rows.data, 2) / 2, np.repeat(rows.indices, 2), 2 * rows.indptr), rows.shape
    )
    yield "duplicates", doubled, True
    yield "short csr", rows[:-1], False
    yield "empty csr", rows[:0], False
    yield "csr of the transpose", sp.csr_array(a.T), False
    strange = rows.copy()
    strange.data[0] = np.nan
    yield "NaN in csr", strange, False


def _tensors(a: torch.Tensor) -> Iterator[tuple[str, Any, bool]]:
    yield "strided", a.repeat_interleave(2, dim=0)[::2], True
    if a.ndim > 1:
        yield "other layout", a.transpose(0, 1).contiguous().transpose(0, 1), True
    yield "short", a[:-1], False
    yield "long", torch.cat([a, a[-1:]]), False
    yield "empty", a[:0], False
    yield "none", None, False
    yield "array", a.numpy(), False
    yield "list", a.tolist(), False
    if a.ndim > 1:
        yield "narrow", a[..., :-1], False
        yield "wide", torch.cat([a, a[..., -1:]], dim=-1), False
        yield "flat", a.ravel(), False
    else:
        yield "column", a[:, None], False
    yield "integer", a.to(torch.int64), False
    if a.is_floating_point():
        yield "half", a.half(), False
        for name, value in (("NaN", torch.nan), ("infinite", torch.inf)):
            changed = a.clone()
            changed.view(-1)[0] = value
            yield name, changed, False


# -------------------------------------------------------------------------------------------------
# Calls and verdicts


@dataclasses.dataclass(frozen=True)
class Case:
    """A function with right arguments, and the kind of each that is varied."""

    name: str
    make: Callable[[], dict[str, Any]]
    kinds: dict[str, str]
    right_too: dict[str, frozenset[str]]
    called: dict[str, str]
    foreign: bool

    def run(self, arguments: dict[str, Any]) -> Any:
        function = resolved(self.name)
        if "self" in arguments:
            others = {key: value for key, value in arguments.items() if key != "self"}
            result = getattr(arguments["self"], self.name.rpartition(".")[2])(**others)
            # What a method stores in its object counts, too.
            return result if result is not arguments["self"] else vars(result)
        result = function(**arguments)
        return list(result) if inspect.isgenerator(result) else result


def resolved(name: str) -> Any:
    """The function of a dotted name below ``poisoning``."""
    parts = name.split(".")
    for used in range(len(parts) - 1, 0, -1):
        try:
            thing = importlib.import_module("poisoning." + ".".join(parts[:used]))
        except ModuleNotFoundError:
            continue
        for part in parts[used:]:
            thing = getattr(thing, part)
        return thing
    raise LookupError(name)


CASES: dict[str, Case] = {}


def door(
    name: str,
    *,
    right_too: dict[str, frozenset[str]] | None = None,
    called: dict[str, str] | None = None,
    foreign: bool = False,
    **kinds: str,
) -> Callable:
    """Register right arguments of the function ``name``.

    ``kinds``: of the arguments to vary. ``right_too``: wrong variants that it may accept.
    ``called``: what messages call an argument. ``foreign``: scikit-learn may refuse.
    """

    def register(make: Callable[[], dict[str, Any]]) -> Callable:
        CASES[name] = Case(name, make, kinds, right_too or {}, called or {}, foreign)
        return make

    return register


def calls(pattern: str) -> Iterator[tuple[Case, str, str]]:
    """Every call: the case, the argument, the variant; first the right arguments, twice ""."""
    for name in filter(re.compile(pattern).search, sorted(CASES)):
        case = CASES[name]
        yield case, "", ""
        try:
            arguments = case.make()
        except Exception:  # judged by the call before
            continue
        for argument, kind in case.kinds.items():
            for variant, _value, _same in variants(arguments[argument], kind):
                yield case, argument, variant


def judge(case: Case, argument: str, variant: str, known: dict[str, Any]) -> tuple[str, str]:
    """A verdict and its reason: refused, right, or what is wrong."""
    if not argument:
        known.clear()
        try:
            _learn(case, known)
        except Exception:
            return "wrong", "right arguments fail: " + traceback.format_exc(limit=-2)
        return "right", ""
    if "" not in known:
        try:
            _learn(case, known)
        except Exception:
            return "wrong", "right arguments fail"
    arguments = case.make()
    values = {v: (x, same) for v, x, same in variants(arguments[argument], case.kinds[argument])}
    arguments[argument], same = values[variant]
    before = copy.deepcopy({k: v for k, v in arguments.items() if k not in ("self", "rng")})
    try:
        found = numbers(case.run(arguments))
    except Exception as error:
        after = {key: arguments[key] for key in before}
        if not alike(before, after):
            return "wrong", "the refused input is changed"
        return refusal(case, argument, set(arguments) - {"self"}, error)
    if not alike(before, {key: arguments[key] for key in before}):
        return "wrong", "the input is changed"
    if same:
        expected = known[""]
        if sp.issparse(arguments[argument]):
            expected = known[argument]
        return ("right", "") if close(found, expected) else ("wrong", "another result")
    if variant in case.right_too.get(argument, ()):
        strange = sum(np.isnan(part).sum() for part in found if part.dtype.kind == "f")
        usual = sum(np.isnan(part).sum() for part in known[""] if part.dtype.kind == "f")
        return ("right", "") if strange <= usual else ("wrong", "NaN in the result")
    return "wrong", "accepted"


def _learn(case: Case, known: dict[str, Any]) -> None:
    """Results of the right arguments, dense ones and, by the argument's name, sparse ones."""
    known[""] = numbers(case.run(case.make()))
    for argument, kind in case.kinds.items():
        if kind == "matrix":
            arguments = case.make()
            arguments[argument] = sp.csr_array(arguments[argument])
            known[argument] = numbers(case.run(arguments))


def refusal(case: Case, argument: str, names: set[str], error: Exception) -> tuple[str, str]:
    """Whether an error is one of ours: a sentence that names the argument."""
    kind, text = type(error).__name__, str(error)
    frames = traceback.extract_tb(error.__traceback__)
    ours = frames[-1].filename.startswith(LIBRARY)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    if not isinstance(error, ValueError | TypeError | SolverError):
        return "wrong", f"{kind} at {where}: {text[:200]}"
    if case.foreign and not ours and "sklearn" in "".join(f.filename for f in frames):
        return "refused", text
    if not ours:
        return "wrong", f"not our error: {kind} at {where}: {text[:200]}"
    # An argument that does not fit another one is named, or the other.
    known = {argument, case.called.get(argument, argument), *names}
    if not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in known):
        return "wrong", f"the message names no argument: {text[:200]}"
    if "\n" in text:
        return "wrong", f"more than a sentence: {text[:200]}"
    return "refused", text


def numbers(result: Any, depth: int = 0) -> list[np.ndarray]:
    """All arrays and numbers in a result."""
    if depth > 8 or result is None or isinstance(result, str | bytes):
        return []
    if isinstance(result, np.ndarray):
        return [result.astype(np.float64) if result.dtype.kind in "fiub" else np.zeros(0)]
    if isinstance(result, torch.Tensor):
        return [result.detach().double().numpy()]
    if sp.issparse(result):
        return [result.toarray().astype(np.float64)]
    if isinstance(result, bool | int | float | np.number):
        return [np.array(float(result))]
    if isinstance(result, dict):
        return [n for v in result.values() for n in numbers(v, depth + 1)]
    if isinstance(result, list | tuple):
        return [n for v in result for n in numbers(v, depth + 1)]
    if dataclasses.is_dataclass(result):
        fields = [f.name for f in dataclasses.fields(result) if f.name not in ("seconds", "_kept")]
        return [n for f in fields for n in numbers(getattr(result, f), depth + 1)]
    if type(result).__module__.startswith("poisoning.") and not callable(result):
        return [n for v in vars(result).values() for n in numbers(v, depth + 1)]
    return []


def close(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """Whether two results are equal up to rounding."""
    return len(found) == len(expected) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True)
        for a, b in zip(found, expected, strict=True)
    )


def alike(before: Any, after: Any) -> bool:
    """Whether arguments are as they were, to the bit."""
    if type(before) is not type(after):
        return False
    if isinstance(before, np.ndarray):
        if before.dtype == object:
            return before.shape == after.shape and bool(np.all(before == after))
        return before.dtype == after.dtype and before.tobytes() == after.tobytes()
    if isinstance(before, torch.Tensor):
        return before.shape == after.shape and torch.equal(
            before.nan_to_num(7), after.nan_to_num(7)
        )
    if sp.issparse(before):
        parts = ("data", "indices", "indptr", "row", "col", "coords")
        return all(
            alike(getattr(before, p), getattr(after, p)) for p in parts if hasattr(before, p)
        )
    if isinstance(before, pd.DataFrame | pd.Series):
        return before.equals(after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(alike(before[k], after[k]) for k in before)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(alike, before, after))
    return True


def main(first: int, every: int, pattern: str) -> None:
    """Judge calls from the number ``first`` on, of functions whose names match ``pattern``.

    Of the wrong calls every ``every``-th is made.
    """
    warnings.simplefilter("ignore")
    known: dict[str, Any] = {}
    now = None
    for number, (case, argument, variant) in enumerate(calls(pattern)):
        if case.name != now:
            now = case.name
            known.clear()
        if number < first or (argument and number % every):
            continue
        head = {"number": number, "name": case.name, "argument": argument, "variant": variant}
        print(json.dumps(head), flush=True)
        # The signal ends the process, also in the middle of a kernel.
        signal.setitimer(signal.ITIMER_PROF, LIMIT if argument else COMPILING)
        faulthandler.dump_traceback_later(WAITING, exit=True)
        verdict, reason = judge(case, argument, variant, known)
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        print(json.dumps({"verdict": verdict, "reason": reason}), flush=True)
    print(json.dumps({"end": True}), flush=True)


# -------------------------------------------------------------------------------------------------
# Right arguments: small whole numbers, so that every type can hold them
N, M, D = 12, 8, 4


def _data(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    X = rng.integers(0, 4, (n, D)).astype(np.float64)
    X[:, 0] += 2.0 * (y > 0.0)
    X[0, 0] = 3.0
    return X, y


X0, Y0 = _data(N, 0)
X1, Y1 = _data(M, 1)
K0 = (np.arange(N) % 3).astype(np.float64)
K1 = (np.arange(M) % 3).astype(np.float64)


def both(n: int = N) -> dict[str, Any]:
    """Training data."""
    return {"X": _data(n, 0)[0], "y": _data(n, 0)[1]}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def linear_model() -> Any:
    from poisoning.models.linear import LinearModel

    return LinearModel(np.array([1.0, -1.0, 0.0, 0.5]), 0.5)


def multiclass_model() -> Any:
    from poisoning.models.multiclass_svm import MulticlassModel

    return MulticlassModel(np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]))


def domain() -> Any:
    from poisoning.feasible.sets import InputDomain

    return InputDomain("counts", np.zeros(D), np.full(D, 6.0))


def box() -> Any:
    from poisoning.feasible.sets import InputDomain

    return InputDomain("box01", np.zeros(D), np.full(D, 6.0))


def class_set() -> Any:
    from poisoning.feasible.sets import ClassSet

    return ClassSet(
        domain(),
        np.full(D, 2.0),
        4.0,
        np.array([[1.0, 0, -1, 0]]),
        np.array([-3.0]),
        np.array([np.inf]),
    )


def feasible() -> Any:
    from poisoning.feasible.sets import FeasibleSet

    return FeasibleSet(class_set(), class_set())


def learner() -> Any:
    return poisoning.SVM(0.1)


def game() -> Any:
    return poisoning.LinearGame(X0, Y0, X1, Y1, domain=domain(), learner=learner(), remove=0.2)


def clean_data() -> Any:
    from poisoning.defenses.data import CleanData

    return CleanData(X0, Y0)


def tasks() -> dict[str, np.ndarray]:
    """Three tasks of N examples."""
    X = np.stack([_data(N, seed)[0] for seed in range(3)])
    X[..., -1] = 1.0
    return {"X": X, "y": np.stack([Y0] * 3), "weight": np.full((3, N), 1.0)}


def task_data() -> Any:
    from poisoning.models.mtrl import TaskData

    parts = tasks()
    return TaskData(parts["X"], parts["y"], parts["weight"] / N)


W0 = np.array([[1.0, 0, 2, 1], [0, 1, 0, 1], [1, 1, 0, 0]])


def multi_task_game() -> Any:
    pairs = [(X0, Y0)] * 3
    return poisoning.MultiTaskGame(pairs, pairs, targets=[0], attacking=[1], loss="square")


FIT = {"X": "matrix", "y": "array"}
MATRIX = {"X": "matrix"}
UNSEEN = {"y": frozenset({"short", "long"})}
ROWS = frozenset({"short", "long", "empty", "short csr", "empty csr"})
FIXED = frozenset({"narrow", "wide", "transposed"})

# Defenses ----------------------------------------------------------------------------------------

DEFENSES = {
    "centroid.L2Defense": lambda: poisoning.L2Defense(),
    "centroid.SlabDefense": lambda: poisoning.SlabDefense(),
    "knn.KNNDefense": lambda: poisoning.KNNDefense(3),
    "svd.SVDDefense": lambda: poisoning.SVDDefense(0.3),
    "loss.LossDefense": lambda: poisoning.LossDefense(learner()),
    "repeats.RepeatsDefense": lambda: poisoning.RepeatsDefense(),
    "roni.RONIDefense": lambda: poisoning.RONIDefense(X1, Y1, learner()),
    "sever.SEVERDefense": lambda: poisoning.SEVERDefense(learner()),
}
ONE_CLASS = {"X": frozenset({"narrow", "wide"})}


def _defense(name: str, make: Callable[[], Any]) -> None:
    @door(f"defenses.{name}.fit", right_too=ONE_CLASS, **FIT)
    def _() -> dict[str, Any]:
        return {"self": make(), **both()}

    @door(f"defenses.{name}.score", **FIT)
    def _() -> dict[str, Any]:
        return {"self": make().fit(X0, Y0), **both()}


for _name, _make in DEFENSES.items():
    _defense(_name, _make)


def _forest() -> Any:
    from sklearn.ensemble import IsolationForest

    return poisoning.as_defense(IsolationForest(n_estimators=3, random_state=0))


@door("defenses.detector.Unsupervised.fit", right_too=ONE_CLASS, **FIT)
def _() -> dict[str, Any]:
    return {"self": _forest(), **both()}


@door("defenses.detector.Unsupervised.score", **FIT)
def _() -> dict[str, Any]:
    return {"self": _forest().fit(X0, Y0), **both()}


@door("defenses.detector.examples", right_too=ONE_CLASS, **FIT)
def _() -> dict[str, Any]:
    return both()


@door("defenses.data.CleanData", right_too=ONE_CLASS, **FIT)
def _() -> dict[str, Any]:
    return both()


@door(
    "defenses.data.PoisonedData",
    clean="object",
    X_poison="matrix",
    y_poison="array",
    right_too={"X_poison": frozenset()},
)
def _() -> dict[str, Any]:
    return {"clean": clean_data(), "X_poison": X1, "y_poison": Y1, "undefended": lambda: None}


@door(
    "defenses.detector.threshold",
    scores="array",
    remove="fraction",
    right_too={"scores": frozenset({"short", "long", "infinite", "huge"}), "remove": frozenset()},
)
def _() -> dict[str, Any]:
    return {"scores": np.arange(9.0), "remove": 0.2}


@door(
    "defenses.detector.keep_mask",
    scores="array",
    y="array",
    remove="fraction",
    right_too={"scores": frozenset({"infinite", "huge"})},
)
def _() -> dict[str, Any]:
    return {"scores": np.arange(float(N)), "y": Y0, "remove": 0.2}


@door("defenses.detector.sanitize", right_too=ONE_CLASS, remove="fraction", **FIT)
def _() -> dict[str, Any]:
    return {"defense": poisoning.L2Defense(), **both(), "remove": 0.2}


@door("defenses.loss.signed_losses", **FIT)
def _() -> dict[str, Any]:
    return {"model": linear_model(), **both()}


@door(
    "defenses.products.InnerProducts",
    Z="matrix",
    right_too={"Z": (SHAPES | {"short csr", "csr of the transpose"}) - {"empty", "scalar"}},
)
def _() -> dict[str, Any]:
    return {"Z": X0}


@door(
    "defenses.spectrum.rank_for",
    values="array",
    total="nonnegative",
    tail="share",
    right_too={"values": SIZES},
)
def _() -> dict[str, Any]:
    return {"values": np.array([8.0, 2.0, 1.0]), "total": 11.0, "tail": 0.2}


@door(
    "defenses.spectrum.leading_spectrum",
    X="matrix",
    tail="share",
    reach="fraction",
    tol="positive",
    right_too={"X": (SHAPES | {"short csr", "csr of the transpose"}) - {"empty", "scalar"}},
)
def _() -> dict[str, Any]:
    return {"X": X0, "tail": 0.2, "reach": 1.0, "tol": 1e-6}


@door(
    "defenses.spectrum.captured_with_rows",
    X="matrix",
    cross="array",
    inner="array",
    tail="share",
    right_too={"X": frozenset({"narrow", "wide"}), "inner": frozenset({"transposed"})},
)
def _() -> dict[str, Any]:
    from poisoning.defenses.spectrum import leading_spectrum

    P = X1[:2]
    return {
        "spectrum": leading_spectrum(X0, 0.1),
        "X": X0,
        "cross": X0 @ P.T,
        "inner": P @ P.T,
        "tail": 0.3,
    }


@door("defenses.svd.distance_outside", norms="array", captured="array")
def _() -> dict[str, Any]:
    return {"norms": np.array([4.0, 9.0, 3.0]), "captured": np.array([3.0, 5.0, 3.0])}


@door(
    "defenses.task_correlation.group_scores",
    correlations="array",
    size="count",
    right_too={"correlations": frozenset({"transposed"})},
)
def _() -> dict[str, Any]:
    return {"correlations": np.array([[1.0, 0, 2], [0, 1, 1], [2, 1, 1]]), "size": 2}


@door("defenses.task_correlation.loss_scores", data="object", W="array", loss="choice")
def _() -> dict[str, Any]:
    return {"data": task_data(), "W": W0, "loss": "square"}


@door(
    "defenses.task_correlation.trim",
    data="object",
    flagged="mask",
    fraction="fraction",
    loss="choice",
    rounds="count",
    regularisation="positive",
)
def _() -> dict[str, Any]:
    return {
        "data": task_data(),
        "flagged": np.array([True, False, False]),
        "fraction": 0.2,
        "loss": "square",
        "regularisation": 0.1,
        "rounds": 3,
    }


@door("defenses.task_correlation.keep", data="object", kept="mask")
def _() -> dict[str, Any]:
    return {"data": task_data(), "kept": np.ones((3, N), dtype=bool)}


@door(
    "defenses.validation.removal_by_validation",
    rng="rng",
    right_too={"X": frozenset({"narrow", "wide"})},
    **FIT,
)
def _() -> dict[str, Any]:
    return {
        "defense": poisoning.L2Defense(),
        "learner": learner(),
        **both(24),
        "removals": [0.0, 0.1],
        "rng": 0,
    }


@door("defenses.roni.RONIDefense", right_too=ONE_CLASS, **FIT)
def _() -> dict[str, Any]:
    return {"X": X1, "y": Y1, "learner": learner()}


SELVES = {
    "TrustedChoice": lambda: poisoning.TrustedChoice([learner(), poisoning.SVM(1.0)], X1, Y1),
    "Sanitized": lambda: poisoning.Sanitized(poisoning.LossDefense(), learner(), 0.1),
    "ValidatedRemoval": lambda: poisoning.ValidatedRemoval(
        poisoning.L2Defense(), learner(), [0.0, 0.1]
    ),
}


def _defending_itself(name: str, make: Callable[[], Any]) -> None:
    narrow = {} if name == "TrustedChoice" else ONE_CLASS

    @door(f"defenses.trusted.{name}.fit", right_too=narrow, **FIT)
    def _() -> dict[str, Any]:
        return {"self": make(), **both(24)}

    for method in ("decision_function", "predict"):

        @door(
            f"defenses.trusted.{name}.{method}",
            foreign=True,
            X="matrix",
            right_too={"X": ROWS | {"strings", "huge"}},
        )
        def _() -> dict[str, Any]:
            return {"self": make().fit(*both(24).values()), "X": X0}


for _name, _make in SELVES.items():
    _defending_itself(_name, _make)


@door("defenses.trusted.TrustedChoice")  # as scikit-learn asks, it only stores what it is given
def _() -> dict[str, Any]:
    return {"learners": [learner()], "X_trusted": X1, "y_trusted": Y1}


# Feasible sets -----------------------------------------------------------------------------------


@door(
    "feasible.bounds.linear_lower_bounds",
    C="array",
    feasible="object",
    multipliers="array",
    right_too={"multipliers": frozenset({"transposed"})},
)
def _() -> dict[str, Any]:
    return {
        "C": np.array([[1.0, 0, 2, -1], [0, 1, 0, 0]]),
        "feasible": class_set(),
        "multipliers": np.array([[1.0, 0.0], [2.0, 0.0]]),
    }


@door(
    "feasible.rounding.randomised_rounding",
    x="array",
    size="index",
    rng="rng",
    right_too={"x": SIZES},
)
def _() -> dict[str, Any]:
    return {"x": np.array([0.5, 2.0, 0.0, 1.25]), "size": 3, "rng": rng()}


@door(
    "feasible.rounding.repeated_roundings",
    x="array",
    size="index",
    copies="count",
    rng="rng",
    right_too={"x": SIZES},
)
def _() -> dict[str, Any]:
    return {"x": np.array([0.5, 2.0, 0.0, 1.25]), "size": 3, "copies": 2, "rng": rng()}


@door(
    "feasible.rounding.realise", x="array", size="index", copies="count", domain="object", rng="rng"
)
def _() -> dict[str, Any]:
    return {
        "x": np.array([0.5, 2.0, 0.0, 1.25]),
        "size": 3,
        "copies": 2,
        "domain": domain(),
        "rng": rng(),
    }


@door(
    "feasible.sets.InputDomain",
    kind="choice",
    lower="array",
    upper="array",
    right_too={"upper": frozenset({"huge"})},
)
def _() -> dict[str, Any]:
    return {"kind": "counts", "lower": np.zeros(D), "upper": np.full(D, 5.0)}


@door(
    "feasible.sets.InputDomain.contains",
    X="matrix",
    right_too={
        "X": frozenset(
            {
                "short",
                "long",
                "empty",
                "NaN",
                "infinite",
                "huge",
                "short csr",
                "empty csr",
                "NaN in csr",
            }
        )
    },
)
def _() -> dict[str, Any]:
    return {"self": domain(), "X": X0}


@door(
    "feasible.sets.InputDomain.of",
    kind="choice",
    X="matrix",
    right_too={"X": (SHAPES | {"short csr", "csr of the transpose"}) - {"empty", "scalar"}},
    called={"kind": "domain"},
)
def _() -> dict[str, Any]:
    return {"kind": "counts", "X": X0}


@door(
    "feasible.sets.ClassSet",
    domain="object",
    centre="array",
    radius="positive",
    rows="array",
    lower="array",
    upper="array",
    right_too={"upper": INFINITE | {"huge"}, "lower": frozenset()},
)
def _() -> dict[str, Any]:
    return {
        "domain": domain(),
        "centre": np.full(D, 2.0),
        "radius": 4.0,
        "rows": W0,
        "lower": np.array([-2.0, -3, -4]),
        "upper": np.array([20.0, 30, 40]),
    }


@door("feasible.sets.ClassSet.with_row", row="array")
def _() -> dict[str, Any]:
    return {"self": class_set(), "row": np.array([1.0, 2, 3, 0]), "lower": 0.0, "upper": 1.0}


@door(
    "feasible.sets.FeasibleSet.fit",
    domain="object",
    radius_percentile="percentile",
    slab_percentile="percentile",
    **FIT,
)
def _() -> dict[str, Any]:
    return {**both(), "domain": domain(), "radius_percentile": 90.0, "slab_percentile": 90.0}


@door(
    "feasible.sets.FeasibleSet.under_decoy",
    theta="array",
    bias="finite",
)
def _() -> dict[str, Any]:
    return {"self": feasible(), "theta": np.array([1.0, 0, -1, 0]), "bias": 0.5, "caps": (1.0, 2.0)}


@door(
    "feasible.solver.minimise_linear",
    c="array",
    feasible="object",
    tol="positive",
    start="array",
    right_too={"start": frozenset({"none"})},
)
def _() -> dict[str, Any]:
    return {
        "c": np.array([1.0, -2, 0, 1]),
        "feasible": class_set(),
        "tol": 1e-6,
        "start": np.array([[1.0, 0.0]]),
    }


@door(
    "feasible.solver.LinearProblem.minimise",
    c="array",
    tol="positive",
    start="array",
    right_too={"start": frozenset({"none"})},
)
def _() -> dict[str, Any]:
    from poisoning.feasible.solver import LinearProblem

    return {
        "self": LinearProblem(class_set()),
        "c": np.array([1.0, -2, 0, 1]),
        "tol": 1e-6,
        "start": np.array([[1.0, 0.0]]),
    }


@door("feasible.solver.project", p="array", feasible="object", tol="positive")
def _() -> dict[str, Any]:
    return {"p": np.array([9.0, -2, 0, 1]), "feasible": class_set(), "tol": 1e-6}


@door(
    "feasible.solver.match_gradient",
    g="array",
    epsilon_plus="nonnegative",
    epsilon_minus="nonnegative",
    feasible="object",
    tol="positive",
)
def _() -> dict[str, Any]:
    return {
        "g": np.array([1.0, -2, 0, 1]),
        "epsilon_plus": 0.1,
        "epsilon_minus": 0.1,
        "feasible": feasible(),
        "tol": 1e-6,
    }


# Models ------------------------------------------------------------------------------------------


@door("models.linear.LinearModel", theta="array", bias="finite", right_too={"theta": SIZES})
def _() -> dict[str, Any]:
    return {"theta": np.array([1.0, 2, 0]), "bias": 1.0}


@door("models.linear.LinearModel.decision", X="matrix", right_too={"X": ROWS})
def _() -> dict[str, Any]:
    return {"self": linear_model(), "X": X0}


@door("models.linear.LinearModel.predict", X="matrix", right_too={"X": ROWS})
def _() -> dict[str, Any]:
    return {"self": linear_model(), "X": X0}


for _name in ("margins", "hinge", "error"):

    @door(f"models.linear.LinearModel.{_name}", **FIT, right_too={"X": frozenset({"huge"})})
    def _() -> dict[str, Any]:
        return {"self": linear_model(), **both()}


@door(
    "models.svm.train_svm",
    lam="positive",
    weights="array",
    alpha0="array",
    tol="positive",
    max_epochs="index",
    right_too={
        "X": frozenset({"narrow", "wide"}),
        "weights": frozenset({"none"}),
        "alpha0": frozenset({"none"}),
    },
    **FIT,
)
def _() -> dict[str, Any]:
    return {
        **both(),
        "lam": 0.1,
        "weights": np.ones(N),
        "alpha0": np.zeros(N),
        "tol": 1e-8,
        "max_epochs": 20_000,
    }


@door(
    "models.logistic.train_logistic",
    lam="positive",
    weights="array",
    tol="positive",
    max_iterations="count",
    right_too={"X": frozenset({"narrow", "wide"}), "weights": frozenset({"none"})},
    **FIT,
)
def _() -> dict[str, Any]:
    return {**both(), "lam": 0.1, "weights": np.ones(N), "tol": 1e-8, "max_iterations": 500}


@door(
    "models.sgd.train_one_pass",
    lam="positive",
    seed="index",
    right_too={"X": frozenset({"narrow", "wide"})},
    **FIT,
)
def _() -> dict[str, Any]:
    return {**both(), "lam": 0.1, "seed": 0}


@door(
    "models.multiclass_svm.MulticlassModel", theta="array", right_too={"theta": SHAPES - {"scalar"}}
)
def _() -> dict[str, Any]:
    return {"theta": W0}


for _name in ("predict", "scores"):

    @door(
        f"models.multiclass_svm.MulticlassModel.{_name}",
        X="array",
        right_too={"X": ROWS},
    )
    def _() -> dict[str, Any]:
        return {"self": multiclass_model(), "X": X0}


for _name in ("losses", "error"):

    @door(
        f"models.multiclass_svm.MulticlassModel.{_name}",
        X="array",
        y="array",
        right_too={"X": frozenset({"huge"})},
    )
    def _() -> dict[str, Any]:
        return {"self": multiclass_model(), "X": X0, "y": K0}


@door(
    "models.multiclass_svm.train_multiclass_svm",
    X="array",
    y="array",
    classes="count",
    rng="rng",
    batch="count",
    step="positive",
    passes="index",
    right_too={"X": frozenset({"narrow", "wide"}), "classes": frozenset()},
)
def _() -> dict[str, Any]:
    return {"X": X0, "y": K0, "classes": 3, "rng": rng(), "batch": 4, "step": 0.02, "passes": 2}


@door(
    "models.mtrl.TaskData",
    X="array",
    y="array",
    weight="array",
    right_too={"X": frozenset({"narrow", "wide"})},
)
def _() -> dict[str, Any]:
    return tasks()


@door("models.mtrl.TaskData.from_tasks", X="arrays", y="arrays")
def _() -> dict[str, Any]:
    return {"X": [X0, X1], "y": [Y0, Y1]}


@door(
    "models.mtrl.solve_mtrl",
    data="object",
    loss="choice",
    lambda1="positive",
    lambda2="nonnegative",
    tol="positive",
    start="array",
    max_iterations="count",
    right_too={"start": frozenset({"none"})},
)
def _() -> dict[str, Any]:
    return {
        "data": task_data(),
        "loss": "hinge",
        "lambda1": 0.1,
        "lambda2": 0.1,
        "tol": 1e-8,
        "start": W0,
        "max_iterations": 10_000,
    }


@door("models.mtrl.objective", data="object", loss="choice", W="array")
def _() -> dict[str, Any]:
    return {"data": task_data(), "loss": "hinge", "lambda1": 0.1, "lambda2": 0.1, "W": W0}


@door("models.mtrl.relationship", W="array", right_too={"W": SHAPES - {"scalar", "empty"}})
def _() -> dict[str, Any]:
    return {"W": W0}


@door("models.mtrl.correlations", Omega="array", right_too={"Omega": frozenset({"transposed"})})
def _() -> dict[str, Any]:
    return {"Omega": np.array([[2.0, 1, 0], [1, 2, 1], [0, 1, 3]])}


@door(
    "models.mtrl.phi",
    Omega="array",
    lambda1="nonnegative",
    lambda2="positive",
    right_too={"Omega": frozenset({"transposed"})},
)
def _() -> dict[str, Any]:
    return {"Omega": np.array([[2.0, 1, 0], [1, 2, 1], [0, 1, 3]]), "lambda1": 0.1, "lambda2": 0.2}


@door("models.mtrl_evaluation.nmse", W="array", X="arrays", y="arrays")
def _() -> dict[str, Any]:
    return {"W": W0[:2], "X": [X0, X1], "y": [Y0, Y1]}


@door("models.mtrl_evaluation.auc", W="array", X="arrays", y="arrays")
def _() -> dict[str, Any]:
    return {"W": W0[:2], "X": [X0, X1], "y": [Y0, Y1]}


def gaussian() -> Any:
    return poisoning.GaussianLogistic(np.array([1.0, 0, 0]), 2.0)


@door(
    "models.oracle_sgd.GaussianLogistic",
    minimiser="array",
    radius="positive",
    right_too={"minimiser": frozenset({"short", "long"})},
)
def _() -> dict[str, Any]:
    return {"minimiser": np.array([1.0, 0, 0]), "radius": 2.0}


@door("models.oracle_sgd.GaussianLogistic.excess_risk", W="array", right_too={"W": SIZES})
def _() -> dict[str, Any]:
    return {"self": gaussian(), "W": np.array([[1.0, 2, 0], [40, 0, 3], [0, 0, 0], [1, 1, 1]])}


@door("models.oracle_sgd.LinearPair.excess_risk", W="array", right_too={"W": SIZES})
def _() -> dict[str, Any]:
    from poisoning.models.oracle_sgd import LinearPair

    return {"self": LinearPair(0.1, 1.0), "W": np.array([[1.0], [0.0], [-1.0]])}


@door(
    "models.oracle_sgd.risk_upper_bound",
    problem="object",
    step="positive",
    norms="array",
    right_too={"norms": frozenset({"short", "long"})},
)
def _() -> dict[str, Any]:
    return {"problem": gaussian(), "step": 0.1, "norms": np.array([1.0, 0, 2])}


@door(
    "games.stream.StreamGame.upper_bound",
    norms="array",
    right_too={"norms": frozenset({"short", "long"})},
)
def _() -> dict[str, Any]:
    return {"self": poisoning.StreamGame(gaussian(), 3), "norms": np.array([1.0, 0, 2])}


@door(
    "models.small_cnn.Examples",
    X="tensor",
    y="tensor",
    right_too={"X": frozenset({"narrow", "wide"}), "y": frozenset({"integer"})},
)
def _() -> dict[str, Any]:
    return {"X": torch.tensor(X0, dtype=torch.float32), "y": torch.tensor(K0, dtype=torch.int64)}


@door(
    "models.small_cnn.Examples.on",
    X="array",
    y="array",
    right_too={"X": frozenset({"narrow", "wide"})},
)
def _() -> dict[str, Any]:
    return {"where": "cpu", "X": X0, "y": K0}


@door(
    "models.small_cnn.early_stopped",
    criterion="array",
    patience="index",
    right_too={"criterion": frozenset({"short", "long"})},
)
def _() -> dict[str, Any]:
    return {"criterion": np.array([3.0, 2, 1, 2, 2]), "patience": 1}


def curvature() -> Any:
    from poisoning.models.smoothed_svm import Curvature

    return Curvature.of(X0, Y0, np.ones(N), 0.1, 0.5, np.full(N, 1.0 / N))


@door(
    "models.smoothed_svm.Curvature.of",
    scores="array",
    lam="positive",
    smoothing="positive",
    share="array",
    right_too={"X": frozenset({"narrow", "wide", "NaN", "infinite", "huge", "NaN in csr"})},
    **FIT,
)
def _() -> dict[str, Any]:
    return {**both(), "scores": np.ones(N), "lam": 0.1, "smoothing": 0.5, "share": np.ones(N)}


for _name in ("product", "solve", "by_woodbury", "by_conjugate_gradients"):
    _letter = "v" if _name == "product" else "g"

    @door(f"models.smoothed_svm.Curvature.{_name}", **{_letter: "array"})
    def _(letter: str = _letter) -> dict[str, Any]:
        return {"self": curvature(), letter: np.array([1.0, 2, 0, 1, 1])}


def nets() -> Any:
    from poisoning.models.two_layer import TwoLayerNets

    return TwoLayerNets.draw(2, 5, D, rng(), np.float64)


@door(
    "models.two_layer.TwoLayerNets",
    W="array",
    a="array",
    right_too={"W": frozenset({"narrow", "wide"})},
)
def _() -> dict[str, Any]:
    return {"W": np.ones((2, 5, D)), "a": np.ones((2, 5))}


for _name in ("scores", "input_gradients"):

    @door(f"models.two_layer.TwoLayerNets.{_name}", X="array", right_too={"X": SIZES})
    def _() -> dict[str, Any]:
        return {"self": nets(), "X": X0}


@door(
    "models.two_layer.train_online",
    nets="object",
    X="array",
    y="array",
    steps="array",
    block="count",
)
def _() -> dict[str, Any]:
    return {
        "nets": nets(),
        "X": X0,
        "y": np.stack([Y0, -Y0]),
        "steps": np.array([1.0, 2.0]),
        "block": 5,
    }


# Learners ----------------------------------------------------------------------------------------

LEARNERS = {
    "SVM": learner,
    "LogisticRegression": lambda: poisoning.LogisticRegression(0.1),
    "OnePassSVM": lambda: poisoning.OnePassSVM(0.1),
    "CrammerSingerSVM": lambda: poisoning.CrammerSingerSVM(),
    "PartitionedVote": lambda: poisoning.PartitionedVote(learner(), 2),
}


def _learner(name: str, make: Callable[[], Any]) -> None:
    kind = "array" if name == "CrammerSingerSVM" else "matrix"
    anything = frozenset({"narrow", "wide", "strings"})

    @door(
        f"learners.{name}.fit",
        foreign=True,
        X=kind,
        y="array",
        right_too={"X": anything, "y": frozenset({"column", "strings"})},
    )
    def _() -> dict[str, Any]:
        return {"self": make(), **both()}

    for method in ("votes" if name == "PartitionedVote" else "decision_function", "predict"):

        @door(
            f"learners.{name}.{method}",
            foreign=True,
            X=kind,
            right_too={"X": ROWS | {"strings", "huge"}},
        )
        def _() -> dict[str, Any]:
            return {"self": make().fit(X0, Y0), "X": X0}


for _name, _make in LEARNERS.items():
    _learner(_name, _make)


@door(
    "learners.CrammerSingerSVM.losses",
    X="array",
    foreign=True,
    y="array",
    right_too={"y": frozenset({"column"})},
)
def _() -> dict[str, Any]:
    return {"self": poisoning.CrammerSingerSVM().fit(X0, K0), "X": X0, "y": K0}


@door(
    "learners.SVM.fit_added",
    X="matrix",
    y="array",
    sample_weight="array",
    clean="object",
    right_too={"X": frozenset({"empty"})},
)
def _() -> dict[str, Any]:
    return {
        "self": learner(),
        "X": np.vstack([X0, X1]),
        "y": np.append(Y0, Y1),
        "sample_weight": np.ones(N + M),
        "clean": learner().fit(X0, Y0),
    }


# Games -------------------------------------------------------------------------------------------


@door(
    "games.linear.LinearGame",
    X="matrix",
    y="array",
    X_test="matrix",
    y_test="array",
    domain="choice",
    learner="object",
    remove="fraction",
)
def _() -> dict[str, Any]:
    return {
        "X": X0,
        "y": Y0,
        "X_test": X1,
        "y_test": Y1,
        "domain": "counts",
        "learner": learner(),
        "defenses": (),
        "remove": 0.2,
    }


def _poison(name: str, right: frozenset[str] = frozenset()) -> None:
    @door(
        f"games.linear.LinearGame.{name}",
        points="matrix",
        labels="array",
    )
    def _() -> dict[str, Any]:
        return {"self": game(), "points": X1[:3], "labels": Y1[:3]}


for _name in ("attacked", "checked", "evaluate"):
    _poison(_name)


@door("games.linear.LinearGame.with_test", X_test="matrix", y_test="array")
def _() -> dict[str, Any]:
    return {"self": game(), "X_test": X1, "y_test": Y1}


@door("games.linear.AttackedGame", game="object", X_poison="matrix", y_poison="array")
def _() -> dict[str, Any]:
    return {"game": game(), "X_poison": X1[:3], "y_poison": Y1[:3], "exact": True, "rng": None}


@door(
    "attacks.selection.measured",
    game="object",
    points="matrix",
    labels="array",
)
def _() -> dict[str, Any]:
    return {"game": game(), "points": X1[:3], "labels": Y1[:3]}


@door(
    "games.multi_task.Poison",
    X="array",
    y="array",
    mask="mask",
    right_too={"X": frozenset({"narrow", "wide"})},
)
def _() -> dict[str, Any]:
    return {"X": np.ones((3, 2, D)), "y": np.ones((3, 2)), "mask": np.ones((3, 2), dtype=bool)}


@door(
    "games.multi_task.Poison.of", tasks="count", points="object", right_too={"tasks": frozenset()}
)
def _() -> dict[str, Any]:
    return {"points": {1: (X1[:2], Y1[:2])}, "tasks": 3}


@door(
    "games.multi_task.MultiTaskGame",
    loss="choice",
    lambda1="positive",
    lambda2="positive",
    tol="positive",
    tasks="object",
    tests="object",
)
def _() -> dict[str, Any]:
    return {
        "tasks": [(X0, Y0)] * 3,
        "tests": [(X1, Y1)] * 3,
        "targets": [0],
        "attacking": [1],
        "loss": "square",
        "lambda1": 0.1,
        "lambda2": 0.1,
        "tol": 1e-6,
    }


for _name in ("measure", "outcome", "utility"):

    @door(f"games.multi_task.MultiTaskGame.{_name}", W="array")
    def _() -> dict[str, Any]:
        return {"self": multi_task_game(), "W": np.hstack([W0, W0[:, :1]])}


@door(
    "games.multi_task.MultiTaskGame.learn",
    data="object",
    start="array",
    right_too={"start": frozenset({"none"})},
)
def _() -> dict[str, Any]:
    made = multi_task_game()
    return {"self": made, "data": made.data, "start": np.hstack([W0, W0[:, :1]])}


def bilevel_game() -> Any:
    from poisoning.games.bilevel import FinalTraining
    from poisoning.hypergradient.learning import HyperparameterLearning

    return poisoning.BilevelGame(
        X0,
        Y0,
        X1,
        Y1,
        box=(0.0, 6.0),
        dtype="float64",
        learning=HyperparameterLearning(steps=3, hyperiterations=2, rate=0.05),
        training=FinalTraining(epochs=3, rate=0.05),
    )


@door(
    "games.bilevel.BilevelGame",
    X="array",
    y="array",
    X_val="array",
    y_val="array",
    scale="positive",
    offset="finite",
    dtype="choice",
    device="choice",
    box="object",
    policies="object",
    learning="object",
    training="object",
)
def _() -> dict[str, Any]:
    from poisoning.games.bilevel import LEARNING, POLICIES, TRAINING

    return {
        "X": X0,
        "y": Y0,
        "X_val": X1,
        "y_val": Y1,
        "box": (0.0, 6.0),
        "scale": 1.0,
        "offset": 0.0,
        "dtype": "float64",
        "device": "cpu",
        "policies": POLICIES,
        "learning": LEARNING,
        "training": TRAINING,
    }


for _name in ("evaluate", "learn", "poisoned"):

    @door(
        f"games.bilevel.BilevelGame.{_name}",
        points="array",
        labels="array",
        replaced="array",
        right_too={"replaced": frozenset({"none", "short", "empty"})},
    )
    def _() -> dict[str, Any]:
        return {
            "self": bilevel_game(),
            "points": X1[:3],
            "labels": Y1[:3],
            "replaced": np.array([0.0, 2, 3]),
        }


@door(
    "games.bilevel.BilevelGame.remaining",
    replaced="array",
    right_too={"replaced": frozenset({"none", "short", "empty"})},
)
def _() -> dict[str, Any]:
    return {"self": bilevel_game(), "replaced": np.array([0.0, 2, 3])}


# Hypergradients ----------------------------------------------------------------------------------


def tensor(array: Any) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64)


def problem_parts() -> dict[str, Any]:
    from poisoning.hypergradient.logistic import Logistic
    from poisoning.hypergradient.problem import Objective, Rows

    return {
        "model": Logistic(),
        "clean": Rows(tensor(X0), tensor(Y0)),
        "poison": tensor(np.stack([X1[:3], X1[3:6]])),
        "poison_y": tensor(np.stack([Y1[:3], Y1[3:6]])),
        "objectives": (Objective(tensor(X1), tensor(Y1)),),
        "lam": tensor([[-1.0], [-2.0]]),
        "rate": 0.05,
        "steps": 3,
        "initial": torch.zeros(2, D + 1, dtype=torch.float64),
        "penalty": "l2",
        "weights": torch.ones(2, N, dtype=torch.float64),
    }


def problem() -> Any:
    from poisoning.hypergradient.problem import Problem

    return Problem(**problem_parts())


@door(
    "hypergradient.problem.Problem",
    model="object",
    clean="object",
    poison="tensor",
    poison_y="tensor",
    lam="tensor",
    rate="positive",
    steps="count",
    initial="tensor",
    penalty="choice",
    weights="tensor",
    right_too={"weights": frozenset({"none"}), "lam": frozenset()},
)
def _() -> dict[str, Any]:
    return problem_parts()


@door(
    "hypergradient.problem.Rows",
    X="tensor",
    y="tensor",
    scale="finite",
    offset="finite",
    right_too={"X": frozenset({"narrow", "wide", "half"}), "y": frozenset({"half"})},
)
def _() -> dict[str, Any]:
    return {"X": tensor(X0), "y": tensor(Y0), "scale": 1.0, "offset": 0.0}


@door("hypergradient.problem.Pixels", X="tensor", right_too={"X": SHAPES - {"flat"}})
def _() -> dict[str, Any]:
    return {"X": torch.ones(2, 3, D, dtype=torch.uint8)}


@door(
    "hypergradient.problem.Objective",
    X="tensor",
    y="tensor",
    right_too={"X": frozenset({"narrow", "wide"})},
)
def _() -> dict[str, Any]:
    return {"X": tensor(X0), "y": tensor(Y0)}


for _name in ("linearise", "train", "record"):

    @door(f"hypergradient.logistic.Logistic.{_name}", problem="object", w="tensor")
    def _(name: str = _name) -> dict[str, Any]:
        made = problem()
        steps = {} if name == "linearise" else {"steps": 3}
        return {"self": made.model, "problem": made, "w": made.initial, **steps}


@door(
    "hypergradient.logistic.Logistic.product",
    problem="object",
    state="object",
    v="tensor",
    right_too={"v": SIZES},
)
def _() -> dict[str, Any]:
    made = problem()
    state = made.model.linearise(made, made.initial).state
    return {"self": made.model, "problem": made, "state": state, "v": made.initial[None] + 1.0}


@door(
    "hypergradient.logistic.Logistic.pull",
    problem="object",
    tape="object",
    p="tensor",
    right_too={"p": SIZES},
)
def _() -> dict[str, Any]:
    made = problem()
    tape = made.model.record(made, made.initial, 3)
    return {"self": made.model, "problem": made, "tape": tape, "p": made.initial[None] + 1.0}


@door("hypergradient.rmd.rmd", problem="object", trajectory="choice")
def _() -> dict[str, Any]:
    return {"problem": problem(), "trajectory": "stored"}


@door("hypergradient.fmd.fmd", problem="object")
def _() -> dict[str, Any]:
    return {"problem": problem()}


@door(
    "hypergradient.implicit.implicit",
    problem="object",
    solver="choice",
    tolerance="positive",
    residual="positive",
    max_newton="count",
    max_cg="count",
)
def _() -> dict[str, Any]:
    return {
        "problem": problem(),
        "solver": "cg",
        "tolerance": 1e-8,
        "residual": 1e-9,
        "max_newton": 200,
        "max_cg": 1000,
    }


@door(
    "hypergradient.cross_validation.cross_validate",
    model="object",
    clean="object",
    penalty="choice",
    grid="array",
    steps="count",
    rate="positive",
    rng="rng",
    right_too={"grid": frozenset({"short", "long"})},
)
def _() -> dict[str, Any]:
    parts = problem_parts()
    return {
        "model": parts["model"],
        "clean": parts["clean"],
        "penalty": "l2",
        "grid": np.array([-2.0, -1.0, 0.0]),
        "steps": 3,
        "rate": 0.05,
        "rng": rng(),
        "dtype": torch.float64,
    }


@door(
    "hypergradient.krylov.conjugate_gradients",
    b="tensor",
    max_iterations="count",
    right_too={"b": SHAPES | {"flat", "half"}},
)
def _() -> dict[str, Any]:
    return {"product": lambda v: 2.0 * v, "b": tensor(W0), "tolerance": 1e-8, "max_iterations": 50}


@door(
    "hypergradient.krylov.largest_eigenvalue",
    start="tensor",
    tolerance="positive",
    most="count",
    right_too={"start": (SHAPES | {"half"}) - {"empty"}},
)
def _() -> dict[str, Any]:
    return {"product": lambda v: 2.0 * v, "start": tensor(W0), "tolerance": 1e-3, "most": 40}


@door(
    "hypergradient.learning.Exponents",
    first="tensor",
    low="tensor",
    high="tensor",
    learned="tensor",
    tied="tensor",
    right_too={"first": frozenset({"narrow", "wide"})},
)
def _() -> dict[str, Any]:
    return {
        "first": tensor([[1.0, 2.0], [1.0, 2.0]]),
        "low": tensor([[0.0], [0.0]]),
        "high": tensor([[3.0], [3.0]]),
        "learned": torch.tensor([True, False]),
        "tied": torch.tensor([True, False]),
    }


@door(
    "hypergradient.learning.learn",
    learning="object",
    problem="object",
    exponents="object",
    starts="object",
    problems="tensor",
    right_too={"problems": frozenset({"integer"})},
)
def _() -> dict[str, Any]:
    from poisoning.hypergradient.learning import Exponents, HyperparameterLearning, Starts

    made = problem()
    return {
        "learning": HyperparameterLearning(steps=3, hyperiterations=2, rate=0.05),
        "problem": made,
        "problems": torch.tensor([0, 1]),
        "exponents": Exponents(
            made.lam,
            made.lam - 1.0,
            made.lam + 1.0,
            torch.tensor([True, True]),
            torch.tensor([True, True]),
        ),
        "starts": Starts(made.model, 2, "rmd", torch.Generator(), made.poison),
    }


# Attacks -----------------------------------------------------------------------------------------


@door(
    "attacks.ascent.ascend",
    X="array",
    y="array",
    budget="object",
    steps="index",
    rate="positive",
)
def _() -> dict[str, Any]:
    from poisoning.attacks.ascent import PerSampleBudget, reversed_logistic

    return {
        "gradient": reversed_logistic(nets()),
        "X": X0 / 8.0,
        "y": Y0,
        "budget": PerSampleBudget(0.5),
        "steps": 2,
        "rate": 0.1,
    }


@door(
    "attacks.reference_ascent.ascend_reference",
    X="array",
    y="array",
    n_train="count",
    reference="object",
    budget="object",
    training="object",
    right_too={"X": frozenset()},
)
def _() -> dict[str, Any]:
    from poisoning.attacks.ascent import PerSampleBudget
    from poisoning.attacks.reference_ascent import ReferenceTraining
    from poisoning.models.small_cnn import softmax_regression

    return {
        "reference": softmax_regression(D, 3, 0),
        "X": X0 / 8.0,
        "y": K0,
        "n_train": 8,
        "budget": PerSampleBudget(0.5),
        "training": ReferenceTraining(0.1, 4, 1),
        "steps": 2,
        "rate": 0.1,
        "seed": 0,
    }


@door(
    "certificates.loss.certify_loss",
    lam="positive",
    epsilon="positive",
    feasible="object",
    tol="positive",
    max_rounds="count",
    **FIT,
)
def _() -> dict[str, Any]:
    return {
        **both(),
        "lam": 0.1,
        "epsilon": 0.1,
        "feasible": feasible(),
        "tol": 0.3,
        "max_rounds": 100,
    }


@door(
    "learners.assigned",
    X="matrix",
    parts="count",
    right_too={
        "X": (SHAPES | {"short csr", "csr of the transpose"}) - {"empty", "scalar", "column", "row"}
    },
)
def _() -> dict[str, Any]:
    return {"X": X0, "parts": 3}


@door(
    "attacks.concentrate.concentrate",
    slopes="array",
    model="object",
    loss="choice",
    weights="array",
    right_too={"weights": frozenset({"none"})},
    **FIT,
)
def _() -> dict[str, Any]:
    return {
        **both(),
        "slopes": np.ones(N),
        "model": linear_model(),
        "loss": "hinge",
        "weights": np.ones(N),
    }


@door(
    "attacks.decoy.find_decoys",
    X_test="matrix",
    y_test="array",
    lam="positive",
    clean="object",
    **FIT,
)
def _() -> dict[str, Any]:
    return {
        **both(),
        "X_test": X1,
        "y_test": Y1,
        "lam": 0.1,
        "quantiles": [0.2, 0.4],
        "copies": [1, 2],
        "clean": linear_model(),
    }


@door(
    "attacks.influence.RelaxedPoison",
    X="array",
    y="array",
    copies="array",
    right_too={"X": frozenset({"narrow", "wide"})},
)
def _() -> dict[str, Any]:
    return {"X": W0, "y": np.array([1.0, -1, 1]), "copies": np.array([1.0, 2, 3])}


@door(
    "attacks.influence.poison_gradient",
    weights="array",
    poisoned="count",
    X_test="matrix",
    y_test="array",
    model="object",
    lam="positive",
    smoothing="positive",
    right_too={"X_test": frozenset({"huge"}), "X": frozenset({"huge"})},
    **FIT,
)
def _() -> dict[str, Any]:
    return {
        **both(),
        "weights": np.ones(N),
        "poisoned": 2,
        "X_test": X1,
        "y_test": Y1,
        "model": linear_model(),
        "lam": 0.1,
        "smoothing": 0.5,
    }


@door(
    "attacks.kkt.attempts",
    lam="positive",
    base="object",
    decoy="object",
    settings="object",
    rng="rng",
    **FIT,
)
def _() -> dict[str, Any]:
    from poisoning.attacks.decoy import Decoy

    return {
        **both(),
        "lam": 0.1,
        "base": feasible(),
        "decoy": Decoy(linear_model(), 0.1, 1.0, 0.5, 1),
        "settings": poisoning.KKT(0.2, ratios=2),
        "rng": rng(),
    }


@door(
    "attacks.kkt.loss_caps",
    model="object",
    percentile="fraction",
    right_too={"X": frozenset({"huge"}), "percentile": frozenset({"1.5"})},
    **FIT,
)
def _() -> dict[str, Any]:
    return {"model": linear_model(), **both(), "percentile": 50.0}


@door(
    "attacks.kkt.clean_gradient",
    model="object",
    lam="positive",
    epsilon="nonnegative",
    right_too={"X": frozenset({"huge"})},
    **FIT,
)
def _() -> dict[str, Any]:
    return {"model": linear_model(), **both(), "lam": 0.1, "epsilon": 0.1}


@door("attacks.label_flips.flippable", feasible="object", **FIT)
def _() -> dict[str, Any]:
    return {**both(), "feasible": feasible()}


@door(
    "attacks.label_flips.random_flips",
    X_pool="matrix",
    y_pool="array",
    clean_size="count",
    epsilon="positive",
    domain="object",
    rng="rng",
)
def _() -> dict[str, Any]:
    return {
        "X_pool": X1,
        "y_pool": Y1,
        "clean_size": 20,
        "epsilon": 0.1,
        "domain": domain(),
        "rng": rng(),
    }


@door(
    "attacks.label_flips.alfa",
    X_pool="matrix",
    y_pool="array",
    lam="positive",
    epsilon="positive",
    domain="object",
    clean="object",
    max_rounds="count",
    **FIT,
)
def _() -> dict[str, Any]:
    return {
        **both(),
        "X_pool": X1,
        "y_pool": Y1,
        "lam": 0.1,
        "epsilon": 0.2,
        "domain": domain(),
        "clean": linear_model(),
        "max_rounds": 100,
    }


@door(
    "attacks.label_flips.cheapest",
    cost="array",
    total="index",
    most="count",
    right_too={"cost": frozenset({"short", "long"})},
)
def _() -> dict[str, Any]:
    return {"cost": np.array([3.0, 1, 2, 2]), "total": 3, "most": 2}


@door(
    "attacks.label_noise.flip_labels", y="array", beta="fraction", rng="rng", right_too={"y": SIZES}
)
def _() -> dict[str, Any]:
    return {"y": Y0, "beta": 0.3, "rng": rng()}


@door(
    "attacks.label_noise.shift_labels",
    y="array",
    classes="count",
    beta="fraction",
    rng="rng",
    right_too={"y": SIZES},
)
def _() -> dict[str, Any]:
    return {"y": K0, "classes": 3, "beta": 0.3, "rng": rng()}


@door(
    "attacks.min_max.min_max_poison",
    lam="positive",
    feasible="object",
    domain="object",
    settings="object",
    rng="rng",
    clean="object",
    **FIT,
)
def _() -> dict[str, Any]:
    return {
        **both(),
        "lam": 0.1,
        "feasible": feasible(),
        "domain": domain(),
        "settings": poisoning.MinMax(0.2),
        "rng": rng(),
        "clean": linear_model(),
    }


def class_sets() -> list[Any]:
    from poisoning.attacks.min_max_multiclass import class_balls

    return class_balls(X0, K0.astype(np.int64), 3, box(), 90.0)


@door(
    "attacks.min_max_multiclass.class_balls",
    X="array",
    y="array",
    domain="object",
    percentile="percentile",
)
def _() -> dict[str, Any]:
    return {"X": X0, "y": K0, "classes": 3, "domain": box(), "percentile": 90.0}


@door(
    "attacks.min_max_multiclass.multiclass_decoy",
    X="array",
    y="array",
    X_test="array",
    y_test="array",
    reference="object",
    quantile="share",
    copies="count",
    rng="rng",
)
def _() -> dict[str, Any]:
    return {
        "X": X0,
        "y": K0,
        "X_test": X1,
        "y_test": K1,
        "reference": multiclass_model(),
        "quantile": 0.5,
        "copies": 2,
        "rng": rng(),
    }


@door("attacks.min_max_multiclass.WorstMulticlassPoints.find", theta="array")
def _() -> dict[str, Any]:
    from poisoning.attacks.min_max_multiclass import WorstMulticlassPoints

    return {"self": WorstMulticlassPoints(class_sets()), "theta": W0}


@door(
    "attacks.min_max_multiclass.min_max_multiclass", X="array", y="array", clean="object", rng="rng"
)
def _() -> dict[str, Any]:
    return {
        "X": X0,
        "y": K0,
        "sets": class_sets(),
        "clean": multiclass_model(),
        "settings": poisoning.MinMax(0.2),
        "rng": rng(),
    }


@door(
    "attacks.patom.project_to_ball",
    X="array",
    radius="positive",
    right_too={"X": SHAPES | {"flat"}},
)
def _() -> dict[str, Any]:
    return {"X": W0, "radius": 1.0}


@door(
    "attacks.patom_gradient.attack_gradient",
    train="object",
    poisoned="count",
    W="array",
    v="array",
    loss="choice",
    lambda1="positive",
    lambda2="nonnegative",
    method="choice",
    tol="positive",
)
def _() -> dict[str, Any]:
    return {
        "train": task_data(),
        "poisoned": 2,
        "W": W0,
        "v": W0,
        "loss": "square",
        "lambda1": 0.1,
        "lambda2": 0.1,
        "method": "total",
        "tol": 1e-9,
    }


@door(
    "attacks.poisoned_set.PoisonedSet",
    X="matrix",
    y="array",
    clean_size="count",
    epsilon="nonnegative",
    domain="object",
)
def _() -> dict[str, Any]:
    return {"X": X1[:3], "y": Y1[:3], "clean_size": 30, "epsilon": 0.1, "domain": domain()}


@door("attacks.worst_point.WorstPointSearch.find", model="object")
def _() -> dict[str, Any]:
    from poisoning.attacks.worst_point import WorstPointSearch

    return {"self": WorstPointSearch(feasible(), 1e-3), "model": linear_model()}


if __name__ == "__main__":
    first, every, pattern = [*sys.argv[1:], *["0", "1", ""][len(sys.argv) - 1 :]]
    main(int(first), int(every), pattern)
