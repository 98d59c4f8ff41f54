"""The checksum of bytes that several readers read, each a piece of them.

CRC-32 is linear over GF(2): the checksum of A followed by B is that of A, run through as many zero bytes as B has, xor
that of B. Running through zeros is a matrix of 32 x 32 bits; its powers of two are found by squaring. That is how
zlib's `crc32_combine` does it, which the standard library does not offer.
"""

from __future__ import annotations

import functools

_POLYNOMIAL = 0xEDB88320  # of gzip (RFC 1952, section 8), its bits reversed

Matrix = tuple[int, ...]
"""32 columns of 32 bits: what becomes of each bit."""


def crc32_combine(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC-32 of two pieces, one after the other, from the CRC-32 of each and the size of the second."""
    power = 0
    while second_bytes:
        if second_bytes & 1:
            first = _times(_zero_bytes(power), first)
        second_bytes >>= 1
        power += 1
    return first ^ second


def _times(matrix: Matrix, vector: int) -> int:
    product = 0
    for column in matrix:
        if vector & 1:
            product ^= column
        vector >>= 1
    return product


@functools.cache
def _zero_bytes(power: int) -> Matrix:
    """Return the matrix that runs a checksum through 2^power zero bytes."""
    if power == 0:
        zero_bit: Matrix = (_POLYNOMIAL, *(1 << bit for bit in range(31)))
        return _squared(_squared(_squared(zero_bit)))
    return _squared(_zero_bytes(power - 1))


def _squared(matrix: Matrix) -> Matrix:
    return tuple(_times(matrix, column) for column in matrix)
