"""Every figure of the demo, as it was saved: its width, what cannot be read in it, and its text."""

import json

import pytest
from PIL import Image

from replication import paths, plotting
from replication.provenance import tracked_notebooks

NAMES = sorted(tracked_notebooks())


def figures(name):
    folder = paths.ROOT / "results" / "demo" / name
    assert folder.is_dir(), "run `make repro` first: the demo's figures are what is checked"
    return sorted([*folder.glob("figures/*.png"), *folder.glob("timed/*.png")])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_can_be_read(name):
    found = figures(name)
    assert found
    for file in found:
        with Image.open(file) as image:
            assert image.text.get("Warning", "") == "", file.name
            assert image.width == plotting.WIDTH * 150, file.name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_states_its_finding_in_words(name):
    for file in figures(name):
        with Image.open(file) as image:
            finding, *rest = image.text["Description"].split(". ")
        # A name such as "Figure 7: enron" is no finding; what the panels show comes after it.
        assert len(finding.split()) >= 5, file.name
        assert len(rest) >= 2, file.name
        assert "nan" not in finding.split(), file.name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_executed_notebook_gives_every_figure_an_alternative_text_and_warns_of_nothing(name):
    folder = paths.ROOT / "results" / "demo" / name
    notebook = json.loads((folder / f"{folder.name}.ipynb").read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []
    shown = [
        output["metadata"].get("image/png", {}).get("alt", "")
        for output in outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) == len(list(folder.glob("figures/*.png")))
    assert all(len(text.split()) > 10 for text in shown)
