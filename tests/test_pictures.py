"""Pictures in folders: what people have is read, turned, composited or refused in one list."""

import os
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from experiments.errors import InputError
from experiments.ingredients import folders, pictures
from experiments.ingredients.folders import HoldOut
from experiments.ingredients.images import Arrays, Content
from experiments.ingredients.pictures import read_picture
from experiments.ingredients.resizing import Target


def read(path: Path, *, skip_bad: bool = False, **changes: Any) -> Content:
    target = {"size": None, "fit": "crop", "channels": None, "background": "white"}
    holding = {"test_fraction": 0.2, "test_seed": 0, "group_by": None, "validation_fraction": 0.1}
    return folders.read_folder(
        path,
        Target(**(target | {key: value for key, value in changes.items() if key in target})),
        HoldOut(**(holding | {key: value for key, value in changes.items() if key in holding})),
        skip_bad=skip_bad,
    )


def read_folder(path: Path) -> tuple[Arrays, tuple[str, ...] | None]:
    content = read(path)
    return content.arrays, content.class_names


def complaints(read: Callable[..., Any], *arguments: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(*arguments)
    for line in caught.value.mistakes:
        assert len(line.splitlines()) == 1
    return list(caught.value.mistakes)


def complaint(read: Callable[..., Any], *arguments: Any) -> str:
    (line,) = complaints(read, *arguments)
    assert line.startswith("dataset.path: ")
    return line


# Folders


def write_pictures(root: Path, suffix: str = ".png", mode: str = "L", size: tuple[int, int] = (5, 6)) -> Path:
    """Two training pictures and one test picture of `a` and `b` each; the first pixel tells them apart."""
    for number, name in enumerate(["train/a/1", "train/a/2", "train/b/1", "train/b/2", "test/a/1", "test/b/1"]):
        file = root / f"{name}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new(mode, size)
        picture.putpixel((0, 0), number if mode == "L" else (number, 2, 3))
        picture.save(file)
    return root


def test_folder_is_read_in_the_order_of_names(tmp_path: Path):
    data, names = read_folder(write_pictures(tmp_path))
    assert names == ("a", "b")
    assert data.x_train.shape == (4, 6, 5, 1)
    assert data.x_train[:, 0, 0, 0].tolist() == [0, 2, 1, 3]  # the classes spread
    assert data.y_train.tolist() == [0, 1, 0, 1]
    assert data.x_test[:, 0, 0, 0].tolist() == [4, 5]
    assert data.y_test.tolist() == [0, 1]
    assert data.y_train.dtype == np.int64


def test_folder_may_hold_colour_and_jpeg(tmp_path: Path):
    data, _ = read_folder(write_pictures(tmp_path / "colour", mode="RGB"))
    assert data.x_train.shape == (4, 6, 5, 3)
    assert data.x_train[3, 0, 0].tolist() == [3, 2, 3]
    data, _ = read_folder(write_pictures(tmp_path / "jpeg", suffix=".JPG"))
    assert data.x_train.shape == (4, 6, 5, 1)


def test_folder_passes_over_hidden_and_other_files_and_tells_of_the_others(tmp_path: Path):
    root = write_pictures(tmp_path)
    (root / "train/a/1.heic").write_text("")
    (root / "test/b/deeper").mkdir()
    (root / "train/a/.hidden.png").write_text("")
    (root / "train/a/notes.txt").write_text("")
    (root / "train/.cache").mkdir()
    (root / "train/readme.md").write_text("")
    data, names = read_folder(root)
    assert (len(data.x_train), names) == (4, ("a", "b"))
    (note,) = read(root).notes
    left_out = "left out 3 files, no pictures in a class's folder: .md (1), .heic (1), .txt (1)"
    assert note == f"{root.name}: {left_out}"


def test_nothing_is_told_where_nothing_is_left_out(tmp_path: Path):
    assert read(write_pictures(tmp_path)).notes == ()


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_is_read(tmp_path: Path, name: str):
    root = write_pictures(tmp_path)
    for number, label in enumerate("ba"):
        (root / name / label).mkdir(parents=True)
        Image.new("L", (5, 6), 90 + number).save(root / name / label / "x.png")
    arrays, _ = read_folder(root)
    assert arrays.x_val is not None
    assert arrays.y_val is not None
    assert arrays.x_val[:, 0, 0, 0].tolist() == [91, 90]
    assert arrays.y_val.tolist() == [0, 1]
    (root / name / "a").rename(root / name / "c")
    assert complaint(read_folder, root).endswith("received 2 without a with c, which train has not")
    (root / ("valid" if name == "val" else "val")).mkdir()
    assert "must hold one validation part, received val" in complaint(read_folder, root)


def test_of_200_classes_the_missing_one_is_named(tmp_path: Path):
    for part in ("train", "test"):
        for number in range(200):
            (tmp_path / part / f"class-{number}").mkdir(parents=True)
    (tmp_path / "test/class-77").rmdir()
    line = complaint(read_folder, tmp_path)
    assert line.endswith("test: must hold the 200 classes of train, received 199 without class-77")
    for entry in (tmp_path / "test").iterdir():
        entry.rmdir()
    (tmp_path / "test/class-0").mkdir()
    assert complaint(read_folder, tmp_path).endswith("class-104, class-105 and 191 more")


def test_class_names_that_look_alike_are_one_class(tmp_path: Path):
    root = write_pictures(tmp_path)
    composed, parted = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    (root / "train/b").rename(root / "train" / composed)
    (root / "test/b").rename(root / "test" / parted)
    arrays, names = read_folder(root)
    assert names == ("Café", "a")  # of capitals and small letters the capitals come first
    assert arrays.x_test[:, 0, 0, 0].tolist() == [5, 4]
    (root / "test" / composed).mkdir()
    assert "stands there twice, in two spellings" in complaint(read_folder, root)


def test_folder_without_parts_is_refused(tmp_path: Path):
    assert f"{tmp_path / 'train'}: no such folder" in complaint(read_folder, tmp_path)
    (tmp_path / "train").mkdir()
    assert f"{tmp_path / 'train'}: must hold classes" in complaint(read_folder, tmp_path)
    (tmp_path / "train/a").mkdir()
    assert f"{tmp_path / 'test'}: no such folder" in complaint(read_folder, tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_folder_with_an_empty_class_is_refused(tmp_path: Path, part: str):
    root = write_pictures(tmp_path)
    for file in (root / part / "b").iterdir():
        file.rename(file.with_suffix(".svg"))
    line = complaint(read_folder, root)
    assert f"{root / part / 'b'}: must hold at least one picture (.png, .jpg, " in line
    assert line.split("received ")[1].startswith("1.svg")


def test_folder_with_other_classes_in_test_is_refused(tmp_path: Path):
    root = write_pictures(tmp_path)
    (root / "test/c").mkdir()
    line = complaint(read_folder, root)
    assert line.endswith("test: must hold the 2 classes of train, received 3 with c, which train has not")


def test_folder_of_one_class_is_refused(tmp_path: Path):
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
    assert "at least 2 classes, received a" in complaint(read_folder, tmp_path)


def test_pictures_of_several_sizes_ask_for_one_and_propose_it(tmp_path: Path):
    root = write_pictures(tmp_path, size=(100, 120))
    odd = root / "test/b/1.png"
    Image.new("L", (70, 80)).save(odd)
    (line,) = complaints(read, root)
    assert line == (
        "dataset.image_size: must be given for pictures of several sizes, received 2: 100×120 (5), 70×80 (1), "
        f"the rarest as {odd}; dataset.image_size=96 brings all to one"
    )
    assert read(root, size=(96, 96)).arrays.x_train.shape == (4, 96, 96, 1)


def test_grey_pictures_among_others_become_colour_and_that_is_told(tmp_path: Path):
    root = write_pictures(tmp_path)
    Image.new("RGB", (5, 6), (1, 2, 3)).save(root / "test/b/1.png")
    for _ in range(2):  # decoded now, decoded earlier
        content = read(root)
        assert content.arrays.x_train[1, 0, 0].tolist() == [2, 2, 2]
        assert content.arrays.x_test[1, 0, 0].tolist() == [1, 2, 3]
        assert content.notes == ("5 of 6 pictures are grey and become colour (dataset.channels=1 makes all grey)",)
    assert read(root, channels=3).notes == ()
    assert read(root, channels=1).arrays.x_test[1, 0, 0].tolist() == [2]


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "CMYK"])
def test_picture_of_another_mode_is_refused(tmp_path: Path, mode: str):
    root = write_pictures(tmp_path, suffix=".tif")
    Image.new(mode, (5, 6)).save(root / "train/a/1.tif")
    assert f"received mode {mode}" in complaint(read_folder, root)


@pytest.mark.parametrize("content", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_unreadable_picture_is_named(tmp_path: Path, content: bytes):
    root = write_pictures(tmp_path)
    (root / "train/b/2.png").write_bytes(content)
    assert f"{root / 'train/b/2.png'}: must be a readable image" in complaint(read_folder, root)


def test_truncated_picture_is_named(tmp_path: Path):
    root = write_pictures(tmp_path, size=(50, 60))
    file = root / "train/b/2.png"
    file.write_bytes(file.read_bytes()[:60])
    assert f"{file}: must be a readable image" in complaint(read_folder, root)


def test_all_bad_pictures_are_named_in_one_list(tmp_path: Path):
    root = write_pictures(tmp_path)
    for name in ("train/a/2", "train/b/1", "test/b/1"):
        (root / f"{name}.png").write_bytes(b"no picture")
    lines = complaints(read_folder, root)
    assert lines.pop() == "dataset.path: 3 pictures cannot be used; dataset.bad_images=skip leaves them out"
    assert [Path(line.split(": ")[1]) for line in lines] == [
        root / "test/b/1.png", root / "train/a/2.png", root / "train/b/1.png"
    ]  # fmt: skip
    for number in range(30):
        (root / f"train/a/bad-{number}.png").write_bytes(b"")
    lines = complaints(read_folder, root)
    assert len(lines) == 22
    assert lines[-2] == "dataset.path: and 13 more pictures"
    assert lines[-1] == "dataset.path: 33 pictures cannot be used; dataset.bad_images=skip leaves them out"


def test_bad_pictures_are_skipped_where_that_is_asked(tmp_path: Path):
    root = write_pictures(tmp_path)
    (root / "train/a/1.png").write_bytes(b"no picture")
    os.mkfifo(root / "train/b/3.png")
    content = read(root, skip_bad=True)
    assert content.arrays.x_train[:, 0, 0, 0].tolist() == [2, 3, 1]
    assert content.arrays.y_train.tolist() == [1, 1, 0]
    (note,) = content.notes
    assert note.startswith(f"{root.name}: skipped pictures that cannot be read: {root}/train/")
    assert note.endswith(" and 1 more")
    (root / "train/a/2.png").write_bytes(b"no picture")
    assert "class a has no picture to train on" in complaint(lambda: read(root, skip_bad=True))


def test_a_pipe_or_a_device_among_the_pictures_is_not_waited_for(tmp_path: Path):
    root = write_pictures(tmp_path)
    os.mkfifo(root / "train/a/0.png")
    (root / "train/b/0.png").symlink_to("/dev/zero")
    lines = complaints(read_folder, root)
    assert ["received a pipe" in lines[0], "received a device" in lines[1], len(lines)] == [True, True, 3]


def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path):
    root = write_pictures(tmp_path)
    Image.new("1", (13_000, 13_000)).save(root / "train/a/2.png")
    assert "at most 50 megapixels, received 13000×13000, 169" in complaint(read_folder, root)


# One picture


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **more: Any) -> Path:
    Image.fromarray(pixels).save(path, **more)
    return path


@pytest.mark.parametrize("suffix", pictures.SUFFIXES)
def test_every_usual_format_is_read(tmp_path: Path, suffix: str):
    grey = np.full((6, 5), 200, np.uint8)
    name = {".jfif": "JPEG"}.get(suffix)
    save(tmp_path / f"a{suffix}", grey, **({"format": name} if name else {}))
    read = read_picture(tmp_path / f"a{suffix}", "white")
    assert read.shape in ((6, 5, 1), (6, 5, 3))
    assert np.abs(read.astype(int) - 200).max() <= 2


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_colour_is_exact_where_the_format_is(tmp_path: Path, suffix: str):
    path = save(tmp_path / f"a{suffix}", PIXELS[..., :3], **({"lossless": True} if suffix == ".webp" else {}))
    np.testing.assert_array_equal(read_picture(path, "white"), PIXELS[..., :3])


def test_black_and_white_and_palettes_are_read(tmp_path: Path):
    Image.fromarray(PIXELS[..., 0] > 99).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", "white")[..., 0], 255 * (PIXELS[..., 0] > 99))
    palette = Image.fromarray(PIXELS[..., :3]).quantize(200)
    palette.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", "white"), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_pictures_are_turned_as_the_camera_was_held(tmp_path: Path, suffix: str, orientation: int):
    held = Image.Exif()
    held[pictures.ORIENTATION] = orientation
    path = save(tmp_path / f"a{suffix}", PIXELS[..., :3], exif=held)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    read = read_picture(path, "white")
    np.testing.assert_array_equal(read, expected)
    assert read.flags.c_contiguous


@pytest.mark.parametrize(("background", "value"), [("white", 255), ("grey", 128), ("black", 0)])
def test_transparent_pixels_show_the_background(tmp_path: Path, background: str, value: int):
    path = save(tmp_path / "a.png", PIXELS)
    colour, alpha = PIXELS[..., :3].astype(float), PIXELS[..., 3:].astype(float)
    expected = (colour * alpha + value * (255 - alpha)) / 255
    np.testing.assert_array_equal(read_picture(path, background), np.rint(expected))
    path = save(tmp_path / "b.png", PIXELS[..., 2:])  # grey and alpha
    np.testing.assert_array_equal(read_picture(path, background), np.rint(expected[..., 2:]))


def test_a_transparent_colour_is_transparency_too(tmp_path: Path):
    for pixels, clear in ((PIXELS[..., 0], int(PIXELS[0, 0, 0])), (PIXELS[..., :3], tuple(PIXELS[0, 0, :3].tolist()))):
        path = save(tmp_path / "a.png", pixels, transparency=clear)
        read = read_picture(path, "white")
        assert (read[0, 0] == 255).all()
        np.testing.assert_array_equal(read[1, 1], np.atleast_1d(pixels[1, 1]))
    palette = Image.fromarray(PIXELS[..., :3]).quantize(30)
    clear = palette.getpixel((0, 0))
    for suffix in (".png", ".gif"):
        palette.save(tmp_path / f"a{suffix}", transparency=clear)
        assert (read_picture(tmp_path / f"a{suffix}", "black")[0, 0] == 0).all()


def png_of_16_bits(colour_type: int, channels: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 2, 2, 16, colour_type, 0, 0, 0)
    rows = 2 * (b"\0" + bytes(2 * 2 * channels))
    ends = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + ends


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_a_channel_are_refused_and_not_cut(tmp_path: Path, colour_type: int, channels: int):
    (tmp_path / "a.png").write_bytes(png_of_16_bits(colour_type, channels))
    (line,) = complaints(read_picture, tmp_path / "a.png", "white")
    assert line.endswith("with 16 bits a channel")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".webp", ".bmp"])
def test_any_damaged_byte_is_a_line_or_harmless(tmp_path: Path, suffix: str):
    held = Image.Exif()
    held[pictures.ORIENTATION] = 6
    path = save(tmp_path / f"a{suffix}", PIXELS[..., :3], exif=held)
    content, random = path.read_bytes(), np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(150):
            changed = bytearray(content)
            changed[random.integers(len(content))] = random.integers(256)
            path.write_bytes(changed[: random.integers(len(content)) if random.random() < 0.2 else None])
            with suppress(InputError):  # nothing else is let out
                read_picture(path, "white")
