"""The reference pages name everything there is, and nothing that is not."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

from docs.docs_kit import REPOSITORY, section_of
from reelstream import errors
from reelstream.cli.main import COMMANDS
from reelstream.data import Sample, StreamingLLaVAVideo, StreamingVideoDataset

REFERENCE = REPOSITORY / "docs" / "reference"


def _text(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def _generator() -> ModuleType:
    path = REPOSITORY / "docs" / "generate_configuration.py"
    spec = importlib.util.spec_from_file_location("generate_configuration", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # The dataclass in it looks its own module up.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(importlib.import_module("sys").modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


def test_configuration_page_is_current() -> None:
    hint = "run: python docs/generate_configuration.py"
    assert _text("configuration.md") == _generator().page_text(), hint


def test_every_configuration_field_has_a_sentence_under_it() -> None:
    generator = _generator()
    sections = list(generator.sections_of(generator.RunOptions, ""))
    assert [name for name, _ in sections][:3] == ["", "data", "data.frames"]
    for _, schema in sections:
        assert all(key.meaning.endswith(".") for key in generator.keys_of(schema))


def _parser_of(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    importlib.import_module(f"reelstream.cli.{command.replace('-', '_')}").add_arguments(parser)
    return parser


def _words_of(parser: argparse.ArgumentParser) -> set[str]:
    words = {option for action in parser._actions for option in action.option_strings}
    words |= {str(action.metavar or action.dest) for action in parser._actions if not action.option_strings}
    return words - {"-h", "--help"}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_line_page_names_each_option_and_argument(command: str) -> None:
    section = section_of(REFERENCE / "cli.md", f"## `reelstream {command}`")
    documented = set(re.findall(r"`([^`]+)`", section))
    tokens = {token for words in documented for token in words.replace(",", " ").split()}
    missing = {word for word in _words_of(_parser_of(command)) if word not in tokens and word.upper() not in tokens}
    assert not missing


@pytest.mark.parametrize("command", COMMANDS)
def test_command_line_page_names_no_option_that_is_not_there(command: str) -> None:
    section = section_of(REFERENCE / "cli.md", f"## `reelstream {command}`")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", section))
    assert named <= _words_of(_parser_of(command))


def _members_of(kind: type) -> set[str]:
    own = [name for base in kind.__mro__ if base.__module__.startswith("reelstream.") for name in vars(base)]
    return {name for name in own if not name.startswith("_")}


def test_dataset_page_names_each_argument_and_method() -> None:
    text = _text("dataset.md")
    arguments = {
        name
        for kind in (StreamingVideoDataset, StreamingLLaVAVideo)
        for name in inspect.signature(kind.__init__).parameters
        if name not in {"self", "options"}
    }
    members = _members_of(StreamingVideoDataset) | _members_of(StreamingLLaVAVideo)
    words = set(re.findall(r"`\.?(\w+)", text))
    assert arguments | members | set(Sample.__annotations__) <= words


def test_dataset_page_gives_the_defaults_that_are_true() -> None:
    section = section_of(REFERENCE / "dataset.md", "## `StreamingVideoDataset(repo_id, subsets, …)`")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.MULTILINE))
    signature = inspect.signature(StreamingVideoDataset.__init__).parameters
    for name, written in rows.items():
        default = signature[name].default
        if isinstance(default, str | Path):
            assert written == f'"{default}"'
        else:
            assert eval(written, {"GB": 10**9, "MB": 10**6}) == default, name
    keywords = [entry for entry in signature.values() if entry.kind is inspect.Parameter.KEYWORD_ONLY]
    assert set(rows) == {entry.name for entry in keywords}


def test_error_page_names_each_error_and_no_other() -> None:
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.ReelstreamError)
    }
    rows = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", _text("errors.md"), re.MULTILINE))
    assert set(rows) == set(kinds)
    for name, builtin in rows.items():
        assert builtin in {base.__name__ for base in kinds[name].__mro__}, name


def test_state_page_names_each_key_of_a_real_state(reader_folder: Path) -> None:
    with StreamingVideoDataset("sample/llava-video-mini", "0_30_s_academic_v0_1", disk_budget="50MB") as dataset:
        next(iter(dataset))
        state = dataset.state_dict()
    epoch_state = state["epoch_state"]
    keys = {*state, *epoch_state, *epoch_state["spans"], *epoch_state["books"], *epoch_state["lanes"][0]}
    rows = re.findall(r"^\| (`[^|]+`) \|", _text("state.md"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(?:spans\.|books\.|lanes\[\]\.)?(\w+)`", row)}
    assert named | {"spans", "books"} == keys
