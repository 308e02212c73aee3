"""A server on this machine that misbehaves: the right file in the end, or one clear sentence."""

import contextlib
import io
import logging
import multiprocessing
import os
import re
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from poisoning.datasets import download, fetch, files, prepare, sources
from poisoning.errors import DataError
from tests.poisoning.datasets.published import (
    IDX,
    Answer,
    enron_files,
    entry,
    mnist_files,
    serving,
    truncated,
    whole,
    write,
)

PUBLISHED = mnist_files()
IMAGES = IDX[0]
RAW = PUBLISHED[IMAGES]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Three tries, no pauses, half a second of silence."""
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(download, "TIMEOUT", 0.5)


@pytest.fixture
def register(monkeypatch, tmp_path):
    """Make ``name`` the one known data set, with these files as its registered variant."""

    def make(name="mnist", published=PUBLISHED, **options):
        known = entry(name, published, tmp_path / "published" / name, **options)
        monkeypatch.setattr(sources, "registry", lambda: {name: known})

    make()
    return make


def served(images: Answer, name="mnist", published=PUBLISHED) -> dict[str, Answer]:
    """A mirror that misbehaves with the first file alone."""
    first, *others = published
    return {f"/{name}/{first}": images} | {f"/{name}/{f}": whole(published[f]) for f in others}


def arrives(data: Path, answers: dict[str, Answer], name="mnist", published=PUBLISHED) -> None:
    """The set is fetched, every byte is right, and nothing else is left."""
    with serving(answers) as url:
        fetch(name, data, url)
    folder = data / "raw" / name
    assert {path.name for path in (data / "raw").iterdir()} == {name}
    assert {path.name for path in folder.iterdir()} == {*published, "manifest.json"}
    assert all((folder / file).read_bytes() == raw for file, raw in published.items())


def refused(data: Path, answers: dict[str, Answer], name="mnist") -> str:
    """The sentence that says which address did what; nothing that is left can be prepared."""
    with serving(answers) as url, pytest.raises(DataError) as caught:
        fetch(name, data, url)
    message = str(caught.value)
    assert "\n" not in message
    assert url in message
    assert message.endswith("or run `make repro`, whose demo profile needs no data.")
    with pytest.raises(DataError, match="has not been fetched"):
        prepare(name, "real", data)
    return message


class InTurn:
    """A different answer every time; the last for ever. Keeps the ranges that were asked for."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.ranges: list[str | None] = []

    def __call__(self, request) -> None:
        self.ranges.append(request.headers.get("Range"))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        answer(request)


def failing(code: int) -> Answer:
    return lambda request: request.send_error(code)


def sending(*parts: bytes, code=200, wait=0.0, **headers: str) -> Answer:
    """These headers and, with a pause before each, these parts."""

    def answer(request) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        with contextlib.suppress(OSError):  # the client has given up
            for part in parts:
                time.sleep(wait)
                request.wfile.write(part)

    return answer


def stalls(request) -> None:
    """Send nine bytes, and nothing for longer than anybody waits."""
    sending(RAW[:9], Content_Length=str(len(RAW)))(request)
    time.sleep(0.8)


def in_ranges(content: bytes, most: int | None = None) -> Answer:
    """What is asked for, or of that ``most`` bytes before the connection is closed."""

    def answer(request) -> None:
        begin = int((request.headers.get("Range") or "bytes=0-")[6:-1])
        size = len(content)
        if begin >= size:
            sending(code=416, Content_Range=f"bytes */{size}")(request)
            return
        span = {"Content_Range": f"bytes {begin}-{size - 1}/{size}"} if begin else {}
        code, length = (206 if begin else 200), str(size - begin)
        sending(content[begin:][:most], code=code, Content_Length=length, **span)(request)

    return answer


@pytest.mark.parametrize(
    "images",
    [
        InTurn(failing(500), whole(RAW)),
        InTurn(failing(503), truncated(RAW), whole(RAW)),
        InTurn(lambda request: None, whole(RAW)),  # hangs up without an answer
        sending(*(RAW[i : i + 40] for i in range(0, len(RAW), 40)), wait=0.2),  # slow, no length
        InTurn(sending(RAW[:50], code=206, Content_Range="bytes 0-49/231"), in_ranges(RAW)),
        sending(RAW, Content_Length="²31"),
        sending(RAW, Content_Length="9" * 5000),
        sending(RAW, Content_Encoding="gzip", Content_Length=str(len(RAW))),
    ],
)
def test_a_server_that_stumbles_or_is_slow_is_waited_for(register, tmp_path, images):
    arrives(tmp_path / "data", served(images))


REFUSALS = {
    "404": (failing(404), r"answered 404 Not Found"),
    "500 for ever": (failing(500), r"answered 500 Internal Server Error"),
    "half of it for ever": (truncated(RAW), r"broke off after 115 of 231 bytes"),
    "nothing": (sending(Content_Length="0"), r"has 0 bytes with sha256:.* expected 231 bytes"),
    "too short a length": (
        sending(RAW, Content_Length="100"), r"has 100 bytes with sha256:.*expected 231 bytes"
    ),
    "too long a length": (sending(RAW, Content_Length="232"), r"has 232 bytes, expected 231"),
    "much too long": (sending(RAW, Content_Length="9" * 12), r"has 999999999999 bytes, expected"),
    "no end": (sending(*[RAW] * 20), r"has more than 231 bytes, expected 231 at most"),
    "to itself": (
        lambda r: sending(code=302, Location=r.path)(r), r"answered 302 .* infinite loop"
    ),
    "to a file": (sending(code=302, Location="file:///etc/passwd"), r"302 .* not allowed"),
    "to nowhere": (sending(code=302, Location="http://[bad"), r"leads to no address"),
    "no port": (sending(code=301, Location="http://a:b/"), r"leads to no address|cannot be reach"),
    "silence": (sending(RAW[:9], b"", wait=0.8), r"sent nothing for 0.5 s, after 0 bytes"),
    "silence in between": (stalls, r"sent nothing for 0.5 s, after 9 bytes"),
    "no HTTP": (lambda request: request.wfile.write(b"hello\r\n"), r"broke off after 0 bytes"),
    "a bad chunk": (
        sending(b"zz\r\nabc", Transfer_Encoding="chunked"), r"broke off after 0 bytes"
    ),
    "a part unasked": (
        sending(RAW[50:], code=206, Content_Range="bytes 50-230/231"),
        r"answered 206 to a request without a range",
    ),
}  # fmt: skip


@pytest.mark.parametrize("images, reason", REFUSALS.values(), ids=REFUSALS)
def test_a_server_that_does_not_recover_is_told_of_in_one_sentence(
    register, tmp_path, images, reason
):
    assert re.search(reason, refused(tmp_path / "data", served(images)))
    arrives(tmp_path / "data", served(whole(RAW)))


def test_a_download_that_breaks_off_goes_on_where_it_was(register, tmp_path):
    images = InTurn(in_ranges(RAW, 60))
    arrives(tmp_path / "data", served(images))
    assert images.ranges == [None, "bytes=60-", "bytes=120-", "bytes=180-"]


def test_a_run_goes_on_where_the_one_before_has_failed(register, tmp_path):
    broken = InTurn(in_ranges(RAW, 60), failing(404))
    refused(tmp_path / "data", served(broken))
    images = InTurn(in_ranges(RAW))
    with serving(served(images)) as url:
        # The address is part of what is continued, and this server has another port.
        part = tmp_path / "data/raw/.mnist.part"
        (begun,) = part.glob(f"{IMAGES}.*")
        key = download.hashlib.sha256(f"{url}/mnist/{IMAGES}".encode()).hexdigest()[:8]
        begun.rename(part / f"{IMAGES}.{key}")
        fetch("mnist", tmp_path / "data", url)
    assert images.ranges == ["bytes=60-"]
    assert (tmp_path / "data/raw/mnist" / IMAGES).read_bytes() == RAW


@pytest.mark.parametrize(
    "then",
    [
        in_ranges(RAW[::-1] + RAW),  # longer than before
        in_ranges(RAW[:70]),  # shorter than what is there
        in_ranges(RAW[:100]),  # exactly what is there
        in_ranges(RAW[::-1]),  # of the same length
        truncated(RAW[::-1]),
        sending(RAW[100:], code=206),  # does not say which part
        sending(RAW[90:], code=206, Content_Range="bytes 90-230/231"),
        sending(code=416),
        whole(b"<html>moved</html>"),
    ],
)
def test_a_file_that_changes_on_the_way_is_never_joined_with_what_came_before(
    register, tmp_path, then
):
    refused(tmp_path, served(InTurn(in_ranges(RAW, 100), then)))
    arrives(tmp_path, served(whole(RAW)))


def test_a_download_whose_parts_do_not_fit_begins_again(register, tmp_path):
    images = InTurn(in_ranges(RAW, 100), in_ranges(RAW[::-1]), in_ranges(RAW))
    arrives(tmp_path, served(images))
    assert images.ranges == [None, "bytes=100-", None]


def test_a_file_without_a_checksum_is_never_joined(register, tmp_path):
    published = enron_files()
    register("enron", published, unchecked=("enron1.tar.gz",))
    raw = published["enron1.tar.gz"]
    mails = InTurn(in_ranges(raw, 60), in_ranges(raw))
    arrives(tmp_path, served(mails, "enron", published), "enron", published)
    assert mails.ranges == [None, None]


def test_a_file_of_two_servers_is_never_joined(register, tmp_path):
    other = mnist_files(seed=1)[IMAGES]
    answers = {f"/two/{f}": whole(raw) for f, raw in PUBLISHED.items()}
    answers |= {f"/one/{IMAGES}": InTurn(in_ranges(other, 60), failing(404))}
    with serving(answers) as url:
        register(urls=[url + "/one/{file}", url + "/two/{file}"])
        fetch("mnist", tmp_path)
    assert (tmp_path / "raw/mnist" / IMAGES).read_bytes() == RAW
    assert {path.name for path in (tmp_path / "raw/mnist").iterdir()} == {*IDX, "manifest.json"}


def archive(content: bytes, method=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        made.writestr(IMAGES, content)
    return buffer.getvalue()


BOMB = archive(bytes(50_000_000))
TORN = archive(RAW, zipfile.ZIP_LZMA)


@pytest.mark.parametrize(
    "packed, reason",
    [
        (BOMB, "unpacks to 50000000 bytes, expected 231"),
        # The archive says that its member is small: what it unpacks to is cut there.
        (BOMB.replace((50_000_000).to_bytes(4, "little"), (231).to_bytes(4, "little")), "no zip"),
        (BOMB[:-40], "has no zip archive with the member"),
        (TORN.replace(TORN[60:70], b"0123456789"), "has no zip archive with the member"),
        (archive(RAW).replace(IMAGES.encode(), b"../" + IMAGES.encode()[3:]), "has no zip archive"),
    ],
)
def test_archives_that_are_bombs_or_torn(register, tmp_path, packed, reason):
    members = {f"/{f}": whole(raw) for f, raw in PUBLISHED.items()}
    with serving({"/all.zip": whole(packed)} | members) as url:
        register(urls=[url + "/all.zip#{file}"])
        with pytest.raises(DataError, match=reason):
            fetch("mnist", tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_mirror_that_holds_something_else_than_files(register, tmp_path):
    folder = write(tmp_path / "mirror/mnist", PUBLISHED)
    makers: list[tuple[Callable[[Path], None], str]] = [
        (os.mkfifo, "is no file"),
        (Path.mkdir, "is no file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no file"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read"),
    ]
    for make, reason in makers:
        (folder / IMAGES).unlink()
        make(folder / IMAGES)
        with pytest.raises(DataError, match=reason):
            fetch("mnist", tmp_path / "data", str(tmp_path / "mirror"))
        files.delete(folder / IMAGES)
        (folder / IMAGES).touch()
    (folder / IMAGES).unlink()
    (folder / IMAGES).symlink_to(tmp_path / "published/mnist" / IMAGES)  # to the file itself
    fetch("mnist", tmp_path / "data", str(tmp_path / "mirror"))


def test_a_data_folder_that_is_a_link_to_another_disk_is_replaced_again_and_again(
    register, tmp_path
):
    write(tmp_path / "mirror/mnist", PUBLISHED)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/mnist").symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        fetch("mnist", tmp_path / "data", str(tmp_path / "mirror"))
        assert [path.name for path in (tmp_path / "data/raw").iterdir()] == ["mnist"]


def fetch_and_tell(data: Path, url: str, log: Path) -> None:
    logging.getLogger().addHandler(logging.FileHandler(log))
    fetch("mnist", data, url)


def test_of_several_fetches_of_one_set_one_downloads_and_the_others_wait(register, tmp_path):
    counted = [InTurn(sending(raw, wait=0.1)) for raw in PUBLISHED.values()]
    answers = {f"/mnist/{f}": count for f, count in zip(PUBLISHED, counted, strict=True)}
    with serving(answers) as url:
        fork = multiprocessing.get_context("fork")
        processes = [
            fork.Process(target=fetch_and_tell, args=(tmp_path, url, tmp_path / "log"))
            for _ in range(3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [len(count.ranges) for count in counted] == [1] * 4
    told = (tmp_path / "log").read_text()
    assert told == 2 * "another process is fetching mnist: waiting for it.\n"
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["mnist"]


def test_who_has_waited_for_a_fetch_that_failed_fetches_by_itself(register, tmp_path):
    target = tmp_path / "raw/mnist"
    entered = threading.Event()

    def hold() -> None:
        with files.alone(target, "fetching mnist"):
            entered.set()
            time.sleep(0.3)

    other = threading.Thread(target=hold)
    other.start()
    entered.wait()
    arrives(tmp_path, served(whole(RAW)))
    other.join()
