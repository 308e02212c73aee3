"""Reading published containers member by member in memory; nothing is ever unpacked to disk."""

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from poisoning.errors import DataError


def read_tar(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The wanted regular files of a ``.tar.gz`` by name, in the order of their names.

    Raises:
        DataError: any member is a link, a device, or has an absolute path or ``..`` in it: no
            published archive of a data set has one, so this is not that archive.
    """
    found: dict[str, bytes] = {}
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise DataError(
                    f"{path.name} is refused: its member {member.name!r} points out of the archive."
                )
            if not (member.isreg() or member.isdir()):
                raise DataError(
                    f"{path.name} is refused: its member {member.name!r} is a link or a device."
                )
            if member.isreg() and wanted(str(name)):
                found[str(name)] = archive.extractfile(member).read()
    return dict(sorted(found.items()))


def read_gzip(path: Path) -> bytes:
    """The unpacked bytes of a ``.gz`` file."""
    with gzip.open(path) as stream:
        return stream.read()
