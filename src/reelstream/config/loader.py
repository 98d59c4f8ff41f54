"""Configuration files into frozen dataclasses, with errors that name the file, the line and the right name."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pydantic
import pydantic_core

from reelstream.config.document import Entry, Problems, apply_override, describe, read_document
from reelstream.errors import ReelstreamError

_T = TypeVar("_T")

# What pydantic calls a mistake, in the words of those who write configuration files.
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text (in quotes, where it looks like something else)",
    "none_required": "empty",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section",
}

_FAILED = object()
"""Stands for a value that could not be built; the reason is among the problems."""


def load(path: Path, overrides: Sequence[str], schema: type[_T]) -> _T:
    """Return the configuration in a YAML file, with arguments laid over it, as a `schema`.

    Keys are the fields of the dataclass, sections those of nested ones; what is left out takes the field's default,
    and a section that is begun takes the defaults of its class. Values are checked strictly (`"5"` is no number)
    but for what the annotated types of `reelstream.units` read.

    Args:
        path: The file.
        overrides: `key=value` or `section.key=value`, the value read as YAML; the last one wins.
        schema: A dataclass; its fields may be plain types, `Literal`, enums, `Path`, tuples, `X | None`, and
            dataclasses, also in tuples, lists and dicts.

    Raises:
        ConfigError: With all that is wrong, each with its file and line, or its argument.
    """
    problems = Problems()
    root = read_document(path, problems)
    # What follows from a file that cannot be read would only hide the reason.
    problems.raise_if_any(str(path))
    for override in overrides:
        root = apply_override(root, override, problems)
    value = _Builder(problems, schema).build(schema, root, "")
    problems.raise_if_any(f"{path} and the arguments" if overrides else str(path))
    return cast("_T", value)


def dump(value: object) -> dict[str, Any]:
    """Return a configuration as plain dicts, lists, numbers and words, which `load` reads back as the same.

    Args:
        value: A dataclass.
    """
    plain = _plain(value)
    assert isinstance(plain, dict)
    return plain


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


class _Builder:
    """Builds values for type hints out of entries; what is wrong goes to `problems`, and the building goes on."""

    def __init__(self, problems: Problems, schema: type) -> None:
        self._problems = problems
        self._all_names = list(_field_names(schema))

    def build(self, hint: Any, entry: Entry, name: str) -> object:
        """Return the value, or `_FAILED`; `name` is the dotted key."""
        inner = _without_none(hint)
        if inner is not hint:
            if entry.value is None:
                return None
            return self.build(inner, entry, name)
        if _is_section(hint):
            return self._section(hint, entry, name)
        item = _section_in(hint)
        if item is not None and isinstance(entry.value, list):
            built = [self.build(item, each, f"{name}[{place}]") for place, each in enumerate(entry.value)]
            return _FAILED if _FAILED in built else typing.get_origin(hint)(built)
        if item is not None and isinstance(entry.value, dict):
            items = {key: self.build(item, each, f"{name}.{key}") for key, each in entry.value.items()}
            return _FAILED if _FAILED in items.values() else items
        return self._leaf(hint, entry, name)

    def _section(self, schema: Any, entry: Entry, name: str) -> object:
        given = {} if entry.value is None else entry.value
        if not isinstance(given, dict):
            self._problems.add(entry.place, f"{name} must be a section, not {describe(entry)}")
            return _FAILED
        hints = typing.get_type_hints(schema, include_extras=True)
        fields = {field.name: field for field in dataclasses.fields(schema) if field.init}
        values: dict[str, object] = {}
        for key, child in given.items():
            if key in fields:
                values[key] = self.build(hints[key], child, f"{name}.{key}".lstrip("."))
            else:
                self._problems.add(child.place, self._unknown_key(key, name, list(fields)))
        missing = [key for key, field in fields.items() if key not in given and _is_required(field)]
        for key in missing:
            where = f" in {name}" if name else ""
            self._problems.add(entry.place, f"the key {key!r} is missing{where}")
        if missing or _FAILED in values.values():
            return _FAILED
        try:
            return schema(**values)
        except ValueError as error:
            self._problems.add(_place_with_arguments(entry), _words_of(error))
            return _FAILED

    def _unknown_key(self, key: str, section: str, known: list[str]) -> str:
        where = f" in {section}" if section else ""
        nearest = difflib.get_close_matches(key, known, n=1)
        # The right name in the wrong section is the next likely mistake.
        nearest = nearest or [other for other in self._all_names if other.rpartition(".")[2] == key][:1]
        if nearest:
            return f"unknown key {key!r}{where}; did you mean {nearest[0]!r}?"
        return f"unknown key {key!r}{where}; the keys are {', '.join(known)}"

    def _leaf(self, hint: Any, entry: Entry, name: str) -> object:
        try:
            # By way of JSON, where strict means what it means to people: a list may be a tuple, a word an enum or a
            # path, but "5" is no number and 1 is not true.
            text = json.dumps(entry.plain(), default=str)
            return pydantic.TypeAdapter(hint).validate_json(text, strict=True)
        except pydantic.ValidationError as error:
            for place, message in _mistakes(error, entry, name):
                self._problems.add(place, message)
        except TypeError:
            # The readers of units know words and numbers only.
            self._problems.add(entry.place, f"{name} cannot be {describe(entry)}")
        return _FAILED


def _mistakes(error: pydantic.ValidationError, entry: Entry, name: str) -> Iterator[tuple[str, str]]:
    """Yield place and message of each mistake; the branches of a union that all failed at one value are one."""
    # By dotted key: who it is, the sentences of our own readers, and what pydantic wants instead.
    found: dict[str, tuple[Entry, list[str], list[str]]] = {}
    for detail in error.errors(include_url=False):
        culprit, dotted = _culprit(entry, name, detail["loc"])
        _, sentences, expected = found.setdefault(dotted, (culprit, [], []))
        if detail["type"] == "value_error":
            sentences.append(_words_of(detail["ctx"]["error"]))
        else:
            expected.append(_expectation(detail))
    for dotted, (culprit, sentences, expected) in found.items():
        wanted = " or ".join(dict.fromkeys(expected))
        if sentences:
            message = f"{dotted}: {'; '.join(sentences)}" + (f", or {wanted}" if wanted else "")
        else:
            message = f"{dotted} must be {wanted}, not {describe(culprit)}"
        yield culprit.place, message + _nearest_word(error, culprit)


def _culprit(entry: Entry, name: str, steps: tuple[int | str, ...]) -> tuple[Entry, str]:
    """Follow pydantic's steps as far as they lead into the file; the others name branches of unions."""
    for step in steps:
        if isinstance(entry.value, list) and isinstance(step, int) and step < len(entry.value):
            entry, name = entry.value[step], f"{name}[{step}]"
        elif isinstance(entry.value, dict) and step in entry.value:
            entry, name = entry.value[str(step)], f"{name}.{step}"
    return entry, name


def _expectation(detail: pydantic_core.ErrorDetails) -> str:
    if detail["type"] in {"literal_error", "enum"}:
        return str(detail["ctx"]["expected"])
    message = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return _EXPECTED.get(detail["type"], message)


def _nearest_word(error: pydantic.ValidationError, culprit: Entry) -> str:
    words = [
        word.strip("'")
        for detail in error.errors(include_url=False)
        if detail["type"] in {"literal_error", "enum"}
        for word in str(detail["ctx"]["expected"]).replace(" or ", ", ").split(", ")
    ]
    nearest = difflib.get_close_matches(str(culprit.value), words, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def _words_of(error: ValueError) -> str:
    if isinstance(error, ReelstreamError):
        return f"{error.fact} ({error.hint})" if error.hint else error.fact
    return str(error)


def _place_with_arguments(section: Entry) -> str:
    """Return where a section stands, and the arguments that changed it: one of them may be what is wrong."""
    assert section.value is None or isinstance(section.value, dict)
    children = (section.value or {}).values()
    arguments = [child.place for child in children if child.place.startswith("argument ")]
    return " with ".join([section.place, *(place for place in arguments if place != section.place)])


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _section_in(hint: Any) -> Any:
    """Return the dataclass that a list, a tuple of any length or a dict holds; None for all else."""
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    is_collection = origin is list or (origin is tuple and arguments[1:] == (...,))
    if is_collection and _is_section(arguments[0]):
        return arguments[0]
    if origin is dict and arguments[0] is str and _is_section(arguments[1]):
        return arguments[1]
    return None


def _without_none(hint: Any) -> Any:
    """Return `X` for `X | None`; anything else as it is."""
    if typing.get_origin(hint) not in {typing.Union, types.UnionType}:
        return hint
    branches = typing.get_args(hint)
    others = tuple(branch for branch in branches if branch is not types.NoneType)
    return hint if len(others) == len(branches) else typing.Union[others]  # noqa: UP007 - built at run time


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _field_names(schema: Any, prefix: str = "") -> Iterator[str]:
    """Yield all keys with their sections, `train.steps`."""
    hints = typing.get_type_hints(schema, include_extras=True)
    for field in dataclasses.fields(schema):
        yield prefix + field.name
        inner = _without_none(hints[field.name])
        if _is_section(inner):
            yield from _field_names(inner, f"{prefix}{field.name}.")
