"""Connections: each request on a line of its own, which any thread can break.

A *line* is a transport with at most one connection, lent to one request at a time and kept open between requests to
the same host. So it is always known which socket a request waits on, even for the first byte of its answer, and
cancellation shuts that socket down. (A shared pool tells the socket only once the answer has begun.)

Transports are used without a client around them: no cookies, no redirects followed behind our back, and no log line
that holds a signed address.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import httpx2

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import NetworkError
from reelstream.transport.failure import PassingFailure, without_secrets

_LARGEST_CHUNK_BYTES = 256 * 1024


class Origin(NamedTuple):
    """The host that a request goes to; secrets are bound to it."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Return the origin of an absolute address."""
        parts = urllib.parse.urlsplit(url)
        scheme = parts.scheme.lower()
        return cls(scheme, (parts.hostname or "").lower(), parts.port or (443 if scheme == "https" else 80))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a silent network is waited for, in seconds."""

    connect_s: float = 10.0
    """Until a connection stands, name look-up apart."""
    stall_s: float = 30.0
    """Between two bytes of an answer, and before its first."""
    idle_s: float = 60.0
    """An unused connection is closed after this."""


class _Line:
    """One transport, and the socket of its one connection."""

    def __init__(self, transport: httpx2.BaseTransport) -> None:
        self.transport = transport
        self.socket: socket.socket | None = None


class _Interruption:
    """Breaks the line of one request; harmless once that request has ended."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._lock = threading.Lock()
        self._wanted = False
        self._ended = False

    def interrupt(self) -> None:
        with self._lock:
            self._wanted = True
            self._break()

    def end(self) -> None:
        with self._lock:
            self._ended = True

    def observe(self, name: str, info: Mapping[str, Any]) -> None:
        """Take note of the connection as it is made; the `trace` extension of the HTTP client."""
        if name.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self.connected(info["return_value"])

    def connected(self, stream: Any) -> None:
        with self._lock:
            self._line.socket = stream.get_extra_info("socket")
            # The cancellation may have come while there was no socket to break.
            if self._wanted:
                self._break()

    def _break(self) -> None:
        if self._line.socket is not None and not self._ended:
            with contextlib.suppress(OSError):
                # The base class's method: SSLSocket.shutdown takes the TLS object from under the reading thread.
                socket.socket.shutdown(self._line.socket, socket.SHUT_RDWR)


class Reply:
    """An answer whose body is read as it comes. Header names are in lower case."""

    def __init__(self, response: httpx2.Response, translated: Callable[[], contextlib.AbstractContextManager[None]]):
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._translated = translated

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes, at most 256 KiB at a time.

        Raises:
            PassingFailure: Where it breaks.
            Cancelled: Where the request was called off.
        """
        # Not `iter_raw`: a stream read as it comes loses nothing that arrived before a break.
        assert isinstance(self._response.stream, httpx2.SyncByteStream)
        received = iter(self._response.stream)
        while True:
            with self._translated():
                data = next(received, None)
            if data is None:
                return
            for start in range(0, len(data), _LARGEST_CHUNK_BYTES):
                yield data[start : start + _LARGEST_CHUNK_BYTES]

    def body(self, limit_bytes: int) -> bytes:
        """Return the body's first bytes, `limit_bytes` at most."""
        parts: list[bytes] = []
        size_bytes = 0
        for chunk in self.chunks():
            parts.append(chunk)
            size_bytes += len(chunk)
            if size_bytes >= limit_bytes:
                break
        return b"".join(parts)[:limit_bytes]


class Lines:
    """The lines of one process, opened as they are needed: as many as requests at once.

    Args:
        timeouts: How long silence is borne.
        transport: Stands in for the network, in tests.
    """

    def __init__(self, timeouts: Timeouts, transport: httpx2.BaseTransport | None = None) -> None:
        self._timeouts = timeouts
        self._transport = transport
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[_Line]] = collections.defaultdict(list)
        self._has_answered = False
        self._ssl_context: ssl.SSLContext | None = None
        self._closed = False

    @contextlib.contextmanager
    def ask(self, method: str, url: str, headers: Mapping[str, str], cancellation: Cancellation) -> Iterator[Reply]:
        """Send one request; the block reads the answer, and leaving it early hangs up.

        Raises:
            PassingFailure: Where the connection fails or breaks.
            NetworkError: Where the host cannot prove who it is.
            Cancelled: Where the request is called off, at once and in any phase but the look-up of a name and the
                making of a connection, which `Timeouts.connect_s` bounds.
        """
        cancellation.raise_if_cancelled()
        origin = Origin.of(url)
        line = self._borrow(origin)
        interruption = _Interruption(line)

        def translated() -> contextlib.AbstractContextManager[None]:
            return self._translated(origin, cancellation)

        timeout = httpx2.Timeout(self._timeouts.stall_s, connect=self._timeouts.connect_s)
        request = httpx2.Request(
            method,
            url,
            headers=headers,
            extensions={"timeout": timeout.as_dict(), "trace": interruption.observe},
        )
        try:
            with cancellation.on_cancel(interruption.interrupt), contextlib.ExitStack() as answered:
                with translated():
                    # Closed also where it comes together with the cancellation: an open one would block the line.
                    response = answered.enter_context(contextlib.closing(line.transport.handle_request(request)))
                self._has_answered = True
                yield Reply(response, translated)
        finally:
            interruption.end()
            self._give_back(origin, line)

    def close(self) -> None:
        """Close all idle connections; those in use close as their requests end."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, collections.defaultdict(list)
        for lines in idle.values():
            for line in lines:
                line.transport.close()

    def _borrow(self, origin: Origin) -> _Line:
        with self._lock:
            # The last one used is the likeliest to be still connected.
            if self._idle[origin]:
                return self._idle[origin].pop()
            return _Line(self._transport or self._new_transport(origin))

    def _give_back(self, origin: Origin, line: _Line) -> None:
        with self._lock:
            if not self._closed:
                self._idle[origin].append(line)
                return
        line.transport.close()

    def _new_transport(self, origin: Origin) -> httpx2.BaseTransport:
        if self._ssl_context is None:
            # Read once: the authorities' certificates take longer to load than most requests take.
            self._ssl_context = httpx2.create_ssl_context()
        limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._timeouts.idle_s)
        return httpx2.HTTPTransport(verify=self._ssl_context, limits=limits, proxy=proxy_for(origin))

    @contextlib.contextmanager
    def _translated(self, origin: Origin, cancellation: Cancellation) -> Iterator[None]:
        """Turn the client's errors into ours; a line that broke because it was called off is no failure."""
        try:
            yield
        except httpx2.TransportError as error:
            if cancellation.cancelled:
                raise Cancelled from error
            if _is_untrusted(error):
                raise NetworkError(
                    f"the host {origin.host} could not prove who it is: {error}",
                    "where a proxy of your own stands in between, name its certificate in SSL_CERT_FILE",
                ) from error
            # A proxy that refuses, a name that is not known: where nothing has ever answered, waiting helps rarely.
            unreached = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError)
            raise PassingFailure(
                f"{origin.host}: {_plain_words(error)}", first_contact=unreached and not self._has_answered
            ) from error
        # A shutdown of our own can look like the regular end of an answer.
        cancellation.raise_if_cancelled()


def proxy_for(origin: Origin) -> str | None:
    """Return the proxy that the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, ...) names for a host."""
    if urllib.request.proxy_bypass(origin.host):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(origin.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _plain_words(error: httpx2.TransportError) -> str:
    words = {
        httpx2.ConnectTimeout: "no connection in time",
        httpx2.ConnectError: "no connection",
        httpx2.ReadTimeout: "no byte in time",
        httpx2.ReadError: "the connection broke",
        httpx2.RemoteProtocolError: "the answer ended too early",
    }.get(type(error), type(error).__name__)
    detail = without_secrets(str(error))
    return f"{words} ({detail})" if detail else words
