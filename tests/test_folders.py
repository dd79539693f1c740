"""Folders as people have them: split by content, brought to one size, decoded once."""

import hashlib
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.config import compose
from experiments.errors import InputError
from experiments.ingredients import cache, holdout
from experiments.ingredients.holdout import find_groups, hold_out
from experiments.ingredients.images import Content
from experiments.ingredients.resizing import Target, bring
from test_pictures import complaint, read


def write_tree(root: Path, classes: str = "abc", each: int = 40, group: int = 4) -> Path:
    """One tree of 4×4 grey pictures, `<class>/<person>_<number>.png`, each of a content of its own."""
    random = np.random.default_rng(len(classes))
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"p{number // group}_{number}.png")
    return root


def rows(images: Any) -> set[bytes]:
    return {image.tobytes() for image in images}


def sides(content: Content) -> tuple[set[bytes], set[bytes]]:
    return rows(content.arrays.x_train), rows(content.arrays.x_test)


# One tree


def test_a_tree_is_split_by_content_and_stays_so_when_pictures_are_added_or_renamed(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree")
    content = read(root)
    train, test = sides(content)
    assert content.class_names == ("a", "b", "c")
    assert len(train | test) == 120
    assert not train & test
    counts = np.bincount(content.arrays.y_test)
    assert ((counts >= 2) & (counts <= 16)).all()
    drawn = "dataset.test_fraction=0.2, dataset.test_seed=0"
    assert content.notes == (f"test: {len(test)} pictures, held out by a hash of their content ({drawn})",)
    (root / "a/p0_0.png").rename(root / "a/another.png")
    for number in range(30):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(root / f"b/0{number}.png")
    more_train, more_test = sides(read(root))
    assert train < more_train
    assert test < more_test
    assert sides(read(root, test_seed=1))[1] != more_test
    assert len(sides(read(root, test_fraction=0.6))[1]) > 2 * len(more_test)
    assert more_test < sides(read(root, test_fraction=0.6))[1]


def test_pictures_in_folders_of_a_class_are_its_pictures(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", "ab", 6)
    (root / "a/deep/er").mkdir(parents=True)
    (root / "a/p0_0.png").rename(root / "a/deep/er/x.png")
    (root / "b/loop").symlink_to(root)
    content = read(root)
    assert len(content.arrays.x_train) + len(content.arrays.x_test) == 12
    assert content.notes[1:] == ("tree: left out 1 file, no pictures in a class's folder: loop (1)",)


def test_the_same_picture_twice_is_on_one_side(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree")
    for file in list((root / "a").iterdir()):
        shutil.copy(file, root / "b" / f"copy-{file.name}")
    train, test = sides(read(root))
    assert not train & test


@pytest.mark.parametrize("expression", [r"/p(\d+)_", r"^\w/p\d+"])
def test_groups_stay_together_in_test_and_validation(tmp_path: Path, expression: str) -> None:
    root = write_tree(tmp_path / "tree")
    content = read(root, group_by=expression)
    arrays = content.arrays
    assert arrays.x_val is not None
    parts = {"train": arrays.x_train, "test": arrays.x_test, "val": arrays.x_val}
    assert sum(map(len, parts.values())) == 120
    groups = {}
    for file in root.rglob("*.png"):
        (part,) = [name for name, images in parts.items() if np.asarray(Image.open(file)).tobytes() in rows(images)]
        group = file.name.partition("_")[0] + (file.parent.name if expression.startswith("^") else "")
        groups.setdefault(group, set()).add(part)
    assert {len(of) for of in groups.values()} == {1}
    assert {part for of in groups.values() for part in of} == set(parts)
    assert content.notes[0].startswith(f"test: {len(arrays.x_test)} pictures, held out by a hash of their group")
    assert content.notes[1] == f"validation: {len(arrays.x_val)} pictures, groups kept together"


def test_groups_on_both_sides_of_given_parts_are_told(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_tree(tmp_path / part, "ab", 12)
    notes = read(tmp_path, group_by=r"/(p\d)_").notes
    assert "test: 2 groups are in train too (p0, p1)" in notes


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        ("(", "must be a regular expression (missing ), unterminated subpattern at position 0), received '('"),
        ("p1_", "must match the path of every picture, not of 21, as a/p0_0.png; received 'p1_'"),
    ],
)
def test_group_expressions_are_checked(tmp_path: Path, expression: str, rule: str) -> None:
    paths = [f"a/p{n // 4}_{n}.png" for n in range(25)]
    with pytest.raises(InputError) as caught:
        find_groups(expression, paths)
    assert str(caught.value) == f"dataset.group_by: {rule}"


def test_an_expression_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdout, "GROUP_SECONDS", 1)
    with pytest.raises(InputError, match=r"^dataset.group_by: takes more than 1 s"):
        find_groups("(a+)+$", ["a" * 60 + "b"])


def test_every_class_that_can_be_is_on_both_sides() -> None:
    units = [f"{label}-{number}" for label in range(50) for number in range(2)] + ["alone"]
    labels = [label for label in range(50) for _ in range(2)] + [50]
    for fraction in (0.01, 0.5, 0.99):
        held = hold_out(units, labels, fraction, "salt")
        assert [held[2 * label : 2 * label + 2].count(True) for label in range(50)] == [1] * 50
        assert not held[-1]


def test_the_held_out_share_is_the_fraction_and_the_same_everywhere() -> None:
    units = [str(number) for number in range(20_000)]
    held = hold_out(units, [0] * 20_000, 0.2, "test 0")
    assert abs(sum(held) / 20_000 - 0.2) < 0.01
    assert [number for number in range(40) if held[number]] == [0, 2, 4, 5, 6, 7, 11, 15, 17, 18, 32, 33, 35]


def test_duplicates_across_given_parts_are_counted(tmp_path: Path) -> None:
    write_tree(tmp_path / "train", "ab", 10)
    write_tree(tmp_path / "test", "ab", 3)
    for number in (1, 2, 3):
        shutil.copy(tmp_path / f"train/a/p{number // 4}_{number}.png", tmp_path / f"test/b/copy{number}.png")
    Image.open(tmp_path / "train/b/p0_0.png").save(tmp_path / "test/b/again.bmp")
    assert "test: 10 pictures are in train too, pixel by pixel" in read(tmp_path).notes


# Sizes


GRADIENT = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)[..., np.newaxis]


def target(size: tuple[int, int] | None, fit: str = "crop", channels: int | None = None) -> Target:
    return Target(size, fit, channels, "black")


def test_crop_keeps_the_middle_in_proportion() -> None:
    assert bring(GRADIENT, target((32, 32))).shape == (32, 32, 1)
    ours = bring(GRADIENT, target((32, 32))).astype(int)
    np.testing.assert_allclose(ours[..., 0], GRADIENT[::2, 16:80:2, 0] + 1.0, atol=1)
    wide = bring(GRADIENT, target((16, 96)))
    np.testing.assert_array_equal(wide, GRADIENT[24:40])


def test_pad_keeps_everything_between_borders() -> None:
    small = bring(GRADIENT + 1, target((48, 48), "pad"))
    assert small.shape == (48, 48, 1)
    assert (small[:8] == 0).all()
    assert (small[40:] == 0).all()
    assert (small[8:40] > 0).all()


def test_stretch_changes_proportions() -> None:
    whole = bring(GRADIENT, target((64, 32), "stretch"))[..., 0].astype(int)
    np.testing.assert_allclose(whole[:, 1:-1], GRADIENT[:, 4:-4:3, 0], atol=1)


def test_reduction_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., np.newaxis]
    small = bring(stripes, target((16, 16), "stretch"))
    assert np.abs(small.astype(int)[:, 1:-1] - 127).max() <= 2


def test_channels_are_converted() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    grey = (colour.astype(np.int64) @ [19595, 38470, 7471] + 32768) >> 16
    np.testing.assert_array_equal(bring(colour, target(None, channels=1))[..., 0], grey)
    np.testing.assert_array_equal(bring(GRADIENT, target(None, channels=3)), np.repeat(GRADIENT, 3, axis=2))


def test_resized_bits_are_those_of_every_machine() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (301, 203, 3), dtype=np.uint8)
    digests = {}
    for fit in ("crop", "pad", "stretch"):
        digests[fit] = hashlib.sha256(bring(photo, target((96, 64), fit)).tobytes()).hexdigest()[:16]
    assert digests == {"crop": "2d340df6dfb50188", "pad": "b863e4815eed92fe", "stretch": "0aaa8c6423ccea2e"}


# Cache


def caches(home: Path) -> list[str]:
    folder = home / "cache" / "pictures"
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def test_pictures_are_decoded_once(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "tree")
    first = read(root)
    (name,) = caches(home)
    monkeypatch.setattr(cache, "decode", None)
    again = read(root)
    for one, other in zip(first.arrays, again.arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    assert isinstance(again.arrays.x_train, np.memmap)
    assert not again.arrays.x_train.flags.writeable
    assert caches(home) == [name]


def test_other_content_size_or_fit_is_decoded_again(tmp_path: Path, home: Path) -> None:
    root = write_tree(tmp_path / "tree")
    read(root)
    read(root, size=(8, 8))
    read(root, size=(8, 8), fit="pad")
    Image.new("L", (4, 4)).save(root / "a/p0_0.png")
    read(root)
    assert len(caches(home)) == 4
    shutil.copytree(root, tmp_path / "copy")  # the same content elsewhere is the same
    read(tmp_path / "copy")
    assert len(caches(home)) == 4


@pytest.mark.parametrize("damage", ["cut", "gone", "meta", "remains", "pipe", "other files", "floats"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, home: Path, damage: str) -> None:
    root = write_tree(tmp_path / "tree")
    expected = read(root).arrays.x_train.tobytes()
    (name,) = caches(home)
    folder = home / "cache/pictures" / name
    if damage == "cut":
        os.truncate(folder / "train.npy", 200)
    elif damage == "gone":
        (folder / "test.npy").unlink()
    elif damage == "meta":
        (folder / "pictures.json").write_text("[1]")
    elif damage == "pipe":
        (folder / "test.npy").unlink()
        os.mkfifo(folder / "test.npy")
    elif damage == "other files":
        (folder / "pictures.json").write_text((folder / "pictures.json").read_text().replace("[0,", "[9999,"))
    elif damage == "floats":
        np.save(folder / "train.npy", np.load(folder / "train.npy").astype(float))
    else:
        folder.rename(folder.with_name(f"{name}.1.part"))
    assert read(root).arrays.x_train.tobytes() == expected
    assert caches(home) == [name]


def test_nothing_is_left_where_pictures_are_bad(tmp_path: Path, home: Path) -> None:
    root = write_tree(tmp_path / "tree")
    (root / "a/p0_0.png").write_bytes(b"")
    assert "must be a readable image" in complaint(read, root)
    assert caches(home) == []


def test_a_full_disk_and_a_closed_home_are_told(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "tree")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
        with pytest.raises(InputError, match=r"has 1 bytes free; 120 decoded pictures need 1.9 kB$"):
            read(root)
    assert caches(home) == []
    assert not (home / "cache").exists()
    (home / "cache").write_text("a file in the way")
    with pytest.raises(InputError, match=r"cache/pictures/\w+: cannot be written \(.*\)$"):
        read(root)


def _read_in_child(root: str, counter: str) -> None:
    original = cache.decode

    def counted(*arguments: Any) -> Any:
        with open(counter, "ab") as file:
            file.write(b"x")
        return original(*arguments)

    cache.decode = counted
    read(Path(root))


def test_eight_processes_decode_once(tmp_path: Path, home: Path) -> None:
    root = write_tree(tmp_path / "tree")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_read_in_child, args=(str(root), str(tmp_path / "count"))) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 8
    assert (tmp_path / "count").read_bytes() == b"xx"  # train and test
    assert len(caches(home)) == 1


def test_refused_pictures_leave_no_folder(home: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "pictures", each=10)
    (tmp_path / "pictures" / "a" / "p0_0.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="must be a readable image"):
        read(tmp_path / "pictures")
    assert not (home / "cache").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("abc", "must be a valid integer, received 'abc' (str)"),
        ("[4]", "must have at least 2 items, received [4]"),
        ("0", "must be greater than or equal to 1, received 0"),
    ],
)
def test_a_wrong_size_is_told_once_and_by_its_key(given: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        compose("dataset=files", "dataset.path=/x", f"dataset.image_size={given}")
    assert str(caught.value) == f"dataset.image_size: {told}"
