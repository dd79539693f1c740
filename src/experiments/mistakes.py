"""Mistakes in a config, told in the words of the user's YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from experiments.errors import InputError, initials, nearest
from experiments.ingredients.option import Option, names_of

TYPE = re.compile(r"constrained-\w+|list\[.*\]")  # that pydantic adds to the way to a value of several types


def explain(error: ValidationError, schema: type[Option]) -> InputError:
    """One line for each mistake that pydantic found in a config of this schema."""
    return InputError(*(_mistake(dict(e), schema) for e in _of_one_type(error.errors(include_url=False))))


def _of_one_type(errors: Iterable[Any]) -> Iterator[Any]:
    """Of a value that may be of several types, as `96` or `[96, 128]`, the mistakes of the type that it has."""
    groups: dict[tuple[str | int, ...], list[Any]] = {}
    for error in errors:
        parts = [bool(TYPE.fullmatch(str(part))) for part in error["loc"]]
        known = error["loc"][: parts.index(True)] if any(parts) else error["loc"]
        plain = tuple(part for part, is_type in zip(error["loc"], parts, strict=True) if not is_type)
        groups.setdefault(known, []).append(error | {"loc": plain})
    for group in groups.values():
        yield from [error for error in group if not error["type"].endswith("_type")] or group[:1]


def nearest_key(key: str, beside: Iterable[str], schema: type[Option]) -> str:
    """Half a sentence on a `key` that is not there: which options have it, or what was meant.

    Args:
        key: dotted.
        beside: the keys that are valid in its place.
        schema: of the whole config.
    """
    group, _, leaf = key.rpartition(".")
    field = schema.model_fields.get(group)
    owners = [o for o in _options(field.annotation) if leaf in o.model_fields] if field else []
    if owners:
        return f"it belongs to {', '.join(f'{group}={name}' for o in owners for name in names_of(o))}"
    known = sorted(set(_dotted_keys(schema)), key=lambda known: (not known.startswith(group), known))
    same_leaf = [k for k in known if leaf in (k.rpartition(".")[2], initials(k.rpartition(".")[2]))]
    return f"did you mean {' or '.join(same_leaf)}?" if same_leaf else nearest(leaf, beside)


def _dotted_keys(option: type[Option], prefix: str = "") -> Iterator[str]:
    for name, field in option.model_fields.items():
        yield prefix + name
        for member in _options(field.annotation):
            yield from _dotted_keys(member, f"{prefix}{name}.")


def _options(annotation: Any) -> list[type[Option]]:
    members = getattr(annotation, "__args__", (annotation,))
    return [member for member in members if isinstance(member, type) and issubclass(member, Option)]


def _mistake(error: dict[str, Any], schema: type[Option]) -> str:
    """One line: dotted key, rule, what was received, nearest valid choice. `error` is one of pydantic's."""
    keys, fields = _locate(error["loc"], schema)
    dotted, kind, received = ".".join(keys) or "config", error["type"], error["input"]
    if kind == "extra_forbidden":
        return f"{dotted}: no such key; {nearest_key(dotted, fields, schema)}"
    if kind == "missing":
        return f"{dotted}: missing; every value must be given"
    if kind == "union_tag_not_found":
        return f"{dotted}: must be a mapping with a name, received {_show(received)}"
    context = error.get("ctx", {})
    if kind == "union_tag_invalid":
        choices = [choice.strip("'") for choice in context["expected_tags"].split(", ")]
        return _no_such_option(f"{dotted}.name", context["tag"], choices)
    if kind == "literal_error":
        choices = [c.strip("'") for c in context["expected"].replace(" or ", ", ").split(", ")]
        if keys[-1] == "name":
            return _no_such_option(dotted, received, choices)
        return f"{dotted}: no such choice {_show(received)}; {nearest(str(received), choices)}"
    if kind == "value_error":
        return f"{dotted}: {context['error']}"
    rule = "must be a mapping" if kind == "model_type" else re.sub(r"^\w+ should", "must", error["msg"])
    return f"{dotted}: {rule.partition(' after validation')[0]}, received {_show(received)}"


def _no_such_option(key: str, received: Any, choices: Sequence[str]) -> str:
    if key == "sweep.name":  # once the title
        return f"{key}: no such option {received!r}; did you mean sweep.title? valid: {', '.join(choices)}"
    return f"{key}: no such option {received!r}; {nearest(str(received), choices)}"


def _locate(location: tuple[str | int, ...], schema: type[Option]) -> tuple[list[str], list[str]]:
    """The dotted key's parts without pydantic's union tags, and the keys that are valid beside the last."""
    keys: list[str] = []
    options: list[type[Option]] = [schema]
    fields: list[str] = []
    for part in location:
        tagged = [o for o in options if _tag(o, part)]
        if tagged and not (len(options) == 1 and part in options[0].model_fields):
            options = tagged
            continue
        keys.append(str(part))
        fields = sorted({name for option in options for name in option.model_fields})
        found = [o.model_fields[str(part)] for o in options if str(part) in o.model_fields]
        options = [member for field in found for member in _options(field.annotation)]
    return keys, fields


def _tag(option: type[Option], part: str | int) -> bool:
    return part in names_of(option)


def _show(value: Any) -> str:
    if value is None:
        return "null"
    text = f"{value!r} ({type(value).__name__})" if isinstance(value, str | bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
