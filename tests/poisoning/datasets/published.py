"""Tiny files in the published formats, a registry entry for them, and a server that misbehaves."""

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy import ndarray

from poisoning.datasets.content import digest
from poisoning.datasets.parse import PARSERS
from poisoning.datasets.sources import Source

IDX = [
    f"{part}-{kind}-ubyte.gz"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]


def idx(array: ndarray) -> bytes:
    """A gzipped IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def mnist_files(seed: int = 0) -> dict[str, bytes]:
    """Twelve training and six test images of 4 × 4 pixels."""
    rng = np.random.default_rng(seed)
    found = {}
    for part, n in (("train", 12), ("t10k", 6)):
        found[f"{part}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (n, 4, 4)))
        found[f"{part}-labels-idx1-ubyte.gz"] = idx(np.arange(n) % 3)
    return found


def tar_gz(members: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """A ``.tar.gz`` of regular files, followed by members as they are given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return buffer.getvalue()


MAILS = {
    "enron1/Summary.txt": b"not a mail",
    "enron1/ham/2.ham.txt": b"Subject: meetings, meetings\nsee you at 10",
    "enron1/ham/1.ham.txt": b"a gas meeting",
    "enron1/spam/1.spam.txt": b"BUY cheap\x92s gas",
}


def enron_files(*extra: tarfile.TarInfo, mails: dict[str, bytes] = MAILS) -> dict[str, bytes]:
    """Three mails and a vocabulary of four words."""
    vocabulary = {"gas": 1, "meeting": 2, "buy": 0, "you": 3}
    return {
        "enron1.tar.gz": tar_gz(mails, *extra),
        "enron_vocab.json": json.dumps(vocabulary).encode(),
    }


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder that need not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def entry(
    name: str,
    files: dict[str, bytes],
    folder: Path,
    urls: list[str] = ("http://127.0.0.1:1/nowhere",),
    unchecked: tuple[str, ...] = (),
) -> Source:
    """A registry entry that knows ``files``, all but ``unchecked`` by their SHA-256."""
    content = PARSERS[name](write(folder, files))
    counts = content.counts()
    fingerprints = {
        file: {}
        if file in unchecked
        else {"size": len(raw), "checksum": f"sha256:{hashlib.sha256(raw).hexdigest()}"}
        for file, raw in files.items()
    }
    return Source.model_validate(
        {
            "title": "tiny",
            "homepage": "https://example.org",
            "licence": "none",
            "citation": "none",
            "preparation": "none",
            "files": {file: {"urls": [url.format(file=file) for url in urls]} for file in files},
            "variants": {
                "tiny": {
                    "note": "made by a test",
                    "files": fingerprints,
                    "content": digest(content.arrays(), content.vocabulary),
                    **{key: counts[key] for key in ("n", "n_test", "d")},
                }
            },
        }
    )


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def whole(content: bytes) -> Answer:
    """Send everything."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def truncated(content: bytes) -> Answer:
    """Announce everything, send half and hang up."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])

    return answer


def stalled(content: bytes, started: Path) -> Answer:
    """Send half, make the file ``started``, and then nothing for a minute."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])
        request.wfile.flush()
        started.touch()
        with contextlib.suppress(OSError):
            for _ in range(600):
                time.sleep(0.1)
                if request.connection.recv(1) == b"":  # the client was killed
                    return

    return answer


@contextlib.contextmanager
def serving(answers: dict[str, Answer]) -> Iterator[str]:
    """A web server on this machine; its base URL. Paths without an answer are 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.get(self.path, lambda request: request.send_error(404))(self)

        def log_message(self, *arguments: object) -> None:
            pass

    with listening(Handler) as url:
        yield url


@contextlib.contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """A web server on this machine that answers by ``handler``; its base URL."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
