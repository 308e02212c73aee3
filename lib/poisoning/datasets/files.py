"""Files that are written completely or not at all, and their checksums."""

import hashlib
import json
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scipy.io.matlab import MatReadError

from poisoning.errors import DataError

BLOCK = 1 << 20

MALFORMED = (
    OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, struct.error,
    tarfile.TarError, zipfile.BadZipFile, zlib.error, MatReadError,
)  # fmt: skip
"""Exceptions that the readers of the various formats raise on bytes of another format."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write (read-only or full disk) into one sentence about ``path``."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"{path} cannot be written ({reason}): free the disk or choose a writable folder."
        ) from error


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk, before a rename makes it visible."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON with sorted keys under a temporary name, then rename it."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(
        json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8"
    )
    sync(part)
    part.replace(path)


def replace_folder(part: Path, target: Path) -> None:
    """Put the finished folder ``part`` in the place of ``target``.

    Two renames: a run killed between them leaves no ``target``, never half of one.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)
    part.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def checksums(path: Path) -> dict[str, str]:
    """MD5 (as many sites still publish) and SHA-256 of a file, in hexadecimal."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            md5.update(block)
            sha256.update(block)
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}
