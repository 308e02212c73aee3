"""``njit`` for all kernels, with a cache of compiled code that is safe for several processes.

Two things about numba's own cache would let one kernel silently run as another:

* It links what it kept by name and argument types. Closures of one function share a name, so that
two
  processes may keep different ones under the same (numba issue 10486). Here a closure is given a
  name of its own.
* It announces code under a file name before the file is written, which another process may have
  filled with something else meanwhile. Here code is written first, to a file that nobody else uses.

Code is compiled again when any kernel's source changes: kernels call each other across files.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from secrets import randbits
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

_APART = 60  # bits: two files practically never draw the same number


def njit(*, name: str = "", **options: Any) -> Callable[[Callable], Any]:
    """``numba.njit(**options)``, cached on disk.

    ``name``: what a closure is called, different from all others; it says what was closed over.
    """
    options.pop("cache", None)

    def compiled(function: Callable) -> Any:
        if name:
            function.__qualname__ = name
        dispatcher = numba.njit(**options)(function)
        dispatcher._cache = _Cache(function)
        return dispatcher

    return compiled


class _Cache(FunctionCache):
    """numba's cache of one function, in files of our own kind."""

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        self._cache_file = _File(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=(self._impl.locator.get_source_stamp(), _kernels()),
        )


class _File(IndexDataCacheFile):
    """Code is written first, under a name of its own, and announced then."""

    def __init__(self, **where: Any) -> None:
        super().__init__(**where)
        self._version = f"{numba.__version__}, written first"  # what numba kept is not read

    def save(self, key: Any, data: Any) -> None:
        name = self._data_name(randbits(_APART))
        self._save_data(name, data)
        self._save_index(self._load_index() | {key: name})


@cache
def _kernels() -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of every file with kernels."""
    found = sorted(Path(__file__).parent.rglob("*_kernels.py"))
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in found)
