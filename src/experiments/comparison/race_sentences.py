"""What a race says in sentences: the answer, the test images' certificate, and the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.comparison.certificate import Certificate
from experiments.comparison.decisions import Round
from experiments.comparison.formats import count, names, percent, percent_interval
from experiments.comparison.races import RaceResult
from experiments.results.evaluation import Interval

MOST_NAMES = 8
USUAL_SEEDS = 10  # of each configuration, where nobody stops when the answer is there


def answer(race: RaceResult) -> str:
    """Who is the best, or who may still be, and how sure that is."""
    last = race.last
    if last is None:
        seeds = len(race.setting.seeds)
        return f"The race is open: it decides from the third of at most {seeds} seeds on."
    others = [*_worse(race), *_left(race, last), *_failed(race)]
    return " ".join([_first(race, last), *others])


def _first(race: RaceResult, last: Round) -> str:
    leader, field = race.label(last.leader), len(race.setting.configurations)
    sure = f"{100 * race.setting.confidence:g}% for all claims together"
    jobs = f"{race.cost.jobs} jobs of at most {field * len(race.setting.seeds)}"
    if last.verdict == "best":
        alone = "the other" if field == 2 else f"each of the {field - 1} others"
        claim = f"It is better than {alone}" if not race.failed else "No other is left"
        return f"{leader}. {claim} by {race.scale.name}, whatever the seeds ({sure}; {jobs})."
    bound = f"{race.scale.gap(last.bound)} {race.scale.unit} of {race.scale.name}"
    if last.verdict == "within":
        whom = "The other is not" if field == 2 else f"No other of the {field} is"
        return f"{leader}. {whom} better by more than {bound}, whatever the seeds ({sure}; {jobs})."
    word = "Undecided" if race.has_ended else "Open"
    return (
        f"{word} after {last.round} of {len(race.setting.seeds)} seeds: {leader} leads, and another may be better by "
        f"up to {bound} ({sure}; {jobs})."
    )


def _worse(race: RaceResult) -> list[str]:
    worse = race.labels(sorted(race.out, key=lambda c: race.out[c]))
    return [f"Worse: {names(worse, MOST_NAMES)}."] if worse else []


def _left(race: RaceResult, last: Round) -> list[str]:
    near = race.labels(sorted(last.bounds, key=lambda c: -last.bounds[c]))
    if not near:
        return []
    word = "Not shown to be worse" if last.verdict == "within" else "Still in"
    return [f"{word}: {names(near, MOST_NAMES)}."]


def _failed(race: RaceResult) -> list[str]:
    told = [f"{race.label(c)} (job {job} {race.records[job].state})" for c, job in race.failed.items()
            if job in race.records]  # fmt: skip
    return [f"No claim: {names(told, MOST_NAMES)}."] if told else []


def certificate(race: RaceResult, found: Sequence[Certificate], accuracy: float, interval: Interval) -> str:
    """What the test images say of the winner; "" while the race is open, because they choose nothing.

    Args:
        race: it may be open.
        found: of the others, the closest first.
        accuracy: of the winner on the test images, in [0, 1].
        interval: 95 % of it.
    """
    if not race.is_decided or race.last is None or not found:
        return ""
    first = race.label(race.last.leader)
    within = percent_interval(interval).replace(" to ", ", ")
    told = f"Test images, looked at once: {first} {percent(accuracy)} [{within}]."
    near, bound = race.label(found[0].other), f"{abs(found[0].bound):.2f} points"
    if found[0].bound < 0:
        whom = near if len(found) == 1 else "every other"
        return f"{told} On new images and seeds {whom} is worse by at least {bound}."
    whom = near if len(found) == 1 else f"no other (the closest is {near})"
    at_most = f"{whom} is at most {bound} better" if len(found) == 1 else f"{whom} is more than {bound} better"
    return (
        f"{told} On new images and seeds {at_most}; these images cannot show less than {found[0].resolution:.2f} "
        "between the two, however many seeds."
    )


def cost(race: RaceResult) -> str:
    """What it has taken, exactly, and how to go on."""
    spent, field = race.cost, len(race.setting.configurations)
    ahead = "begun ahead" if race.has_ended else "not counted yet"
    kinds = f"{spent.counted} counted, {spent.ahead} {ahead}, {spent.reused} from other sweeps"
    usual = min(USUAL_SEEDS, len(race.setting.seeds))
    parts = [
        f"{count(spent.jobs, 'job')} ({kinds}); {count(spent.epochs, 'epoch')} and {_duration(spent.seconds)} of "
        f"training here. {usual} seeds each are {usual * field} jobs."
    ]
    if race.is_decided and race.last and race.last.verdict == "within":
        margin = race.setting.margin / 2
        parts.append(f"sweep.margin={margin:g} goes on from here, sweep.until=all runs the rest.")
    elif race.is_decided:
        parts.append("sweep.until=all runs the rest.")
    return " ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rounds_table(race: RaceResult) -> list[Mapping[str, str]]:
    """A row for each decision: seeds, configurations that were in, leader, who fell, and the bound."""
    return [
        {
            "seeds": str(made.round),
            "in": str(len(made.entered)),
            "leads": f"{race.label(made.leader)} {_mean(race, made)}",
            "out": names(
                [f"{race.label(c)} (worse than {race.label(by)} by {race.scale.gap(-bound)} or more)"
                 for c, (by, bound) in made.out.items()]
                + [f"{race.label(c)} (no claim: job {job} ended without a result)" for c, job in made.failed.items()],
                MOST_NAMES,
            ),
            "another is better by at most": f"{race.scale.gap(made.bound)} {race.scale.unit}" if made.bounds else "–",
        }
        for made in race.rounds
    ]  # fmt: skip


def _mean(race: RaceResult, made: Round) -> str:
    return race.scale.mean(dict(zip(made.entered, made.means, strict=True))[made.leader])
