"""An essay shows the numbers of a table, each in its place, or says what is missing."""

import re

import pandas as pd
import pytest

from replication import paths, site, sliders
from replication.reading import ReadingError

RESULTS = paths.ROOT / "results" / "paper"


def test_every_slider_is_used_and_has_a_bar_for_each_name():
    essays = [paths.ROOT / "docs" / f"{page}.md" for page in site.READ]
    text = "".join(essay.read_text(encoding="utf-8") for essay in essays)
    for name, make in sliders.SLIDERS.items():
        assert f"\n<!-- slider: {name} -->\n" in text
        slider = make()
        assert len(slider.rows) > 1
        for bars in slider.rows.values():
            assert len(bars) == len(slider.columns)
            assert all(bar.low <= bar.value <= bar.high for bar in bars)


def test_a_bar_is_the_number_of_the_table():
    found = pd.read_csv(RESULTS / "koh2021/attacks/tables/figure-3.csv").set_index(
        ["data", "attack", "defense"]
    )
    row = found.loc["enron", "kkt", "svd"]
    slider = sliders.SLIDERS["detectors"]()
    bar = slider.rows["SVD"][list(slider.columns).index("KKT")]
    assert bar.value == pytest.approx(100.0 * row["test error"])
    assert bar.high - bar.value == pytest.approx(100.0 * row["±"])
    assert bar.value - bar.low == pytest.approx(100.0 * row["±"])


def test_readers_of_the_repository_have_a_picture_where_the_site_has_a_slider():
    for name in site.READ:
        page = paths.ROOT / "docs" / f"{name}.md"
        places = re.findall(r"!\[.+\]\((.+)\)", page.read_text(encoding="utf-8"))
        assert all((page.parent / place).is_file() for place in places), name
        if name.startswith("essays/"):
            assert places
            assert "![" not in site.essay(page.read_text(encoding="utf-8"), {})


def test_an_essay_holds_the_numbers_of_its_slider():
    text = site.essay("# Title\n\n<!-- slider: detectors -->\n", {})
    bars = [bar for row in sliders.SLIDERS["detectors"]().rows.values() for bar in row]
    written = re.findall(r'data-value="(.*?)"', text)
    assert [float(value) for value in written] == pytest.approx(
        [bar.value for bar in bars], abs=5.1e-4
    )
    assert "<!-- slider" not in text


def test_an_unknown_slider_is_named():
    with pytest.raises(ReadingError, match="slider detector: there are detectors, gradients"):
        site.essay("<!-- slider: detector -->", {})


@pytest.mark.parametrize(
    "content", [None, "", "m,curve\n", "step size,m,curve,accuracy,±\nfixed,16,clean,0.9,0.1\n"]
)
def test_a_table_that_lacks_numbers_is_named(content, tmp_path, monkeypatch):
    monkeypatch.setattr(sliders.paths, "ROOT", tmp_path)
    table = tmp_path / "results/paper/wang2021/two-layer/tables/width.csv"
    table.parent.mkdir(parents=True)
    if content is not None:
        table.write_text(content, encoding="utf-8")
    with pytest.raises(ReadingError, match=r"width\.csv lacks what an essay shows of it"):
        sliders.SLIDERS["widths"]()
