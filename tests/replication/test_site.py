"""What a page shows comes from results, and what the site promises is seen in a browser."""

import base64
import json

import nbformat
import pytest

import poisoning as po
from replication import paths, readme, site
from replication.reading import ReadingError
from tests.replication import browser

FITS = """[document.documentElement, document.querySelector(".content")].every(
    one => one.scrollWidth <= one.clientWidth && one.getBoundingClientRect().right <= innerWidth
)"""
NOTEBOOKS = {"koh2021/attacks": paths.ROOT / "attacks.ipynb"}
PIXEL = base64.b64encode(b"a picture").decode()


def test_numbers_and_names_lead_to_their_notebook():
    text = "It is 22.1 %<!-- koh2021/attacks enron.kkt.min5.test_error -->; see `koh2021/attacks`."
    place = "(/koh2021/attacks/attacks.ipynb)"
    assert site.linked(text, NOTEBOOKS) == f"It is [22.1 %]{place}; see [`koh2021/attacks`]{place}."
    other = "4.3 %<!-- koh2021/matrix enron -->, `koh2021/matrix`, `lib/poisoning`"
    assert site.linked(other, NOTEBOOKS) == other


def test_the_first_sentence_on_each_paper_is_found():
    section, first = site.findings(paths.ROOT.joinpath("README.md").read_text("utf-8"))
    assert set(first) == set(readme.TITLES) - {"crossing"}
    for paper, sentence in first.items():
        assert sentence.endswith("."), paper
        assert sentence in section


def test_every_public_name_stands_on_one_page_as_what_it_is():
    pages = site._names()
    assert list(pages) == list(dict.fromkeys(home.split(".")[1] for home in po._HOMES.values()))
    kinds = dict(
        reversed(one) for page in pages.values() for one in page["names"]
    )  # by name: what autodoc calls it
    assert {name.rpartition(".")[2] for name in kinds} == set(po.__all__)
    for name in ("SolverError", "EmptySetError", "DataError"):
        assert kinds[name] == "exception"
    for name in ("FeasibleSet", "FinalTraining", "Kind"):
        assert kinds[name] == "class"
    assert kinds["measured"] == "function"
    assert kinds["poisoning.settings.FRACTION"] == "data"


@pytest.mark.parametrize(
    "text", ["# No findings\n", "\n## What we found\n\n- **Koh et al.** holds.\n"]
)
def test_a_readme_without_a_finding_is_refused(text):
    with pytest.raises(ReadingError, match='an item must begin with "- \\*\\*'):
        site.findings(text)


def picture(**about):
    return nbformat.v4.new_output("display_data", {"image/png": PIXEL}, metadata=about)


def test_a_notebook_has_folded_code_one_set_of_parameters_and_described_pictures(tmp_path):
    code = nbformat.v4.new_code_cell
    cells = [
        nbformat.v4.new_markdown_cell("# Three attacks\n\nSee `koh2021/attacks`."),
        code("profile = 'demo'", metadata={"tags": ["parameters"]}),
        code("profile = 'paper'", metadata={"tags": ["injected-parameters"]}),
        code("show", outputs=[picture(), picture(**{"image/png": {"alt": "KKT [best], $x_1$"}})]),
    ]
    path = tmp_path / "attacks.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    text, injected, shown = site.site_notebook(path, tmp_path, NOTEBOOKS, "Verdicts").cells
    assert text.source.startswith("# Three attacks\n\nVerdicts\n\nSee ")
    assert "(/koh2021/attacks/attacks.ipynb)" in text.source
    assert injected.source == "profile = 'paper'"
    assert "hide-input" in injected.metadata.tags and "hide-input" in shown.metadata.tags
    first, second = (output.data["text/markdown"] for output in shown.outputs)
    assert first == "![Three attacks](picture-0.png)"
    assert second == r"![KKT \[best\], \$x\_1\$](picture-1.png)"
    assert (tmp_path / "picture-1.png").read_bytes() == b"a picture"


def test_a_notebooks_summary_has_its_claims_its_picture_and_how_to_run_it():
    rows = readme.scorecard_rows()
    run = {
        "commit": "0123456789ab",
        "dirty": False,
        "cpu_hours": 1.25,
        "changed": None,
        "drawn": True,
        "command": "dvc repro --force koh2021-attacks@paper",
    }
    text = site.summary("koh2021/attacks", rows, run)
    own = [row for row in rows if "koh2021/attacks" in row["notebooks"]]
    first = next(row for row in own if row["paper_value"] is not None)
    assert (
        f"| {first['statement']} | {readme.quantity(first['paper_value'], first['unit'])} |" in text
    )
    assert "](figures/figure-3-enron.png)" in text
    replicated = sum(row["verdict"] == "replicated" for row in own)
    assert f"{replicated} replicated, " in text
    assert (
        "commit 0123456789ab in 1.25 CPU hours. `dvc repro --force koh2021-attacks@paper`" in text
    )
    alone = site.summary("koh2021/attacks", [], run | {"cpu_hours": None})
    assert "claim" not in alone and "CPU hours" not in alone


def test_the_numbers_of_a_claim_lie_on_one_scale():
    row = {"paper_value": 0.2, "ours": 0.3, "ci95": [0.25, 0.4], "region": [0.0, 0.35]}
    at = site.positions(row)
    assert (at["region"][0], at["ci95"][1]) == pytest.approx((2.0, 98.0))
    assert at["paper"] == pytest.approx([50.0])
    assert at["ci95"][0] < at["ours"][0] < at["region"][1]
    at = site.positions(row | {"ci95": None, "region": None})
    assert at == {"paper": [2.0], "ours": [98.0], "region": [], "ci95": []}
    alone = {"paper_value": None, "ours": 0.3, "ci95": None, "region": None}
    assert site.positions(alone) == {}
    assert site.positions(alone | {"paper_value": 0.3}) == {}


def test_the_data_sets_of_a_claim_are_those_that_its_metrics_begin_with():
    names = ["mnist-1-7.kkt.error", "mnist.lr.relief", "landmine-0.001.direct", "mnist-wide.x"]
    assert site.data_sets(names) == ["landmine", "mnist", "mnist-1-7", "mnist-wide"]
    assert site.data_sets(["absolute.slope", "enronic.error"]) == []


def test_a_disk_that_is_full_is_one_sentence(full_disk, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(site, "executed", dict)
    monkeypatch.setattr(paths, "cache", lambda: tmp_path)
    assert site.main([]) == 1
    told = capsys.readouterr().err
    assert "cannot be written (disk full)" in told
    assert told.count("\n") == 1


def test_dead_links_and_pictures_without_text_are_named(tmp_path):
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here">a</a><a href="b.html?q=1#there">a</a>'
        '<a href="https://example.org">a</a><a href="b.html#gone">a</a><a href="c.html">a</a>'
        '<img src="b.html" alt="a"><img src="b.html" alt=" "></p>',
        "utf-8",
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>', "utf-8")
    assert list(site.faults(tmp_path)) == [
        "a.html: b.html has no alternative text.",
        "a.html: b.html#gone leads nowhere.",
        "a.html: c.html leads nowhere.",
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    assert site.build(folder / "site", folder / "work") == []
    return folder / "site"


@pytest.fixture
def page(tmp_path):
    if browser.PROGRAM is None:
        pytest.skip("There is no Chromium: install it, and the site is opened in it.")
    with browser.chromium(tmp_path / "profile") as found:
        yield found


@pytest.mark.slow
def test_the_site_is_built_without_a_fault(built):
    assert (built / "index.html").is_file()


@pytest.mark.slow
def test_every_page_opens_without_a_complaint_and_without_sideways_scrolling(page, built):
    names = sorted(built.rglob("*.html"))
    stems = {name.stem for name in names}
    assert {
        "index",
        "scorecard",
        "attacks",
        "running",
        *(p.stem for p in site.executed().values()),
    } <= stems
    for name in names:
        for width in (390, 1280):
            page.open(name.as_uri(), width=width)
            assert page.value(FITS), (name, width)
    assert page.complaints == []


@pytest.mark.slow
def test_the_scorecard_filters_sorts_and_opens_a_claim(page, built):
    rows = json.loads((paths.ROOT / "results/paper/scorecard.json").read_text("utf-8"))
    address = (built / "scorecard.html").as_uri()
    shown = "[...document.querySelectorAll('#claims tbody tr:not([hidden])')].map(row => row.id)"
    page.open(address)
    assert page.value(shown) == [row["id"] for row in rows]
    chosen = {"paper": "koh2021", "verdict": "replicated", "origin": "ours"}
    for name, value in chosen.items():
        page.value(
            f"(field => {{ field.value = '{value}'; field.dispatchEvent("
            f"new Event('change', {{bubbles: true}})) }})(document.forms.filters.{name})"
        )
    wanted = [row["id"] for row in rows if chosen.items() <= row.items()]
    assert wanted and page.value(shown) == wanted
    page.open(page.value("location.href"))  # the address keeps what was chosen
    assert page.value(shown) == wanted

    page.open(address)
    for order in (1, -1):
        page.value("document.querySelectorAll('#claims th button')[4].click()")
        found = [row["ours"] for name in page.value(shown) for row in rows if row["id"] == name]
        numbers = [value for value in found if value is not None]
        assert numbers == sorted(numbers, key=lambda value: order * value)
        assert found == numbers + [None] * (len(rows) - len(numbers))

    page.open(f"{address}?data=imdb")
    of_imdb = [row["id"] for row in rows if "imdb" in site.data_sets(row["metrics"])]
    assert of_imdb and page.value(shown) == of_imdb

    page.open(f"{address}#{rows[100]['id']}")
    opened = "[...document.querySelectorAll('#claims details[open]')].map(one => one.innerText)"
    (text,) = page.value(opened)
    assert rows[100]["statement"] in text
    assert rows[100]["reason"] in text
    assert rows[100]["notebooks"][0] in text
    assert page.complaints == []


@pytest.mark.slow
def test_a_slider_shows_the_row_that_is_chosen(page, built):
    page.open((built / "essays/five-detectors.html").as_uri())
    table = "[...document.querySelectorAll('.slider tbody tr')].map(row => row.innerText.trim())"
    assert page.value("document.querySelector('.slider details').open") is False
    page.value("document.querySelector('.slider details').open = true")
    for place, row in enumerate(page.value(table)):
        page.value(
            "(range => { range.value = "
            f"{place}; range.dispatchEvent(new Event('input')) }})"
            "(document.querySelector('.slider input'))"
        )
        name, *numbers = row.split("\t")
        assert page.value("document.querySelector('.slider .chosen').innerText") == name
        shown = page.value("[...document.querySelectorAll('.number')].map(one => one.innerText)")
        assert shown == [f"{number} %" for number in numbers]
        told = page.value("document.querySelector('.slider input').ariaValueText")
        assert told.startswith(f"{name}; ") and all(number in told for number in numbers)
        widths = page.value(
            "[...document.querySelectorAll('.value')].map(one => parseFloat(one.style.width))"
        )
        values = [float(number.split(" ")[0]) for number in numbers]
        scaled = [width / widths[-1] * values[-1] for width in widths]
        assert scaled == pytest.approx(values, abs=0.2)
    assert page.complaints == []


@pytest.mark.slow
def test_the_search_finds_a_page_and_the_home_page_leads_to_claims(page, built):
    page.open(f"{(built / 'search.html').as_uri()}?q=hypergradient")
    page.until("document.querySelectorAll('ul.search li').length > 0")
    page.open((built / "index.html").as_uri())
    page.value("document.querySelector('.verdicts a').click()")
    page.until("document.readyState === 'complete' && document.getElementById('claims') !== null")
    count = page.value("document.querySelectorAll('#claims tbody tr:not([hidden])').length")
    rows = readme.scorecard_rows()
    first = {key: rows[0][key] for key in ("paper", "origin", "verdict")}
    assert count == sum(first.items() <= row.items() for row in rows)
    assert page.complaints == []


def test_links_out_of_the_documents_become_pages_or_names():
    text = "[README](../README.md), [examples](../examples), [running](running.md)"
    assert site.inside(text) == "[README](index.md), `examples`, [running](running.md)"
