"""The prepared folder: ``arrays.npz``, ``vocabulary.json`` (text) and ``manifest.json``.

Its bytes depend on the content alone: no dates, no compression whose output differs between
versions of zlib, no paths. When it is read, arrays, vocabulary and manifest are checked against the
digests in the manifest: what decides what is loaded is covered by one.
"""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from poisoning.datasets import files
from poisoning.datasets.archives import UNREADABLE, read_json, read_npz, reason
from poisoning.datasets.content import Content, digest, restore
from poisoning.datasets.dataset import Dataset
from poisoning.errors import DataError

BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip archive can record."""


def save(target: Path, content: Content, about: dict[str, Any]) -> dict[str, Any]:
    """Write a prepared data set into the folder ``target``, whole or not at all.

    ``about`` (name, variant, licence …) goes into the manifest beside the domain, the counts,
    ``content``, the digest of the arrays, and ``digest``, that of all of these. Returns the
    manifest.

    Raises:
        DataError: the folder cannot be written.
    """
    arrays = content.arrays()
    manifest = {
        **about,
        **content.counts(),
        "domain": content.domain,
        "content": digest(arrays, content.vocabulary),
    }
    manifest["digest"] = manifest_digest(manifest)
    part = files.part_of(target)
    with files.alone(target, f"preparing {target.name}"), files.writing(target):
        # A run that was killed may have left its folder.
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            _write_npz(part / "arrays.npz", arrays)
            if content.vocabulary is not None:
                files.write_json(part / "vocabulary.json", content.vocabulary)
            files.write_json(part / "manifest.json", manifest)
            files.sync(part)
            files.replace_folder(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return manifest


def load(path: str | Path) -> Dataset:
    """Read a prepared data set: float64 examples, pixels divided by 255, bags of words sparse.

    ``path`` is its folder.

    Raises:
        DataError: the folder is missing, incomplete or altered; the sentence names the remedy.
        TypeError: ``path`` is no path.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"path must be the folder of a data set, not {path!r}.")
    path = Path(path)
    try:
        manifest = read_json(path / "manifest.json")
        arrays = read_npz(path / "arrays.npz")
        vocabulary = None
        if (path / "vocabulary.json").is_file():
            vocabulary = read_json(path / "vocabulary.json")
        found = digest(arrays, vocabulary)
        altered = manifest["content"] != found or manifest["digest"] != manifest_digest(manifest)
        about = [manifest[key] for key in ("name", "variant", "domain")]
        fields = None if altered else restore(about[-1], arrays, vocabulary)
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise DataError(
            f"{path} is no prepared data set ({missing} is missing): {_remedy(path)}"
        ) from error
    except (DataError, *UNREADABLE) as error:
        raise DataError(f"{path} cannot be read ({reason(error)}): {_remedy(path)}") from error
    if altered:
        raise DataError(f"{path} was altered after it was prepared: {_remedy(path)}")
    return Dataset(*about, manifest=manifest, **fields)


def manifest_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of all that a manifest says, which covers the arrays by their own digest."""
    said = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _remedy(path: Path) -> str:
    return f"run `python -m poisoning.datasets prepare {path.name}` again."


def _write_npz(path: Path, arrays: dict[str, ndarray]) -> None:
    """An ``.npz`` of stored members in order of name; ``np.load`` reads it."""
    with path.open("wb") as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name, array in sorted(arrays.items()):
                info = zipfile.ZipInfo(f"{name}.npy", BEGINNING)
                with archive.open(info, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())
