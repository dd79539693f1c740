"""Images whose label all runs contradict, from probabilities that were made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.comparison import report, suspects
from experiments.comparison.comparison import compare
from experiments.comparison.suspects import as_csv, contradictions, find, sentence
from experiments.config import compose
from experiments.results.evaluation import image_digests
from experiments.results.records import Predictions, Record
from synthetic_runs import configured, probabilities_of, write_run

LABELS = np.arange(100) % 10
RIGHT = np.ones(100, bool)


def run(folder: Path, seed: int, wrong: dict[int, float]) -> Record:
    """A run that is 90 % sure of each label, but of the class after it at images `wrong`, with that probability."""
    right, confidence = RIGHT.copy(), np.full(100, 0.9)
    for index, sure in wrong.items():
        right[index], confidence[index] = False, sure
    probabilities = probabilities_of(LABELS, right, confidence)
    digests = np.arange(100, dtype=np.uint64)
    predictions = Predictions(probabilities, LABELS, digests, probabilities_of(LABELS, RIGHT, confidence), LABELS)
    return write_run(folder / str(seed), predictions, config=configured(seed=seed))


def test_contradiction_is_as_sure_as_that_class_usually_is() -> None:
    """Class 0 is usually given 0.8, class 1 0.6."""
    labels = np.array([0, 0, 1, 1, 0, 1])
    of_zero = np.array([0.9, 0.9, 0.2, 0.35, 0.6, 0.65])
    probabilities = np.stack([of_zero, 1 - of_zero], axis=1).astype(np.float32)
    assert contradictions(probabilities, labels).tolist() == [-1, -1, -1, -1, -1, -1]
    probabilities[5] = [0.95, 0.05]
    assert contradictions(probabilities, labels).tolist() == [-1, -1, -1, -1, -1, 0]


def test_class_without_an_image_of_its_own_contradicts_nothing() -> None:
    probabilities = np.array([[0.9, 0.0, 0.1], [0.0, 0.0, 1.0]], np.float32)
    assert contradictions(probabilities, np.array([0, 1])).tolist() == [-1, -1]


def test_suspect_is_what_all_runs_say_with_confidence(tmp_path: Path) -> None:
    """Image 7 all contradict, 17 one run does not, 27 one run is not sure of."""
    found = find([
        run(tmp_path, 0, {7: 0.95, 17: 0.95, 27: 0.95}),
        run(tmp_path, 1, {7: 0.99, 27: 0.95}),
        run(tmp_path, 2, {7: 0.91, 17: 0.95, 27: 0.6}),
    ])  # fmt: skip
    assert found is not None
    (suspect,) = [s for s in found.suspects if s.split == "test"]
    assert (suspect.index, suspect.label, suspect.answer, suspect.runs) == (7, 7, 8, 3)
    assert suspect.of_answer == pytest.approx(0.95, abs=1e-6)
    assert suspect.of_label == pytest.approx(0.05 / 9, abs=1e-6)
    assert sentence(found).startswith("1 image carries a label that all runs on it contradict")


def test_only_the_best_runs_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MOST_RUNS", 3)
    found = suspects.of_comparison(compare([run(tmp_path, seed, {7: 0.95}) for seed in range(5)]))
    assert found is not None
    assert found.runs == 3


def test_one_run_accuses_nobody(tmp_path: Path) -> None:
    assert find([run(tmp_path, 0, {7: 0.95})]) is None


def test_csv_has_the_least_probable_label_first_and_names(tmp_path: Path) -> None:
    found = find([run(tmp_path, seed, {3: 0.92, 5: 0.99}) for seed in (0, 1)])
    assert found is not None
    names = [f"class {number}" for number in range(10)]
    head, *lines = as_csv([s for s in found.suspects if s.split == "test"], names).splitlines()
    assert head == "split,index,image,label,runs_say,p_label,p_runs_say,runs,file"
    assert [line.split(",")[:2] for line in lines] == [["test", "5"], ["test", "3"]]
    assert "class 5,class 6,0.001111,0.990000,2," in lines[0]


def test_report_shows_them_and_says_what_it_rests_on(tmp_path: Path) -> None:
    comparison = compare([run(tmp_path, seed, {3: 0.92, 5: 0.99}) for seed in (0, 1)])
    report.write(comparison, tmp_path / "report")
    page = (tmp_path / "report" / report.HTML).read_text()
    assert "Labels in doubt" in page
    assert "so it is no proof" in page
    assert (tmp_path / "report" / report.SUSPECTS).read_text().count("\ntest,") == 2


def test_report_of_runs_that_agree_with_the_labels_has_no_such_part(tmp_path: Path) -> None:
    comparison = compare([run(tmp_path, seed, {}) for seed in (0, 1)])
    report.write(comparison, tmp_path / "report")
    assert "Labels in doubt" not in (tmp_path / "report" / report.HTML).read_text()
    assert len((tmp_path / "report" / report.SUSPECTS).read_text().splitlines()) == 1


def coloured(root: Path) -> Path:
    """60 pictures of 4×4 of two classes, told apart by their brightness."""
    from PIL import Image

    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for number in range(30):
            pixels = np.full((4, 4), 100 * label + number, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def of_pictures(folder: Path, pictures: Path, seed: int, **settings: object) -> Record:
    """A run that contradicts the first validation and the first test image."""
    data = compose("dataset=files", f"dataset.path={pictures}", *(f"dataset.{k}={v}" for k, v in settings.items()))
    loaded = data.dataset.load()
    parts = {}
    for split, images in (("test", loaded.test), ("validation", loaded.validation)):
        right = np.arange(len(images.labels)) != 0
        probabilities = probabilities_of(images.labels, right, np.full(len(right), 0.9), classes=2)
        parts |= {f"{split}_probabilities": probabilities, f"{split}_labels": images.labels}
    digests = image_digests(loaded.test.images)
    record = write_run(
        folder / str(seed), Predictions(**parts, test_image_digests=digests),
        config={**data.model_dump(mode="json"), "seed": seed},
    )  # fmt: skip
    record.write(dataset=record.dataset.model_copy(update={"digest": loaded.digest}))
    return record


@pytest.mark.parametrize("settings", [{}, {"split_seed": 3}, {"folds": 3, "fold": 1}])
def test_suspect_of_a_folder_has_the_name_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, int]
) -> None:
    from PIL import Image

    monkeypatch.setenv("EXPERIMENTS_HOME", str(tmp_path))
    pictures = coloured(tmp_path / "pictures")
    found = find([of_pictures(tmp_path, pictures, seed, **settings) for seed in (0, 1)])
    assert found is not None
    data = compose("dataset=files", f"dataset.path={pictures}", *(f"dataset.{k}={v}" for k, v in settings.items()))
    loaded = data.dataset.load()
    named = {suspect.split.split()[0]: pictures / suspects.file_of(suspect) for suspect in found.suspects}
    assert sorted(named) == ["test", "validation"]
    for split, images in (("test", loaded.test), ("validation", loaded.validation)):
        assert np.array_equal(np.asarray(Image.open(named[split])), images.images[0][..., 0])
        assert named[split].parent.name == loaded.class_names[images.labels[0]]
    assert (
        as_csv(found.suspects, ())
        .splitlines()[1]
        .endswith(f",{named[found.suspects[0].split.split()[0]].relative_to(pictures)}")
    )


def test_folder_that_has_changed_names_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERIMENTS_HOME", str(tmp_path))
    pictures = coloured(tmp_path / "pictures")
    found = find([of_pictures(tmp_path, pictures, seed) for seed in (0, 1)])
    assert found is not None
    (pictures / "dark" / "0.png").unlink()
    assert {suspects.file_of(suspect) for suspect in found.suspects} == {""}
