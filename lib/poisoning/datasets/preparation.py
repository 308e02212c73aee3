"""From ``data/raw/<set>``, or an embedded stand-in, to ``data/<source>/<set>``."""

from pathlib import Path
from typing import Any, Literal

from poisoning import checks
from poisoning.datasets import store
from poisoning.datasets.download import fetched
from poisoning.datasets.parse import parse_checked
from poisoning.datasets.sources import DATA, source
from poisoning.datasets.standins import STANDINS


def prepare(name: str, origin: Literal["real", "standin"], data: Path = DATA) -> dict[str, Any]:
    """Prepare a data set into ``data/<origin>/<name>`` and return its manifest.

    The bytes written depend on the content alone: two runs give identical folders.

    Raises:
        ValueError: ``origin`` is neither real nor standin.
        DataError: there is no such data set; or its files were not fetched, were altered since, or
            hold other content than they should; or the disk cannot be written.
    """
    checks.one_of(origin, "origin", ("real", "standin"))
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
        chosen = fetched(name, folder, entry.variants)["variant"]
        variant = entry.variants[chosen]
        content = parse_checked(name, variant, folder)
        about = {
            "variant": chosen,
            "note": variant.note,
            "licence": entry.licence,
            "citation": entry.citation,
        }
    about |= {"name": name, "title": entry.title, "source": origin}
    return store.save(data / origin / name, content, about)
