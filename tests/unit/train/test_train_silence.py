from __future__ import annotations

import threading

from reelstream.cancel import Cancellation
from reelstream.errors import RankLostError
from reelstream.ranks import RankPlace
from reelstream.ranks.threads import ranks_in_threads
from reelstream.train.silence import watched_for_silence

LOST = RankLostError("rank 1 of 2 has not been heard of for 40 s", "look at it")


class SilentPeer:
    """Two ranks, the other of which is silent from the third meeting on."""

    place = RankPlace(rank=0, world_size=2, local_rank=0, local_world_size=2)

    def __init__(self, on_lost: threading.Event | None = None) -> None:
        self.names: list[str] = []
        self.given: list[tuple[str, bytes]] = []
        self._on_lost = on_lost

    def exchange(self, name: str, value: bytes, cancellation: Cancellation) -> list[bytes]:
        self.names.append(name)
        if len(self.names) < 3:
            return [value, b""]
        if self._on_lost is not None:
            self._on_lost.set()
        raise LOST

    def give(self, name: str, value: bytes) -> None:
        self.given.append((name, value))

    def leave(self, reason: str) -> None:
        """Nobody listens."""


def test_a_process_that_is_held_while_another_rank_is_silent_is_ended() -> None:
    ended: list[RankLostError] = []
    over = threading.Event()

    def end(error: RankLostError) -> None:
        ended.append(error)
        over.set()

    ranks = SilentPeer()
    with watched_for_silence(ranks, heard=threading.Event(), end=end, meet_every_s=0.001, grace_s=0.001):
        # As in a collective call.
        assert over.wait(30)
    assert ended == [LOST]
    assert ranks.names == ["silence/1", "silence/2", "silence/3"]


def test_one_that_hears_of_it_by_itself_ends_by_itself() -> None:
    ended: list[RankLostError] = []
    heard = threading.Event()
    with watched_for_silence(SilentPeer(heard), heard=heard, end=ended.append, meet_every_s=0.001, grace_s=30):
        assert heard.wait(30)
    assert ended == []


def test_ranks_that_end_one_after_another_end_nobody() -> None:
    ended: list[RankLostError] = []
    first_has_ended = threading.Event()
    with ranks_in_threads(2) as (first, second):

        def run_second() -> None:
            second.exchange("hello", b"", Cancellation())
            with watched_for_silence(second, heard=threading.Event(), end=ended.append, meet_every_s=0.001, grace_s=0):
                assert first_has_ended.wait(30)

        thread = threading.Thread(target=run_second)
        thread.start()
        first.exchange("hello", b"", Cancellation())
        with watched_for_silence(first, heard=threading.Event(), end=ended.append, meet_every_s=0.001, grace_s=0):
            pass
        first.leave("it has ended")
        first_has_ended.set()
        thread.join()
    assert ended == []
