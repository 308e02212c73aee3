"""No public function crashes, hangs, gives NaN or changes its input, whatever it is given."""

import ast
import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

DOORS = Path(__file__).with_name("doors.py")
LIBRARY = Path(__file__).parents[2] / "lib"
EVERY = 12
"""Of the wrong calls these tests make one in so many; ``make fuzz`` makes all."""


def judged(every):
    """Calls, each with a verdict; after a crash the next process begins behind its call."""
    found, first = [], 0
    while True:
        run = subprocess.run(
            [sys.executable, str(DOORS), str(first), str(every)], capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(LIBRARY)}, check=False,
        )  # fmt: skip
        lines = [json.loads(line) for line in run.stdout.splitlines()]
        if lines and lines[-1].get("end"):
            return found + [{**a, **b} for a, b in zip(lines[:-1:2], lines[1:-1:2], strict=True)]
        assert lines, run.stderr
        found += [{**a, **b} for a, b in zip(lines[::2], lines[1::2], strict=False)]
        hung = "Timeout" in run.stderr or run.returncode == -signal.SIGPROF
        reason = run.stderr[-600:] if hung else f"exit status {run.returncode}"
        # A corrupted heap may be noticed only after the call.
        last = lines[-1] if "number" in lines[-1] else found.pop()
        found.append({**last, "verdict": "hung" if hung else "crashed", "reason": reason})
        first = last["number"] + 1


@pytest.fixture(scope="module")
def verdicts():
    by_name = defaultdict(list)
    for call in judged(EVERY):
        by_name[call["name"]].append(call)
    return by_name


def listed():
    """Cases, all functions that take arrays, and those without a case."""
    command = (
        "import doors, json; "
        "print(json.dumps([list(doors.CASES), list(doors.functions()), list(doors.WITHOUT)]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, cwd=DOORS.parent,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)}, check=True,
    )  # fmt: skip
    return map(set, json.loads(run.stdout))


def test_every_function_that_takes_arrays_has_a_case():
    cases, functions, without = listed()
    assert functions - cases - without == set(), "give it a case in doors.py, or say why not"
    assert without - functions == set()
    assert without & cases == set()


def test_every_kernel_module_states_what_it_assumes():
    kernels = sorted((LIBRARY / "poisoning").rglob("*_kernels.py"))
    assert len(kernels) >= 9
    for file in kernels:
        assert "Assumed, and not checked:" in ast.get_docstring(ast.parse(file.read_text())), file


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_wrong_call_is_refused_by_a_sentence_that_names_the_argument(verdicts):
    wrong = [
        f"{call['name']}({call['argument']}={call['variant']}): {call['verdict']}, {call['reason']}"
        for calls in verdicts.values()
        for call in calls
        if call["verdict"] not in ("refused", "right")
    ]
    counts = Counter(call["verdict"] for calls in verdicts.values() for call in calls)
    assert not wrong, f"{dict(counts)}\n" + "\n".join(wrong)
    assert counts["refused"] > 2_000 / EVERY and counts["right"] > 1_500 / EVERY
