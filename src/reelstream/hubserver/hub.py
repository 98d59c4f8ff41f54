"""The Hub's own port: what it knows of repositories, and where their files are."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote

from aiohttp import web
from yarl import URL

from reelstream.hubserver import listing
from reelstream.hubserver.answers import (
    Answer,
    FilePart,
    disposition,
    file_answer,
    hub_error,
    json_answer,
    text_answer,
)
from reelstream.hubserver.control import Control
from reelstream.hubserver.exchange import Exchange
from reelstream.hubserver.faults import Where
from reelstream.hubserver.library import Library
from reelstream.hubserver.ranges import ByteRange, parse_range
from reelstream.hubserver.rate_windows import RateWindow
from reelstream.hubserver.repositories import Gate, HubFile, RepositoryShelf, Snapshot
from reelstream.hubserver.routes import CHANGES, CREATE_PATH, QUESTIONS, Route, RouteKind, parse_hub_path
from reelstream.hubserver.signing import AddressSigner
from reelstream.hubserver.writing import Writing

_LARGEST_QUESTION_BYTES = 16 << 20
_TRUE = {"true", "1"}


class HubSite:
    """Answers on the Hub's port.

    Args:
        library: The repositories, read in threads.
        shelf: The same, for opening files.
        signer: Signs addresses on the CDN.
        cdn_port: Port of the CDN, on the host by which the client knows the Hub.
        token: The token to ask for, or None.
        windows: The rate windows of API calls and resolves.
        exchange: The stations of each request.
        control: Answers to the paths that begin with an underscore.
        writing: Takes what clients change; None on a hub that is only read.
    """

    def __init__(
        self,
        *,
        library: Library,
        shelf: RepositoryShelf,
        signer: AddressSigner,
        cdn_port: int,
        token: str | None,
        windows: Mapping[Where, RateWindow],
        exchange: Exchange,
        control: Control,
        writing: Writing | None = None,
    ) -> None:
        self._library = library
        self._shelf = shelf
        self._signer = signer
        self._cdn_port = cdn_port
        self._token = token
        self._windows = windows
        self._exchange = exchange
        self._control = control
        self._writing = writing

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        raw_path = request.rel_url.raw_path
        if raw_path.startswith("/_"):
            return await self._control.handle(request, self._refuse_token(request))
        route = parse_hub_path(raw_path)
        where = Where.RESOLVE if route is not None and route.kind is RouteKind.RESOLVE else Where.API
        path = route.path if route is not None else ""
        return await self._exchange.run(request, where, path, lambda: self._answer(request, route, where))

    async def _answer(self, request: web.BaseRequest, route: Route | None, where: Where) -> Answer:
        if _knows_our_name(request):
            answer = await self._answer_without_limits(request, route)
        else:
            answer = hub_error(400, None, "The Host header is no host")
        answer.headers = {**answer.headers, **self._windows[where].count()}
        return answer

    async def _answer_without_limits(self, request: web.BaseRequest, route: Route | None) -> Answer:
        refused = self._refuse_token(request)
        if refused is not None:
            return refused
        if request.rel_url.raw_path == CREATE_PATH and request.method == "POST":
            return _read_only() if self._writing is None else await self._writing.create(request)
        if route is None:
            return hub_error(404, None, "Sorry, we can't find the page you are looking for.")
        return await self._answer_route(request, route)

    async def _answer_route(self, request: web.BaseRequest, route: Route) -> Answer:
        methods = {"POST"} if route.kind in QUESTIONS | CHANGES else {"GET", "HEAD"}
        if request.method not in methods:
            return hub_error(405, None, "Method not allowed", {"Allow": ", ".join(sorted(methods))})
        snapshot = await self._library.snapshot(route.repo_id)
        if snapshot is None:
            return _no_such_repository(request)
        if route.revision not in {"main", "refs/heads/main", snapshot.commit}:
            return hub_error(404, "RevisionNotFound", "Invalid rev id")
        if route.kind in CHANGES:
            if self._writing is None:
                return _read_only()
            return _refuse_at_gate(request, snapshot.gate) or await self._writing.change(request, route, snapshot)
        return await self._describe(request, route, snapshot)

    def _refuse_token(self, request: web.BaseRequest) -> Answer | None:
        if self._token is None:
            return None
        given = _bearer(request)
        if given is None:
            return hub_error(401, "RepoNotFound", "Invalid username or password.")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return hub_error(401, None, "Invalid credentials in Authorization header")
        return None

    async def _describe(self, request: web.BaseRequest, route: Route, snapshot: Snapshot) -> Answer:
        match route.kind:
            case RouteKind.RESOLVE:
                return self._resolve(request, route, snapshot)
            case RouteKind.TREE:
                return _tree(request, route, snapshot)
            case RouteKind.PATHS_INFO:
                return await _paths_info(request, snapshot)
            case RouteKind.AUTH_CHECK:
                return _refuse_at_gate(request, snapshot.gate) or json_answer({})
            case RouteKind.REFS:
                return json_answer(listing.refs(snapshot))
            case _:
                return _info(request, snapshot, private=self._token is not None)

    def _resolve(self, request: web.BaseRequest, route: Route, snapshot: Snapshot) -> Answer:
        refused = _refuse_at_gate(request, snapshot.gate)
        if refused is not None:
            return refused
        about = {"X-Repo-Commit": snapshot.commit, "Accept-Ranges": "bytes"}
        file = snapshot.files.get(route.path)
        if file is None:
            return hub_error(404, "EntryNotFound", "Entry not found", about)
        counted_path = f"{snapshot.repo_id}/{file.path}"
        if file.large:
            return self._redirect(request, counted_path, file, about)
        descriptor = self._shelf.open(file)
        if descriptor is None:
            return hub_error(404, "EntryNotFound", "Entry not found", about)
        headers = {
            **about,
            "ETag": f'"{file.oid}"',
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Disposition": disposition(file.path),
        }
        part = FilePart(descriptor, ByteRange(0, file.size_bytes))
        return file_answer(part, request.headers, headers, counted_path=counted_path)

    def _redirect(self, request: web.BaseRequest, name: str, file: HubFile, about: Mapping[str, str]) -> Answer:
        bound = parse_range(request.headers.get("Range"))
        query = self._signer.sign(name, file.sha256, bound)
        address = URL.build(
            scheme="http",
            # The name by which the client reaches the Hub, since an address it listens on need not be one to call.
            host=request.url.host or "",
            port=self._cdn_port,
            path="/" + quote(name),
            query_string="&".join(f"{key}={quote(value, safe='')}" for key, value in query.items()),
            encoded=True,
        )
        headers = {
            **about,
            "Location": str(address),
            "X-Linked-Etag": f'"{file.sha256}"',
            "X-Linked-Size": str(file.size_bytes),
            "ETag": f'"{file.sha256}"',
            "Cache-Control": "no-store",
        }
        answer = text_answer(302, f"Found. Redirecting to {address}", headers)
        answer.counted_path = name
        return answer


def _read_only() -> Answer:
    return hub_error(403, None, "This hub is only read; start it with --writable")


def _knows_our_name(request: web.BaseRequest) -> bool:
    """Return whether the Host header, from which redirects and next pages are built, is one."""
    try:
        return bool(request.url.host)
    except ValueError:
        return False


def _no_such_repository(request: web.BaseRequest) -> Answer:
    # The real Hub does not tell strangers what does not exist from what they may not see.
    if _bearer(request) is None:
        return hub_error(401, "RepoNotFound", "Invalid username or password.")
    return hub_error(404, "RepoNotFound", "Repository not found")


def _info(request: web.BaseRequest, snapshot: Snapshot, *, private: bool) -> Answer:
    expand = request.query.getall("expand", [])
    return json_answer(listing.dataset_info(snapshot, blobs=_flag(request, "blobs"), private=private, expand=expand))


async def _paths_info(request: web.BaseRequest, snapshot: Snapshot) -> Answer:
    try:
        paths, expand = await _read_question(request)
    except ValueError as error:
        return hub_error(400, None, str(error))
    return json_answer(listing.paths_info(snapshot, paths, expand=expand))


def _tree(request: web.BaseRequest, route: Route, snapshot: Snapshot) -> Answer:
    limit = request.query.get("limit", "")
    try:
        page = listing.tree_page(
            snapshot,
            route.path.strip("/"),
            recursive=_flag(request, "recursive"),
            expand=_flag(request, "expand"),
            cursor=request.query.get("cursor"),
            limit=int(limit) if limit.isdecimal() else None,
        )
    except ValueError as error:
        return hub_error(400, None, str(error))
    if page is None:
        about = {"X-Repo-Commit": snapshot.commit}
        return hub_error(404, "EntryNotFound", "The folder does not exist on this revision", about)
    if page.cursor is None:
        return json_answer(page.entries)
    following = request.url.update_query(cursor=page.cursor)
    return json_answer(page.entries, {"Link": f'<{following}>; rel="next"'})


def _refuse_at_gate(request: web.BaseRequest, gate: Gate | None) -> Answer | None:
    token = _bearer(request)
    if gate is None or token in gate.tokens:
        return None
    if token is None:
        message = (
            "Access to this dataset is restricted. You must have access to it and be authenticated to access it. "
            "Please log in."
        )
        return hub_error(401, "GatedRepo", message)
    message = (
        "Access to this dataset is restricted and you are not in the authorized list. Visit its page to ask for access."
    )
    return hub_error(403, "GatedRepo", message)


async def _read_question(request: web.BaseRequest) -> tuple[list[str], bool]:
    """Return paths and `expand` of a paths-info request, which may be JSON or a form."""
    text = await _read_body(request)
    if request.content_type == "application/json":
        try:
            document: Any = json.loads(text)
        except ValueError as error:
            raise ValueError("The body is not JSON") from error
        if not isinstance(document, dict):
            raise ValueError("The body is not a JSON object")
        paths, expand = document.get("paths"), document.get("expand", False)
        if isinstance(paths, str):
            paths = [paths]
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise ValueError('"paths" must be a list of strings')
        return paths, bool(expand)
    try:
        form = parse_qs(text.decode(), keep_blank_values=True)
    except UnicodeDecodeError as error:
        raise ValueError("The form is not UTF-8") from error
    if "paths" not in form:
        raise ValueError('"paths" is missing')
    return form["paths"], form.get("expand", ["false"])[-1].lower() in _TRUE


async def _read_body(request: web.BaseRequest) -> bytes:
    body = bytearray()
    async for block in request.content.iter_any():
        body += block
        if len(body) > _LARGEST_QUESTION_BYTES:
            raise ValueError("The body is too large")
    return bytes(body)


def _flag(request: web.BaseRequest, name: str) -> bool:
    return request.query.get(name, "").lower() in _TRUE


def _bearer(request: web.BaseRequest) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
