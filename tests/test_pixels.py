"""What augmentation does to pixels, by numbers that were computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.ingredients.datasets import Split
from experiments.ingredients.regularization import Augmentation
from test_batches import EVERYTHING, OFF, images_of, make


@pytest.fixture(autouse=True)
def started(tensorflow: Any) -> None:
    """The modules read TensorFlow when they are imported."""


def image(*rows: list[Any]) -> NDArray[np.uint8]:
    """One image, (1, h, w, c): grey from numbers, colour from triples."""
    values = np.array([rows], np.uint8)
    return values[..., None] if values.ndim == 3 else values


def recolour(images: NDArray[np.uint8], added: float, contrast: float, saturation: float) -> NDArray[np.uint8]:
    from experiments.training import pixels

    changed: NDArray[np.uint8] = pixels.recolour(images, np.array([[added, contrast, saturation]], np.float32)).numpy()
    assert changed.dtype == np.uint8
    return changed


def test_brightness_adds_and_is_cut_off_at_black_and_white() -> None:
    np.testing.assert_array_equal(recolour(image([0, 100, 250]), 10.0, 1.0, 1.0), image([10, 110, 255]))
    np.testing.assert_array_equal(recolour(image([0, 100, 250]), -10.4, 1.0, 1.0), image([0, 90, 240]))


def test_contrast_is_about_the_mean_of_the_image() -> None:
    np.testing.assert_array_equal(recolour(image([100, 200]), 0.0, 0.5, 1.0), image([125, 175]))
    np.testing.assert_array_equal(recolour(image([100, 200]), 0.0, 3.0, 1.0), image([0, 255]))


def test_saturation_is_about_the_grey_of_each_pixel() -> None:
    """Grey of (100, 50, 0) is 0.299 · 100 + 0.587 · 50 = 59.25."""
    colours = image([[100, 50, 0], [7, 7, 7]])
    np.testing.assert_array_equal(recolour(colours, 0.0, 1.0, 0.0), image([[59, 59, 59], [7, 7, 7]]))
    np.testing.assert_array_equal(recolour(colours, 0.0, 1.0, 2.0), image([[141, 41, 0], [7, 7, 7]]))
    np.testing.assert_array_equal(recolour(image([100, 200]), 0.0, 1.0, 0.0), image([100, 200]))  # grey already


def test_drawn_colours_stay_within_their_ranges() -> None:
    from experiments.training import pixels

    wanted = OFF.model_copy(update={"brightness": 0.2, "contrast": 0.3, "saturation": 0.4})
    drawn = pixels.draw_colours(wanted, np.random.default_rng(0), 20_000)
    for values, centre, bound in zip(drawn.T, (0, 1, 1), (51, 0.3, 0.4), strict=True):
        assert np.abs(values - centre).max() <= bound * 1.0001
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_hole_is_black_and_ends_where_the_image_does() -> None:
    from experiments.training import pixels

    cut = pixels.cut(image([9] * 4, [9] * 4, [9] * 4), np.array([[0, 2, 1, 4]], np.int32)).numpy()
    np.testing.assert_array_equal(cut, image([9, 0, 0, 0], [9, 0, 0, 0], [9, 9, 9, 9]))
    holes = pixels.draw_holes(OFF.model_copy(update={"cutout": 0.5}), np.random.default_rng(0), 5000, (8, 6))
    top, bottom, left, right = holes.T
    assert (top.min(), bottom.max(), left.min(), right.max()) == (0, 8, 0, 6)
    assert (np.unique(bottom - top).tolist(), np.unique(right - left).tolist()) == ([2, 3, 4], [2, 3])


def test_blend_is_the_share_of_each() -> None:
    from experiments.training import pixels

    blended = pixels.blend(image([100, 0]), image([200, 50]), np.array([0.25], np.float32)).numpy()
    np.testing.assert_array_equal(blended, image([175, 38]))  # 37.5, and halves go to the even number


def test_mixup_mixes_labels_and_weights_as_it_mixes_images() -> None:
    from experiments.training import batches, pixels

    images = np.random.default_rng(1).integers(0, 256, (10, 8, 6, 1), np.uint8)
    split, mixing = Split(images, np.arange(10) % 3), OFF.model_copy(update={"mixup": 0.5})
    class_weights = np.array([1, 2, 4], np.float32)
    feed = batches.Batches(split, 3, batch_size=4, seed=7, augmentation=mixing, class_weights=class_weights)
    drawn = pixels.draw_mixture(mixing, batches.generator(7, 2, batches.MIXUP), 10)
    visited = zip(*(map(np.asarray, batch) for batch in feed.epoch(2)), strict=True)
    seen, labels, weights = (np.concatenate(parts) for parts in visited)
    order = batches.order(7, 2, 10)
    share, partner = drawn.shares[order], drawn.partners[order]
    expected = share[:, None] * np.eye(3)[order % 3] + (1 - share[:, None]) * np.eye(3)[partner % 3]
    np.testing.assert_allclose(labels, expected, atol=1e-6)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    of_classes = share * class_weights[order % 3] + (1 - share) * class_weights[partner % 3]
    np.testing.assert_allclose(weights, of_classes, rtol=1e-6)
    plain = share[:, None, None, None] * images[order] + (1 - share[:, None, None, None]) * images[partner]
    assert np.abs(seen - plain).max() <= 0.5001


def framed(images: NDArray[np.uint8], wanted: Augmentation, draws: list[float]) -> NDArray[np.uint8]:
    """Under a flip and a crop of draws in [-1, 1]: across, down, area, ratio, place across, place down."""
    from experiments.training import batches

    same = np.array([[1, 0, 0, 0, 1, 0, 0, 0]], np.float32)
    moves = batches._framed(same, wanted, np.array([draws]), images.shape[1:3])  # type: ignore[arg-type]
    moved: NDArray[np.uint8] = batches.move(images, moves, wanted.fill).numpy()
    return moved


@pytest.mark.parametrize(("flip", "across", "down"), [("horizontal", -1, 1), ("vertical", 1, -1), ("both", -1, -1)])
def test_flip_is_exact(flip: str, across: int, down: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 5, 8, 3), np.uint8)
    wanted = OFF.model_copy(update={"flip": flip})
    np.testing.assert_array_equal(framed(images, wanted, [-0.5, -0.5, 0, 0, 1, 1]), images[:, ::down, ::across])
    np.testing.assert_array_equal(framed(images, wanted, [0.5, 0.5, 0, 0, 1, 1]), images)


@pytest.mark.parametrize(("place", "row"), [(1.0, [15, 20, 25, 30]), (-1.0, [0, 5, 10, 15]), (0.0, [8, 12, 18, 22])])
def test_crop_enlarges_a_part_and_asks_for_nothing_outside(place: float, row: list[int]) -> None:
    """A quarter of the area is half of each side; bilinear values in between, cut to whole numbers."""
    rows = image(*([[0, 10, 20, 30]] * 4))
    cropped = framed(rows, OFF.model_copy(update={"crop": 0.25}), [1, 1, 1, 0, place, 0])
    assert np.abs(cropped[0, :, :, 0].astype(int) - row).max() <= 1


def test_crops_stay_within_the_image_and_their_areas_within_the_range() -> None:
    from experiments.training.batches import transforms

    wanted = OFF.model_copy(update={"crop": 0.3, "flip": "both"})
    a, _, c, _, e, f, *_ = transforms(wanted, 0, 1, 20_000, (8, 6)).astype(np.float64).T
    for scale, start, side in ((a, c, 6), (e, f, 8)):
        ends = np.stack([start, start + scale * (side - 1)])
        assert ends.min() >= -1e-5
        assert ends.max() <= side - 1 + 1e-5
        assert (scale < 0).mean() == pytest.approx(0.5, abs=0.02)
    area = np.abs(a * e)
    assert (area.min(), area.max()) == (pytest.approx(0.3, abs=0.01), pytest.approx(1, abs=0.01))


@pytest.mark.parametrize(("fill", "row"), [("black", [0, 0, 1, 2]), ("edge", [1, 1, 1, 2]), ("reflect", [2, 1, 1, 2])])
def test_fill_is_what_comes_in_at_the_edge(fill: str, row: list[int]) -> None:
    from experiments.training import batches

    two_to_the_right = np.array([[1, 0, -2, 0, 1, 0, 0, 0]], np.float32)
    moved = batches.move(image([1, 2, 3, 4]), two_to_the_right, fill).numpy()
    np.testing.assert_array_equal(moved, image(row))


def test_each_change_has_draws_of_its_own() -> None:
    """What is switched on beside leaves the others as they were, so that runs can be compared."""
    images = np.random.default_rng(1).integers(0, 256, (10, 8, 6, 3), np.uint8)
    split = Split(images, np.arange(10) % 3)
    bright = OFF.model_copy(update={"brightness": 0.3})
    first, second = (
        images_of(make(split, augmentation=wanted), 1) for wanted in (bright, bright.model_copy(update={"cutout": 0.5}))
    )
    kept = second != 0
    assert 0.4 < kept.mean() < 0.95
    np.testing.assert_array_equal(first[kept], second[kept])
    other = images_of(make(split, augmentation=EVERYTHING), 2)
    assert (images_of(make(split, augmentation=EVERYTHING), 1) != other).mean() > 0.5
