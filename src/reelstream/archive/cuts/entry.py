"""Enter a tar.gz at any compressed byte, with no index and nothing known of what came before.

Three questions, in this order:

1. *Where could decompression begin?* `candidates` names the places.
2. *Does it?* A candidate is tried: decompressed with a made-up window until 128 KiB of compressed bytes, or 4 MiB of
   output, came out without an error. False ones fail within some hundred bytes, nearly all of them.
3. *From where on is the output true?* It is decompressed twice, with windows that differ in every byte. Where the two
   outputs agree, nothing came from the window. After 32 KiB in a row that agree all that follows is true, since deflate
   looks back no further. That is a proof, not a likelihood: the block being one.

An archive inside the archive holds blocks too. A file that is packed without compression, as media are, lies there
as it is, behind the headers of stored blocks; and these come at least every 64 KiB. Hence the two rules that make the
outer archive win: gzip headers and stored blocks within 64 KiB are tried before all other blocks, and a trial is longer
than that, so that a stream inside a stored file breaks at the next header of the outer one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from reelstream.archive.alignment import INVERSE_MARKS, LOW_MARKS, WINDOW_BYTES
from reelstream.archive.cuts import candidates
from reelstream.archive.cuts.feed import Feed
from reelstream.archive.inflation import Inflation
from reelstream.archive.source import ByteSource

ENTRY_RULE_VERSION = 1
"""Changes with anything that changes where an entry or a border is found: saved states depend on it."""

SEARCH_BYTES = 8 * 65_552
"""How far a block is searched for. One comes within 64 KiB as zlib writes, within 300 kB as libdeflate does."""

# One stretch of the search: a stored block of the largest size, its header and a little more, so that one whose
# predecessor began before the stretch begins in it.
_STRETCH_BYTES = 65_552
# What a trial must decompress without an error: two stored blocks of the largest size.
_PROOF_BYTES = 1 << 17
# Where a trial ends in any case: a bomb proves itself by its output, and text may copy the unknown window on for ever.
# Media do so for some kilobytes, rarely for a megabyte.
_MOST_OUTPUT_BYTES = 1 << 22
# The steps in which a trial's bytes are used: most false candidates fail in the first ones.
_STEPS = (512, 4096, 1 << 14, 1 << 15)
_PIECE_BYTES = 1 << 16
# Trials that pass 4 KiB are few, unless the bytes were made to mislead.
_MOST_LONG_TRIALS = 64
EXPECTED_BYTES = _STRETCH_BYTES + _PROOF_BYTES + (1 << 15)
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


@dataclass(frozen=True, slots=True)
class _Proof:
    """A candidate that is a block; `true_from` is None where too much of its output is not true."""

    true_from: int | None
    window_crc32: int = 0


class _Search:
    """One search. All places in here are counted from where it begins."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._long_trials = 0
        self._met_end = False

    def run(self, search_bytes: int) -> Entry | NoEntry:
        for first_byte in range(0, search_bytes, _STRETCH_BYTES):
            end_byte = first_byte + _STRETCH_BYTES
            buffer = self._feed.peek(end_byte + candidates.LOOKAHEAD_BYTES)
            members = [8 * place for place in candidates.gzip_members(buffer, first_byte, end_byte)]
            stored = candidates.stored_blocks(buffer, first_byte, end_byte)
            is_member = set(members)
            found = self._first_proven(sorted(members + stored), is_member)
            # The search for other blocks is the dearer one.
            found = found or self._first_proven(candidates.dynamic_blocks(buffer, first_byte, end_byte), set())
            if found is not None:
                return found
            if self._long_trials >= _MOST_LONG_TRIALS:
                return self._none(NoEntryReason.MISLEADING)
            if len(buffer) <= end_byte:
                self._met_end = True
                break
        return self._none(NoEntryReason.END_TOO_NEAR if self._met_end else NoEntryReason.NO_BLOCK)

    def _none(self, reason: NoEntryReason) -> NoEntry:
        return NoEntry(searched_from=self._feed.position, reason=reason)

    def _first_proven(self, bits: list[int], members: set[int]) -> Entry | NoEntry | None:
        for bit in bits:
            kind = EntryKind.GZIP_MEMBER if bit in members else EntryKind.BLOCK
            proof = self._try(bit, kind)
            if self._long_trials >= _MOST_LONG_TRIALS:
                return None
            if proof is None:
                continue
            if proof.true_from is None:
                # A block further on depends on all that this one does, and on more.
                return self._none(NoEntryReason.NOT_TRUE)
            return Entry(
                searched_from=self._feed.position,
                kind=kind,
                bit=8 * self._feed.position + bit,
                true_from=proof.true_from,
                window_crc32=proof.window_crc32,
            )
        return None

    def _try(self, bit: int, kind: EntryKind) -> _Proof | None:
        """Decompress from a candidate on; return None where it is none, or where the archive ends too soon."""
        windows = (None, None) if kind is EntryKind.GZIP_MEMBER else (LOW_MARKS, INVERSE_MARKS)
        one, other = (Inflation(window, bit=bit & 7) for window in windows)
        compare = _Comparison()
        used = 0
        try:
            while not self._decided(used, compare):
                step = next((end for end in _STEPS if end > used), used + _STEPS[-1]) - used
                start = (bit >> 3) + used
                some = self._feed.peek(start + step)[start : start + step]
                if not some:
                    self._met_end = True
                    return None
                self._long_trials += used == _STEPS[1]
                used += len(some)
                one.give(some)
                other.give(some)
                while not one.hungry and compare.size_bytes < _MOST_OUTPUT_BYTES:
                    compare.add(one.inflate(_PIECE_BYTES), other.inflate(_PIECE_BYTES))
        except zlib.error:
            return None
        return _Proof(compare.true_from, compare.window_crc32())

    @staticmethod
    def _decided(used: int, compare: _Comparison) -> bool:
        proven = used >= _PROOF_BYTES or compare.size_bytes >= _MOST_OUTPUT_BYTES
        # Empty blocks without end have no output.
        hopeless = max(used, compare.size_bytes) >= _MOST_OUTPUT_BYTES
        return proven and (compare.true_from is not None or hopeless)


class _Comparison:
    """Finds the first 32 KiB in which two outputs agree."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.true_from: int | None = None
        self._agree_from = 0
        self._agreeing: list[bytes] = []

    def add(self, one: bytes, other: bytes) -> None:
        """Compare the next bytes of the two, of the same size."""
        start, self.size_bytes = self.size_bytes, self.size_bytes + len(one)
        if self.true_from is not None:
            return
        begin = 0
        if one != other:
            differ = np.nonzero(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8))[0]
            for place in (int(found) for found in differ):
                if start + place - self._agree_from >= WINDOW_BYTES:
                    break
                self._agree_from, begin = start + place + 1, place + 1
                self._agreeing.clear()
        self._agreeing.append(one[begin:])
        if self.size_bytes - self._agree_from >= WINDOW_BYTES:
            self.true_from = self._agree_from

    def window_crc32(self) -> int:
        """Return the CRC-32 of the first 32 KiB that agree."""
        return zlib.crc32(b"".join(self._agreeing)[:WINDOW_BYTES])
