"""Files of results, and variables of the environment, read so that each fault is one sentence."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from poisoning.datasets.archives import UNREADABLE, read_json, reason

Found = TypeVar("Found")


class ReadingError(ValueError):
    """A file, or a variable of the environment, holds what it should not; one sentence."""


def read_result(path: Path, form: Callable[[Any], Found], remedy: str) -> Found:
    """What ``form`` makes of the content of a JSON file.

    Raises:
        ReadingError: the file cannot be read, is no JSON, or ``form`` fails with it; ``remedy``
            says what brings it back.
    """
    try:
        return form(read_json(path))
    except UNREADABLE as error:
        raise ReadingError(
            f"{path} is damaged, or of another version ({type(error).__name__}: {reason(error)}): "
            f"{remedy}."
        ) from None


def is_set(variable: str) -> bool:
    """Whether a variable of the environment is 1; not set, empty and 0 are no.

    Raises:
        ReadingError: it is something else.
    """
    value = os.environ.get(variable, "").strip()
    if value not in ("", "0", "1"):
        raise ReadingError(f"{variable} = {value!r} must be 1, or not be set.")
    return value == "1"
