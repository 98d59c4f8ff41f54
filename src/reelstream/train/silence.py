"""Ranks that fall silent while others are held in a collective call, where nothing else can find out for half an hour.

A rank whose process dies closes its connections, and torch raises at once. One whose machine is gone, or whose process
is stopped, does not. So a thread of each rank meets those of the others every few seconds, through the store, which
knows who is silent. A main thread that is held in such a call meanwhile cannot be woken: the process is ended, as by a
kill. The last checkpoint is there, and what lies in the cache folder is taken over at the next start.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import RankLostError
from reelstream.ranks import Ranks

# With the silence that is borne (40 s) others stop within a minute.
_MEET_EVERY_S = 5.0
# For the main thread to hear of it by itself, as it mostly does.
_GRACE_S = 10.0
_OVER = b"over"


def end_process(error: RankLostError) -> None:
    """Say what has happened, and end the process whatever it is doing."""
    sys.stderr.write(f"reelstream: {error.fact}\n  hint: {error.hint}\n")
    sys.stderr.flush()
    os._exit(1)


@contextlib.contextmanager
def watched_for_silence(
    ranks: Ranks,
    *,
    heard: threading.Event,
    end: Callable[[RankLostError], None] = end_process,
    meet_every_s: float = _MEET_EVERY_S,
    grace_s: float = _GRACE_S,
) -> Iterator[None]:
    """Have the other ranks watched as long as the block runs.

    Args:
        ranks: This rank among them.
        heard: Set once this rank knows that it shall end, by whatever way.
        end: Called where a rank is lost and nothing is heard of it for `grace_s`.
        meet_every_s: How often the ranks' threads meet.
        grace_s: See `end`.
    """
    cancellation = Cancellation()
    met = [0]

    def watch() -> None:
        try:
            while not heard.wait(meet_every_s):
                met[0] += 1
                if _OVER in ranks.exchange(_name(met[0]), b"", cancellation):
                    return
        except Cancelled:
            return
        except RankLostError as error:
            if not heard.wait(grace_s):
                end(error)

    thread = threading.Thread(target=watch, name="reelstream-silence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        heard.set()
        cancellation.cancel()
        thread.join()
        # Whoever ends later shall not take this for silence.
        ranks.give(_name(met[0] + 1), _OVER)


def _name(number: int) -> str:
    return f"silence/{number}"
