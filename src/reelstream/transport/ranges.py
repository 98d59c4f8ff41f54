"""A file of the Hub, read in ranges; a range that breaks goes on at the byte where it broke."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from reelstream.cancel import Cancellation
from reelstream.clock import Clock
from reelstream.errors import AccessDeniedError, HubError, NetworkError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import RangeFinished
from reelstream.transport.addresses import Address
from reelstream.transport.answers import Refusal, Subject, refusal_error, served_range
from reelstream.transport.failure import PassingFailure
from reelstream.transport.lines import Lines, Origin, Reply
from reelstream.transport.patience import Patience
from reelstream.transport.retry import asked_wait_s, is_passing
from reelstream.types import RepositoryFile

_SHOWN_BODY_BYTES = 4096
_MOST_REFUSALS = 3


class _AddressRefusedError(Exception):
    """403 at a signed address: it has expired, or it never was good."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAccess:
    """What a file needs from the client that opened it."""

    clock: Clock
    telemetry: Telemetry
    subject: Subject
    lines: Callable[[], Lines]
    address: Callable[[Cancellation], Address]
    """A fresh address; looked up where there is none."""
    drop_address: Callable[[Address], None]
    hub_headers: Callable[[], dict[str, str]]
    """Headers for the Hub's own host: they hold the token."""
    cdn_headers: dict[str, str]
    patience: Callable[[Subject, Cancellation], Patience]


class RemoteFile:
    """One file at one commit. Any number of threads may read it at once.

    Attributes:
        path: Path in the repository.
        size_bytes: Its size, as the repository lists it; checked against each answer.
    """

    def __init__(self, file: RepositoryFile, access: FileAccess) -> None:
        self.path = file.path
        self.size_bytes = file.size_bytes
        self._access = access

    def __repr__(self) -> str:
        return f"RemoteFile({self.path!r}, {self.size_bytes} bytes)"

    def read(self, first_byte: int, end_byte: int, cancellation: Cancellation) -> Iterator[bytes]:
        """Yield the bytes [first_byte, end_byte), in order, in chunks of at most 256 KiB.

        Each byte is asked for once, as long as the network delivers what it acknowledges: after a reset, an early
        end, or a silence, the next request begins at the first byte that has not been yielded. Nothing is asked
        before the first chunk is wanted; closing the iterator hangs up.

        Raises:
            NetworkError: Where failures went on for longer than the client's patience.
            AccessDeniedError: Where the Hub, or a freshly signed address, refuses the file.
            NotFoundOnHubError: Where the file is gone.
            HubError: Where the answer is not the file that the repository lists.
            Cancelled: Soon after `cancellation` is set, in whatever this waits for.
        """
        assert 0 <= first_byte <= end_byte <= self.size_bytes
        patience = self._access.patience(self._access.subject, cancellation)
        position = first_byte
        refusals = 0
        while position < end_byte:
            address = self._access.address(cancellation)
            try:
                with contextlib.closing(self._one_answer(address, position, end_byte, cancellation)) as chunks:
                    for chunk in chunks:
                        position += len(chunk)
                        refusals = 0
                        patience.progressed()
                        yield chunk
            except PassingFailure as failure:
                # Where all bytes have come, the answer's own end does not matter.
                if position < end_byte:
                    patience.pause(failure)
            except _AddressRefusedError as error:
                # What another process was told may be old; what was signed at our own asking after a refusal is not.
                if (refusals and address.own) or refusals >= _MOST_REFUSALS:
                    raise self._refused_anew(error.refusal) from error
                refusals += 1
                self._access.drop_address(address)

    def _one_answer(
        self, address: Address, first_byte: int, end_byte: int, cancellation: Cancellation
    ) -> Generator[bytes]:
        """Ask once; yield what comes, until the range or the answer ends."""
        headers = self._access.hub_headers() if address.at_hub else dict(self._access.cdn_headers)
        headers["Range"] = f"bytes={first_byte}-{end_byte - 1}"
        started_s = self._access.clock.monotonic()
        position = first_byte
        try:
            with self._access.lines().ask("GET", address.url, headers, cancellation) as reply:
                served_end = self._served_end(reply, address, first_byte, end_byte)
                # An answer is read to its own end, one more step than to its last byte: only so is the line kept.
                for data in reply.chunks():
                    chunk = data[: end_byte - position]
                    position += len(chunk)
                    self._access.telemetry.count_received(len(chunk))
                    yield chunk
                    if position == end_byte < served_end:
                        return
                if position < min(end_byte, served_end):
                    raise PassingFailure(f"{Origin.of(address.url).host}: the answer ended too early")
        finally:
            self._access.telemetry.emit(
                RangeFinished(
                    path=self.path,
                    first_byte=first_byte,
                    received_bytes=position - first_byte,
                    wait_s=self._access.clock.monotonic() - started_s,
                )
            )

    def _served_end(self, reply: Reply, address: Address, first_byte: int, end_byte: int) -> int:
        """Return one past the last byte that the answer holds, or raise what it means otherwise."""
        host = Origin.of(address.url).host
        if is_passing(reply.status):
            raise PassingFailure(
                f"{host} answered {reply.status}",
                asked_s=asked_wait_s(reply.status, reply.headers, self._access.clock.wall()),
            )
        if reply.status >= 400:
            refusal = Refusal.of(reply.status, reply.headers, reply.body(_SHOWN_BODY_BYTES))
            if address.at_hub:
                raise refusal_error(refusal, self._access.subject)
            if reply.status == 403:
                raise _AddressRefusedError(refusal)
            raise HubError(f"{host} refused bytes {first_byte}-{end_byte - 1} of {self._access.subject} ({refusal})")
        try:
            return served_range(
                reply.status,
                reply.headers,
                first_byte=first_byte,
                end_byte=end_byte,
                file_size_bytes=self.size_bytes,
            ).end_byte
        except ValueError as error:
            raise NetworkError(
                f"the answer of {host} to a range of {self._access.subject} cannot be used: {error}",
                "a proxy on the way may have changed it",
            ) from error

    def _refused_anew(self, refusal: Refusal) -> AccessDeniedError:
        return AccessDeniedError(
            f"a freshly signed address of {self._access.subject} was refused ({refusal})",
            "this is no expired address; a proxy or a firewall on the way may refuse the host, or the clock is wrong",
        )
