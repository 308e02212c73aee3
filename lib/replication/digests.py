"""The hash function for code, knobs and arguments."""

import hashlib
from collections.abc import Iterable


def digest(texts: Iterable[str]) -> str:
    """SHA-256 of texts in order, each ended by a zero byte; 32 hexadecimal digits of it."""
    sha = hashlib.sha256()
    for text in texts:
        sha.update(text.encode() + b"\0")
    return sha.hexdigest()[:32]
