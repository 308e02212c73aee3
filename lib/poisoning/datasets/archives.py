"""Reading containers member by member in memory; nothing is ever unpacked to disk.

How much is read is decided before memory is taken for it: a file of a few bytes may promise, or
unpack to, more than any machine holds.
"""

import gzip
import io
import json
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy import ndarray

from poisoning.datasets import files, matlab
from poisoning.errors import DataError

LARGEST = 1 << 28
"""Bytes of one member: CIFAR-10 and IMDB, the largest sets, have members of 40 MB."""

LARGEST_IN_ALL = 1 << 30
"""Bytes of all members of an archive together."""

MOST = 500_000
"""Members of an archive."""

UNREADABLE = (*files.MALFORMED, LookupError, AttributeError, MemoryError)
"""What readers raise on bytes of another format, and on a file that holds other things."""


def reason(error: BaseException) -> str:
    """What such an exception says, on one line and shortened."""
    said = " ".join(str(error).split())
    return said[:200] if said else type(error).__name__


class _Bounded(io.RawIOBase):
    """A stream that refuses to give more than a member may have, or an archive in all."""

    def __init__(self, stream: gzip.GzipFile, name: str) -> None:
        self._stream, self._name = stream, name

    def read(self, size: int = -1) -> bytes:
        if size > LARGEST or self._stream.tell() > LARGEST_IN_ALL:
            raise DataError(_too_large(self._name))
        return self._stream.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        if position > LARGEST_IN_ALL:
            raise DataError(_too_large(self._name))
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _too_large(name: str) -> str:
    return (
        f"{name} is refused: it unpacks to a member of more than {LARGEST >> 20} MB, or to more "
        f"than {LARGEST_IN_ALL >> 20} MB in all."
    )


def read_tar(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The wanted regular files of a ``.tar.gz`` by name, in the order of their names.

    Raises:
        DataError: any member is a link, a device, or has an absolute path or ``..`` in it, or
            stands twice: no published archive of a data set has one, so this is not that archive.
            Or there are more than :data:`MOST` members, or more bytes than the limits above allow.
    """
    found: dict[str, bytes] = {}
    with (
        gzip.open(path) as stream,
        tarfile.open(fileobj=_Bounded(stream, path.name), mode="r:") as archive,
    ):
        for number, member in enumerate(archive):
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise _refused(path, member, "points out of the archive")
            # A sparse file, too, has fewer bytes in the archive than it says.
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise _refused(path, member, "is a link or a device")
            if number >= MOST:
                raise DataError(f"{path.name} is refused: it has more than {MOST} members.")
            if member.size > LARGEST:
                raise DataError(_too_large(path.name))
            if member.isreg() and wanted(str(name)):
                if str(name) in found:
                    raise _refused(path, member, "stands twice")
                found[str(name)] = archive.extractfile(member).read()
    return dict(sorted(found.items()))


def _refused(path: Path, member: tarfile.TarInfo, reason: str) -> DataError:
    name = repr(member.name) if len(member.name) < 200 else f"{member.name[:100]!r}…"
    return DataError(f"{path.name} is refused: its member {name} {reason}.")


def read_gzip(path: Path) -> bytes:
    """The unpacked bytes of a ``.gz`` file.

    Raises:
        DataError: there are more than :data:`LARGEST`.
    """
    with gzip.open(path) as stream:
        raw = stream.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise DataError(_too_large(path.name))
    return raw


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it has more than :data:`LARGEST` bytes.
    """
    if path.stat().st_size > LARGEST:
        raise DataError(_too_large(path.name))
    return json.loads(path.read_bytes())


def read_npz(path: Path) -> dict[str, ndarray]:
    """Every array of an ``.npz``, by name.

    Raises:
        DataError: an array holds Python objects, or its header promises more than there is; or the
            limits above are exceeded.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > MOST or sum(member.file_size for member in members) > LARGEST_IN_ALL:
            raise DataError(_too_large(path.name))
        return {
            member.filename.removesuffix(".npy"): read_array(archive, member, LARGEST_IN_ALL)
            for member in members
        }


def read_member(archive: zipfile.ZipFile, name: str, largest: int = LARGEST) -> bytes:
    """The bytes of one member of a zip archive.

    Raises:
        DataError: there are more than ``largest``.
        KeyError: there is no such member.
    """
    member = archive.getinfo(name)
    if member.file_size > largest:
        raise DataError(_too_large(Path(str(archive.filename)).name))
    with archive.open(member) as stream:
        return stream.read(member.file_size)


def read_array(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, largest: int = LARGEST
) -> ndarray:
    """One array of an ``.npz``, in the byte order of this machine.

    Raises:
        DataError: it has more than ``largest`` bytes, holds Python objects, or its header and its
            size disagree.
    """
    if member.file_size > largest:
        raise DataError(_too_large(Path(str(archive.filename)).name))
    where = f"{Path(str(archive.filename)).name}: {member.filename!r}"
    with archive.open(member) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            shape, fortran, dtype = _HEADERS[version](stream)
        except (ValueError, LookupError, TypeError, SyntaxError):
            raise DataError(f"{where} is no array of the npy format 1.0 or 2.0.") from None
        if dtype.hasobject:
            raise DataError(f"{where} holds Python objects, which are never loaded.")
        size = dtype.itemsize
        for length in shape:
            size *= length
        if min(shape, default=0) < 0 or size != member.file_size - stream.tell():
            raise DataError(
                f"{where} has the shape {shape} of {dtype}, which is not the size of its data."
            )
        raw = np.empty(size, np.uint8)
        at = 0
        while at < size:
            read = stream.readinto(raw[at:].data)
            if not read:
                raise DataError(f"{where} ends before its data do.")
            at += read
    array = raw.view(dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_mat(path: Path) -> dict[str, ndarray | list[ndarray]]:
    """The numeric arrays of a MATLAB file, version 5, and its cell arrays of such as lists.

    They are read by SciPy, in another process (:mod:`poisoning.datasets.matlab`).

    Raises:
        DataError: it unpacks to more than :data:`LARGEST` bytes, is damaged, or is no such file.
    """
    raw = path.read_bytes() if path.stat().st_size <= LARGEST else b""
    at, total = 128, len(raw)
    if not raw:
        raise DataError(_too_large(path.name))
    order = "little" if raw[126:128] == b"IM" else "big"
    while at + 8 <= len(raw):
        kind, size = (int.from_bytes(raw[i : i + 4], order) for i in (at, at + 4))
        at += 8
        if kind == _COMPRESSED:
            packed = raw[at : at + size]
            total += len(zlib.decompressobj().decompress(packed, LARGEST - total + 1))
            if total > LARGEST:
                raise DataError(_too_large(path.name))
        at += size
    # By way of the function, so that results hang on what it does.
    script = str(sys.modules[matlab.main.__module__].__file__)
    command = [sys.executable, "-P", script, str(path)]  # -P: its folder is no place of modules
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LONG)
        if done.returncode == 0:
            return _arrays(done.stdout)
    raise DataError(f"{path.name} is damaged, or no MATLAB file of version 5.")


def _arrays(raw: bytes) -> dict[str, ndarray | list[ndarray]]:
    found: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        for member in archive.infolist():
            name, _, cell = member.filename.removesuffix(".npy").partition("/")
            array = read_array(archive, member)
            if cell:
                found.setdefault(name, []).append(array)
            else:
                found[name] = array
    return found


_LONG = 60.0  # seconds; the largest of the published files takes one
_COMPRESSED = 15
"""The type of an element that is packed by zlib."""
