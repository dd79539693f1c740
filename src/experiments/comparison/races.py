"""What a race has found, from its decisions and its runs: who is best, who is out, and what it has cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from experiments.comparison import decisions
from experiments.comparison.decisions import DECISIONS, Round, Setting
from experiments.errors import InputError
from experiments.results.records import Record


@dataclass(frozen=True)
class Scale:
    """How values of a race's metric are written; points are hundredths, of accuracy or of a nat."""

    metric: str

    @property
    def of_accuracy(self) -> bool:
        return self.metric.endswith("accuracy")

    @property
    def unit(self) -> str:
        """Of differences, as people read them."""
        return "points" if self.of_accuracy else "nats"

    @property
    def name(self) -> str:
        """`validation accuracy`."""
        return self.metric.replace("/", " ").replace("_", "-")

    def mean(self, points: float) -> str:
        """`99.21%`, or `0.0312` nats, from points as they are compared: the higher the better."""
        return f"{points:.2f}%" if self.of_accuracy else f"{-points / 100:.4f}"

    def gap(self, points: float) -> str:
        """A difference: `0.02` points, or `0.0002` nats."""
        return f"{round(points, 2) + 0.0:.2f}" if self.of_accuracy else f"{round(points / 100, 4) + 0.0:.4f}"

    def margin(self, points: float) -> str:
        """As it was given: `0.1 points`."""
        return f"{points if self.of_accuracy else points / 100:g} {self.unit}"


@dataclass(frozen=True)
class Gap:
    """By how many points a configuration is behind another one, with the bounds that hold for all at all rounds."""

    behind: int
    value: float
    low: float
    high: float


def gaps(made: Round) -> dict[int, Gap]:
    """Of each configuration that entered the round: behind its leader, or behind the one that it is worse than."""
    means = dict(zip(made.entered, made.means, strict=True))
    found = {c: _gap(means, c, made.leader, bound) for c, bound in made.bounds.items()}
    return found | {c: _gap(means, c, by, bound) for c, (by, bound) in made.out.items()}


def _gap(means: Mapping[int, float], c: int, other: int, bound: float) -> Gap:
    """`bound` is the upper one of its lead over the other; the interval is symmetric."""
    value = means[other] - means[c]
    return Gap(other, value, -bound, 2 * value + bound)


@dataclass(frozen=True)
class Cost:
    """The runs that lie in a race's folder, each in one kind; epochs and seconds are of those that were trained there.

    Attributes:
        counted: that decisions rest on.
        ahead: begun, and not needed by any decision so far.
        reused: made by another sweep.
    """

    counted: int
    ahead: int
    reused: int
    epochs: int
    seconds: float

    @property
    def jobs(self) -> int:
        """All records."""
        return self.counted + self.ahead + self.reused


@dataclass(frozen=True)
class RaceResult:
    """A race as far as it has come.

    Attributes:
        setting: what is raced.
        rounds: its decisions.
        records: of all its jobs that have one, by number.
    """

    setting: Setting
    rounds: tuple[Round, ...]
    records: Mapping[int, Record]
    sweep: str

    @property
    def scale(self) -> Scale:
        return Scale(self.setting.metric)

    @property
    def last(self) -> Round | None:
        """The last decision."""
        return self.rounds[-1] if self.rounds else None

    @property
    def is_decided(self) -> bool:
        return self.last is not None and self.last.verdict != "open"

    @property
    def has_ended(self) -> bool:
        """Whether it is decided, or its seeds have ended."""
        return self.is_decided or (self.last is not None and self.last.round == len(self.setting.seeds))

    @property
    def is_whole(self) -> bool:
        """Whether every job has finished, as in a grid: nothing was left out."""
        jobs = {job for entry in self.setting.configurations for job in entry.jobs}
        return all(job in self.records and self.records[job].state == "finished" for job in jobs)

    @cached_property
    def out(self) -> dict[int, tuple[int, int]]:
        """Configuration → the round that it was dropped in, and the one that it is worse than."""
        return {c: (made.round, by) for made in self.rounds for c, (by, _) in made.out.items()}

    @cached_property
    def failed(self) -> dict[int, int]:
        """Configuration → the job for which it is out without a claim."""
        return {c: job for made in self.rounds for c, job in made.failed.items()}

    @cached_property
    def seeds_of(self) -> dict[int, int]:
        """Configuration → how many of its seeds entered decisions."""
        return {c: made.round for made in self.rounds for c in made.entered}

    @cached_property
    def cost(self) -> Cost:
        """What it has taken."""
        counted, reused = self._counted(), 0
        kinds = {"counted": 0, "ahead": 0}
        here = []
        for job, record in self.records.items():
            if record.sweep != self.sweep:
                reused += 1
                continue
            kinds["counted" if job in counted else "ahead"] += 1
            here.append(record)
        return Cost(
            kinds["counted"],
            kinds["ahead"],
            reused,
            epochs=sum(record.epochs_run for record in here),
            seconds=sum(record.seconds for record in here),
        )

    def _counted(self) -> set[int]:
        entries = self.setting.configurations
        needed = {job for c, number in self.seeds_of.items() for job in entries[c].jobs[:number]}
        return needed | {
            job for c, failed in self.failed.items() for job in entries[c].jobs[: entries[c].jobs.index(failed) + 1]
        }

    def label(self, c: int) -> str:
        """The name of a configuration."""
        return self.setting.configurations[c].label

    def labels(self, some: Sequence[int]) -> list[str]:
        """Their names."""
        return [self.label(c) for c in some]


def find(records: Sequence[Record]) -> tuple[RaceResult | None, tuple[str, ...]]:
    """The race that runs belong to, None where they belong to none; and what must be known of it.

    Only where all runs that the decisions rest on are among `records`: a race is not told of a part of it.
    """
    folders = {record.directory.parent for record in records}
    if len(folders) != 1 or not ((path := folders.pop()) / DECISIONS).exists():
        return None, ()
    try:
        _, races = decisions.read(path / DECISIONS)
    except InputError as error:
        return None, (f"The decisions of the race are not told: {error}.",)
    if not races or not isinstance(known := races[-1], decisions.Race):
        return None, ()
    by_job = {int(record.directory.name): record for record in records if record.directory.name.isdecimal()}
    jobs = {job for entry in known.setting.configurations for job in entry.jobs}
    if any(job not in by_job for job in _rested_on(known)):
        return None, ()
    own = {job: record for job, record in by_job.items() if job in jobs}
    return RaceResult(known.setting, tuple(known.rounds), own, path.name), ()


def _rested_on(known: decisions.Race) -> Iterator[int]:
    for made in known.rounds:
        yield from (job for job, _, _ in made.results)
