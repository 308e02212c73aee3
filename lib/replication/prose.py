"""Numbers of ours in prose, written from ``results/``: ``python -m replication.prose``.

A number is followed at once by a comment, which no page shows, that names where it comes from::

    24.2 %<!-- koh2021/kkt enron.kkt.min5.test_error -->
    12.1<!-- koh2021/kkt enron.kkt.none.test_error - enron.clean_error points --> points
    ± 2.0<!-- koh2021/kkt enron.kkt.min5.test_error half points --> points
    95<!-- bench koh2021.kkt_to_17pct.ratio --> times

First comes the notebook, or ``bench``; then a metric of the paper profile, or two of which the
difference is meant; then ``half`` for half the 95 % interval, or ``n`` for the number of repeats;
then ``points`` for a hundred times the fraction. A number with a ``%`` is a hundred times the
fraction as well. Decimals are as many as the number has.
"""

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poisoning.datasets import files
from poisoning.errors import DataError
from replication import claims, paths
from replication.reading import ReadingError

_NUMBER = re.compile(r"([−+]?)\d+(?:\.(\d+))?( ?%)?<!--(.*?)-->", re.DOTALL)
_SOURCE = re.compile(
    r"\s+(bench|[a-z0-9-]+/[a-z0-9-]+)\s+(\S+)(?:\s+-\s+(\S+))?(\s+half|\s+n)?(\s+points)?\s+"
)

Find = Callable[[str], dict[str, Any] | None]


class ProseError(ValueError):
    """A number in prose names what does not exist; one sentence."""


def sources() -> list[Path]:
    """The files whose prose holds numbers of ours."""
    notebooks = sorted(paths.NOTEBOOKS.rglob("*.ipynb"))
    documents = sorted((paths.ROOT / "docs").rglob("*.md"))
    return [paths.ROOT / "README.md", paths.ROOT / "DEVIATIONS.md", *documents, *notebooks]


def with_numbers(text: str, find: Find) -> str:
    """The text with every number that names its source set to what the source says.

    ``find`` gives the metrics of a notebook (or of ``bench``); None: it has no results.

    Raises:
        ProseError: the comment behind a number names no notebook and metric that have results.
    """

    def written(match: re.Match[str]) -> str:
        sign, decimals, percent, comment = match.groups()
        value = _value(comment, find) * (100.0 if percent else 1.0)
        digits = f"{abs(value):.{len(decimals or '')}f}"
        sign = "−" if value < 0.0 and float(digits) else "+" if sign == "+" else ""
        return f"{sign}{digits}{percent or ''}<!--{comment}-->"

    return _NUMBER.sub(written, text)


def _value(comment: str, find: Find) -> float:
    source = _SOURCE.fullmatch(comment)
    if source is None:
        raise ProseError(f"a number's comment must name a notebook and a metric, not {comment!r}")
    notebook, *names, part, points = source.groups()
    metrics = find(notebook)
    if metrics is None:
        raise ProseError(f"{notebook} has no results of the paper profile")
    values = []
    for name in filter(None, names):
        if name not in metrics:
            raise ProseError(f"{notebook} gives no {name}")
        values.append(_part(metrics[name], (part or "value").strip()))
        if values[-1] is None:
            raise ProseError(f"{name} of {notebook} has no interval")
    return (values[0] - sum(values[1:])) * (100.0 if points else 1.0)


def _part(metric: dict[str, Any], part: str) -> float | None:
    if part != "half":
        return float(metric[part])
    ends = metric["ci95"]
    return None if ends is None else 0.5 * (ends[1] - ends[0])


def rewritten(path: Path, find: Find) -> str:
    """A file's text with its numbers set; of a notebook, those in cells of Markdown."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return with_numbers(text, find)
    content = json.loads(text)
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = with_numbers("".join(cell["source"]), find).splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


@functools.cache
def of_paper(notebook: str) -> dict[str, Any] | None:
    """The metrics of a notebook in the paper profile, or of ``bench``."""
    run = claims.metrics("paper", notebook)
    return None if run is None else run["metrics"]


def main(arguments: list[str] | None = None) -> int:
    """Write the numbers; print a sentence for each file where that cannot be done, return 1."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    failed = False
    for path in sources():
        try:
            text = rewritten(path, of_paper)
            if text != path.read_text(encoding="utf-8"):
                files.write_text(path, text)
        except (ProseError, ReadingError, DataError) as error:
            print(f"{path.relative_to(paths.ROOT)}: {str(error).rstrip('.')}.", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
