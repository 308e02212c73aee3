"""``sources.yaml``: where every data set comes from and how its variants are recognised."""

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from poisoning.errors import DataError

DATA = Path("data")
"""The default folder of all data sets, below the current folder."""

REGISTRY = Path(__file__).with_name("sources.yaml")

Checksum = Annotated[str, Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Entry(BaseModel):
    """A block of the registry; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class File(Entry):
    """Official addresses of a file, tried in order."""

    urls: list[str] = Field(min_length=1)


class Fingerprint(Entry):
    """Size in bytes and checksum of a file; None where it is not published."""

    size: int | None = None
    checksum: Checksum | None = None

    def matches(self, size: int, checksums: dict[str, str]) -> bool:
        """Whether a file of this size and these checksums is the one described."""
        if self.checksum is None or (self.size is not None and self.size != size):
            return False
        algorithm, value = self.checksum.split(":")
        return checksums[algorithm] == value

    def __str__(self) -> str:
        return f"{self.size} bytes with {self.checksum}"


class Variant(Entry):
    """One published form of a data set.

    ``content`` is the digest of the prepared arrays (:func:`poisoning.datasets.content.digest`),
    None where it has never been computed: the files' checksums, or else the counts, then identify
    the variant.
    """

    note: str
    files: dict[str, Fingerprint]
    content: Digest | None = None
    n: int
    n_test: int
    d: int

    @property
    def checksummed(self) -> bool:
        """Whether every file is recognised by its checksum alone."""
        return all(fingerprint.checksum for fingerprint in self.files.values())


class Source(Entry):
    """A data set: its names, terms, files and variants."""

    title: str
    homepage: str
    licence: str
    citation: str
    preparation: str
    files: dict[str, File]
    variants: dict[str, Variant]

    @property
    def verifiable(self) -> bool:
        """Whether fetched files can be checked: some variant has checksums or a known content."""
        return any(variant.checksummed or variant.content for variant in self.variants.values())


@cache
def registry(path: Path = REGISTRY) -> dict[str, Source]:
    """Every data set by name.

    Raises:
        pydantic.ValidationError: the file has an unknown key or a malformed value.
    """
    entries = yaml.safe_load(path.read_text("utf-8"))
    return {name: Source.model_validate(entry) for name, entry in entries.items()}


def source(name: str) -> Source:
    """One data set of the registry.

    Raises:
        DataError: there is no such data set.
    """
    known = registry()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
        raise DataError(f"There is no data set {name!r}: {hint}")
    return known[name]
