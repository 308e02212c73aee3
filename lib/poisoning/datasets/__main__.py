"""``python -m poisoning.datasets list | fetch <set> | prepare <set> --source real|standin``."""

import argparse
import logging
import sys
from pathlib import Path

from poisoning.datasets import fetch, prepare, registry
from poisoning.datasets.sources import DATA, Source
from poisoning.errors import DataError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a failure is one sentence on stderr and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m poisoning.datasets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every data set, its variants and terms")
    for command, about in (
        ("fetch", "download and verify the published files into data/raw/<set>"),
        ("prepare", "write data/<source>/<set>, which notebooks load"),
    ):
        sub = commands.add_parser(command, help=about)
        sub.add_argument("set", help="its name in the registry (`list` prints it)")
        sub.add_argument("--data", type=Path, default=DATA, help="the folder above raw/ and real/")
        if command == "prepare":
            sub.add_argument("--source", choices=("real", "standin"), required=True)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        if chosen.command == "list":
            for name, entry in registry().items():
                print(_describe(name, entry))
        elif chosen.command == "fetch":
            manifest = fetch(chosen.set, chosen.data)
            origins = sorted({file["origin"] for file in manifest["files"].values()})
            print(f"{chosen.set}: variant {manifest['variant']}, from {', '.join(origins)}")
        else:
            manifest = prepare(chosen.set, chosen.source, chosen.data)
            print(
                f"{chosen.set}: variant {manifest['variant']}, n = {manifest['n']}, "
                f"n_test = {manifest['n_test']}, d = {manifest['d']}"
            )
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the next run goes on there.", file=sys.stderr)
        return 130
    return 0


def _describe(name: str, entry: Source) -> str:
    """A paragraph about a data set."""
    lines = [f"{name}: {entry.title}", f"  {entry.homepage}", f"  licence: {entry.licence}"]
    for variant, about in entry.variants.items():
        sizes = [fingerprint.size for fingerprint in about.files.values()]
        download = "unknown size" if None in sizes else f"{sum(sizes) / 1e6:.1f} MB"
        lines.append(
            f"  {variant}: n = {about.n}, n_test = {about.n_test}, d = {about.d}, {download}: "
            f"{about.note}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
