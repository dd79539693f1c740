"""Looks for finished runs: each reads what can have changed, however many there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from conftest import SMALL, write_record
from experiments.conf import CONF
from experiments.results import environment, records
from experiments.sweeps import archive as archives
from experiments.sweeps.archive import Archive
from experiments.sweeps.composition import Composer
from experiments.sweeps.jobs import Plan
from experiments.sweeps.planning import make_plan


@pytest.fixture
def plan() -> Iterator[Plan]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composer = Composer(lambda overrides: hydra_compose("config", overrides=overrides))
        yield make_plan([[*SMALL, "tracking=none", f"seed={seed}"] for seed in range(3)], composer)


def finished(directory: Path, plan: Plan, number: int, **fields: Any) -> Path:
    now = {
        "run_key": plan.jobs[number].run_key,
        "versions": environment.versions(),
        "sources_digest": environment.sources_digest(),
        "state": "finished",
    }
    write_record(directory, **now | fields)
    return directory


def found(archive: Archive, plan: Plan) -> list[str | None]:
    """The names of the directories that are found for the jobs."""
    records = map(archive.find, plan.jobs)
    return [record and f"{record.directory.parent.name}/{record.directory.name}" for record in records]


def test_runs_are_found_alone_in_sweeps_and_in_a_sweep_that_was_moved(home: Path, plan: Plan) -> None:
    finished(home / "outputs" / "a", plan, 0)
    finished(home / "multirun" / "s" / "4", plan, 1)
    finished(home / "elsewhere" / "0", plan, 2)
    (home / "multirun" / "moved").symlink_to(home / "elsewhere")
    assert found(Archive(home), plan) == ["outputs/a", "s/4", "moved/0"]


def test_links_own_runs_and_what_has_not_finished_are_left_out(home: Path, plan: Plan) -> None:
    own = home / "multirun" / "own"
    finished(own / "0", plan, 0)
    finished(home / "elsewhere", plan, 1)
    (home / "multirun" / "s").mkdir()
    (home / "multirun" / "s" / "1").symlink_to(home / "elsewhere")
    finished(home / "multirun" / "s" / "2", plan, 2, state="failed")
    assert found(Archive(home, own=own), plan) == [None, None, None]


def test_a_look_finds_what_has_come_and_what_has_finished_since(home: Path, plan: Plan) -> None:
    finished(home / "multirun" / "s" / "0", plan, 0, state="running")
    archive = Archive(home)
    assert found(archive, plan) == [None] * 3
    records.load(home / "multirun" / "s" / "0").write(state="finished")
    finished(home / "multirun" / "s" / "1", plan, 1)
    finished(home / "multirun" / "new" / "0", plan, 2)
    archive.reread()
    assert found(archive, plan) == ["s/0", "s/1", "new/0"]


def test_looks_read_nothing_again(home: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither finished records nor folders that have been the same for a while."""
    for number in range(20):
        finished(home / "multirun" / "s" / str(number), plan, 0, run_key=f"{number:064}")
    monkeypatch.setattr(archives, "SETTLED_SECONDS", -1)
    archive = Archive(home)
    archive.reread()
    asked: list[str] = []
    real = os.scandir
    monkeypatch.setattr("experiments.sweeps.archive.os.scandir", lambda p: asked.append(str(p)) or real(p))
    monkeypatch.setattr(records, "glance", lambda directory: asked.append(str(directory)))
    archive.reread()
    assert asked == []
    (home / "multirun" / "s" / "20").mkdir()
    archive.reread()
    assert asked == [str(home / "multirun" / "s")]


def test_record_of_a_run_that_is_gone_or_damaged_is_not_found(home: Path, plan: Plan) -> None:
    for number in (0, 1):
        finished(home / "outputs" / str(number), plan, number)
    archive = Archive(home)
    (home / "outputs" / "0" / "record.json").unlink()
    (home / "outputs" / "1" / "record.json").write_text("{")
    assert found(archive, plan) == [None] * 3
    (home / "outputs" / "2").mkdir()
    (home / "outputs" / "2" / "record.json").write_text('["not a record"]')
    assert found(Archive(home), plan) == [None] * 3
