"""A YAML file, and the arguments laid over it, as a tree in which each value knows where it was written."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from reelstream.errors import ConfigError

_MERGE_TAG = "tag:yaml.org,2002:merge"
_COLLECTION_TAGS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"
_FLOAT_TAG = "tag:yaml.org,2002:float"
# YAML 1.1 wants a point and a signed exponent; people write 1e-3 and 2.5e6.
_EXPONENT_FLOAT = re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")

Scalar: TypeAlias = "str | int | float | bool | bytes | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One value of the configuration."""

    value: Scalar | dict[str, Entry] | list[Entry]
    place: str
    """Where it was written: `configs/demo.yaml:14`, or `argument train.steps=5`."""

    def plain(self) -> object:
        """Return the value without its places."""
        if isinstance(self.value, dict):
            return {key: entry.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain() for entry in self.value]
        return self.value


@dataclass(slots=True)
class Problems:
    """What is wrong, all of it, in the order in which it was found."""

    lines: list[str] = field(default_factory=list)

    def add(self, place: str, message: str) -> None:
        """Note one thing that is wrong."""
        line = f"{place}: {message}"
        # An anchor that is used twice is wrong once.
        if line not in self.lines:
            self.lines.append(line)

    def raise_if_any(self, title: str) -> None:
        """Raise one `ConfigError` with all of them.

        Args:
            title: What they are in; stands above where there are several.
        """
        if len(self.lines) == 1:
            raise ConfigError(self.lines[0])
        if self.lines:
            listed = "".join(f"\n  {line}" for line in self.lines)
            raise ConfigError(f"{len(self.lines)} problems in {title}:{listed}")


class _Loader(yaml.SafeLoader):
    """Safe tags only; dates stay the words they were written in, `1e-3` is a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP_TAG]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_FLOAT_TAG, _EXPONENT_FLOAT, list("-+.0123456789"))


def read_document(path: Path, problems: Problems) -> Entry:
    """Return the tree of a YAML file; what is wrong inside goes to `problems`.

    Raises:
        ConfigError: Where the file cannot be read, or holds no mapping.
    """
    root = _convert_text(_read_text(path), _Places(str(path), has_lines=True), problems)
    if root is None or (root.value is None and not problems.lines):
        raise ConfigError(f"{path}: the file is empty", "write at least one `key: value`")
    if not isinstance(root.value, dict) and not problems.lines:
        raise ConfigError(f"{root.place}: the file must hold `key: value` lines, not {describe(root)}")
    return root if isinstance(root.value, dict) else dataclasses.replace(root, value={})


def apply_override(root: Entry, text: str, problems: Problems) -> Entry:
    """Return `root` with an argument `key.sub=value` laid over it; the value is read as YAML."""
    place = f"argument {text}"
    name, equals, value_text = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        problems.add(place, "write it as key=value, or section.key=value")
        return root
    num_problems = len(problems.lines)
    value = _convert_text(value_text, _Places(place, has_lines=False), problems)
    if len(problems.lines) > num_problems:
        return root
    return _with_value(root, keys, value or Entry(value=None, place=place), problems)


def describe(entry: Entry) -> str:
    """Return a value as it is shown in a message: short, whatever it is."""
    if isinstance(entry.value, dict):
        return "a section"
    if isinstance(entry.value, list):
        return "a list"
    if entry.value is None:
        return "empty"
    if isinstance(entry.value, bool):
        return "true" if entry.value else "false"
    text = repr(entry.value)
    return text if len(text) <= 60 else text[:59] + "…"


def _with_value(entry: Entry, keys: Sequence[str], value: Entry, problems: Problems) -> Entry:
    if not keys:
        return value
    children = {} if entry.value is None else entry.value
    if not isinstance(children, dict):
        problems.add(value.place, f"{describe(entry)} at {entry.place} is no section that could hold {keys[0]!r}")
        return entry
    child = children.get(keys[0], Entry(value=None, place=value.place))
    return dataclasses.replace(entry, value=children | {keys[0]: _with_value(child, keys[1:], value, problems)})


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: this is a folder", "name a YAML file in it") from error
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: the file is not text in UTF-8", "save it in that encoding") from error


@dataclass(frozen=True, slots=True)
class _Places:
    """Names the places of a text: by line in a file, as a whole in an argument."""

    whole: str
    has_lines: bool

    def at(self, mark: yaml.Mark | None) -> str:
        return self.whole if mark is None or not self.has_lines else f"{self.whole}:{mark.line + 1}"


def _convert_text(text: str, places: _Places, problems: Problems) -> Entry | None:
    """Return the tree that a YAML text holds, None where it holds nothing; an empty one where it cannot be read."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Conversion(loader, places, problems).entry(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        problems.add(places.at(error.problem_mark), f"this is not YAML: {error.problem}")
    except yaml.YAMLError as error:
        problems.add(places.whole, f"this is not YAML: {str(error).splitlines()[0]}")
    except RecursionError:
        problems.add(places.whole, "its sections are nested too deeply")
    return Entry(value=None, place=places.whole)


class _Conversion:
    """Turns YAML nodes into entries; a node that is used several times (an anchor) is converted once."""

    def __init__(self, loader: _Loader, places: _Places, problems: Problems) -> None:
        self._loader = loader
        self._places = places
        self._problems = problems
        self._done: dict[int, Entry] = {}
        self._open: set[int] = set()

    def entry(self, node: yaml.Node, place: str | None = None) -> Entry:
        """Return the entry for a node; `place` is that of its key, where it has one."""
        if id(node) not in self._done:
            if id(node) in self._open:
                self._problems.add(self._places.at(node.start_mark), "an anchor must not contain itself")
                return Entry(value=None, place=self._places.at(node.start_mark))
            self._open.add(id(node))
            self._done[id(node)] = self._convert(node)
            self._open.discard(id(node))
        entry = self._done[id(node)]
        return entry if place is None else dataclasses.replace(entry, place=place)

    def _convert(self, node: yaml.Node) -> Entry:
        place = self._places.at(node.start_mark)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTION_TAGS:
            self._problems.add(place, f"the tag {node.tag!r} is not allowed")
        if isinstance(node, yaml.MappingNode):
            return Entry(value=self._mapping(node), place=place)
        if isinstance(node, yaml.SequenceNode):
            return Entry(value=[self.entry(item) for item in node.value], place=place)
        return Entry(value=self._scalar(node), place=place)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Entry]:
        merged: dict[str, Entry] = {}
        own: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            place = self._places.at(key_node.start_mark)
            if key_node.tag == _MERGE_TAG:
                # Of several merged sections the first wins; what stands here itself wins over all.
                merged = self._merged(value_node, place) | merged
                continue
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._problems.add(place, "a key must be a word")
            elif key in own:
                self._problems.add(place, f"the key {key!r} is here twice; the first one is at {own[key].place}")
            else:
                own[key] = self.entry(value_node, place)
        return merged | own

    def _merged(self, node: yaml.Node, place: str) -> dict[str, Entry]:
        merged: dict[str, Entry] = {}
        for section in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.entry(section).value
            if isinstance(value, dict):
                merged = value | merged
            else:
                self._problems.add(place, "<< takes a section, or a list of sections")
        return merged

    def _scalar(self, node: yaml.Node) -> Scalar:
        try:
            value: Hashable = self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            detail = error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error)
            self._problems.add(self._places.at(node.start_mark), f"{node.value!r} cannot be read: {detail}")
            return None
        assert value is None or isinstance(value, str | int | float | bool | bytes)
        return value
