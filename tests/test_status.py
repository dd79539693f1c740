"""`python -m experiments.status`: where the jobs of a sweep stand, by its files alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import commands
from conftest import environment, epoch_row, write_record
from experiments import status
from experiments.config import compose
from experiments.errors import InputError
from experiments.results import files
from experiments.upgrades import FORMAT, newest


def planned(home: Path, name: str, jobs: int = 4) -> Path:
    """A sweep of which nothing is there but its plan."""
    sweep = home / "multirun" / name
    sweep.mkdir(parents=True)
    config = compose("dataset=digits", "model=linear", "training.epochs=3").to_saved()
    plan = [
        {"number": n, "overrides": [f"seed={n}"], "varied": {"seed": n}, "run_key": "a" * 64, "config_key": "b" * 64,
         "config": config | {"seed": n}}
        for n in range(jobs)
    ]  # fmt: skip
    files.write_json(sweep / "plan.json", {FORMAT: newest("plan"), "key": "c" * 64, "workers": 1, "jobs": plan})
    return sweep


def test_running_sweep_is_told_job_by_job(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = planned(home, "asked")
    write_record(sweep / "0", state="finished", epochs_run=3, metrics={"validation/accuracy": 0.9})
    write_record(sweep / "1", epochs_run=2)
    files.write_history(sweep / "1" / files.HISTORY, [epoch_row(1), epoch_row(2)])
    write_record(sweep / "2", state="failed", error={"type": "ValueError", "message": "no"})
    assert status.show("asked", as_json=False) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "asked: 4 jobs: 1 done, 1 running, 1 failed, 1 waiting"
    rows = {line.split()[0]: line.split() for line in lines if line.strip() and line.split()[0].isdigit()}
    assert (rows["0"][2:4], rows["0"][-1]) == (["3/3", "90.00%"], "done")
    assert (rows["1"][2:4], rows["1"][-1]) == (["2/3", "75.00%"], "running")
    assert rows["3"] == ["3", "3", "waiting"]
    assert f"job 2: ValueError: no; log: {sweep / '2' / files.LOG}" in lines
    assert lines[-1] == str(sweep)


def test_status_as_json_has_every_job(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(home, "asked", jobs=100)
    status.show(None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [job["number"] for job in told] == list(range(100))
    assert (told[5]["state"], told[5]["varied"]) == ("waiting", {"seed": 5})
    status.show("asked", as_json=False)
    assert "and 40 waiting more; --json has them all" in capsys.readouterr().out


def test_newest_sweep_is_the_one_that_went_on_last(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        planned(home, name)
    files.write_json(home / "multirun" / "first" / files.SWEEP_NOTE, {})
    status.show(None, as_json=False)
    assert capsys.readouterr().out.startswith("first: ")


def test_status_of_nothing_says_what_was_looked_for(home: Path) -> None:
    with pytest.raises(InputError, match="holds no sweep"):
        status.show(None, as_json=False)
    with pytest.raises(InputError, match="other: no such sweep; looked for its directory, and for a name in"):
        status.show("other", as_json=False)
    (planned(home, "asked") / "plan.json").write_text("{}")
    with pytest.raises(InputError, match=r"plan\.json"):
        status.show("asked", as_json=False)


def test_status_starts_neither_tensorflow_nor_mlflow(home: Path) -> None:
    planned(home, "asked")
    code = (
        "import sys; from experiments import status; status.show('asked', as_json=False);"
        "sys.exit(bool({'tensorflow', 'keras', 'mlflow'} & set(sys.modules)))"
    )
    done = commands.run(["-c", code], env=environment(home), fork=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), sys.version
