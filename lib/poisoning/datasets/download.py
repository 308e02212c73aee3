"""Bring published files to ``data/raw/<set>``: the mirror first, then the official addresses.

A file is accepted if its size and checksum are those of a registered variant. Where no checksum has
been published, the whole set is parsed and must have the registered content. Everything happens in
a folder of another name, which replaces ``data/raw/<set>`` when it is complete: a run that fails or
is killed leaves the old folder unchanged. What it has downloaded is left to the next run, which
goes on there. Of several runs at once, one downloads and the others wait for it.
"""

import hashlib
import http.client
import io
import json
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from poisoning.datasets import files
from poisoning.datasets.mirror import MIRROR_VARIABLE, mirror_address
from poisoning.datasets.parse import parse_checked
from poisoning.datasets.sources import DATA, Fingerprint, Source, Variant, source
from poisoning.errors import DataError

TIMEOUT = 30.0
"""Seconds without a byte after which a server counts as stalled."""

PAUSES = (1.0, 3.0, 9.0)
"""Seconds before each further try of an address that has brought nothing more; then it is given up.
A server that goes on sending is waited for, however slow."""

TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
"""Status codes of a server that may answer better the next time."""

LARGEST = 1 << 30
"""Bytes after which a file is given up if its size has not been published."""

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """An address of a file, and the name of this address in the manifest."""

    address: str
    origin: str

    @property
    def remote(self) -> bool:
        """Whether the address is a URL, not a path."""
        return self.address.lower().startswith(("http://", "https://"))

    @property
    def member(self) -> str:
        """The member of a ``.zip`` that the address names after ``#``; "" for the file itself."""
        return self.address.partition("#")[2] if self.remote else ""


class Obtained(NamedTuple):
    """A file that has been accepted, and where it lies."""

    path: Path
    size: int
    checksums: dict[str, str]
    origin: str


class RejectedError(Exception):
    """A place lacks the file, or has another file; the message completes a sentence."""


class BrokenOffError(RejectedError):
    """A download ended early, or did not begin, for a reason that may pass."""


def fetch(name: str, data: Path = DATA, mirror: str | None = None) -> dict[str, Any]:
    """Fetch a data set into ``data/raw/<name>`` and return its manifest.

    ``mirror`` (by default the environment variable DATA_MIRROR) is a folder or base URL laid out
    as ``<set>/<file>``. A place that fails is logged as a warning before the next is tried. Where
    another process is fetching the same set, this one waits and takes what the other has brought.

    Raises:
        DataError: a file cannot be obtained or is not a registered one, or the disk cannot be
            written.
    """
    entry = source(name)
    mirror = mirror_address(mirror or os.environ.get(MIRROR_VARIABLE, ""))
    target = data / "raw" / name
    part = files.part_of(target)
    with files.alone(target, f"fetching {name}") as waited:
        if waited:
            with suppress(DataError):  # where the other process has failed, this one tries
                return fetched(name, target, entry.variants)
        with files.writing(target):
            part.mkdir(exist_ok=True)
        try:
            obtained = {
                file: _obtain(name, entry, part / file, _places(name, entry, file, mirror))
                for file in entry.files
            }
        except DataError:
            with suppress(OSError):  # what has been downloaded stays for the next run
                part.rmdir()
            raise
        try:
            return _finish(name, entry, part, target, obtained)
        except DataError:
            shutil.rmtree(part, ignore_errors=True)
            raise


def _finish(
    name: str, entry: Source, part: Path, target: Path, obtained: dict[str, Obtained]
) -> dict[str, Any]:
    """Make ``data/raw/<name>`` of files that were accepted; return its manifest."""
    variant = _variant(name, entry, obtained)
    with files.writing(target):
        for file, found in obtained.items():
            found.path.replace(part / file)
        for path in part.iterdir():
            if path.name not in entry.files:  # what an earlier run began at another address
                files.delete(path)
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
    return manifest


def fetched(name: str, folder: Path, variants: dict[str, Variant]) -> dict[str, Any]:
    """The manifest of a fetched data set, after a check that its files are still what they were.

    Raises:
        DataError: the set was not fetched, or was altered since.
    """
    remedy = f"run `python -m poisoning.datasets fetch {name}`."
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        for file, recorded in manifest["files"].items():
            if files.checksums(folder / file)["sha256"] != recorded["sha256"]:
                raise DataError(f"{folder / file} was altered after it was fetched: {remedy}")
        if manifest["variant"] not in variants:
            raise ValueError(f"unknown variant {manifest['variant']!r}")
        return manifest
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise DataError(f"{name} has not been fetched ({missing} is missing): {remedy}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}/manifest.json cannot be read ({error}): {remedy}") from error


def _places(name: str, entry: Source, file: str, mirror: str | None) -> list[Place]:
    """The mirror, if there is one, and the official addresses, in the order they are tried."""
    places = [Place(url, url) for url in entry.files[file].urls]
    if mirror:
        address = f"{mirror}/{name}/{file}"
        places.insert(0, Place(address, "mirror"))
    return places


def _obtain(name: str, entry: Source, target: Path, places: list[Place]) -> Obtained:
    """The file ``target`` from the first place that has it, under a name with a suffix."""
    known = [variant.files[target.name] for variant in entry.variants.values()]
    failures = []
    for place in places:
        # Each place has its own suffix, so that bytes of two places are never joined.
        suffix = hashlib.sha256(os.fsencode(place.address)).hexdigest()[:8]
        try:
            return _bring(place, target.with_name(f"{target.name}.{suffix}"), known)
        except RejectedError as reason:
            failures.append(f"{place.address} {reason}")
            log.warning("%s/%s: %s %s", name, target.name, place.address, reason)
    raise DataError(
        f"{name}/{target.name} could not be had: {'; '.join(failures)}; set {MIRROR_VARIABLE} to a "
        "folder or URL that has it, or run `make repro`, whose demo profile needs no data."
    )


def _bring(place: Place, path: Path, known: list[Fingerprint]) -> Obtained:
    """Download a file from one place to ``path``, going on with what is there, and accept it."""
    size = max(fingerprint.size or LARGEST for fingerprint in known)
    # Only a checksum tells whether old bytes and new ones belong to one file.
    resumable = place.remote and any(fingerprint.checksum for fingerprint in known)
    while True:
        joined = _download(place, path, LARGEST if place.member else size, resumable)
        try:
            _extract(place, path, size)
            return _recognise(place, path, known, joined)
        except RejectedError:
            path.unlink(missing_ok=True)
            if not joined:
                raise
        log.warning("%s has another file than before: beginning again.", place.address)
        resumable = False


def _download(place: Place, path: Path, limit: int, resumable: bool) -> bool:
    """Bring all bytes to the disk; returns whether they come from more than one answer.

    A download that breaks off is tried again, from where it broke off if it is ``resumable``, until
    several tries in a row have brought nothing more.
    """
    if not resumable:
        path.unlink(missing_ok=True)
    tries, most = 0, _size(path)
    while True:
        try:
            return _receive(place, path, limit, _size(path) if resumable else 0) > 0
        except BrokenOffError as reason:
            size = _size(path)
            tries = 0 if size > most else tries + 1
            most = max(size, most)
            if tries > len(PAUSES):
                raise
            log.warning("%s %s: trying again.", place.address, reason)
        if tries:
            time.sleep(PAUSES[tries - 1])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(place: Place, path: Path, limit: int, begin: int) -> int:
    """Write what a place sends from byte ``begin`` on behind what ``path`` has of it.

    Returns where the answer began: 0, if it was the whole file after all.

    Raises:
        BrokenOffError: less came than was announced, or a later try may bring more.
        RejectedError: the place has no such file, or one of more than ``limit`` bytes.
    """
    received = begin
    try:
        with (
            _open(place, begin) as (stream, start, total),
            tqdm(
                total=total, initial=start, desc=path.stem, unit="B", unit_scale=True, disable=None
            ) as bar,  # on a terminal
        ):  # fmt: skip
            received = start
            if start == 0:
                _append(path, b"", "wb")
            # read1: what has come is written before a server stalls.
            while max(received, total or 0) <= limit and (block := stream.read1(files.BLOCK)):
                _append(path, block)
                received += len(block)
                bar.update(len(block))
            with files.writing(path):
                files.sync(path)
    except TimeoutError as error:
        reason = f"sent nothing for {TIMEOUT:g} s, after {received} bytes"
        raise BrokenOffError(reason) from error
    except (http.client.HTTPException, ConnectionError) as error:
        raise BrokenOffError(f"broke off after {received} bytes ({_line(error)})") from error
    except OSError as error:
        raise RejectedError(f"cannot be read ({error.strerror or _line(error)})") from error
    if max(received, total or 0) > limit:
        path.unlink()
        found = f"{total}" if total else f"more than {limit}"
        raise RejectedError(f"has {found} bytes, expected {limit} at most")
    if total is not None and received != total:
        raise BrokenOffError(f"broke off after {received} of {total} bytes")
    return start


def _append(path: Path, block: bytes, mode: str = "ab") -> None:
    with files.writing(path), path.open(mode) as output:
        output.write(block)


@contextmanager
def _open(place: Place, begin: int) -> Iterator[tuple[BinaryIO, int, int | None]]:
    """A stream, the byte of the file that it begins with, and the file's size if that is told.

    A server that cannot send the rest from byte ``begin`` on is asked for the whole file.
    """
    if not place.remote:
        path = Path(place.address)
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise RejectedError("is no file")
        with path.open("rb") as stream:
            yield stream, 0, os.fstat(stream.fileno()).st_size
        return
    with _ask(place.address, begin) as response:
        length = response.headers.get("Content-Length", "")
        start, total = 0, int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        if response.code in (206, 416):
            span = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            start = int(span[1] or begin) if span else -1
            total = int(span[2]) if span else None
            if start != begin or (response.code == 416 and total != begin):
                if begin == 0:
                    raise RejectedError(f"answered {response.code} to a request without a range")
                with _open(place, 0) as whole:
                    yield whole
                return
        yield (io.BytesIO() if response.code == 416 else response), start, total


_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18})")


def _ask(address: str, begin: int) -> http.client.HTTPResponse | urllib.error.HTTPError:
    """A server's answer; one of status 416 says that it has nothing from byte ``begin`` on."""
    headers = {"User-Agent": "poisoning-replications"}
    if begin:
        headers["Range"] = f"bytes={begin}-"
    try:
        request = urllib.request.Request(address, headers=headers)
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and begin:
            return error
        error.close()
        kind = BrokenOffError if error.code in TEMPORARY else RejectedError
        raise kind(f"answered {error.code} {_line(error.reason)}") from error
    except urllib.error.URLError as error:
        raise RejectedError(f"cannot be reached ({_line(error.reason)})") from error
    except (ValueError, http.client.InvalidURL) as error:  # of the address, or a redirection
        raise RejectedError(f"leads to no address ({_line(error)})") from error


def _line(told: object) -> str:
    """What somebody else has said, as a part of one line."""
    text = "".join(c if c.isprintable() else " " for c in str(told))
    return " ".join(text.split())[:200]


def _extract(place: Place, path: Path, limit: int) -> None:
    """Replace a downloaded ``.zip`` by the member that the address names."""
    if not place.member:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(place.member).file_size
            if size > limit:
                raise RejectedError(
                    f"has a zip archive whose member {place.member} unpacks to {size} bytes, "
                    f"expected {limit}"
                )
            content = archive.read(place.member)
    except files.MALFORMED as error:
        raise RejectedError(f"has no zip archive with the member {place.member}") from error
    with files.writing(path):
        path.write_bytes(content)
        files.sync(path)


def _recognise(place: Place, path: Path, known: list[Fingerprint], joined: bool) -> Obtained:
    """Accept the file if it is that of a variant, or of one without a published checksum.

    A file ``joined`` from several answers is accepted by its checksum alone.
    """
    obtained = Obtained(path, path.stat().st_size, files.checksums(path), place.origin)
    if any(fingerprint.matches(obtained.size, obtained.checksums) for fingerprint in known):
        return obtained
    with path.open("rb") as stream:
        beginning = stream.read(512).lstrip().lower()
    if beginning.startswith((b"<!doctype html", b"<html")):
        raise RejectedError("has a web page instead of the file")
    if joined or all(fingerprint.checksum for fingerprint in known):
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
