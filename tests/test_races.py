"""Races from the command line's words to decisions on the disk and sentences; nothing here trains."""

from __future__ import annotations

import io
import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console

from conftest import SMALL, epoch_row, write_record
from experiments.comparison import decisions, race_sentences
from experiments.comparison.decisions import DECISIONS
from experiments.comparison.races import find
from experiments.conf import CONF
from experiments.errors import InputError
from experiments.results import records
from experiments.results.records import Record
from experiments.sweeps import decision_log, race_presenter, strategy
from experiments.sweeps.auto_seed import expand
from experiments.sweeps.choice import choose, present
from experiments.sweeps.composition import Composer
from experiments.sweeps.directory import find_place, freeze
from experiments.sweeps.jobs import Plan
from experiments.sweeps.planning import make_plan
from experiments.sweeps.presenter import JobPresenter
from experiments.sweeps.race_presenter import RacePresenter
from experiments.sweeps.status import JobState, Status
from experiments.sweeps.strategies.grid import Grid
from experiments.sweeps.strategies.race import Race
from experiments.sweeps.sweep import Sweep

Planned = Callable[..., Plan]
DECIDED = (*SMALL, "tracking=none", "sweep.until=decided", "training.epochs=4")
# Of the worked example: 6,000 validation images, A and B within 0.1 points after five seeds, C out after three.
A = [99.20, 99.25, 99.18, 99.22, 99.27]
B = [99.18, 99.20, 99.22, 99.17, 99.23]
C = [98.70, 98.78, 98.66, 98.75, 98.72]
FLOOR = 100 / 6000


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield Composer(lambda overrides: hydra_compose("config", overrides=overrides))


@pytest.fixture
def planned(composer: Composer) -> Planned:
    """Plans the product of choices, as in `planned("optimizer=sgd,adam", "seed=0,1,2")`."""

    def make(*choices: str, small: Sequence[str] = DECIDED) -> Plan:
        split = [
            [f"{key}={value}" for value in text.split(",")] for key, _, text in (c.partition("=") for c in choices)
        ]
        return make_plan([[*small, *job] for job in product(*split)], composer)

    return make


def refusal(plan: Callable[[], Any]) -> str:
    with pytest.raises(InputError) as caught:
        plan()
    (mistake,) = set(caught.value.mistakes)
    assert "\n" not in mistake
    return mistake


# What is asked.


def expanded(*arguments: str) -> list[str]:
    return expand(OverridesParser.create().parse_overrides(list(arguments)))


def test_auto_seed_is_a_race_over_thirty_seeds() -> None:
    assert expanded("optimizer=sgd,adam", "seed=auto") == [
        "optimizer=sgd,adam", "seed=range(30)", "sweep.until=decided",
    ]  # fmt: skip
    assert expanded("seed=auto", "sweep.until=all") == ["seed=range(30)", "sweep.until=all"]
    assert expanded("seed=3", "optimizer=sgd") == ["seed=3", "optimizer=sgd"]


@pytest.mark.parametrize("arguments", [("seed=auto", "seed=3"), ("seed=auto,1",), ("seed=range(3)", "seed=auto")])
def test_auto_seed_stands_alone(arguments: tuple[str, ...]) -> None:
    told = refusal(lambda: expanded(*arguments))
    assert told == f"seed=auto: chooses the seeds and must stand alone, received {' '.join(arguments)}"


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (["optimizer=sgd,adam", "seed=0,1"], "a race needs 3 or more seeds of every configuration, received 2"),
        (["optimizer=sgd,adam"], "a race needs 3 or more seeds of every configuration, received 1"),
        (["optimizer=sgd", "seed=0,1,2"], "a race needs 2 to 1,000 configurations, received 1"),
        (["dataset.split_seed=0,1", "seed=0,1,2"], "all jobs must be judged by the same validation images"),
    ],
)
def test_what_cannot_be_raced_is_refused(planned: Planned, choices: list[str], told: str) -> None:
    assert told in refusal(lambda: choose(planned(*choices)))


def test_unequal_seeds_are_refused(composer: Composer) -> None:
    jobs = [("sgd", 0), ("sgd", 1), ("sgd", 2), ("adam", 0), ("adam", 1), ("adam", 3)]
    plan = make_plan([[*DECIDED, f"optimizer={name}", f"seed={seed}"] for name, seed in jobs], composer)
    assert refusal(lambda: choose(plan)) == (
        "sweep.until=decided: all configurations need the same seeds; job 3 (optimizer=adam, seed=0) has 0-1, 3, "
        "job 0 (optimizer=sgd, seed=0) has 0-2"
    )


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("sweep.metric=test/accuracy", "sweep.metric: the test images choose nothing; valid: validation/accuracy"),
        ("sweep.metric=train/accuracy", "sweep.metric: a network knows its training images by heart; valid: "),
        ("sweep.metric=accuracy", "sweep.metric: no such choice 'accuracy'"),
        ("sweep.margin=-0.1", "sweep.margin: must be greater than or equal to 0, received -0.1"),
        ("sweep.confidence=0.5", "sweep.confidence: must be greater than 0.5, received 0.5"),
        ("sweep.confidence=1", "sweep.confidence: must be less than 1, received 1"),
        ("sweep.until=enough", "sweep.until: no such choice 'enough'"),
    ],
)
def test_bad_rules_are_named(planned: Planned, option: str, told: str) -> None:
    assert told in refusal(lambda: planned("optimizer=sgd,adam", "seed=0,1,2", small=(*DECIDED, option)))


def test_rules_of_a_race_are_no_part_of_the_sweeps_key(planned: Planned) -> None:
    choices = "optimizer=sgd,adam", "seed=0,1,2"
    grid = planned(*choices, small=(*SMALL, "tracking=none", "training.epochs=4"))
    for option in ("sweep.margin=0.3", "sweep.confidence=0.9", "sweep.metric=validation/cross_entropy"):
        assert planned(*choices, small=(*DECIDED, option)).key == grid.key
    assert isinstance(choose(grid), Grid)


def test_race_knows_its_jobs_and_the_least_difference(planned: Planned) -> None:
    race = choose(planned("optimizer=sgd,adam", "seed=5,3,4", small=(*DECIDED, "sweep.margin=0.3")))
    assert isinstance(race, Race)
    assert race.jobs == ((0, 1, 2), (3, 4, 5))
    assert race.rules.margin == 0.3
    assert race.rules.floor == pytest.approx(100 / 144)  # a tenth of the 1,437 digits that are not for testing
    losses = choose(
        planned("optimizer=sgd,adam", "seed=0,1,2", small=(*DECIDED, "sweep.metric=validation/cross_entropy"))
    )
    assert isinstance(losses, Race)
    assert losses.rules.floor == 0


# What is decided, on the disk.


@pytest.fixture
def sweep(planned: Planned, home: Path) -> Sweep:
    """Three configurations with five seeds, none of which has been run."""
    plan = planned("optimizer=sgd,adam,rmsprop", "seed=0,1,2,3,4")
    freeze(plan, find_place(plan, home))
    return again(plan, home)


def again(plan: Plan, home: Path) -> Sweep:
    statuses = [Status(job) for job in plan.jobs]
    return Sweep(plan, find_place(plan, home), statuses, None, home, Console(file=io.StringIO(), width=120))


def presented(sweep: Sweep, **rules: Any) -> RacePresenter:
    race = choose(sweep.plan)
    assert isinstance(race, Race)
    chosen = {"confidence": 0.95, "margin": 0.1, "floor": FLOOR} | rules
    return RacePresenter(sweep, Race(race.jobs, race.metric, type(race.rules)(**chosen)))


def end(made: Sweep, job: int, points: float | None = None, **fields: Any) -> Record:
    """A job ends with this validation accuracy in percent, or as `fields` say."""
    status = made.statuses[job]
    given = {"state": "finished", "run_key": status.job.run_key, "sweep": made.place.name, "job": job, "epochs_run": 4}
    if points is not None:
        given |= {"metrics": {"validation/accuracy": points / 100, "test/accuracy": 0.99}}
    directory = made.place.directory_of(status.job)
    shutil.rmtree(directory, ignore_errors=True)
    status.record = write_record(directory, **given | {"seed": status.job.config.seed, "seconds": 2.0} | fields)
    status.state = {"finished": JobState.DONE}.get(status.record.state) or JobState(status.record.state)
    return status.record


def run(sweep: Sweep, presenter: RacePresenter, order: random.Random | None = None) -> None:
    """Carries out the worked example, one job after another."""
    race, values = presenter._race, [*A, *B, *C]
    while steps := race.look(strategy.results_of(sweep.statuses).seen):
        step = steps[0] if order is None else order.choice([s for s in steps if not s.ahead])
        end(sweep, step.job, values[step.job])
        presenter.update()


def lines_of(sweep: Sweep) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (sweep.place.path / DECISIONS).read_text().splitlines()]


def test_decisions_are_written_with_what_they_rest_on(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    run(sweep, presenter)
    head, *rounds = lines_of(sweep)
    assert head["format"] == 1
    assert head["race"]["metric"] == "validation/accuracy"
    assert [entry["label"] for entry in head["race"]["configurations"]] == ["sgd", "adam", "rmsprop"]
    assert [(made["round"], list(made["out"]), made["verdict"]) for made in rounds] == [
        (3, ["2"], "open"), (4, [], "open"), (5, [], "within"),
    ]  # fmt: skip
    assert rounds[0]["out"]["2"] == [0, pytest.approx(-0.3174, abs=1e-4)]
    assert [len(made["results"]) for made in rounds] == [9, 2, 2]
    assert rounds[2]["results"] == [
        [4, sweep.plan.jobs[4].run_key, A[4] / 100],
        [9, sweep.plan.jobs[9].run_key, B[4] / 100],
    ]
    assert rounds[2]["bound"] == pytest.approx(0.0617, abs=1e-4)
    assert len({line["sha256"] for line in [head, *rounds]}) == 4


def test_decisions_are_the_same_bytes_in_any_order_and_after_any_stop(sweep: Sweep, home: Path) -> None:
    presenter = presented(sweep)
    presenter.begin()
    run(sweep, presenter)
    whole = (sweep.place.path / DECISIONS).read_bytes()
    for number in range(20):
        chance = random.Random(number)
        (sweep.place.path / DECISIONS).unlink()
        for status in sweep.statuses:
            status.state, status.record = JobState.WAITING, None
        shortest = presented(sweep)
        shortest.begin()
        seen_races = 0
        while steps := shortest._race.look(strategy.results_of(sweep.statuses).seen):
            end(sweep, (job := chance.choice(steps).job), [*A, *B, *C][job])
            if chance.random() < 0.5:  # killed, and started again
                shortest = presented(sweep)
                shortest.begin()
                seen_races += 1
            else:
                shortest.update()
        assert (sweep.place.path / DECISIONS).read_bytes() == whole
        assert seen_races


def test_other_results_are_named(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    run(sweep, presenter)
    end(sweep, 6, 99.5)
    told = refusal(lambda: presented(sweep).begin())
    assert told == (
        f"{sweep.place.path / DECISIONS}: the decision after 3 seeds is not what it was: job 6: validation/accuracy "
        "0.992 then, 0.995 now"
    )
    end(sweep, 6, B[1], run_key="f" * 64)
    assert "job 6 is another run now" in refusal(lambda: presented(sweep).begin())


def test_changed_line_is_named(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    run(sweep, presenter)
    path = sweep.place.path / DECISIONS
    text = path.read_text()
    path.write_text(text.replace('"verdict": "open"', '"verdict": "best"', 1))
    assert refusal(lambda: presented(sweep).begin()) == (
        f"{path}: line 2 is damaged: it does not fit its SHA-256, or the line before"
    )
    lines = text.splitlines(keepends=True)
    path.write_text("".join([*lines[:2], *lines[3:]]))
    assert "line 3 is damaged" in refusal(lambda: presented(sweep).begin())
    path.write_text(text + "[1]\n")
    assert "line 5 is no decision of a race" in refusal(lambda: presented(sweep).begin())
    path.write_text(text.replace("{", '{"a": ' + "[" * 100, 1))
    assert "line 1" in refusal(lambda: presented(sweep).begin())


def test_line_that_was_not_written_to_its_end_is_written_again(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    run(sweep, presenter)
    path = sweep.place.path / DECISIONS
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    presented(sweep).begin()
    assert path.read_bytes() == whole


def test_forged_decisions_with_true_digests_are_seen(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    run(sweep, presenter)
    path = sweep.place.path / DECISIONS
    _, (known,) = decisions.read(path)
    forged = [known.setting, *known.rounds[:2], known.rounds[2].model_copy(update={"leader": 1})]
    path.write_text(decisions.append("", forged))
    assert "the results are the same and the decision is another" in refusal(lambda: presented(sweep).begin())


@pytest.mark.parametrize(
    "change",
    [
        {"configurations": ({"label": "a", "jobs": (10**12,)}, {"label": "b", "jobs": (1,)})},
        {"configurations": ({"label": "a", "jobs": (0, 1, 2)},)},
        {"configurations": ()},
        {"seeds": tuple(range(100_000))},
    ],
)
def test_settings_that_no_race_has_are_refused(sweep: Sweep, change: dict[str, Any]) -> None:
    presented(sweep).begin()
    path = sweep.place.path / DECISIONS
    (head,) = lines_of(sweep)
    values = {key: value for key, value in head.items() if key != "sha256"}
    values["race"] |= json.loads(json.dumps(change))
    path.write_text(json.dumps(values | {"sha256": decisions._digest("", values)}) + "\n")
    assert str(path) in refusal(lambda: presented(sweep).begin())


def test_newer_format_is_left_alone(sweep: Sweep) -> None:
    presented(sweep).begin()
    path = sweep.place.path / DECISIONS
    (head,) = lines_of(sweep)
    values = {key: value for key, value in head.items() if key != "sha256"} | {"format": 2}
    path.write_text(json.dumps(values | {"sha256": decisions._digest("", values)}) + "\n")
    assert "format: 2 needs a newer version" in refusal(lambda: presented(sweep).begin())


def test_smaller_margin_goes_on_from_here(sweep: Sweep) -> None:
    presenter = presented(sweep, margin=0.2)
    presenter.begin()
    run(sweep, presenter)
    assert [line.get("round") for line in lines_of(sweep)] == [None, 3, 4]
    before = (sweep.place.path / DECISIONS).read_text()
    finer = presented(sweep)
    finer.begin()
    assert (sweep.place.path / DECISIONS).read_text().startswith(before)
    assert finer.missing() == 2
    run(sweep, finer)
    assert [line.get("round") for line in lines_of(sweep)] == [None, 3, 4, None, 3, 4, 5]


def test_what_rests_on_a_failure_does_not_count_when_it_is_tried_again(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    end(sweep, 6, state="failed")
    run(sweep, presenter)
    assert lines_of(sweep)[1]["failed"] == {"1": 6}
    assert lines_of(sweep)[-1]["verdict"] == "best"
    sweep.statuses[6].state = JobState.WAITING
    retried = presented(sweep)
    retried.begin()
    assert (lines_of(sweep)[-1]["revoked_from"], lines_of(sweep)[-1]["job"]) == (3, 6)
    run(sweep, retried)
    assert [made.verdict for made in decisions.read(sweep.place.path / DECISIONS)[1][-1].rounds] == [
        "open",
        "open",
        "within",
    ]
    presented(sweep).begin()  # all of it can be made again


def test_grid_checks_what_a_race_has_decided(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    run(sweep, presenter)
    JobPresenter(sweep).begin()
    end(sweep, 0, 12.0)
    assert "job 0: validation/accuracy 0.992 then, 0.12 now" in refusal(JobPresenter(sweep).begin)


def test_check_makes_all_decisions_again_from_the_runs(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    run(sweep, presenter)
    assert decision_log.check(sweep.place.path) == [
        "a race of 3 by validation/accuracy, margin 0.1, 95%: 3 decisions made again, all the same"
    ]
    shutil.rmtree(sweep.place.path / "4")
    with pytest.raises(InputError) as caught:
        decision_log.check(sweep.place.path)
    assert caught.value.mistakes == (
        "a race of 3 by validation/accuracy, margin 0.1, 95%: 2 of 3 decisions made again, all the same",
        f"{sweep.place.path / DECISIONS}: 1 of its decisions rest on runs that are not there, or unfinished",
    )


# What is told.


def test_race_says_what_it_may_take_and_when_it_ends(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    presenter = presented(sweep)
    first, second = presenter.announce()
    assert first.startswith("a race of 3 over seeds 0-4: 9 to 15 jobs (36 to 60 epochs); ")
    assert (
        second
        == "it ends when no other is better than the leader by more than 0.1 points (95%), however often one looks"
    )
    assert presenter.forecast() == "no earlier run tells how long it takes"
    assert presenter.missing() == 9
    for job in (0, 1, 5):
        end(sweep, job, 99.0)
    assert ", 3 jobs done; " in presenter.announce()[0]
    monkeypatch.setattr(race_presenter, "estimate_seconds", lambda plan, todo, home: 10.0 * len(todo))
    assert presenter.forecast() == "about 1:00 to 2:00"


def test_table_tells_where_every_configuration_stands(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    values = [*A, *B, *C]
    for job in (0, 1, 2, 5, 6, 7, 10, 11, 12, 3):
        end(sweep, job, values[job])
    sweep.statuses[8].state, sweep.statuses[8].rows = JobState.RUNNING, [epoch_row(1), epoch_row(2)]
    sweep.statuses[4].state = JobState.RUNNING
    assert presenter.table() == [
        {"configuration": "sgd", "seeds": "4", "validation": "99.21% ± 0.03", "behind the leader": "leads",
         "state": "seed 4: started"},
        {"configuration": "adam", "seeds": "3", "validation": "99.20% ± 0.02",
         "behind the leader": "0.01 (-0.28 to 0.30)", "state": "seed 3: epoch 2/4"},
        {"configuration": "rmsprop", "seeds": "3", "validation": "98.71% ± 0.06",
         "behind the leader": "0.50 (0.32 to 0.68)", "state": "out: worse"},
    ]  # fmt: skip


def test_failed_seed_stands_in_the_table(sweep: Sweep) -> None:
    end(sweep, 5, state="diverged")
    row = presented(sweep).table()[-1]
    assert (row["configuration"], row["state"]) == ("adam", "out: seed 0 diverged")


def test_every_decision_is_told(sweep: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    presenter = presented(sweep)
    presenter.begin()
    with caplog.at_level(logging.INFO, logger="experiments"):
        run(sweep, presenter)
    assert [record.getMessage() for record in caplog.records if "seeds" in record.getMessage()] == [
        "after 3 seeds sgd leads; out: rmsprop (worse than sgd by 0.32 or more); another is better by at most 0.28 "
        "points",
        "after 4 seeds sgd leads; another is better by at most 0.11 points",
        "after 5 seeds sgd leads; another is better by at most 0.06 points",
    ]


def test_live_table_shows_the_running_round(sweep: Sweep) -> None:
    values = [*A, *B, *C]
    for job in (0, 1, 2, 5, 6, 7, 10, 11, 12, 3):
        end(sweep, job, values[job])
    sweep.statuses[8].state, sweep.statuses[8].rows = JobState.RUNNING, [epoch_row(1), epoch_row(2)]
    console = Console(file=io.StringIO(), width=110, height=30, force_terminal=True)
    shown = Sweep(sweep.plan, sweep.place, sweep.statuses, None, sweep.home, console)
    with console.capture() as capture:
        console.print(presented(shown).progress(None)._render())
    text = capture.get()
    assert "round 4: 1/2 jobs" in text
    assert "decision in about 0:0" in text
    assert "rmsprop" in text


def sentences(sweep: Sweep) -> tuple[str, str]:
    race, _ = find([records.load(path.parent) for path in sweep.place.path.glob("*/record.json")])
    assert race
    return race_sentences.answer(race), race_sentences.cost(race)


def test_answer_and_exact_cost(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    run(sweep, presenter)
    end(sweep, 13, 98.7)  # begun ahead
    end(sweep, 2, A[2], sweep="another")
    answer, cost = sentences(sweep)
    assert answer == (
        "sgd. No other of the 3 is better by more than 0.06 points of validation accuracy, whatever the seeds (95% "
        "for all claims together; 14 jobs of at most 15). Worse: rmsprop. Not shown to be worse: adam."
    )
    assert cost == (
        "14 jobs (12 counted, 1 begun ahead, 1 from other sweeps); 52 epochs and 0:26 of training here. 5 seeds each "
        "are 15 jobs. sweep.margin=0.05 goes on from here, sweep.until=all runs the rest."
    )


def test_open_race_says_so(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    values = [*A, *B, *C]
    end(sweep, 0, A[0])
    assert sentences(sweep)[0] == "The race is open: it decides from the third of at most 5 seeds on."
    for job in (1, 2, 5, 6, 7, 10, 11, 12):
        end(sweep, job, values[job])
    presenter.update()
    assert sentences(sweep)[0].startswith(
        "Open after 3 of 5 seeds: sgd leads, and another may be better by up to 0.28 points of validation accuracy"
    )


def test_seeds_that_end_leave_it_undecided(sweep: Sweep) -> None:
    presenter = presented(sweep, margin=0.0)
    presenter.begin()
    run(sweep, presenter)
    answer, cost = sentences(sweep)
    assert answer.startswith("Undecided after 5 of 5 seeds: sgd leads")
    assert answer.endswith("Worse: rmsprop. Still in: adam.")
    assert "until=all" not in cost
    assert presenter.missing() == 0


def test_failure_makes_no_claim(sweep: Sweep) -> None:
    presenter = presented(sweep)
    presenter.begin()
    end(sweep, 5, state="diverged")
    run(sweep, presenter)
    answer, cost = sentences(sweep)
    assert answer.startswith("sgd. No other is left")
    assert "Worse: rmsprop. No claim: adam (job 5 diverged)." in answer
    assert cost.startswith("7 jobs (7 counted, 0 begun ahead, 0 from other sweeps)")


@pytest.mark.parametrize("order", range(5))
def test_records_are_accounted_for_exactly(sweep: Sweep, order: int) -> None:
    """counted + ahead + reused = records on the disk, whatever has been run."""
    chance = random.Random(order)
    presenter = presented(sweep)
    presenter.begin()
    while steps := presenter._race.look(strategy.results_of(sweep.statuses).seen):
        step = chance.choice(steps)
        name = "another" if chance.random() < 0.3 else sweep.place.name
        end(sweep, step.job, [*A, *B, *C][step.job], sweep=name)
        presenter.update()
        race, _ = find([records.load(path.parent) for path in sweep.place.path.glob("*/record.json")])
        assert race
        assert race.cost.jobs == len(list(sweep.place.path.glob("*/record.json")))
        assert race.cost.epochs == 4 * (race.cost.counted + race.cost.ahead)


def test_strategy_is_chosen_by_the_options(planned: Planned, home: Path) -> None:
    plan = planned("optimizer=sgd,adam", "seed=0,1,2")
    made = Sweep(plan, find_place(plan, home), [Status(job) for job in plan.jobs], None, home, Console())
    assert isinstance(present(choose(plan), made), RacePresenter)
    assert isinstance(present(Grid(), made), JobPresenter)
