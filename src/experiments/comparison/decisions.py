"""`decisions.jsonl`: what a race or a search has decided, a line a decision, with the results that each rests on.

The file is derived from the runs beside it. Every line has the SHA-256 of itself and of the line before, so a line that
was changed, or is missing, is found without the runs. A line that begins a race is followed by its rounds, one that
begins a search by its rungs; the last race or search is the one that counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from experiments.bounded import DECISIONS_BYTES, parse_json, read_text
from experiments.errors import InputError
from experiments.upgrades import FORMAT, newest, require_known

DECISIONS = "decisions.jsonl"
DIGEST = "sha256"
MOST_LINES = 100_000
MOST_CONFIGURATIONS = 1000  # all pairs of them are compared
MOST_TRIALS = 100_000


JobNumber = Annotated[int, Field(ge=0, lt=1_000_000)]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Entry(_Line):
    """One configuration of a race: its name, and its job for each seed."""

    label: str
    jobs: tuple[JobNumber, ...]


class Setting(_Line):
    """What is raced, and by which rules, see `sequential.Rules`."""

    metric: Literal["validation/accuracy", "validation/cross_entropy"]
    confidence: float
    margin: float
    floor: float
    seeds: tuple[int, ...]
    configurations: Annotated[tuple[Entry, ...], Field(max_length=MOST_CONFIGURATIONS)]

    @model_validator(mode="after")
    def _has_a_job_for_every_seed(self) -> Self:
        jobs = [job for entry in self.configurations for job in entry.jobs]
        if len(set(jobs)) < len(jobs) or any(len(entry.jobs) != len(self.seeds) for entry in self.configurations):
            raise ValueError("each configuration needs a job of its own for each seed")
        return self


class Round(_Line):
    """One decision, see `sequential.Decision`.

    Attributes:
        results: job, run key and value of the metric of every run that this round adds.
        failed: configuration → the job that failed or diverged, of those that are out since the round before.
        out: configuration → the one that it is worse than, and the upper bound of its lead over that one, points.
    """

    round: int
    results: tuple[tuple[int, str, float], ...]
    failed: Mapping[int, int]
    entered: tuple[int, ...]
    means: tuple[float, ...]
    out: Mapping[int, tuple[int, float]]
    leader: int
    bound: float
    bounds: Mapping[int, float]
    verdict: Literal["best", "within", "open"]
    level: float
    critical: float

    @property
    def number(self) -> int:
        """Its place among the decisions of its race, ascending."""
        return self.round

    @property
    def failed_jobs(self) -> tuple[int, ...]:
        """The jobs whose failure it rests on."""
        return tuple(self.failed.values())

    @property
    def title(self) -> str:
        """`after 3 seeds`."""
        return f"after {self.round} seeds"


class SearchSetting(_Line):
    """What is searched, see `halving.Halving`.

    Attributes:
        epochs: of each job, its whole run's.
    """

    epochs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MOST_TRIALS)]
    keep: float
    finalists: int

    @property
    def metric(self) -> str:
        """What the values of a result are, in their order."""
        return "validation/accuracy, validation/cross_entropy"


class Rung(_Line):
    """One decision of a search: who goes on.

    Attributes:
        rung: its number, from 1.
        results: job, run key, validation accuracy and cross-entropy of every run that has got here.
        failed: the jobs that failed or diverged on the way here.
        kept: the jobs that go on, the best first.
    """

    rung: int
    results: tuple[tuple[int, str, float, float], ...]
    failed: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def number(self) -> int:
        """Its place among the decisions of its search, ascending."""
        return self.rung

    @property
    def failed_jobs(self) -> tuple[int, ...]:
        """The jobs whose failure it rests on."""
        return self.failed

    @property
    def title(self) -> str:
        """`at rung 2`."""
        return f"at rung {self.rung}"


class Revoked(_Line):
    """The decisions from this one on do not count any more: a job that had failed is run again."""

    revoked_from: int
    job: int


@dataclass
class Race:
    """What the file tells of one race: its setting and the rounds that count."""

    setting: Setting
    rounds: list[Round] = field(default_factory=list)

    def take(self, line: Round | Revoked) -> None:
        """Adds one more line."""
        self.rounds = _with(self.rounds, line)


@dataclass
class Search:
    """What the file tells of one search: its setting and the rungs that count."""

    setting: SearchSetting
    rounds: list[Rung] = field(default_factory=list)

    def take(self, line: Rung | Revoked) -> None:
        """Adds one more line."""
        self.rounds = _with(self.rounds, line)


Made = TypeVar("Made", bound=Round | Rung)
Line = Setting | Round | SearchSetting | Rung | Revoked


def _with(made: list[Made], line: Made | Revoked) -> list[Made]:
    """The decisions that count after one more line."""
    if isinstance(line, Revoked):
        return [one for one in made if one.number < line.revoked_from]
    return [*made, line]


def read(path: Path) -> tuple[str, list[Race | Search]]:
    """The text of the file as far as its lines are whole, and its races and searches; nothing where there is no file.

    A last line without an end was being written when the process was killed; it is derived, and is left out.

    Raises:
        InputError: the file cannot be read, a line is none of ours or does not fit its SHA-256, or the format is newer.
    """
    if not path.exists():
        return "", []
    whole, _, _ = read_text(path, DECISIONS_BYTES).rpartition("\n")
    lines = whole.split("\n") if whole else []
    if len(lines) > MOST_LINES:
        raise InputError(f"{path}: must have at most {MOST_LINES:,} lines, received {len(lines):,}")
    found: list[Race | Search] = []
    before = ""
    for number, values in enumerate(_parsed(lines, path), 1):
        digest = values.pop(DIGEST, None)
        if digest != _digest(before, values):
            raise InputError(f"{path}: line {number} is damaged: it does not fit its SHA-256, or the line before")
        before = str(digest)
        try:
            _take(found, values)
        except (ValidationError, ValueError, TypeError, AttributeError):
            raise InputError(f"{path}: line {number} is no decision of a race or search") from None
        except InputError as error:
            raise type(error)(f"{path}: {error}") from None
    return f"{whole}\n" * bool(lines), found


def _parsed(lines: Iterable[str], path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        values = parse_json(line, f"{path}: line {number}")
        if not isinstance(values, dict):
            raise InputError(f"{path}: line {number} is no decision of a race or search")
        yield values


def _take(found: list[Race | Search], values: Mapping[str, Any]) -> None:
    if "race" in values or "search" in values:
        require_known("decisions", values.get(FORMAT))
        is_race = "race" in values
        found.append(
            Race(Setting.model_validate(values["race"]))
            if is_race
            else Search(SearchSetting.model_validate(values["search"]))
        )
        return
    if not found:
        raise ValueError("a decision of nothing")
    last = found[-1]
    if "revoked_from" in values:
        last.take(Revoked.model_validate(values))
    elif isinstance(last, Race):
        last.take(Round.model_validate(values))
    else:
        last.take(Rung.model_validate(values))


def append(text: str, lines: Sequence[Line]) -> str:
    """The text of the file with more lines."""
    before = json.loads(text.splitlines()[-1])[DIGEST] if text else ""
    for line in lines:
        values: dict[str, Any] = line.model_dump(mode="json")
        if isinstance(line, Setting | SearchSetting):
            kind = "race" if isinstance(line, Setting) else "search"
            values = {FORMAT: newest("decisions"), kind: values}
        before = _digest(before, json.loads(json.dumps(values)))  # keys as they will be read
        text += json.dumps(values | {DIGEST: before}) + "\n"
    return text


def _digest(before: str, values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()
