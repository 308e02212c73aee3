"""Tables on the page are in words; results keep their keys."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from replication import koh2021, paths, words
from replication.notebook import Notebook

LONG = pd.DataFrame({
    "data": ["enron", "enron", "mnist-1-7"],
    "attack": ["kkt", "flip", "mine"],
    "defense": ["min of 5", "knn", "l2"],
    "test error": [0.25, np.nan, 0.01],
})  # fmt: skip


def test_columns_hold_words_and_the_table_itself_keeps_its_keys():
    before = LONG.copy()
    found = words.in_words(LONG)
    assert list(found["data"]) == ["Enron", "Enron", "MNIST 1 v 7"]
    assert list(found["attack"]) == ["KKT", "random flips", "mine"]
    assert list(found["defense"]) == ["least of 5", "k-NN", "L2"]
    pd.testing.assert_frame_equal(LONG, before)


def test_labels_of_rows_and_columns_hold_words_where_their_level_says_what_they_are():
    wide = LONG.pivot_table(index=["data", "defense"], columns="attack", values="test error")
    found = words.in_words(wide)
    assert found.index.tolist() == [("Enron", "least of 5"), ("MNIST 1 v 7", "L2")]
    assert found.columns.tolist() == ["KKT", "mine"]
    twice = LONG.pivot_table(index="defense", columns=["data", "attack"], values="test error")
    assert ("Enron", "KKT") in words.in_words(twice).columns
    plain = pd.DataFrame({"loss": [1.0]}, index=["none"])
    pd.testing.assert_frame_equal(words.in_words(plain), plain)


@pytest.mark.parametrize(
    ("policy", "said"),
    [("none", "no regularisation"), ("none-flips", "no regularisation, plain flips"),
     ("l1-learned", "L1, λ learned"), ("l2-layers-flips", "L2, λ per layer, plain flips")],
)  # fmt: skip
def test_a_policy_is_said_in_full(policy, said):
    assert words.in_words(pd.DataFrame({"policy": [policy]}))["policy"].item() == said


def test_a_missing_number_is_a_dash():
    page = words.html(LONG)
    assert "<td>–</td>" in page
    assert "NaN" not in page


def test_attacks_are_called_the_same_in_tables_and_figures():
    assert {kind: words.ATTACKS[kind] for kind in koh2021.LABELS} == koh2021.LABELS


def test_a_notebook_shows_tables_in_words_and_writes_keys(tmp_path, monkeypatch):
    known = {}
    formatter = SimpleNamespace(for_type=known.__setitem__)
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"text/html": formatter}))
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setenv(paths.RESULTS_VARIABLE, str(tmp_path))
    notebook = Notebook("koh2021/attacks", "demo")
    shown = notebook.table(LONG, "figure-3")
    assert "random flips" in known[pd.DataFrame](shown)
    assert "flip" in set(pd.read_csv(notebook.folder / "tables" / "figure-3.csv")["attack"])
