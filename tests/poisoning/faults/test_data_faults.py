"""Bad files, bad networks, bad disks: one clear sentence, nothing left that looks like data."""

import errno
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from poisoning.datasets import download, fetch, files, prepare, sources
from poisoning.datasets.__main__ import main
from poisoning.errors import DataError
from tests.poisoning.datasets.published import (
    IDX,
    MAILS,
    Source,
    enron_files,
    entry,
    mnist_files,
    serving,
    stalled,
    truncated,
    whole,
    write,
)

ROOT = Path(__file__).parents[3]
IMAGES = IDX[0]


@pytest.fixture(autouse=True)
def no_mirror_and_no_second_try(monkeypatch):
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    monkeypatch.setattr(download, "PAUSES", ())


@pytest.fixture
def register(monkeypatch, tmp_path):
    """Make ``name`` the one known data set, with these files as its registered variant."""

    def make(name, published, **options) -> Source:
        known = entry(name, published, tmp_path / "published" / name, **options)
        monkeypatch.setattr(sources, "registry", lambda: {name: known})
        return known

    return make


@pytest.fixture
def mnist(register, tmp_path):
    """A registered tiny MNIST, a mirror folder that holds it, and a folder to fetch it into."""
    published = mnist_files()
    register("mnist", published)
    write(tmp_path / "mirror/mnist", published)
    return published


def refusal(name: str, data: Path, mirror: Path | str | None) -> str:
    """The one sentence that a fetch fails with; nothing may be left behind."""
    with pytest.raises(DataError) as caught:
        fetch(name, data, None if mirror is None else str(mirror))
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert not list(data.rglob("*.gz"))
    assert not list(data.rglob("*manifest*"))
    with pytest.raises(DataError, match=f"has not been fetched.*fetch {name}"):
        prepare(name, "real", data)
    return message


def succeeds(name: str, data: Path, mirror: Path | str) -> None:
    """The next good run brings and prepares the data set."""
    fetch(name, data, str(mirror))
    assert prepare(name, "real", data)["variant"] == "tiny"
    hidden = [path for path in data.rglob("*") if path.name.startswith(".")]
    assert hidden == []


class TestBadFiles:
    def test_truncated(self, mnist, tmp_path):
        path = tmp_path / "mirror/mnist" / IMAGES
        path.write_bytes(mnist[IMAGES][:-7])
        message = refusal("mnist", tmp_path / "data", tmp_path / "mirror")
        assert f"mnist/{IMAGES}" in message
        assert f"has {len(mnist[IMAGES]) - 7} bytes" in message
        assert f"expected {len(mnist[IMAGES])} bytes with sha256:" in message
        path.write_bytes(mnist[IMAGES])
        succeeds("mnist", tmp_path / "data", tmp_path / "mirror")

    def test_flipped_byte(self, mnist, tmp_path):
        path = tmp_path / "mirror/mnist" / IMAGES
        raw = bytearray(mnist[IMAGES])
        raw[30] ^= 1
        path.write_bytes(raw)
        message = refusal("mnist", tmp_path / "data", tmp_path / "mirror")
        assert re.search(r"sha256:[0-9a-f]{64} and md5:[0-9a-f]{32}, expected", message)
        path.write_bytes(mnist[IMAGES])
        succeeds("mnist", tmp_path / "data", tmp_path / "mirror")

    def test_wrong_content_under_the_right_name(self, mnist, tmp_path):
        write(tmp_path / "other/mnist", mnist_files(seed=1))
        assert IMAGES in refusal("mnist", tmp_path / "data", tmp_path / "other")
        succeeds("mnist", tmp_path / "data", tmp_path / "mirror")

    def test_wrong_content_without_a_published_checksum(self, register, tmp_path):
        register("enron", enron_files(), unchecked=("enron1.tar.gz",))
        write(tmp_path / "mirror/enron", enron_files())
        forged = MAILS | {"enron1/ham/1.ham.txt": b"a gas gas meeting"}
        write(tmp_path / "forged/enron", enron_files(mails=forged))
        message = refusal("enron", tmp_path / "data", tmp_path / "forged")
        assert re.search("content of enron has digest .* expected", message)
        succeeds("enron", tmp_path / "data", tmp_path / "mirror")

    def test_garbage_without_a_published_checksum(self, register, tmp_path):
        register("enron", enron_files(), unchecked=("enron1.tar.gz",))
        write(tmp_path / "mirror/enron", enron_files() | {"enron1.tar.gz": b"garbage"})
        message = refusal("enron", tmp_path / "data", tmp_path / "mirror")
        assert "enron cannot be parsed from enron1.tar.gz" in message

    def test_another_number_of_examples(self, register, tmp_path):
        register("enron", enron_files(), unchecked=("enron1.tar.gz",))
        more = MAILS | {"enron1/ham/3.ham.txt": b"one more"}
        write(tmp_path / "mirror/enron", enron_files(mails=more))
        message = refusal("enron", tmp_path / "data", tmp_path / "mirror")
        assert "n = 3, but n = 4" in message

    def test_files_of_two_variants_are_not_mixed(self, register, monkeypatch, tmp_path):
        first, second = mnist_files(), mnist_files(seed=1)
        known = register("mnist", first)
        other = entry("mnist", second, tmp_path / "second").variants["tiny"]
        both = known.model_copy(update={"variants": known.variants | {"other": other}})
        monkeypatch.setattr(sources, "registry", lambda: {"mnist": both})
        write(tmp_path / "mirror/mnist", first | {IMAGES: second[IMAGES]})
        assert "different variants" in refusal("mnist", tmp_path / "data", tmp_path / "mirror")


class TestArchives:
    """The archive's checksum is unknown, so that only its members give it away."""

    @staticmethod
    def link(kind: bytes, name: str, target: str) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        return info

    @pytest.mark.parametrize(
        "member, reason",
        [
            (tarfile.TarInfo("../../escaped.txt"), "points out of the archive"),
            (tarfile.TarInfo("enron1/ham/../../../escaped.txt"), "points out of the archive"),
            (tarfile.TarInfo("/tmp/escaped.txt"), "points out of the archive"),
            (link(tarfile.SYMTYPE, "enron1/ham/3.txt", "/etc/passwd"), "a link or a device"),
            (link(tarfile.LNKTYPE, "enron1/ham/3.txt", "enron1/ham/1.ham.txt"), "a link"),
            (link(tarfile.CHRTYPE, "enron1/ham/3.txt", ""), "a link or a device"),
        ],
    )
    def test_dangerous_members(self, register, tmp_path, member, reason):
        register("enron", enron_files(), unchecked=("enron1.tar.gz",))
        write(tmp_path / "bad/enron", enron_files(member))
        before = set(tmp_path.rglob("*"))
        message = refusal("enron", tmp_path / "a/b/data", tmp_path / "bad")
        assert re.search(f"enron1.tar.gz is refused: its member .*{reason}", message)
        assert {path.name for path in set(tmp_path.rglob("*")) - before} <= {
            "a",
            "b",
            "data",
            "raw",
        }
        write(tmp_path / "mirror/enron", enron_files())
        succeeds("enron", tmp_path / "a/b/data", tmp_path / "mirror")


class TestNetwork:
    def test_a_web_page_instead_of_data(self, mnist, tmp_path):
        page = b"\n <!DOCTYPE html><html><body>Please log in</body></html>"
        answers = {f"/mnist/{file}": whole(page) for file in IDX}
        with serving(answers) as url:
            message = refusal("mnist", tmp_path / "data", url)
        assert f"{url}/mnist/{IMAGES} has a web page instead of the file" in message
        succeeds("mnist", tmp_path / "data", tmp_path / "mirror")

    def test_the_server_hangs_up(self, mnist, tmp_path):
        with serving({f"/mnist/{IMAGES}": truncated(mnist[IMAGES])}) as url:
            message = refusal("mnist", tmp_path / "data", url)
        half, all_of_it = len(mnist[IMAGES]) // 2, len(mnist[IMAGES])
        assert f"broke off after {half} of {all_of_it} bytes" in message
        with serving({f"/mnist/{file}": whole(raw) for file, raw in mnist.items()}) as url:
            succeeds("mnist", tmp_path / "data", url)

    def test_not_found(self, mnist, tmp_path):
        with serving({}) as url:
            assert "answered 404" in refusal("mnist", tmp_path / "data", url)

    def test_no_network(self, mnist, tmp_path):
        """Port 1 of this machine refuses every connection."""
        message = refusal("mnist", tmp_path / "data", None)
        assert f"mnist/{IMAGES} could not be had: http://127.0.0.1:1/nowhere cannot be reached" in (
            message
        )
        assert "`make repro`" in message
        assert "demo" in message
        succeeds("mnist", tmp_path / "data", tmp_path / "mirror")

    def test_every_place_tried_is_named_and_logged(self, register, tmp_path, caplog):
        published = mnist_files()
        with serving({"/second/" + IMAGES: truncated(published[IMAGES])}) as url:
            register("mnist", published, urls=[url + "/first/{file}", url + "/second/{file}"])
            message = refusal("mnist", tmp_path / "data", tmp_path / "nothing")
        places = (f"{tmp_path}/nothing/mnist/{IMAGES}", "/first/", "/second/")
        assert [place in message for place in places] == [True] * 3
        told = [record.getMessage() for record in caplog.records]
        assert sum(line.startswith(f"mnist/{IMAGES}: ") for line in told) == 3
        assert sum(line.endswith("trying again.") for line in told) == 1

    @pytest.mark.slow
    def test_killed_in_the_middle(self, mnist, tmp_path):
        """SIGKILL gives the process no chance to tidy up."""
        published, data, started = (
            tmp_path / "mirror/mnist",
            tmp_path / "data",
            tmp_path / "started",
        )
        program = (
            "import sys; from pathlib import Path\n"
            "from poisoning.datasets import fetch, sources\n"
            "from tests.poisoning.datasets.published import entry\n"
            "folder = Path(sys.argv[1])\n"
            "files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}\n"
            "known = entry('mnist', files, folder)\n"
            "sources.registry = lambda: {'mnist': known}\n"
            "fetch('mnist', Path(sys.argv[2]), sys.argv[3])\n"
        )
        with serving(
            {f"/mnist/{file}": stalled(raw, started) for file, raw in mnist.items()}
        ) as url:
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(published), str(data), url],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": f"{ROOT / 'lib'}{os.pathsep}{ROOT}"},
            )
            deadline = time.monotonic() + 60
            while not started.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            part = data / "raw/.mnist.part"
            while not list(part.glob("*.gz.*")) and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        left = {path.name for path in (data / "raw").iterdir()}
        assert left == {".mnist.part", ".mnist.lock"}
        with pytest.raises(DataError, match="has not been fetched"):
            prepare("mnist", "real", data)
        succeeds("mnist", data, tmp_path / "mirror")

    def test_a_failed_fetch_leaves_the_last_good_one(self, mnist, tmp_path):
        succeeds("mnist", tmp_path / "data", tmp_path / "mirror")
        with pytest.raises(DataError):
            fetch("mnist", tmp_path / "data", str(tmp_path / "nothing"))
        assert prepare("mnist", "real", tmp_path / "data")["variant"] == "tiny"


class TestDisk:
    """Root may write to a folder without write permission, so that other means are needed."""

    def test_a_file_is_where_the_folder_should_be(self, mnist, tmp_path):
        (tmp_path / "occupied").write_text("")
        with pytest.raises(DataError, match=r"occupied/raw/mnist cannot be written \(Not a dir"):
            fetch("mnist", tmp_path / "occupied", str(tmp_path / "mirror"))
        with pytest.raises(DataError, match="standin/mnist cannot be written"):
            prepare("mnist", "standin", tmp_path / "occupied")

    @pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
    def test_the_disk_refuses_to_write(self, mnist, tmp_path, monkeypatch, code):
        def refuse(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            message = refusal("mnist", tmp_path / "data", tmp_path / "mirror")
        assert f"cannot be written ({os.strerror(code)})" in message
        succeeds("mnist", tmp_path / "data", tmp_path / "mirror")

    @pytest.mark.slow
    def test_the_quota_is_full(self, mnist, tmp_path):
        """The kernel itself refuses to let any file grow beyond 100 bytes."""
        program = (
            "import resource, signal, sys; from pathlib import Path\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "from poisoning.datasets.__main__ import main\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
            "sys.exit(main(['prepare', 'mnist', '--source', 'standin', '--data', sys.argv[1]]))\n"
        )
        data = tmp_path / "data"
        run = subprocess.run(
            [sys.executable, "-c", program, str(data)], cwd=ROOT, capture_output=True, text=True
        )
        assert run.returncode == 1
        assert "standin/mnist cannot be written (File too large)" in run.stderr
        assert run.stderr.count("\n") == 1
        assert list((data / "standin").iterdir()) == []
        assert main(["prepare", "mnist", "--source", "standin", "--data", str(data)]) == 0


class TestAfterTheFetch:
    def test_altered_raw_file(self, mnist, tmp_path):
        data = tmp_path / "data"
        succeeds("mnist", data, tmp_path / "mirror")
        (data / "raw/mnist" / IMAGES).write_bytes(mnist[IMAGES][:-1])
        with pytest.raises(DataError, match=f"{IMAGES} was altered .* fetch mnist"):
            prepare("mnist", "real", data)

    def test_missing_raw_file(self, mnist, tmp_path):
        data = tmp_path / "data"
        succeeds("mnist", data, tmp_path / "mirror")
        (data / "raw/mnist" / IMAGES).unlink()
        with pytest.raises(DataError, match=f"{IMAGES} is missing"):
            prepare("mnist", "real", data)

    @pytest.mark.parametrize("manifest", ["", "{}", '{"files": {}, "variant": "unknown"}'])
    def test_altered_raw_manifest(self, mnist, tmp_path, manifest):
        data = tmp_path / "data"
        succeeds("mnist", data, tmp_path / "mirror")
        (data / "raw/mnist/manifest.json").write_text(manifest)
        with pytest.raises(DataError, match="cannot be read"):
            prepare("mnist", "real", data)

    def test_a_failed_preparation_leaves_the_last_good_one(self, tmp_path, monkeypatch):
        prepare("mnist", "standin", tmp_path)
        before = (tmp_path / "standin/mnist/arrays.npz").read_bytes()

        def refuse(part: Path, target: Path) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(files, "replace_folder", refuse)
        with pytest.raises(DataError, match="cannot be written"):
            prepare("mnist", "standin", tmp_path)
        assert [path.name for path in (tmp_path / "standin").iterdir()] == ["mnist"]
        assert (tmp_path / "standin/mnist/arrays.npz").read_bytes() == before


class TestCommandLine:
    def test_one_sentence_and_status_one(self, mnist, tmp_path, capsys):
        data = ["--data", str(tmp_path / "data")]
        assert main(["fetch", "mnist", *data]) == 1
        assert main(["prepare", "mnist", "--source", "real", *data]) == 1
        errors = capsys.readouterr().err.splitlines()
        assert [line.endswith(".") for line in errors if "could not be had" in line] == [True]
        assert "has not been fetched" in errors[-1]

    def test_unknown_name(self, tmp_path, capsys):
        assert main(["fetch", "mnits", "--data", str(tmp_path)]) == 1
        assert capsys.readouterr().err == "There is no data set 'mnits': did you mean mnist?\n"
        assert main(["prepare", "zzz", "--source", "standin", "--data", str(tmp_path)]) == 1
        assert "known are mnist, fashion-mnist" in capsys.readouterr().err
