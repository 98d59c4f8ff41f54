# ruff: noqa: INP001 - a script beside the page it writes, not a package
"""Writes docs/reference/configuration.md from the configuration's dataclasses.

The words are those under the fields, so they are written once: `python docs/generate_configuration.py`.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from reelstream.train.run_options import RunOptions
from reelstream.units import ByteRate, ByteSize, Seconds

PAGE = Path(__file__).parent / "reference" / "configuration.md"

_INTRODUCTION = """\
# Configuration

Written by `python docs/generate_configuration.py` from the dataclasses' own words; change those, then run it.

`reelstream train CONFIG` reads one YAML file. A key that is left out takes its default. `KEY=VALUE` arguments replace
values of the file: `data.disk_budget=8GB`, `train.max_steps=100`, `data.limit=null`. A wrong key, type or value is
refused before any work starts, with the file, the line and the nearest right name.

- A **size** is a number of bytes, or a number with a unit: `800`, `20kB`, `9GB`, `1.5 GiB`. A **rate** is a size a
  second: `10MB/s`. A **duration** is a number of seconds, or a number with a unit: `50ms`, `10min`, `11h`.
- *None* means that nothing is set; write `null`, or leave the key out.

[configs/streaming.yaml](../../configs/streaming.yaml) is the recipe for the real dataset, with a comment on each key;
[configs/demo.yaml](../../configs/demo.yaml) is that of the demo. In Python the keys of `data` are the keyword arguments
of [StreamingVideoDataset](dataset.md).
"""

_UNIT_WORDS: dict[Any, str] = {ByteSize: "size", ByteRate: "rate", Seconds: "duration"}
_PLAIN_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
}
_BYTE_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
# What a default is that is only known at run time.
_FOUND_OUT = {"decode_threads": "the number of cores"}


@dataclasses.dataclass(frozen=True)
class Key:
    """One documented key."""

    name: str
    kind: str
    default: str
    meaning: str


def page_text() -> str:
    """Return the page."""
    sections = [_section_text(name, schema) for name, schema in sections_of(RunOptions, "")]
    return "\n".join([_INTRODUCTION, *sections])


def sections_of(schema: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted name and dataclass of each section, the outermost first."""
    yield name, schema
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        inner = _without_none(hints[field.name])
        if dataclasses.is_dataclass(inner):
            yield from sections_of(inner, f"{name}.{field.name}".lstrip("."))


def keys_of(schema: Any) -> list[Key]:
    """Return a dataclass's keys, in order."""
    hints = typing.get_type_hints(schema, include_extras=True)
    docs = _docs_under_fields(schema)
    return [
        Key(
            name=field.name,
            kind=_kind(hints[field.name]),
            default=_default(field, hints[field.name]),
            meaning=docs[field.name],
        )
        for field in dataclasses.fields(schema)
    ]


def _section_text(name: str, schema: Any) -> str:
    title = f"## `{name}`" if name else "## The outermost keys"
    summary = (inspect.getdoc(schema) or "").partition("\n\n")[0]
    rows = [f"| `{key.name}` | {key.kind} | {key.default} | {key.meaning} |" for key in keys_of(schema)]
    return "\n".join([title, "", summary, "", "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""])


def _docs_under_fields(schema: Any) -> dict[str, str]:
    """Return the strings that stand under the fields in the source, by field."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
    assert isinstance(node, ast.ClassDef)
    docs = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(statement.target, ast.Name)
            assert isinstance(following.value, ast.Constant)
            docs[statement.target.id] = " ".join(str(following.value.value).split()).replace("|", "\\|")
    return docs


def _kind(hint: Any) -> str:
    inner = _without_none(hint)
    if inner in _UNIT_WORDS:
        return _UNIT_WORDS[inner]
    if dataclasses.is_dataclass(inner):
        return "section"
    if typing.get_origin(inner) is tuple:
        return f"list of {_kind(typing.get_args(inner)[0])}"
    if _is_union(inner):
        return " or ".join(_kind(branch) for branch in typing.get_args(inner))
    if typing.get_origin(inner) is Literal:
        return ", ".join(f"`{word}`" for word in typing.get_args(inner))
    return _PLAIN_WORDS[inner]


def _default(field: dataclasses.Field[Any], hint: Any) -> str:
    if field.name in _FOUND_OUT:
        return _FOUND_OUT[field.name]
    if field.default is dataclasses.MISSING:
        return "required" if field.default_factory is dataclasses.MISSING else "its keys' own"
    return _written(field.default, _without_none(hint))


def _written(value: object, hint: Any) -> str:
    """Return a value as a configuration file may have it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if hint == ByteSize and isinstance(value, int):
        units = ((factor, unit) for factor, unit in _BYTE_UNITS if value and value % factor == 0)
        factor, unit = next(units, (1, ""))
        return f"`{value // factor}{unit}`"
    if hint == Seconds and isinstance(value, float):
        return f"`{value / 60:g}min`" if value and value % 60 == 0 else f"`{value:g}`"
    return f"`{value}`"


def _without_none(hint: Any) -> Any:
    if not _is_union(hint):
        return hint
    branches = tuple(branch for branch in typing.get_args(hint) if branch is not types.NoneType)
    return branches[0] if len(branches) == 1 else typing.Union[branches]  # noqa: UP007 - built at run time


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in {typing.Union, types.UnionType}


if __name__ == "__main__":
    PAGE.write_text(page_text(), encoding="utf-8")
