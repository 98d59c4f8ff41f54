from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelstream.cancel import Cancellation
from reelstream.errors import NetworkError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import CheckpointPushed, Event, Notice, PushFailed
from reelstream.train.checkpoints import CheckpointStore
from reelstream.train.remote.options import RemoteOptions
from reelstream.train.remote.pushing import Pusher
from reelstream.train.remote.remote import Bundle
from remote_kit import contents_of

_PATIENCE_S = 60


class GatedRemote:
    """A place whose pushes go through one by one, when a test says so."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.done: list[int] = []
        self.failures_left = 0
        self._arrived = threading.Semaphore(0)
        self._let = threading.Semaphore(0)

    def __str__(self) -> str:
        return "the place"

    def push(self, bundle: Bundle, *, keep: int, cancellation: Cancellation) -> None:
        self.begun.append(bundle.step)
        self._arrived.release()
        with cancellation.on_cancel(self._let.release):
            self._let.acquire()
        cancellation.raise_if_cancelled()
        if self.failures_left:
            self.failures_left -= 1
            raise NetworkError("the way there is broken")
        # What is held must be whole to the end.
        assert (bundle.checkpoint / "manifest.json").is_file()
        self.done.append(bundle.step)

    def await_push(self) -> None:
        assert self._arrived.acquire(timeout=_PATIENCE_S), "no push came"

    def let(self, number: int = 1) -> None:
        for _ in range(number):
            self._let.release()


class ImpatientClock:
    """The machine's time, but a wait for a retry or a rhythm is over at once."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic(self) -> float:
        return self._now_s

    def wall(self) -> float:
        return self._now_s

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if seconds >= 3600:
            return event.wait(_PATIENCE_S)
        self._now_s += seconds
        return event.wait(0.01)


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self._come = threading.Condition()

    def receive(self, wall_s: float, event: Event) -> None:
        with self._come:
            self.events.append(event)
            self._come.notify_all()

    def await_one(self, kind: type[Event], number: int = 1) -> None:
        with self._come:
            assert self._come.wait_for(lambda: len(self.of(kind)) >= number, _PATIENCE_S), f"no {kind.__name__} came"

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


class Parts:
    def __init__(self, folder: Path, **options: float) -> None:
        self.remote = GatedRemote()
        self.heard = Heard()
        self.store = CheckpointStore(folder / "checkpoints", keep=2, on_saved=lambda saved: self.pusher.offer(saved))  # noqa: PLW0108 - made below
        self.store.open()
        self.pusher = Pusher(
            self.remote,  # type: ignore[arg-type]
            self.store,
            run_folder=folder,
            options=RemoteOptions(**options),  # type: ignore[arg-type]
            telemetry=Telemetry(self.heard),
            clock=ImpatientClock(),
        )

    def save(self, step: int) -> None:
        self.store.save(contents_of(step))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(tmp_path)
    with parts.pusher:
        yield parts
    assert all(thread.name != "reelstream-push" for thread in threading.enumerate())


def test_saving_never_waits_for_a_push_and_the_newest_takes_the_place_of_one_that_waits(parts: Parts) -> None:
    parts.save(1)
    parts.remote.await_push()
    for step in (2, 3, 4):
        parts.save(step)
    # The one on its way is kept, and counts among those to keep.
    assert parts.store.steps == [1, 4]
    parts.remote.let()
    parts.remote.await_push()
    parts.remote.let()
    assert parts.pusher.finish(_PATIENCE_S)
    assert parts.remote.done == [1, 4]
    assert parts.pusher.report["newest_step"] == 4


def test_failures_are_told_once_and_tried_again_until_it_works(parts: Parts) -> None:
    parts.remote.failures_left = 3
    parts.remote.let(4)
    parts.save(1)
    parts.heard.await_one(CheckpointPushed)
    assert len(parts.heard.of(PushFailed)) == 3
    assert parts.pusher.finish(_PATIENCE_S)
    sentences = [event.message for event in parts.heard.of(Notice) if isinstance(event, Notice)]
    assert len(sentences) == 2
    assert "the way there is broken" in sentences[0]
    assert "is in the place" in sentences[1]


def test_the_end_of_a_run_waits_for_the_last_push_only_so_long(parts: Parts) -> None:
    parts.save(1)
    parts.remote.await_push()
    assert not parts.pusher.finish(30.0)
    sentences = [event.message for event in parts.heard.of(Notice) if isinstance(event, Notice)]
    assert "waiting for the checkpoint of step 1" in sentences[0]
    assert "is not in the place" in sentences[-1]


def test_leaving_calls_off_what_is_on_its_way(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    with parts.pusher:
        parts.save(1)
        parts.remote.await_push()
    assert parts.remote.done == []
    assert parts.heard.of(PushFailed) == []


def test_a_rhythm_spares_pushes_but_never_the_last_one(tmp_path: Path) -> None:
    parts = Parts(tmp_path, every_checkpoints=100)
    parts.remote.let(10)
    with parts.pusher:
        for step in (1, 2, 3):
            parts.save(step)
        assert parts.pusher.finish(_PATIENCE_S)
    assert parts.remote.done == [3]


def test_with_nothing_saved_there_is_nothing_to_wait_for(parts: Parts) -> None:
    assert parts.pusher.finish(_PATIENCE_S)


def test_what_a_run_goes_on_from_is_pushed_unless_it_is_there(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.remote.let(10)
    with parts.pusher:
        parts.save(7)
        parts.heard.await_one(CheckpointPushed)
        parts.pusher.offer_step(7)
        assert parts.pusher.finish(_PATIENCE_S)
    assert parts.remote.done == [7]
