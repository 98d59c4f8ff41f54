"""The client: repositories pinned to a commit, and files of them opened for reading."""

from __future__ import annotations

import dataclasses
import email.utils
import json
import os
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

import reelstream
from reelstream.cancel import Cancellation
from reelstream.clock import Clock, SystemClock
from reelstream.errors import AccessDeniedError, ConfigError, HubError, NetworkError
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import AddressResolved
from reelstream.transport.addresses import Address, AddressBook, fresh_for_s, lifetime_s
from reelstream.transport.answers import Refusal, Subject, refusal_error
from reelstream.transport.failure import PassingFailure, without_secrets
from reelstream.transport.lines import Lines, Origin, Reply, Timeouts
from reelstream.transport.patience import Patience
from reelstream.transport.ranges import FileAccess, RemoteFile
from reelstream.transport.retry import RetryPolicy, asked_wait_s, is_passing
from reelstream.transport.shared import SharedAddresses
from reelstream.types import Repository, RepositoryFile, RepositoryKind

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_SHOWN_BODY_BYTES = 4096
# A page of the file list holds 1,000 entries; the description of a repository names all its files.
_LARGEST_METADATA_BYTES = 256 * 1024 * 1024

_ENDPOINT_HINT = "write one like https://huggingface.co, in HF_ENDPOINT or in the configuration"

_T = TypeVar("_T")


class _Session:
    """What belongs to one process and must not cross a fork: connections, locks, addresses."""

    def __init__(self, lines: Lines, clock: Clock) -> None:
        self.lines = lines
        self.addresses = AddressBook(clock)


class HubClient:
    """Reads a Hub with patience. Any number of threads may use one client; it connects at its first use.

    Failures that may pass (broken or silent connections, 429, 5xx) are tried again with growing waits, for minutes;
    each retry is a `Retried` event. The token goes to the endpoint's own host only.

    Args:
        endpoint: The Hub; `HF_ENDPOINT`, or `https://huggingface.co`, where None.
        token: A token; None takes the one of `HF_TOKEN` or `hf auth login` where there is one, True insists on it,
            False goes without.
        telemetry: Hears of addresses, ranges, retries and bytes.
        clock: The time; the machine's where None.
        give_up_after_s: Failures without progress for so long are a `NetworkError`.
        timeouts: How long silence is borne.
        shared: A file in which the processes of one machine share addresses, and the Hub's requests to wait; see
            `share`.
        transport: Stands in for the network, in tests.

    Raises:
        ConfigError: Where `endpoint` is not an address.
    """

    def __init__(
        self,
        *,
        endpoint: str | None = None,
        token: str | bool | None = None,
        telemetry: Telemetry,
        clock: Clock | None = None,
        give_up_after_s: float = 600.0,
        timeouts: Timeouts | None = None,
        shared: Path | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.endpoint = _checked_endpoint(endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
        self._origin = Origin.of(self.endpoint)
        self._token = token
        self._telemetry = telemetry
        self._clock = clock or SystemClock()
        self._policy = RetryPolicy(give_up_after_s=give_up_after_s)
        self._timeouts = timeouts or Timeouts()
        self._transport = transport
        self._shared: SharedAddresses | None = None
        if shared is not None:
            self.share(shared)
        self._sessions: dict[int, _Session] = {}
        self._plain_headers = {
            "User-Agent": f"reelstream/{reelstream.__version__}",
            # Ranges count bytes of the file, not of a compressed form of it.
            "Accept-Encoding": "identity",
        }

    def __repr__(self) -> str:
        return f"HubClient({self.endpoint!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; reads under way end by themselves, later ones connect anew."""
        session = self._sessions.pop(os.getpid(), None)
        if session is not None:
            session.lines.close()

    def share(self, path: Path) -> None:
        """From now on look for addresses in a file that other processes of this machine use too.

        What one of them was told, by the Hub, the others need not ask; where the Hub asks one to wait, all do. The file
        is made where its folder exists, readable by this user only, and never larger than 128 KiB. Where it cannot be
        used, or is gone, each process asks by itself.
        """
        self._shared = SharedAddresses(path, self._clock)

    def repository(
        self,
        repo_id: str,
        revision: str | None = None,
        *,
        kind: RepositoryKind = "dataset",
        cancellation: Cancellation | None = None,
    ) -> Repository:
        """Pin a repository to a commit and list all its files.

        Args:
            repo_id: `owner/name`.
            revision: A branch, a tag or a commit; the default branch where None.
            kind: What it holds.
            cancellation: Calls the work off.

        Raises:
            ConfigError: Where `repo_id` cannot be the name of a repository.
            NotFoundOnHubError: Where there is no such repository or revision.
            AccessDeniedError: Where the Hub wants a token, or another one.
            NetworkError: Where the Hub cannot be reached.
        """
        _check_repo_id(repo_id)
        cancellation = cancellation or Cancellation()
        subject = self._subject(repo_id, revision, kind)
        base = f"{self.endpoint}/api/{kind}s/{repo_id}"
        about = f"{base}/revision/{urllib.parse.quote(revision, safe='')}" if revision else base
        description, _ = self._json(about, subject, cancellation)
        commit = description.get("sha") if isinstance(description, dict) else None
        if not isinstance(commit, str):
            raise HubError(f"{self.endpoint} names no commit of {subject}")
        files: list[RepositoryFile] = []
        page: str | None = f"{base}/tree/{commit}?recursive=true&expand=false"
        while page is not None:
            entries, page = self._json(page, subject, cancellation)
            files.extend(_files_of(entries, subject))
        files.sort(key=lambda file: file.path)
        return Repository(repo_id=repo_id, commit=commit, files=tuple(files), kind=kind)

    def open(self, repository: Repository, file: RepositoryFile) -> RemoteFile:
        """Return `file` for reading; asks nothing yet."""
        subject = dataclasses.replace(
            self._subject(repository.repo_id, repository.commit, repository.kind), path=file.path
        )
        prefix = "datasets/" if repository.kind == "dataset" else ""
        place = f"{prefix}{repository.repo_id}/resolve/{repository.commit}"
        url = f"{self.endpoint}/{place}/{urllib.parse.quote(file.path)}"

        def address(cancellation: Cancellation) -> Address:
            return self._session().addresses.address(
                url, lambda: self._found_or_resolved(url, subject, cancellation), cancellation
            )

        def drop_address(refused: Address) -> None:
            self._session().addresses.drop(url, refused)
            if self._shared is not None:
                self._shared.drop(url, refused)

        return RemoteFile(
            file,
            FileAccess(
                clock=self._clock,
                telemetry=self._telemetry,
                subject=subject,
                lines=lambda: self._session().lines,
                address=address,
                drop_address=drop_address,
                hub_headers=self._hub_headers,
                cdn_headers=self._plain_headers,
                patience=self._patience,
            ),
        )

    def _session(self) -> _Session:
        # One for each process: after a fork, sockets and locks belong to the parent. `setdefault` is atomic, and no
        # lock of ours is needed, which a fork could find taken.
        pid = os.getpid()
        session = self._sessions.get(pid)
        if session is None:
            session = self._sessions.setdefault(pid, _Session(Lines(self._timeouts, self._transport), self._clock))
        return session

    def _subject(self, repo_id: str, revision: str | None, kind: RepositoryKind) -> Subject:
        signed_in = "Authorization" in self._hub_headers()
        return Subject(endpoint=self.endpoint, repo_id=repo_id, revision=revision, signed_in=signed_in, kind=kind)

    def _patience(self, subject: Subject, cancellation: Cancellation) -> Patience:
        return Patience(
            self._policy,
            clock=self._clock,
            telemetry=self._telemetry,
            cancellation=cancellation,
            label=subject.label,
            endpoint=self.endpoint,
        )

    def _hub_headers(self) -> dict[str, str]:
        # Asked each time: tokens that were got by a browser are renewed by `huggingface_hub` as they age.
        token = _find_token(self._token)
        return self._plain_headers | ({"Authorization": f"Bearer {token}"} if token else {})

    def _found_or_resolved(self, url: str, subject: Subject, cancellation: Cancellation) -> Address:
        """Return an address that another process of the machine has got, or ask the Hub."""
        if self._shared is None:
            return self._resolve(url, subject, cancellation)
        with self._shared.turn(url, cancellation) as found:
            if found is not None:
                return found
            address = self._resolve(url, subject, cancellation)
            self._shared.put(url, address, cancellation)
            return address

    def _resolve(self, url: str, subject: Subject, cancellation: Cancellation) -> Address:
        """Ask the Hub for a file's address. Without a Range header: it would be signed into the address."""
        started_s = self._clock.monotonic()

        def read(url: str, reply: Reply) -> Address:
            return self._address_named_by(url, reply, subject)

        address = self._ask_hub("HEAD", url, subject, cancellation, read)
        self._telemetry.emit(AddressResolved(path=subject.label, wait_s=self._clock.monotonic() - started_s))
        return address

    def _address_named_by(self, url: str, reply: Reply, subject: Subject) -> Address:
        at_hub = reply.status not in _REDIRECTS
        target = url if at_hub else _redirect_target(url, reply, subject)
        life_s = lifetime_s(target, wall_s=_moment_of(reply.headers, self._clock.wall()))
        return Address(url=target, at_hub=at_hub, fresh_until_s=self._clock.monotonic() + fresh_for_s(life_s))

    def _json(self, url: str, subject: Subject, cancellation: Cancellation) -> tuple[Any, str | None]:
        """Return an API's answer and the address of its next page."""

        def read(url: str, reply: Reply) -> tuple[Any, str | None]:
            if reply.status in _REDIRECTS:
                raise HubError(f"{self.endpoint} sends {subject} to another host", "set HF_ENDPOINT to that one")
            text = reply.body(_LARGEST_METADATA_BYTES)
            try:
                value = json.loads(text)
            except ValueError as error:
                raise HubError(f"{self.endpoint} answered {subject} with something that is not JSON") from error
            return value, _next_page(url, reply.headers, self._origin)

        return self._ask_hub("GET", url, subject, cancellation, read)

    def _ask_hub(
        self,
        method: str,
        url: str,
        subject: Subject,
        cancellation: Cancellation,
        read: Callable[[str, Reply], _T],
    ) -> _T:
        """Ask the Hub's own host, again and again where need be; follow redirects that stay there."""

        def once() -> _T:
            here = url
            self._keep_silent_with_the_others(cancellation)
            for _ in range(_MOST_REDIRECTS):
                with self._session().lines.ask(method, here, self._hub_headers(), cancellation) as reply:
                    self._raise_for_status(reply, subject, cancellation)
                    if reply.status not in _REDIRECTS:
                        return read(here, reply)
                    target = _redirect_target(here, reply, subject)
                    if Origin.of(target) != self._origin:
                        return read(here, reply)
                    here = target
            raise HubError(f"{self.endpoint} sends {subject} round in circles")

        _refuse_when_offline(self.endpoint)
        return self._patience(subject, cancellation).insist(once)

    def _keep_silent_with_the_others(self, cancellation: Cancellation) -> None:
        silent_s = self._shared.silent_s(cancellation) if self._shared is not None else 0.0
        if silent_s > 0:
            raise PassingFailure(f"{self._origin.host} asked another process to wait", asked_s=silent_s)

    def _raise_for_status(self, reply: Reply, subject: Subject, cancellation: Cancellation) -> None:
        if is_passing(reply.status):
            asked_s = asked_wait_s(reply.status, reply.headers, self._clock.wall())
            if asked_s is not None and self._shared is not None:
                self._shared.keep_silent(asked_s, cancellation)
            raise PassingFailure(f"{self._origin.host} answered {reply.status}", asked_s=asked_s)
        if reply.status >= 400:
            raise refusal_error(Refusal.of(reply.status, reply.headers, reply.body(_SHOWN_BODY_BYTES)), subject)


def _checked_endpoint(endpoint: str) -> str:
    try:
        url = httpx2.URL(endpoint)
    except httpx2.InvalidURL as error:
        raise ConfigError(f"{endpoint!r} is no address of a Hub: {error}", _ENDPOINT_HINT) from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigError(f"{endpoint!r} is no address of a Hub", _ENDPOINT_HINT)
    return endpoint.rstrip("/")


def _check_repo_id(repo_id: str) -> None:
    # Imported late, as below: a second of imports that `reelstream --help` need not wait for.
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415
    from huggingface_hub.utils._validators import validate_repo_id  # noqa: PLC0415

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(
            f"{repo_id!r} cannot be the name of a repository", "write `owner/name`, as in lmms-lab/LLaVA-Video-178K"
        ) from error


def _find_token(token: str | bool | None) -> str | None:
    """Return the token to send, by the rules of `huggingface_hub`."""
    if isinstance(token, str):
        return token
    from huggingface_hub import constants, get_token  # noqa: PLC0415

    if token is False or (token is None and constants.HF_HUB_DISABLE_IMPLICIT_TOKEN):
        return None
    found = get_token()
    if found is None and token is True:
        raise AccessDeniedError("a token was asked for, and this machine has none", "`hf auth login`, or set HF_TOKEN")
    return found


def _refuse_when_offline(endpoint: str) -> None:
    from huggingface_hub import constants  # noqa: PLC0415

    if constants.is_offline_mode():
        raise NetworkError(f"{endpoint} was not asked: offline mode is on", "unset HF_HUB_OFFLINE")


def _moment_of(headers: Mapping[str, str], wall_s: float) -> float:
    """Return the server's time: its addresses expire by its clock, not by ours."""
    try:
        return email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return wall_s


def _redirect_target(url: str, reply: Reply, subject: Subject) -> str:
    target = urllib.parse.urljoin(url, reply.headers.get("location", ""))
    try:
        usable = target != url and httpx2.URL(target).scheme in {"http", "https"} and bool(Origin.of(target).host)
    except (httpx2.InvalidURL, ValueError):
        usable = False
    if not usable:
        raise HubError(f"{Origin.of(url).host} redirects {subject} to {without_secrets(target)!r}, which is no address")
    return target


def _next_page(url: str, headers: Mapping[str, str], origin: Origin) -> str | None:
    """Return the address in `Link: <...>; rel="next"`, where it stays with the Hub."""
    for link in headers.get("link", "").split(","):
        target, _, parameters = link.partition(">")
        if "<" in target and 'rel="next"' in parameters:
            address = urllib.parse.urljoin(url, target.split("<", 1)[1])
            return address if Origin.of(address) == origin else None
    return None


def _files_of(entries: object, subject: Subject) -> list[RepositoryFile]:
    """Return the files in one page of a tree listing."""
    try:
        return [_file_of(entry) for entry in entries if entry["type"] == "file"]  # type: ignore[attr-defined]
    except (KeyError, TypeError, ValueError) as error:
        raise HubError(f"{subject.endpoint} lists the files of {subject} in a form that is not known") from error


def _file_of(entry: Mapping[str, Any]) -> RepositoryFile:
    lfs = entry.get("lfs") or {}
    return RepositoryFile(
        path=str(entry["path"]), size_bytes=int(lfs.get("size", entry["size"])), sha256=lfs.get("oid")
    )
