"""What a race's test images certify, how its course is drawn, and where the reports tell of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats

from experiments.comparison import decisions, race_sentences
from experiments.comparison.certificate import Certificate, certify
from experiments.comparison.comparison import Comparison, compare
from experiments.comparison.configurations import Configuration
from experiments.comparison.decisions import DECISIONS, Entry, Round, Setting
from experiments.comparison.race_chart import race_chart
from experiments.comparison.races import RaceResult, Scale, gaps
from experiments.comparison.report import HTML, MARKDOWN, write
from experiments.comparison.scores import ImageSet, Scores
from experiments.comparison.sentences import headlines, sentences
from experiments.comparison.sequential import FIRST_ROUND, Rules, critical_value, decide
from experiments.results import records
from experiments.results.evaluation import Interval
from experiments.results.records import Predictions
from synthetic_runs import configured, probabilities_of, write_run

NAMES = ("sgd", "adam", "rmsprop")
IMAGES, FLOOR = 2000, 100 / 6000


def setting(seeds: int, margin: float = 0.1) -> Setting:
    entries = tuple(Entry(label=name, jobs=tuple(range(c * seeds, (c + 1) * seeds))) for c, name in enumerate(NAMES))
    return Setting(
        metric="validation/accuracy", confidence=0.95, margin=margin, floor=FLOOR, seeds=tuple(range(seeds)),
        configurations=entries,
    )  # fmt: skip


def rounds(points: np.ndarray, margin: float = 0.1) -> list[Round]:
    """The decisions over values (configurations, seeds), as they are written."""
    left, made = list(range(len(points))), []
    for n in range(FIRST_ROUND, points.shape[1] + 1):
        found = decide({c: points[c, :n] for c in left}, len(points), Rules(0.95, margin, FLOOR))
        since = range(n) if n == FIRST_ROUND else (n - 1,)
        results = tuple((c * points.shape[1] + s, "k", points[c, s] / 100) for c in left for s in since)
        made.append(
            Round(
                round=n, results=results, failed={}, entered=found.entered, means=found.means, out=dict(found.out),
                leader=found.leader, bound=found.bound, bounds=dict(found.bounds), verdict=found.verdict,
                level=found.level, critical=found.critical,
            )
        )  # fmt: skip
        left = [c for c in left if c not in found.out]
        if found.verdict != "open":
            break
    return made


POINTS = np.array([[99.20, 99.25, 99.18, 99.22, 99.27], [99.18, 99.20, 99.22, 99.17, 99.23],
                   [98.70, 98.78, 98.66, 98.75, 98.72]])  # fmt: skip


def raced(margin: float = 0.1) -> RaceResult:
    return RaceResult(setting(5, margin), tuple(rounds(POINTS, margin)), {}, "a-race")


def answering(right: np.ndarray) -> Configuration:
    """A configuration with these answers (seeds, images) on common test images."""
    images = ImageSet("common", np.zeros(right.shape[1], np.int64), np.zeros(0, np.uint64))
    nothing: Any = np.zeros(right.shape)
    of_seeds = tuple(SimpleNamespace(seed=seed) for seed in range(len(right)))
    scores = Scores(images, right, nothing, nothing, nothing)
    splits, errors = cast(Any, (None,) * len(right)), (0.0,) * len(right)
    return Configuration("c", {}, cast(Any, of_seeds), scores, splits, errors)


# The certificate.


def test_certificate_is_that_of_the_formula() -> None:
    generator = np.random.default_rng(0)
    hard = generator.random(IMAGES)
    right = [generator.random((5, IMAGES)) + hard > share for share in (0.05, 0.06, 0.10)]
    race = raced()
    found = certify(race, {c: answering(answers) for c, answers in enumerate(right)})
    assert [one.other for one in found] == [1, 2]
    for one, n, m in ((found[0], 5, 2), (found[1], 3, 3)):
        means = 100 * np.array([answers[:n].mean(axis=1) for answers in right[:m]])
        leads = means[:, None, :] - means[None, :, :]
        v = leads.var(axis=2, ddof=1)
        pairs = [v[i, j] for i in range(m) for j in range(i)]
        lent = [v[i].sum() / (m - 1) for i in range(m)]
        u = max(v[0, one.other], float(np.mean(pairs)), lent[0], lent[one.other], (100 / IMAGES) ** 2)
        difference = right[0][:n].mean(axis=0) - right[one.other][:n].mean(axis=0)
        flips = sum(_flips(answers[:n]) / n for answers in (right[0], right[one.other]))
        v_images = 100**2 * max(0.0, difference.var(ddof=1) / IMAGES - flips)
        c_images = stats.norm.ppf(1 - 0.05 / (3 * (m - 1)))
        c_seeds = critical_value(3, m, n, 0.95)
        half = (u / n * c_seeds + v_images * c_images) / math.sqrt(u / n + v_images)
        assert one.bound == pytest.approx(half - leads[0, one.other].mean())
        assert one.resolution == pytest.approx(c_images * math.sqrt(v_images))


def _flips(right: np.ndarray) -> float:
    """Variance of one answer beyond seed and image, for the mean over images: a two-way analysis of variance."""
    seeds, images = right.shape
    rest = right - right.mean(axis=0) - right.mean(axis=1, keepdims=True) + right.mean()
    return float(np.square(rest).sum() / ((seeds - 1) * (images - 1)) / images)


def test_certificate_needs_predictions_and_common_seeds() -> None:
    right = np.random.default_rng(1).random((5, 100)) > 0.1
    assert certify(raced(), {}) == []
    assert [
        one.other for one in certify(raced(), {0: answering(right), 1: answering(right[:4]), 2: answering(right)})
    ] == [2]
    assert certify(raced(), {1: answering(right), 2: answering(right)}) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([Certificate(1, 0.14, 0.12)],
         "On new images and seeds adam is at most 0.14 points better; these images cannot show less than 0.12 between "
         "the two, however many seeds."),
        ([Certificate(1, 0.14, 0.12), Certificate(2, -0.4, 0.2)],
         "On new images and seeds no other (the closest is adam) is more than 0.14 points better; these images cannot "
         "show less than 0.12 between the two, however many seeds."),
        ([Certificate(1, -0.2, 0.12), Certificate(2, -0.4, 0.2)],
         "On new images and seeds every other is worse by at least 0.20 points."),
    ],
)  # fmt: skip
def test_certificate_in_words(found: list[Certificate], told: str) -> None:
    said = race_sentences.certificate(raced(), found, 0.9919, Interval(0.9903, 0.9932))
    assert said == f"Test images, looked at once: sgd 99.19% [99.03, 99.32]. {told}"


def test_test_images_say_nothing_while_the_race_is_open() -> None:
    race = raced(margin=0.0)
    assert race.last
    assert race.last.verdict == "open"
    assert race_sentences.certificate(race, [Certificate(1, 0.14, 0.12)], 0.99, Interval(0.98, 1.0)) == ""


# The picture and the tables.


def test_gaps_are_the_bounds_of_both_sides() -> None:
    made = rounds(POINTS)[0]
    found = gaps(made)
    assert set(found) == {1, 2}
    assert found[2].value == pytest.approx(POINTS[0, :3].mean() - POINTS[2, :3].mean())
    assert found[2].low == pytest.approx(0.3174, abs=1e-4)  # − U_CA of the worked example
    assert found[2].high - found[2].value == pytest.approx(found[2].value - found[2].low)


def test_chart_shows_every_configuration_and_where_it_fell() -> None:
    drawn = str(race_chart(raced(), ["s0", "s1", "s2"]))
    assert re.findall(r'<g class="line (s\d)">', drawn) == ["s1", "s2"]
    assert drawn.count("×") == 1
    assert "rmsprop after 3 seeds: 0.50 behind sgd (0.32 to 0.68)" in drawn
    assert "margin 0.1 points" in drawn
    numbers = [float(text) for text in re.findall(r'(?:x|y|x1|y1|x2|y2)="(-?[\d.]+)"', drawn)]
    assert min(numbers) >= 0
    bands = re.findall(r'<polygon points="([^"]+)"', drawn)
    first = [tuple(map(float, point.split(","))) for point in bands[0].split()]
    widths = [abs(first[-1 - place][1] - first[place][1]) for place in range(3)]
    assert widths == sorted(widths, reverse=True)  # they shrink


def test_chart_is_not_squeezed_by_what_is_far_behind() -> None:
    far = POINTS - np.array([[0.0], [0.0], [10.0]])
    drawn = str(race_chart(RaceResult(setting(5), tuple(rounds(far)), {}, "a"), ["s0", "s1", "s2"]))
    (band, _) = re.findall(r'<polygon points="([^"]+)"', drawn)
    heights = [float(point.split(",")[1]) for point in band.split()]
    assert max(heights) - min(heights) > 60


def test_chart_of_one_round_and_of_none() -> None:
    whole = raced()
    assert "polygon" in str(race_chart(RaceResult(whole.setting, whole.rounds[:1], {}, "a"), ["s0", "s1", "s2"]))
    assert race_chart(RaceResult(whole.setting, (), {}, "a"), ["s0", "s1", "s2"]) == ""


def test_cross_entropy_is_told_in_nats() -> None:
    scale = Scale("validation/cross_entropy")
    assert (scale.mean(-3.12), scale.gap(0.25), scale.margin(0.1)) == ("0.0312", "0.0025", "0.001 nats")
    assert (Scale("validation/accuracy").mean(99.2), Scale("validation/accuracy").gap(-0.001)) == ("99.20%", "0.00")


# The reports.


def write_race(folder: Path, seeds: int = 5, whole: bool = False) -> Path:
    """The runs of the worked example with predictions, and its decisions."""
    made = rounds(POINTS)
    plan = {"key": "a" * 64, "jobs": []}
    chosen = setting(seeds)
    lasts = {c: max(r.round for r in made if c in r.entered) for c in range(3)}
    keys: dict[int, str] = {}
    for c, name in enumerate(NAMES):
        for seed in range(seeds if whole else lasts[c]):
            job = chosen.configurations[c].jobs[seed]
            record = write_run(
                folder / str(job), predicted(c, seed), config=configured(**{"optimizer.name": name, "seed": seed}),
                sweep=folder.name, varied={"optimizer": name, "seed": seed},
            )  # fmt: skip
            keys[job] = record.run_key
            plan["jobs"].append({"run_key": record.run_key, "varied": record.varied})  # type: ignore[attr-defined]
    (folder / "plan.json").write_text(json.dumps(plan))
    true = [r.model_copy(update={"results": tuple((j, keys[j], v) for j, _, v in r.results)}) for r in made]
    (folder / DECISIONS).write_text(decisions.append("", [chosen, *true]))
    return folder


def predicted(c: int, seed: int) -> Predictions:
    generator = np.random.default_rng(10 * c + seed)
    parts = {}
    for split, images in (("test", 400), ("validation", 200)):
        labels = np.arange(images) % 10
        right = generator.random(images) > (0.05, 0.06, 0.4)[c]
        parts[f"{split}_labels"] = labels
        parts[f"{split}_probabilities"] = probabilities_of(labels, right, np.full(images, 0.9))
    return Predictions(test_image_digests=np.arange(400, dtype=np.uint64), **parts)


def compared(folder: Path) -> Comparison:
    return compare([records.load(path.parent) for path in folder.glob("*/record.json")])


def topics(told: Sequence[Any]) -> list[str]:
    return [sentence.topic for sentence in told]


def test_report_begins_with_the_answer_of_the_race(tmp_path: Path) -> None:
    folder = write_race(tmp_path / "a-race")
    comparison = compared(folder)
    told = headlines(comparison)
    assert topics(told) == ["answer", "certificate", "cost", "scope"]
    assert told[0].text.startswith("sgd. No other of the 3 is better by more than 0.06 points of validation accuracy")
    assert "13 jobs of at most 15" in told[0].text
    assert told[2].text.startswith("Cost: 13 jobs (13 counted, 0 begun ahead, 0 from other sweeps); 39 epochs")
    assert "all seeds" in topics(sentences(comparison))
    write(comparison, folder)
    page, text = (folder / HTML).read_text(), (folder / MARKDOWN).read_text()
    assert "<h1>sgd. No other of the 3" in page
    assert '<section id="race">' in page
    assert page.count("after 5 seeds") == 1
    assert "## The race" in text
    assert "| 3 | 3 | sgd 99.21% | rmsprop (worse than sgd by 0.32 or more) | 0.28 points |" in text
    assert text.index("**sgd. No other") < text.index("Cost: 13 jobs") < text.index("## The race")


def test_race_whose_every_job_has_been_run_is_told_as_a_grid_first(tmp_path: Path) -> None:
    comparison = compared(write_race(tmp_path / "a-race", whole=True))
    assert topics(headlines(comparison)) == ["answer", "scope"]
    (told,) = (sentence.text for sentence in sentences(comparison) if sentence.topic == "race")
    assert told.startswith("sgd. No other of the 3")


def test_part_of_a_race_is_no_race(tmp_path: Path) -> None:
    folder = write_race(tmp_path / "a-race")
    assert compare([records.load(folder / job) for job in ("0", "1", "5", "6")]).race is None


def test_paused_runs_are_no_missing_results(tmp_path: Path) -> None:
    folder = write_race(tmp_path / "a-race")
    write_run(
        folder / "13", None, config=configured(**{"optimizer.name": "rmsprop", "seed": 3}), state="paused",
        sweep=folder.name, error=None,
    )  # fmt: skip
    comparison = compared(folder)
    assert comparison.apart == ()
    assert "14 jobs (13 counted, 1 begun ahead, 0 from other sweeps)" in headlines(comparison)[2].text


def test_damaged_decisions_are_a_note(tmp_path: Path) -> None:
    folder = write_race(tmp_path / "a-race")
    (folder / DECISIONS).write_text("{}\n")
    comparison = compared(folder)
    assert comparison.race is None
    assert any(
        "The decisions of the race are not told" in note and "line 1 is damaged" in note for note in comparison.notes
    )


def test_decisions_of_format_1_are_read_for_ever() -> None:
    """Of a race on 6,000 images of MNIST."""
    _, (known,) = decisions.read(Path(__file__).parent / "fixtures" / "decisions_1" / DECISIONS)
    assert [entry.label for entry in known.setting.configurations] == ["sgd", "rmsprop", "adam"]
    assert (known.setting.margin, known.setting.seeds) == (0.1, tuple(range(30)))
    assert [(made.round, made.leader, set(made.out), made.verdict) for made in known.rounds] == [
        (3, 1, {0}, "open"), (4, 1, {2}, "best"),
    ]  # fmt: skip
