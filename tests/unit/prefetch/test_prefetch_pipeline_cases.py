"""An epoch's pipeline at its edges: what waits, what fails, what is called off."""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import (
    ArchiveError,
    BudgetTooSmallError,
    DecodeError,
    DiskError,
    NetworkError,
    TooManyBadClipsError,
)
from reelstream.prefetch.pipeline import EpochPipeline
from reelstream.telemetry import events
from reelstream.types import DecodedClip, FrameSampling
from unit.prefetch.pipeline_kit import (
    CLIP_FRAMES_BYTES,
    MadeArchive,
    MadeMember,
    MadeSource,
    World,
    decode_made,
    running,
)

pytestmark = pytest.mark.timeout(60)


def clips(first: int, number: int, size_bytes: int = 100) -> tuple[MadeMember, ...]:
    return tuple(MadeMember("clip", clip, size_bytes) for clip in range(first, first + number))


def archive(first: int, number: int, size_bytes: int = 100) -> MadeArchive:
    return MadeArchive("aa", clips(first, number, size_bytes))


# ---------------------------------------------------------------------- who waits for whom


def test_a_lane_that_waits_for_room_keeps_no_other_from_reading(tmp_path: Path) -> None:
    # The first range of each lane brings many more clips than there is room for, and there is one connection.
    world = World([[archive(0, 20)], [archive(20, 20)]], cache_size=2)
    with running(world, tmp_path, connections=1) as epoch:
        assert epoch.serve() == world.expected()[0]


def test_a_lane_that_has_met_its_quota_keeps_no_other_from_reading(tmp_path: Path) -> None:
    world = World([[archive(0, 9)], [archive(10, 9)], [archive(20, 2)]], limit=12)
    with running(world, tmp_path, connections=1) as epoch:
        assert epoch.serve() == world.expected()[0]


def test_no_more_ranges_are_open_than_there_are_connections(tmp_path: Path) -> None:
    num_open: list[int] = []
    pipelines: list[EpochPipeline] = []

    def look(path: str, cancellation: Cancellation) -> None:
        num_open.extend(pipeline.gauges().ranges_open for pipeline in pipelines)

    world = World([[archive(5 * lane, 5, 20_000)] for lane in range(6)], budget_factor=4)
    with running(world, tmp_path, connections=2, source=MadeSource(world.data, 0, look)) as epoch:
        pipelines.append(epoch.pipeline)
        epoch.serve()
    assert max(num_open) <= 2


def test_room_that_something_else_has_taken_is_an_error_and_no_endless_wait(tmp_path: Path) -> None:
    world = World([[archive(0, 3)]])
    with running(world, tmp_path) as epoch:
        epoch.serve(1)
    with (
        running(world, tmp_path, source=_Stalling(world, stall_at=0)) as epoch,
        pytest.raises(BudgetTooSmallError, match="no longer free"),
    ):
        epoch.budget.account("others").reserve(epoch.budget.free_bytes)
        epoch.source.go_on()  # type: ignore[attr-defined]
        epoch.serve()


def test_a_clip_is_decoded_once_for_all_its_samples_where_memory_allows(tmp_path: Path) -> None:
    world = World([[archive(0, 12)], [archive(12, 12)]], cache_size=24, budget_factor=12)
    with running(world, tmp_path) as epoch:
        epoch.serve()
        assert len(epoch.recorder.of(events.ClipDecoded)) == 24
    with running(world, tmp_path, decoded_memory_bytes=2 * CLIP_FRAMES_BYTES) as epoch:
        assert epoch.serve() == world.expected()[0]
        assert any(event.again for event in epoch.recorder.of(events.ClipDecoded))


def test_clips_are_deleted_after_their_last_sample(tmp_path: Path) -> None:
    world = World([[archive(0, 6)]], cache_size=6, budget_factor=3)
    with running(world, tmp_path) as epoch:
        rows = [row for _, row in world.expected()[0]]
        last = {world.catalog.clip_of(row): place for place, row in enumerate(rows)}
        for place in range(len(rows)):
            epoch.serve(1)
            gone = {event.path for event in epoch.recorder.of(events.ClipDeleted)}
            assert gone == {world.catalog.clip(clip).path for clip, end in last.items() if end <= place}
        gauges = epoch.pipeline.gauges()
        assert (gauges.clips_on_disk, gauges.clips_bytes, gauges.decoded_bytes, gauges.samples_ready) == (0, 0, 0, 0)


def test_clips_can_be_had_again_until_their_window_ends_where_that_is_asked_for(tmp_path: Path) -> None:
    world = World([[archive(0, 6)]], cache_size=6, budget_factor=3)
    with running(world, tmp_path, keep_until_window_end=True) as epoch:
        served = [epoch.pipeline.next_sample() for _ in world.expected()[0]]
        by_window: dict[int, Any] = {ready.served.clip.window: ready.served.clip for ready in served if ready}
        assert len(by_window) > 1
        # All are used up now.
        assert all(epoch.pipeline.frames_again(clip) is None for clip in by_window.values())
    with running(world, tmp_path, keep_until_window_end=True, decoded_memory_bytes=0) as epoch:
        for _ in range(3):
            ready = epoch.pipeline.next_sample()
            assert ready is not None
        while ready is not None and not ready.served.last_use:
            ready = epoch.pipeline.next_sample()
        assert ready is not None
        again = epoch.pipeline.frames_again(ready.served.clip)
        assert again is None or (again.decoded is not None and (again.decoded.frames == ready.decoded.frames).all())


# ---------------------------------------------------------------------- what fails


def test_a_lanes_failure_is_raised_when_its_turn_comes_and_not_before(tmp_path: Path) -> None:
    world = World([[archive(0, 4), archive(4, 4)], [archive(20, 20)]], cache_size=2)

    def fail_in_the_second(path: str, cancellation: Cancellation) -> None:
        if path.endswith("videos_1.tar.gz"):
            raise NetworkError("no answer", "try later")

    expected = world.expected()[0]
    samples_before = world.num_samples(*range(4))
    turns = [place for place, (position, _) in enumerate(expected) if position.lane == 0]
    with running(world, tmp_path, source=MadeSource(world.data, 0, fail_in_the_second)) as epoch:
        with pytest.raises(NetworkError, match="no answer"):
            epoch.serve()
        assert epoch.order == expected[: len(epoch.order)]
        # The window that was forming when it failed is lost; all before it are served.
        assert len(epoch.order) in {turns[place] for place in range(1, samples_before + 1)}


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError("no memory"), ArchiveError("torn", "tell them")])
def test_whatever_a_source_raises_reaches_the_consumer(tmp_path: Path, error: Exception) -> None:
    world = World([[archive(0, 4)], [archive(4, 4)]])

    def fail(path: str, cancellation: Cancellation) -> None:
        raise error

    with (
        running(world, tmp_path, source=MadeSource(world.data, 0, fail)) as epoch,
        pytest.raises(type(error), match=str(error.args[0])),
    ):
        epoch.serve()


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError("no memory"), DiskError("gone")])
def test_whatever_a_decoder_raises_reaches_the_consumer(tmp_path: Path, error: Exception) -> None:
    def decode(path: Path, sampling: FrameSampling) -> DecodedClip:
        raise error

    world = World([[archive(0, 4)], [archive(4, 4)]])
    with running(world, tmp_path, decode=decode) as epoch, pytest.raises(type(error), match=str(error.args[0])):
        epoch.serve()


@pytest.mark.parametrize("kind", [events.ClipDecoded, events.ClipDeleted, events.ClipArrived, events.ClipQuarantined])
def test_a_listener_that_fails_ends_the_epoch_and_does_not_hang_it(tmp_path: Path, kind: type[events.Event]) -> None:
    class Failing:
        def receive(self, wall_s: float, event: events.Event) -> None:
            if isinstance(event, kind):
                raise RuntimeError("listener")

    members = (*clips(0, 4), MadeMember("undecodable", 4), *clips(5, 4))
    world = World([[MadeArchive("aa", members)], [archive(20, 8)]])
    with running(world, tmp_path, sinks=[Failing()]) as epoch, pytest.raises(RuntimeError, match="listener"):
        epoch.serve()


def test_an_archive_that_is_cut_short_stops_the_epoch_and_says_what_can_be_done(tmp_path: Path) -> None:
    world = World([[archive(0, 6, 5_000)], [archive(10, 6)]])
    data = world.data["aa/aa_videos_0.tar.gz"]
    world.data["aa/aa_videos_0.tar.gz"] = data[:15_000] + bytes(len(data) - 15_000)
    with running(world, tmp_path) as epoch, pytest.raises(ArchiveError, match="on_bad_archive") as caught:
        epoch.serve()
    assert "aa_videos_0" in caught.value.fact


def test_with_skip_the_rest_of_a_cut_archive_is_left_out_and_the_epoch_goes_on(tmp_path: Path) -> None:
    cut, rest = archive(0, 6, 5_000), archive(20, 6)
    world = World([[cut, rest], [archive(10, 6)]])
    path = "aa/aa_videos_0.tar.gz"
    world.data[path] = world.data[path][:17_000]
    world.spans[0][0] = _shorter(world, path)
    with running(world, tmp_path, stop_on_bad_archive=False) as epoch:
        epoch.serve()
        books = epoch.pipeline.state_after(None).books
        (quarantined,) = epoch.recorder.of(events.ClipQuarantined)
        (suspect,) = epoch.recorder.of(events.ArchiveSuspect)
        spans = epoch.recorder.of(events.SpanFinished)
    assert "cut short" in quarantined.reason
    assert suspect.path == path
    # The first whole clips, the torn one, and nothing of what lay behind it.
    num_met = next(event.num_clips for event in spans if event.path == path)
    assert 1 < num_met < 6
    assert books.quarantined == world.num_samples(num_met - 1)
    assert books.delivered == world.num_samples(*range(num_met - 1), *range(10, 16), *range(20, 26))


def test_a_wrong_checksum_is_told_and_does_not_stop_the_epoch(tmp_path: Path) -> None:
    world = World([[archive(0, 4, 400_000), archive(10, 2)]], budget_factor=2)
    path = "aa/aa_videos_0.tar.gz"
    data = world.data[path]
    world.data[path] = data[:-8] + struct.pack("<I", 1) + data[-4:]
    with running(world, tmp_path) as epoch:
        served = {world.catalog.clip_of(row) for _, row in epoch.serve()}
        assert {world.catalog.find("aa", f"source/{number}.mp4") for number in (0, 1, 2, 10, 11)} <= served
        assert [event.path for event in epoch.recorder.of(events.ArchiveSuspect)] == [path]


def test_a_clip_too_large_met_late_names_a_budget_that_works_and_it_does(tmp_path: Path) -> None:
    world = World([[archive(0, 6, 9_000)], [MadeArchive("aa", (*clips(10, 5, 9_000), *clips(15, 1, 1_500_000)))]])
    small = 2_000_000
    state = world.start(small)
    with running(world, tmp_path, state=state, budget_bytes=small) as epoch:
        with pytest.raises(BudgetTooSmallError) as caught:
            epoch.serve()
        assert epoch.order
    assert "source/15.mp4" in caught.value.fact
    named = re.search(r"disk_budget to (\d+)MB", caught.value.hint)
    assert named is not None
    enough = int(named.group(1)) * 10**6
    assert enough - 10**6 < world.smallest_budget_bytes <= enough
    # The very run goes on with it.
    with running(world, tmp_path, state=state, budget_bytes=enough) as epoch:
        assert len(epoch.serve()) == world.num_samples(*range(6), *range(10, 16))


def test_too_many_bad_clips_stop_the_epoch_with_their_list(tmp_path: Path) -> None:
    bad = tuple(MadeMember("undecodable", clip) for clip in range(4))
    world = World([[MadeArchive("aa", (*clips(10, 4), *bad))]])
    with running(world, tmp_path, max_bad_share=0.03) as epoch, pytest.raises(TooManyBadClipsError) as caught:
        epoch.serve()
    assert caught.value.fact.count("made to be bad") == 4
    with running(world, tmp_path, max_bad_share=0.04) as epoch:
        epoch.serve()


def test_frames_that_end_too_early_are_a_bad_clip(tmp_path: Path) -> None:
    def decode(path: Path, sampling: FrameSampling) -> DecodedClip:
        decoded = decode_made(path, sampling)
        if decoded.frames.flat[0] == 2:
            return DecodedClip(**{name: getattr(decoded, name) for name in _FIELDS}, truncated=True)
        return decoded

    world = World([[archive(0, 4)]])
    with running(world, tmp_path, decode=decode) as epoch:
        epoch.serve()
        assert list(epoch.pipeline.state_after(None).books.quarantined_clips) == ["aa/source/2.mp4"]


_FIELDS = ("frames", "timestamps", "frame_indices", "fps", "duration")


def test_an_epoch_without_a_usable_clip_is_over_at_once(tmp_path: Path) -> None:
    bad = tuple(MadeMember("undecodable", clip) for clip in range(5))
    world = World([[MadeArchive("aa", bad)], [MadeArchive("bb", ())], []])
    with running(world, tmp_path) as epoch:
        assert epoch.serve() == []
        assert epoch.pipeline.state_after(None).books.quarantined == world.num_samples(*range(5))


# ---------------------------------------------------------------------- what is called off


class _Stalling(MadeSource):
    """Waits before its n-th piece until it is called off, or told to go on."""

    def __init__(self, world: World, *, stall_at: int) -> None:
        super().__init__(world.data, 0, self._stall)
        self.stalled = threading.Event()
        self._left = stall_at
        self._go = threading.Event()

    def go_on(self) -> None:
        self._go.set()

    def _stall(self, path: str, cancellation: Cancellation) -> None:
        self._left -= 1
        if self._left < 0:
            self.stalled.set()
            with cancellation.on_cancel(self._go.set):
                self._go.wait()


def _in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[BaseException]]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


@pytest.mark.parametrize("stall_at", [0, 1, 5])
def test_closing_from_another_thread_wakes_a_consumer_that_waits_for_the_network(tmp_path: Path, stall_at: int) -> None:
    world = World([[archive(0, 6, 9_000)], [archive(10, 6, 9_000)]])
    source = _Stalling(world, stall_at=stall_at)
    with running(world, tmp_path, source=source) as epoch:
        thread, raised = _in_thread(epoch.serve)
        source.stalled.wait()
        epoch.pipeline.close()
        thread.join()
    assert [type(error) for error in raised] == [Cancelled]


@pytest.mark.parametrize("decode_threads", [1, 3])
def test_closing_while_clips_are_decoded_ends_their_leases(tmp_path: Path, decode_threads: int) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def decode(path: Path, sampling: FrameSampling) -> DecodedClip:
        begun.release()
        go_on.wait()
        return decode_made(path, sampling)

    world = World([[archive(0, 9)], [archive(10, 9)]], cache_size=18)
    with running(world, tmp_path, decode=decode, decode_threads=decode_threads) as epoch:
        thread, raised = _in_thread(epoch.serve)
        begun.acquire()
        closing, _ = _in_thread(epoch.pipeline.close)
        thread.join()
        go_on.set()
        closing.join()
    assert [type(error) for error in raised] == [Cancelled]


def test_nothing_is_served_once_it_is_called_off_though_it_lies_ready(tmp_path: Path) -> None:
    world = World([[archive(0, 9)]], cache_size=9)
    with running(world, tmp_path) as epoch:
        epoch.serve(1)
        epoch.pipeline.cancel()
        with pytest.raises(Cancelled):
            epoch.pipeline.next_sample()


def test_closing_twice_at_once_is_fine(tmp_path: Path) -> None:
    world = World([[archive(0, 9)]])
    with running(world, tmp_path) as epoch:
        epoch.serve(2)
        threads = [_in_thread(epoch.pipeline.close)[0] for _ in range(3)]
        for thread in threads:
            thread.join()


def test_the_state_can_be_had_after_closing(tmp_path: Path) -> None:
    world = World([[archive(0, 9)]])
    with running(world, tmp_path) as epoch:
        served = epoch.serve(5)
        epoch.pipeline.close()
        assert epoch.pipeline.state_after(served[2][0]).num_consumed == 3
        assert epoch.pipeline.state_after(None).num_consumed == 5


def test_where_no_thread_can_be_started_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([[archive(lane, 1)] for lane in range(4)])
    start = threading.Thread.start

    def start_three(thread: threading.Thread) -> None:
        if thread.name == "reelstream-lane-3":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_three)
    with pytest.raises(RuntimeError, match="new thread"), running(world, tmp_path):
        pass


def test_a_decoder_that_finds_bad_clips_while_others_wait_for_room_frees_it(tmp_path: Path) -> None:
    members = tuple(MadeMember("undecodable" if clip % 2 else "clip", clip, 4_000) for clip in range(30))
    world = World([[MadeArchive("aa", members)]], cache_size=3)
    with running(world, tmp_path, connections=1) as epoch:
        assert epoch.serve() == world.expected()[0]


def test_the_reason_for_a_bad_clip_is_the_decoders(tmp_path: Path) -> None:
    def decode(path: Path, sampling: FrameSampling) -> DecodedClip:
        raise DecodeError("empty: zero bytes")

    world = World([[archive(0, 1)]])
    with running(world, tmp_path, decode=decode) as epoch:
        epoch.serve()
        (event,) = epoch.recorder.of(events.ClipQuarantined)
    assert (event.path, event.reason) == ("source/0.mp4", "empty: zero bytes")


def _shorter(world: World, path: str) -> Any:
    """The span of an archive whose data was cut."""
    from reelstream.schedule import archive_spans
    from reelstream.types import Archive, RepositoryFile

    file = RepositoryFile(path=path, size_bytes=len(world.data[path]), sha256=None)
    return archive_spans([Archive(subset="aa", file=file)])[0]
