"""Limits are applied before memory is taken, whatever a header promises."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from poisoning.datasets import archives
from poisoning.datasets.archives import read_gzip, read_json, read_mat, read_npz, read_tar
from poisoning.datasets.mirror import mirror_address
from poisoning.errors import DataError


def npz(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return path


def npy(array=None, *, descr="<f8", shape="(3,)", data=bytes(24)):
    stream = io.BytesIO()
    if array is not None:
        np.lib.format.write_array(stream, array)
        return stream.getvalue()
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + data


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros((0, 4)), np.arange(3, dtype=">i4"), np.array(5.0), np.array(["a", "bc"]),
    ],
)  # fmt: skip
def test_arrays_are_what_numpy_wrote_in_the_byte_order_of_this_machine(tmp_path, array):
    (found,) = read_npz(npz(tmp_path / "a.npz", {"x.npy": npy(array)})).values()
    np.testing.assert_array_equal(found, array)
    assert found.dtype.isnative
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (npy(shape="(1000000000000,)"), "is not the size of its data"),
        (npy(shape="(99999999999, 99999999999, 99999999999)"), "is not the size of its data"),
        (npy(shape="(2,)"), "is not the size of its data"),
        (npy(shape="(-1,)"), "is not the size of its data"),
        (npy(data=bytes(23)), "is not the size of its data"),
        (npy(descr="<U1000000000", shape="(1,)"), "no array of the npy format"),
        (npy(descr="|O"), "Python objects"),
        (npy(shape="(1.5,)"), "no array of the npy format"),
        (npy(descr="nothing"), "no array of the npy format"),
        (b"", "no array of the npy format"),
        (b"\x93NUMPY\1\0\xff\xff", "no array of the npy format"),
        (b"\x93NUMPY\7\0", "no array of the npy format"),
    ],
)
def test_headers_that_promise_something_else_are_refused(tmp_path, raw, told):
    with pytest.raises(DataError, match=told) as refusal:
        read_npz(npz(tmp_path / "a.npz", {"x.npy": raw}))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [10 << 30, (1 << 28) + 1])
def test_a_member_of_gigabytes_is_refused_by_its_header(tmp_path, kind, size):
    info = tarfile.TarInfo("enron1/ham/1.txt")
    info.size, info.type = size, kind
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises((DataError, tarfile.TarError)) as refusal:
        read_tar(tmp_path / "a.tar.gz", lambda name: True)
    assert isinstance(refusal.value, DataError) or "ReadError" in type(refusal.value).__name__


def test_what_unpacks_to_more_than_the_limits_is_refused(tmp_path, monkeypatch):
    """Small limits: the bombs need not be large to be refused."""
    monkeypatch.setattr(archives, "LARGEST", 1000)
    monkeypatch.setattr(archives, "LARGEST_IN_ALL", 10_000)
    monkeypatch.setattr(archives, "MOST", 8)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(1001)))
    (tmp_path / "a.json").write_text("[" + "1, " * 400 + "1]")
    savemat(tmp_path / "a.mat", {"x": np.zeros(2000)}, do_compression=True)
    npz(tmp_path / "a.npz", {f"{k}.npy": npy(np.zeros(200)) for k in range(7)})
    for read, name in ((read_gzip, "a.gz"), (read_json, "a.json"), (read_mat, "a.mat"),
                       (read_npz, "a.npz")):  # fmt: skip
        with pytest.raises(DataError, match=f"{name} is refused: it unpacks to"):
            read(tmp_path / name)
    for count, size, told in ((9, 1, "more than 8 members"), (8, 999, "it unpacks to")):
        with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
            for number in range(count):
                info = tarfile.TarInfo(f"{number}.txt")
                info.size = size
                archive.addfile(info, io.BytesIO(bytes(size)))
        with pytest.raises(DataError, match=told):
            read_tar(tmp_path / "a.tar.gz", lambda name: True)


def test_a_member_that_stands_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for raw in (b"one", b"two"):
            info = tarfile.TarInfo("a.txt")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    with pytest.raises(DataError, match="stands twice"):
        read_tar(tmp_path / "a.tar.gz", lambda name: True)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("", ""), (" /data/ ", "/data"), ("~/data", "/home/me/data"), ("data", "data"),
        ("file:///my%20data/", "/my data/"), ("http://h:80/x/", "http://h:80/x"),
        ("HTTPS://h", "HTTPS://h"),
    ],
)  # fmt: skip
def test_a_mirror_is_a_folder_or_a_url(monkeypatch, given, address):
    monkeypatch.setenv("HOME", "/home/me")
    assert mirror_address(given) == address


@pytest.mark.parametrize(
    "given",
    ["s3://bucket/x", "ftp://h/x", "http://", "http://h:x/", "http://[::1", "file://other/x",
     "~nobody-of-this-name/x", "gs://b"],
)  # fmt: skip
def test_another_mirror_is_refused_before_anything_is_fetched(given):
    with pytest.raises(DataError, match=r"DATA_MIRROR = .* must be a folder, or a URL that begins"):
        mirror_address(given)


def test_a_matlab_file_that_crashes_its_reader_is_one_sentence(tmp_path):
    cells = np.empty(2, dtype=object)
    cells[0], cells[1] = np.eye(2), np.ones(3)
    path = tmp_path / "a.mat"
    savemat(path, {"t": np.arange(60.0).reshape(20, 3), "s": np.ones((4, 4)), "c": cells})
    found = read_mat(path)
    assert np.array_equal(found["t"], np.arange(60.0).reshape(20, 3))
    assert [cell.tolist() for cell in found["c"]] == [[[1, 0], [0, 1]], [[1, 1, 1]]]
    raw = bytearray(path.read_bytes())
    raw[681], raw[1039] = 61, 216  # SciPy reads beyond its memory
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.mat is damaged, or no MATLAB file"):
        read_mat(path)
