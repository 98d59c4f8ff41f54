"""Connections, against a server made of bare sockets: what is sent when is up to the test."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import httpx2
import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.transport.failure import PassingFailure, without_secrets
from reelstream.transport.lines import Lines, Timeouts

# No test waits for these: cancellation must come first.
PATIENT = Timeouts(stall_s=3600, idle_s=3600)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"


class BareServer:
    """Calls `answers[i]` with the connection when its i-th request has come; keeps connections open."""

    def __init__(self, answers: list[Callable[[socket.socket], None]]) -> None:
        self._answers = answers
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/"
        self.num_connections = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while self._answers:
                connection, _ = self._socket.accept()
                self.num_connections += 1
                with connection:
                    while self._answers and self._request_came(connection):
                        self._answers.pop(0)(connection)
                    # Until the client hangs up.
                    connection.recv(1)

    def close(self) -> None:
        # Wakes `accept`, which closing alone does not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @staticmethod
    def _request_came(connection: socket.socket) -> bool:
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            data = connection.recv(4096)
            if not data:
                return False
            received += data
        return True


@contextlib.contextmanager
def serving(*answers: Callable[[socket.socket], None]) -> Iterator[BareServer]:
    server = BareServer(list(answers))
    thread = threading.Thread(target=server.run, name="bare-server")
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


@contextlib.contextmanager
def lines_with(timeouts: Timeouts) -> Iterator[Lines]:
    lines = Lines(timeouts)
    try:
        yield lines
    finally:
        lines.close()


def whole(connection: socket.socket) -> None:
    connection.sendall(WHOLE)


def ask(lines: Lines, url: str, cancellation: Cancellation | None = None) -> bytes:
    with lines.ask("GET", url, {}, cancellation or Cancellation()) as reply:
        return b"".join(reply.chunks())


def test_a_connection_serves_one_request_after_another() -> None:
    with serving(whole, whole, whole) as server, lines_with(PATIENT) as lines:
        assert [ask(lines, server.url) for _ in range(3)] == [b"hello"] * 3
        assert server.num_connections == 1


def test_an_answer_left_early_is_hung_up_on() -> None:
    with serving(lambda connection: connection.sendall(HALF), whole) as server, lines_with(PATIENT) as lines:
        with lines.ask("GET", server.url, {}, Cancellation()) as reply:
            assert reply.body(2) == b"he"
        assert ask(lines, server.url) == b"hello"
        assert server.num_connections == 2


def test_cancellation_wakes_who_waits_for_an_answer_on_a_new_connection() -> None:
    cancellation = Cancellation()
    silent = serving(lambda connection: cancellation.cancel())
    with silent as server, lines_with(PATIENT) as lines, pytest.raises(Cancelled):
        ask(lines, server.url, cancellation)


def test_cancellation_wakes_who_waits_for_an_answer_on_a_kept_connection() -> None:
    cancellation = Cancellation()
    with serving(whole, lambda connection: cancellation.cancel(), whole) as server, lines_with(PATIENT) as lines:
        assert ask(lines, server.url) == b"hello"
        with pytest.raises(Cancelled):
            ask(lines, server.url, cancellation)
        assert ask(lines, server.url) == b"hello"
        assert server.num_connections == 2


def test_cancellation_wakes_who_waits_for_the_next_byte() -> None:
    cancellation = Cancellation()

    def half(connection: socket.socket) -> None:
        connection.sendall(HALF)
        client_has_read.wait()
        cancellation.cancel()

    client_has_read = threading.Event()
    with (
        serving(half) as server,
        lines_with(PATIENT) as lines,
        lines.ask("GET", server.url, {}, cancellation) as reply,
    ):
        chunks = reply.chunks()
        assert next(chunks) == b"he"
        client_has_read.set()
        with pytest.raises(Cancelled):
            next(chunks)


def test_a_cancellation_after_the_request_breaks_nothing() -> None:
    cancellation = Cancellation()
    with serving(whole, whole) as server, lines_with(PATIENT) as lines:
        assert ask(lines, server.url, cancellation) == b"hello"
        cancellation.cancel()
        assert ask(lines, server.url) == b"hello"
        assert server.num_connections == 1


def test_an_end_without_length_that_is_our_own_shutdown_is_not_taken_for_the_end() -> None:
    cancellation = Cancellation()

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        cancellation.cancel()

    with serving(endless) as server, lines_with(PATIENT) as lines, pytest.raises(Cancelled):
        ask(lines, server.url, cancellation)


def test_silence_is_a_passing_failure() -> None:
    silent = serving(lambda connection: connection.sendall(HALF))
    no_byte = pytest.raises(PassingFailure, match="no byte in time")
    with silent as server, lines_with(Timeouts(stall_s=0.01)) as lines, no_byte:
        ask(lines, server.url)


def test_an_early_end_is_a_passing_failure() -> None:
    def half(connection: socket.socket) -> None:
        connection.sendall(HALF)
        connection.shutdown(socket.SHUT_RDWR)

    too_early = pytest.raises(PassingFailure, match="ended too early")
    with serving(half) as server, lines_with(PATIENT) as lines, too_early:
        ask(lines, server.url)


def test_a_network_that_never_answered_is_told_apart() -> None:
    with serving(whole) as server, lines_with(PATIENT) as lines:
        ask(lines, server.url)
        server.close()
        with pytest.raises(PassingFailure) as caught:
            ask(lines, server.url)
        assert not caught.value.first_contact
    with lines_with(PATIENT) as lines, pytest.raises(PassingFailure, match="no connection") as caught:
        ask(lines, server.url)
    assert caught.value.first_contact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<html><b>Busy</b>\n try later</html>", "Busy try later"),
        ("see https://a.example/x?Signature=s&b=c now", "see https://a.example/x?… now"),
        ("Authorization: Bearer abc.def", "Authorization: …"),
        ("token hf_abcdefghijkl is bad", "token … is bad"),
        ("is this a question? yes=no", "is this a question? yes=no"),
    ],
)
def test_foreign_text_is_shown_without_markup_and_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert len(without_secrets(text * 1000)) <= 300


def test_an_answer_that_comes_together_with_the_cancellation_is_closed() -> None:
    # Left open, it would block its line for whoever has it next.
    cancellation = Cancellation()
    closed: list[bool] = []

    class Stream(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b"hello"

        def close(self) -> None:
            closed.append(True)

    class CalledOffAsItAnswers(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            cancellation.cancel()
            return httpx2.Response(200, stream=Stream())

    lines = Lines(PATIENT, CalledOffAsItAnswers())
    with pytest.raises(Cancelled), lines.ask("GET", "http://127.0.0.1/", {}, cancellation):
        pass
    assert closed == [True]
