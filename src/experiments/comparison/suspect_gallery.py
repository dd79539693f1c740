"""The pictures of label suspects for the report."""

from __future__ import annotations

from typing import NamedTuple

from experiments.comparison.comparison import Comparison
from experiments.comparison.images import png_uri
from experiments.comparison.suspects import Found, file_of, of_comparison, sentence
from experiments.results.test_images import TestImages

MOST_TILES = 48


class SuspectTile(NamedTuple):
    """A suspect with what is written under it; `uri` and `file` are empty where they are not to be had."""

    uri: str
    place: str
    label: str
    answer: str
    numbers: str
    file: str


class Gallery(NamedTuple):
    """What the report shows: a sentence, the first tiles, and how many suspects there are in all."""

    sentence: str
    tiles: tuple[SuspectTile, ...]
    total: int


def gallery(comparison: Comparison, images: TestImages) -> Gallery | None:
    """The suspects of a comparison's runs; None where there are none.

    `images` are the test images of the comparison's best configuration: other images have no pictures here.
    """
    found = of_comparison(comparison)
    if found is None or not found.suspects:
        return None
    return Gallery(sentence(found), tuple(_tiles(comparison, found, images)), len(found.suspects))


def _tiles(comparison: Comparison, found: Found, images: TestImages) -> list[SuspectTile]:
    scores = comparison.best.scores
    shown = {f"{int(d):016x}" for d in scores.test_set.image_digests} if scores and images.pixels is not None else set()

    def name(label: int) -> str:
        return images.class_names[label] if label < len(images.class_names) else str(label)

    tiles = []
    for s in found.suspects[:MOST_TILES]:
        uri = ""
        if s.split == "test" and s.digest in shown and images.pixels is not None:
            uri = png_uri(images.pixels[s.index])
        numbers = f"p {s.of_label:.3f} against {s.of_answer:.3f}"
        tiles.append(SuspectTile(uri, f"{s.split} {s.index}", name(s.label), name(s.answer), numbers, file_of(s)))
    return tiles
