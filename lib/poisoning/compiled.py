"""``njit`` for all kernels, with a cache of compiled code that is safe for several processes.

With numba's own cache one kernel can silently run in place of another: numba enters a file name in
its index before it writes the file, and meanwhile another process may write other code to that
file. Here code is written first, to a file that no other process uses.

Code is compiled again when any kernel's source changes: kernels call each other across files. No
kernel may be a closure. Numba identifies cached code by name and argument types, and closures of
one function share a name (numba issue 10486).
"""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from secrets import randbits
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

_APART = 60  # random bits in a file name: two files practically never get the same one


def njit(**options: Any) -> Callable[[Callable], Any]:
    """``numba.njit(**options)``, cached on disk."""
    options.pop("cache", None)

    def compiled(function: Callable) -> Any:
        dispatcher = numba.njit(**options)(function)
        # Without a folder for it, such as in a read-only checkout of a user without a home,
        # kernels are compiled in every process anew.
        with suppress(RuntimeError):
            dispatcher._cache = _Cache(function)
        return dispatcher

    return compiled


class _Cache(FunctionCache):
    """numba's cache of one function, stored in files of the class :class:`_File`."""

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        self._cache_file = _File(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=(self._impl.locator.get_source_stamp(), _kernels()),
        )


class _File(IndexDataCacheFile):
    """Cache files in which code is written, under a unique name, before the index refers to it."""

    def __init__(self, **where: Any) -> None:
        super().__init__(**where)
        self._version = f"{numba.__version__}, written first"  # numba's own files are not read

    def save(self, key: Any, data: Any) -> None:
        name = self._data_name(randbits(_APART))
        with suppress(OSError):  # a full disk: what was compiled serves this process all the same
            self._save_data(name, data)
            self._save_index(self._load_index() | {key: name})


@cache
def _kernels() -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of every file with kernels."""
    found = sorted(Path(__file__).parent.rglob("*_kernels.py"))
    return tuple((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in found)
