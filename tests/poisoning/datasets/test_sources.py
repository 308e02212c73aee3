"""The registry is complete and consistent, and files of the official form would be accepted."""

import io
import re
import zipfile

import pytest
from pydantic import ValidationError

from poisoning.datasets import fetch, registry, sources
from poisoning.datasets.__main__ import main
from poisoning.datasets.parse import PARSERS
from poisoning.datasets.standins import STANDINS
from poisoning.errors import DataError
from tests.poisoning.datasets.published import entry, mnist_files, serving, whole, write

SETS = registry()


def test_every_set_has_a_parser_and_a_standin():
    assert set(SETS) == set(PARSERS) == set(STANDINS)


@pytest.mark.parametrize("name", SETS)
def test_entries(name):
    source = SETS[name]
    assert source.licence
    assert source.citation
    for variant in source.variants.values():
        assert variant.files.keys() == source.files.keys()
        assert variant.content or variant.checksummed or set(source.variants) == {"unverified"}
    for file in source.files.values():
        assert all(re.match("https?://", url) for url in file.urls)
    recognised = [tuple(v.files.values()) for v in source.variants.values()]
    assert len(set(recognised)) == len(recognised)


def test_unknown_keys_and_malformed_checksums_are_refused(tmp_path):
    path = tmp_path / "sources.yaml"
    path.write_text("mnist: {titel: MNIST}")
    with pytest.raises(ValidationError, match="titel"):
        registry(path)
    with pytest.raises(ValidationError, match="checksum"):
        sources.Fingerprint(size=1, checksum="sha256:abc")


def test_fingerprints():
    md5 = sources.Fingerprint(checksum="md5:" + "a" * 32)
    assert md5.matches(1, {"md5": "a" * 32, "sha256": "b" * 64})
    assert not md5.matches(1, {"md5": "c" * 32, "sha256": "b" * 64})
    assert not sources.Fingerprint(size=2, checksum=md5.checksum).matches(1, {"md5": "a" * 32})
    assert not sources.Fingerprint().matches(1, {"md5": "a" * 32})


def test_list_names_every_set_and_licence(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name, source in SETS.items():
        assert f"{name}: {source.title}" in printed
        assert f"licence: {source.licence}" in printed


class TestPlaces:
    """Mirror first, then the official addresses; the manifest says which it was."""

    @pytest.fixture(autouse=True)
    def tiny(self, monkeypatch, tmp_path):
        self.files = mnist_files()
        monkeypatch.delenv("DATA_MIRROR", raising=False)

        def register(urls):
            known = entry("mnist", self.files, tmp_path / "published", urls)
            monkeypatch.setattr(sources, "registry", lambda: {"mnist": known})

        self.register = register

    def origins(self, data, mirror=None):
        return {file["origin"] for file in fetch("mnist", data, mirror)["files"].values()}

    def test_a_folder_named_by_the_environment(self, tmp_path, monkeypatch):
        self.register(["http://127.0.0.1:1/nowhere"])
        write(tmp_path / "mirror/mnist", self.files)
        monkeypatch.setenv("DATA_MIRROR", str(tmp_path / "mirror"))
        assert self.origins(tmp_path) == {"mirror"}
        assert str(tmp_path) not in (tmp_path / "raw/mnist/manifest.json").read_text()

    def test_a_mirror_at_a_url(self, tmp_path):
        self.register(["http://127.0.0.1:1/nowhere"])
        with serving({f"/base/mnist/{f}": whole(raw) for f, raw in self.files.items()}) as url:
            assert self.origins(tmp_path, f"{url}/base/") == {"mirror"}

    def test_the_second_official_address(self, tmp_path, caplog):
        with serving({f"/good/{f}": whole(raw) for f, raw in self.files.items()}) as url:
            self.register([url + "/gone/{file}", url + "/good/{file}"])
            assert self.origins(tmp_path) == {f"{url}/good/{file}" for file in self.files}
        assert len(caplog.records) == 4  # one warning per file that the first address lacks

    def test_command_line_names_variant_and_origin(self, tmp_path, monkeypatch, capsys):
        self.register(["http://127.0.0.1:1/nowhere"])
        write(tmp_path / "mirror/mnist", self.files)
        monkeypatch.setenv("DATA_MIRROR", str(tmp_path / "mirror"))
        assert main(["fetch", "mnist", "--data", str(tmp_path)]) == 0
        assert main(["prepare", "mnist", "--source", "real", "--data", str(tmp_path)]) == 0
        assert capsys.readouterr().out == (
            "mnist: variant tiny, from mirror\nmnist: variant tiny, n = 12, n_test = 6, d = 16\n"
        )

    def test_a_member_of_a_zip_archive(self, tmp_path):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for file, raw in self.files.items():
                archive.writestr(file, raw)
        with serving({"/all.zip": whole(buffer.getvalue()), "/bad.zip": whole(b"PK")}) as url:
            self.register([url + "/all.zip#{file}"])
            assert len(self.origins(tmp_path)) == 4
            for address in ("/all.zip#no{file}", "/bad.zip#{file}"):
                self.register([url + address])
                with pytest.raises(DataError, match="has no zip archive with the member"):
                    fetch("mnist", tmp_path)
