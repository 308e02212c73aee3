"""Pages of results, written from ``results/``: ``python -m replication.readme``.

A part of the README, the scorecard and the benchmarks. A test compares them with the results.
"""

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import nbformat

from poisoning.datasets import files
from poisoning.errors import DataError
from replication import paths
from replication.claims import BENCH, VERDICTS
from replication.costs import cpu_hours
from replication.plotting import DATA
from replication.reading import ReadingError, read_result
from replication.syntax import FIGURE
from replication.words import DEFENDERS

BEGIN = "<!-- results: begin (python -m replication.readme writes this part) -->"
END = "<!-- results: end -->"
GALLERY = {
    "koh2021": (
        ("attacks/figures/figure-3-enron.png", "Three attacks, five defenses: Enron (Fig. 3)"),
        ("attacks/figures/figure-3-imdb.png", "Two attacks, five defenses: IMDB (Fig. 3)"),
        ("matrix/figures/validated-p.png", "A defender who validates p, an attacker who knows"),
        ("ablations/figures/certificate.png", "What no attack can exceed"),
        ("defenses/figures/figure-1.png", "Poison moves a boundary, sanitizing it back (Fig. 1)"),
    ),
    "zhao2018": (
        ("quality/figures/figure-2.png", "Harm done directly and through other tasks (Fig. 2)"),
        ("gradients/figures/gradients.png", "Three gradients against finite differences"),
        ("convergence/figures/figure-1.png", "A step of 100, a step of 1, a line search (Fig. 1)"),
        ("relationships/figures/figure-3.png", "Correlations of tasks, attacked or not (Fig. 3)"),
    ),
    "carnerero2023": (
        ("synthetic/figures/figure-1.png", "One poisoned point, and the λ it calls for (Fig. 1)"),
        ("logistic/figures/figure-2.png", "λ learned, large or cross-validated, attacked (Fig. 2)"),
        ("logistic/figures/replay.png", "Against better steps of the attacker, L2 does harm"),
        ("validation-size/figures/figure-4.png", "How large a trusted set should be (Fig. 4)"),
        ("feature-stability/figures/figure-5.png", "Which features a model keeps (Fig. 5)"),
        ("networks/figures/figure-6-11.png", "Networks: no λ, one, or one per layer (Fig. 6, 11)"),
        ("networks/figures/figure-7-12.png", "Where in the net poison bites (Fig. 7, 12)"),
        ("hypergradients/timed/attacks-against-time.png", "Gradients and steps, at equal time"),
    ),
    "wang2021": (
        ("convex/figures/excess-risk.png", "SGD with a poisoned oracle: rates and floors"),
        ("convex/figures/tightness.png", "Bound, lower bound, measurement"),
        ("two-layer/figures/width.png", "Two-layer networks, narrow to wide: poison and step size"),
        ("two-layer/figures/why.png", "At a fixed step noise silences narrow networks"),
        ("width/figures/figure-mnist.png", "Small CNNs: labels harm wide ones, pixels narrow ones"),
    ),
}  # fmt: skip
"""Pictures under ``results/paper/<paper>``, paper by paper, with their captions."""

MATRIX = "crossing/matrix"
"""The notebook where every attack meets every defender."""

PICTURE = "koh2021/attacks/figures/figure-3-enron.png"
"""The README's picture, under ``results/paper``."""

BARS = "scorecard/figures/scorecard.png"
"""Verdicts by paper, as bars, under ``results/paper``."""

CAPTION = "Three attacks on a spam filter, against five defenses"
MET = re.compile(r"(.+)\.crossing\.(fixed|adaptive|no-attack)\.(.+)\.test_error")
"""Data set, attacker and defender in the name of a metric of :data:`MATRIX`."""
NAMED = re.compile(r"(?<!`)`([a-z0-9]+/[a-z0-9-]+)`(?!`)")
"""A notebook that a text names."""

WRITTEN = "python -m replication.readme writes this page"
BENCHMARKS = """`make bench` times both sides in alternation, on the same problem, in one run;
these are medians. *Ratio*: the peer's seconds over ours. A peer is what a careful user would write
with a general library. Where the peer is the paper's own table, its machine was another one, and
only the order of magnitude counts."""

KERNELS = "replication.kernels"
LIMITS = """Counted are the additions and multiplications that a formula needs, and each number that
it reads, once. Beside them stand, measured in the same run on the same core, the speed of a product
of large matrices and that of adding up an array as large as what is read. Coordinate descent and
the duals of feasible sets are far from both: they fetch entries by index and branch at each."""

TIMED = {
    "koh2021.kkt_problem": "the KKT attack's linear problem (17)",
    "koh2021.minmax_lp": "min-max's linear problem",
    "koh2021.influence_projection": "the influence attack's projection onto the feasible set",
    "koh2021.evaluation": "one attack behind five defenses",
    "koh2021.evaluation_imdb": "one attack behind five defenses, 89,527 features",
    "koh2021.spectrum": "singular vectors of the clean data, for the SVD defense",
    "koh2021.kkt_to_17pct": "KKT attack, until 17 % test error",
    "koh2021.minmax_to_17pct": "min-max attack, until 17 % test error",
    "koh2021.influence_to_17pct": "influence attack, until 17 % test error",
    "zhao2018.lower_level.sarcos": "the multi-task learner, solved exactly, square loss",
    "zhao2018.lower_level.landmine": "the multi-task learner, hinge loss, 29 tasks",
    "zhao2018.lower_level.mnist": "the multi-task learner, hinge loss, 128 features",
    "zhao2018.patom_iteration.sarcos": "one iteration of PATOM, square loss",
    "zhao2018.patom_iteration.landmine": "one iteration of PATOM, 29 tasks",
    "zhao2018.patom_iteration.mnist": "one iteration of PATOM, 128 features",
    "carnerero2023.rmd_lr": "hypergradients of logistic regression",
    "carnerero2023.rmd_lr_sizes": "the same, up to 50,000 rows and 64 problems at once",
    "carnerero2023.rmd_batched": "the same, many problems at once",
    "carnerero2023.rmd_networks": "hypergradients of multilayer perceptrons",
    "carnerero2023.table_2_T": "a hypergradient by reverse mode",
    "carnerero2023.table_2_forward": "the same, for one λ",
    "carnerero2023.grid_search": "learning one λ of logistic regression",
    "carnerero2023.grid_search_layers": "learning a λ for each of three layers",
    "wang2021.online_sgd": "a step of online SGD on a two-layer network",
    "crossing.svm_poisoning": "poisoned points for an SVM",
    "crossing.table_detection": "the rows of a table scored for poison",
}
"""What is timed beside a peer, in words, in the order of the page."""

LEGEND = """A rule is tested with the 95 % interval of what it compares: it holds, fails, or is
undecided. A number of a paper is replicated inside an acceptance region around it, which stands in
brackets, and stronger or weaker beyond. *Ours* is a claim that no paper makes; *asked after*, one
whose rule was written after the run that decides it. `claims.yaml` has the rules. CIFAR-10 is its
variant `subset`, Sarcos its test file: see DEVIATIONS.md."""

TITLES = {
    "koh2021": "Koh, Steinhardt & Liang 2021",
    "zhao2018": "Zhao et al. 2018",
    "carnerero2023": "Carnerero-Cano et al. 2023",
    "wang2021": "Wang, Mianjy & Arora 2021",
    "crossing": "Beyond the papers",
}


DEVIATIONS = {
    "koh2021": "Koh, Steinhardt & Liang 2021",
    "zhao2018": "Zhao, An, Yu, Liu & Pan 2018",
    "carnerero2023": "Carnerero-Cano, Muñoz-González, Spencer & Lupu 2023",
    "wang2021": "Wang, Mianjy & Arora 2021",
    "crossing": "Methods of other papers (notebooks `crossing`)",
}
"""Headings of ``DEVIATIONS.md``, paper by paper."""


def results_section() -> str:
    """The README's part: one picture, and verdicts by paper and origin, from the scorecard."""
    rows = scorecard_rows()
    shown = [verdict for verdict in VERDICTS if verdict in {row["verdict"] for row in rows}]
    parts = [f"![{CAPTION}](results/paper/{PICTURE})", f"*{CAPTION}*", ""]
    parts += [f"![Verdicts by paper](results/paper/{BARS})"]
    parts += ["*Verdicts on the papers' claims; our own stand in the table*", ""]
    parts += [f"| [claims](results/paper/SCORECARD.md) | | {' | '.join(shown)} | CPU hours |"]
    parts += ["|---" * (3 + len(shown)) + "|"]
    for paper, claims in _by_paper(rows).items():
        hours = cost({name for row in claims for name in row["notebooks"]} - {BENCH})
        own = "" if paper == "crossing" else ", our own claims"
        for origin, whose in (("paper", ""), ("ours", own)):
            verdicts = [row["verdict"] for row in claims if row["origin"] == origin]
            counts = " | ".join(str(verdicts.count(verdict)) for verdict in shown)
            if verdicts:
                parts.append(f"| {TITLES[paper]}{whose} | {len(verdicts)} | {counts} | {hours} |")
                hours = ""
    folders = _folders()
    changed = sum(run_of(folder)["changed"] is not None for folder in folders)
    after = sum(row["asked_after"] for row in rows)
    parts += [
        "",
        f"For {after} claims the rule was written after a run had been seen: *asked after* in the "
        "scorecard.",
    ]
    if changed:
        parts += [
            f"{changed} of the {len(folders)} notebooks with results were run with earlier code or "
            "knobs; the page of each says so."
        ]
    return "\n".join(parts + which_defense())


def which_defense() -> list[str]:
    """Three lines for who has to choose a defense, from the errors of all; none before the run.

    By data set: the defender with the lowest mean test error against fixed attacks, the one with
    the lowest against an attacker who knows it, and what the latter costs without an attack.
    """
    folder = paths.ROOT / "results" / "paper" / MATRIX
    if not (folder / "metrics.json").is_file():
        return []
    again = f"run the stage of {MATRIX}@paper again with `dvc repro --force`"
    metrics = read_result(folder / "metrics.json", lambda found: dict(found["metrics"]), again)
    percent: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for key, found in metrics.items():
        if named := MET.fullmatch(key):
            data, attacker, defender = named.groups()
            percent[data, attacker][defender] = 100.0 * found["value"]
    lines: dict[str, list[str]] = {"fixed": [], "adaptive": [], "price": []}
    usable: set[str] = set()
    for data in [data for data, attacker in percent if attacker == "adaptive"]:
        usable = percent[data, "adaptive"].keys() - {"none"}
        for attacker in ("fixed", "adaptive"):
            errors = percent[data, attacker]
            best = min(sorted(usable), key=errors.__getitem__)
            lines[attacker].append(
                f"{DATA[data]} {DEFENDERS.get(best, best)}, {number(errors[best])} % "
                f"(without a defense {number(errors['none'])} %)"
            )
        clean = percent[data, "no-attack"]
        price = f"{clean[best] - clean['none']:+.1f}".replace("-", "−")
        lines["price"].append(f"{DATA[data]} {price}")
    told = {attacker: "; ".join(parts) for attacker, parts in lines.items()}
    return [
        "",
        f"**Which defense should I use?** Of {len(usable)} ([all of them]"
        f"(results/paper/{MATRIX}/README.md)) these have the lowest mean test error:",
        "",
        f"- Against attackers who do not know the defense: {told['fixed']}.",
        f"- Against one who does: {told['adaptive']}.",
        f"- Points of error that the latter cost without an attack: {told['price']}.",
    ]


def cost(notebooks: Collection[str]) -> str:
    """CPU hours of the units of notebooks, and how many of these have units on record."""
    found = [cpu_hours(paths.ROOT / "results" / "paper" / name) for name in notebooks]
    spent = [hours for hours in found if hours is not None]
    if not spent:
        return "–"
    known = "" if len(spent) == len(notebooks) else f" ({len(spent)} of {len(notebooks)} notebooks)"
    return f"{sum(spent):.1f}{known}"


def scorecard_page() -> str:
    """Every claim with its verdict, paper by paper, and pictures."""
    parts = [f"<!-- {WRITTEN} -->", "# Scorecard", "", LEGEND]
    for paper, claims in _by_paper(scorecard_rows()).items():
        parts += ["", f"## {TITLES[paper]}", ""]
        own = [folder for folder in _folders() if folder.parent.name == paper]
        links = [f"[{folder.name}]({paper}/{folder.name}/README.md)" for folder in own]
        parts += [f"Notebooks: {', '.join(links)}.", ""] if links else []
        for picture, caption in GALLERY.get(paper, ()):
            parts += [f"![{caption}]({paper}/{picture})", f"*{caption}*", ""]
        parts += _claims(claims)
    return "\n".join(parts) + "\n"


def benchmarks_page() -> str:
    """Every row of ``results/bench.json`` that has a peer, paper by paper; the others by name."""
    benchmarks = read_result(paths.ROOT / "results" / "bench.json", dict, "run `make bench` again")
    beside = {name: row for name, row in benchmarks.items() if row.get("ratio") is not None}
    alone = [f"`{name}`" for name in sorted(benchmarks.keys() - beside.keys())]
    parts = [f"<!-- {WRITTEN} -->", "# Benchmarks", "", BENCHMARKS]
    for paper, title in TITLES.items():
        names = [name for name in TIMED if name in beside and name.startswith(f"{paper}.")]
        if names:
            parts += ["", f"## {title}", "", "| what | ours | peer | | ratio | data |"]
            parts += ["|---|---|---|---|---|---|"]
        parts += [
            f"| {TIMED[name]} | {_seconds(beside[name]['ours_s'])} | {beside[name]['peer']} "
            f"| {_seconds(beside[name]['peer_s'])} | {_ratio(beside[name]['ratio'])} "
            f"| {beside[name]['data']} |"
            for name in names
        ]
    parts += _limits(benchmarks)
    parts += ["", f"Without a peer, in `results/bench.json`: {', '.join(alone)}."] if alone else []
    return "\n".join(parts) + "\n"


def _limits(benchmarks: dict[str, dict[str, Any]]) -> list[str]:
    """The table of kernels beside what a core can do, and the sentence on online SGD."""
    if KERNELS not in benchmarks:
        return []
    rows = list(benchmarks[KERNELS]["rows"])
    logistic, networks, online = (
        benchmarks.get(name)
        for name in ("carnerero2023.rmd_lr", "carnerero2023.rmd_networks", "wang2021.online_sgd")
    )
    if logistic:
        rows.append(logistic | {"what": TIMED["carnerero2023.rmd_lr"],
                                "of_read": logistic["of_read_near"]})  # fmt: skip
    for name, shape in networks["shapes"].items() if networks else ():
        what = f"{TIMED['carnerero2023.rmd_networks']}, {shape['K']} at once"
        data = f"generated pixels, the paper's network for {name}"
        rows.append(shape | {"what": what, "data": data, "of_read": None})
    parts = ["", "## How near their limits the dearest kernels run", "", LIMITS, ""]
    parts += ["| kernel | data | of the FLOP peak | of the read bandwidth |", "|---|---|---|---|"]
    parts += [
        f"| {row['what']} | {row['data']} | {_share(row['of_GFLOP'])} | {_share(row['of_read'])} |"
        for row in rows
    ]
    if online:
        wide = online["beyond_cache"]
        few, many = _share(online["gemm_fraction"]), _share(wide["gemm_fraction"])
        parts += [
            "",
            "Online SGD on a two-layer network needs two products of matrices a block. It runs at "
            f"{few} of their speed with {online['m']:,} neurons, and at {many} with {wide['m']:,}.",
        ]
    return parts


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def section_page(folder: Path, rows: list[dict[str, Any]]) -> str:
    """What a code host shows with a notebook's results: its verdicts, pictures and links.

    ``rows`` are the scorecard's.
    """
    name = "/".join(folder.parts[-2:])
    paper, section = name.split("/")
    notebook = nbformat.read(executed(folder), 4)
    title, _, text = notebook.cells[0].source.partition("\n")
    said = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    others = sorted(set(NAMED.findall(said)) - {name})
    found = [other for other in others if (folder.parents[1] / other / "metrics.json").is_file()]
    rows = [row for row in rows if name in row["notebooks"]]
    counts = Counter(row["verdict"] for row in rows)
    deviations = f"../../../../DEVIATIONS.md#{_anchor(DEVIATIONS.get(paper, ''))}"
    links = [
        f"[the notebook, executed]({section}.ipynb)",
        f"[its source](../../../../notebooks/{name}.ipynb)",
        *([f"[where we depart from the paper]({deviations})"] if paper in DEVIATIONS else []),
        "[all claims](../../SCORECARD.md)",
        *(f"[`{other}`](../../{other}/README.md)" for other in found),
    ]
    parts = [f"<!-- {WRITTEN} -->", title, "", _beginning(text), ""]
    parts += [f"Read on: {', '.join(links)}.", ""]
    for picture, caption in pictures_of(name):
        parts += [f"![{caption}]({picture})", f"*{caption}*", ""]
    if rows:
        parts += [", ".join(f"{counts[v]} {v}" for v in VERDICTS if v in counts) + ":", ""]
        parts += [*_claims(rows), ""]
    parts += [told(run_of(folder))]
    return "\n".join(parts) + "\n"


def pictures_of(name: str) -> list[tuple[str, str]]:
    """The gallery's pictures of a notebook, below the folder of its results, with captions."""
    paper, section = name.split("/")
    return [
        (place.partition("/")[2], caption)
        for place, caption in GALLERY.get(paper, ())
        if place.startswith(f"{section}/")
    ]


def _beginning(text: str) -> str:
    """The whole sentences of the first two paragraphs: the source, and what is asked."""
    whole = (re.match(r"(?:.*(?<!\bal)[.?!*](?=\s|$))?", part, re.DOTALL)
             for part in text.strip().split("\n\n")[:2])  # fmt: skip
    return "\n\n".join(found[0] for found in whole if found[0])


def _anchor(heading: str) -> str:
    """Where a code host puts a heading of Markdown."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def run_of(folder: Path) -> dict[str, Any]:
    """What a reader needs to know about the run of a notebook, and to run it again.

    ``changed`` is how to see what has changed since in its code or knobs; None: nothing has.
    ``drawn`` says whether its pictures are of today's cells; these do not count there.
    """
    name = "/".join(folder.parts[-2:])
    found = read_result(folder / "provenance.json", _record, "run the notebook again")
    commit = (found["commit"] or "unknown")[:12]
    since = f"git diff {commit} -- params.yaml lib notebooks/{name}.ipynb"
    now = _fingerprints().get(name, {}).get("code")
    return {
        "commit": commit,
        "dirty": found["dirty"],
        "cpu_hours": cpu_hours(folder),
        "changed": None if found["fingerprint"] == now else since,
        "drawn": _drawing(paths.NOTEBOOKS / f"{name}.ipynb") == _drawing(executed(folder)),
        "command": f"dvc repro --force --single-item {paths.stage_name(name)}@paper",
    }


def executed(folder: Path) -> Path:
    """The executed notebook of a folder of results."""
    return folder / f"{folder.name}.ipynb"


def _drawing(notebook: Path) -> list[str]:
    """The code of its cells that draw; none if there is no such notebook."""
    if not notebook.is_file():
        return []
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell.source for cell in cells if FIGURE in cell.metadata.get("tags", [])]


def _record(found: Any) -> dict[str, Any]:
    return {key: found.get(key) for key in ("commit", "dirty", "fingerprint")}


def _fingerprints() -> dict[str, Any]:
    again = "run `python -m replication.stages --fingerprints`"
    return read_result(paths.ROOT / "results" / "fingerprints.json", dict, again)


def told(run: dict[str, Any]) -> str:
    """The same in sentences; ``run`` is as from :func:`run_of`."""
    hours = "" if run["cpu_hours"] is None else f" in {number(run['cpu_hours'])} CPU hours"
    dirty = " with uncommitted changes" if run["dirty"] else ""
    since = run["changed"]
    changed = f" Its code or knobs have changed since; `{since}` shows how." if since else ""
    if not since and not run["drawn"]:
        changed = " Its pictures are older than the cells that draw them."
    again = f"`{run['command']}` computes it as it is today; units that are on record are read."
    return f"Computed at commit {run['commit']}{dirty}{hours}.{changed} {again}"


def pages() -> dict[str, str]:
    """The pages that are written whole, by their place below the project's folder."""
    found = {
        "results/paper/SCORECARD.md": scorecard_page(),
        "results/BENCHMARKS.md": benchmarks_page(),
    }
    rows = scorecard_rows()
    for folder in _folders():
        place = (folder / "README.md").relative_to(paths.ROOT).as_posix()
        found[place] = section_page(folder, rows)
    return found


def _folders() -> list[Path]:
    """The folders of the notebooks that have results of the paper profile."""
    found = (paths.ROOT / "results" / "paper").glob("*/*/metrics.json")
    return sorted(path.parent for path in found)


def scorecard_rows() -> list[dict[str, Any]]:
    """The claims of the paper profile with their verdicts.

    Raises:
        ReadingError: ``results/paper/scorecard.json`` is not what it should be; one sentence.
    """
    again = "run `dvc repro scorecard@paper` again"
    return read_result(paths.ROOT / "results" / "paper" / "scorecard.json", _rows, again)


def _by_paper(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {
        paper: [row for row in rows if row["paper"] == paper]
        for paper in dict.fromkeys(row["paper"] for row in rows)
    }


def _rows(found: Any) -> list[dict[str, Any]]:
    needed = {"id", "paper", "origin", "asked_after", "source", "statement", "rules", "region"}
    needed |= {"notebooks", "metrics"}
    needed |= {"verdict", "reason", "paper_value", "unit", "ours", "ci95", "n"}
    for row in found:
        if not needed <= row.keys():
            raise KeyError(min(needed - row.keys()))
    return found


def _claims(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "| claim | source | verdict | paper (region) | ours (95 % interval) |",
        "|---|---|---|---|---|",
        *(
            f"| {row['statement']}{_marks(row)} | {row['source']} | **{row['verdict']}** "
            f"| {quantity(row['paper_value'], row['unit'])}{interval(row['region'], row['unit'])} "
            f"| {quantity(row['ours'], row['unit'])}{interval(row['ci95'], row['unit'])} |"
            for row in rows
        ),
    ]


def _marks(row: dict[str, Any]) -> str:
    marks = ["ours"] * (row["origin"] == "ours") + ["asked after"] * row["asked_after"]
    return f" *({', '.join(marks)})*" if marks else ""


def number(value: float | None) -> str:
    """Three digits; "–" for none."""
    text = "–" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return text.replace("-", "−")


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit, one of those that a claim can have; "–" for none."""
    return number(value) if value is None or not unit else f"{number(_in(unit, value))} {unit}"


def interval(ends: list[float] | None, unit: str) -> str:
    """What follows a quantity: its interval in brackets, or nothing."""
    return "" if ends is None else f" ({' to '.join(number(_in(unit, end)) for end in ends)})"


def _in(unit: str, value: float) -> float:
    return 100.0 * value if unit in ("%", "points") else value


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 1000.0 else f"{value:,.0f} s"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}×" if value < 10 else f"{value:.0f}×"


def with_results(text: str, section: str) -> str:
    """The README with what lies between the two markers replaced.

    Raises:
        ReadingError: a marker is missing, stands twice, or the second before the first.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or text.count(BEGIN) + text.count(END) > 2:
        raise ReadingError(
            f"README.md must have the lines {BEGIN!r} and {END!r} once each, in this order: "
            "`git checkout README.md` brings them back."
        )
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the pages; print one sentence, return 1 where that cannot be done."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    readme = paths.ROOT / "README.md"
    try:
        written = pages()
        text = with_results(readme.read_text(encoding="utf-8"), results_section())
        for place, page in {readme: text, **written}.items():
            files.write_text(paths.ROOT / place, page)
    except (ReadingError, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
