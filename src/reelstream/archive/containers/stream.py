"""What every container is to those who read it from front to back."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from reelstream.archive.cuts.bookmark import LearnedRow
from reelstream.archive.seek.index import ArchiveIndex
from reelstream.archive.tar import Member


class MemberStream(Protocol):
    """One pass over a container, which learns where its members lie. Close it, or use it as a context manager."""

    @property
    def problem(self) -> str:
        """Why no rows are learned; empty where they are. Members are streamed all the same."""
        ...

    @property
    def complete(self) -> bool:
        """Whether all members from where it began to the container's end were listed."""
        ...

    def members(self) -> Iterator[Member]:
        """Yield the members in the order they lie, folders apart; can be called once.

        A member that is not read, or not to its end, is passed over. One that cannot be had has a `problem`.

        Raises:
            ArchiveError: Where the container is damaged or cut short. It is raised after what can still be checked was
                read; the rows so far stay.
            ArchiveChecksumError: At the end, where a checksum, or the SHA-256 that the publisher names, does not match.
        """
        ...

    def take_rows(self, *, now: bool = False) -> list[LearnedRow]:
        """Return the rows that became known since the last call, in the order of the archive.

        Args:
            now: Whether to work out at once what would be known only some hundred KiB further on.
        """
        ...

    def index(self) -> ArchiveIndex:
        """Return the index as far as it was learned; of a stream that was resumed, only what came after.

        `complete` says whether all members of the container are in it.
        """
        ...

    def close(self) -> None:
        """Give up the range that is being read, and what memory is held for it."""
        ...

    def __enter__(self) -> Self:
        """Return itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        ...
