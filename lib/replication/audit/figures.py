"""The report's pictures, as SVG that takes its colours from the page: light or dark.

Every picture is drawn in stand-in colours, which :func:`svg` replaces by the page's variables.
Texts stay texts.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poisoning.games.linear import NONE
from replication.audit.summary import DEFENSE_NAMES, least_votes
from replication.plotting import STYLE

_INK, _LINE = "#010203", "#010204"
_SERIES = {name: f"#0102{k:02x}" for k, name in enumerate("abcdefgh", start=16)}
_VARIABLES = {_INK: "--ink", _LINE: "--line"} | {
    colour: f"--{name}" for name, colour in _SERIES.items()
}
_WIDE, _HIGH = 4.3, 3.4  # inches: a phone's width at the size that texts have
_LOOK: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "audit",
    "text.parse_math": False,  # names of features may hold any signs
    "figure.facecolor": "none",
    "axes.facecolor": "none", "savefig.facecolor": "none", "text.color": _INK,
    "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.edgecolor": _LINE,
    "grid.color": _LINE, "legend.frameon": False, "font.size": 10, "legend.fontsize": 8.5,
    "figure.constrained_layout.use": True, "patch.edgecolor": "none",
}  # fmt: skip


def draw(paint: Callable[[Axes], None], key: str, *, high: float = _HIGH) -> str:
    """One picture as an SVG element; ``key`` makes its ids different from other pictures'."""
    with rc_context(fname=STYLE), rc_context(_LOOK):
        figure = Figure(figsize=(_WIDE, high))
        paint(figure.add_subplot())
        stream = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    return svg(stream.getvalue(), key)


def svg(drawn: str, key: str) -> str:
    """The ``<svg>`` element alone, with the page's colours, ids of its own, and no address."""
    element = drawn[drawn.index("<svg") :]
    element = re.sub(r' (xmlns(:\w+)?|version|width|height)="[^"]*"', "", element, count=5)
    element = element.replace("<svg", '<svg aria-hidden="true"', 1)
    element = re.sub(r'\bid="', f'id="{key}-', element)
    element = re.sub(r"url\(#", f"url(#{key}-", element)
    element = re.sub(r'xlink:href="#', f'href="#{key}-', element)
    element = re.sub(r"font: ([^;\"]*?)(\d+(?:\.\d+)?px) [^;\"]*", r"font: \2 inherit", element)
    for colour, variable in _VARIABLES.items():
        element = element.replace(colour, f"var({variable})")
    return element


def _line(
    axes: Axes, where: Sequence[int | float], estimates: Sequence[dict[str, Any]], **look: Any
) -> None:
    values = [100.0 * one["value"] for one in estimates]
    axes.plot(where, values, **look)
    for x, one in zip(where, estimates, strict=True):
        if one["ci95"] is not None and look.get("linewidth", 0) > 1.5:
            axes.vlines(x, *(100.0 * np.array(one["ci95"])), color=look["color"], linewidth=1.0)


def _points_axis(axes: Axes, points: Sequence[int], majority: float) -> None:
    axes.axhline(
        100.0 * majority, color=_INK, linestyle=":", linewidth=1.2, label="always the larger class"
    )
    axes.set_xscale("log")
    axes.set_xticks(points, [f"{k:,}" for k in points])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="rows of poison", ylabel="test error (%)")
    axes.set_ylim(bottom=0.0)
    axes.grid(axis="x", visible=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.24), ncols=2)


def attacked(summary: dict[str, Any]) -> Callable[[Axes], None]:
    """Test error of the strongest attack against points, for every defense."""
    shown = dict(zip((NONE, "l2", "slab", "loss", "svd", "knn"), "abcdef", strict=True))

    def paint(axes: Axes) -> None:
        for defense, colour in shown.items():
            rows = [row for row in summary["worst"] if row["defense"] == defense]
            bold = defense == NONE
            _line(
                axes, [row["points"] for row in rows], [row["error"] for row in rows],
                color=_SERIES[colour], label=DEFENSE_NAMES[defense],
                marker="o", markersize=6 if bold else 3.5, linewidth=2.6 if bold else 1.3,
            )  # fmt: skip
        points = sorted({row["points"] for row in summary["worst"]})
        _points_axis(axes, points, summary["data"]["majority_error"])

    return paint


def certified(summary: dict[str, Any]) -> Callable[[Axes], None]:
    """What no attack can exceed, beside the strongest attack found."""
    chosen = [row for row in summary["certified"] if row["lam"] == summary["settings"]["lam"]]
    single = [row for row in chosen if row["method"] == "svm"]
    votes = least_votes(summary)
    found = [row for row in summary["worst"] if row["defense"] == NONE]

    def paint(axes: Axes) -> None:
        bounds = (("one model: at most", "c", single), ("vote of models: at most", "b", votes))
        for label, colour, rows in bounds:
            if rows:
                _line(
                    axes, [row["points"] for row in rows], [row["bound"] for row in rows],
                    color=_SERIES[colour], label=label, marker="v", markersize=5, linewidth=2.0,
                )  # fmt: skip
        _line(
            axes, [row["points"] for row in found], [row["error"] for row in found],
            color=_SERIES["a"], label="strongest attack found", marker="o", linewidth=2.0,
        )  # fmt: skip
        points = [row["points"] for row in summary["settings"]["points"]]
        axes.set_ylim(top=min(100.0, 200.0 * summary["data"]["majority_error"]))
        _points_axis(axes, points, summary["data"]["majority_error"])

    return paint


def lams(summary: dict[str, Any]) -> Callable[[Axes], None]:
    """Clean, attacked and certified error over λ."""

    def paint(axes: Axes) -> None:
        rows = summary["lams"]
        for field, colour, label in (
            ("clean", "b", "clean"), ("attacked", "a", "attacked"),
            ("certified_1", "c", "1 row: at most"),
        ):  # fmt: skip
            known = [row for row in rows if row[field] is not None]
            _line(
                axes, [row["lam"] for row in known], [row[field] for row in known],
                color=_SERIES[colour], label=label, marker="o", linewidth=2.0,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks([row["lam"] for row in rows], [f"{row['lam']:g}" for row in rows])
        axes.set_xticks([], minor=True)
        axes.set(xlabel="λ, the strength of regularisation", ylabel="test error (%)")
        axes.set_ylim(bottom=0.0)
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.24), ncols=3)

    return paint


def weights(summary: dict[str, Any]) -> Callable[[Axes], None]:
    """The weights that an attack changes most, before and after."""

    def paint(axes: Axes) -> None:
        shifts = summary["explanation"]["shifts"][::-1]
        where = np.arange(len(shifts))
        before, after = ([one[end] for one in shifts] for end in ("before", "after"))
        axes.hlines(where, before, after, color=_LINE, linewidth=3)
        axes.plot(before, where, "o", color=_SERIES["b"], label="before")
        axes.plot(after, where, "o", color=_SERIES["a"], label="after")
        axes.axvline(0.0, color=_INK, linewidth=0.8)
        names = [one["name"] for one in shifts]
        axes.set_yticks(where, [name if len(name) < 24 else f"{name[:22]}…" for name in names])
        axes.set_xlabel("weight of the feature")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.18), ncols=2)

    return paint
