"""The README's results, written from ``results/``: ``python -m lib.pipeline.readme``.

No number in the README is typed; a test holds the two together.
"""

import json

from lib.pipeline import paths

BEGIN = "<!-- results: begin (python -m lib.pipeline.readme writes this part) -->"
END = "<!-- results: end -->"
GALLERY = (
    ("koh2021/kkt/figures/figure-3.png", "The KKT attack against five defenses, Enron (Fig. 3)"),
    ("koh2021/defenses/figures/figure-1.png", "Poison moves a boundary, sanitizing restores it"),
    ("scorecard/figures/scorecard.png", "Our numbers over the papers'"),
)  # fmt: skip


def results_section() -> str:
    """Gallery, scorecard and benchmarks as Markdown, from the paper profile's files."""
    results = paths.ROOT / "results"
    rows = json.loads((results / "paper" / "scorecard.json").read_text())
    parts = []
    for picture, caption in GALLERY:
        parts += [f"![{caption}](results/paper/{picture})", ""]
    verdicts = [row["verdict"] for row in rows]
    summary = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
    parts += [f"**Scorecard** (profile paper, {len(rows)} claims: {summary}):", ""]
    parts += [
        "| claim | source | verdict | paper | ours (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    parts += [
        f"| {row['statement']} | {row['source']} | **{row['verdict']}** "
        f"| {_number(row['paper_value'])} | {_number(row['ours'])}{_interval(row['ci95'])} |"
        for row in rows
    ]
    benchmarks = json.loads((results / "bench.json").read_text())
    parts += ["", "**Benchmarks** (`make bench`, medians of one run):", ""]
    parts += ["| what | ours | peer | ratio | data |", "|---|---|---|---|---|"]
    parts += [
        f"| `{name}` | {_seconds(record['ours_s'])} | {record.get('peer') or '–'} "
        f"{_seconds(record.get('peer_s'))} | {_ratio(record.get('ratio'))} | {record['data']} |"
        for name, record in sorted(benchmarks.items())
    ]
    return "\n".join(parts)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _interval(interval: list[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3g} to {interval[1]:.3g})"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g} s"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}×"


def with_results(text: str, section: str) -> str:
    """The README with what lies between the two markers replaced."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{section}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Rewrite the README's results."""
    readme = paths.ROOT / "README.md"
    readme.write_text(with_results(readme.read_text(), results_section()))


if __name__ == "__main__":
    main()
