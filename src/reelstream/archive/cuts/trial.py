"""Trying a place at which decompression could begin: is it one, from where on is its output true, is it the archive's?

A trial decompresses with a made-up window until 128 KiB of compressed bytes, or 4 MiB of output, came out without an
error. It does so twice, with windows that differ in every byte: where the two outputs agree, nothing came from the
window. After 32 KiB in a row that agree all that follows is true, since deflate looks back no further. That is a proof,
not a likelihood: the block being one.

A block of an archive *inside* the archive passes a trial as well: where it is broken off by the outer archive's next
block, Huffman codes fall into step again after a few wrong symbols. `Trials.is_contradicted` tells such a block by the
outer archive's header, over which it decodes as if it were data.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reelstream.archive.alignment import INVERSE_MARKS, LOW_MARKS, WINDOW_BYTES
from reelstream.archive.cuts import candidates
from reelstream.archive.cuts.candidates import Candidate, Landmark
from reelstream.archive.cuts.feed import Feed
from reelstream.archive.inflation import Inflation

PROOF_BYTES = 1 << 17
"""What a trial must decompress without an error: two stored blocks of the largest size."""

# Where a trial ends in any case: a bomb proves itself by its output, and text may copy the unknown window on for ever.
# Media do so for some kilobytes, rarely for a megabyte.
_MOST_OUTPUT_BYTES = 1 << 22
# The steps in which a trial's bytes are used: most false candidates fail in the first ones.
_STEPS = (512, 4096, 1 << 14, 1 << 15)
_PIECE_BYTES = 1 << 16
# What all trials of a search may decompress, and what each of them counts for at least: some 60 are made on 64 KiB of
# media, most of them a kilobyte long. More are made only of bytes that were chosen to mislead.
_MOST_WORK_BYTES = 1 << 25
_LEAST_WORK_BYTES = 1 << 12
_WORK_BYTES_A_STEP = 1 << 9
# Within this distance the outer archive's next block begins, behind what it has stored.
_LARGEST_STORED_BYTES = 65_552
# Enough that no code gives out by chance what was put in.
_VERBATIM_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the trial of a block found."""

    true_from: int | None
    """The output bytes after it that may be wrong; None where they are megabytes."""
    window_crc32: int
    """The CRC-32 of the 32 KiB after these, the first that are true."""


class Trials:
    """The trials of one search. Places are counted from the feed's position.

    Args:
        feed: The compressed bytes; none of them are taken.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._proofs: dict[Candidate, Proof | None] = {}
        self._work_bytes = 0
        self.met_end = False
        """Whether a trial failed because the archive ends."""

    @property
    def exhausted(self) -> bool:
        """Whether so much was tried in vain that the search must end."""
        return self._work_bytes >= _MOST_WORK_BYTES

    def prove(self, candidate: Candidate) -> Proof | None:
        """Return what a trial finds; None where the candidate is no block, or the archive ends too soon to tell."""
        if candidate not in self._proofs and not self.exhausted:
            self._proofs[candidate] = self._try(candidate)
        return self._proofs.get(candidate)

    def is_contradicted(self, candidate: Candidate) -> bool:
        """Return whether a block that was proven lies in an archive inside the archive.

        It does where the place of a gzip header or stored block behind it is proven too, and the candidate's
        decompression passes over that place as over part of a block that is not stored. For in the archive's own blocks
        only what is stored can look like a block.
        """
        end_byte = candidate.byte + _LARGEST_STORED_BYTES
        buffer = self._feed.peek(end_byte + candidates.LOOKAHEAD_BYTES)
        others = candidates.landmarks(buffer, candidate.byte + 1, end_byte, least_bytes=_VERBATIM_BYTES)
        if not others:
            return False
        explained = self._explained(candidate, others)
        return any(self.prove(other) is not None for other in others if other not in explained)

    def _try(self, candidate: Candidate) -> Proof | None:
        windows = (None, None) if candidate.is_member else (LOW_MARKS, INVERSE_MARKS)
        one, other = (Inflation(window, bit=candidate.bit & 7) for window in windows)
        compare = _Comparison()
        used = 0
        try:
            while not self._decided(used, compare):
                step = next((end for end in _STEPS if end > used), used + _STEPS[-1]) - used
                some = self._bytes_at(candidate.byte + used, step)
                if not some:
                    self.met_end = True
                    return None
                used += len(some)
                one.give(some)
                other.give(some)
                while not one.hungry and compare.size_bytes < _MOST_OUTPUT_BYTES:
                    compare.add(one.inflate(_PIECE_BYTES), other.inflate(_PIECE_BYTES))
        except zlib.error:
            return None
        finally:
            self._work_bytes += max(_LEAST_WORK_BYTES, used, compare.size_bytes)
        return Proof(true_from=compare.true_from, window_crc32=compare.window_crc32())

    @staticmethod
    def _decided(used: int, compare: _Comparison) -> bool:
        proven = used >= PROOF_BYTES or compare.size_bytes >= _MOST_OUTPUT_BYTES
        # Empty blocks without end have no output.
        hopeless = max(used, compare.size_bytes) >= _MOST_OUTPUT_BYTES
        return proven and (compare.true_from is not None or hopeless)

    def _explained(self, candidate: Candidate, others: Sequence[Landmark]) -> frozenset[Landmark]:
        """Return the places that are a block of the candidate's own, or lie inside one of its stored blocks."""
        ends = (end for other in others for end in (other.content_byte, other.content_byte + _VERBATIM_BYTES))
        passed = self._pass(candidate, sorted(set(ends)))
        return frozenset(other for other in others if self._explains(passed, other))

    def _explains(self, passed: _Passed, other: Landmark) -> bool:
        if other.is_member and other.content_byte in passed.member_ends:
            return True
        start = passed.output_at.get(other.content_byte)
        end = passed.output_at.get(other.content_byte + _VERBATIM_BYTES)
        if start is None or end is None:
            return False
        return passed.output[start:end] == self._bytes_at(other.content_byte, _VERBATIM_BYTES)

    def _pass(self, candidate: Candidate, ends: Sequence[int]) -> _Passed:
        """Decompress from a candidate to a number of compressed bytes, as far as it goes."""
        inflation = Inflation(None if candidate.is_member else LOW_MARKS, bit=candidate.bit & 7)
        passed = _Passed()
        at = candidate.byte
        try:
            for end in ends:
                inflation.give(self._bytes_at(at, end - at))
                while not inflation.hungry:
                    passed.output.extend(inflation.inflate(_PIECE_BYTES))
                    if inflation.position > _MOST_OUTPUT_BYTES:
                        return passed
                at = end
                passed.output_at[end] = inflation.position
                if inflation.between_members:
                    passed.member_ends.add(end)
        except zlib.error:
            pass  # what lies behind is not passed
        finally:
            self._work_bytes += max(inflation.position, len(ends) * _WORK_BYTES_A_STEP)
        return passed

    def _bytes_at(self, byte: int, size_bytes: int) -> memoryview:
        return self._feed.peek(byte + size_bytes)[byte : byte + size_bytes]


@dataclass(frozen=True, slots=True)
class _Passed:
    """What a decompression gave by certain compressed bytes."""

    output: bytearray = field(default_factory=bytearray)
    output_at: dict[int, int] = field(default_factory=dict)
    """The output's size, by the compressed bytes that it came of."""
    member_ends: set[int] = field(default_factory=set)
    """The compressed bytes among these that end a gzip member."""


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
            differ = np.nonzero(np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8))[0] + start
            # The one after which 32 KiB agree at last, if there is one; else the last.
            agree_for = np.diff(differ, prepend=self._agree_from - 1)
            long_enough = np.nonzero(agree_for > WINDOW_BYTES)[0]
            before = differ[: long_enough[0]] if len(long_enough) else differ
            if len(before):
                self._agree_from = int(before[-1]) + 1
                begin = self._agree_from - start
                self._agreeing.clear()
        self._agreeing.append(one[begin:])
        if self.size_bytes - self._agree_from >= WINDOW_BYTES:
            self.true_from = self._agree_from

    def window_crc32(self) -> int:
        """Return the CRC-32 of the first 32 KiB that agree."""
        return zlib.crc32(b"".join(self._agreeing)[:WINDOW_BYTES])
