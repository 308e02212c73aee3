"""The licences of all packages that ``requirements.txt`` pins: ``python -m replication.licences``.

Prints a table, and fails for a licence that is neither permissive nor a weak copyleft, unless a
package is listed with the reason why it may be used.
"""

import argparse
import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from replication import paths

ALLOWED = (
    "0BSD", "Apache", "BSD", "BSL-1.0", "CC0-1.0", "EPL-2.0", "HPND",
    "ISC", "ISCL", "LLVM-exception",
    "MIT", "MIT-0", "MIT-CMU", "MPL", "Mozilla Public", "PSF-2.0", "Python Software Foundation",
    "Unlicense", "ZPL-2.1", "Zlib", "Zope Public",
)  # fmt: skip
"""Beginnings of names of licences: permissive ones, and such as concern changes of a file only."""

EXCEPTIONS = {
    "docutils": "public domain and BSD; the GPL is that of a mode of Emacs, not installed",
    "grandalf": "GPL-2.0 or EPL-1.0, at one's choice: EPL; DVC draws graphs with it",
    "pygit2": "GPL-2.0 with an exception for linking; DVC reads git with it",
}
"""Packages whose metadata name another licence, and why they may be used."""


def licence(package: str) -> str:
    """What the installed package's metadata say: an SPDX expression, classifiers, or free text.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    about = metadata(package)
    if about.get("License-Expression"):
        return about["License-Expression"]
    trove = [c for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    named = [c.rpartition(" :: ")[2] for c in trove]
    named = [name for name in named if name not in ("OSI Approved", "DFSG approved")]
    text = (about.get("License") or "").strip()
    return "; ".join(named) or (text.splitlines()[0][:80] if text else "unknown")


def allowed(text: str) -> bool:
    """Whether all parts of an expression, or for an "or" one of them, may be used."""
    alternatives = re.split(r"\bOR\b", text.replace("(", " ").replace(")", " "))
    return any(
        all(part.strip().startswith(ALLOWED) for part in re.split(r"\bAND\b|\bWITH\b|;", one))
        for one in alternatives
    )


def pinned(file: Path) -> list[str]:
    """The packages of a file of pins."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line.partition("==")[0].strip() for line in lines if "==" in line]


def main(arguments: list[str] | None = None) -> int:
    """Print every package's licence; 1 if one is not allowed or a package is not installed."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    wrong = []
    for package in pinned(paths.ROOT / "requirements.txt"):
        try:
            found = licence(package)
        except PackageNotFoundError:
            found = "not installed"
        reason = EXCEPTIONS.get(package, "")
        print(f"{package:32} {found}{f'  ({reason})' if reason else ''}")
        if not reason and not allowed(found):
            wrong.append(f"{package}: {found}")
    for line in wrong:
        print(f"not allowed: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
