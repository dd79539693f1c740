from pathlib import Path

import numpy as np
import pytest

from experiments.errors import InputError
from experiments.ingredients import npz
from experiments.ingredients.images import Arrays, digest_all, digest_each, spread_classes


def arrays(**changes) -> dict[str, np.ndarray]:
    """12 + 4 grey images 6×5 of 4 classes."""
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (12, 6, 5), dtype=np.uint8),
        "y_train": np.arange(12) % 4,
        "x_test": random.integers(0, 256, (4, 6, 5), dtype=np.uint8),
        "y_test": np.arange(4),
    } | changes


def read(path: Path, **changes) -> Arrays:
    np.savez(path / "a.npz", **{k: v for k, v in arrays(**changes).items() if v is not None})
    return read_archive(path / "a.npz")


def read_archive(path: Path, scale: str = "auto") -> Arrays:
    return npz.read_archive(path, scale).arrays


def complaint(read, *args) -> str:
    with pytest.raises(InputError) as caught:
        read(*args)
    (line,) = caught.value.mistakes
    assert "\n" not in line
    assert line.startswith("dataset.path: ")
    return line


# Archives


def test_archive_becomes_uint8_images_with_channels_and_int64_labels(tmp_path: Path):
    data = read(tmp_path, y_train=(np.arange(12, dtype=np.uint8) % 4)[:, np.newaxis])
    np.testing.assert_array_equal(data.x_train[..., 0], arrays()["x_train"])
    np.testing.assert_array_equal(data.y_train, arrays()["y_train"])
    assert data.x_train.shape == (12, 6, 5, 1)
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.x_train.flags.c_contiguous


def test_archive_may_hold_colour_in_any_memory_order(tmp_path: Path):
    colour = np.random.default_rng(1).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
    data = read(tmp_path, x_train=np.asfortranarray(colour), x_test=colour[:4])
    np.testing.assert_array_equal(data.x_train, colour)
    assert data.x_train.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_fractions_become_255ths(tmp_path: Path, dtype: type):
    fractions = np.full((12, 6, 5), 0.5, dtype)
    fractions[0, 0, :3] = [0, 1, 0.25]
    data = read(tmp_path, x_train=fractions, x_test=np.ones((4, 6, 5), dtype))
    assert data.x_train[0, 0, :4, 0].tolist() == [0, 255, 64, 128]  # 63.75 and 127.5 rounded, ties to even
    assert (data.x_test == 255).all()


def test_floats_up_to_255_are_taken_as_they_are_in_both_parts(tmp_path: Path):
    dark = np.ones((4, 6, 5), np.float32)  # alone it would pass for fractions
    data = read(tmp_path, x_train=arrays()["x_train"].astype(np.float32), x_test=dark)
    np.testing.assert_array_equal(data.x_train[..., 0], arrays()["x_train"])
    assert (data.x_test == 1).all()


def test_whole_numbers_are_never_scaled(tmp_path: Path):
    assert (read(tmp_path, x_test=np.ones((4, 6, 5), np.int32)).x_test == 1).all()


X, Y = arrays()["x_train"], arrays()["y_train"]
BAD_ARRAYS = {
    "missing": ({"y_train": None, "x_test": None}, "must hold y_train, x_test, received x_train, y_test"),
    "pickled": ({"x_train": np.array([None] * 12)}, "object arrays cannot be loaded"),
    "flat": ({"x_train": X.reshape(12, 30)}, "x_train must be at least one image .* received shape (12, 30)"),
    "channels": ({"x_train": np.zeros((12, 6, 5, 2))}, "1 or 3), received shape (12, 6, 5, 2)"),
    "empty": ({"x_train": X[:0], "y_train": Y[:0]}, "received shape (0, 6, 5)"),
    "empty test": ({"x_test": X[:0], "y_test": Y[:0]}, "x_test must be at least one image"),
    "sizes": ({"x_test": np.zeros((4, 5, 6))}, "must have one shape, received (6, 5, 1) and (5, 6, 1)"),
    "too few labels": ({"y_train": Y[:11]}, "y_train must have 12 labels like x_train, received 11"),
    "one-hot": ({"y_test": np.eye(4)}, "y_test must be whole numbers of shape (n,), received float64"),
    "float labels": ({"y_train": Y + 0.5}, "y_train must be whole numbers"),
    "negative label": ({"y_train": Y - 1}, "y_train: labels must be 0, .* class 0 has no .* received -1"),
    "label gap": ({"y_train": Y + (Y > 1)}, "class 2 has no training image, received 3"),
    "huge label": ({"y_train": Y + (Y == 3) * 10**15}, "class 3 has no training image"),
    "one class": ({"y_train": Y * 0}, "at least 2 classes, received 1"),
    "unknown test label": ({"y_test": np.array([0, 1, 2, 4])}, "y_test: labels must be 0-3 .* received 4"),
    "negative test label": ({"y_test": np.array([0, -1, 2, 3])}, "y_test: labels must be 0-3 .* received -1"),
    "nan": ({"x_test": np.full((4, 6, 5), np.nan)}, "x_test: pixels must be in 0-255 .* received nan to nan"),
    "infinity": ({"x_test": np.full((4, 6, 5), np.inf)}, "received inf"),
    "below": ({"x_train": X.astype(int) - 300}, "x_train: pixels must be in 0-255"),
    "above": ({"x_train": X.astype(np.float32) + 1}, "x_train: pixels must be in 0-255"),
    "text": ({"x_train": np.full((12, 6, 5), "a")}, "x_train must be whole numbers or floats, received <U1"),
    "truth": ({"x_train": X > 9}, "received bool"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_archive_breaking_a_rule_is_refused(tmp_path: Path, changes: dict, expected: str):
    line = complaint(lambda: read(tmp_path, **changes))
    assert line.startswith(f"dataset.path: {tmp_path / 'a.npz'}: ")
    position = 0
    for part in expected.split(" .* "):
        assert part in line[position:]
        position = line.index(part, position)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_archive_is_refused(tmp_path: Path, share: float):
    read(tmp_path)
    path = tmp_path / "a.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cut off" in complaint(read_archive, path)


def test_archive_with_flipped_bytes_is_refused(tmp_path: Path):
    read(tmp_path)
    path = tmp_path / "a.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF  # inside the first array
    path.write_bytes(content)
    assert "Bad CRC-32" in complaint(read_archive, path)


def test_what_is_no_archive_is_refused(tmp_path: Path):
    np.save(tmp_path / "a.npy", X)
    assert "must be a whole zip archive" in complaint(read_archive, tmp_path / "a.npy")
    assert "cannot be read (No such file or directory)" in complaint(read_archive, tmp_path / "none.npz")


# Order and digests


def test_spread_classes_puts_each_image_at_its_share_of_its_class():
    # Class 0 at 1/8 3/8 5/8 7/8, class 1 at 1/4 3/4.
    assert spread_classes(np.array([0, 0, 0, 0, 1, 1])).tolist() == [0, 4, 1, 2, 5, 3]
    # Equal shares go by label, whatever the order given.
    assert spread_classes(np.array([1, 0, 1, 0])).tolist() == [1, 0, 3, 2]


def test_spread_classes_stratifies_every_prefix():
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    order = spread_classes(labels)
    assert sorted(order) == list(range(1000))
    for n in range(1, 1001):
        counts = np.bincount(labels[order[:n]], minlength=3)
        assert np.abs(counts - n * np.array([0.5, 0.3, 0.2])).max() <= 1.5


def test_digest_changes_with_every_array(tmp_path: Path):
    original = read(tmp_path)
    digests = {digest_all(original, digest_each(original))}
    for name in original.present():
        changed = getattr(original, name).copy()
        changed.flat[-1] = (int(changed.flat[-1]) + 1) % 4
        other = original._replace(**{name: changed})
        digests.add(digest_all(other, digest_each(other)))
    reshaped = original._replace(x_train=original.x_train.reshape(12, 5, 6, 1))
    digests.add(digest_all(reshaped, digest_each(reshaped)))
    assert len(digests) == 6


def test_digest_tells_labels_apart_beyond_256_classes():
    images = np.zeros((258, 1, 1, 1), np.uint8)
    labels = np.arange(258)
    one = Arrays(images, labels, images[:1], np.array([0]))
    other = one._replace(y_test=np.array([256]))
    assert digest_each(one)["y_test"] != digest_each(other)["y_test"]
