"""Damage and malice, drawn from a seed: what may stand in the place of a file that this package would have written."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import random
import shutil
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

SPARSE_BYTES = 3 * 10**9  # of a file that takes no room on the disk
DEEP = 5000  # levels
TRAP = "sprung"  # the file that executed code would make, in the current directory


class Trap:
    """Unpickled, it leaves a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (TRAP, "w"))


VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**9, 10**30, -(10**30), 0.5, -0.0, 1e-320, 1e308, float("inf"), float("nan"),
    "", " ", "x", "null", "010", "1:30", "1e-3", "../..", "/etc/passwd", "~nobody", "a\0b", "\x1b]0;title\x07",
    "\u202egnp", "\ud83d\ude00", "e\u0301", "${oc.env:HOME}", "${model}", "???", "$\\frac", "%s%n", "x" * 10_000,
    [], {}, [[]], [None], {"a": {"b": []}}, {"_target_": "os.system", "command": f"touch {TRAP}"}, list(range(2000)),
)  # fmt: skip
WORDS = (
    "", "-1", "0", "1e9", "1e400", "nan", "inf", "null", "true", "on", "010", "1:30", "x", "[]", "[1,2", "{a:1}",
    "{", "}", "'", '"', "\\", "${model}", "${oc.env:HOME}", "${", "???", "../..", "/dev/zero", "~", "\x1b[31m",
    "\u202e", "a=b", "range(3)", "range(0,1e7)", "choice(1,2)", "glob(*)", "interval(0,1)", "1,2", ",", "x" * 5000,
    "9" * 400, "{_target_:os.system}", "!!python/name:os.system", "é", "[[[[[[[[[[[[]]]]]]]]]]]]",
)  # fmt: skip

PLAIN = ("1", "1", "2", "2", "3", "0.5", "0.5", "0.1", "5e-1", "none", "[1]", "[2,3]")


# Values.


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to everything inside of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from nodes(item, (*path, key))


def mangle_value(value: Any, chance: random.Random) -> Any:
    """A JSON value with one to three places changed, lost, doubled or renamed."""
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        path = chance.choice(list(nodes(value)))
        if not path:
            if chance.random() < 0.1:
                return chance.choice(VALUES)
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        change = chance.randrange(7)
        if change == 1:
            del parent[path[-1]]
        elif change == 2 and isinstance(parent, dict):
            parent[chance.choice(("x", "_target_", "name", "a" * 300, "\x1b[2J", "dataset"))] = chance.choice(VALUES)
        elif change == 3 and isinstance(parent, dict):
            parent[str(path[-1]).upper()] = parent.pop(path[-1])
        else:
            parent[path[-1]] = chance.choice(VALUES)
    return value


def mangle_json(data: bytes, chance: random.Random) -> bytes:
    return json.dumps(mangle_value(json.loads(data), chance)).encode()


def mangle_yaml(data: bytes, chance: random.Random) -> bytes:
    values = mangle_value(yaml.safe_load(data), chance)
    text = yaml.safe_dump(values, allow_unicode=True) if chance.random() < 0.5 else yaml.dump(values)
    tricks = ("a: &a [*a]\n", f"a: !!python/object/apply:os.system ['touch {TRAP}']\n", "seed: 1\nseed: 2\n", "\t")
    return (text + (chance.choice(tricks) if chance.random() < 0.1 else "")).encode("utf-8", "surrogatepass")


def mangle_lines(data: bytes, chance: random.Random) -> bytes:
    """A table with cells or rows changed."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    for _ in range(chance.randint(1, 4)):
        row = chance.choice(rows)
        change = chance.randrange(4)
        if change == 0:
            row[chance.randrange(len(row))] = str(chance.choice(VALUES))
        elif change == 1:
            row.insert(chance.randrange(len(row)), chance.choice(WORDS))
        elif change == 2:
            rows.append(list(row) * chance.choice((1, 50)))
        elif len(rows) > 1:
            rows.remove(row)
    return "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")


# Bytes.


def mangle_bytes(data: bytes, chance: random.Random) -> bytes:
    """Any bytes with some flipped, lost, doubled, zeroed or put in between."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 20))):
        start = chance.randrange(len(changed) + 1)
        end = min(len(changed), start + chance.choice((1, 4, 100)))
        change = chance.randrange(6)
        if change == 0 and start < len(changed):
            changed[start] ^= 1 << chance.randrange(8)
        elif change == 1:
            del changed[start:end]
        elif change == 2:
            changed[start:start] = changed[start:end] * chance.choice((1, 100))
        elif change == 3:
            changed[start:end] = bytes(end - start)
        elif change == 4:
            changed[start:start] = chance.randbytes(chance.choice((1, 50)))
        elif chance.random() < 0.3:
            del changed[start:]
    return bytes(changed)


def replace_file(path: Path, chance: random.Random) -> None:
    """Puts something in the place of a file that is none, or endless, or closed, or elsewhere."""
    path.unlink()
    kind = chance.randrange(8)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(chance.choice(("/dev/zero", "/dev/tty", "/etc/passwd", "nowhere", path.name, "..")))
    elif kind == 3:
        path.touch()
        os.truncate(path, SPARSE_BYTES)
    elif kind == 4:
        path.write_bytes(b"[" * DEEP + b"]" * DEEP)
    elif kind == 5:
        path.write_bytes(pickle.dumps(Trap()))
    elif kind == 6:
        path.write_bytes(b"")


# Archives of arrays.


def array_bytes(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def lie(chance: random.Random) -> bytes:
    """An array whose header promises what does not follow."""
    shape = chance.choice(("(10,)", "(-1,)", "(1000000000000,)", "(4294967296, 4294967296)", "()", "'x'", "(1e9,)"))
    kind = chance.choice(("<f4", "|O", "<U100000000", "|V0", "[('a', '<f4')]", "f3", "<M8[ns]", "<c16"))
    header = f"{{'descr': {kind if kind[0] == '[' else repr(kind)}, 'fortran_order': False, 'shape': {shape}}}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(40)


def mangle_array(array: Any, chance: random.Random) -> Any:
    """An array of another type, shape, scale or length, or with strange numbers."""
    changes: list[Callable[[], Any]] = [
        lambda: array.astype(chance.choice(("f2", "f4", "f8", "i1", "i8", "u8", "?", "c8", "S3", "U2"))),
        lambda: array[: len(array) // 2] if array.ndim else array,
        lambda: array[None],
        lambda: array.reshape(-1),
        lambda: array[..., None] if array.ndim < 6 else array,
        lambda: array.astype("f8") * chance.choice((1 / 255, 1e300, -1, 0, float("nan"), 1.0000001 / 255)),
        lambda: np.zeros(chance.choice(((0,), (0, 28, 28), (3, 0, 0), (1,) * 30)), array.dtype),
        lambda: np.array([Trap()], dtype=object),
        lambda: array + (np.arange(array.size).reshape(array.shape) == 0).astype(array.dtype) * 100,
    ]
    return chance.choice(changes)()


def mangle_archive(data: bytes, chance: random.Random) -> bytes:
    """An `.npz` with arrays changed, lost, added, lying, doubled or packed as a bomb."""
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        members = {f"{name}.npy": array_bytes(loaded[name]) for name in loaded.files}
        arrays = {f"{name}.npy": loaded[name] for name in loaded.files}
    for _ in range(chance.randint(1, 2)):
        name = chance.choice(list(members))
        change = chance.randrange(7)
        if change <= 2 and name in arrays:
            members[name] = array_bytes(mangle_array(arrays[name], chance))
        elif change == 3 and len(members) > 1:
            del members[name]
        elif change == 4:
            members[name] = lie(chance)
        elif change == 5:
            members[chance.choice(("x.npy", "x_val.npy", "../../x.npy", "\x1b[2J.npy", "a" * 3000 + ".npy"))] = b"x"
        else:
            members[name] = mangle_bytes(members[name], chance)
    packed = io.BytesIO()
    bomb = chance.random() < 0.01
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED if bomb or chance.random() < 0.5 else 0) as archive:
        for name, content in members.items():
            with warnings.catch_warnings(action="ignore"):  # of names that are there twice
                archive.writestr(name, content)
        if bomb:
            with archive.open(chance.choice(("bomb.npy", "x_train.npy", *members)), "w") as member:
                member.write(array_bytes(np.zeros((30_000, 1_000, 10), np.uint8)))
    return packed.getvalue()


def mangle_model(data: bytes, chance: random.Random) -> bytes:
    """A `model.keras` with its description or its weights changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(("config.json", "model.weights.h5", "model.weights.h5"))
    mangle = mangle_json if name == "config.json" and chance.random() < 0.7 else mangle_bytes
    members[name] = mangle(members[name], chance)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    return packed.getvalue()


# Pictures.


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png(chance: random.Random) -> bytes:
    """A picture that claims to be larger than any."""
    width, height = chance.choice(((100_000, 100_000), (13_000, 13_000), (2**31 - 1, 1), (0, 5), (30_000_000, 1)))
    colour = chance.choice((0, 2, 3, 4, 6))
    header = struct.pack(">IIBBBBB", width, height, chance.choice((1, 8, 16)), colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def draw_picture(chance: random.Random) -> tuple[bytes, str]:
    """A small picture of any mode and format, and how its name ends."""
    mode = chance.choice(("L", "RGB", "RGBA", "LA", "P", "1", "I;16", "CMYK", "I", "F"))
    suffix, kind = chance.choice(
        ((".png", "PNG"), (".jpg", "JPEG"), (".bmp", "BMP"), (".tif", "TIFF"), (".gif", "GIF"), (".webp", "WEBP"))
    )
    size = chance.choice(((4, 4), (1, 1), (5, 3), (64, 64)))
    try:
        return encode(
            Image.new(mode, size, chance.randrange(256) if mode in ("L", "P", "I", "I;16") else 0), kind
        ), suffix
    except (OSError, KeyError, ValueError, TypeError):  # a format without that mode
        return encode(Image.new("L", size), kind), suffix


def encode(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


NAMES = ("a b", "\x1b[31m", "é", "e\u0301", "$x^2$", "...x", "x" * 200, "a\nb", "train", "val", "7", "A", "a", "%s")


def mangle_tree(root: Path, chance: random.Random) -> None:
    """A folder of pictures with some added, damaged, renamed, replaced, nested or gone."""
    for _ in range(chance.randint(1, 4)):
        files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
        folders = [root, *(path for path in sorted(root.rglob("*")) if path.is_dir() and not path.is_symlink())]
        if not files:
            return
        path, folder, change = chance.choice(files), chance.choice(folders), chance.randrange(9)
        if change == 0:
            path.write_bytes(mangle_bytes(path.read_bytes(), chance))
        elif change == 1:
            replace_file(path, chance)
        elif change == 2:
            path.write_bytes(huge_png(chance))
        elif change in (3, 4):
            data, suffix = draw_picture(chance)
            (folder / f"new{chance.randrange(99)}{suffix}").write_bytes(data)
        elif change == 5 and not (made := folder / chance.choice(NAMES)).exists():
            made.mkdir()
        elif change == 6 and folder != root and not (named := folder.with_name(chance.choice(NAMES))).exists():
            folder.rename(named)
        elif change == 7 and folder != root:
            shutil.rmtree(folder)
        elif change == 8 and not (link := folder / "link").is_symlink():
            link.symlink_to(chance.choice(("..", ".", "/etc", "nowhere", "link")))


# Files of a run.

MANGLERS = {".json": mangle_json, ".yaml": mangle_yaml, ".csv": mangle_lines, ".npz": mangle_archive}


def mangle_file(path: Path, chance: random.Random) -> None:
    """Changes a file in the way of its kind, as bytes, or into something else."""
    drawn = chance.random()
    mangle = MANGLERS.get(path.suffix, mangle_bytes)
    if drawn < 0.15:
        replace_file(path, chance)
    else:
        path.write_bytes((mangle if drawn < 0.75 else mangle_bytes)(path.read_bytes(), chance))


# Command lines.


def draw_overrides(keys: list[str], groups: dict[str, list[str]], chance: random.Random) -> list[str]:
    """One to three arguments, most of them wrong: keys, options, flags, anything; one time in ten a right one."""
    if chance.random() < 0.1:
        return [f"seed={chance.randrange(10)}"]
    return [draw_override(keys, groups, chance) for _ in range(chance.choice((1, 1, 1, 2, 3)))]


def draw_override(keys: list[str], groups: dict[str, list[str]], chance: random.Random) -> str:
    drawn = chance.random()
    if drawn < 0.5:
        return f"{chance.choice(('', '', '', '+', '++', '~'))}{chance.choice(keys)}={chance.choice((*WORDS, *PLAIN))}"
    if drawn < 0.65:
        group = chance.choice(list(groups))
        return f"{group}={chance.choice((*groups[group], *WORDS))}"
    if drawn < 0.75:
        hydra = ("run.dir", "job.chdir", "verbose", "searchpath", "callbacks.x._target_", "launcher", "output_subdir")
        return f"hydra.{chance.choice(hydra)}={chance.choice(WORDS)}"
    if drawn < 0.85:
        flags = ("--cfg", "--help", "--info", "-c", "-p", "--package=x", "--config-dir", "--config-name=x", "--resolve")
        return chance.choice((*flags, "--config-path=/", "--epochs=3", "--version", "-m", "--shell-completion", "--"))
    word = chance.choice(keys)
    place = chance.randrange(len(word))
    return f"{word[:place]}{chance.choice(WORDS[:40])}{word[place + 1 :]}={chance.choice(WORDS)}"
