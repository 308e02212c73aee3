"""From published files to :class:`Content`, and the check that it is the registered content."""

from collections.abc import Callable, Iterable
from pathlib import Path

from poisoning.datasets import cifar10, dogfish, enron, imdb, landmine, mnist, sarcos
from poisoning.datasets.archives import UNREADABLE, reason
from poisoning.datasets.content import Content, check, digest
from poisoning.datasets.sources import Variant
from poisoning.errors import DataError

PARSERS: dict[str, Callable[[Path], Content]] = {
    "mnist": mnist.parse,
    "fashion-mnist": mnist.parse,
    "cifar-10": cifar10.parse,
    "enron": enron.parse,
    "imdb": imdb.parse,
    "dogfish": dogfish.parse,
    "sarcos": sarcos.parse,
    "landmine": landmine.parse,
}


def sentence(name: str, of: Iterable[str], error: BaseException) -> DataError:
    """What a reader stumbled over, for a user."""
    found = ", ".join(of)
    return DataError(f"{name} cannot be parsed from {found} ({reason(error)}): fetch it again.")


def parse_checked(name: str, variant: Variant, folder: Path) -> Content:
    """Parse the files of ``folder`` and compare size and content with the variant's.

    Raises:
        DataError: the files are malformed, or what they hold is not the variant's content.
    """
    try:
        content = PARSERS[name](folder)
        check(content)
    except DataError:
        raise
    except UNREADABLE as error:
        raise sentence(name, variant.files, error) from error
    counts = content.counts()
    for count in ("n", "n_test", "d"):
        if counts[count] != getattr(variant, count):
            raise DataError(
                f"{name} should have {count} = {getattr(variant, count)}, but {count} = "
                f"{counts[count]} was found in {', '.join(variant.files)}."
            )
    found = digest(content.arrays(), content.vocabulary)
    if variant.content not in (None, found):
        raise DataError(
            f"The content of {name} has digest {found[:16]}…, expected {variant.content[:16]}…: "
            "either the files or the versions of the packages that prepare them differ."
        )
    return content
