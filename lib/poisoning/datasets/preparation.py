"""From ``data/raw/<set>``, or an embedded stand-in, to ``data/<source>/<set>``."""

import json
from pathlib import Path
from typing import Any, Literal

from poisoning.datasets import files, store
from poisoning.datasets.parse import parse_checked
from poisoning.datasets.sources import DATA, Variant, source
from poisoning.datasets.standins import STANDINS
from poisoning.errors import DataError


def prepare(name: str, origin: Literal["real", "standin"], data: Path = DATA) -> dict[str, Any]:
    """Prepare a data set into ``data/<origin>/<name>`` and return its manifest.

    The bytes written depend on the content alone: two runs give identical folders.

    Raises:
        DataError: the files were not fetched, were altered since, or hold other content than they
            should; or the disk cannot be written.
    """
    entry = source(name)
    if origin == "standin":
        standin = STANDINS[name]
        content = standin.make()
        about = {
            "variant": "standin",
            "note": standin.description,
            "licence": standin.licence,
            "citation": standin.citation,
        }
    else:
        folder = data / "raw" / name
        chosen, variant = _fetched(name, folder, entry.variants)
        content = parse_checked(name, variant, folder)
        about = {
            "variant": chosen,
            "note": variant.note,
            "licence": entry.licence,
            "citation": entry.citation,
        }
    about |= {"name": name, "title": entry.title, "source": origin}
    return store.save(data / origin / name, content, about)


def _fetched(name: str, folder: Path, variants: dict[str, Variant]) -> tuple[str, Variant]:
    """The variant that was fetched, after a check that its files are still what they were."""
    remedy = f"run `python -m poisoning.datasets fetch {name}`."
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        for file, recorded in manifest["files"].items():
            if files.checksums(folder / file)["sha256"] != recorded["sha256"]:
                raise DataError(f"{folder / file} was altered after it was fetched: {remedy}")
        return manifest["variant"], variants[manifest["variant"]]
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise DataError(f"{name} has not been fetched ({missing} is missing): {remedy}") from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}/manifest.json cannot be read ({error}): {remedy}") from error
