"""Bring published files to ``data/raw/<set>``: the mirror first, then the official addresses.

A file is accepted if its size and checksum are those of a registered variant. Where no checksum has
been published, the whole set is parsed and must have the registered content. Everything happens in
a folder of another name, which replaces ``data/raw/<set>`` when it is complete: a run that fails or
is killed leaves the old folder unchanged.
"""

import http.client
import logging
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from poisoning.datasets import files
from poisoning.datasets.mirror import MIRROR_VARIABLE, mirror_address
from poisoning.datasets.parse import parse_checked
from poisoning.datasets.sources import DATA, Source, source
from poisoning.errors import DataError

TIMEOUT = 30.0
"""Seconds without a byte after which a server counts as unreachable."""

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """An address of a file, and the name of this address in the manifest."""

    address: str
    origin: str

    @property
    def remote(self) -> bool:
        """Whether the address is a URL, not a path."""
        return urllib.parse.urlsplit(self.address).scheme in ("http", "https")


class Obtained(NamedTuple):
    """A file that has been accepted."""

    size: int
    checksums: dict[str, str]
    origin: str


class RejectedError(Exception):
    """A place lacks the file, or has another file; the message completes a sentence."""


def fetch(name: str, data: Path = DATA, mirror: str | None = None) -> dict[str, Any]:
    """Fetch a data set into ``data/raw/<name>`` and return its manifest.

    ``mirror`` (by default the environment variable DATA_MIRROR) is a folder or base URL laid out
    as ``<set>/<file>``. A place that fails is logged as a warning before the next is tried.

    Raises:
        DataError: a file cannot be obtained or is not a registered one, or the disk cannot be
            written.
    """
    entry = source(name)
    mirror = mirror_address(mirror or os.environ.get(MIRROR_VARIABLE, ""))
    target = data / "raw" / name
    part = target.with_name(f".{name}.part")
    with files.writing(target):
        # A run that was killed may have left its folder.
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    try:
        obtained = {
            file: _obtain(name, entry, part / file, _places(name, entry, file, mirror))
            for file in entry.files
        }
        variant = _variant(name, entry, obtained)
        if not entry.variants[variant].checksummed:
            parse_checked(name, entry.variants[variant], part)
        manifest = {
            "name": name,
            "variant": variant,
            "note": entry.variants[variant].note,
            "licence": entry.licence,
            "citation": entry.citation,
            "files": {
                file: {"size": o.size, "sha256": o.checksums["sha256"], "origin": o.origin}
                for file, o in obtained.items()
            },
        }
        with files.writing(target):
            files.write_json(part / "manifest.json", manifest)
            files.sync(part)
            files.replace_folder(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return manifest


def _places(name: str, entry: Source, file: str, mirror: str | None) -> list[Place]:
    """The mirror, if there is one, and the official addresses, in the order they are tried."""
    places = [Place(url, url) for url in entry.files[file].urls]
    if mirror:
        address = f"{mirror}/{name}/{file}"
        places.insert(0, Place(address, "mirror"))
    return places


def _obtain(name: str, entry: Source, target: Path, places: list[Place]) -> Obtained:
    """Write the file to ``target`` from the first place that has it."""
    failures = []
    for place in places:
        try:
            _download(place, target)
            _extract(place, target)
            return _recognise(entry, target, place)
        except RejectedError as reason:
            target.unlink(missing_ok=True)
            failures.append(f"{place.address} {reason}")
            log.warning("%s/%s: %s %s", name, target.name, place.address, reason)
    raise DataError(
        f"{name}/{target.name} could not be had: {'; '.join(failures)}; set {MIRROR_VARIABLE} to a "
        "folder or URL that has it, or run `make repro`, whose demo profile needs no data."
    )


def _download(place: Place, target: Path) -> None:
    """Copy all bytes to the disk, with a progress bar if the output is a terminal."""
    received = 0
    with _open(place) as (stream, length):
        with files.writing(target):
            output = target.open("wb")
        with (
            output,
            tqdm(total=length, unit="B", unit_scale=True, desc=target.name, disable=None) as bar,
        ):
            while block := stream.read(files.BLOCK):
                with files.writing(target):
                    output.write(block)
                received += len(block)
                bar.update(len(block))
            with files.writing(target):
                output.flush()
                os.fsync(output.fileno())
    if length is not None and received != length:
        raise RejectedError(f"broke off after {received} of {length} bytes")


def _extract(place: Place, target: Path) -> None:
    """Replace a downloaded ``.zip`` by the member that the address names after ``#``."""
    member = urllib.parse.urlsplit(place.address).fragment
    if not (place.remote and member):
        return
    try:
        with zipfile.ZipFile(target) as archive:
            content = archive.read(member)
    except (zipfile.BadZipFile, KeyError, EOFError, zlib.error) as error:
        raise RejectedError(f"has no zip archive with the member {member}") from error
    with files.writing(target):
        target.write_bytes(content)
        files.sync(target)


@contextmanager
def _open(place: Place) -> Iterator[tuple[BinaryIO, int | None]]:
    """A stream of bytes and how many there should be, if that is known."""
    try:
        if place.remote:
            request = urllib.request.Request(
                place.address, headers={"User-Agent": "poisoning-replications"}
            )
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                length = response.headers.get("Content-Length", "")
                yield response, int(length) if length.isdigit() else None
        else:
            with Path(place.address).open("rb") as stream:
                yield stream, os.fstat(stream.fileno()).st_size
    except urllib.error.HTTPError as error:
        error.close()
        raise RejectedError(f"answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise RejectedError(f"cannot be reached ({error.reason})") from error
    except http.client.HTTPException as error:
        raise RejectedError(f"broke off ({type(error).__name__})") from error
    except OSError as error:
        raise RejectedError(f"cannot be read ({error.strerror or error})") from error


def _recognise(entry: Source, path: Path, place: Place) -> Obtained:
    """Accept the file if it is that of a variant, or of one without a published checksum."""
    obtained = Obtained(path.stat().st_size, files.checksums(path), place.origin)
    known = [variant.files[path.name] for variant in entry.variants.values()]
    if any(fingerprint.matches(obtained.size, obtained.checksums) for fingerprint in known):
        return obtained
    with path.open("rb") as stream:
        beginning = stream.read(512).lstrip().lower()
    if beginning.startswith((b"<!doctype html", b"<html")):
        raise RejectedError("has a web page instead of the file")
    if all(fingerprint.checksum for fingerprint in known):
        expected = " or ".join(str(fingerprint) for fingerprint in dict.fromkeys(known))
        raise RejectedError(
            f"has {obtained.size} bytes with sha256:{obtained.checksums['sha256']} and "
            f"md5:{obtained.checksums['md5']}, expected {expected}"
        )
    return obtained


def _variant(name: str, entry: Source, obtained: dict[str, Obtained]) -> str:
    """The variant whose files these are; one recognised by checksums has priority.

    Raises:
        DataError: the files belong to different variants.
    """
    for strict in (True, False):
        for variant, description in entry.variants.items():
            if all(
                description.files[file].matches(found.size, found.checksums)
                or not (strict or description.files[file].checksum)
                for file, found in obtained.items()
            ):
                return variant
    places = ", ".join(f"{file} from {found.origin}" for file, found in obtained.items())
    raise DataError(f"The files of {name} belong to different variants ({places}): mix none.")
