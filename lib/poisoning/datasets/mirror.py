"""Where ``DATA_MIRROR`` leads: a folder or a base URL, laid out as ``<set>/<file>``."""

import urllib.parse
import urllib.request
from pathlib import Path

from poisoning.errors import DataError

MIRROR_VARIABLE = "DATA_MIRROR"


def mirror_address(given: str) -> str:
    """A mirror as a path or as a URL of http or https, without a slash at its end; "" for none.

    ``~`` is the home folder, also where a shell has not put it in, and ``file://`` a path.

    Raises:
        DataError: it has another scheme, or names no host, or no such home.
    """
    address = given.strip()
    scheme, separator, _ = address.partition("://")
    if not separator:
        try:
            return str(Path(address).expanduser()) if address else ""
        except RuntimeError:
            raise DataError(_refused(given, "has no such home folder")) from None
    try:
        parts = urllib.parse.urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise DataError(_refused(given, "is no URL")) from None
    if scheme.lower() == "file" and host in (None, "localhost"):
        return urllib.request.url2pathname(parts.path)
    if scheme.lower() not in ("http", "https") or not host:
        raise DataError(_refused(given, "cannot be read"))
    return address.rstrip("/")


def _refused(given: str, reason: str) -> str:
    return (
        f"{MIRROR_VARIABLE} = {given!r} {reason}: it must be a folder, or a URL that begins with "
        "http://, https:// or file://."
    )
