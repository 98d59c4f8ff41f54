"""Cuts and blocks at their edges: damage, archives in archives, links in circles, clips that stay or survive."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import itertools
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reelstream.archive import BytesSource
from reelstream.archive.cuts.cut import CutReader
from reelstream.cache import ClipCache, DiskBudget, KeptClips
from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import ArchiveError, BudgetTooSmallError
from reelstream.prefetch.lanes import streaming
from reelstream.prefetch.pipeline import EpochPipeline
from reelstream.prefetch.state import Mark
from reelstream.prefetch.windows import Window
from reelstream.telemetry import events
from reelstream.types import Archive, DecodedClip, FrameSampling, Span, SpanKind
from unit.prefetch.pipeline_kit import MadeArchive, MadeMember, MadeSource, running
from unit.prefetch.span_worlds_kit import ROW_LAG_BYTES, SpanWorld, Verified, media_archive

pytestmark = pytest.mark.timeout(60)

PATH = "aa/aa_videos_0.tar.gz"


def clips(first: int, number: int, size_bytes: int = 60_000) -> tuple[MadeMember, ...]:
    return tuple(MadeMember("clip", clip, size_bytes) for clip in range(first, first + number))


def world_of(kind: SpanKind, *members: MadeMember, lanes: int = 2, cache_size: int = 8, **more: object) -> SpanWorld:
    made = MadeArchive("aa", members)
    return SpanWorld([[made]], kind=kind, num_wanted_lanes=lanes, cache_size=cache_size, **more)  # type: ignore[arg-type]


def any_frames(path: Path, sampling: FrameSampling) -> DecodedClip:
    """Decode what may be damaged: the number alone."""
    data = path.read_bytes()
    return DecodedClip(
        frames=np.full((sampling.max_frames, 3, 2, 2), int(data[4:16]) % 256, np.uint8),
        timestamps=np.arange(sampling.max_frames, dtype=np.float64),
        frame_indices=np.arange(sampling.max_frames, dtype=np.int64),
        fps=1.0,
        duration=float(sampling.max_frames),
        truncated=False,
    )


class FlippingSource(MadeSource):
    """Flips a byte the first few times that it is read."""

    def __init__(self, data: dict[str, bytes], place: int, times: int) -> None:
        super().__init__(data)
        self._place, self._left = place, times
        self.num_flipped = 0

    def read(self, archive: Archive, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """As an `ArchiveSource`."""
        position = first_byte
        for chunk in super().read(archive, first_byte, end_byte, cancellation):
            offset = self._place - position
            position += len(chunk)
            if 0 <= offset < len(chunk) and self._left > 0:
                self._left -= 1
                self.num_flipped += 1
                yield chunk[:offset] + bytes([chunk[offset] ^ 16]) + chunk[offset + 1 :]
            else:
                yield chunk


# ---------------------------------------------------------------------- clips that are not what the index says


def place_inside(world: SpanWorld, name: str) -> int:
    """A compressed byte in the middle of a member."""
    index = world.index(world.archives[0])
    number = index.find(name)
    assert number is not None
    # From the end: a small member shares its point with those before it.
    return index.row(number).compressed_end - 30_000


def test_a_clip_that_was_damaged_on_the_way_once_is_asked_for_again_and_served(tmp_path: Path) -> None:
    world = world_of(SpanKind.BLOCK, *clips(0, 12))
    source = FlippingSource(world.data, place_inside(world, "source/5.mp4"), times=1)
    with running(world, tmp_path, source=source) as epoch:
        assert epoch.serve() == world.expected()[0]
        assert epoch.recorder.of(events.ClipQuarantined) == []
    assert source.num_flipped == 1


def test_a_clip_that_is_not_what_its_index_says_is_asked_for_twice_and_quarantined(tmp_path: Path) -> None:
    world = world_of(SpanKind.BLOCK, *clips(0, 12))
    source = FlippingSource(world.data, place_inside(world, "source/5.mp4"), times=1000)
    with running(world, tmp_path, source=source) as epoch:
        served = {world.catalog.clip_of(row) for _, row in epoch.serve()}
        books = epoch.pipeline.state_after(None).books
        (quarantined,) = epoch.recorder.of(events.ClipQuarantined)
    assert len(served) == 11
    assert quarantined.path == "source/5.mp4"
    assert "not those that" in quarantined.reason
    assert set(books.quarantined_clips) == {"aa/source/5.mp4"}
    assert books.quarantined == world.num_samples(5)
    assert books.delivered == world.num_samples(*(set(range(12)) - {5}))
    assert source.num_flipped >= 2


def test_a_damaged_stretch_costs_blocks_only_the_clips_in_it(tmp_path: Path) -> None:
    world = world_of(SpanKind.BLOCK, *clips(0, 12))
    first, end = place_inside(world, "source/3.mp4"), place_inside(world, "source/5.mp4")
    world.data[PATH] = world.data[PATH][:first] + bytes(end - first) + world.data[PATH][end:]
    with running(world, tmp_path) as epoch:
        epoch.serve()
        bad = {event.path for event in epoch.recorder.of(events.ClipQuarantined)}
        books = epoch.pipeline.state_after(None).books
    # What is reached only through the damage is lost with it.
    assert {f"source/{number}.mp4" for number in (3, 4, 5)} <= bad
    assert books.delivered + books.quarantined == world.num_samples(*range(12))
    assert books.quarantined == world.num_samples(*(int(Path(path).stem) for path in bad))


# ---------------------------------------------------------------------- archives that are not what was packed


@pytest.mark.parametrize("kind", [SpanKind.ARCHIVE, SpanKind.CUT])
def test_a_true_archive_is_found_true_whoever_read_its_pieces(tmp_path: Path, kind: SpanKind) -> None:
    world, learned = world_of(kind, *clips(0, 20), lanes=3), Verified()
    with running(world, tmp_path, learned=learned) as epoch:
        epoch.serve()
        assert epoch.recorder.of(events.ArchiveSuspect) == []
    assert learned.paths == [PATH]


@pytest.mark.parametrize("kind", [SpanKind.ARCHIVE, SpanKind.CUT])
def test_a_wrong_checksum_makes_all_clips_of_the_archive_suspect_by_name(tmp_path: Path, kind: SpanKind) -> None:
    world, learned = world_of(kind, *clips(0, 20), lanes=3), Verified()
    data = world.data[PATH]
    world.data[PATH] = data[:-8] + struct.pack("<I", 1) + data[-4:]
    with running(world, tmp_path, learned=learned) as epoch:
        assert epoch.serve() == world.expected()[0]
        (suspect,) = epoch.recorder.of(events.ArchiveSuspect)
    assert sorted(suspect.clips) == sorted(f"aa/source/{number}.mp4" for number in range(20))
    assert "checksum" in suspect.reason
    assert learned.paths == []


@pytest.mark.parametrize("kind", [SpanKind.ARCHIVE, SpanKind.CUT])
def test_a_flipped_bit_is_found_at_the_archives_end(tmp_path: Path, kind: SpanKind) -> None:
    world = world_of(kind, *clips(0, 20), lanes=3)
    source = FlippingSource(world.data, place_inside(world, "source/7.mp4"), times=1000)
    with running(world, tmp_path, source=source, decode=any_frames) as epoch:
        assert epoch.serve() == world.expected()[0]
        (suspect,) = epoch.recorder.of(events.ArchiveSuspect)
    assert "aa/source/7.mp4" in suspect.clips


def test_an_archive_that_is_not_the_published_one_is_suspect_though_its_own_checksum_is_right(tmp_path: Path) -> None:
    world, learned = world_of(SpanKind.ARCHIVE, *clips(0, 6)), Verified()
    (span,) = world.spans[0]
    file = dataclasses.replace(span.archive.file, sha256="0" * 64)
    world.spans[0][0] = dataclasses.replace(span, archive=dataclasses.replace(span.archive, file=file))
    with running(world, tmp_path, learned=learned) as epoch:
        epoch.serve()
        (suspect,) = epoch.recorder.of(events.ArchiveSuspect)
    assert "SHA-256" in suspect.reason
    assert len(suspect.clips) == 6
    assert learned.paths == []


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("cut_short", [True, False])
def test_cuts_of_a_damaged_archive_stop_the_epoch_or_give_what_is_whole(
    tmp_path: Path, stop: bool, cut_short: bool
) -> None:
    world = world_of(SpanKind.CUT, *clips(0, 30), lanes=3)
    data = world.data[PATH]
    first = len(data) * 55 // 100
    if cut_short:
        # As published: the size that the Hub names is that of the torn file.
        world = SpanWorld([[_Torn(MadeArchive("aa", clips(0, 30)), first)]], num_wanted_lanes=3)  # type: ignore[list-item]
    else:
        world.data[PATH] = data[:first] + b"\xff" * 100_000 + data[first + 100_000 :]
    with running(world, tmp_path, stop_on_bad_archive=stop, decode=any_frames) as epoch:
        if stop:
            with pytest.raises(ArchiveError, match="aa_videos_0"):
                epoch.serve()
            return
        served = {world.catalog.clip(world.catalog.clip_of(row)).path for _, row in epoch.serve()}
        books = epoch.pipeline.state_after(None).books
        suspects = epoch.recorder.of(events.ArchiveSuspect)
    assert suspects
    assert {f"source/{number}.mp4" for number in range(15)} <= served
    if not cut_short:
        # Cuts behind the damage are entered there.
        assert {f"source/{number}.mp4" for number in range(24, 30)} <= served
    assert books.delivered == world.num_samples(*(int(Path(path).stem) for path in served))


@dataclasses.dataclass(frozen=True)
class _Torn:
    """An archive that was published incomplete."""

    whole: MadeArchive
    size_bytes: int

    @property
    def subset(self) -> str:
        return self.whole.subset

    @property
    def members(self) -> tuple[MadeMember, ...]:
        return self.whole.members

    def packed(self) -> bytes:
        return self.whole.packed()[: self.size_bytes]


# ---------------------------------------------------------------------- an archive in the archive


@dataclasses.dataclass(frozen=True)
class _Nesting:
    """An archive of clips, one of whose members is a tar of other clips, of the same names as the catalog has."""

    before: tuple[MadeMember, ...]
    inner: tuple[MadeMember, ...]
    after: tuple[MadeMember, ...]
    subset: str = "aa"

    @property
    def members(self) -> tuple[MadeMember, ...]:
        return (*self.before, *self.after)

    def packed(self) -> bytes:
        inner = _tar([(member.name, member.content) for member in self.inner])
        outer = [(member.name, member.content) for member in self.before]
        outer += [("source/inner.tar", inner), *((member.name, member.content) for member in self.after)]
        return gzip.compress(_tar(outer), compresslevel=1, mtime=0)


def _tar(contents: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in contents:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_clips_of_a_cut_that_was_entered_inside_an_inner_archive_are_suspect_by_name(tmp_path: Path) -> None:
    nesting = _Nesting(clips(0, 8), clips(20, 15), clips(8, 8))
    world, learned = SpanWorld([[nesting]], num_wanted_lanes=2, cut_bytes=250_000), Verified()  # type: ignore[list-item]
    with running(world, tmp_path, learned=learned) as epoch:
        served = {world.catalog.clip_of(row) for _, row in epoch.serve()}
        suspects = epoch.recorder.of(events.ArchiveSuspect)
    outer = {world.catalog.find("aa", f"source/{number}.mp4") for number in range(16)}
    inner = {world.catalog.find("aa", f"source/{number}.mp4") for number in range(20, 35)}
    assert outer <= served
    named = {name for event in suspects for name in event.clips}
    delivered_astray = {f"aa/{world.catalog.clip(clip).path}" for clip in served & inner if clip is not None}
    assert delivered_astray <= named
    assert learned.paths == [PATH]


# ---------------------------------------------------------------------- links


@pytest.mark.parametrize("kind", list(SpanKind))
def test_links_in_circles_are_losses_and_end(tmp_path: Path, kind: SpanKind) -> None:
    circle = [MadeMember("link", 20, 0, 21), MadeMember("link", 21, 0, 20), MadeMember("link", 22, 0, 22)]
    world = world_of(kind, *clips(0, 4), *circle, MadeMember("link", 23, 0, 22), MadeMember("link", 24, 0, 20))
    with running(world, tmp_path) as epoch:
        assert epoch.serve() == world.expected()[0]
        lost = set(epoch.pipeline.state_after(None).books.quarantined_clips)
    # No block has a member that nobody holds.
    assert len(lost) == (0 if kind is SpanKind.BLOCK else 5)


@pytest.mark.parametrize("kind", list(SpanKind))
def test_a_link_has_the_bytes_of_the_last_member_of_that_name_before_it(tmp_path: Path, kind: SpanKind) -> None:
    members = (
        *(MadeMember("clip", 0, 20_000), MadeMember("link", 1, 0, 0), MadeMember("undecodable", 0, 30_000)),
        *(MadeMember("link", 2, 0, 0), MadeMember("link", 3, 0, 1), *clips(10, 3, 20_000)),
    )
    world = world_of(kind, *members, lanes=1)
    with running(world, tmp_path) as epoch:
        assert epoch.serve() == world.expected()[0]
        lost = set(epoch.pipeline.state_after(None).books.quarantined_clips)
    assert lost == {"aa/source/2.mp4"}


# ---------------------------------------------------------------------- where reading can go on


@pytest.mark.parametrize("cache_size", [2, 3, 4, 5])
def test_the_marks_of_a_closed_window_are_places_in_its_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_size: int
) -> None:
    # Cuts in the order they lie, so that one reader goes through all of them, and windows that reach over several.
    world = world_of(SpanKind.CUT, *clips(0, 20), lanes=1, cut_bytes=130_000, cache_size=cache_size, budget_factor=8)
    world.spans[0].sort(key=lambda span: span.first_byte)
    windows: list[Window] = []
    close = EpochPipeline.close_window

    def note_and_close(pipeline: EpochPipeline, lane: int, window: Window) -> None:
        # As a consumer finds it that uses the window up at once.
        windows.append(dataclasses.replace(window))
        close(pipeline, lane, window)

    monkeypatch.setattr(EpochPipeline, "close_window", note_and_close)
    with running(world, tmp_path) as epoch:
        assert epoch.serve() == world.expected()[0]
    marks = {(window.span, window.mark): window.member for window in windows if window.mark is not None}
    marks |= {(window.end_span, window.end_mark): window.end_member for window in windows if window.end_mark}
    assert len(marks) > 3
    for (ordinal, mark), member in marks.items():
        assert mark.clips <= member
        assert met_from(world, world.spans[0][ordinal], mark) == [
            clip.path for clip in world.clips_in(world.spans[0][ordinal])[mark.clips :]
        ]


@pytest.mark.parametrize("cut_bytes", [130_000, 400_000, 10_000_000])
def test_where_keeping_what_is_learned_takes_long_marks_lie_further_back_and_not_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_bytes: int
) -> None:
    world = world_of(SpanKind.CUT, *clips(0, 40), lanes=1, cut_bytes=cut_bytes, cache_size=2)
    world.spans[0].sort(key=lambda span: span.first_byte)
    # A second at each look: what is kept takes far more than its share of the time.
    clock = itertools.count()
    monkeypatch.setattr(streaming, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with running(world, tmp_path) as epoch:
        while (ready := epoch.pipeline.next_sample()) is not None:
            (lane,) = epoch.pipeline.state_after(ready.served.position).lanes
            if lane.span < len(world.spans[0]):
                lag_clips = 2 + -(-ROW_LAG_BYTES // 60_000)
                assert (lane.mark.clips if lane.mark else 0) >= 0.75 * lane.member - lag_clips


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("cache_size", [1, 6])
def test_a_state_knows_a_place_not_far_before_each_lanes_window(
    tmp_path: Path, prefetch: bool, cache_size: int
) -> None:
    world = world_of(SpanKind.ARCHIVE, *clips(0, 40), cache_size=cache_size)
    # The clip itself, and those within which its row becomes known.
    most_clips = 1 + -(-ROW_LAG_BYTES // 60_000)
    with running(world, tmp_path, prefetch=prefetch) as epoch:
        while (ready := epoch.pipeline.next_sample()) is not None:
            (lane,) = epoch.pipeline.state_after(ready.served.position).lanes
            if not lane.span:
                assert lane.member - (lane.mark.clips if lane.mark else 0) <= most_clips


def met_from(world: SpanWorld, span: Span, mark: Mark) -> list[str]:
    """The clips of a span that a reader meets which goes on at a mark."""
    later = world.plan.later_cuts(span)
    with CutReader(BytesSource(world.data[PATH]), span.first_byte, later, resume=mark.bookmark) as reader:
        return [member.name for member in reader.members()]


# ---------------------------------------------------------------------- clips that stay


def epochs_over(world: SpanWorld, folder: Path, *, budget_bytes: int, kept_bytes: int, epochs: int = 2) -> list[int]:
    """Serve epochs over the same kept clips; return the bytes that each has fetched."""
    budget = DiskBudget(budget_bytes)
    cache, kept, fetched = ClipCache(folder, budget.account("clips")), KeptClips(kept_bytes), []
    expected = world.expected()[0]
    for _ in range(epochs):
        source = MadeSource(world.data)
        state = world.start()
        with running(
            world, folder, state=state, budget_bytes=budget_bytes, budget=budget, cache=cache, kept=kept, source=source
        ) as epoch:
            assert epoch.serve() == expected
        fetched.append(sum(source.fetched.values()))
    return fetched


LARGE = tuple(MadeMember("clip", number, 300_000) for number in range(20))


def test_where_all_clips_are_kept_the_next_epoch_fetches_nothing(tmp_path: Path) -> None:
    world = world_of(SpanKind.BLOCK, *LARGE, lanes=2, budget_factor=8)
    total_bytes = 20 * 303_104
    first, second = epochs_over(world, tmp_path, budget_bytes=world.budget_bytes, kept_bytes=total_bytes)
    assert first >= 20 * 300_000
    assert second == 0


def test_where_a_quarter_is_kept_the_next_epoch_fetches_three_quarters(tmp_path: Path) -> None:
    world = world_of(SpanKind.BLOCK, *LARGE, lanes=2, cache_size=4, budget_factor=4)
    quarter_bytes = 5 * 303_104
    first, second, third = epochs_over(
        world, tmp_path, budget_bytes=world.budget_bytes, kept_bytes=quarter_bytes, epochs=3
    )
    assert 0.70 <= second / first <= 0.78
    # A source counts whole pieces, though a reader may need only a part of the last.
    assert third == pytest.approx(second, rel=0.05)


def test_a_kept_clip_too_large_for_an_epoch_of_more_lanes_is_refused_by_name(tmp_path: Path) -> None:
    few = world_of(SpanKind.BLOCK, *LARGE[:6], lanes=1, budget_factor=2)
    many = world_of(SpanKind.BLOCK, *LARGE[:6], lanes=6)
    budget = DiskBudget(few.budget_bytes)
    cache, kept = ClipCache(tmp_path, budget.account("clips")), KeptClips(few.budget_bytes // 2)
    for world in (few, many):
        shared = {"budget_bytes": few.budget_bytes, "budget": budget, "cache": cache, "kept": kept}
        state = world.start(few.budget_bytes)
        with running(world, tmp_path, state=state, **shared) as epoch:  # type: ignore[arg-type]
            if world is few:
                epoch.serve()
                assert len(kept)
                continue
            with pytest.raises(BudgetTooSmallError, match="with 6 lanes"):
                epoch.serve()


def test_clips_of_blocks_are_used_where_they_lie_while_others_of_their_window_come(tmp_path: Path) -> None:
    world = world_of(SpanKind.BLOCK, *LARGE, lanes=4, cache_size=20, budget_factor=1.5)
    budget = DiskBudget(world.budget_bytes)
    cache, kept = ClipCache(tmp_path, budget.account("clips")), KeptClips(world.budget_bytes // 3)
    for connections in (8, 1, 2):
        with running(
            world,
            tmp_path,
            budget=budget,
            cache=cache,
            kept=kept,
            connections=connections,
            prefetch=connections != 1,
        ) as epoch:
            assert epoch.serve() == world.expected()[0]


def test_a_clip_kept_from_a_damaged_first_pass_is_not_used_where_its_row_tells_another_digest(tmp_path: Path) -> None:
    first = world_of(SpanKind.ARCHIVE, *clips(0, 8), budget_factor=8)
    later = world_of(SpanKind.BLOCK, *clips(0, 8), budget_factor=8)
    budget = DiskBudget(first.budget_bytes)
    cache, kept = ClipCache(tmp_path, budget.account("clips")), KeptClips(first.budget_bytes)
    shared = {"budget_bytes": first.budget_bytes, "budget": budget, "cache": cache, "kept": kept}
    damaged = FlippingSource(first.data, place_inside(first, "source/5.mp4"), times=1000)
    with running(first, tmp_path, source=damaged, decode=any_frames, **shared) as epoch:  # type: ignore[arg-type]
        epoch.serve()
        assert len(epoch.recorder.of(events.ArchiveSuspect)) == 1
    assert len(kept) == 8
    state = later.start(first.budget_bytes)
    # The decoder of made clips refuses damaged ones.
    with running(later, tmp_path, state=state, **shared) as epoch:  # type: ignore[arg-type]
        assert epoch.serve() == later.expected()[0]
        assert len(epoch.recorder.of(events.ClipReused)) == 7
        assert len(epoch.recorder.of(events.ClipArrived)) == 1


# ---------------------------------------------------------------------- called off


@pytest.mark.parametrize("kind", list(SpanKind))
@pytest.mark.parametrize("chunks", [0, 3, 9, 30])
def test_called_off_in_the_middle_of_a_read_nothing_is_left(tmp_path: Path, kind: SpanKind, chunks: int) -> None:
    world = world_of(kind, *media_archive(3).members, lanes=3)
    left, reached = [chunks], threading.Event()

    def look(path: str, cancellation: Cancellation) -> None:
        left[0] -= 1
        if left[0] < 0:
            reached.set()
            wait_for(cancellation)

    with running(world, tmp_path, source=MadeSource(world.data, 0, look)) as epoch:
        thread = threading.Thread(target=lambda: _quietly(epoch.serve))
        thread.start()
        assert reached.wait(30)
        epoch.pipeline.close()
        thread.join()


def wait_for(cancellation: Cancellation) -> None:
    """Wait until it is called off."""
    called_off = threading.Event()
    with cancellation.on_cancel(called_off.set):
        called_off.wait(30)
    cancellation.raise_if_cancelled()


def _quietly(work: Callable[[], object]) -> None:
    with contextlib.suppress(Cancelled):
        work()
