from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.ingredients.datasets import Split
from experiments.ingredients.regularization import Augmentation

OFF = Augmentation(
    **dict.fromkeys(Augmentation.model_fields, 0.0) | {"test_views": 1, "flip": "none", "crop": 1.0, "fill": "black"}
)
STRONG = OFF.model_copy(
    update={
        "rotation_degrees": 30.0, "shift_fraction": 0.2, "zoom_fraction": 0.3, "shear_fraction": 0.25,
        "stretch_fraction": 0.2,
    }
)  # fmt: skip
EVERYTHING = STRONG.model_copy(
    update={
        "flip": "both", "crop": 0.5, "brightness": 0.2, "contrast": 0.3, "saturation": 0.4, "cutout": 0.4,
        "mixup": 0.5, "fill": "reflect",
    }
)  # fmt: skip


@pytest.fixture(autouse=True)
def started(tensorflow: Any) -> None:
    """The module reads TensorFlow when it is imported."""


@pytest.fixture
def split() -> Split:
    """Ten noisy 8×6 images in two colours; label i % 3."""
    images = np.random.default_rng(1).integers(0, 256, (10, 8, 6, 2), np.uint8)
    return Split(images, np.arange(10) % 3)


def make(split: Split, *, batch_size: int = 4, seed: int = 0, augmentation: Augmentation = OFF) -> Any:
    from experiments.training.batches import Batches

    return Batches(split, 3, batch_size=batch_size, seed=seed, augmentation=augmentation)


def images_of(batches: Any, epoch: int) -> NDArray[np.uint8]:
    """All images of an epoch in the order of the data, not of the epoch."""
    from experiments.training.batches import order

    visited = np.concatenate([images.numpy() for images, _ in batches.epoch(epoch)])
    back: NDArray[np.uint8] = visited[np.argsort(order(batches.seed, epoch, batches.images))]
    return back


def augmented(
    monkeypatch: pytest.MonkeyPatch, image: NDArray[np.uint8], draws: list[float], augmentation: Augmentation
) -> NDArray[np.uint8]:
    """`image` (height, width) moved by draws in [-1, 1]: angle, zoom, shift across and down, shear, stretch."""
    from experiments.training import batches

    class Drawn:
        def __init__(self, values: list[float]) -> None:
            self.values = np.array([values])

        def uniform(self, low: float, high: float, shape: tuple[int, int]) -> NDArray[np.float64]:
            assert (low, high, shape) == (-1, 1, self.values.shape)
            return self.values

        def permutation(self, count: int) -> NDArray[np.int64]:
            return np.arange(count)

    streams = {batches.ORDER: [], batches.AUGMENTATION: draws[:4], batches.DEFORMATION: draws[4:]}
    monkeypatch.setattr(batches, "generator", lambda _seed, _epoch, stream: Drawn(streams[stream]))
    only = Split(image[None, :, :, None], np.zeros(1, np.int64))
    ((images, _),) = make(only, batch_size=1, augmentation=augmentation).epoch(1)
    moved: NDArray[np.uint8] = images.numpy()[0, :, :, 0]
    return moved


def sampled(image: NDArray[np.uint8], row: NDArray[np.float32]) -> NDArray[np.float64]:
    """Bilinear sampling of `image` (height, width) along the transform `row`; black outside."""
    height, width = image.shape
    a, b, c, d, e, f = row[:6].astype(np.float64)
    framed = np.pad(image.astype(np.float64), 1)
    out = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            u, v = a * x + b * y + c, d * x + e * y + f
            if not (-1 < u < width and -1 < v < height):
                continue
            left, top = int(np.floor(u)), int(np.floor(v))
            patch = framed[top + 1 : top + 3, left + 1 : left + 3]
            across, down = u - left, v - top
            weights = np.outer([1 - down, down], [1 - across, across])
            out[y, x] = (patch * weights).sum()
    return out


def test_order_is_a_permutation() -> None:
    from experiments.training.batches import order

    np.testing.assert_array_equal(np.sort(order(0, 1, 1000)), np.arange(1000))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    from experiments.training.batches import order

    orders = {(seed, epoch): order(seed, epoch, 50).tolist() for seed in range(4) for epoch in range(1, 5)}
    assert len({tuple(visited) for visited in orders.values()}) == 16
    np.random.seed(1)
    assert order(3, 2, 50).tolist() == orders[3, 2]


def test_order_is_the_same_on_every_machine() -> None:
    from experiments.training.batches import order

    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([7, 3, 0])))
    assert order(7, 3, 10).tolist() == generator.permutation(10).tolist()
    assert order(0, 1, 8).tolist() == [1, 4, 6, 5, 7, 3, 2, 0]


def test_streams_of_randomness_differ() -> None:
    from experiments.training.batches import AUGMENTATION, DROPOUT, ORDER, generator

    drawn = {generator(0, 1, stream).integers(2**62) for stream in (ORDER, AUGMENTATION, DROPOUT)}
    assert len(drawn) == 3


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (1, [1] * 10)])
def test_epoch_visits_every_image_once_with_its_label(split: Split, batch_size: int, sizes: list[int]) -> None:
    from experiments.training.batches import order

    batches = make(split, batch_size=batch_size)
    visited = [(images.numpy(), labels.numpy()) for images, labels in batches.epoch(3)]
    assert [len(images) for images, _ in visited] == sizes
    assert batches.steps == len(sizes)
    chosen = order(0, 3, 10)
    images, labels = (np.concatenate(arrays) for arrays in zip(*visited, strict=True))
    assert images.dtype == np.uint8
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(images, split.images[chosen])
    np.testing.assert_array_equal(labels, np.eye(3)[chosen % 3])


@pytest.mark.parametrize("augmentation", [OFF, STRONG, EVERYTHING], ids=["plain", "augmented", "everything"])
def test_an_epoch_is_the_same_whenever_it_is_asked_for(split: Split, augmentation: Augmentation) -> None:
    forward, alone = make(split, augmentation=augmentation), make(split, augmentation=augmentation)
    in_turn = [images_of(forward, epoch) for epoch in (1, 2, 3)]
    np.testing.assert_array_equal(images_of(alone, 3), in_turn[2])
    np.testing.assert_array_equal(images_of(alone, 1), in_turn[0])
    np.testing.assert_array_equal(images_of(forward, 2), in_turn[1])


def test_augmentation_differs_from_epoch_to_epoch_and_from_seed_to_seed(split: Split) -> None:
    batches, other = make(split, augmentation=STRONG), make(split, seed=1, augmentation=STRONG)
    first, second = images_of(batches, 1), images_of(batches, 2)
    assert all((first[i] != second[i]).any() for i in range(10))
    assert all((first[i] != images_of(other, 1)[i]).any() for i in range(10))


def test_augmentation_of_an_image_does_not_depend_on_its_batch(split: Split) -> None:
    for augmentation in (STRONG, EVERYTHING):
        whole = images_of(make(split, batch_size=10, augmentation=augmentation), 2)
        np.testing.assert_array_equal(images_of(make(split, batch_size=3, augmentation=augmentation), 2), whole)


def test_transform_of_an_image_does_not_depend_on_how_many_there_are() -> None:
    from experiments.training.batches import transforms

    many, few = (transforms(STRONG, 5, 2, images, (28, 28)) for images in (100, 7))
    np.testing.assert_array_equal(many[:7], few)


def test_transform_without_augmentation_is_the_identity() -> None:
    from experiments.training.batches import transforms

    np.testing.assert_array_equal(transforms(OFF, 0, 1, 3, (28, 20)), [[1, 0, 0, 0, 1, 0, 0, 0]] * 3)


@pytest.mark.parametrize("size", [(28, 28), (9, 6)])
def test_transforms_stay_within_their_ranges(size: tuple[int, int]) -> None:
    """Angle, zoom and shift are read back from the matrices: uniform, centred, bounded."""
    from experiments.training.batches import transforms

    height, width = size
    rigid = STRONG.model_copy(update={"shear_fraction": 0.0, "stretch_fraction": 0.0})
    a, b, c, d, e, f = transforms(rigid, 0, 1, 20_000, size).astype(np.float64).T[:6]
    zoom = 1 / np.hypot(a, d)
    angle = np.degrees(np.arctan2(d, a))
    x, y = (width - 1) / 2, (height - 1) / 2
    across, down = x - (a * x + b * y + c), y - (d * x + e * y + f)
    for values, bound in [(zoom - 1, 0.3), (angle, 30), (across / width, 0.2), (down / height, 0.2)]:
        assert np.abs(values).max() <= bound * 1.0001
        assert values.mean() == pytest.approx(0, abs=bound * 0.02)
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)
    np.testing.assert_allclose(e, a, atol=1e-6)
    np.testing.assert_allclose(d, -b, atol=1e-6)


def test_deformations_stay_within_their_ranges_and_keep_areas() -> None:
    """Shear and stretch are read back from the triangle that a matrix is after its rotation: A = Q · R."""
    from experiments.training.batches import transforms

    a, b, _, d, e, _ = transforms(STRONG, 0, 1, 20_000, (28, 28)).astype(np.float64).T[:6]
    first, area = np.hypot(a, d), a * e - b * d
    scale = np.sqrt(area)
    assert np.abs(1 / scale - 1).max() <= 0.3 * 1.0001
    wider = scale / first
    assert 1 / 1.2 * 0.9999 <= wider.min() <= 0.835
    assert 1.195 <= wider.max() <= 1.2 * 1.0001
    assert np.median(wider) == pytest.approx(1, abs=0.01)
    shear = (a * b + d * e) / first / scale / wider
    assert np.abs(shear).max() <= 0.25 * 1.0001
    assert shear.std() == pytest.approx(0.25 / np.sqrt(3), rel=0.02)


def test_images_without_deformation_are_those_of_before() -> None:
    """The deformations have draws of their own, so the others do not move when they are switched on."""
    from experiments.training.batches import transforms

    rigid = STRONG.model_copy(update={"shear_fraction": 0.0, "stretch_fraction": 0.0})
    plain, deformed = (transforms(augmentation, 3, 1, 50, (28, 28)) for augmentation in (rigid, STRONG))
    angles = [np.arctan2(moves[:, 3], moves[:, 0]) for moves in (plain, deformed)]
    np.testing.assert_allclose(*angles, atol=1e-5)


@pytest.mark.parametrize(("draw", "turns"), [(1.0, 1), (-1.0, -1), (2.0, 2)])
def test_rotation_by_right_angles_is_exact(monkeypatch: pytest.MonkeyPatch, draw: float, turns: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 7), np.uint8)
    moved = augmented(monkeypatch, image, [draw, 0, 0, 0, 0, 0], OFF.model_copy(update={"rotation_degrees": 90.0}))
    assert np.abs(moved.astype(int) - np.rot90(image, turns)).max() <= 1  # bilinear weights are cut to whole numbers


def test_shift_moves_right_and_down_and_brings_in_black(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(1, 256, (8, 10), np.uint8)
    shift = OFF.model_copy(update={"shift_fraction": 0.5})
    moved = augmented(monkeypatch, image, [0, 0, 0.4, 0.25, 0, 0], shift)  # 2 of 10 across, 1 of 8 down
    expected = np.zeros_like(image)
    expected[1:, 2:] = image[:-1, :-2]
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize(("draw", "side"), [(1.0, 6), (-1.0, 2)])
def test_zoom_is_about_the_centre(monkeypatch: pytest.MonkeyPatch, draw: float, side: int) -> None:
    image = np.zeros((12, 12), np.uint8)
    image[4:8, 4:8] = 255
    moved = augmented(monkeypatch, image, [0, draw, 0, 0, 0, 0], OFF.model_copy(update={"zoom_fraction": 0.5}))
    np.testing.assert_array_equal(moved, moved[::-1, ::-1])
    assert np.sqrt(moved.sum() / 255) == pytest.approx(side, abs=0.5)


@pytest.mark.parametrize("draw", [1.0, -1.0])
def test_shear_slants_and_leaves_the_middle_row(monkeypatch: pytest.MonkeyPatch, draw: float) -> None:
    image = np.zeros((9, 9), np.uint8)
    image[:, 4] = 255
    moved = augmented(monkeypatch, image, [0, 0, 0, 0, draw, 0], OFF.model_copy(update={"shear_fraction": 0.5}))
    np.testing.assert_array_equal(moved[::2].argmax(axis=1), 4 - draw * np.array([-2, -1, 0, 1, 2]))


@pytest.mark.parametrize(("draw", "height", "width"), [(1.0, 2, 8), (-1.0, 8, 2)])
def test_stretch_widens_as_much_as_it_lowers(
    monkeypatch: pytest.MonkeyPatch, draw: float, height: int, width: int
) -> None:
    """Here by very nearly two."""
    image = np.zeros((12, 12), np.uint8)
    image[4:8, 4:8] = 255
    twice = OFF.model_copy(update={"stretch_fraction": 1 - 1e-9})
    moved = augmented(monkeypatch, image, [0, 0, 0, 0, 0, draw], twice)
    assert moved.max(axis=0).sum() / 255 == pytest.approx(width, abs=1)
    assert moved.max(axis=1).sum() / 255 == pytest.approx(height, abs=1)


@pytest.mark.parametrize("views", [1, 2, 16, 101])
def test_first_view_is_the_image_and_all_stay_within_the_ranges(views: int) -> None:
    from experiments.training.batches import view_transforms

    rows = view_transforms(STRONG.model_copy(update={"test_views": views}), (28, 28))
    assert rows.shape == (views, 8)
    np.testing.assert_array_equal(rows[0], [1, 0, 0, 0, 1, 0, 0, 0])
    assert len(np.unique(rows, axis=0)) == views
    scale = 1 / np.sqrt(rows[:, 0] * rows[:, 4] - rows[:, 1] * rows[:, 3])
    assert np.abs(scale - 1).max() <= 0.3 * 1.0001
    angle = np.degrees(np.arctan2(rows[:, 3], rows[:, 0]))
    assert np.abs(angle).max() <= 30 * 1.0001
    np.testing.assert_array_equal(
        view_transforms(STRONG.model_copy(update={"test_views": 101}), (28, 28))[:views], rows
    )


def test_views_turn_and_shift_nothing_together() -> None:
    from experiments.training.batches import view_transforms

    still = STRONG.model_copy(
        update={"zoom_fraction": 0.0, "shear_fraction": 0.0, "stretch_fraction": 0.0, "test_views": 9}
    )
    rows = view_transforms(still, (28, 28)).astype(np.float64)
    angles = np.arctan2(rows[:, 3], rows[:, 0])
    np.testing.assert_allclose(angles[1::2], -angles[2::2], atol=1e-6)
    centre = rows[:, [0, 1, 3, 4]].reshape(-1, 2, 2) @ [13.5, 13.5] + rows[:, [2, 5]] - 13.5
    np.testing.assert_allclose(centre.sum(axis=0), 0, atol=1e-4)
    assert np.abs(centre).max() > 1


def test_augmented_images_are_bilinear_samples(split: Split) -> None:
    from experiments.training.batches import transforms

    moved = images_of(make(split, augmentation=STRONG), 1)
    rows = transforms(STRONG, 0, 1, 10, (8, 6))
    for index in range(10):
        for colour in range(2):
            expected = sampled(split.images[index, :, :, colour], rows[index])
            assert np.abs(moved[index, :, :, colour] - expected).max() <= 1.01


@pytest.mark.parametrize("augmentation", [OFF, STRONG, EVERYTHING])
def test_streamed_images_are_those_of_a_tensor(
    split: Split, augmentation: Augmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.training import batches

    np.save(tmp_path / "images.npy", split.images)
    mapped = Split(np.load(tmp_path / "images.npy", mmap_mode="r"), split.labels)
    expected = make(split, seed=3, augmentation=augmentation)
    monkeypatch.setattr(batches, "COPIED_BYTES", 0)
    streamed = make(mapped, seed=3, augmentation=augmentation)
    for epoch in (1, 2):
        for (images, labels), (others, same) in zip(expected.epoch(epoch), streamed.epoch(epoch), strict=True):
            np.testing.assert_array_equal(images.numpy(), others.numpy())
            np.testing.assert_array_equal(labels.numpy(), same.numpy())
            assert others.shape[1:] == split.images.shape[1:]


def test_weights_of_classes_are_inverse_to_their_sizes_and_go_with_the_images(split: Split) -> None:
    from experiments.training.batches import Batches, balance

    weights = balance(split.labels, 3)  # sizes 4, 3, 3
    np.testing.assert_allclose(weights, [10 / 12, 10 / 9, 10 / 9], rtol=1e-6)
    np.testing.assert_array_equal(balance(np.arange(12) % 4, 4), np.ones(4))
    batches = Batches(split, 3, batch_size=4, seed=0, augmentation=OFF, class_weights=weights)
    for (images, labels, of_images), (same, again) in zip(batches.epoch(1), make(split).epoch(1), strict=True):
        np.testing.assert_array_equal(images.numpy(), same.numpy())
        np.testing.assert_array_equal(labels.numpy(), again.numpy())
        np.testing.assert_array_equal(of_images.numpy(), weights[labels.numpy().argmax(axis=1)])
