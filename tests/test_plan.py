"""Plans, the directories they go to, and what is known of their jobs: all that happens before anything is trained."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from rich.console import Console

from conftest import SMALL, messages_of, write_record
from experiments.conf import CONF
from experiments.config import config_key, former_run_keys, run_key
from experiments.errors import InputError
from experiments.results import environment, files, lookup, records
from experiments.results.records import Process, Record
from experiments.sweeps import directory, failures, finalize, planning
from experiments.sweeps.archive import Archive
from experiments.sweeps.composition import Composer
from experiments.sweeps.directory import PLAN, Place, find_place, freeze, locked
from experiments.sweeps.executors import cores as cores_module
from experiments.sweeps.executors.choice import memory_of_a_job, share_again
from experiments.sweeps.executors.cores import with_threads
from experiments.sweeps.jobs import Plan
from experiments.sweeps.locks import held, holder
from experiments.sweeps.planning import make_plan
from experiments.sweeps.presenter import JobPresenter
from experiments.sweeps.reuse import look_at, tidy
from experiments.sweeps.runtime_estimate import estimate_seconds
from experiments.sweeps.status import Status
from experiments.sweeps.sweep import Sweep
from experiments.upgrades import FormatError

Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield Composer(lambda overrides: hydra_compose("config", overrides=overrides))


@pytest.fixture
def planned(composer: Composer, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Plans the product of choices, as in `planned("seed=0,1", "optimizer=sgd")`, on a machine of four cores."""

    def make(*choices: str, small: Sequence[str] = SMALL, cores: int = 4) -> Plan:
        monkeypatch.setattr(cores_module, "available_cores", lambda: cores)
        split = [
            [f"{key}={value}" for value in text.split(",")] for key, _, text in (c.partition("=") for c in choices)
        ]
        return make_plan([[*small, *job] for job in product(*split)], composer)

    return make


def refuse(planned: Planned, *choices: str, small: Sequence[str] = SMALL) -> tuple[str, ...]:
    with pytest.raises(InputError) as caught:
        planned(*choices, small=small)
    assert all("\n" not in mistake for mistake in caught.value.mistakes)
    return caught.value.mistakes


# The plan.


def test_jobs_are_numbered_named_and_keyed(planned: Planned) -> None:
    made = planned("optimizer=sgd,adam", "seed=4,5")
    assert [str(job) for job in made.jobs] == [
        "job 0 (optimizer=sgd, seed=4)",
        "job 1 (optimizer=sgd, seed=5)",
        "job 2 (optimizer=adam, seed=4)",
        "job 3 (optimizer=adam, seed=5)",
    ]
    digest = made.jobs[0].config.dataset.load().digest
    for job in made.jobs:
        assert job.run_key == run_key(job.config, digest)
        assert job.config_key == config_key(job.config, digest)
    assert len({job.run_key for job in made.jobs}) == 4
    assert [job.config_key for job in made.jobs] == [made.jobs[i].config_key for i in (0, 0, 2, 2)]
    assert made.image_shapes == {made.jobs[0].config.dataset.model_dump_json(): (28, 28, 1, 10)}


def test_what_varies_has_short_names_unless_two_would_be_alike(planned: Planned) -> None:
    made = planned("optimizer.learning_rate=0.1,0.2", "training.epochs=3", "seed=0,1")
    assert made.varied == ("learning_rate", "seed")
    assert made.jobs[3].varied == {"learning_rate": 0.2, "seed": 1}
    options = planned("regularization=l2,dropout", "regularization.l2=0.1,0.2", "optimizer.weight_decay=0.0,0.1")
    assert options.varied == ("regularization", "l2", "weight_decay")
    lists = planned("model=mlp", "model.units=[3],[4]", "seed=0,1")
    assert lists.jobs[3].varied == {"units": "[4]", "seed": 1}
    alike = [{"a.x": 1, "b.x": 3}, {"a.x": 2, "b.x": 4}]
    assert planning._varied(alike, planning._short_names(alike)) == [{"a.x": 1, "b.x": 3}, {"a.x": 2, "b.x": 4}]


def test_single_job_is_a_sweep_too(planned: Planned) -> None:
    made = planned("seed=3")
    assert [str(job) for job in made.jobs] == ["job 0"]
    assert made.varied == ()


def test_same_command_has_the_same_key_and_another_one_has_not(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = planned("seed=0,1").key
    assert planned("seed=0,1", "sweep.workers=1", "tracking=none").key == key
    assert len({key, planned("seed=0,1,2").key, planned("seed=0,1", "training.epochs=3").key}) == 3
    monkeypatch.setattr(environment, "code_digest", lambda: "edited")  # somewhere in the package
    assert planned("seed=0,1").key == key
    monkeypatch.setattr(environment, "sources_digest", lambda: "edited")
    assert planned("seed=0,1").key != key


FREE = tuple(text for text in SMALL if not text.startswith("training.threads"))


@pytest.mark.parametrize(
    ("choices", "cores", "workers", "threads"),
    [
        (["seed=0,1,2,3,4,5"], 4, 4, 1),
        (["seed=0,1,2"], 4, 3, 1),
        (["seed=0,1"], 4, 2, 2),
        (["seed=0"], 4, 1, 4),
        (["seed=0,1,2,3"], 1, 1, 1),
        (["seed=0,1,2,3", "sweep.workers=1"], 4, 1, 4),
        (["seed=0,1,2,3", "sweep.workers=3"], 8, 3, 2),
        (["seed=0,1,2,3", "sweep.workers=9"], 8, 4, 2),
        (["seed=0,1,2,3", "training.threads=2"], 4, 2, 2),
        (["seed=0,1,2,3", "training.threads=8"], 4, 1, 8),
        (["seed=0,1,2,3", "training.determinism=portable"], 4, 4, 1),
        (["seed=0,1", "training.determinism=portable"], 4, 2, 1),
    ],
)
def test_cores_are_shared(planned: Planned, choices: list[str], cores: int, workers: int, threads: int) -> None:
    made = planned(*choices, small=FREE, cores=cores)
    assert (made.workers, made.threads) == (workers, threads)
    assert {job.config.training.threads for job in made.jobs} == {threads}


def test_more_workers_than_cores_are_capped_with_a_warning(planned: Planned, caplog: pytest.LogCaptureFixture) -> None:
    made = planned("seed=0,1,2,3", "sweep.workers=3", "training.threads=2", small=FREE, cores=4)
    assert made.workers == 2
    assert messages_of(caplog) == ["sweep.workers: 3 workers × 2 threads need more than the 4 cores here; using 2"]


def test_sweep_that_was_begun_goes_on_with_its_threads(planned: Planned, caplog: pytest.LogCaptureFixture) -> None:
    made = with_threads(planned("seed=0,1", small=FREE), [1, 1])
    assert (made.workers, made.threads, caplog.messages) == (2, 1, [])
    made = with_threads(planned("seed=0,1", "training.threads=1", small=FREE), [4, 4])
    assert (made.workers, made.threads) == (1, 4)
    assert messages_of(caplog) == ["training.threads: this sweep was begun with 4 threads; it goes on with that"]


def test_job_of_a_cluster_has_the_threads_that_it_asks_for_whatever_this_machine_has(planned: Planned) -> None:
    made = planned("seed=0,1,2", "sweep=ray", "sweep.cpus=8", small=FREE, cores=4)
    assert (made.workers, made.threads) == (3, 8)
    made = planned("seed=0,1,2", "sweep=ray", "sweep.workers=2", "training.threads=6", small=FREE)
    assert (made.workers, made.threads) == (2, 6)
    again = share_again(made, [2, 2, 2])
    assert (again.workers, again.threads) == (2, 2)
    assert planned("seed=0", "sweep=ray", "training.determinism=portable", "sweep.cpus=8", small=FREE).threads == 1
    assert memory_of_a_job(planned("seed=0", "sweep=ray", "sweep.memory=2.5")) == 2_500_000_000


# Mistakes.


def test_all_mistakes_of_all_jobs_are_told_together(planned: Planned) -> None:
    choices = ("optimizer=sgd,adam", "optimizer.learning_rate=0.1,-1", "schedule=cosine,cosin")
    schedule, rate = refuse(planned, *choices)
    first = "job 1 (optimizer=sgd, learning_rate=0.1, schedule=cosin)"
    assert schedule.startswith(f"4 jobs, the first is {first}: schedule=cosin: no such option; did you mean cosine?")
    assert rate == (
        "2 jobs, the first is job 2 (optimizer=sgd, learning_rate=-1, schedule=cosine): "
        "optimizer.learning_rate: must be greater than 0, received -1"
    )


def test_one_bad_job_of_fifty_is_named_with_its_key(planned: Planned) -> None:
    seeds = ",".join(map(str, [*range(49), -1]))
    assert refuse(planned, f"seed={seeds}") == (
        "job 49 (seed=-1): seed: must be greater than or equal to 0, received -1",
    )


def test_mistake_of_every_job_is_told_once(planned: Planned) -> None:
    assert refuse(planned, "seed=0,1", "training.epochs=0")[0].startswith("every job: training.epochs: must be")


def test_batch_that_is_larger_than_the_data_is_refused(planned: Planned) -> None:
    assert refuse(planned, "training.batch_size=64,65") == (
        "job 1 (batch_size=65): training.batch_size: must be ≤ 64, the training images of digits, received 65",
    )


def test_data_that_cannot_be_read_are_refused(planned: Planned) -> None:
    mistakes = refuse(planned, "dataset=files", "dataset.path=/nowhere/a.npz,/nowhere/b.npz", small=())
    assert [mistake.partition(": ")[0] for mistake in mistakes] == [
        "job 0 (path=/nowhere/a.npz)",
        "job 1 (path=/nowhere/b.npz)",
    ]
    assert all(
        f"/nowhere/{name}.npz" in mistake.partition(": ")[2] for name, mistake in zip("ab", mistakes, strict=True)
    )


def test_empty_sweep_is_refused(composer: Composer) -> None:
    with pytest.raises(InputError, match="the sweep is empty"):
        make_plan([], composer)


def test_two_jobs_that_are_the_same_run_are_refused(planned: Planned) -> None:
    (mistake,) = refuse(planned, "seed=1,2,1,2")
    assert mistake == (
        "job 2 (seed=1) is the same run as job 0 (seed=1) (and 1 more such pairs); "
        "jobs must differ in something that changes the result"
    )
    assert "job 1 (threads=2) is the same run" in refuse(planned, "training.threads=1,2", small=FREE)[0]


def test_how_a_sweep_is_carried_out_may_not_vary(composer: Composer) -> None:
    jobs = [[*SMALL, "seed=0", "sweep.workers=1"], [*SMALL, "seed=1", "sweep.workers=2"]]
    with pytest.raises(InputError, match=r"^sweep: must be the same in all jobs of a sweep$"):
        make_plan(jobs, composer)


# The directory.


def test_new_sweeps_of_the_same_second_have_directories_of_their_own(planned: Planned, home: Path) -> None:
    made = planned("optimizer=sgd,adam", "seed=0,1")
    places = [find_place(made, home) for _ in range(20)]
    assert len({place.path for place in places}) == 20
    assert all(place.is_new and place.path.parent == home / "multirun" for place in places)
    assert all("-optimizer-seed-" in place.name for place in places)
    assert not (home / "multirun").exists()


def begin(made: Plan, home: Path) -> Place:
    place = find_place(made, home)
    freeze(made, place)
    return place


@pytest.mark.parametrize(
    ("asked", "begun"),
    [(0, True), (1, False), (None, True)],
    ids=["the same job first", "another job first", "carried out in another way"],
)
def test_sweep_that_was_begun_is_recognised_by_its_first_job(
    planned: Planned, home: Path, asked: int | None, begun: bool
) -> None:
    made = planned("seed=0,1")
    begin(made, home)
    overrides = made.jobs[asked or 0].overrides
    if asked is None:
        overrides = ("sweep.dry_run=true", *overrides)
    assert directory.seems_begun(overrides, home) == begun
    for text in ("", "{", '{"jobs": [{"overrides": 7}]}', '{"overrides": {"a": 1}}', '{"overrides": ' + "[" * 3900):
        for plan in home.glob(f"multirun/*/{PLAN}"):
            plan.write_text(text)
        assert not directory.seems_begun(overrides, home)


def test_frozen_plan_holds_every_resolved_config(planned: Planned, home: Path) -> None:
    made = planned("optimizer=sgd,adam", "seed=0,1")
    place = begin(made, home)
    frozen = json.loads((place.path / PLAN).read_text())
    assert frozen["key"] == made.key
    assert [job["config"] for job in frozen["jobs"]] == [job.config.to_saved() for job in made.jobs]
    assert [job["run_key"] for job in frozen["jobs"]] == [job.run_key for job in made.jobs]
    assert frozen["jobs"][3]["varied"] == {"optimizer": "adam", "seed": 1}
    assert sorted(path.name for path in (home / "multirun").iterdir()) == [place.name]


def test_same_plan_is_found_again_with_its_threads(planned: Planned, home: Path) -> None:
    made = planned("seed=0,1", small=FREE, cores=4)
    place = begin(made, home)
    found = find_place(planned("seed=0,1", "sweep.workers=1", small=FREE, cores=64), home)
    assert (found.path, found.is_new, found.threads, found.damage) == (place.path, False, (2, 2), "")
    assert find_place(planned("seed=0,1", "sweep.reuse=never", small=FREE), home).is_new
    assert find_place(planned("seed=0,2", small=FREE), home).is_new


def test_name_of_the_users_choice(planned: Planned, home: Path) -> None:
    named = planned("seed=0,1", "sweep.title=mine")
    (home / "multirun" / "mine").mkdir(parents=True)  # empty: as good as not there
    assert begin(named, home).path == home / "multirun" / "mine"
    assert find_place(named, home).is_new is False
    for choices, told in (
        (["seed=0,2"], r"holds another plan \(other jobs, code or versions\); choose another title"),
        (["seed=0,1", "sweep.reuse=never"], "sweep.reuse=never begins anew"),
    ):
        with pytest.raises(InputError, match=told):
            find_place(planned(*choices, "sweep.title=mine"), home)
    (home / "multirun" / "notes").mkdir()
    (home / "multirun" / "notes" / "todo.txt").touch()
    with pytest.raises(InputError, match="holds something else than a sweep"):
        find_place(planned("seed=0,1", "sweep.title=notes"), home)


def test_directory_that_another_process_has_just_made_is_not_shared(planned: Planned, home: Path) -> None:
    place = find_place(planned("seed=0,1", "sweep.title=mine"), home)
    begin(planned("seed=0,2", "sweep.title=mine"), home)
    before = (place.path / PLAN).read_bytes()
    with pytest.raises(InputError, match="another process has made it just now"):
        freeze(planned("seed=0,1", "sweep.title=mine"), place)
    assert (place.path / PLAN).read_bytes() == before
    assert [path.name for path in (home / "multirun").iterdir()] == ["mine"]


def test_place_that_cannot_be_written_is_refused(planned: Planned, home: Path) -> None:
    (home / "multirun").touch()
    with pytest.raises(InputError, match="cannot be written"):
        begin(planned("seed=0,1"), home)
    with pytest.raises(InputError, match="cannot be written"), locked(planned("seed=0,1"), home):
        pytest.fail("it is not locked")


@pytest.mark.parametrize("text", ['{"format": 1, "key"', "", "[1]", None])
def test_damaged_plan_is_found_by_its_runs_named_and_set_aside(
    planned: Planned, home: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    made = planned("seed=0,1")
    place = begin(made, home)
    finished(made, place, 1)
    if text is None:
        (place.path / PLAN).unlink()
    else:
        (place.path / PLAN).write_text(text)
    found = find_place(made, home)
    assert (found.path, found.is_new) == (place.path, False)
    assert found.damage.startswith("is damaged")
    freeze(made, found)
    assert find_place(made, home).damage == ""
    assert "is damaged" in caplog.text
    assert [path.read_text() for path in place.path.glob(f"{directory.ASIDE}/*")] == ([] if text is None else [text])


def test_damaged_plan_of_another_sweep_is_left_alone(planned: Planned, home: Path) -> None:
    other = planned("seed=5,6")
    place = begin(other, home)
    finished(other, place, 0)
    (place.path / PLAN).write_text("{")
    assert find_place(planned("seed=0,1"), home).is_new
    assert (place.path / PLAN).read_text() == "{"


def test_plan_that_was_changed_by_hand_is_set_aside(
    planned: Planned, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = planned("seed=0,1")
    path = begin(made, home).path / PLAN
    values = json.loads(path.read_text())
    values["jobs"][1]["config"]["training"]["epochs"] = 99
    path.write_text(json.dumps(values))
    place = find_place(made, home)
    assert place.damage == "was changed by hand"
    freeze(made, place)
    assert (
        json.loads(path.read_text())["jobs"][1]["config"]["training"]["epochs"] == made.jobs[1].config.training.epochs
    )
    assert len(list(place.path.glob(f"{directory.ASIDE}/{PLAN}-*"))) == 1
    assert "was changed by hand; set aside as" in caplog.text


# What is known of the jobs.


def record_of(made: Plan, place: Place, number: int, **fields: Any) -> Record:
    job = made.jobs[number]
    values = {
        "run_key": job.run_key, "config_key": job.config_key, "seed": job.config.seed, "sweep": place.name,
        "code_digest": environment.code_digest(), "versions": environment.versions(),
    }  # fmt: skip
    return write_record(place.directory_of(job), **values | fields)


def finished(made: Plan, place: Place, number: int, **fields: Any) -> Record:
    return record_of(made, place, number, **{"state": "finished", "metrics": {"validation/accuracy": 0.5}} | fields)


def states(made: Plan, place: Place, home: Path, **options: Any) -> list[tuple[str, str]]:
    archive = Archive(home, **options)
    return [(status.before, status.state) for status in look_at(made, place, archive)]


def gone() -> Process:
    """A process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return Process.current().model_copy(update={"pid": process.pid})


def test_states_of_jobs(planned: Planned, home: Path) -> None:
    made = planned("seed=0,1,2,3,4,5,6,7,8")
    place = begin(made, home)
    finished(made, place, 1)
    record_of(made, place, 2, state="failed", error={"type": "ValueError", "message": "no"})
    record_of(made, place, 3, state="diverged", error={"type": "DivergedError", "message": "nan"})
    record_of(made, place, 4, state="interrupted")
    record_of(made, place, 5, state="running", process=gone())
    record_of(made, place, 6, state="running")
    (place.path / "7").mkdir()
    (place.path / "7" / "record.json").write_text('{"format": 1')
    (place.path / "8").mkdir()
    (place.path / "8" / "history.csv").touch()
    place = find_place(made, home)
    assert states(made, place, home) == [
        ("new", "waiting"), ("done", "done"), ("failed", "waiting"), ("diverged", "diverged"),
        ("interrupted", "waiting"), ("interrupted", "waiting"), ("running", "waiting"),
        ("damaged", "waiting"), ("damaged", "waiting"),
    ]  # fmt: skip


def test_looking_changes_nothing_and_tidying_sets_damaged_runs_aside(
    planned: Planned, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = planned("seed=0,1")
    place = begin(made, home)
    (place.path / "1").mkdir()
    (place.path / "1" / "record.json").write_text("{")
    place = find_place(made, home)
    before = sorted(home.rglob("*"))
    statuses = look_at(made, place, Archive(home))
    assert sorted(home.rglob("*")) == before
    tidy(statuses, place)
    (aside,) = place.path.glob(f"{directory.ASIDE}/1-*")
    assert (aside / "record.json").read_text() == "{"
    assert not place.directory_of(made.jobs[1]).exists()
    assert "1/record.json: is damaged" in caplog.messages[0]
    assert f"set aside as {aside}, and the job is run again" in caplog.messages[0]
    assert list(lookup.run_directories(home)) == []


def test_directory_of_a_job_that_holds_another_run_is_refused(planned: Planned, home: Path) -> None:
    made = planned("seed=0,1")
    place = begin(made, home)
    finished(made, place, 0, run_key=made.jobs[1].run_key)
    place = find_place(made, home)
    with pytest.raises(InputError, match=r"/0: holds another run than the plan says; move it away and give"):
        look_at(made, place, Archive(home))


def test_run_that_finished_elsewhere_is_linked(planned: Planned, home: Path) -> None:
    first = planned("seed=0,1")
    elsewhere = begin(first, home)
    done = finished(first, elsewhere, 1)
    made = planned("seed=1,2")
    place = find_place(made, home)
    assert states(made, place, home) == [("done", "done"), ("new", "waiting")]
    freeze(made, place)
    tidy(look_at(made, place, Archive(home)), place)
    assert os.readlink(place.path / "0") == f"../{elsewhere.name}/1"
    assert records.load(place.path / "0").run_key == done.run_key
    again = find_place(made, home)
    assert states(made, again, home) == [("done", "done"), ("new", "waiting")]
    done.write(state="interrupted")
    assert states(made, again, home) == [("new", "waiting"), ("new", "waiting")]  # it is begun anew, here


def test_link_whose_run_is_gone_is_a_new_job(planned: Planned, home: Path) -> None:
    made = planned("seed=0,1")
    place = begin(made, home)
    (place.path / "0").symlink_to("../nowhere/3")
    place = find_place(made, home)
    assert states(made, place, home) == [("new", "waiting"), ("new", "waiting")]
    tidy(look_at(made, place, Archive(home)), place)
    assert not os.path.lexists(place.path / "0")


def test_part_of_a_run_gives_way_to_the_whole_run(planned: Planned, home: Path) -> None:
    made = planned("seed=0,1")
    place = begin(made, home)
    record_of(made, place, 0, state="interrupted")
    other = planned("seed=0,7")
    finished(other, begin(other, home), 0)
    place = find_place(made, home)
    statuses = look_at(made, place, Archive(home))
    assert statuses[0].state == "done"
    tidy(statuses, place)
    assert (place.path / "0").is_symlink()
    assert len(list(place.path.glob(f"{directory.ASIDE}/0-*"))) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"code_digest": "older"},
        {"sources_digest": "older"},
        {"sources_digest": "resumed-older"},
        {"versions": {"keras": "2"}},
    ],
)
def test_run_of_other_code_or_versions_is_reused_only_where_that_is_wanted(
    planned: Planned, home: Path, changed: dict[str, Any]
) -> None:
    first = planned("seed=0")
    finished(first, begin(first, home), 0, **changed)
    made = planned("seed=0,1")
    place = find_place(made, home)
    assert states(made, place, home) == [("new", "waiting"), ("new", "waiting")]
    assert states(made, place, home, any_code=True) == [("done", "done"), ("new", "waiting")]
    freeze(made, place)
    tidy(look_at(made, place, Archive(home, any_code=True)), place)
    assert (place.path / "0").is_symlink()
    again = find_place(made, home)
    assert states(made, again, home) == [("new", "waiting"), ("new", "waiting")]  # what was linked then counts no more
    assert [status.state for status in look_at(made, again, None)] == ["waiting", "waiting"]


def test_run_of_a_package_that_differs_only_in_what_makes_no_numbers_is_reused(planned: Planned, home: Path) -> None:
    first = planned("seed=0")
    finished(first, begin(first, home), 0, code_digest="older", sources_digest=environment.sources_digest())
    made = planned("seed=0,1")
    assert states(made, find_place(made, home), home) == [("done", "done"), ("new", "waiting")]


def test_run_whose_key_was_made_under_a_former_rule_is_reused(planned: Planned, home: Path) -> None:
    made = planned("seed=0", "regularization=l2", "regularization.dropout=0.5")
    job = made.jobs[0]
    former = former_run_keys(job.config, job.dataset_digest)
    assert former
    assert job.run_key not in former
    place = begin(made, home)
    finished(made, place, 0, run_key=former[0])
    assert states(made, find_place(made, home), home) == [("done", "done")]
    other = planned("seed=0,1", "regularization=l2", "regularization.dropout=0.5")
    assert states(other, find_place(other, home), home) == [("done", "done"), ("new", "waiting")]


def test_record_of_a_newer_format_is_not_set_aside(planned: Planned, home: Path) -> None:
    made = planned("seed=0")
    place = begin(made, home)
    record = finished(made, place, 0)
    files.write_atomically(record.directory / files.RECORD, '{"format": 99}')
    with pytest.raises(FormatError, match=r"record\.json: format: 99 needs a newer version of experiments"):
        look_at(made, find_place(made, home), Archive(home))


def test_plan_of_a_newer_format_is_not_written_anew(planned: Planned, home: Path) -> None:
    made = planned("seed=0")
    place = begin(made, home)
    text = (place.path / PLAN).read_text()
    (place.path / PLAN).write_text(text.replace('"format": 1', '"format": 99', 1))
    with pytest.raises(InputError, match=r"plan\.json: format: 99 needs a newer version of experiments"):
        find_place(made, home)


def test_time_is_estimated_by_runs_of_the_same_network(planned: Planned, home: Path) -> None:
    first = planned("seed=0,1", "training.epochs=2")
    place = begin(first, home)
    made = planned("seed=2,3,4,5", "training.epochs=10")
    todo = [Status(job) for job in made.jobs]
    assert estimate_seconds(made, todo, home) is None
    for number, seconds in enumerate((4.0, 8.0)):
        record = finished(first, place, number, seconds=seconds, epochs_run=2)
        files.write_atomically(record.directory / files.CONFIG, first.jobs[number].config.to_yaml())
    assert estimate_seconds(made, todo, home) == pytest.approx(4 * 10 * 3.0 / 4)
    other = planned("seed=2", "model=mlp")
    assert estimate_seconds(other, [Status(other.jobs[0])], home) is None


# Locks.


def test_lock_is_held_by_one_and_leaves_nothing(home: Path) -> None:
    path = home / "multirun" / ".locks" / "a"
    with held(path) as mine:
        assert mine
        assert holder(path) == f"process {os.getpid()}"
        with held(path) as again, held(path.with_name("b")) as other:
            assert (again, other) == (False, True)
    assert list(path.parent.iterdir()) == []
    with held(path) as mine:
        assert mine


def test_lock_of_a_process_that_was_killed_is_free(home: Path) -> None:
    path = home / ".locks" / "a"
    code = (
        "import sys, time; from pathlib import Path; from experiments.sweeps.locks import held\n"
        "with held(Path(sys.argv[1])) as mine: print(mine, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "True\n"
        with held(path) as mine:
            assert not mine
        process.kill()
        process.wait()
        with held(path) as mine:
            assert mine


def test_archive_reads_what_was_written_since(planned: Planned, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned("seed=0,1,2")
    place = begin(made, home)
    finished(made, place, 0)
    running = record_of(made, place, 1)
    archive, glance, read = Archive(home), records.glance, []
    monkeypatch.setattr(records, "glance", lambda directory: read.append(directory.name) or glance(directory))
    finished(made, place, 2)
    running.write(state="finished")
    shutil.rmtree(place.path / "0")
    archive.reread()
    assert [archive.find(job) is not None for job in made.jobs] == [False, True, True]
    assert sorted(read) == ["1", "2"]
    archive.reread()
    assert len(read) == 2


@pytest.mark.parametrize(
    ("second", "asked", "mirrored", "code", "parent_is", "closed"),
    [
        ("done", 0, True, 0, "FINISHED", True),
        ("done", 1, True, 0, "FINISHED", True),
        ("done", 2, True, 0, "FINISHED", False),  # the user did not wait for the report
        ("done", 0, False, 0, "FINISHED", False),  # the store was away: the next command tells it
        ("diverged", 0, True, 1, "FAILED", True),
        ("failed", 0, True, 1, "FAILED", False),
        ("interrupted", 1, True, 130, "KILLED", False),
        ("waiting", 1, True, 130, "KILLED", False),
    ],
)
def test_sweep_is_closed_when_nothing_is_left_to_do(
    planned: Planned, home: Path, monkeypatch: pytest.MonkeyPatch,
    second: Any, asked: int, mirrored: bool, code: int, parent_is: str, closed: bool,
) -> None:  # fmt: skip
    made = planned("seed=0,1", small=(*SMALL, "tracking=mlflow"))
    begin(made, home)
    place = find_place(made, home)
    states = ("done", second)
    statuses = [Status(job, state) for job, state in zip(made.jobs, states, strict=True)]
    sweep = Sweep(made, place, statuses, None, home, Console(file=io.StringIO()), parent="p" * 32)
    ends = []
    monkeypatch.setattr(finalize, "_compare", lambda _: [])
    monkeypatch.setattr(
        finalize.tracking_sweep, "close_sweep", lambda *_, status, **__: ends.append(status) or mirrored
    )
    monkeypatch.setattr(finalize.tables, "ended", lambda *_: [{"job": "0"}])
    assert finalize.finish(sweep, JobPresenter(sweep), asked=asked) == code
    assert ends == [parent_is]
    assert finalize.is_closed(sweep) is closed


def test_parent_run_is_remembered_while_the_store_is_away(
    planned: Planned, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planned("seed=0,1", small=(*SMALL, "tracking=mlflow"))
    begin(made, home)
    sweep = Sweep(made, find_place(made, home), [], None, home, Console(file=io.StringIO()))
    asked_for = []
    for answer in ("p" * 32, None, "p" * 32):
        monkeypatch.setattr(
            finalize.tracking_sweep, "open_sweep", lambda *given, a=answer, **_: asked_for.append(given[3]) or a
        )
        assert finalize.open_parent(sweep) == answer
    assert asked_for == [None, "p" * 32, "p" * 32]


def test_many_processes_take_a_lock_in_turn(home: Path) -> None:
    """A lock file that is removed while others open it must not let two in."""
    code = (
        "import os, sys; from pathlib import Path; from experiments.sweeps.locks import held\n"
        "home, taken = Path(sys.argv[1]), 0\n"
        "while taken < 200:\n"
        "    with held(home / '.locks' / 'a') as mine:\n"
        "        if mine:\n"
        "            os.close(os.open(home / 'inside', os.O_CREAT | os.O_EXCL))\n"
        "            os.unlink(home / 'inside')\n"
        "            taken += 1\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(home)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_same_plan_is_locked_for_others(planned: Planned, home: Path) -> None:
    made = planned("seed=0,1")
    told = rf"^this sweep is being run already, by process {os.getpid()}; wait for it or stop it$"
    with (
        locked(made, home),
        locked(planned("seed=0,2"), home),
        pytest.raises(InputError, match=told),
        locked(made, home),
    ):
        pytest.fail("two hold it")
    with locked(made, home):
        pass


def test_what_a_killed_planner_was_writing_is_removed(planned: Planned, home: Path) -> None:
    made = planned("seed=0,1")
    (home / "multirun" / f".plan-{made.key[:16]}").mkdir(parents=True)
    place = find_place(made, home)
    freeze(made, place)
    for name in (".summary.csv.123.0a1b.csv", ".sweep.json.123.0a1b.json", ".hidden"):
        (place.path / name).touch()
    failures.gather_leftovers(made.jobs, place)
    assert [path.name for path in (home / "multirun").iterdir()] == [place.name]
    assert sorted(path.name for path in place.path.iterdir()) == [".hidden", PLAN]


@pytest.mark.parametrize("made_before", [False, True])
def test_refused_sweep_leaves_no_folder_that_was_not_there(planned: Planned, home: Path, made_before: bool) -> None:
    if made_before:
        (home / "multirun" / "other").mkdir(parents=True)
    with pytest.raises(InputError), locked(planned("seed=0,1"), home):
        raise InputError("a layer has no such argument")
    assert [path.name for path in home.rglob("*")] == (["multirun", "other"] if made_before else [])
