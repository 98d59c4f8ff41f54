"""Builds a hub from its settings and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web

from reelstream.cancel import Cancelled
from reelstream.clock import Clock, SystemClock
from reelstream.errors import ConfigError
from reelstream.hubserver.bandwidth import Throttle
from reelstream.hubserver.cdn import CdnSite
from reelstream.hubserver.control import Control
from reelstream.hubserver.exchange import Exchange
from reelstream.hubserver.faults import FaultBook, Where
from reelstream.hubserver.hub import HubSite
from reelstream.hubserver.library import Library
from reelstream.hubserver.rate_windows import API_QUOTA, RESOLVERS_QUOTA, RateWindow
from reelstream.hubserver.repositories import RepositoryShelf
from reelstream.hubserver.sending import Courier
from reelstream.hubserver.settings import ServeSettings
from reelstream.hubserver.signing import AddressSigner
from reelstream.hubserver.statistics import Statistics
from reelstream.hubserver.uploads import UploadShelf
from reelstream.hubserver.writing import Writing

_READERS = 8
_LONGEST_LINE_BYTES = 64 * 1024
_GOODBYE_S = 0.2
"""How long answers that are under way may still run when the server stops."""

_SEND_BUFFER_BYTES = 256 * 1024
"""What the system may take ahead of the client: more would be counted as sent to clients that never read it."""

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A hub that answers."""

    endpoint: str
    cdn_endpoint: str
    repo_ids: tuple[str, ...]


def run_until_stopped(
    settings: ServeSettings,
    *,
    on_open: Callable[[Opened], None],
    report: Callable[[str], None],
    stop_at_end_of_input: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM comes, then stop in good order. Only for the main thread.

    Args:
        settings: What is served, where and how.
        on_open: Called once both ports answer.
        report: Takes sentences about what takes long or is left out.
        stop_at_end_of_input: Whether to stop, too, when standard input ends: it does when the process that holds the
            other end of a pipe is gone, however it went.

    Raises:
        ConfigError: Where a port cannot be had.
    """
    asyncio.run(_run(settings, on_open, report, stop_at_end_of_input=stop_at_end_of_input))


async def _run(
    settings: ServeSettings,
    on_open: Callable[[Opened], None],
    report: Callable[[str], None],
    *,
    stop_at_end_of_input: bool,
) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    if stop_at_end_of_input:
        loop.add_reader(sys.stdin.fileno(), _read_input, stopped)
    with RepositoryShelf(settings.root, clock=SystemClock(), report=report) as shelf:
        serving = asyncio.ensure_future(_serve(settings, shelf, on_open, report, stopped))
        stopping = asyncio.ensure_future(stopped.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if stopped.is_set():
            # Digests that are under way must not hold up the end.
            shelf.cancel()
        with contextlib.suppress(Cancelled):
            await serving


def _read_input(stopped: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stopped.set()


async def _serve(
    settings: ServeSettings,
    shelf: RepositoryShelf,
    on_open: Callable[[Opened], None],
    report: Callable[[str], None],
    stopped: asyncio.Event,
) -> None:
    async with open_hub(settings, shelf, clock=SystemClock(), report=report, stopped=stopped) as opened:
        if not stopped.is_set():
            on_open(opened)
            await stopped.wait()


@contextlib.asynccontextmanager
async def open_hub(
    settings: ServeSettings,
    shelf: RepositoryShelf,
    *,
    clock: Clock,
    report: Callable[[str], None] = lambda _: None,
    stopped: asyncio.Event | None = None,
) -> AsyncIterator[Opened]:
    """Serve on both ports of the settings as long as the block runs.

    The digests of all repositories are known before a port answers, so that no client waits for them.
    """
    with (
        _listen(settings.host, settings.port) as hub_socket,
        _listen(settings.host, settings.cdn_port) as cdn_socket,
        ThreadPoolExecutor(_READERS, thread_name_prefix="hub-readers") as readers,
    ):
        library = Library(shelf, readers)
        repo_ids = await _prepare(library, shelf, report, stopped)
        hub, cdn = _build(settings, shelf, library, readers, clock, cdn_port=cdn_socket.getsockname()[1])
        async with _answer(hub.handle, hub_socket), _answer(cdn.handle, cdn_socket):
            yield Opened(
                endpoint=_endpoint(settings.host, hub_socket),
                cdn_endpoint=_endpoint(settings.host, cdn_socket),
                repo_ids=tuple(repo_ids),
            )
        shelf.cancel()
        await library.close()


async def _prepare(
    library: Library, shelf: RepositoryShelf, report: Callable[[str], None], stopped: asyncio.Event | None
) -> list[str]:
    repo_ids = shelf.repo_ids()
    for repo_id in repo_ids:
        if stopped is not None and stopped.is_set():
            break
        snapshot = await library.snapshot(repo_id)
        for reason in snapshot.left_out if snapshot is not None else ():
            report(f"{repo_id}: left out: {reason}")
    return repo_ids


def _build(
    settings: ServeSettings,
    shelf: RepositoryShelf,
    library: Library,
    readers: ThreadPoolExecutor,
    clock: Clock,
    *,
    cdn_port: int,
) -> tuple[HubSite, CdnSite]:
    statistics = Statistics()
    faults = FaultBook()
    throttle = Throttle(settings.bandwidth_bytes_per_s, clock)
    courier = Courier(throttle, statistics, readers)
    exchange = Exchange(settings.latency_s, faults, statistics, courier)
    signer = AddressSigner(secrets.token_bytes(32), clock=clock, ttl_s=settings.address_ttl_s)
    writing = None
    if settings.writable:
        uploads = UploadShelf(settings.root)
        uploads.sweep()
        writing = Writing(
            shelf=uploads, library=library, signer=signer, cdn_port=cdn_port, throttle=throttle, writers=readers
        )
    hub = HubSite(
        library=library,
        shelf=shelf,
        signer=signer,
        cdn_port=cdn_port,
        token=settings.token,
        windows={
            Where.API: RateWindow("api", API_QUOTA, clock),
            Where.RESOLVE: RateWindow("resolvers", RESOLVERS_QUOTA, clock),
        },
        exchange=exchange,
        control=Control(statistics, faults if settings.faults else None),
        writing=writing,
    )
    return hub, CdnSite(library=library, shelf=shelf, signer=signer, exchange=exchange, writing=writing)


@contextlib.asynccontextmanager
async def _answer(handler: _Handler, listening: socket.socket) -> AsyncIterator[None]:
    server = web.Server(
        handler,
        # The loss of a connection ends its handler: that is how stalls and abandoned downloads end.
        handler_cancellation=True,
        access_log=None,
        max_line_size=_LONGEST_LINE_BYTES,
        max_field_size=_LONGEST_LINE_BYTES,
    )
    runner = web.ServerRunner(server, shutdown_timeout=_GOODBYE_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"cannot listen on {host!r}: {error.strerror}", "try --host 127.0.0.1") from error
    with socket.socket(family, kind, protocol) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Set here, since connections inherit it.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        try:
            listening.bind(address)
            listening.listen(128)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror}", "port 0 lets the system choose a free one"
            ) from error
        yield listening


def _endpoint(host: str, listening: socket.socket) -> str:
    # Who listens on all addresses is called on loopback.
    shown = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listening.getsockname()[1]}"
