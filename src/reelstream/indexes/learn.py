"""Learning where archives' members lie, without training and without keeping anything else of them."""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reelstream.archive import ArchiveIndex
from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import ArchiveError, HubError, ReelstreamError
from reelstream.indexes.known import known_archive
from reelstream.indexes.passes import ArchivePass, bytes_to_read, needs_pass, refuse_unlearnable
from reelstream.indexes.sources import OpenSource
from reelstream.indexes.store import IndexStore
from reelstream.types import Archive, ContainerKind


class Outcome(enum.StrEnum):
    """What came of one archive."""

    KNOWN = "known"
    """Its members were known before."""
    LEARNED = "learned"
    """They are known now."""
    FAILED = "failed"
    """It is damaged, or could not be had."""
    UNFINISHED = "unfinished"
    """The work was called off; what was learned of it is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOutcome:
    """What came of one archive, and why."""

    archive: Archive
    outcome: Outcome
    index: ArchiveIndex | None = None
    """All its members; None where they are not known."""
    error: ReelstreamError | None = None
    """Why it failed."""


class LearningProgress:
    """How far learning is. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.num_archives = 0
        """Archives in all."""
        self.num_done = 0
        """Those that have an outcome."""
        self.read_bytes = 0
        """Compressed bytes that came."""
        self.needed_bytes = 0
        """Compressed bytes that will have come when all is learned, as far as the archives begun tell."""

    def begin(self, archives: Sequence[Archive]) -> None:
        """Note what is asked for; nothing of it is known yet."""
        with self._lock:
            self.num_archives += len(archives)
            self.needed_bytes += sum(_pass_bytes(archive) for archive in archives)

    def expect(self, archive: Archive, needed_bytes: int) -> None:
        """Note how many bytes an archive really needs."""
        with self._lock:
            self.needed_bytes += needed_bytes - _pass_bytes(archive)

    def count(self, size_bytes: int) -> None:
        """Note bytes that came."""
        with self._lock:
            self.read_bytes += size_bytes

    def finish(self) -> None:
        """Note that an archive has its outcome."""
        with self._lock:
            self.num_done += 1


def learn(
    archives: Sequence[Archive],
    open_source: OpenSource,
    store: IndexStore,
    *,
    connections: int = 4,
    progress: LearningProgress | None = None,
    cancellation: Cancellation | None = None,
) -> list[ArchiveOutcome]:
    """Learn the indexes of archives, several at once; what is known already is not read.

    An archive that fails does not stop the others. What is learned is kept as it is learned, so that a call that was
    called off, or killed, is gone on with by the next one.

    Args:
        archives: Which ones. A zip's directory is all that is read of it, and nothing of a loose file.
        open_source: Gives an archive's bytes; what it gives must end with `cancellation`.
        store: Where indexes are kept, and learned cuts.
        connections: The most archives at once.
        progress: Told how far it is.
        cancellation: Calls the work off; archives are then unfinished.

    Returns:
        An outcome for each archive, in the order given.

    Raises:
        ConfigError: Where this platform cannot learn.
        DiskError: Where what is learned cannot be kept.
    """
    progress = progress or LearningProgress()
    cancellation = cancellation or Cancellation()
    progress.begin(archives)

    def learned(archive: Archive) -> ArchiveOutcome:
        try:
            cancellation.raise_if_cancelled()
            return _learn_one(archive, open_source, store, progress, cancellation)
        except Cancelled:
            return ArchiveOutcome(archive=archive, outcome=Outcome.UNFINISHED)
        except (ArchiveError, HubError) as error:
            return ArchiveOutcome(archive=archive, outcome=Outcome.FAILED, error=error)
        except BaseException:
            cancellation.cancel()
            raise
        finally:
            progress.finish()

    with ThreadPoolExecutor(max_workers=connections, thread_name_prefix="reelstream-learn") as workers:
        try:
            return list(workers.map(learned, archives))
        except BaseException:
            # The block waits for the threads: they keep what they have learned, and end.
            cancellation.cancel()
            raise


def _learn_one(
    archive: Archive,
    open_source: OpenSource,
    store: IndexStore,
    progress: LearningProgress,
    cancellation: Cancellation,
) -> ArchiveOutcome:
    known = store.find(archive)
    if known is not None:
        progress.expect(archive, 0)
        return ArchiveOutcome(archive=archive, outcome=Outcome.KNOWN, index=known)
    if not needs_pass(archive):
        index = known_archive(archive, store, open_source).indexes[0]
        outcome = Outcome.KNOWN if archive.kind is ContainerKind.FILE else Outcome.LEARNED
        return ArchiveOutcome(archive=archive, outcome=outcome, index=index)
    refuse_unlearnable(archive)
    progress.expect(archive, bytes_to_read(archive, store))
    one_pass = ArchivePass(archive, open_source(archive), store, on_bytes=progress.count)
    with contextlib.closing(one_pass.members()) as members:
        for _ in members:
            cancellation.raise_if_cancelled()
    return ArchiveOutcome(archive=archive, outcome=Outcome.LEARNED, index=one_pass.index)


def _pass_bytes(archive: Archive) -> int:
    """Return how many bytes of an archive must be read where nothing of it is known."""
    return archive.size_bytes if needs_pass(archive) else 0
