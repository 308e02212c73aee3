"""``njit`` for all kernels, with a cache of compiled code that is safe for several processes.

As it comes, numba numbers functions from 1 in every process and links what it kept by name,
argument types and number: of two closures that differ only in what they close over, kept by two
processes under one number, one would silently run as the other (numba issue 10486). And it
announces code under a file name before the file is written, which another process may have filled
with something else. Importing this module, as every kernel does, mends both.
"""

from itertools import count
from secrets import randbits
from typing import Any

import numba
from numba import njit
from numba.core import bytecode, caching

__all__ = ["njit"]

_APART = 60  # bits: two processes, or two files, practically never draw the same number


class _KeptCode(caching.IndexDataCacheFile):
    """Code is written first, under a name of its own, and announced then."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._version = f"{numba.__version__}, numbered apart"  # what was kept before is not read

    def save(self, key: Any, data: Any) -> None:
        name = self._data_name(randbits(_APART))
        self._save_data(name, data)
        self._save_index(self._load_index() | {key: name})


caching.IndexDataCacheFile = _KeptCode
bytecode.FunctionIdentity._unique_ids = count(randbits(_APART))
