"""Trying a place at which decompression could begin: is it one, from where on is its output true, is it the archive's?

A trial decompresses with a made-up window until 128 KiB of compressed bytes, or 4 MiB of output, came out without an
error. It does so twice, with windows that differ in every byte: where the two outputs agree, nothing came from the
window. After 32 KiB in a row that agree all that follows is true, since deflate looks back no further. That is a proof,
not a likelihood: the block being one.

A block of an archive *inside* the archive may pass a trial as well: where it is broken off by the outer archive's next
block, Huffman codes fall into step again after a few wrong symbols, or take all that follows for symbols of theirs.
`Trials.is_contradicted` tells such a block by that next block of the outer archive, over which it decodes as if it were
data.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reelstream.archive.alignment import INVERSE_MARKS, LOW_MARKS, WINDOW_BYTES
from reelstream.archive.cuts import candidates
from reelstream.archive.cuts.candidates import Candidate
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
_MOST_WORK_BYTES = 1 << 26
_LEAST_WORK_BYTES = 1 << 12
# A compressed byte counts for as many of output: blocks that are nothing but codes take time, and give none.
_WORK_A_COMPRESSED_BYTE = 4
# What the question to the next block counts for: each bit of 64 KiB is looked at.
_WORK_BYTES_A_CHECK = 1 << 18
# Within this distance the outer archive's next block begins, behind what it has stored.
_LARGEST_STORED_BYTES = 65_552
# Enough that no code gives out by chance what was put in.
_VERBATIM_BYTES = 16
# Of how many compressed bytes the beginning of a block is compared; of the first ones that give enough known output.
_GLANCES = (256, 1024, 4096, 1 << 14)
_ENOUGH_KNOWN_BYTES = 64
_MOST_GLANCE_OUTPUT_BYTES = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the trial of a block found."""

    true_from: int | None
    """The output bytes after it that may be wrong; None where they are megabytes, or all that the archive has."""
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
        """Whether the archive's end cut a trial short."""

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

        It does where another block begins within 64 KiB behind it, and the candidate's decompression passes over that
        one as over data that are not stored. For in the archive's own blocks only what is stored can look like a block.
        """
        self._work_bytes += _WORK_BYTES_A_CHECK
        end_byte = candidate.byte + _LARGEST_STORED_BYTES
        buffer = self._feed.peek(end_byte + candidates.LOOKAHEAD_BYTES)
        others = candidates.landmarks(buffer, candidate.byte + 1, end_byte)
        others += [Candidate(bit) for bit in candidates.dynamic_blocks(buffer, candidate.byte + 1, end_byte)]
        glances = [glance for other in others if (glance := self._glance(other)) is not None]
        if not glances:
            return False
        passed = self._pass(candidate, sorted({end for glance in glances for end in glance.ends}))
        return any(not self._is_explained(glance, passed) and self.prove(glance.candidate) for glance in glances)

    def _try(self, candidate: Candidate) -> Proof | None:
        one, other = _begun_twice(candidate)
        compare = _Comparison()
        used = 0
        try:
            while not self._decided(used, compare):
                step = next((end for end in _STEPS if end > used), used + _STEPS[-1]) - used
                some = self._bytes_at(candidate.byte + used, step)
                if not some:
                    self.met_end = True
                    return None if used < PROOF_BYTES else Proof(true_from=None, window_crc32=0)
                used += len(some)
                one.give(some)
                other.give(some)
                while not one.hungry and compare.size_bytes < _MOST_OUTPUT_BYTES:
                    compare.add(one.inflate(_PIECE_BYTES), other.inflate(_PIECE_BYTES))
        except zlib.error:
            return None
        finally:
            self._count_work(used, compare.size_bytes)
        return Proof(true_from=compare.true_from, window_crc32=compare.window_crc32())

    @staticmethod
    def _decided(used: int, compare: _Comparison) -> bool:
        proven = used >= PROOF_BYTES or compare.size_bytes >= _MOST_OUTPUT_BYTES
        # Empty blocks without end have no output.
        hopeless = max(used, compare.size_bytes) >= _MOST_OUTPUT_BYTES
        return proven and (compare.true_from is not None or hopeless)

    def _glance(self, candidate: Candidate) -> _Glance | None:
        """Decompress the beginning of a block; return None where it is none, or too little of its output is known."""
        if self.exhausted:
            return None
        one, other = _begun_twice(candidate)
        outputs = bytearray(), bytearray()
        used = 0
        try:
            for end in _GLANCES:
                some = self._bytes_at(candidate.byte + used, end - used)
                used += len(some)
                one.give(some)
                other.give(some)
                while not one.hungry:
                    outputs[0].extend(one.inflate(_PIECE_BYTES))
                    outputs[1].extend(other.inflate(_PIECE_BYTES))
                    if len(outputs[0]) > _MOST_GLANCE_OUTPUT_BYTES:
                        return None
                low, inverse = (np.frombuffer(bytes(output), np.uint8) for output in outputs)
                known = low == inverse
                if np.count_nonzero(known) >= _ENOUGH_KNOWN_BYTES:
                    return _Glance(candidate=candidate, end_byte=candidate.byte + used, output=low, known=known)
        except zlib.error:
            return None
        finally:
            self._count_work(used, len(outputs[0]))
        return None

    def _pass(self, candidate: Candidate, ends: Sequence[int]) -> _Passed:
        """Decompress from a candidate to a number of compressed bytes, as far as it goes."""
        inflation, _ = _begun_twice(candidate)
        passed = _Passed()
        at = candidate.byte
        try:
            for end in ends:
                inflation.give(self._bytes_at(at, end - at))
                at = end
                while not inflation.hungry:
                    passed.output.extend(inflation.inflate(_PIECE_BYTES))
                    if inflation.position > _MOST_OUTPUT_BYTES:
                        return passed
                passed.size_at[end] = inflation.position
        except zlib.error:
            pass  # what lies behind is not passed
        finally:
            self._count_work(at - candidate.byte, inflation.position)
        return passed

    def _is_explained(self, glance: _Glance, passed: _Passed) -> bool:
        """Return whether a block is one of those that are passed, or lies in what one of them has stored."""
        verbatim_from, verbatim_to, end_byte = glance.ends
        output = passed.between(verbatim_from, verbatim_to)
        if output is not None and output == self._bytes_at(verbatim_from, _VERBATIM_BYTES):
            return True
        size_bytes = passed.size_at.get(end_byte, 0)
        if size_bytes < len(glance.output):
            return False
        last = np.frombuffer(passed.output[size_bytes - len(glance.output) : size_bytes], np.uint8)
        return bool(np.array_equal(last[glance.known], glance.output[glance.known]))

    def _count_work(self, used_bytes: int, output_bytes: int) -> None:
        self._work_bytes += max(_LEAST_WORK_BYTES, _WORK_A_COMPRESSED_BYTE * used_bytes, output_bytes)

    def _bytes_at(self, byte: int, size_bytes: int) -> memoryview:
        return self._feed.peek(byte + size_bytes)[byte : byte + size_bytes]


def _begun_twice(candidate: Candidate) -> tuple[Inflation, Inflation]:
    """Return two decompressions from a candidate on, whose windows differ in every byte."""
    windows = (None, None) if candidate.is_member else (LOW_MARKS, INVERSE_MARKS)
    one, other = (Inflation(window, bit=candidate.bit & 7) for window in windows)
    return one, other


@dataclass(frozen=True, slots=True, kw_only=True)
class _Glance:
    """The beginning of a block's output."""

    candidate: Candidate
    end_byte: int
    """The compressed byte up to which it was decompressed."""
    output: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]
    """Which bytes of the output don't depend on what came before the block."""

    @property
    def ends(self) -> tuple[int, int, int]:
        """From where to where its compressed bytes are looked for as they are, and `end_byte`."""
        start = self.candidate.byte + 1  # bits of the first byte may belong to what comes before
        return start, start + _VERBATIM_BYTES, self.end_byte


@dataclass(frozen=True, slots=True)
class _Passed:
    """What a decompression gave by certain compressed bytes."""

    output: bytearray = field(default_factory=bytearray)
    size_at: dict[int, int] = field(default_factory=dict)
    """The output's size, by the compressed bytes that it came of."""

    def between(self, first_byte: int, end_byte: int) -> bytearray | None:
        """Return the output of a range of compressed bytes; None where it was not passed."""
        if end_byte not in self.size_at:
            return None
        return self.output[self.size_at[first_byte] : self.size_at[end_byte]]


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
