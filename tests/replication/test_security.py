"""Nothing a stranger can write is run: no pickle, no shell, no code from data or knobs."""

import ast
import re
from pathlib import Path

import pytest
from papermill.translators import PythonTranslator

from replication import params, paths

SOURCES = sorted((paths.ROOT / "lib").rglob("*.py"))
HOSTILE = [
    '"; import os; os.system("touch made"); "',
    "'''\nimport os\nos.system('touch made')\n'''",
    "\\\"; print(1)  #",
    "$(touch made)", "`touch made`", "{{7*7}}",
    "${params}", "\u2028import os", "<script>1</script>",
]  # fmt: skip


def calls(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


TRUSTED = {
    # Scheduler, clients and the network between them are trusted, as SECURITY.md says.
    ("cluster.py", "pickle.loads"),
    # Of a name that stands there: the worker's own copy of the module.
    ("cluster.py", "__import__"),
    # Its loader knows text, numbers, lists and mappings, and makes nothing else.
    ("strict_yaml.py", "yaml.load"),
}


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(paths.ROOT)))
def test_the_code_has_no_door_for_code(file):
    """No pickle, no shell, no eval, and no YAML reader but the safe ones."""
    refused = re.compile(
        r"(eval|exec|compile|__import__|os\.(system|popen|exec\w*|spawn\w*)|(pickle|marshal|shelve|"
        r"cloudpickle|dill|joblib)\.(load|loads|open)|torch\.load|yaml\.(load|full_load|"
        r"unsafe_load))"
    )
    for name, call in calls(file):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if (Path(file).name, name) not in TRUSTED:
            assert not refused.fullmatch(name), f"line {call.lineno}: {name}"
        assert options.get("shell", "False") == "False", f"line {call.lineno}: a shell"
        assert options.get("allow_pickle", "False") == "False", f"line {call.lineno}: pickle"
        if name in ("np.load", "numpy.load"):
            assert "allow_pickle" in options, f"line {call.lineno}: np.load"
        if name == "YAML":
            assert options.get("typ") in ("'safe'", "'rt'"), f"line {call.lineno}: YAML"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_knob_enters_a_notebook_as_data(text):
    for value in (text, [text], {text: 1}):
        code = PythonTranslator.codify({"knob": value})
        tree = ast.parse(code)
        (statement,) = tree.body
        assert isinstance(statement, ast.Assign)
        assert ast.literal_eval(statement.value) == value


@pytest.mark.parametrize("name", ["demo; touch made", "$(touch made)", "../quick", "demo\n"])
def test_a_profile_that_would_enter_a_command_is_refused(name, tmp_path):
    """DVC writes the names of profiles into the commands of stages."""
    text = paths.PARAMS.read_text(encoding="utf-8")
    changed = text.replace("profiles:\n", f"profiles:\n  {name!r}: {{data: standin}}\n", 1)
    assert changed != text
    file = tmp_path / "params.yaml"
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(params.ParameterError, match="profiles"):
        params.load_all(file)


def test_a_tag_of_yaml_makes_no_object(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("profiles: !!python/object/apply:os.system ['touch made']\n", encoding="utf-8")
    with pytest.raises(params.ParameterError):
        params.load_all(file)


def test_names_in_commands_of_the_pipeline_are_plain():
    """Every command that DVC gives to a shell is made of plain words and its own variables."""
    lines = (paths.ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()
    commands = [line.partition("cmd: ")[2] for line in lines if "cmd: " in line]
    assert len(commands) > 10
    for command in commands:
        assert re.fullmatch(
            r"[\w=./ -]*(\$\{(item|key|item\.set|item\.source)\}[\w=./ -]*)*", command
        )
