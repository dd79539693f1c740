"""The decisions of a race or a search beside its plan: made again at every start, and compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, Protocol, TypeVar, cast

from experiments.comparison import decisions
from experiments.comparison.decisions import DECISIONS, Line, Revoked, Round, Rung, SearchSetting, Setting
from experiments.errors import InputError
from experiments.results import files, records
from experiments.results.files import EpochRow
from experiments.results.records import Record
from experiments.results.states import RunState
from experiments.sweeps.jobs import count
from experiments.sweeps.race_rounds import RaceRounds, race_of
from experiments.sweeps.reuse import STATES
from experiments.sweeps.search_rungs import SearchRungs, halving_of
from experiments.sweeps.status import JobState
from experiments.sweeps.strategies.race import BROKEN
from experiments.sweeps.strategy import Results, Seen
from experiments.training.checkpoint import Checkpoints

TOLERANCE = 1e-9  # of numbers that another version of NumPy or SciPy may round otherwise
ENDED = (RunState.FINISHED, RunState.FAILED, RunState.DIVERGED)

Chain = decisions.Race | decisions.Search
Decided = Round | Rung
Made = TypeVar("Made", bound=Round | Rung)


Made_co = TypeVar("Made_co", bound=Round | Rung, covariant=True)


class Maker(Protocol[Made_co]):
    """Makes the decisions of a race or a search from the results alone: equal results, equal decisions."""

    @property
    def setting(self) -> Setting | SearchSetting:
        """What is decided, and by which rules."""
        ...

    def make(self, results: Results) -> Sequence[Made_co]:
        """Every decision so far, in order."""
        ...


class DecisionLog(Generic[Made]):
    """`decisions.jsonl` of a sweep that is a race or a search.

    Args:
        maker: of its decisions.
        directory: of the sweep.
    """

    def __init__(self, maker: Maker[Made], directory: Path) -> None:
        self._maker, self._path = maker, directory / DECISIONS
        self._text, self._made = "", list[Made]()

    def begin(self, results: Results) -> list[Made]:
        """Checks what was written before, writes what has been decided since, and returns that.

        Raises:
            InputError: the file is damaged, or a decision is not what it was; it names the first.
        """
        self._text, chains = decisions.read(self._path)
        for number, known in enumerate(chains):
            if isinstance(known, decisions.Search) and len(known.setting.epochs) > len(results.seen):
                continue  # a larger search than is asked for now
            if number == len(chains) - 1:
                self._revoke(known, results)
            compare(self._path, known, results)
        if not chains or chains[-1].setting != self._maker.setting:
            self._write([self._maker.setting])
            self._made = []
        else:
            self._made = cast("list[Made]", list(chains[-1].rounds))  # equal settings are of one kind
        return self.update(results)

    def update(self, results: Results) -> list[Made]:
        """Writes the decisions that have been made since, and returns them.

        Raises:
            InputError: one is not what it was.
        """
        made = self._maker.make(results)
        _require_same(self._path, self._maker.setting.metric, self._made, made)
        new = list(made[len(self._made) :])
        if new:
            self._write(new)
            self._made += new
        return new

    def _revoke(self, known: Chain, results: Results) -> None:
        """A failure is no result: what rested on one that is tried again does not count."""
        for made in known.rounds:
            again = [job for job in made.failed_jobs if results.seen[job].state not in BROKEN]
            if again:
                line = Revoked(revoked_from=made.number, job=again[0])
                self._write([line])
                known.take(line)
                return

    def _write(self, lines: Sequence[Line]) -> None:
        self._text = decisions.append(self._text, lines)
        try:
            files.write_atomically(self._path, self._text)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from None


def compare(path: Path, known: Chain, results: Results) -> int:
    """Makes the decisions of a race or a search again; returns how many could be made of those that are written.

    Args:
        path: of the file, for messages.
        known: what it tells.
        results: of all jobs.

    Raises:
        InputError: one is not what it was; the first is named, and why.
    """
    made: Sequence[Decided]
    try:
        if isinstance(known, decisions.Race):
            made = RaceRounds(race_of(known.setting), known.setting).make(results)
        else:
            made = SearchRungs(halving_of(known.setting)).make(results)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"{path}: tells of no race or search that can be run ({error})") from None
    _require_same(path, known.setting.metric, known.rounds, made)
    return min(len(known.rounds), len(made))


def _require_same(path: Path, metric: str, then: Sequence[Decided], now: Sequence[Decided]) -> None:
    for old, new in zip(then, now, strict=False):
        if why := _difference(metric, old, new):
            raise InputError(f"{path}: the decision {old.title} is not what it was: {why}")


def _difference(metric: str, old: Decided, new: Decided) -> str:
    """Why a decision differs; "" where it is the same."""
    found = {job: (key, values) for job, key, *values in new.results}
    for job, key, *values in old.results:
        if job not in found:
            return f"it rested on job {job}, which has no result in it now"
        if found[job][0] != key:
            return f"job {job} is another run now (run key {key[:12]} then, {found[job][0][:12]} now)"
        if found[job][1] != values:
            return f"job {job}: {metric} {_text(values)} then, {_text(found[job][1])} now"
    if added := set(found) - {result[0] for result in old.results}:
        return f"job {min(added)} has a result now, which it did not rest on"
    if _is_alike(old.model_dump(), new.model_dump()):
        return ""
    return "the results are the same and the decision is another; the file was made by other rules"


def _text(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _is_alike(a: object, b: object) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_is_alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_is_alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return a == b


def check_again(directory: Path, results: Results) -> None:
    """Makes the decisions of a sweep again; nothing where it has none.

    Raises:
        InputError: the file is damaged, or a decision is not what it was.
    """
    _, chains = decisions.read(directory / DECISIONS)
    for known in chains:
        compare(directory / DECISIONS, known, results)


def check(directory: Path) -> list[str]:
    """Makes all decisions of a sweep again from its runs, and says what was found. Trains nothing.

    Raises:
        InputError: the file is damaged, a decision is not what it was, or rests on a run that is not there.
    """
    path = directory / DECISIONS
    _, chains = decisions.read(path)
    told = []
    for known in chains:
        found = compare(path, known, _read(directory, _jobs(known)))
        missing = len(known.rounds) - found
        told.append(_told(known, found, missing))
        if missing:
            raise InputError(
                *told, f"{path}: {missing} of its decisions rest on runs that are not there, or unfinished"
            )
    return told


def _jobs(known: Chain) -> set[int]:
    if isinstance(known, decisions.Search):
        return set(range(len(known.setting.epochs)))
    return {job for entry in known.setting.configurations for job in entry.jobs}


def _told(known: Chain, found: int, missing: int) -> str:
    again = f"{found} of {count(found + missing, 'decision')}" if missing else count(found, "decision")
    setting = known.setting
    if isinstance(setting, SearchSetting):
        what = f"a search of {len(setting.epochs)}, keeping {100 * setting.keep:g}%"
    else:
        rules = f"margin {setting.margin:g}, {100 * setting.confidence:g}%"
        what = f"a race of {len(setting.configurations)} by {setting.metric}, {rules}"
    return f"{what}: {again} made again, all the same"


def _read(directory: Path, jobs: set[int]) -> Results:
    found: dict[int, Record] = {}
    for job in jobs:
        path = directory / str(job)
        if (path / files.RECORD).exists():
            found[job] = records.load(path)
    seen = [_seen(found.get(number)) for number in range(max(jobs, default=-1) + 1)]
    return Results(seen, {job: record.run_key for job, record in found.items()})


def _seen(record: Record | None) -> Seen:
    if record is None:
        return Seen(JobState.WAITING)
    state = STATES[record.state] if record.state in ENDED else JobState.WAITING
    return Seen(state, _rows(record), record.metrics if state == JobState.DONE else {})


def _rows(record: Record) -> Sequence[EpochRow]:
    """Its epochs; a run that was killed may have one in its checkpoint that its history has not got yet."""
    rows: Sequence[EpochRow] = record.rows
    with suppress(InputError, OSError):
        rows = max(rows, Checkpoints(record.directory / files.CHECKPOINT).rows(), key=len)
    return rows
