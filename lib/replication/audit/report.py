"""``report.html``, one file that needs no other, and ``report.json``."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from poisoning.datasets import files
from replication.audit import figures
from replication.audit.sentences import ending, pictured, rows_of, verdicts
from replication.audit.summary import ATTACK_NAMES, DEFENSE_NAMES, least_votes, percent

HTML, JSON = "report.html", "report.json"
_TEMPLATE = "report.html.jinja"


def write(folder: Path, summary: dict[str, Any]) -> None:
    """Write both files into ``folder``, each whole or not at all.

    Raises:
        DataError: they cannot be written.
    """
    summary = summary | {"sentences": [ending(summary), *verdicts(summary)]}
    page = html(summary)
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / JSON, summary)
    files.write_text(folder / HTML, page)


def html(summary: dict[str, Any]) -> str:
    """The page; every text of the user's data is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent,
        "rows": rows_of,
        "interval": interval,
        "number": number,
    }
    return environment.get_template(_TEMPLATE).render(
        summary, pictures=_pictures(summary), alt=pictured(summary), votes=least_votes(summary),
        attack_names=ATTACK_NAMES, defense_names=DEFENSE_NAMES,
    )  # fmt: skip


def interval(estimate: dict[str, Any]) -> str:
    """The ends of an interval, in percent."""
    if estimate["ci95"] is None:
        return "one split"
    low, high = (f"{100.0 * end:.1f}" for end in estimate["ci95"])
    return f"{low} to {high}"


def number(value: float) -> str:
    """A value of the table, to four digits."""
    return f"{value:.4g}"


def _pictures(summary: dict[str, Any]) -> dict[str, Markup]:
    """SVG by name, of those for which there are numbers."""
    wanted = {
        "attacked": summary["worst"] and figures.attacked(summary),
        "certified": summary["certified"] and figures.certified(summary),
        "lams": len(summary["lams"]) > 1 and figures.lams(summary),
        "weights": summary["explanation"] and figures.weights(summary),
    }
    return {
        name: Markup(figures.draw(paint, name)) for name, paint in wanted.items() if paint
    }  # drawn from numbers, with texts that matplotlib escapes
