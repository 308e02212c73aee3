"""Attacks, defenses, learners and data sets of others, named by a knob."""

import sys

import pytest

from replication.components import ComponentError, made, place
from replication.schemas import schema


def test_a_component_is_made_with_its_arguments():
    forest = made("sklearn.ensemble.IsolationForest(n_estimators=7, bootstrap=True)")
    assert (forest.n_estimators, forest.bootstrap) == (7, True)
    assert place("a.b.C(x=[1, 2], y='z')") == ("a.b", "C", {"x": [1, 2], "y": "z"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("IsolationForest", "names no class or function"),
        ("a.b.C(1)", "names no class or function"),
        ("a.b.C(x=open('f'))", "names no class or function"),
        ("a.b.C(**x)", "names no class or function"),
        ("__import__('os').system('ls')", "names no class or function"),
        ("a b", "names no class or function"),
        ("", "names no class or function"),
        ("no_such_module.C", "no_such_module cannot be imported"),
        ("sklearn.NoSuch", "there is no class or function NoSuch in sklearn"),
        ("sklearn.ensemble.IsolationForest(trees=3)", "cannot be made"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(text, told):
    with pytest.raises(ComponentError, match=told) as refusal:
        made(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "os.system(command='touch {file}')",
        "subprocess.run(args=['touch', '{file}'])",
        'builtins.exec(source=\'open("{file}", "w")\')',
        "runpy.run_path(path_name='{file}')",
        "pathlib.Path.touch(self='{file}')",
        "numpy.savetxt(fname='{file}', X=[1])",
        "joblib.load(filename='{file}')",
        "pandas.read_pickle(filepath_or_buffer='{file}')",
        "replication.records.write(path='{file}', about={{}}, result=1)",
        "my_own.system(command='touch {file}')",
    ],
)
def test_a_knob_calls_nothing_but_components(text, tmp_path, monkeypatch):
    (tmp_path / "my_own.py").write_text("from os import system\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_own", raising=False)
    file = tmp_path / "made"
    with pytest.raises(ComponentError, match=r"name an estimator|cannot be imported"):
        made(text.format(file=file))
    assert not file.exists()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("class Mine:\n    def __init__(self):\n        self.k = 1 / 0\n",
         "cannot be made: division by zero, my_own.py, line 3."),
        ("import json\n\njson.loads('{')\n\nclass Mine: ...\n", "my_own cannot be imported"),
        ("class Mine\n", "my_own cannot be imported (expected ':', my_own.py, line 1)."),
        ("raise KeyError('k')\n", "my_own cannot be imported ('k', my_own.py, line 1)."),
        ("class Mine:\n    def __init__(self, k): ...\n", "argument: 'k'."),
    ],
)  # fmt: skip
def test_a_fault_in_own_code_is_told_with_its_place(code, told, tmp_path, monkeypatch):
    (tmp_path / "my_own.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_own", raising=False)
    with pytest.raises(ComponentError) as refusal:
        made("my_own.Mine")
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_settings_of_an_attack_are_read_without_importing_it():
    """By name, its bases' first; kinds, lists and None as the class declares them."""
    from dataclasses import fields

    from poisoning.attacks.influence import Influence
    from poisoning.attacks.kkt import KKT
    from poisoning.attacks.label_flips import Alfa
    from poisoning.attacks.min_max import MinMax

    for attack in (KKT, MinMax, Influence, Alfa):
        found = schema(attack.__name__)
        own = {f.name: f.metadata for f in fields(attack) if "kind" in f.metadata}
        assert set(found) == set(own)
        for name, declared in found.items():
            about = own[name]
            assert declared == (about["kind"], about["many"], about["none"])


def test_there_is_no_such_attack():
    with pytest.raises(KeyError):
        schema("NoSuchAttack")
