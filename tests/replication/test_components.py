"""Attacks, defenses, learners and data sets of others, named by a knob."""

import sys

import pytest

from replication import paths
from replication.components import ComponentError, made, missing, place
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
        ("a.b.C(x={[1]: 2})", "names no class or function"),
        ("a.b.C(x={{}})", "names no class or function"),
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


def own(code, root, monkeypatch):
    """A file of the user below ``lib/`` of a project."""
    (root / "lib").mkdir()
    (root / "lib" / "my_own.py").write_text(code)
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.syspath_prepend(str(root / "lib"))
    monkeypatch.delitem(sys.modules, "my_own", raising=False)


def test_own_code_lies_below_lib(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("class Mine:\n    def __init__(self): 1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "from elsewhere import Mine\nclass Own: ...\ndef load(): return 1\n"
    own(code, tmp_path, monkeypatch)
    for text in ("elsewhere.Mine", "my_own.Mine"):
        with pytest.raises(ComponentError, match="may not be called; name an estimator"):
            made(text)
    assert type(made("my_own.Own")).__module__ == "my_own"
    assert made("my_own.load") == 1
    assert made("sklearn.svm.LinearSVC").get_params()["C"] == 1.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("my_typo.Mine", "there is no module my_typo, installed or below lib/"),
        ("my_own.part.Mine", "there is no module my_own.part, installed or below lib/"),
        ("my_own.Mien", "there is no class or function Mien in my_own"),
        ("my_own.Mine", None),
        ("sklearn.ensamble.X", "there is no module sklearn.ensamble, installed or below lib/"),
        ("sklearn.ensemble.NoSuch", "there is no class or function NoSuch in sklearn.ensemble"),
        ("sklearn.ensemble.IsolationForest", None),
        ("poisoning.KKT", None),  # imported at first use
    ],
)
def test_what_is_missing_is_known_without_an_import(text, told, tmp_path, monkeypatch):
    own("class Mine: ...\nraise SystemExit\n", tmp_path, monkeypatch)
    assert missing(*place(text)[:2]) == told
    assert "my_own" not in sys.modules


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
    own(code, tmp_path, monkeypatch)
    with pytest.raises(ComponentError) as refusal:
        made("my_own.Mine")
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_settings_of_an_attack_are_those_that_its_class_declares():
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
