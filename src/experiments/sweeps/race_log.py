"""The decisions of a race beside its plan: made again at every start, and compared with those that were written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.comparison import decisions
from experiments.comparison.decisions import DECISIONS, Entry, Revoked, Round, Setting
from experiments.comparison.sequential import Decision, Rules
from experiments.errors import InputError
from experiments.results import files, records
from experiments.results.records import Record
from experiments.results.states import RunState
from experiments.sweeps.jobs import count
from experiments.sweeps.reuse import STATES
from experiments.sweeps.status import JobState, Status
from experiments.sweeps.strategies.race import BROKEN, Race, Standing
from experiments.sweeps.strategy import Seen, seen_of

TOLERANCE = 1e-9  # of numbers that another version of NumPy or SciPy may round otherwise


class Results:
    """What is known of the jobs: where each stands, its metrics, and the run key of those that are done.

    Args:
        seen: by the number of the job.
        keys: SHA-256 (hex) of a run, of each job that is done.
    """

    def __init__(self, seen: Sequence[Seen], keys: Mapping[int, str]) -> None:
        self.seen, self.keys = seen, keys


def results_of(statuses: Sequence[Status]) -> Results:
    """What is known of the jobs of a sweep."""
    done = {s.job.number: s.record.run_key for s in statuses if s.state == JobState.DONE and s.record}
    return Results([seen_of(status) for status in statuses], done)


class RaceLog:
    """`decisions.jsonl` of a sweep that is a race.

    Args:
        race: the strategy.
        setting: the same as it is written.
        directory: of the sweep.
    """

    def __init__(self, race: Race, setting: Setting, directory: Path) -> None:
        self._race, self._setting, self._path = race, setting, directory / DECISIONS
        self._text, self._rounds = "", list[Round]()

    def begin(self, results: Results) -> None:
        """Checks what was written before, and writes what has been decided since.

        Raises:
            InputError: the file is damaged, or a decision is not what it was; it names the first.
        """
        self._text, races = decisions.read(self._path)
        for number, known in enumerate(races):
            if number == len(races) - 1:
                self._revoke(known, results)
            compare(self._path, known, results)
        if not races or races[-1].setting != self._setting:
            self._write([self._setting])
            self._rounds = []
        else:
            self._rounds = list(races[-1].rounds)
        self.update(results)

    def update(self, results: Results) -> list[Round]:
        """Writes the decisions that have been made since, and returns them.

        Raises:
            InputError: one is not what was written before.
        """
        made = make_rounds(self._race, results)
        _require_same(self._path, self._setting, self._rounds, made)
        new = made[len(self._rounds) :]
        if new:
            self._write(new)
            self._rounds += new
        return new

    def _revoke(self, known: decisions.Race, results: Results) -> None:
        """A failure is no result: what rested on one that is tried again does not count."""
        for made in known.rounds:
            again = [job for job in made.failed.values() if results.seen[job].state not in BROKEN]
            if again:
                line = Revoked(revoked_from=made.round, job=again[0])
                self._write([line])
                known.take(line)
                return

    def _write(self, lines: Sequence[Setting | Round | Revoked]) -> None:
        self._text = decisions.append(self._text, lines)
        try:
            files.write_atomically(self._path, self._text)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from None


def setting_of(race: Race, labels: Sequence[str], seeds: Sequence[int]) -> Setting:
    """A race as it is written.

    Args:
        race: the strategy.
        labels: of the configurations.
        seeds: common to all.
    """
    entries = tuple(Entry(label=label, jobs=tuple(jobs)) for label, jobs in zip(labels, race.jobs, strict=True))
    rules = race.rules
    return Setting(
        metric=race.metric,
        confidence=rules.confidence,
        margin=rules.margin,
        floor=rules.floor,
        seeds=tuple(seeds),
        configurations=entries,
    )


def race_of(setting: Setting) -> Race:
    """The strategy that a setting describes."""
    rules = Rules(setting.confidence, setting.margin, setting.floor)
    return Race(tuple(entry.jobs for entry in setting.configurations), setting.metric, rules)


def make_rounds(race: Race, results: Results) -> list[Round]:
    """Every decision of a race as it is written, made from the results alone."""
    standing = race.standing(results.seen)
    before = tuple(range(len(race.jobs)))
    known: set[int] = set()
    rounds = []
    for made in standing.decisions:
        jobs = [job for c in made.entered for job in race.jobs[c][: made.round] if job not in known]
        known.update(jobs)
        rounds.append(_round(race, standing, made, before, _values(race, results, jobs)))
        before = tuple(c for c in made.entered if c not in made.out)
    return rounds


def _values(race: Race, results: Results, jobs: Sequence[int]) -> tuple[tuple[int, str, float], ...]:
    return tuple((job, results.keys[job], results.seen[job].metrics[race.metric]) for job in jobs)


def _round(
    race: Race,
    standing: Standing,
    made: Decision,
    before: Sequence[int],
    values: tuple[tuple[int, str, float], ...],
) -> Round:
    return Round(
        round=made.round,
        results=values,
        failed={c: race.jobs[c][standing.broken[c]] for c in before if c not in made.entered},
        entered=made.entered,
        means=made.means,
        out=dict(made.out),
        leader=made.leader,
        bound=made.bound,
        bounds=dict(made.bounds),
        verdict=made.verdict,
        level=made.level,
        critical=made.critical,
    )


def compare(path: Path, known: decisions.Race, results: Results) -> int:
    """Makes the decisions of a race again; returns how many could be made of those that are written.

    Args:
        path: of the file, for messages.
        known: what it tells.
        results: of all jobs.

    Raises:
        InputError: one is not what it was; the first is named, and why.
    """
    try:
        race = race_of(known.setting)
        made = make_rounds(race, results)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"{path}: tells of no race that can be run ({error})") from None
    _require_same(path, known.setting, known.rounds, made)
    return min(len(known.rounds), len(made))


def _require_same(path: Path, setting: Setting, then: Sequence[Round], now: Sequence[Round]) -> None:
    for old, new in zip(then, now, strict=False):
        if why := _difference(setting, old, new):
            raise InputError(f"{path}: the decision after {old.round} seeds is not what it was: {why}")


def _difference(setting: Setting, old: Round, new: Round) -> str:
    """Why a decision differs; "" where it is the same."""
    found = {job: (key, value) for job, key, value in new.results}
    for job, key, value in old.results:
        if job not in found:
            return f"it rested on job {job}, which has no result in it now"
        if found[job][0] != key:
            return f"job {job} is another run now (run key {key[:12]} then, {found[job][0][:12]} now)"
        if found[job][1] != value:
            return f"job {job}: {setting.metric} {value:g} then, {found[job][1]:g} now"
    if added := set(found) - {job for job, _, _ in old.results}:
        return f"job {min(added)} has a result now, which it did not rest on"
    if _is_alike(old.model_dump(), new.model_dump()):
        return ""
    return "the results are the same and the decision is another; the file was made by other rules"


def _is_alike(a: object, b: object) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_is_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_is_alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return a == b


def check_races(directory: Path, results: Results) -> None:
    """Makes the decisions of a sweep's races again; nothing where it has none.

    Raises:
        InputError: the file is damaged, or a decision is not what it was.
    """
    _, races = decisions.read(directory / DECISIONS)
    for known in races:
        compare(directory / DECISIONS, known, results)


def check(directory: Path) -> list[str]:
    """Makes all decisions of a sweep again from its runs, and says what was found. Trains nothing.

    Raises:
        InputError: the file is damaged, a decision is not what it was, or rests on a run that is not there.
    """
    path = directory / DECISIONS
    _, races = decisions.read(path)
    told = []
    for known in races:
        found = compare(path, known, _read(directory, known.setting))
        missing = len(known.rounds) - found
        told.append(_told(known, found, missing))
        if missing:
            raise InputError(
                *told, f"{path}: {missing} of its decisions rest on runs that are not there, or unfinished"
            )
    return told


def _told(known: decisions.Race, found: int, missing: int) -> str:
    of = f"{found} of {count(found + missing, 'decision')}" if missing else count(found, "decision")
    setting = known.setting
    return (
        f"a race of {len(setting.configurations)} by {setting.metric}, margin {setting.margin:g}, "
        f"{100 * setting.confidence:g}%: {of} made again, all the same"
    )


def _read(directory: Path, setting: Setting) -> Results:
    jobs = {job for entry in setting.configurations for job in entry.jobs}
    found: dict[int, Record] = {}
    for job in jobs:
        path = directory / str(job)
        if (path / files.RECORD).exists():
            found[job] = records.load(path)
    seen = [_seen(found.get(number)) for number in range(max(jobs, default=-1) + 1)]
    return Results(seen, {job: record.run_key for job, record in found.items()})


def _seen(record: Record | None) -> Seen:
    if record is None or record.state not in (RunState.FINISHED, RunState.FAILED, RunState.DIVERGED):
        return Seen(JobState.WAITING)
    return Seen(STATES[record.state], (), record.metrics)
