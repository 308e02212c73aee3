"""The GPU script at toy size on a CPU: its parts, its records, and what it can do without."""

import ast
import json
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from torch.utils.flop_counter import FlopCounterMode

from bench.gpu import __main__ as command
from bench.gpu import experiments, hypergradients, ledger, pack
from bench.gpu.graphs import Replay, sweep
from bench.rows import merge
from poisoning.attacks.minimax_bilevel import MinimaxBilevel
from poisoning.datasets import Dataset
from poisoning.errors import DataError
from poisoning.games.bilevel import FinalTraining
from poisoning.hypergradient.learning import LamRange
from poisoning.hypergradient.rmd import rmd
from replication import params, paths
from replication.carnerero2023 import even, network_policies
from replication.hyperparameter_trial import Pool, Sizes, run_trial
from replication.syntax import read_cells
from replication.units import Units

THERE = (
    "torch", "numpy", "scipy", "scikit-learn", "numba", "pandas", "matplotlib", "joblib", "tqdm",
    "jaxtyping", "pyyaml",
)  # fmt: skip
"""The packages of a machine that is lent for its card."""

ABSENT = {"filelock"}
"""What one of these would bring, and need not."""

WITHOUT = """
import runpy, sys
from importlib.machinery import PathFinder
refused = set(sys.argv.pop(1).split(","))

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in refused:
            return super().find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
runpy.run_module("bench.gpu", run_name="__main__", alter_sys=True)
"""
"""The script where these modules are not found, as if they were not installed."""


def refused():
    """The top-level modules of all installed packages but those, and what they bring."""

    def plain(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    there, queue = set(), list(THERE)
    while queue:
        name = plain(queue.pop())
        if name in there | ABSENT:
            continue
        there.add(name)
        needed = map(Requirement, requires(name) or ())
        queue += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    there.add("poisoning-replications")
    return {
        module
        for module, found in packages_distributions().items()
        if not there & set(map(plain, found))
    }


def run_without(folder, *arguments):
    """The script in a process that cannot import what the machine lacks."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(("lib", "."))}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(sorted(refused())), *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_all_parts_run_where_little_is_installed_and_only_once(tmp_path):
    without = refused()
    assert {"pydantic", "array_api_compat", "annotated_types", "filelock", "cvxpy"} <= without
    copied = re.search(
        r"tar czf \.\./gpu\.tgz (.*) \.cache", (paths.ROOT / "docs/gpu.md").read_text()
    )
    for name in copied[1].split():
        (tmp_path / name).symlink_to(paths.ROOT / name)
    out = tmp_path / "out"
    assert pack.write(tmp_path / ".cache" / "gpu" / "pack.npz", "demo") < 2e6
    given = ("run", "--device", "cpu", "--out", "out")
    first = run_without(tmp_path, *given)
    assert first.returncode == 0, first.stderr
    assert re.findall(r"(\w+): (\d+) units", first.stdout) == [
        ("hypergradients", "25"), ("networks", "1"), ("width", "4"), ("alexnet", "3"),
    ]  # fmt: skip

    table = json.loads((out / "bench.json").read_text())
    assert set(table) == {
        "gpu.mnist.logistic_regression", "gpu.mnist.network", "gpu.cifar-10.logistic_regression",
        "gpu.cifar-10.network", "gpu.networks.cifar-10", "gpu.width.mnist", "gpu.alexnet.cifar-10",
    }  # fmt: skip
    for name, row in table.items():
        assert row["machine"]["card"] == "cpu"
        assert {"ours_s", "peer", "peer_s", "ratio", "n", "spread", "agreement"} <= row.keys()
        assert row["ours_s"] > 0.0
        if "sizes" in row:
            assert [size["K"] for size in row["sizes"]] == [1, 4], name
            assert {"eager_s", "graph_s", "of_bandwidth", "of_FLOP"} <= row["sizes"][0].keys()
            assert max(row["agreement"], row["float32_error"]) < 1e-4
    networks = table["gpu.networks.cifar-10"]
    assert len(networks["test_error"]) == len(networks["flips"]) == 7
    curves = [(one["curve"], one["width"]) for one in table["gpu.width.mnist"]["accuracy"]]
    assert curves == [("A-softmax", 64), ("clean", 64), ("C", 64)]
    assert table["gpu.alexnet.cifar-10"]["references"].keys() == {"A-alexnet"}

    records = {file: file.stat().st_mtime_ns for file in (out / "units").glob("*/*.npz")}
    assert len(records) == 33
    second = run_without(tmp_path, *given)
    assert second.returncode == 0, second.stderr
    assert {n for _, n in re.findall(r"(\w+): (\d+) units", second.stdout)} == {"0"}
    assert json.loads((out / "bench.json").read_text()) == table
    assert {file: file.stat().st_mtime_ns for file in (out / "units").glob("*/*.npz")} == records


# Pieces -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool():
    """Two noisy images."""
    rng = np.random.default_rng(0)
    y = np.where(np.arange(200) % 2 == 0, 1.0, -1.0)
    faces = rng.integers(0, 255, (2, 48))
    X = np.clip(faces[(y > 0).astype(int)] + rng.normal(0, 40, (200, 48)), 0, 255)
    return Pool(X.astype(np.uint8), y)


def given(pool, profile="paper"):
    """A pack with the knobs of a profile and no data."""
    knobs = params.load(profile)
    blocks = {block: knobs.section(block) for block in pack.BLOCKS}
    state = {"commit": "0" * 40, "dirty": False}
    datasets = {name: Dataset(name, "test", "box01", pool.X, pool.y) for name in pack.CHANNELS}
    return pack.Pack(profile, knobs.seed, state, blocks, datasets)


@pytest.fixture(params=[(), (6, 4)], ids=["logistic regression", "network"])
def problem(request, pool):
    task = hypergradients.Task(request.param, 80, 8, 20, 12, 0.1)
    return hypergradients.problems(pool, task, 3, "cpu")


def test_a_sweep_and_a_replay_are_the_reverse_mode_hypergradient(problem):
    exact = rmd(problem)
    replay = Replay(problem)
    other = problem.poison.flip(0), problem.lam + 0.5, problem.initial.flip(0) + 0.01
    replay(*other)  # what was asked before leaves no trace
    for found in (sweep(problem), replay(problem.poison, problem.lam, problem.initial)):
        for name in ("w", "values", "poison", "lam"):
            torch.testing.assert_close(getattr(found, name), getattr(exact, name))
    assert not torch.equal(replay(*other).lam, exact.lam)


def test_the_compiled_passes_are_asked_the_same(pool):
    task = hypergradients.Task((), 80, 8, 20, 12, 0.1)
    both = [sweep(hypergradients.problems(pool, task, 1, "cpu", compiled=c)) for c in (0, 1)]
    torch.testing.assert_close(both[0].poison, both[1].poison)


def test_flop_are_those_of_the_matrix_products(problem, monkeypatch):
    def by_torch(A, B, out=None):  # which the counter sees
        return torch.matmul(A, B, out=out)

    monkeypatch.setattr("poisoning.hypergradient.mlp._product", by_torch)
    with FlopCounterMode(display=False) as counter:
        sweep(problem)
    stated = hypergradients.demands(problem)["flop"]
    assert stated <= counter.get_total_flops() <= 1.1 * stated  # and the outer objective


def test_what_does_not_fit_is_said(monkeypatch, pool):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(hypergradients, "sweep", full)
    task = hypergradients.Task((), 80, 8, 20, 12, 0.1)
    assert hypergradients.speed(pool, task, 4, "eager", "cpu") is None
    size = hypergradients._size({}, 4, {"eager": None})
    assert size == {"K": 4, "eager_s": None, "fits": False}


def test_colour_images_are_packed_to_the_bit():
    X = np.random.default_rng(0).integers(0, 256, (5, 3 * 8 * 8)).astype(np.uint8)
    assert np.array_equal(pack.pixels_of(pack.differences(X)), X)


def double(x):
    return 2.0 * x


def test_a_part_ends_before_its_time_does(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    compute = ledger.Ledger.compute

    def slowly(self, unit, function, arguments):
        clock.now += arguments["x"]
        return compute(self, unit, function, arguments)

    monkeypatch.setattr(ledger.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(ledger.Ledger, "compute", slowly)
    books = ledger.Ledger(tmp_path, {"card": "a card"})
    first = ledger.Part("first", books, 10.0)
    done = [first(double, {"x": x}) for x in (4.0, 3.0, 2.0, 1.0)]
    assert [one and one[0] for one in done] == [8.0, 6.0, None, None]  # 7 s, and up to 4 more
    assert (first.computed, first.left) == (2, 2)
    again = ledger.Part("again", books, 10.0)
    assert [again(double, {"x": x})[0] for x in (4.0, 3.0, 2.0, 1.0)] == [8.0, 6.0, 4.0, 2.0]
    assert (again.computed, again.left) == (2, 0)


def test_what_is_long_to_make_is_made_only_for_a_unit_that_is_missing(tmp_path):
    part = ledger.Part("part", ledger.Ledger(tmp_path, {"card": "a card"}), 10.0)
    made = []
    for _ in range(2):
        result, _ = part(double, {"x": "five"}, {"x": lambda: made.append(1) or 5.0})
        assert result == 10.0
    assert made == [1]


def test_networks_are_units_of_the_notebook(pool, tmp_path):
    asked = given(pool)
    knobs, shared = (asked.knobs[f"carnerero2023/{name}"] for name in ("networks", "attack"))
    policies = network_policies(knobs["large_l2"], knobs["large_l1"])
    notebook = SimpleNamespace(
        rng=lambda *setting: asked.rng("carnerero2023/networks", *setting), device="cuda"
    )
    names = {
        **{f.__name__: f for f in (Sizes, MinimaxBilevel, FinalTraining, LamRange, even)},
        **knobs, "knobs": shared, "POLICIES": policies, "notebook": notebook,
    }  # fmt: skip
    text = (paths.NOTEBOOKS / "carnerero2023" / "networks.ipynb").read_text(encoding="utf-8")
    (cell,) = (
        node
        for cell in read_cells(text)
        for node in cell.body
        if isinstance(node, ast.FunctionDef) and node.name == "unit"
    )
    exec(ast.unparse(cell), names)
    theirs = names["unit"]("cifar-10", pool, 1)
    ours = experiments.network_unit(asked, pool, 1, "cuda")
    of_notebook = Units("carnerero2023/networks", params.load("demo").workers)
    (unit,) = of_notebook._units(run_trial, [theirs], "networks")
    books = ledger.Ledger(tmp_path, {"card": "a card"})
    assert books.unit(run_trial, ours)["key"] == unit.key


def test_seconds_are_filed_by_card_and_experiments_are_not(tmp_path):
    one, other = (ledger.Ledger(tmp_path, {"card": name}) for name in ("one", "other"))
    measured = {"device": "cpu", "copied": 8, "square": 2}
    keys = [books.unit(hypergradients.yardsticks, measured)["key"] for books in (one, other)]
    assert keys[0] != keys[1]
    keys = [books.unit(even, {"number": 3.0})["key"] for books in (one, other)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--device", "cuda"], "no CUDA device was found"),
        (["run", "--device", "cpu", "--pack", "nowhere.npz"], "nowhere.npz is not there"),
        (["run", "--device", "cpu", "--pack", "README.md"], "README.md is no pack"),
        (["merge", "nowhere"], "name the folder that `run --out` wrote"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(paths.ROOT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench.gpu", *arguments])
    assert command.main() == 1
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def test_a_cpu_is_not_given_the_papers_sizes(monkeypatch, capsys, pool):
    monkeypatch.setattr(pack, "read", lambda file: given(pool))
    monkeypatch.setattr(sys, "argv", ["bench.gpu", "run", "--device", "cpu", "--pack", "any"])
    assert command.main() == 1
    assert "would take days" in capsys.readouterr().err


def test_data_that_are_not_prepared_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "dataset", lambda source, name: tmp_path / source / name)
    with pytest.raises(DataError, match=r"dvc repro data@real-mnist"):
        pack.write(tmp_path / "pack.npz", "paper")


def test_rows_and_records_from_elsewhere_are_filed_here(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ROOT", tmp_path / "here")
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    merge(tmp_path / "here" / "results" / "bench.json", {"kept": {"n": 1}, "new": {"n": 1}})
    merge(tmp_path / "out" / "bench.json", {"new": {"n": 2}})
    books = ledger.Ledger(tmp_path / "out" / "units", {"card": "a card"})
    part = ledger.Part("part", books, 1.0)
    part(hypergradients.yardsticks, {"device": "cpu", "copied": 8, "square": 2})
    command.take(tmp_path / "out")
    table = json.loads((tmp_path / "here" / "results" / "bench.json").read_text())
    assert table == {"kept": {"n": 1}, "new": {"n": 2}}
    assert len(list((tmp_path / "cache").glob("??/*.npz"))) == 1
