"""The look of every figure: the paper's value drawn beside ours, the stand-in stamp."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poisoning.models.linear import LinearModel

STYLE = Path(__file__).with_name("style.mplstyle")

OURS = "#20639b"
PAPER = "#d1495b"
POSITIVE = "#2a6fbb"
NEGATIVE = "#c8553d"
POISON = "#111111"


def use_style() -> None:
    """Fonts, grid and colours."""
    style.use(STYLE)


def save(figure: Figure, file: Path) -> None:
    """Write a PNG without a date or a version in it."""
    figure.draw_without_rendering()  # only the second drawing places a legend beside its axes
    figure.savefig(file, metadata={"Software": None})


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
    )


def bars_with_paper(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float],
    errors: Sequence[tuple[float, float] | None],
    paper: Sequence[float | None],
    unit: str = "%",
) -> None:
    """One bar per name with its 95 % interval, and the paper's number as a dash beside it."""
    for index, (value, interval, published) in enumerate(zip(values, errors, paper, strict=True)):
        axes.bar(index, value, width=0.62, color=OURS, label="ours" if index == 0 else None)
        if interval is not None:
            axes.vlines(index, *interval, colors="black", linewidth=1.4, zorder=6)
        if published is not None:
            first = all(earlier is None for earlier in paper[:index])
            ends = index - 0.39, index + 0.39
            label = "paper" if first else None
            axes.hlines(published, *ends, colors=PAPER, linewidth=2.5, label=label, zorder=5)
        axes.annotate(
            f"{value:.1f}", (index, 0), xytext=(0, 4), textcoords="offset points",
            ha="center", color="white", fontsize="small",
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel(f"test error ({unit})")
    axes.set_ylim(bottom=0.0, auto=True)  # the top still adapts to axes that share it
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, loc="upper right")


def boundary(axes: Axes, model: LinearModel) -> None:
    """Draw θ·x + b = 0 of a two-dimensional model within the present limits."""
    point = -model.bias * model.theta / (model.theta @ model.theta)
    limits = axes.get_xlim(), axes.get_ylim()
    along = np.array([-model.theta[1], model.theta[0]])
    axes.axline(point, point + along, color="black", linewidth=1.5)
    axes.set(xlim=limits[0], ylim=limits[1])
