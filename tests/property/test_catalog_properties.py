from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catalog_kit import MadeRepository, record, repository_file
from reelstream.catalog import as_messages, parse_options
from reelstream.catalog.conversations import with_one_placeholder
from reelstream.catalog.parse import parse_annotations
from reelstream.catalog.paths import normalise_path
from reelstream.errors import AnnotationError

COMPONENTS = st.sampled_from(["a", "b", "c.mp4", ".d", "é", "x y"])
PATHS = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)
TEXTS = st.lists(st.sampled_from(["<image>", "<video>", "\n", "What", " ", "<", "🐈"]), max_size=6).map("".join)
ROWS = st.lists(st.tuples(PATHS, TEXTS), max_size=30)


@given(
    cap=ROWS,
    mc=ROWS,
    kinds=st.permutations(["cap", "mc"]),
    names=st.lists(PATHS, max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_a_catalog_answers_as_a_dictionary_would(
    cap: list[tuple[str, str]], mc: list[tuple[str, str]], kinds: list[Any], names: list[str]
) -> None:
    published = {"cap": cap, "mc": mc}
    repository = MadeRepository(
        {
            f"s/s_{kind}.json": [record(path, answer=f"{text}!", id=row) for row, (path, text) in enumerate(rows)]
            for kind, rows in published.items()
        }
    )
    expected: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for kind in kinds:
        for row, (path, _) in enumerate(published[kind]):
            expected[path].append((kind, row))
    with tempfile.TemporaryDirectory() as folder, repository.prepare(Path(folder), "s", kinds=kinds) as catalog:
        assert catalog.num_samples == len(cap) + len(mc)
        assert {catalog.clip(clip).path for clip in range(catalog.num_clips)} == set(expected)
        for path, samples in expected.items():
            clip = catalog.find("s", path)
            assert clip is not None
            found = [(catalog.annotation(row).kind, catalog.source_of(row).row) for row in catalog.samples_of(clip)]
            assert found == samples
            assert [int(catalog.annotation(row).id) for row in catalog.samples_of(clip)] == [row for _, row in samples]
        for name in names:
            clip = catalog.find("s", name)
            assert (None if clip is None else catalog.clip(clip).path) == found_by_looking_at_all(name, set(expected))


def found_by_looking_at_all(name: str, paths: set[str]) -> str | None:
    if name in paths:
        return name
    alike = [
        path
        for path in paths
        if "/" in path and "/" in name and (f"/{path}".endswith(f"/{name}") or f"/{name}".endswith(f"/{path}"))
    ]
    return alike[0] if len(alike) == 1 else None


@given(text=st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "/", "\\", "a", "C:"])).map("".join))
def test_a_normalised_path_stays_inside_and_stays_as_it_is(text: str) -> None:
    try:
        path = normalise_path(text)
    except ValueError:
        return
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))
    assert "\\" not in path
    assert normalise_path(path) == path


@given(values=st.lists(TEXTS, min_size=1, max_size=5), first_is_answer=st.booleans())
def test_a_conversation_has_one_placeholder_in_a_human_turn_and_messages_one_video(
    values: list[str], first_is_answer: bool
) -> None:
    turns = [
        {"from": "gpt" if number % 2 != first_is_answer else "human", "value": value}
        for number, value in enumerate(["", *values])
    ]
    uniform = with_one_placeholder(turns)
    assert sum(turn["value"].count("<video>") for turn in uniform) == 1
    assert all("<image>" not in turn["value"] for turn in uniform)
    assert all("<video>" not in turn["value"] for turn in uniform if turn["from"] == "gpt")
    assert with_one_placeholder(uniform) == uniform
    messages = as_messages(uniform)
    assert sum(part["type"] == "video" for message in messages for part in message["content"]) == 1
    assert len(messages) == len(turns)


ARRAY = json.dumps([record("a/1.mp4", answer="é🐈"), record(None), record("b/2.mp4")], ensure_ascii=False).encode()


@given(length=st.integers(0, len(ARRAY) - 1), chunk_bytes=st.integers(1, 100))
def test_an_array_cut_anywhere_is_refused(length: int, chunk_bytes: int) -> None:
    cut = ARRAY[:length]
    chunks = [cut[start : start + chunk_bytes] for start in range(0, length, chunk_bytes)]
    with pytest.raises(AnnotationError, match="cut short"):
        list(parse_annotations(repository_file("s.json", ARRAY), chunks))


@given(place=st.integers(0, len(ARRAY) - 1), piece=st.binary(max_size=8), chunk_bytes=st.integers(1, 100))
@example(place=0, piece=b"[[[[", chunk_bytes=1)
@settings(max_examples=300)
def test_no_bytes_raise_anything_but_an_annotation_error(place: int, piece: bytes, chunk_bytes: int) -> None:
    data = ARRAY[:place] + piece + ARRAY[place + len(piece) :]
    chunks = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    try:
        rows = list(parse_annotations(repository_file("s.json", data), chunks))
    except AnnotationError:
        return
    assert [row.row for row in rows] == list(range(len(rows)))


OPTIONS = st.text("abc .,?", min_size=1).filter(lambda text: text.strip() == text)


@given(options=st.lists(OPTIONS, min_size=2, max_size=8))
def test_options_written_one_a_line_are_read_back(options: list[str]) -> None:
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCDEFGH", options, strict=False))
    assert parse_options(f"<video>\nWhat?\nOptions:\n{lines}\nAnswer with the letter.") == options
