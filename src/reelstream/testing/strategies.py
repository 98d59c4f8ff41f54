"""Hypothesis strategies of what Reelstream works on.

Archives and catalogs are kept small: packing and searching them is what tests spend their time on. Needs hypothesis
(`pip install 'reelstream[testing]'`).
"""

from __future__ import annotations

from typing import Any

from reelstream.testing.extra import require_testing_extra

require_testing_extra("hypothesis", "the strategies")

from hypothesis import strategies as st  # noqa: E402 - only once it is known to be there

from reelstream.cache.budget import BLOCK_BYTES, allocated_bytes  # noqa: E402
from reelstream.schedule import WindowLimits  # noqa: E402
from reelstream.testing.packing import media_bytes, pack_tar_gz  # noqa: E402
from reelstream.types import Archive, RepositoryFile, Span, SpanKind  # noqa: E402


@st.composite
def clip_files(
    draw: st.DrawFn, *, most_clips: int = 12, most_bytes: int = 120_000, prefix: str = "clips/"
) -> dict[str, bytes]:
    """Draw files like videos by name, of sizes from nothing up to `most_bytes`; a name may be long."""
    files = {}
    for number in range(draw(st.integers(0, most_clips))):
        size_bytes = draw(st.sampled_from([0, 1, 511, 512, 513, most_bytes // 10, most_bytes // 3, most_bytes]))
        folder = draw(st.sampled_from([prefix, prefix, prefix + "a_folder_with_a_long_name/" * 6]))
        files[f"{folder}{number}.mp4"] = media_bytes(number, size_bytes)
    return files


@st.composite
def tar_gz_archives(
    draw: st.DrawFn, *, most_clips: int = 12, most_bytes: int = 120_000
) -> tuple[bytes, dict[str, bytes]]:
    """Draw a tar.gz, and the files in it in their order, of which `clip_files` tells more."""
    files = draw(clip_files(most_clips=most_clips, most_bytes=most_bytes))
    return pack_tar_gz(files, level=draw(st.sampled_from([0, 1, 6, 9]))), files


@st.composite
def archives(draw: st.DrawFn, *, subset: str = "shorts", most_bytes: int = 1 << 33) -> Archive:
    """Draw what a Hub says of an archive."""
    name = f"{subset}/{subset}_videos_{draw(st.integers(1, 99))}.{draw(st.sampled_from(['tar.gz', 'tar', 'zip']))}"
    sha256 = draw(st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex))
    size_bytes = draw(st.integers(1, most_bytes))
    return Archive(subset=subset, file=RepositoryFile(path=name, size_bytes=size_bytes, sha256=sha256))


@st.composite
def spans(draw: st.DrawFn, archive: Archive | None = None) -> Span:
    """Draw a span of an archive, of any kind but a block, which needs an index."""
    archive = archive or draw(archives())
    if draw(st.booleans()):
        return Span(kind=SpanKind.ARCHIVE, archive=archive, first_byte=0, end_byte=archive.size_bytes)
    first_byte = draw(st.integers(0, archive.size_bytes - 1))
    end_byte = draw(st.integers(first_byte + 1, archive.size_bytes))
    return Span(kind=SpanKind.CUT, archive=archive, first_byte=first_byte, end_byte=end_byte)


@st.composite
def disk_budgets(draw: st.DrawFn, *, largest_clip_bytes: int, num_lanes: int) -> int:
    """Draw a clip budget in bytes that can work: from the smallest (one clip a lane, and two) up to four times it."""
    least_bytes = max(BLOCK_BYTES, allocated_bytes(largest_clip_bytes)) * (num_lanes + 2)
    return int(least_bytes * draw(st.sampled_from([1.0, 1.0, 1.3, 2.0, 4.0])))


@st.composite
def window_limits(draw: st.DrawFn, *, num_lanes: int | None = None) -> WindowLimits:
    """Draw how large windows may grow."""
    return WindowLimits.of(
        cache_size=draw(st.integers(1, 200)),
        num_lanes=num_lanes or draw(st.integers(1, 16)),
        clip_budget_bytes=draw(st.integers(1, 1 << 34)),
    )


def stops(num_samples: int, *, most: int = 4) -> st.SearchStrategy[list[int]]:
    """Draw after how many samples of a run to stop it, ascending: before the first and after the last, too."""
    return st.lists(st.integers(0, num_samples), min_size=1, max_size=most).map(sorted)


def ways_of_working() -> st.SearchStrategy[dict[str, Any]]:
    """Draw options of `StreamingVideoDataset` that must not change its order."""
    return st.fixed_dictionaries(
        {
            "connections": st.sampled_from([1, 2, 8]),
            "decode_threads": st.integers(1, 3),
            "decoded_memory": st.sampled_from([0, 1 << 16, 1 << 24]),
            "prefetch": st.booleans(),
        }
    )
