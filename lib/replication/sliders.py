"""What the essays of ``docs/essays`` let a reader move: tables of results, one row at a time.

An essay shows one where it says ``<!-- slider: <name> -->``. The page holds the whole table, which
``docs/static/slider.js`` turns into bars and a slider over its rows; without it the table stays.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from replication import paths, plotting
from replication.reading import ReadingError


@dataclass(frozen=True)
class Bar:
    """A number and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Slider:
    """A table: ``rows`` of one Bar for each of ``columns``, which are names with their colours.

    ``axis`` says what differs from row to row, ``unit`` follows every number.
    """

    title: str
    axis: str
    unit: str
    columns: dict[str, str]
    rows: dict[str, list[Bar]]


@dataclass(frozen=True)
class _Source:
    """Where the numbers of a slider lie: a table, and which of its columns are what."""

    table: str
    row: str
    column: str
    value: str
    chosen: Mapping[str, object]
    scale: float = 100.0
    shift: float = 0.0


def _read(source: _Source, rows: Iterable[object], columns: Iterable[str]) -> pd.DataFrame:
    """The numbers of a slider and their ±, by what the table calls its rows and columns.

    Raises:
        ReadingError: there is no such table, or a number that the slider shows is not in it.
    """
    path = paths.ROOT / "results" / "paper" / source.table
    try:
        found = pd.read_csv(path)
        for name, value in source.chosen.items():
            found = found[found[name] == value]
        found = found.set_index([source.row, source.column])[[source.value, "±"]]
        wanted = pd.MultiIndex.from_product([rows, columns])
        return source.scale * (found.loc[wanted] - [source.shift, 0.0])
    except (OSError, KeyError, ValueError) as error:
        raise ReadingError(f"{path} lacks what an essay shows of it: {error}.") from None


def _slider(
    title: str,
    axis: str,
    unit: str,
    source: _Source,
    rows: Mapping[object, str],
    columns: Mapping[str, tuple[str, str]],
) -> Slider:
    """``rows`` and ``columns`` give names, and columns colours, to what the table calls them."""
    found = _read(source, rows, columns)
    return Slider(
        title,
        axis,
        unit,
        dict(columns.values()),
        {
            name: [
                Bar(value, value - half, value + half)
                for value, half in found.loc[[(row, column) for column in columns]].to_numpy()
            ]
            for row, name in rows.items()
        },
    )


def _detectors() -> Slider:
    attacks = {"flip": "label flips", "influence": "influence", "kkt": "KKT", "minmax": "min-max"}
    return _slider(
        "Test error of a spam filter (Enron) with 3 % of poison",
        "Detector",
        "%",
        _Source(
            "koh2021/attacks/tables/figure-3.csv", "defense", "attack", "test error",
            {"data": "enron"},
        ),
        {key: plotting.BEHIND[key] for key in plotting.DEFENSES},
        {key: (name, plotting.ATTACKS[key]) for key, name in attacks.items()},
    )  # fmt: skip


def _gradients() -> Slider:
    names = {
        "random": "random start", "paper": "the paper’s gradient", "fixed": "exact for fixed Ω",
        "total": "total gradient",
    }  # fmt: skip
    return _slider(
        "How far the attacker’s objective rises, on Sarcos",
        "Whose examples are poisoned",
        "%",
        _Source(
            "zhao2018/gradients/tables/attacks.csv", "attack", "gradient", "gain",
            {"data": "sarcos"}, shift=1.0,
        ),
        {"direct": "the targets’ own", "indirect": "other tasks’"},
        {key: (name, plotting.GRADIENTS[key]) for key, name in names.items()},
    )  # fmt: skip


def _policies() -> Slider:
    policies = {"none": "none", "l2-large": "large", "l2-cv": "cv", "l2-learned": "learned"}
    return _slider(
        "Test error of logistic regression (MNIST 0 v 8) under attack",
        "Share of poison",
        "%",
        _Source(
            "carnerero2023/logistic/tables/figure-2.csv", "poison", "policy", "test error",
            {"data": "mnist"},
        ),
        {share / 100: f"{share} %" for share in range(0, 36, 7)},
        {
            key: (plotting.WHO_SETS[name], plotting.POLICIES[name])
            for key, name in policies.items()
        },
    )  # fmt: skip


def _widths(step: str, words: str) -> Slider:
    curves = {
        "clean": ("no poison", plotting.CLEAN),
        "B": ("all images changed a little", plotting.POISONS["B"]),
        "C-0.2": ("20 % of labels", plotting.POISONS["C, less"]),
        "C-0.3": ("30 % of labels", plotting.POISONS["C"]),
    }
    return _slider(
        f"Test accuracy of two-layer networks (MNIST 4 v 9), {words}",
        "Neurons",
        "%",
        _Source(
            "wang2021/two-layer/tables/width.csv", "m", "curve", "accuracy", {"step size": step},
        ),
        {m: f"{m:,}" for m in (16, 64, 256, 1024, 4096, 16384)},
        curves,
    )  # fmt: skip


SLIDERS: dict[str, Callable[[], Slider]] = {
    "detectors": _detectors,
    "gradients": _gradients,
    "policies": _policies,
    "widths": lambda: _widths("fixed", "step size 4 at every width"),
    "widths-scaled": lambda: _widths("scaled", "step size 0.01 per neuron"),
}
"""What makes each slider, by the name that essays call it."""
