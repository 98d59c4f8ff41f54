"""Puts answers on the wire: in turns, counted, and with the fault that was ordered."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from concurrent.futures import Executor
from typing import NoReturn, Protocol

from aiohttp import web

from reelstream.hubserver.answers import Answer, FilePart
from reelstream.hubserver.bandwidth import Throttle
from reelstream.hubserver.faults import FaultKind, FaultRule
from reelstream.hubserver.statistics import Statistics, Transfer

_BLOCK_BYTES = 256 * 1024
"""Read from a file at once; with what a turn holds, all the memory that a connection takes."""

_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Courier:
    """Sends answers.

    Args:
        throttle: Says when a connection may send its next turn.
        statistics: Counts what was sent.
        readers: Threads in which files are read.
    """

    def __init__(self, throttle: Throttle, statistics: Statistics, readers: Executor) -> None:
        self._throttle = throttle
        self._statistics = statistics
        self._readers = readers

    async def send(self, request: web.BaseRequest, answer: Answer, fault: FaultRule | None) -> web.StreamResponse:
        """Send an answer to the end, or up to the place where `fault` breaks it off.

        A fault never returns, nor does an answer to a client that has left: both end by cancellation, when the
        connection is lost.
        """
        try:
            return await self._send(request, answer, fault)
        except ConnectionError:
            # A client may leave whenever it likes; that is no error of the server's.
            await _until_lost()

    async def _send(self, request: web.BaseRequest, answer: Answer, fault: FaultRule | None) -> web.StreamResponse:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client left before the answer")
        # With no buffer above the system's, "drained" means that the system has taken all of it.
        transport.set_write_buffer_limits(high=0)
        bodiless = request.method == "HEAD"
        if fault is not None and (fault.after_bytes == 0 or bodiless):
            await _break_off(transport, fault.kind)
        response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
        response.content_length = answer.size_bytes
        await response.prepare(request)
        if not bodiless:
            end = answer.size_bytes if fault is None else min(answer.size_bytes, fault.after_bytes)
            asked = answer.body.bytes if isinstance(answer.body, FilePart) else None
            # The text of a redirect or a refusal is no byte of the file.
            path = answer.counted_path if asked is not None else None
            transfer = self._statistics.begin(path, asked, transport.get_write_buffer_size)
            try:
                await self._send_body(request, response, answer.body, end, transfer)
            finally:
                self._statistics.end(transfer)
        if fault is not None:
            await _break_off(transport, fault.kind)
        await response.write_eof()
        return response

    async def _send_body(
        self,
        request: web.BaseRequest,
        response: web.StreamResponse,
        body: bytes | FilePart,
        end: int,
        transfer: Transfer,
    ) -> None:
        reader = _FileReader(body, self._readers) if isinstance(body, FilePart) else _BytesReader(body)
        sent = 0
        while sent < end:
            turn = await reader.read(min(self._throttle.turn_bytes, end - sent))
            if not turn:
                # The file has shrunk: an answer that cannot be kept is broken off, not filled up.
                await _break_off(request.transport, FaultKind.CUT_SHORT)
            await self._throttle.turn(len(turn))
            await response.write(turn)
            transfer.wrote(len(turn))
            await request.writer.drain()
            transfer.drained()
            sent += len(turn)


class _Reader(Protocol):
    """Where the next bytes of a body come from; a protocol because some lie in memory and some on disk."""

    async def read(self, size_bytes: int) -> bytes:
        """Return up to `size_bytes`; none at the end."""
        ...


class _BytesReader(_Reader):
    def __init__(self, body: bytes) -> None:
        self._rest = memoryview(body)

    async def read(self, size_bytes: int) -> bytes:
        turn, self._rest = self._rest[:size_bytes], self._rest[size_bytes:]
        return bytes(turn)


class _FileReader(_Reader):
    def __init__(self, part: FilePart, readers: Executor) -> None:
        self._descriptor = part.descriptor
        self._next, self._end = part.bytes
        self._readers = readers
        self._block = memoryview(b"")

    async def read(self, size_bytes: int) -> bytes:
        if not self._block:
            size = min(_BLOCK_BYTES, self._end - self._next)
            loop = asyncio.get_running_loop()
            block = await loop.run_in_executor(self._readers, os.pread, self._descriptor, size, self._next)
            self._next += len(block)
            self._block = memoryview(block)
        turn, self._block = self._block[:size_bytes], self._block[size_bytes:]
        return bytes(turn)


async def _break_off(transport: asyncio.Transport | None, kind: FaultKind) -> NoReturn:
    """Break the connection as `kind` says."""
    if transport is not None and kind is FaultKind.RESET:
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        transport.abort()
    elif transport is not None and kind is FaultKind.CUT_SHORT:
        transport.close()
    await _until_lost()


async def _until_lost() -> NoReturn:
    """Wait for the cancellation that the loss of the connection brings."""
    await asyncio.Event().wait()
    raise AssertionError("an event that nobody sets was set")
