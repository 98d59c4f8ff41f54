"""Enter a tar.gz at any compressed byte, with no index and nothing known of what came before.

Three questions, in this order:

1. *Where could decompression begin?* `candidates` names the places.
2. *Does it, and from where on is the output true?* `trial` decompresses from there, with two made-up windows.
3. *Is it the archive's own block?* An archive inside the archive holds blocks too. A file that is packed without
   compression, as media are, lies there as it is, behind the headers of stored blocks; and these come at least every
   64 KiB. Hence gzip headers and stored blocks within 64 KiB are tried before all other blocks; and whatever is found
   must not be contradicted by one of them (`Trials.is_contradicted`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from reelstream.archive.alignment import LOW_MARKS
from reelstream.archive.cuts import candidates
from reelstream.archive.cuts.candidates import Candidate
from reelstream.archive.cuts.feed import Feed
from reelstream.archive.cuts.trial import PROOF_BYTES, Trials
from reelstream.archive.inflation import Inflation
from reelstream.archive.source import ByteSource

ENTRY_RULE_VERSION = 2
"""Changes with anything that changes where an entry or a border is found: saved states depend on it."""

SEARCH_BYTES = 8 * 65_552
"""How far a block is searched for. One comes within 64 KiB as zlib writes, within 300 kB as libdeflate does."""

# One stretch of the search: a stored block of the largest size, its header and a little more, so that one whose
# predecessor began before the stretch begins in it.
_STRETCH_BYTES = 65_552
EXPECTED_BYTES = _STRETCH_BYTES + PROOF_BYTES + (1 << 15)
"""What a search looks at in an archive of media: a block comes within the first stretch, and its trial is short."""


class EntryKind(StrEnum):
    """Where decompression begins."""

    GZIP_MEMBER = "gzip member"
    BLOCK = "block"


class NoEntryReason(StrEnum):
    """Why an archive can't be entered at a place."""

    NO_BLOCK = "no deflate block could be found near it"
    NOT_TRUE = "what is decompressed there depends on megabytes before it, as in archives of text"
    END_TOO_NEAR = "the archive ends too soon after it"
    MISLEADING = "too many places near it look like deflate blocks and are none"
    NO_MEMBER = "no member begins after it"
    NEXT_CUT = "no member begins before the next cut's first one"
    DAMAGED = "the data after it are damaged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A place at which the decompression of an archive can begin."""

    searched_from: int
    """The compressed byte that was asked for."""
    kind: EntryKind
    bit: int
    """The place, in bits from the archive's beginning."""
    true_from: int
    """The output bytes after it that may be wrong."""
    window_crc32: int
    """The CRC-32 of the 32 KiB after these, the first that are true: it tells whether two readers see the same."""

    @property
    def compressed_position(self) -> int:
        """The first compressed byte that belongs wholly to what follows."""
        return (self.bit + 7) >> 3

    @property
    def searched_bytes(self) -> int:
        """Compressed bytes between what was asked for and the entry."""
        return (self.bit >> 3) - self.searched_from

    def begin(self) -> Inflation:
        """Return a decompression to which the bytes from `bit >> 3` on are given; all after `true_from` is true."""
        return Inflation() if self.kind is EntryKind.GZIP_MEMBER else Inflation(LOW_MARKS, bit=self.bit & 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoEntry:
    """There is no entry near a place; it must be read from further ahead."""

    searched_from: int
    """The compressed byte that was asked for."""
    reason: NoEntryReason


def find_entry(source: ByteSource, byte: int, *, search_bytes: int = SEARCH_BYTES) -> Entry | NoEntry:
    """Return the first place at or after a compressed byte where reading can begin with nothing known before it.

    The answer follows from the archive's bytes, `byte` and `search_bytes` alone: two readers who never talk agree.

    Args:
        source: The archive. One range of some 220 kB is read of it, more of them where a trial needs more.
        byte: Where to begin the search.
        search_bytes: How far to search, rounded up to stretches of 64 KiB.
    """
    feed = Feed(source, byte, expected_bytes=EXPECTED_BYTES)
    try:
        return entry_ahead(feed, search_bytes=search_bytes)
    finally:
        feed.close()


def entry_ahead(feed: Feed, *, search_bytes: int = SEARCH_BYTES) -> Entry | NoEntry:
    """Return what `find_entry` does for the feed's position, without taking a byte from the feed."""
    return _Search(feed).run(search_bytes)


class _Search:
    """One search. All places in here are counted from where it begins."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._trials = Trials(feed)

    def run(self, search_bytes: int) -> Entry | NoEntry:
        met_end = False
        for first_byte in range(0, search_bytes, _STRETCH_BYTES):
            end_byte = first_byte + _STRETCH_BYTES
            buffer = self._feed.peek(end_byte + candidates.LOOKAHEAD_BYTES)
            found = self._first_proven(candidates.landmarks(buffer, first_byte, end_byte))
            if found is None:
                # The search for other blocks is the dearer one.
                bits = candidates.dynamic_blocks(buffer, first_byte, end_byte)
                found = self._first_proven(Candidate(bit) for bit in bits)
            if self._trials.exhausted:
                return self._none(NoEntryReason.MISLEADING)
            if found is not None:
                return found
            if len(buffer) <= end_byte:
                met_end = True
                break
        met_end |= self._trials.met_end
        return self._none(NoEntryReason.END_TOO_NEAR if met_end else NoEntryReason.NO_BLOCK)

    def _none(self, reason: NoEntryReason) -> NoEntry:
        return NoEntry(searched_from=self._feed.position, reason=reason)

    def _first_proven(self, places: Iterable[Candidate]) -> Entry | NoEntry | None:
        for place in places:
            proof = self._trials.prove(place)
            if self._trials.exhausted:
                return None
            if proof is None or self._trials.is_contradicted(place):
                continue
            if proof.true_from is None:
                # A block further on depends on all that this one does, and on more.
                return self._none(NoEntryReason.END_TOO_NEAR if self._trials.met_end else NoEntryReason.NOT_TRUE)
            return Entry(
                searched_from=self._feed.position,
                kind=EntryKind.GZIP_MEMBER if place.is_member else EntryKind.BLOCK,
                bit=8 * self._feed.position + place.bit,
                true_from=proof.true_from,
                window_crc32=proof.window_crc32,
            )
        return None
