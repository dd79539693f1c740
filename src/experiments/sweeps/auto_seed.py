"""`seed=auto`: a race over seeds, where nobody has to say how many."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.types import ChoiceSweep, Override

from experiments.errors import InputError

AUTO = "auto"
SEEDS = "range(30)"  # the most that a race may take; it ends long before where configurations differ


def expand(given: Sequence[Override]) -> list[str]:
    """The arguments of a sweep with `seed=auto` as `seed=range(30) sweep.until=decided`, an own `sweep.until` kept.

    Raises:
        InputError: `seed=auto` stands beside another seed.
    """
    texts = [override.input_line or "" for override in given]
    seeds = [override for override in given if override.key_or_group == "seed"]
    automatic = [override for override in seeds if is_auto(override)]
    if not automatic:
        return texts
    if len(seeds) > 1 or automatic[0].is_sweep_override():
        received = " ".join(override.input_line or "" for override in seeds)
        raise InputError(f"seed=auto: chooses the seeds and must stand alone, received {received}")
    place = texts.index(automatic[0].input_line or "")
    texts[place] = f"{automatic[0].get_key_element()}={SEEDS}"
    own = any(override.key_or_group == "sweep.until" for override in given)
    return texts if own else [*texts, "sweep.until=decided"]


def is_auto(override: Override) -> bool:
    """Whether `auto` is the seed, or one of several, that an override asks for."""
    value = override.value()
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    return override.key_or_group == "seed" and AUTO in map(str, values)
