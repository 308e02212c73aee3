"""The site, from ``docs/`` and ``results/paper``: ``python -m replication.site``.

The sources are gathered in ``.cache/site``: ``docs``, the deviations, the executed notebooks, and
the templates of ``docs/templates`` filled with results. Sphinx makes ``site`` of them and executes
nothing. Its warnings are errors; so are links that lead nowhere and pictures without alternative
text in the pages that it wrote.
"""

import argparse
import base64
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from pydoc import locate
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
from bs4 import BeautifulSoup
from docutils.nodes import make_id
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from nbformat import NotebookNode

import poisoning
from poisoning.datasets import files
from poisoning.errors import DataError
from replication import paths, plotting, readme, sliders
from replication.claims import VERDICTS
from replication.reading import ReadingError

READ = (
    "essays/five-detectors", "essays/wrong-gradient", "essays/weak-attacker", "essays/width",
)  # fmt: skip
CHECK = ("scorecard", "deviations", "equations", "benchmarks", "reviewers")
USE = (
    "how-to", "ablations", "library", "api", "running", "audit", "clusters", "gpu", "byte-kernels",
)  # fmt: skip
"""Pages other than notebooks, in their order."""

SHOWN = 5
"""Claims in the summary below a notebook's title, at most."""

ORIGINS = {"paper": "claims of papers", "ours": "our own claims"}

_NUMBER = re.compile(r"([−+]?\d[\d.]*(?: ?%)?)<!--\s*([a-z0-9-]+/[a-z0-9-]+)\s.*?-->", re.DOTALL)
_SENTENCE = re.compile(r".*?[.!?](?=\s|$)", re.DOTALL)
_SLIDER = re.compile(
    r"^(?:!\[.*\]\(\.\./\.\./results/.*\)\n\n)?<!-- slider: ([a-z-]+) -->$", re.MULTILINE
)
"""A slider's place; the picture before it is for readers who have the repository alone."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>$])")


def page_name(notebook: str) -> str:
    """The page of a notebook, ``<paper>/<section>``: its folder has its pictures."""
    return f"{notebook}/{notebook.rpartition('/')[2]}"


def executed() -> dict[str, Path]:
    """The executed notebooks of the paper profile by name, ``<paper>/<section>``."""
    found = sorted((paths.ROOT / "results" / "paper").glob("*/*/*.ipynb"))
    return {f"{path.parts[-3]}/{path.parts[-2]}": path for path in found}


def linked(text: str, notebooks: dict[str, Path]) -> str:
    """Markdown in which notebooks that are named, and numbers that name one, lead to its page."""

    def link(match: re.Match[str], shown: str, name: str) -> str:
        return f"[{shown}](/{page_name(name)}.ipynb)" if name in notebooks else match[0]

    text = _NUMBER.sub(lambda match: link(match, match[1], match[2]), text)
    return readme.NAMED.sub(lambda match: link(match, match[0], match[1]), text)


OUTSIDE = {
    "../README.md": "index.md", "../DEVIATIONS.md": "deviations.md",
    "../results/paper/SCORECARD.md": "scorecard.md", "../results/BENCHMARKS.md": "benchmarks.md",
}  # fmt: skip
"""Files of the repository that the site has as pages."""


def inside(text: str) -> str:
    """Links of ``docs/`` to the rest of the repository: to pages of the site, or names alone."""

    def written(match: re.Match[str]) -> str:
        name, place = match.groups()
        return f"[{name}]({OUTSIDE[place]})" if place in OUTSIDE else f"`{place[3:]}`"

    return re.sub(r"\[([^]]+)\]\((\.\./[^)]+)\)", written, text)


def essay(text: str, notebooks: dict[str, Path]) -> str:
    """An essay with its numbers linked and its sliders filled.

    Raises:
        ReadingError: it names a slider that there is not, or results lack what one shows.
    """

    def filled(match: re.Match[str]) -> str:
        if match[1] not in sliders.SLIDERS:
            raise ReadingError(
                f"An essay asks for the slider {match[1]}: there are {', '.join(sliders.SLIDERS)}."
            )
        template = _templates().get_template("slider.html")
        page = template.render(slider=sliders.SLIDERS[match[1]]())
        return f"```{{raw}} html\n{page}\n```"

    text = _SLIDER.sub(filled, linked(text, notebooks))
    return f'{text}\n```{{raw}} html\n<script src="../_static/slider.js"></script>\n```\n'


def findings(text: str) -> tuple[str, dict[str, str]]:
    """The README's section of findings, and the first sentence on each paper, by its key.

    Raises:
        ReadingError: there is no such section, or it has no item on one of the papers.
    """
    rest = text.partition("\n## What we found\n")[2]
    section = rest.partition("\n## ")[0].strip()
    first = {}
    for paper, title in readme.TITLES.items():
        if paper == "crossing":
            continue
        author = re.match(r"[\w-]+", title)[0]
        item = re.search(rf"^- (?=\*\*{author})(.*?)(?=^- |\Z)", section, re.DOTALL | re.MULTILINE)
        sentence = item and _SENTENCE.match(item[1])
        if sentence is None:
            raise ReadingError(
                f'README.md has no finding on {title}: under "## What we found", an item must '
                f'begin with "- **{author}".'
            )
        first[paper] = sentence[0]
    return section, first


def summary(name: str, rows: list[dict[str, Any]], run: dict[str, Any]) -> str:
    """What stands below a notebook's title: verdicts of its claims, its key picture, its run.

    ``rows`` are the scorecard's, ``run`` is as from :func:`replication.readme.run_of`.
    """
    own = [row for row in rows if name in row["notebooks"]]
    paper = name.partition("/")[0]
    found = _found(own)
    pictures = readme.pictures_of(name)
    return (
        _templates()
        .get_template("summary.md")
        .render(
            name=name,
            rows=[row for row in own if row["paper_value"] is not None][:SHOWN] or own[:SHOWN],
            counts={verdict: found.count(verdict) for verdict in VERDICTS if verdict in found},
            picture=pictures[0] if pictures else None,
            run=run,
            deviations=make_id(readme.DEVIATIONS.get(paper, "")),
        )
    )


def site_notebook(
    path: Path, pictures: Path, notebooks: dict[str, Path], below_title: str = ""
) -> NotebookNode:
    """An executed notebook as the site shows it; its pictures are written to a folder.

    ``below_title``: Markdown that follows the title. Code is folded, parameters stand once. A
    picture's alternative text is the one that the runner
    recorded or, where a run is older than that, the heading above it.
    """
    notebook = nbformat.read(path, 4)
    tags = [set(cell.metadata.get("tags", [])) for cell in notebook.cells]
    twice = "parameters" if any("injected-parameters" in own for own in tags) else None
    cells = [
        (cell, own) for cell, own in zip(notebook.cells, tags, strict=True) if twice not in own
    ]
    heading = ""
    for cell, own in cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
            cell.source = linked(cell.source, notebooks)
        elif cell.cell_type == "code":
            cell.metadata.tags = sorted(own | {"hide-input"})
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    _as_markdown(output, heading, pictures)
    notebook.cells = [cell for cell, _ in cells]
    if below_title:
        title = notebook.cells[0]
        first, _, rest = title.source.partition("\n")
        title.source = f"{first}\n\n{below_title}\n{rest}"
    return notebook


def _as_markdown(output: NotebookNode, heading: str, pictures: Path) -> None:
    """Put a file in place of a picture's bytes: only so does it get its text from Sphinx."""
    alt = output.metadata.get("image/png", {}).get("alt", heading)
    alt = _SPECIAL.sub(r"\\\1", " ".join(alt.split()))
    file = pictures / f"picture-{len(list(pictures.glob('picture-*.png')))}.png"
    file.write_bytes(base64.b64decode(output.data["image/png"]))
    output.data = {"text/markdown": f"![{alt}]({file.name})"}


def gather(target: Path) -> None:
    """Write the sources that Sphinx reads into an empty folder.

    Raises:
        ReadingError: results, or the README, are not what they should be; one sentence.
        DataError: the folder cannot be written.
    """
    notebooks = executed()
    with files.writing(target):
        shutil.copytree(paths.ROOT / "docs", target)
        shutil.copytree(paths.ROOT / "examples", target / "examples")
    for page in [*target.glob("*.md"), paths.ROOT / "DEVIATIONS.md"]:
        text = linked(inside(page.read_text(encoding="utf-8")), notebooks)
        files.write_text(target / page.name.replace("DEVIATIONS", "deviations"), text)
    files.write_text(target / "benchmarks.md", readme.benchmarks_page())
    for page in (target / "essays").glob("*.md"):
        files.write_text(page, essay(page.read_text(encoding="utf-8"), notebooks))
    rows = readme.scorecard_rows()
    for name, path in notebooks.items():
        shutil.copytree(path.parent, target / name, ignore=_not_pictures)
        about = summary(name, rows, readme.run_of(path.parent))
        notebook = site_notebook(path, target / name, notebooks, about)
        files.write_text(target / f"{page_name(name)}.ipynb", nbformat.writes(notebook))
    shutil.copy(paths.ROOT / "results" / "paper" / readme.PICTURE, target / "picture.png")
    colours = (
        f'.fill[data-verdict="{verdict}"] {{ background: {colour}; }}\n'
        for verdict, colour in plotting.VERDICTS.items()
    )
    files.write_text(target / "static" / "verdicts.css", "".join(colours))
    (target / "api").mkdir()
    for page, (template, values) in _filled(notebooks).items():
        files.write_text(target / page, _templates().get_template(template).render(values))


def _not_pictures(folder: str, names: list[str]) -> list[str]:
    return [n for n in names if not (Path(folder, n).is_dir() or n.endswith((".png", ".svg")))]


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(paths.ROOT / "docs" / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
    )
    found.filters |= {
        "number": readme.number, "quantity": readme.quantity, "interval": readme.interval,
        "positions": positions, "told": readme.told,
    }  # fmt: skip
    return found


def _filled(notebooks: dict[str, Path]) -> dict[str, tuple[str, dict[str, Any]]]:
    """The pages made from templates: each one's template, and what fills it."""
    parts = _names()
    named = {f"api/{part}.md": ("part.md", values) for part, values in parts.items()}
    return {
        "index.md": ("index.md", _home(notebooks)),
        "scorecard.md": ("scorecard.md", _scorecard(notebooks)),
        "api.md": ("api.md", {"parts": parts}),
        **named,
    }


def _home(notebooks: dict[str, Path]) -> dict[str, Any]:
    rows = readme.scorecard_rows()
    text = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    section, first = findings(text)
    papers = [
        {
            "key": paper,
            "title": title,
            "finding": linked(first.get(paper, ""), notebooks),
            "verdicts": _verdicts([row for row in rows if row["paper"] == paper]),
            "notebooks": [page_name(n) for n in notebooks if n.startswith(f"{paper}/")],
        }
        for paper, title in readme.TITLES.items()
    ]
    papers = [paper for paper in papers if paper["verdicts"] or paper["notebooks"]]
    opening = text.partition("\n")[2].partition(readme.BEGIN)[0].strip()
    return {
        "opening": linked(opening, notebooks),
        "caption": readme.CAPTION,
        "papers": papers,
        "findings": linked(section.replace("](docs/", "](/"), notebooks),
        "essays": {page: _title(paths.ROOT / "docs" / f"{page}.md") for page in READ},
        "contents": {
            "Read": READ,
            "Check": CHECK,
            **{paper["title"]: paper["notebooks"] for paper in papers if paper["notebooks"]},
            "Use": USE,
        },
    }


def _title(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _scorecard(notebooks: dict[str, Path]) -> dict[str, Any]:
    rows = [row | {"data": data_sets(row["metrics"])} for row in readme.scorecard_rows()]
    found = {name for row in rows for name in row["data"]}
    data = {name: title for name, title in plotting.DATA.items() if name in found}
    papers = {paper: readme.TITLES[paper] for paper in dict.fromkeys(r["paper"] for r in rows)}
    verdicts = {verdict: verdict for verdict in VERDICTS if verdict in _found(rows)}
    read = {name: name for name in sorted({name for row in rows for name in row["notebooks"]})}
    filters = [("paper", "Paper", papers), ("verdict", "Verdict", verdicts),
               ("origin", "Origin", ORIGINS), ("data", "Data set", data),
               ("notebook", "Notebook", read)]  # fmt: skip
    names = {name for row in rows for name in row["notebooks"] if name in notebooks}
    return {
        "legend": readme.LEGEND,
        "filters": filters,
        "rows": rows,
        "titles": readme.TITLES,
        "runs": {
            name: readme.run_of(notebooks[name].parent) | {"page": page_name(name)}
            for name in names
        },
        "deviations": {paper: make_id(said) for paper, said in readme.DEVIATIONS.items()},
    }


def data_sets(metrics: list[str]) -> list[str]:
    """The data sets that names of metrics begin with: of two that both fit, the longer one."""
    fits = [
        [name for name in plotting.DATA if re.match(rf"{re.escape(name)}(?![a-z])", metric)]
        for metric in metrics
    ]
    return sorted({max(names, key=len) for names in fits if names})


def positions(row: dict[str, Any]) -> dict[str, list[float]]:
    """Where a claim's numbers lie on one line, from 2 to 98; {} where fewer than two differ.

    Keys: ``paper`` and ``ours``, one place; ``region`` and ``ci95``, two. Each has none where the
    claim has no such number.
    """
    numbers = {key: row[key] or [] for key in ("region", "ci95")}
    for key, name in (("paper", "paper_value"), ("ours", "ours")):
        numbers[key] = [] if row[name] is None else [row[name]]
    every = [value for values in numbers.values() for value in values]
    if len(set(every)) < 2:
        return {}
    low, width = min(every), max(every) - min(every)
    return {
        key: [2.0 + 96.0 * (value - low) / width for value in values]
        for key, values in numbers.items()
    }


def _names() -> dict[str, dict[str, Any]]:
    """What fills the page of each part of the library: its names, and what each of them is."""
    found: dict[str, dict[str, Any]] = {}
    for name in poisoning.__all__:
        thing = locate(f"poisoning.{name}")
        part = poisoning._HOMES[name].split(".")[1]
        page = found.setdefault(part, {"title": part.capitalize(), "names": []})
        if inspect.isclass(thing) and issubclass(thing, BaseException):
            page["names"].append(("exception", name))
        elif inspect.isclass(thing):
            page["names"].append(("class", name))
        elif callable(thing):
            page["names"].append(("function", name))
        else:  # a value has no docstring but the one where it is defined
            page["names"].append(("data", f"{poisoning._HOMES[name]}.{name}"))
    return found


def _found(rows: list[dict[str, Any]]) -> list[str]:
    return [row["verdict"] for row in rows]


def _verdicts(rows: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """How many claims have each verdict, by origin; what none has is left out."""
    found = {origin: _found([r for r in rows if r["origin"] == origin]) for origin in ORIGINS}
    return {
        origin: {verdict: own.count(verdict) for verdict in VERDICTS if verdict in own}
        for origin, own in found.items()
        if own
    }


def faults(site: Path) -> Iterator[str]:
    """Links of the pages that lead nowhere, and pictures without alternative text; sentences."""
    pages = {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in sorted(site.rglob("*.html"))
    }
    anchors = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in pages.items()}
    for path, page in pages.items():
        shown = path.relative_to(site)
        for picture in page.find_all("img"):
            if not picture.get("alt", "").strip():
                yield f"{shown}: {picture['src'][:80]} has no alternative text."
        for tag in page.find_all(["a", "img", "link", "script"]):
            link = urlsplit(tag.get("href") or tag.get("src") or "")
            if link.scheme or link.netloc:
                continue
            place = (path.parent / unquote(link.path)).resolve() if link.path else path
            anchor = unquote(link.fragment)
            if not place.is_file() or (anchor and anchor not in anchors.get(place, {anchor})):
                yield f"{shown}: {link.geturl()} leads nowhere."


def build(target: Path, work: Path) -> list[str]:
    """Make the site in ``target``, by way of ``work``; returns faults, sentences.

    ``work`` is emptied first; ``target`` is replaced where there is no fault.

    Raises:
        ReadingError: see :func:`gather`.
        DataError: ``work`` or ``target`` cannot be written.
    """
    shutil.rmtree(work, ignore_errors=True)
    gather(work / "source")
    sphinx = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", "--jobs=auto"]
    run = subprocess.run([*sphinx, str(work / "source"), str(work / "html")], check=False)
    if run.returncode:
        return ["Sphinx found what is written above."]
    found = list(faults(work / "html"))
    if not found:
        shutil.rmtree(work / "html" / ".doctrees")
        shutil.rmtree(target, ignore_errors=True)
        with files.writing(target):
            shutil.move(work / "html", target)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Make ``site``; print a sentence for each fault, return 1 where there is one."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    try:
        found = build(paths.ROOT / "site", paths.cache() / "site")
    except (ReadingError, DataError) as error:
        found = [str(error)]
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        print("Open site/index.html.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
