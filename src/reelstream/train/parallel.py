"""The ranks that train one model together: how they meet, agree, and learn that one of them is gone.

Two ways lead from rank to rank. Records that all must have before they go on travel through torch's gloo, twice a step
(`gather`). Whatever one rank waits long for (a save, an evaluation, the data) goes through the store (`exchange`),
where nobody is held in a collective call: a rank that dies meanwhile is found by its heartbeat, and named.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from reelstream.cancel import Cancellation, Cancelled
from reelstream.data.torch_ranks import find_ranks
from reelstream.errors import ConfigError, RankLostError, ReelstreamError
from reelstream.interrupt import Interrupted, unhandled_signals
from reelstream.ranks import OneRank, RankPlace, Ranks, stated_place
from reelstream.telemetry import Telemetry
from reelstream.train.options import TrainOptions
from reelstream.train.silence import watched_for_silence

TIMEOUT = timedelta(minutes=30)
"""How long a collective call may wait: for a rank whose data come slowly, not for one that is dead."""

# A rank that left in good order said so before its connection closed.
_INQUEST_S = 5.0
# What gloo's errors say in front; torch's own have a class.
_GLOO = ("gloo", "Connection closed by peer", "Connection reset by peer")


class Team:
    """This process among the ranks of a run; alone, it agrees with itself.

    Every method but `watched` is called by all ranks, in the same order, each in its main thread.

    Args:
        ranks: Connects the ranks.
        votes: A group of gloo over all ranks; None where there is one rank.
    """

    def __init__(self, ranks: Ranks, votes: dist.ProcessGroup | None = None) -> None:
        self.ranks = ranks
        self._votes = votes
        self._num_exchanges: Counter[str] = Counter()
        self.has_left = False
        """Whether this rank takes no further part; a process by itself never leaves."""
        self.ends = threading.Event()
        """Set once this rank knows that it shall end."""

    @property
    def place(self) -> RankPlace:
        """Which of the ranks this one is."""
        return self.ranks.place

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes what is written once a run."""
        return self.place.rank == 0

    def gather(self, record: bytes) -> list[bytes]:
        """Return the record of each rank, by rank; all are of one length.

        Raises:
            RankLostError: Where a rank is gone.
        """
        if self._votes is None:
            return [record]
        mine = torch.frombuffer(bytearray(record), dtype=torch.uint8)
        records = [torch.empty_like(mine) for _ in range(self.place.world_size)]
        with self.watched("the step's agreement"):
            dist.all_gather(records, mine, group=self._votes)
        return [bytes(each.numpy()) for each in records]

    def exchange(self, topic: str, value: bytes, cancellation: Cancellation | None = None) -> list[bytes]:
        """Return what each rank gives, by rank; may wait for as long as the slowest needs.

        Args:
            topic: What it is about: for messages, and so that ranks which disagree on what comes next notice.
            value: This rank's.
            cancellation: Calls the waiting off.

        Raises:
            RankLostError: Where a rank is gone, or has left.
        """
        self._num_exchanges[topic] += 1
        return self.ranks.exchange(f"train/{topic}/{self._num_exchanges[topic]}", value, cancellation or Cancellation())

    def from_first(self, topic: str, value: bytes) -> bytes:
        """Return the first rank's value, on all ranks; what others give is not read."""
        return self.exchange(topic, value)[0]

    def leave(self, error: BaseException) -> None:
        """Take no further part, and have the others know why: who waits for this rank ends at once."""
        self.ends.set()
        if self.place.world_size > 1:
            self.has_left = True
            self.ranks.leave(_reason(error))

    @contextlib.contextmanager
    def watched(self, what: str) -> Iterator[None]:
        """Tell a connection that breaks inside the block as what it is: a rank that is gone.

        Raises:
            RankLostError: In place of what gloo or torch's store raised.
        """
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, ReelstreamError) or not _is_lost_connection(error):
                raise
            raise self._lost(what, error) from error

    def _lost(self, what: str, error: RuntimeError) -> RankLostError:
        """Return who is gone and why, where that rank said so or its heartbeat tells; else what the connection said."""
        cancellation = Cancellation()
        timer = threading.Timer(_INQUEST_S, cancellation.cancel)
        timer.name, timer.daemon = "reelstream-inquest", True
        timer.start()
        try:
            self.exchange("inquest", b"", cancellation)
        except RankLostError as found:
            return found
        except (Cancelled, ReelstreamError):
            pass
        finally:
            timer.cancel()
        return RankLostError(
            f"a rank was lost in {what}: {_first_line(error)}",
            "see the messages of the other ranks; resume once all of them can run",
        )


ALONE_TEAM = Team(OneRank())
"""A process that trains by itself."""


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or any(word in text for word in _GLOO)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def joined_team(options: TrainOptions, telemetry: Telemetry) -> Iterator[Team]:
    """Join the ranks that the launcher has started, and leave them at the block's end, saying why.

    torch.distributed is initialized where it is not, and then destroyed at the end.

    Args:
        options: Say how the model is shared, and where this rank computes.
        telemetry: Is told whom this rank waits for.

    Raises:
        ConfigError: Where the environment contradicts itself, or the options do not suit several ranks.
        RankLostError: Where the others did not come.
    """
    with _process_group(options) as num_ranks:
        if num_ranks == 1:
            yield ALONE_TEAM
            return
        ranks = find_ranks(telemetry=telemetry)
        reason = "it has ended"
        try:
            # A group of its own: nothing that the model's gradients do can come between two votes.
            team = Team(ranks, dist.new_group(backend="gloo", timeout=TIMEOUT))
            with watched_for_silence(ranks, heard=team.ends):
                yield team
        except BaseException as error:
            reason = _reason(error)
            raise
        finally:
            ranks.leave(reason)


@contextlib.contextmanager
def _process_group(options: TrainOptions) -> Iterator[int]:
    """Yield the number of ranks, with torch.distributed initialized where there are several."""
    if dist.is_available() and dist.is_initialized():
        num_ranks = dist.get_world_size()
        _refuse_unless_divisible(options, num_ranks)
        yield num_ranks
        return
    stated = stated_place(os.environ)
    num_ranks = 1 if stated is None else stated.world_size
    _refuse_unless_divisible(options, num_ranks)
    if num_ranks == 1:
        yield 1
        return
    has_gpu = options.device != "cpu" and torch.cuda.is_available()
    try:
        # Held in torch, which looks for the others, the process would hear no signal; and nothing is begun yet.
        with unhandled_signals():
            dist.init_process_group("cpu:gloo,cuda:nccl" if has_gpu else "gloo", timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"this is one of {num_ranks} ranks, and cannot reach the others: {_first_line(error)}",
            "start all ranks with torchrun or accelerate launch, which say where they meet",
        ) from error
    try:
        yield num_ranks
    finally:
        # Fails where connections are broken, which is known by then.
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _refuse_unless_divisible(options: TrainOptions, num_ranks: int) -> None:
    if num_ranks == 1:
        return
    if options.parallel == "none":
        raise ConfigError(
            f"train.parallel is none, and the launcher has started {num_ranks} ranks: each would train a model alone",
            "set train.parallel to auto, or start one process",
        )
    size = options.batch_size
    if size % num_ranks:
        below, above = size // num_ranks * num_ranks, (size // num_ranks + 1) * num_ranks
        sizes = f"{below} or {above}" if below else str(above)
        divisors = ", ".join(str(number) for number in range(1, size + 1) if size % number == 0)
        raise ConfigError(
            f"train.batch_size is {size}, of all ranks together, and {num_ranks} ranks cannot share it equally",
            f"set it to {sizes}, or start a number of ranks that divides {size}: {divisors}",
        )


def _reason(error: BaseException) -> str:
    match error:
        case ReelstreamError():
            return error.fact
        case Interrupted():
            return f"it was stopped by {error.reason}"
        case _:
            lines = str(error).strip().splitlines()
            return f"{type(error).__name__}{f': {lines[0]}' if lines else ''}"
