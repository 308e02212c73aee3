"""Files that are written completely or not at all, and their checksums."""

import hashlib
import json
import logging
import lzma
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
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, MatReadError,
)  # fmt: skip
"""Exceptions that the readers of the various formats raise on bytes of another format."""

log = logging.getLogger(__name__)


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


@contextmanager
def alone(target: Path, doing: str) -> Iterator[bool]:
    """Hold the lock of ``target``, for which other processes wait; yields whether this one had to.

    The lock ends with its process, however that ends. ``doing`` completes the sentence "another
    process is …".

    Raises:
        DataError: the folder above ``target`` cannot be written.
    """
    from filelock import FileLock, Timeout  # where nothing is written, it need not be installed

    lock = FileLock(target.with_name(f".{target.name}.lock"))
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
            waited = False
        except Timeout:
            log.warning("another process is %s: waiting for it.", doing)
            lock.acquire()
            waited = True
    try:
        yield waited
    finally:
        # Before the release: who opened the file meanwhile finds it gone, and opens a new one.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def part_of(target: Path) -> Path:
    """The hidden name beside ``target`` under which it is written."""
    return target.with_name(f".{target.name}.part")


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk, before a rename makes it visible."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write a file under, which becomes ``path`` at the end: nobody reads half of it.

    Raises:
        DataError: the folder cannot be written.
    """
    part = part_of(path)
    with alone(path, f"writing {path.name}"):
        try:
            yield part
            sync(part)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    with writing(path), replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def delete(path: Path) -> None:
    """Remove a folder, a file or a link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def replace_folder(part: Path, target: Path) -> None:
    """Put the finished folder ``part`` in the place of ``target``.

    Two renames: a run killed between them leaves no ``target``, never half of one.
    """
    old = target.with_name(f".{target.name}.old")
    delete(old)
    if target.exists() or target.is_symlink():
        target.replace(old)
    part.replace(target)
    delete(old)


def checksums(path: Path) -> dict[str, str]:
    """MD5 (as many sites still publish) and SHA-256 of a file, in hexadecimal."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            md5.update(block)
            sha256.update(block)
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}
