"""Nothing that somebody else wrote is waited for, believed in its size, or unpickled."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import archives, bounded
from experiments.errors import InputError, nearest


def complaint(read: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(*arguments)
    (line,) = caught.value.mistakes
    assert len(line.splitlines()) == 1
    assert len(line) < 500
    return line


READERS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: bounded.read_bytes(path, 1000),
    "text": lambda path: bounded.read_text(path, 1000),
    "json": lambda path: bounded.read_json(path, 1000),
    "rows": lambda path: bounded.read_rows(path, 1000),
    "arrays": archives.read_arrays,
}


# Files.


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_only_regular_files_are_opened_and_nothing_is_waited_for(
    read: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path, kind in (("pipe", "pipe"), ("socket", "socket"), (".", "directory"), ("/dev/zero", "device")):
            assert complaint(read, Path(path)) == f"{path}: must be a regular file, received a {kind}"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_cannot_be_opened_is_told_in_a_line(read: Callable[[Path], Any], tmp_path: Path) -> None:
    assert complaint(read, tmp_path / "none").endswith("none: cannot be read (No such file or directory)")
    assert complaint(read, Path("a" * 300)).endswith("cannot be read (File name too long)")
    assert complaint(read, Path("a\0b")).endswith("cannot be read (embedded null byte)")
    (tmp_path / "file").touch()
    assert complaint(read, tmp_path / "file" / "below").endswith("cannot be read (Not a directory)")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_what_is_closed_to_this_user_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0)
    assert complaint(bounded.read_bytes, tmp_path / "file", 9).endswith("cannot be read (Permission denied)")


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert bounded.read_bytes(tmp_path / "link", 7) == b"content"


@pytest.mark.parametrize("name", ["bytes", "text", "json", "rows"])
def test_a_file_larger_than_its_kind_is_not_read(name: str, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**13)
    line = complaint(READERS[name], tmp_path / "sparse")
    assert line == f"{tmp_path / 'sparse'}: must be at most 1.0 kB, received 10000.0 GB"


def test_sizes_are_for_people() -> None:
    assert [bounded.size(n) for n in (7, 999, 1500, 64_000, 3.21e9)] == [
        "7 bytes",
        "999 bytes",
        "1.5 kB",
        "64 kB",
        "3.2 GB",
    ]


# Text, JSON, CSV.


def test_text_is_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("Łódź", encoding="utf-8")
    assert bounded.read_text(tmp_path / "a", 100) == "Łódź"
    (tmp_path / "a").write_bytes("ö".encode("latin-1"))
    assert complaint(bounded.read_text, tmp_path / "a", 100).endswith("must be UTF-8 text, received byte 0xf6")


def nested(levels: int) -> str:
    return '{"a": [' * (levels // 2) + "[" * (levels % 2) + "]" * (levels % 2) + "]}" * (levels // 2)


def test_json_is_read_down_to_a_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(nested(bounded.DEEPEST_JSON))
    assert bounded.read_json(path, 1000) == json.loads(path.read_text())
    for levels in (bounded.DEEPEST_JSON + 1, 900, 400_000):
        path.write_text(nested(levels))
        assert complaint(bounded.read_json, path, 10**7) == f"{path}: must be JSON of at most 30 levels"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"nul", b'"\xff"', b"1" * 5000, b'{"a": 1}{', b"\xff\xfe{\x00}\x00\x00"]
)
def test_what_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert complaint(bounded.read_json, tmp_path / "a.json", 10**4).startswith(f"{tmp_path / 'a.json'}: is not JSON (")


def test_rows_are_mappings(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('epoch,train/loss\n1,0.5\n2,"0,25"\n')
    assert bounded.read_rows(path) == [{"epoch": "1", "train/loss": "0.5"}, {"epoch": "2", "train/loss": "0,25"}]
    path.write_text("")
    assert bounded.read_rows(path) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a,b\n1,2\n3\n", "row 2 must have 2 values like the header, received 1"),
        ("a,b\n1,2,3\n", "row 1 must have 2 values like the header, received 3"),
        ("a\n" + "1\n" * 11, "must have at most 10 rows, received more"),
        ("a\n" + "1" * 200_000, "is not CSV (field larger than field limit"),
        ('a\n"1', "is not CSV (unexpected end of data)"),
    ],
)
def test_a_damaged_table_is_refused(text: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert rule in complaint(bounded.read_rows, tmp_path / "a.csv", 10**6, 10)


# Arrays.


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def pack(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_arrays_are_read_as_they_were_saved(tmp_path: Path) -> None:
    arrays = {
        "whole": np.arange(6).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 5), np.uint8),
        "text": np.array(["a", "bc"]),
        "swapped": np.arange(3, dtype=">i4"),
        "weights/0001": np.ones(3, np.uint64),
    }
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", **arrays)
        read = archives.read_arrays(tmp_path / "a.npz")
        assert list(read) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array)
            assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
    assert list(archives.read_arrays(tmp_path / "a.npz", ["whole"])) == ["whole"]
    content = io.BytesIO((tmp_path / "a.npz").read_bytes())
    assert list(archives.unpack_arrays(content, "memory")) == list(arrays)
    content.read()  # it was left open


def test_missing_arrays_are_named_and_long_lists_are_cut(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", a=1)
    assert complaint(archives.read_arrays, path, ["a", "b", "c"]).endswith("must hold b, c, received a")
    pack(path, {f"{i}.npy": npy(i) for i in range(3000)})
    line = complaint(archives.read_arrays, path, ["x"])
    assert line.endswith("must hold x, received 0, 1, 2, 3, 4, 5, 6, 7 and 2,992 more")
    assert list(archives.read_arrays(path, ["2999"])) == ["2999"]


def test_a_table_of_contents_of_any_length_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "a.npz", {f"{i}.npy": b"" for i in range(3000)})
    monkeypatch.setattr(archives, "DIRECTORY_BYTES", 66_000)
    assert "its table of contents is too long" in complaint(archives.read_arrays, path)


def test_objects_and_fields_are_refused(tmp_path: Path) -> None:
    for array in (np.array([None, "x"]), np.zeros(2, [("a", "i4"), ("b", "f4")])):
        line = complaint(archives.read_arrays, save(tmp_path / "a.npz", a=array))
        assert "object arrays cannot be loaded, nor those of several fields" in line


def lie(shape: str, descr: str = "|u1", body: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


@pytest.mark.parametrize(
    "member",
    [
        lie("(10**9,)"), lie("(1000000000,)"), lie("(-1,)"), lie("(-1, -4)", body=b"1234"), lie("(2,)", body=b"123"),
        lie("(9" + "9" * 5000 + ",)"), lie("(" * 3000), lie("()", "|O"), lie("(4,)", "|V1000000000"), b"", b"no array",
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b" " * 100,
        b"\x93NUMPY\x03\x00" + struct.pack("<I", 10) + b" " * 100,
    ],
    ids=range(13),
)  # fmt: skip
def test_headers_that_lie_are_refused_before_memory_is_taken(member: bytes, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.npz", {"a.npy": member})
    archives.read_arrays(save(tmp_path / "warm.npz", a=1))
    tracemalloc.start()
    try:
        line = complaint(archives.read_arrays, path)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()
    assert line.startswith(f"{path}: must be readable as plain arrays, received ")


def test_a_bomb_is_known_by_its_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10**6, np.uint8), b=np.zeros(10**6, np.uint8))
    monkeypatch.setattr(archives, "BOMB_BYTES", 2 * 10**6)
    assert len(archives.read_arrays(tmp_path / "a.npz")) == 2
    monkeypatch.setattr(archives, "BOMB_BYTES", 10**6)
    assert "unpack to 2.0 MB, more than 200 times as much" in complaint(archives.read_arrays, tmp_path / "a.npz")
    assert len(archives.read_arrays(tmp_path / "a.npz", ["a"])) == 1


def test_arrays_are_held_against_a_limit_and_against_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.npz", a=np.zeros(1000), b=np.zeros(1000))
    assert "must unpack to at most 10 kB, received 16 kB" in complaint(archives.read_arrays, path, None, 10_000)
    monkeypatch.setattr(bounded, "available_memory", lambda: 12_000)
    assert "takes 16 kB of memory, and 12 kB are free here" in complaint(archives.read_arrays, path)
    assert list(archives.read_arrays(path, ["b"], 10_000)) == ["b"]


def test_available_memory_is_some_of_the_machines() -> None:
    assert 10**6 < bounded.available_memory() < 10**14


def test_sizes_in_the_table_of_contents_are_not_believed(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.npz", {"a.npy": npy(np.arange(1000))})
    content = path.read_bytes()
    there = content.rindex(b"PK\x01\x02") + 24  # the uncompressed size in the table
    path.write_bytes(content[:there] + struct.pack("<I", 2**31) + content[there + 4 :])
    assert "is not what its 2147483648 bytes hold" in complaint(archives.read_arrays, path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_numpys_own_compressions_are_unpacked(compression: int, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.npz", {"a.npy": npy(1)}, compression)
    assert "a.npy, which is encrypted or not compressed as NumPy does it" in complaint(archives.read_arrays, path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_stands_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", npy(1))
    assert "received a.npy twice" in complaint(archives.read_arrays, tmp_path / "a.npz")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_archive_is_refused(share: float, tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", a=np.arange(1000))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "cut off" in complaint(archives.read_arrays, path)


def test_any_damaged_byte_is_a_line_or_harmless(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", a=np.arange(40), b=np.ones(3))
    content, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(content)
        changed[random.integers(len(content))] = random.integers(256)
        path.write_bytes(changed)
        with suppress(InputError):  # nothing else is let out
            archives.read_arrays(path)


# Pictures.


def test_pictures_are_judged_by_their_header() -> None:
    bounded.require_pixels(8160, 6120, "phone.jpg")
    line = complaint(bounded.require_pixels, 13_000, 13_000, "a.png")
    assert line == "a.png: pictures must have at most 50 megapixels, received 13000×13000, 169"


# Messages.


def test_long_lists_of_choices_are_cut_to_what_is_like_the_word() -> None:
    choices = [f"choice_{number}" for number in range(100)] + ["dropout"]
    line = nearest("dropuot", choices)
    assert line.startswith("did you mean dropout? valid: ")
    assert "dropout" in line.partition("valid: ")[2]
    assert line.endswith(" and 93 more")
    assert len(line) < 200
    assert nearest("b", ["a", "c"]) == "valid: a, c"
