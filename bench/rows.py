"""results/bench.json: one row for everything that was timed.

Written without the lock of :mod:`poisoning.datasets.files`, which a bare GPU machine lacks.
"""

import json
from pathlib import Path
from typing import Any


def merge(target: Path, rows: dict[str, dict[str, Any]]) -> None:
    """Put rows into the file, each in the place of one of its name; whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    text = json.dumps(known | rows, indent=2, sort_keys=True) + "\n"
    temporary = target.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
