"""The door to the platform's zlib."""

from __future__ import annotations

import dataclasses
import importlib
import random
import zlib
from typing import Any

import pytest

from archive_index_kit import LIBRARIES, media
from reelstream.archive.seek import inflate
from reelstream.archive.seek.inflate import BlockInflater, InflateLibrary, block_inflation, named_inflation
from reelstream.archive.seek.seek_points import copied_places, stand_in

CONTENT = media(1, 600_000)
PACKED = zlib.compress(CONTENT, 6, -15)


def library(name: str) -> InflateLibrary:
    found = named_inflation(name).library
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def forget_the_library_found() -> Any:
    yield
    block_inflation.cache_clear()


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("stop_at_block", [False, True])
def test_a_stream_comes_out_whole_in_steps_of_any_size(name: str, stop_at_block: bool) -> None:
    draw = random.Random(3)
    packed = PACKED * 2
    inflater = BlockInflater(library(name))
    output = bytearray()
    num_ended = position = 0
    while num_ended < 2:
        if not inflater.left_bytes:
            size = draw.choice((1, 500, 70_000))
            inflater.feed(packed[position : position + size])
            position += size
        output += inflater.step(draw.choice((1, 600, 100_000)), stop_at_block=stop_at_block)
        num_ended += inflater.stream_ended
    inflater.close()
    inflater.close()
    assert output == CONTENT * 2
    assert inflater.consumed == len(packed)


@pytest.mark.parametrize("name", LIBRARIES)
def test_each_boundary_is_a_place_to_begin_at(name: str) -> None:
    packed = PACKED
    inflater = BlockInflater(library(name))
    inflater.feed(packed)
    output = b""
    num_boundaries = 0
    while not inflater.stream_ended:
        output += inflater.step(1 << 16, stop_at_block=True)
        if inflater.boundary_bit is not None:
            bit = inflater.boundary_bit
            raw = zlib.decompressobj(-15, zdict=output[-32768:])
            begun = raw.decompress(stand_in(bit, 0, False, packed[bit >> 3]) + packed[(bit >> 3) + 1 :], 1000)
            assert begun == CONTENT[len(output) : len(output) + 1000]
            num_boundaries += 1
    inflater.close()
    assert num_boundaries > 5


@pytest.mark.parametrize("name", LIBRARIES)
def test_damage_is_zlibs_error_with_its_words(name: str) -> None:
    inflater = BlockInflater(library(name))
    inflater.feed(PACKED[:1000] + b"\xff" * 70_000)
    with pytest.raises(zlib.error, match=r"Error -3 .*: invalid"):
        for _ in range(100):
            inflater.step(1 << 16, stop_at_block=False)
    inflater.close()


def test_the_faster_library_is_taken_where_it_is_installed() -> None:
    found = block_inflation()
    assert found.library is not None
    assert found.library.name == LIBRARIES[0]
    assert not found.problem
    assert block_inflation() is found


def test_a_platform_without_functions_to_call_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", nothing)
    monkeypatch.setattr(inflate, "_system_zlibs", lambda: iter(()))
    block_inflation.cache_clear()
    found = block_inflation()
    assert found.library is None
    assert "zlib-ng: No module named" in found.problem
    assert "zlib: no zlib can be called on" in found.problem


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_does_something_else_fails_its_self_test(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true = library(name)

    def loader(**changes: Any) -> Any:
        return lambda: dataclasses.replace(true, **changes)

    loaders = {
        "it does not tell where blocks begin": loader(inflate=lambda stream, flush: true.inflate(stream, 0)),
        "it cannot begin in the middle of a stream": loader(
            set_window=lambda stream, window, size: true.set_window(stream, bytes(size), size)
        ),
        "could not begin": loader(begin=lambda stream: -4),
        "Error -2": loader(inflate=lambda stream, flush: -2),
        "something else": loader(inflate=lambda stream, flush: -5),
    }
    for problem, load in loaders.items():
        monkeypatch.setattr(inflate, "_load_zlib", load)
        found = named_inflation("zlib")
        assert found.library is None
        assert problem in found.problem


def test_copied_places_are_exactly_those_that_matter() -> None:
    draw = random.Random(7)
    window = draw.randbytes(32_768)
    noise = bytes(draw.choices(range(100), k=25_000))  # more noise would be stored
    output = (
        window[5000:5040] + noise + window[5000:5020] + window[6000:6010] + bytes(draw.choices(range(90), k=40_000))
    )
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=window)
    compressed = compressor.compress(output) + compressor.flush()
    matters = copied_places(compressed, window, output, 0).tolist()
    assert set(matters) >= set(range(5003, 5037))
    assert len(matters) < 200  # three bytes here and there are the same by chance
    # The second copy is one of the first, and so of the window; the third lies too far behind to be one.
    skipped = copied_places(compressed, window, output, 1000)
    assert set(skipped.tolist()) >= set(range(5003, 5017))
    assert len(skipped) < len(matters)
    kept = bytearray(32_768)
    for place in skipped.tolist():
        kept[place] = window[place]
    assert zlib.decompressobj(-15, zdict=bytes(kept)).decompress(compressed)[1000:] == output[1000:]


def test_too_few_compressed_bytes_keep_the_whole_window() -> None:
    window = random.Random(8).randbytes(32_768)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=window)
    compressed = compressor.compress(window) + compressor.flush()
    for broken in (b"", compressed[:5], b"\xff" * 100):
        assert len(copied_places(broken, window, window, 0)) == 32_768
