"""An inflater that says where deflate blocks begin: the platform's zlib, called without the standard library's wrapper.

The standard library's `zlib` cannot stop at the border of a block (`Z_BLOCK`), which is what a seek index is made of.
The same C functions are in the `zlib-ng` package, where it is installed (the faster one), and in the zlib that Python
itself was linked with. Both are private arrangements of others, so each is tried on a known stream before its first
use. Where neither serves (Windows: no such functions are exported), there is no index, and `BlockInflation.problem`
says why.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reelstream.archive.alignment import WINDOW_BYTES, aligned_byte, raw_inflater

_NO_FLUSH, _BLOCK = 0, 5
_OK, _STREAM_END, _BUFFER_ERROR = 0, 1, -5
# Deflate data without a frame: who enters a gzip member in its middle reads the frame by hand.
_RAW_FORMAT = -zlib.MAX_WBITS

# What `data_type` holds after a call: unused bits of the last byte, and flags.
_UNUSED_BITS, _IN_LAST_BLOCK, _AT_BOUNDARY = 7, 64, 128


class _ZlibStream(ctypes.Structure):
    """`z_stream` of zlib.h."""

    _fields_ = [
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("message", ctypes.c_char_p),
        ("state", ctypes.c_void_p * 4),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    ]


class _ZlibNgStream(ctypes.Structure):
    """`zng_stream` of zlib-ng.h."""

    _fields_ = [
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint32),
        ("total_in", ctypes.c_size_t),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_size_t),
        ("message", ctypes.c_char_p),
        ("state", ctypes.c_void_p * 4),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_uint32),
        ("reserved", ctypes.c_ulong),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class InflateLibrary:
    """The C functions of one zlib."""

    name: str
    """`zlib-ng` or `zlib`."""
    stream_type: type[ctypes.Structure]
    begin: Callable[[Any], int]
    """`inflateInit2` for raw deflate data, of a stream."""
    set_window: Callable[[Any, bytes, int], int]
    """`inflateSetDictionary`."""
    inflate: Callable[[Any, int], int]
    restart: Callable[[Any], int]
    """`inflateReset`: the next gzip member's data."""
    end: Callable[[Any], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockInflation:
    """Whether this platform's zlib can be called so that it stops at blocks."""

    library: InflateLibrary | None
    problem: str
    """Why there is no library; empty where there is one."""


class BlockInflater:
    """Raw deflate data, one stream after the other, piece by piece, at will only up to where the next block begins.

    Not for threads to share. The interpreter's lock is released while it decompresses.

    Args:
        library: The functions to call.
        window: What came before the first stream's data.
    """

    def __init__(self, library: InflateLibrary, window: bytes = b"") -> None:
        self._library = library
        self._window = window
        self._stream: Any = None
        self._chunk = b""
        self._chunk_address = 0
        self._position = 0  # in the chunk
        self._room: ctypes.Array[ctypes.c_char] | None = None
        self._view = memoryview(b"")
        self.consumed = 0
        """Compressed bytes taken so far; bits of the last one may be still unused."""
        self.stream_ended = False
        """Whether the last step came to a stream's end."""
        self.boundary_bit: int | None = None
        """Where the last step stopped because a block begins there that is not a stream's end, counted in bits."""

    @property
    def left_bytes(self) -> int:
        """Bytes of the chunk that are not yet consumed."""
        return len(self._chunk) - self._position

    def feed(self, chunk: bytes) -> None:
        """Give the next compressed bytes; the ones before must be consumed."""
        assert not self.left_bytes, "a chunk is fed before the last one is used up"
        self._chunk, self._position = chunk, 0
        # The object holds the chunk, so its address stays valid.
        self._chunk_address = ctypes.cast(ctypes.c_char_p(chunk), ctypes.c_void_p).value or 0

    def take_rest(self) -> bytes:
        """Return what is left of the chunk and forget it; it does not count as consumed."""
        rest, self._chunk, self._position = self._chunk[self._position :], b"", 0
        return rest

    def step(self, most_bytes: int, *, stop_at_block: bool) -> bytes:
        """Decompress up to `most_bytes`; fewer where the chunk is used up, a stream ends, or (at will) a block begins.

        After a stream's end the next step begins another one.

        Raises:
            zlib.error: Where the data are damaged.
        """
        stream = self._begun()
        if self._room is None or len(self._room) < most_bytes:
            self._room = (ctypes.c_char * most_bytes)()
            self._view = memoryview(self._room).cast("B")
        left = self.left_bytes
        stream.next_in, stream.avail_in = self._chunk_address + self._position, left
        stream.next_out, stream.avail_out = ctypes.addressof(self._room), most_bytes
        code = self._library.inflate(ctypes.byref(stream), _BLOCK if stop_at_block else _NO_FLUSH)
        if code not in {_OK, _STREAM_END, _BUFFER_ERROR}:
            message = (stream.message or b"").decode("ascii", "replace")
            raise zlib.error(f"Error {code} while decompressing data: {message}")
        taken = left - stream.avail_in
        self._position += taken
        self.consumed += taken
        self.stream_ended = code == _STREAM_END
        flags = stream.data_type
        at_boundary = stop_at_block and flags & (_AT_BOUNDARY | _IN_LAST_BLOCK) == _AT_BOUNDARY
        self.boundary_bit = self.consumed * 8 - (flags & _UNUSED_BITS) if at_boundary and code == _OK else None
        return bytes(self._view[: most_bytes - stream.avail_out])

    def close(self) -> None:
        """Give its memory back; it can be called twice."""
        if self._stream is not None:
            self._library.end(ctypes.byref(self._stream))
            self._stream = None
            self.stream_ended = False

    def _begun(self) -> Any:
        if self._stream is None:
            stream = self._library.stream_type()
            code = self._library.begin(ctypes.byref(stream))
            if code != _OK:
                raise MemoryError(f"zlib could not begin a stream (error {code})")
            self._stream = stream
            if self._window:
                self._library.set_window(ctypes.byref(stream), self._window, len(self._window))
        elif self.stream_ended:
            self._library.restart(ctypes.byref(self._stream))
        return self._stream


@functools.cache
def block_inflation() -> BlockInflation:
    """Find the fastest zlib that can be called here, and try it; asked once a process."""
    problems = []
    for name, load in (("zlib-ng", _load_zlib_ng), ("zlib", _load_zlib)):
        found = _tried(name, load)
        if found.library is not None:
            return found
        problems.append(found.problem)
    return BlockInflation(library=None, problem="; ".join(problems))


def named_inflation(name: str) -> BlockInflation:
    """Find and try one library: `zlib-ng` or `zlib`."""
    return _tried(name, {"zlib-ng": _load_zlib_ng, "zlib": _load_zlib}[name])


def _tried(name: str, load: Callable[[], InflateLibrary]) -> BlockInflation:
    try:
        library = load()
        problem = _self_test(library)
    # Whatever a foreign library's absence looks like, it means that there is none.
    except (ImportError, OSError, AttributeError, TypeError, MemoryError, zlib.error) as error:
        return BlockInflation(library=None, problem=f"{name}: {error}")
    if problem:
        return BlockInflation(library=None, problem=f"{name}: {problem}")
    return BlockInflation(library=library, problem="")


def _load_zlib_ng() -> InflateLibrary:
    module = importlib.import_module("zlib_ng.zlib_ng")
    loaded = ctypes.CDLL(str(module.__file__))
    begin = _function(loaded, "zng_inflateInit2", ctypes.c_void_p, ctypes.c_int)
    return InflateLibrary(
        name="zlib-ng",
        stream_type=_ZlibNgStream,
        begin=lambda stream: begin(stream, _RAW_FORMAT),
        set_window=_function(loaded, "zng_inflateSetDictionary", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32),
        inflate=_function(loaded, "zng_inflate", ctypes.c_void_p, ctypes.c_int),
        restart=_function(loaded, "zng_inflateReset", ctypes.c_void_p),
        end=_function(loaded, "zng_inflateEnd", ctypes.c_void_p),
    )


def _load_zlib() -> InflateLibrary:
    loaded = next(_system_zlibs(), None)
    if loaded is None:
        raise OSError(f"no zlib can be called on {sys.platform}")
    version = _function(loaded, "zlibVersion", result=ctypes.c_char_p)()
    begin = _function(loaded, "inflateInit2_", ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    size = ctypes.sizeof(_ZlibStream)
    return InflateLibrary(
        name="zlib",
        stream_type=_ZlibStream,
        begin=lambda stream: begin(stream, _RAW_FORMAT, version, size),
        set_window=_function(loaded, "inflateSetDictionary", ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint),
        inflate=_function(loaded, "inflate", ctypes.c_void_p, ctypes.c_int),
        restart=_function(loaded, "inflateReset", ctypes.c_void_p),
        end=_function(loaded, "inflateEnd", ctypes.c_void_p),
    )


def _system_zlibs() -> Iterator[ctypes.CDLL]:
    """Yield what may be a zlib: first the one that Python's own module was linked with."""
    for name in (getattr(zlib, "__file__", None), "libz.so.1", "/usr/lib/libz.1.dylib", "libz.dylib"):
        if name is None:
            continue
        try:
            loaded = ctypes.CDLL(name)
            _ = loaded.inflateInit2_
        except (OSError, AttributeError):
            continue
        yield loaded


def _function(loaded: ctypes.CDLL, name: str, *arguments: type, result: Any = ctypes.c_int) -> Any:
    function = getattr(loaded, name)
    function.argtypes, function.restype = arguments, result
    return function


def _self_test(library: InflateLibrary) -> str:
    """Decompress two streams of known content block by block; return what was wrong, or nothing."""
    content = b"".join(place.to_bytes(3, "big") for place in range(1 << 14))
    compressor = zlib.compressobj(6, zlib.DEFLATED, _RAW_FORMAT)
    third = len(content) // 3
    compressed = compressor.compress(content[:third]) + compressor.flush(zlib.Z_BLOCK)
    compressed += compressor.compress(content[third:]) + compressor.flush()
    output, boundaries, consumed = _block_by_block(library, compressed * 2, num_streams=2)
    if output != content * 2 or consumed != 2 * len(compressed):
        return "it decompresses a known stream to something else"
    if len(boundaries) < 4 or not all(_begins_block(compressed * 2, content * 2, *place) for place in boundaries):
        return "it does not tell where blocks begin"
    bit, offset = boundaries[0]
    rest = aligned_byte(compressed[bit >> 3], bit & 7) + compressed[(bit >> 3) + 1 :]
    window = content[max(0, offset - WINDOW_BYTES) : offset]
    if _block_by_block(library, rest, window=window)[0] != content[offset:]:
        return "it cannot begin in the middle of a stream"
    return ""


def _block_by_block(
    library: InflateLibrary, compressed: bytes, *, window: bytes = b"", num_streams: int = 1
) -> tuple[bytes, list[tuple[int, int]], int]:
    """Return the output, where blocks begin in the input and the output, and the bytes consumed."""
    inflater = BlockInflater(library, window)
    output = bytearray()
    boundaries = []
    num_ended = 0
    try:
        inflater.feed(compressed)
        for _ in range(1000):
            output += inflater.step(1 << 12, stop_at_block=True)
            num_ended += inflater.stream_ended
            if inflater.boundary_bit is not None:
                boundaries.append((inflater.boundary_bit, len(output)))
            if num_ended == num_streams:
                break
    finally:
        inflater.close()
    return bytes(output), boundaries, inflater.consumed


def _begins_block(compressed: bytes, content: bytes, bit: int, offset: int) -> bool:
    window = content[max(0, offset - WINDOW_BYTES) : offset]
    rest = aligned_byte(compressed[bit >> 3], bit & 7) + compressed[(bit >> 3) + 1 :]
    return raw_inflater(window).decompress(rest, 512) == content[offset : offset + 512]
