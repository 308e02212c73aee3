import json
import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from poisoning.datasets import Dataset, prepare
from poisoning.errors import DataError
from poisoning.metrics import Estimate, mean_interval
from replication import paths, plotting
from replication.components import ComponentError
from replication.notebook import Notebook, _out_of_date
from replication.provenance import provenance


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.RESULTS_VARIABLE, str(tmp_path / "results"))
    made = Notebook("koh2021/kkt", "demo")
    yield made
    plt.close("all")


def picture():
    figure, ((axes,),) = plotting.canvas()
    plotting.bars(axes, [23.4, 22.0], [1.6, np.nan], label="ours")
    axes.set_ylabel("test error (%)")
    plotting.finish(figure, "L2 rises to 23.4 %", "Enron.")
    return figure


def test_metrics_hold_data_profile_values_and_intervals_but_no_time(notebook):
    notebook.metric("enron.kkt.min5.test_error", mean_interval([0.2, 0.22, 0.24]))
    notebook.metric("enron.n", 4137)
    notebook.timing("seconds", 1.5)
    notebook.finish()
    content = json.loads((notebook.folder / "metrics.json").read_text())
    assert content["profile"] == "demo"
    assert content["metrics"]["enron.n"] == {"value": 4137.0, "ci95": None, "n": 1}
    estimate = content["metrics"]["enron.kkt.min5.test_error"]
    assert estimate["value"] == pytest.approx(0.22)
    assert estimate["ci95"][0] < 0.2 < 0.24 < estimate["ci95"][1]
    assert estimate["n"] == 3
    assert "1.5" not in (notebook.folder / "metrics.json").read_text()
    assert json.loads((notebook.folder / "timings.json").read_text()) == {"seconds": 1.5}


def test_a_single_repeat_has_no_interval(notebook):
    notebook.metric("a", mean_interval([0.2]))
    notebook.metric("b", Estimate(0.1, None, 1))
    notebook.finish()
    metrics = json.loads((notebook.folder / "metrics.json").read_text())["metrics"]
    assert metrics["a"]["ci95"] is None
    assert metrics["b"]["ci95"] is None


def test_demo_figures_are_stamped_and_identical_from_run_to_run(notebook):
    figure = picture()
    notebook.figure(figure, "figure-3")
    assert "STAND-IN DATA" in [text.get_text() for text in figure.texts]
    png = (notebook.folder / "figures" / "figure-3.png").read_bytes()
    notebook.figure(picture(), "figure-3")
    assert (notebook.folder / "figures" / "figure-3.png").read_bytes() == png


def test_real_figures_are_not_stamped(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.RESULTS_VARIABLE, str(tmp_path))
    figure = picture()
    Notebook("koh2021/kkt", "quick").figure(figure, "figure-3")
    assert "STAND-IN DATA" not in [text.get_text() for text in figure.texts]


def test_the_executed_notebook_shows_a_figure_once_with_its_alternative_text(notebook, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **options: shown.append((a, options)))
    figure = picture()
    notebook.figure(figure, "figure-3")
    text = "L2 rises to 23.4 %. test error (%). Series: ours. Enron."
    assert shown == [((figure,), {"metadata": {"image/png": {"alt": text}}})]
    assert not plt.fignum_exists(figure.number)


def test_a_number_of_another_notebook_can_be_shown_beside(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert np.isnan(notebook.recorded("koh2021/defenses", "enron.clean_error"))
    folder = tmp_path / "results" / "demo" / "koh2021" / "defenses"
    folder.mkdir(parents=True)
    metrics = {"metrics": {"enron.clean_error": {"value": 0.03, "ci95": None, "n": 1}}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert notebook.recorded("koh2021/defenses", "enron.clean_error") == 0.03
    assert np.isnan(notebook.recorded("koh2021/defenses", "imdb.clean_error"))


def test_figures_with_seconds_lie_apart(notebook):
    markdown = notebook.timed_figure(picture(), "figure-4")
    # The text leaves out the title, in which seconds may stand.
    assert markdown == "![test error (%). Series: ours. Enron.](timed/figure-4.png)"
    assert (notebook.folder / "timed" / "figure-4.png").is_file()
    assert list((notebook.folder / "figures").iterdir()) == []


def test_the_headline_names_metrics_or_the_papers_number(notebook):
    notebook.metric("enron.clean_error", 0.031)
    notebook.finish(clean="enron.clean_error", paper=0.225)
    headline = json.loads((notebook.folder / "headline.json").read_text())
    assert headline == {"clean": 0.031, "paper": 0.225}
    with pytest.raises(ValueError, match="headline best is none of clean, baseline"):
        notebook.finish(best="enron.clean_error")


def test_a_headline_that_these_knobs_do_not_give_is_said_and_left_out(notebook, capsys):
    notebook.finish(attacked="enron.kkt", paper=0.2)
    assert json.loads((notebook.folder / "headline.json").read_text()) == {"paper": 0.2}
    assert capsys.readouterr().out == "headline: no attacked, for these knobs give no enron.kkt\n"


def test_a_run_by_hand_writes_elsewhere_and_shows_the_pipelines_result(
    tmp_path, monkeypatch, capsys
):
    """Opened in JupyterLab with the profile ``paper``, a notebook must not touch its results."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.delenv(paths.RESULTS_VARIABLE, raising=False)
    committed = tmp_path / "results" / "paper" / "koh2021" / "kkt"
    (committed / "figures").mkdir(parents=True)
    (committed / "metrics.json").write_text("committed")
    (committed / "headline.json").write_text('{"clean": 0.5}')
    (committed / "figures" / "a.png").write_bytes(b"png")
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda what, **_: shown.append(what))
    monkeypatch.setattr("IPython.display.Image", lambda filename: filename)
    notebook = Notebook("koh2021/kkt", "paper")
    assert notebook.folder == tmp_path / "results" / "lab" / "paper" / "koh2021" / "kkt"
    assert capsys.readouterr().out == (
        "Profile paper (real data), by the notebook's first cell of code. Results go to "
        "results/lab/paper/koh2021/kkt, the pipeline's are in results/paper/koh2021/kkt.\n"
    )
    notebook.figure(picture(), "a")
    assert shown[-1] == committed / "figures" / "a.png"
    notebook.metric("x", 0.25)
    notebook.finish(clean="x")
    assert shown[-1].loc["clean"].to_dict() == {"here": 0.25, "pipeline": 0.5}
    assert (committed / "metrics.json").read_text() == "committed"
    assert not (notebook.folder / "used.json").exists()
    markdown = notebook.timed_figure(picture(), "t")
    assert markdown.endswith("results/lab/paper/koh2021/kkt/timed/t.png)")


@pytest.mark.parametrize("old", [False, True])
def test_a_run_by_hand_says_where_the_pipelines_results_are_out_of_date(
    monkeypatch, tmp_path, capsys, old
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.delenv(paths.RESULTS_VARIABLE, raising=False)
    monkeypatch.setattr("replication.notebook._out_of_date", lambda stage: old and stage)
    Notebook("koh2021/kkt", "demo")
    told = capsys.readouterr().out.splitlines()[1:]
    assert told == old * [
        "They are not what the pipeline would make now: `dvc repro koh2021-kkt@demo`."
    ]


def test_dvc_knows_which_stages_are_out_of_date(tmp_path, monkeypatch):
    def dvc(*command):
        run = [sys.executable, "-m", "dvc", *command]
        subprocess.run(run, cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert not _out_of_date("copy")  # no project at all
    dvc("init", "--no-scm")
    (tmp_path / "a").write_text("a")
    dvc("stage", "add", "-n", "copy", "-d", "a", "-o", "b", "cp a b")
    assert _out_of_date("copy")
    dvc("repro")
    assert not _out_of_date("copy")
    (tmp_path / "a").write_text("changed")
    assert _out_of_date("copy")


def test_data_that_are_missing_are_named_with_the_remedy(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "dataset", lambda source, name: tmp_path / source / name)
    with pytest.raises(DataError, match=r"run `dvc repro data@standin-mnist`"):
        notebook.load("mnist-1-7")


def test_tables_are_rounded_so_that_they_do_not_hang_on_the_last_bit(notebook):
    notebook.table(pd.DataFrame({"x": [1 / 3, 1 / 3 + 1e-12]}), "thirds")
    lines = (notebook.folder / "tables" / "thirds.csv").read_text().split()
    assert lines[1] == lines[2] == "0.333333"


def test_data_come_from_the_profiles_source_and_are_recorded(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "dataset", lambda source, name: tmp_path / "data" / source / name)
    assert not notebook.available("enron")
    prepare("enron", "standin", data=tmp_path / "data")
    prepare("mnist", "standin", data=tmp_path / "data")
    assert notebook.available("mnist-1-7")
    assert notebook.load("enron").variant == "standin"
    ones_and_sevens = notebook.load("mnist-1-7")
    assert set(np.unique(ones_and_sevens.y)) == {-1.0, 1.0}
    knobs = notebook.shared("koh2021/suite")
    assert 0.0 < knobs["epsilon"] < 1.0
    notebook.finish()
    content = json.loads((notebook.folder / "metrics.json").read_text())
    assert content["data"] == {"enron": "standin", "mnist-1-7": "standin"}
    used = json.loads((notebook.folder / "used.json").read_text())
    assert set(used["data"]) == {"enron", "mnist-1-7"}
    assert used["shared"] == {"koh2021/suite": knobs}


def own_digests(notebook, monkeypatch, *datasets):
    found = []
    for dataset in datasets:
        monkeypatch.setattr("replication.notebook.made", lambda _, dataset=dataset: dataset)
        notebook.own("my_data.load")
        found.append(notebook._digests[dataset.name])
    return found


def test_an_own_data_set_is_recorded_with_its_test_examples(notebook, monkeypatch):
    X, y = np.eye(4), np.array([1.0, -1.0, 1.0, -1.0])
    whole = Dataset("mine", "2026", "real", X, y, X, y)
    others = [
        replace(whole, X_test=2 * X), replace(whole, y_test=-y), replace(whole, y=-y),
        replace(whole, X_test=None, y_test=None), replace(whole, X=sp.csr_array(X)),
    ]  # fmt: skip
    same = replace(whole, X=X.copy())
    first, second, *rest = own_digests(notebook, monkeypatch, whole, same, *others)
    assert first == second
    assert len({first, *rest}) == 6


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"y": np.ones(3)}, "X has 4 rows and y 3"),
        ({"y_test": np.ones(5)}, "X_test has 4 rows and y_test 5"),
        ({"y_test": None}, "X_test has 4 rows and y_test 0"),
    ],
)
def test_an_own_data_set_has_as_many_targets_as_examples(notebook, monkeypatch, wrong, told):
    whole = Dataset("mine", "2026", "real", np.eye(4), np.ones(4), np.eye(4), np.ones(4))
    with pytest.raises(ComponentError, match=f"as many targets as examples: {told}."):
        own_digests(notebook, monkeypatch, replace(whole, **wrong))
    assert notebook._data == {}


def test_a_sparse_data_set_of_ones_own_stays_sparse(notebook, monkeypatch):
    large = sp.csr_array(([1.0], ([0], [1])), shape=(10**6, 10**6))  # dense, 8 TB
    y = np.ones(10**6)
    one, other = (Dataset("mine", "2026", "counts", X, y, X, y) for X in (large, 2 * large))
    first, second = own_digests(notebook, monkeypatch, one, other)
    assert first != second


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, Estimate(np.nan, None, 1), Estimate(0.5, (-np.inf, 1.0), 2)]
)
def test_a_metric_that_json_lacks_is_refused(notebook, value):
    with pytest.raises(ValueError, match=r"the metric enron\.rate must be a finite number") as told:
        notebook.metric("enron.rate", value)
    assert "\n" not in str(told.value)
    notebook.finish()
    assert json.loads((notebook.folder / "metrics.json").read_text())["metrics"] == {}


def test_repeats_of_a_setting_without_a_value_are_a_row_too(notebook):
    frame = pd.DataFrame({
        "data": ["b", "b", "a"], "p": [np.nan, np.nan, 0.5], "error": [0.1, 0.3, 0.2]
    })  # fmt: skip
    table = notebook.estimates(frame, ["data", "p"], {"error": "{data}.{p}.error"})
    assert table["error"].tolist() == pytest.approx([0.2, 0.2])
    assert table["data"].tolist() == ["b", "a"]
    assert set(notebook._metrics) == {"b.nan.error", "a.0.5.error"}


def test_each_setting_and_repeat_has_its_own_generator(notebook):
    draws = {notebook.rng("splits", i).integers(1 << 62) for i in range(3)}
    assert len(draws) == 3
    assert notebook.rng("splits", 0).integers(1 << 62) in draws


def test_the_device_is_recorded_if_it_was_asked_for(notebook, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    notebook.finish()
    assert json.loads((notebook.folder / "used.json").read_text())["device"] == "cpu"
    for knob, told in {"cpu": "cpu", "auto": "cuda", "cuda": "cuda"}.items():
        notebook.params = notebook.params.model_copy(update={"device": knob})
        assert notebook.device == told
    notebook.finish()
    assert json.loads((notebook.folder / "used.json").read_text())["device"] == "cuda"


def test_provenance_names_commit_environment_and_device():
    units = [
        {"cpu_seconds": 1.5, "commit": "b", "dirty": False, "adopted": None},
        {"cpu_seconds": 2.5, "commit": "a", "dirty": True, "adopted": {"from": "c"}},
    ]
    record = provenance(1.234, {"epsilon": 0.03}, {"enron": "sha256:0"}, "cpu", "f", units)
    assert record["seconds"] == 1.2
    assert record["units_cpu_seconds"] == 4.0
    assert record["units_commits"] == ["a", "b"]
    assert (record["units"], record["units_dirty"], record["units_adopted"]) == (2, 1, 1)
    assert record["device"] == "cpu"
    assert len(record["requirements_sha256"]) == 64
    assert record["versions"]["numpy"] == np.__version__


def test_a_set_that_the_stage_does_not_depend_on_is_refused_before_hours_pass(
    notebook, monkeypatch
):
    monkeypatch.setenv(paths.DATA_VARIABLE, "enron,imdb")
    with pytest.raises(DataError, match="mnist-1-7 is none of the data sets that this stage"):
        notebook.load("mnist-1-7")
