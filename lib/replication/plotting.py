"""The one visual language of all figures: canvas, colours by role, names, legend, title, checks.

A colour means the same in every figure. The colours that may meet in one picture lie at least
:data:`LEAST_DIFFERENCE` apart, also for readers who see with two kinds of cones. The paper's number
is an open diamond, the error without an attack a dotted grey line. A title is a sentence made from
the numbers that are drawn, so that it changes when they do.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox, ScaledTranslation
from numpy import ndarray
from numpy.typing import ArrayLike

from poisoning.metrics import mean_interval
from poisoning.models.linear import LinearModel

STYLE = Path(__file__).with_name("style.mplstyle")

WIDTH = 8.0
"""Inches of every figure."""

SHOWN = 800
"""Pixels that a page gives a figure."""

SMALLEST = 10.0
"""The least height of text, in pixels of a figure :data:`SHOWN` pixels wide."""

LEAST_DIFFERENCE = 20.0
"""Between two colours of one picture, in CIELAB."""

NAVY, ORANGE, GREEN = "#1426b0", "#bd7f12", "#0a7346"
RED, PLUM, SKY = "#8c1000", "#5a1460", "#1d9bd8"

PAPER = "#111111"
CLEAN = "#8f8f8f"
OURS = NAVY

CLASSES = {1.0: NAVY, -1.0: ORANGE}
ATTACKS = {
    "flip": SKY, "alfa": RED, "alfa-l2": RED, "alfa-limited": GREEN,
    "influence": PLUM, "kkt": NAVY, "minmax": ORANGE,
}  # fmt: skip
DEFENSES = {"none": RED, "l2": NAVY, "slab": SKY, "loss": ORANGE, "svd": GREEN, "knn": PLUM}
GRADIENTS = {
    "random": PLUM, "paper": ORANGE, "printed": ORANGE, "small": SKY, "fixed": GREEN, "total": NAVY,
}  # fmt: skip
POLICIES = {"none": RED, "large": GREEN, "cv": PLUM, "learned": NAVY, "layers": ORANGE}
PENALTIES = {"l2": NAVY, "l1": ORANGE}
POISONS = {"A": ORANGE, "A, other": RED, "B": GREEN, "B, other": PLUM, "C": NAVY, "C, less": SKY}
SETS = {"sarcos": NAVY, "landmine": ORANGE, "mnist": GREEN}
OTHERS = (NAVY, ORANGE, GREEN, RED, PLUM, SKY)
"""For series that have no role in other figures, in this order."""

VERDICTS = {
    "replicated": GREEN, "stronger": NAVY, "weaker": SKY, "partial": ORANGE, "not replicated": RED,
}  # fmt: skip

DATA = {
    "enron": "Enron", "imdb": "IMDB", "mnist-1-7": "MNIST 1 v 7", "dogfish": "Dogfish",
    "mnist": "MNIST", "mnist-wide": "MNIST, wide", "fashion-mnist": "Fashion-MNIST",
    "cifar-10": "CIFAR-10", "sarcos": "Sarcos", "landmine": "Landmine",
}  # fmt: skip
"""Data sets as readers know them; results use the keys."""

BEHIND = {
    "none": "no defense", "l2": "L2", "slab": "slab", "loss": "loss", "svd": "SVD", "knn": "k-NN",
    "min of 5": "least of 5", "all": "all five", "random": "random", "oracle": "perfect",
    "ecod": "ECOD", "hbos": "HBOS",
}  # fmt: skip
"""Defenses as readers know them, in the order of every figure; results use the keys."""

WHO_SETS = {
    "none": "no regularisation", "large": "large λ", "cv": "λ cross-validated",
    "learned": "λ learned", "layers": "λ per layer",
}  # fmt: skip
"""Who sets λ, by the part of a policy's name that follows the penalty."""

_WHISKER = {"fmt": "none", "ecolor": "#444444", "elinewidth": 1.1, "capsize": 2.5, "zorder": 6}
STAMP, WRITTEN, REFERENCE = "stamp", "value of a bar", "what others are compared with"
ASIDE = 3.0
"""Points between lines that share their x; in panels of three or more columns two thirds."""

NOT_LEGIBLE = "The paper's values are not legible in the copy at hand."
"""For notes."""

_UNBROKEN = re.compile(
    r"(?<=[=<≤≈]) | (?=[%=<≤≈](?!\w))|(?<=\d) (?=s\b|points?\b|to −?\d)"
    r"|(?<=\bfrom) (?=−?\d)|(?<=\d to) (?=−?\d)"
)
"""Spaces that stay within a line: around signs, before units, in "from 2 to 3"."""


def use_style() -> None:
    """Fonts, grid and colours."""
    style.use(STYLE)


def canvas(
    rows: int = 1, columns: int = 1, height: float = 2.6, **options: Any
) -> tuple[Figure, Any]:
    """A figure of the one width; ``height``: inches of a row. Panels: an array, rows by columns."""
    size = WIDTH, 0.9 + height * rows
    return plt.subplots(rows, columns, figsize=size, squeeze=False, **options)


def shades(number: int) -> list[Any]:
    """Colours for an ordered quantity, such as widths, from dark to light."""
    return list(plt.get_cmap("viridis")(np.linspace(0.0, 0.85, number)))


def lighter(colour: str) -> Any:
    """The same colour half-way to white: a variant of what the colour stands for."""
    return tuple(0.5 + 0.5 * part for part in to_rgb(colour))


def moved(before: float, after: float, unit: str = " %", digits: int = 1) -> str:
    """What became of a number, in words that the two decide; which may be NaN."""
    if not np.isfinite(after):
        return "is not known"
    if not np.isfinite(before):
        return f"is {after:.{digits}f}{unit}"
    old, new = f"{before:.{digits}f}", f"{after:.{digits}f}"
    if old == new:
        return f"stays at {old}{unit}"
    return f"{'rises' if after > before else 'falls'} from {old} to {new}{unit}"


def repeated(n: int, what: str = "split") -> str:
    """What a mean and its interval are taken over."""
    if n == 1:
        return f"One {what}, no interval."
    return f"Mean of {n} {what}s and its 95 % interval."


def repeated_by(counts: Mapping[str, int]) -> str:
    """The same where data sets have their own number of repeats, by data set."""
    if len(set(counts.values())) == 1:
        return repeated(next(iter(counts.values())), "repeat")
    each = ", ".join(f"{DATA.get(name, name)} {n}" for name, n in counts.items())
    return f"Means of repeats and their 95 % intervals: {each}."


def bars(
    axes: Axes,
    values: ArrayLike,
    halves: ArrayLike,
    *,
    place: int = 0,
    of: int = 1,
    written: bool = False,
    floor: float = 0.0,
    **look: Any,
) -> Float[ndarray, " groups"]:
    """One bar in each group with half its interval, the ``place``-th ``of`` so many.

    Returns where the bars stand. ``written`` puts the value on each. No interval reaches below
    ``floor``, the least that the quantity can be.
    """
    heights, halves = np.asarray(values, float), np.asarray(halves, float)
    width = 0.84 / of
    x = np.arange(len(heights)) + (place - (of - 1) / 2) * width
    axes.bar(x, heights, 0.92 * width, **look)
    below = np.minimum(halves, heights - floor)
    axes.errorbar(x, heights, np.array([below, halves]), **_WHISKER)
    for at, height, half in zip(x, heights, np.nan_to_num(halves), strict=True) if written else ():
        if np.isfinite(height):
            axes.annotate(f"{height:.1f}", (at, height + max(half, 0.0)), (0, 3), ha="center",
                          textcoords="offset points", fontsize="small", gid=WRITTEN)  # fmt: skip
    return x


def errors(axes: Axes, frame: pd.DataFrame, **options: Any) -> Float[ndarray, " groups"]:
    """Test errors in per cent behind each defense, in the order of :data:`BEHIND`.

    ``frame`` has the columns ``defense``, ``test error`` and ``±``, one row for each bar;
    ``options`` are those of :func:`bars`.
    """
    of = 100 * frame.set_index("defense")[["test error", "±"]].astype(float)
    of = of.loc[[defense for defense in BEHIND if defense in of.index]]
    x = bars(axes, of["test error"], of["±"], **options)
    groups(axes, [BEHIND[defense] for defense in of.index])
    axes.set_ylabel("test error (%)")
    return x


def groups(axes: Axes, names: Sequence[str]) -> None:
    """Name the groups of bars."""
    axes.set_xticks(range(len(names)), names)
    axes.grid(axis="x", visible=False)


def heatmap(axes: Axes, grid: pd.DataFrame, form: str, **options: Any) -> Any:
    """A table as colours with its numbers written in; "–" where it has none.

    Returns what a colour bar is made from.
    """
    image = axes.imshow(grid.to_numpy(float), aspect="auto", **options)
    for (row, column), value in np.ndenumerate(grid.to_numpy(float)):
        known = np.isfinite(value)
        dark = known and rgb_to_hsv(image.to_rgba(value)[:3])[2] < 0.72
        axes.text(column, row, format(value, form) if known else "–", ha="center", va="center",
                  fontsize="small", color="white" if dark else "black")  # fmt: skip
    axes.set_xticks(range(grid.shape[1]), grid.columns)
    axes.set_yticks(range(grid.shape[0]), grid.index)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return image


def curve(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    half: ArrayLike,
    *,
    place: int = 0,
    of: int = 1,
    **look: Any,
) -> None:
    """A line through means with half the interval of each, the ``place``-th ``of`` so many.

    Lines at the same x stand a few points apart on the page, so that intervals can be told apart.
    Where the axis is logarithmic, an interval that ends below 0 ends at the page's edge.
    """
    drawn = {"marker": "o", "markersize": 4, "linewidth": 1.5, "capsize": 2.5} | look
    place_of = axes.get_subplotspec()
    columns = place_of.get_gridspec().ncols if place_of else 1
    step = ASIDE if columns < 3 else ASIDE * 2 / 3
    aside = ScaledTranslation(step / 72 * (place - (of - 1) / 2), 0, axes.figure.dpi_scale_trans)
    outermost = (step * (of - 1) / 2 + 4.0) / (72 * 0.8 * WIDTH / columns)
    axes.margins(x=max(axes.margins()[0], outermost))  # so that no marker is cut in half
    means, half = np.asarray(y, float), np.asarray(half, float)
    # Without this the log of what is below 0 would be nothing, and the whole bar with it.
    below = np.where(means > half, half, means * (1 - 1e-6)) if axes.get_yscale() == "log" else half
    drawing = axes.errorbar(np.asarray(x, float), means, np.array([below, half]), **drawn)
    for part in drawing.get_children():  # afterwards, for the limits come from the numbers
        part.set_transform(axes.transData + aside)


class _FewTicks(LogLocator):
    """Powers of ten; some multiples of these where the axis spans few."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        few, more = (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
        self.set_params(subs=more if vmax < 5 * vmin else few if vmax < 30 * vmin else (1.0,))
        return super().tick_values(vmin, vmax)


def ticks_at(axis: Axis, values: Sequence[int]) -> None:
    """Labels at the values that were run, and at no others."""
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(values, [str(value) for value in values])


def few_ticks(*axes: Axis) -> None:
    """Logarithmic axes whose labels do not crowd, however many powers of ten they span."""
    for axis in axes:
        axis.set_major_locator(_FewTicks())
        axis.set_major_formatter(FuncFormatter(_short))
        axis.set_minor_locator(NullLocator())


def _short(value: float, _: int) -> str:
    """A number on a logarithmic axis, in full where that is short."""
    return f"{value:g}" if 1e-3 <= value < 1e4 else power(value)


def power(value: float) -> str:
    """A positive number of two digits and a power of ten, as in 1.5·10⁻⁴."""
    times, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return ("" if times == "1.0" else times.removesuffix(".0") + "·") + "10" + raised


def band(axes: Axes, x: ArrayLike, repeats: Float[ndarray, "repeats points"], **look: Any) -> None:
    """The mean of curves as a line, its 95 % interval as a band."""
    means = [mean_interval(list(values)) for values in repeats.T]
    middle, half = (np.array([getattr(m, part) for m in means]) for part in ("value", "half_width"))
    (line,) = axes.plot(x, middle, **({"linewidth": 1.6} | look))
    axes.fill_between(np.asarray(x, float), middle - half, middle + half, linewidth=0,
                      color=line.get_color(), alpha=0.2)  # fmt: skip


def policy(name: str) -> dict[str, Any]:
    """How the curve of a policy is drawn, such as ``l2-learned`` or, not optimised, ``…-flips``."""
    flips = name.endswith("-flips")
    who = name.removesuffix("-flips").rpartition("-")[2]
    return {
        "color": POLICIES[who],
        "linestyle": ":" if flips else "-",
        "marker": None if flips else "o",
        "label": "the same flips, not optimised" if flips else WHO_SETS[who],
    }


def in_paper(claim: str) -> float:
    """The paper's number in a claim of ``claims.yaml``, in that claim's unit.

    Raises:
        KeyError: there is no such claim, or it carries no number of the paper.
    """
    return _papers_numbers()[claim]


@cache
def _papers_numbers() -> dict[str, float]:
    from replication.claims import load_claims  # only figures with a number of the paper need it

    return {c.id: c.paper_value for c in load_claims() if c.paper_value is not None}


def published(axes: Axes, x: ArrayLike, y: ArrayLike, **look: Any) -> None:
    """The paper's numbers; NaN where it has none."""
    drawn = {"label": "paper", "color": PAPER, "marker": "D", "markersize": 7} | look
    axes.plot(np.asarray(x, float), np.asarray(y, float), linestyle="", markerfacecolor="white",
              markeredgewidth=1.6, zorder=8, gid=REFERENCE, **drawn)  # fmt: skip


def without_attack(axes: Axes, value: float, label: str = "no attack") -> None:
    """A line where the number is without an attack; none if it is NaN."""
    if np.isfinite(value):
        axes.axhline(
            value, color=CLEAN, linestyle=":", linewidth=1.8, label=label, zorder=1, gid=REFERENCE
        )


def boundary(axes: Axes, model: LinearModel) -> None:
    """Draw θ·x + b = 0 of a two-dimensional model within the present limits."""
    point = -model.bias * model.theta / (model.theta @ model.theta)
    limits = axes.get_xlim(), axes.get_ylim()
    along = np.array([-model.theta[1], model.theta[0]])
    axes.axline(point, point + along, color="black", linewidth=1.5)
    axes.set(xlim=limits[0], ylim=limits[1])


def finish(figure: Figure, finding: str, note: str) -> None:
    """The finding as title, one legend of all panels below them, and a note on data and repeats."""
    sentence = _minus(finding[:1].upper() + finding[1:])
    figure.suptitle(_balanced(sentence, 84), x=0.01, ha="left", fontweight="bold")
    entries = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(_minus(label), handle)
    entries = dict(sorted(entries.items(), key=lambda entry: _is_reference(entry[1])))
    widest = max(map(len, entries), default=0)
    quoted = re.sub(r"`([^`]*)`", r"“\1”", _minus(note))
    below = textwrap.fill(_unbroken(quoted), 112, break_on_hyphens=False)
    figure.legend(
        entries.values(), entries, title=below, alignment="left", loc="outside lower left",
        ncols=max(1, min(len(entries), 104 // (widest + 8))),
    )  # fmt: skip
    _lift_values(figure)


def _minus(text: str) -> str:
    """With a minus before negative numbers; formulas have their own."""
    return text if "$" in text else re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _is_reference(handle: Any) -> bool:
    """Whether an entry of a legend is what others are compared with: it stands behind them."""
    return isinstance(handle, Artist) and handle.get_gid() == REFERENCE


def _balanced(sentence: str, width: int) -> str:
    """A sentence in as few lines as fit, of about one length, with numbers beside their units."""
    whole = _unbroken(sentence)
    lines = [textwrap.wrap(whole, w, break_on_hyphens=False) for w in range(width // 2, width + 1)]
    return "\n".join(min(lines, key=len))


def _unbroken(text: str) -> str:
    """With no-break spaces between numbers and what belongs to them."""
    return _UNBROKEN.sub("\N{NO-BREAK SPACE}", text)


def _lift_values(figure: Figure) -> None:
    """Move values that :func:`bars` wrote above the markers that would lie on them."""
    values = [t for axes in figure.axes for t in axes.texts if t.get_gid() == WRITTEN]
    if not values:
        return
    figure.draw_without_rendering()
    for text in values:
        for box in sorted(_markers([text.axes]), key=lambda box: box.y0):
            its = text.get_window_extent()
            if _cover(box, its):
                up = (box.y1 - its.y0) * 72 / figure.dpi
                text.set_position((0.0, text.get_position()[1] + up + 1.0))


def describe(figure: Figure, *, finding: bool = True) -> str:
    """The alternative text: the finding, what each panel shows, the series, and the note."""
    parts = [figure.get_suptitle()] if finding else []
    for axes in figure.axes:
        axis = " against ".join(filter(None, (axes.get_ylabel(), axes.get_xlabel())))
        parts.append(": ".join(filter(None, (axes.get_title(), axis))))
    for legend in figure.legends:
        series = ", ".join(text.get_text() for text in legend.get_texts())
        parts.append(f"Series: {series}" if series else "")
        parts.append(legend.get_title().get_text())
    sentences = dict.fromkeys(" ".join(part.split()).removesuffix(".") for part in parts)
    return ". ".join(filter(None, sentences)) + "."


def save(figure: Figure, file: Path) -> None:
    """Write a PNG with its alternative text and what :func:`faults` finds, but without a date."""
    told = {"Software": None, "Description": describe(figure)}
    found = faults(figure)
    figure.savefig(file, metadata=told | ({"Warning": "\n".join(found)} if found else {}))


def stamp(figure: Figure, text: str) -> None:
    """Write ``text`` across the figure, so that it is not mistaken for the real experiment."""
    figure.text(
        0.5,
        0.5,
        text.upper(),
        fontsize=30,
        color="#b00020",
        alpha=0.16,
        ha="center",
        va="center",
        rotation=20,
        zorder=100,
        gid=STAMP,
    )


def faults(figure: Figure) -> list[str]:
    """What a reader could not read: a sentence for each text that is too small, cut off or covered.

    Boxes are those of the texts that are drawn, upright; a stamp does not count.
    """
    found = []
    if figure.get_figwidth() != WIDTH:
        found.append(f"The figure is {figure.get_figwidth():g} inches wide, not {WIDTH:g}.")
    if any(axes.get_legend() for axes in figure.axes):
        found.append("A legend lies inside axes.")
    drawn = list(_drawn(figure))
    for text, box in drawn:
        pixels = text.get_fontsize() / 72 * SHOWN / WIDTH
        if pixels < SMALLEST:
            found.append(f"{text.get_text()!r} is {pixels:.1f} pixels high.")
        if not (figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and
                figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1):  # fmt: skip
            found.append(f"{text.get_text()!r} is cut off.")
    for (one, box), (other, its) in combinations(drawn, 2):
        if _cover(box, its):
            found.append(f"{one.get_text()!r} and {other.get_text()!r} overlap.")
    markers = list(_markers(figure.axes))
    for text, box in drawn:
        if any(_cover(box, marker) for marker in markers):
            found.append(f"{text.get_text()!r} lies under a marker.")
    return found


def _cover(one: Bbox, other: Bbox) -> bool:
    """Whether two boxes in pixels have more than an edge in common."""
    common = Bbox.intersection(one, other)
    return common is not None and bool(min(common.width, common.height) > 1.0)


def _markers(panels: Iterable[Axes]) -> Iterator[Bbox]:
    """The boxes in pixels of the markers that lines show."""
    for axes in panels:
        for line in axes.lines if axes.get_visible() else ():
            if line.get_marker() in (None, "", "None", " ", "|", "_") or not line.get_visible():
                continue
            across = np.sqrt(2) if line.get_marker() == "D" else 1.0  # a square on its corner
            size = across * line.get_markersize() + line.get_markeredgewidth()
            size *= axes.figure.dpi / 72
            for x, y in line.get_transform().transform(line.get_xydata()):
                if np.isfinite((x, y)).all():
                    box = Bbox.from_bounds(x - size / 2, y - size / 2, size, size)
                    seen = Bbox.intersection(box, axes.bbox) if line.get_clip_on() else box
                    if seen is not None:
                        yield seen


class _Recorder(RendererAgg):
    """Draws, and remembers which texts it was given: hidden labels of ticks never come."""

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):  # type: ignore[no-untyped-def]
        self.texts: dict[Text, None]
        self.texts[mtext] = None
        super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)


def _drawn(figure: Figure) -> Iterator[tuple[Text, Bbox]]:
    """The texts of a figure and their boxes in pixels."""
    figure.draw_without_rendering()  # only the next drawing places a legend beside its axes
    recorder = _Recorder(*figure.bbox.size, figure.dpi)
    recorder.texts = {}
    figure.draw(recorder)
    for text in recorder.texts:
        if text is not None and text.get_gid() != STAMP:
            yield text, text.get_window_extent(recorder)
