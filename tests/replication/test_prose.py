import json

import pytest

from replication import prose

METRICS = {
    "enron.error": {"value": 0.24158, "ci95": [0.22158, 0.26158], "n": 6},
    "enron.clean": {"value": 0.0291, "ci95": None, "n": 6},
    "gain": {"value": -0.0123, "ci95": None, "n": 1},
}


def find(notebook):
    return {
        "koh2021/kkt": METRICS,
        "bench": {"kkt.ratio": {"value": 94.9, "ci95": None, "n": 5}},
    }.get(notebook)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1.0 %<!-- koh2021/kkt enron.error -->", "24.2 %<!-- koh2021/kkt enron.error -->"),
        ("(9<!-- bench kkt.ratio -->)", "(95<!-- bench kkt.ratio -->)"),
        ("0.000<!-- koh2021/kkt gain -->", "−0.012<!-- koh2021/kkt gain -->"),
        ("+1.0<!-- koh2021/kkt gain points -->", "−1.2<!-- koh2021/kkt gain points -->"),
        ("−3.0<!-- koh2021/kkt enron.error -->", "0.2<!-- koh2021/kkt enron.error -->"),
        ("+3.00<!-- koh2021/kkt enron.error -->", "+0.24<!-- koh2021/kkt enron.error -->"),
        ("0.0<!-- koh2021/kkt gain -->", "0.0<!-- koh2021/kkt gain -->"),
        (
            "0.0<!-- koh2021/kkt\nenron.error - enron.clean points -->",
            "21.2<!-- koh2021/kkt\nenron.error - enron.clean points -->",
        ),
        (
            "± 1.0<!-- koh2021/kkt enron.error half points -->",
            "± 2.0<!-- koh2021/kkt enron.error half points -->",
        ),
        ("n = 2<!-- koh2021/kkt enron.error n -->", "n = 6<!-- koh2021/kkt enron.error n -->"),
        ("the paper's 22.5 %, <!-- aside -->", "the paper's 22.5 %, <!-- aside -->"),
    ],
)
def test_a_number_is_what_its_source_says(old, new):
    assert prose.with_numbers(old, find) == new
    assert prose.with_numbers(new, find) == new


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1<!-- koh2021/kkt enron.eror -->", "koh2021/kkt gives no enron.eror"),
        ("1<!-- koh2021/none x -->", "koh2021/none has no results"),
        ("1 %<!-- enron.error -->", "must name a notebook and a metric"),
        ("1<!-- koh2021/kkt gain half -->", "gain of koh2021/kkt has no interval"),
    ],
)
def test_a_number_without_a_source_is_refused(text, told):
    with pytest.raises(prose.ProseError, match=told):
        prose.with_numbers(text, find)


def test_of_a_notebook_only_prose_changes(tmp_path):
    number = "1 %<!-- koh2021/kkt enron.error -->"
    cells = [
        {"cell_type": kind, "metadata": {}, "source": ["a\n", number]}
        for kind in ("markdown", "code")
    ]
    file = tmp_path / "a.ipynb"
    file.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    found = json.loads(prose.rewritten(file, find))["cells"]
    assert found[0]["source"] == ["a\n", "24 %<!-- koh2021/kkt enron.error -->"]
    assert found[1] == cells[1]


def test_numbers_in_prose_are_those_of_the_results():
    for file in prose.sources():
        assert prose.rewritten(file, prose.of_paper) == file.read_text(encoding="utf-8"), file
