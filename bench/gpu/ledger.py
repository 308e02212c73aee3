"""Units that are computed once: records in a folder, and an end for each part."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from replication import records
from replication.digests import digest
from replication.live import Coder
from replication.provenance import machine

Finished = tuple[Any, dict[str, Any]]
"""A unit's result, and what its record says about it."""


class Ledger:
    """Records below ``folder``, filed as :mod:`replication.units` files them.

    ``about``: what every new record says beside its own, among it the ``card``. Functions of this
    package measure seconds: their units are filed by the card and the package's text as well.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self._folder, self._about = folder, about
        self._coder = Coder()
        texts = [file.read_text("utf-8") for file in sorted(Path(__file__).parent.glob("*.py"))]
        self._measured_by = [about["card"], *texts]

    def unit(self, function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
        """What a unit is: its key, and the code and the arguments that the key follows from."""
        asked, code = self._coder.identify(function, arguments)
        if function.__module__.startswith(__package__):
            code = digest([code, *self._measured_by])
        return {
            "key": digest([code, asked]),
            "function": function.__qualname__,
            "fingerprint": code,
            "arguments": asked,
        }

    def find(self, key: str) -> Finished | None:
        """A finished unit."""
        try:
            about, result = records.read(self._file(key))
        except (FileNotFoundError, records.RecordError):
            return None
        return result, about

    def compute(
        self, unit: dict[str, Any], function: Callable[..., Any], arguments: dict[str, Any]
    ) -> Finished:
        """Compute a unit and write its record."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = function(**arguments)
        spent = {
            "wall_seconds": round(time.perf_counter() - wall, 3),
            "cpu_seconds": round(time.process_time() - cpu, 3),
        }
        about = {**unit, **self._about, "adopted": None, **machine(), **spent}
        records.write_alone(self._file(unit["key"]), about, result)
        return result, about

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.npz"


class Part:
    """Calls units while its ``seconds`` last: ``part(function, arguments)``.

    A unit is computed if it fits when it takes as long as the longest of its function so far;
    ``left`` counts those that did not.
    """

    def __init__(self, name: str, ledger: Ledger, seconds: float) -> None:
        self.name, self.left, self.computed = name, 0, 0
        self._ledger = ledger
        self._longest: dict[str, float] = {}
        self._end = time.perf_counter() + seconds

    def __call__(
        self,
        function: Callable[..., Any],
        arguments: dict[str, Any],
        make: Mapping[str, Callable[[], Any]] | None = None,
    ) -> Finished | None:
        """The unit, read back or computed; None if no time is left for it.

        ``make`` gives functions for arguments that are long to compute: they are called only where
        the unit is computed, and ``arguments`` holds what stands for them in the key.
        """
        unit = self._ledger.unit(function, arguments)
        known = self._ledger.find(unit["key"])
        if known is not None:
            return known
        begun, longest = time.perf_counter(), self._longest.get(unit["function"], 0.0)
        if begun + longest > self._end:
            self.left += 1
            return None
        given = {name: made() for name, made in (make or {}).items()}
        found = self._ledger.compute(unit, function, arguments | given)
        took = time.perf_counter() - begun
        self._longest[unit["function"]] = max(longest, took)
        self.computed += 1
        told = ", ".join(f"{k}={v}" for k, v in arguments.items() if isinstance(v, int | str))
        print(f"{self.name}: {unit['function']}({told}) took {took:.1f} s", flush=True)
        return found
