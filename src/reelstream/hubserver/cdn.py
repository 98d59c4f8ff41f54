"""The CDN's port: serves signed addresses, and nothing else."""

from __future__ import annotations

import hashlib
from email.utils import formatdate

from aiohttp import web

from reelstream.hubserver.answers import Answer, FilePart, disposition, file_answer, storage_error, text_answer
from reelstream.hubserver.exchange import Exchange, expired
from reelstream.hubserver.faults import Where
from reelstream.hubserver.library import Library
from reelstream.hubserver.ranges import ByteRange, parse_range
from reelstream.hubserver.repositories import HubFile, RepositoryShelf
from reelstream.hubserver.routes import parse_cdn_path
from reelstream.hubserver.signing import AddressSigner, Refusal
from reelstream.hubserver.writing import Writing


class CdnSite:
    """Answers on the CDN's port.

    Args:
        library: The repositories, read in threads.
        shelf: The same, for what is known already and for opening files.
        signer: Checks addresses.
        exchange: The stations of each request.
        writing: Takes uploads; None on a hub that is only read.
    """

    def __init__(
        self,
        *,
        library: Library,
        shelf: RepositoryShelf,
        signer: AddressSigner,
        exchange: Exchange,
        writing: Writing | None = None,
    ) -> None:
        self._library = library
        self._shelf = shelf
        self._signer = signer
        self._exchange = exchange
        self._writing = writing

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        named = parse_cdn_path(request.rel_url.raw_path)
        path = named[1] if named is not None else ""
        return await self._exchange.run(request, Where.CDN, path, lambda: self._answer(request, named))

    async def _answer(self, request: web.BaseRequest, named: tuple[str, str] | None) -> Answer:
        if request.method == "PUT" and self._writing is not None:
            return await self._writing.upload(request)
        if request.method not in {"GET", "HEAD"}:
            return storage_error(405, "MethodNotAllowed", "The specified method is not allowed")
        if "Authorization" in request.headers:
            # A store that is handed two ways to sign in refuses both.
            message = "Only one auth mechanism allowed; only the signed query or the Authorization header"
            return storage_error(400, "InvalidArgument", message)
        if named is None:
            return storage_error(404, "NoSuchKey", "The specified key does not exist")
        repo_id, path = named
        # One value a name, so that what is checked is what is used.
        query = dict(request.query)
        refusal = self._signer.check(f"{repo_id}/{path}", query, parse_range(request.headers.get("Range")))
        if refusal is not None:
            return self._refused(refusal, repo_id, path)
        return await self._file(request, repo_id, path, query["sha256"])

    async def _file(self, request: web.BaseRequest, repo_id: str, path: str, sha256: str) -> Answer:
        # What the resolve has read is good as long as the file stays as it was; only then is it read anew.
        snapshot = self._shelf.latest(repo_id)
        for _ in range(2):
            file = snapshot.files.get(path) if snapshot is not None else None
            descriptor = self._shelf.open(file) if file is not None and file.sha256 == sha256 else None
            if file is not None and descriptor is not None:
                part = FilePart(descriptor, ByteRange(0, file.size_bytes))
                return file_answer(part, request.headers, _headers(file), counted_path=f"{repo_id}/{path}")
            snapshot = await self._library.snapshot(repo_id)
        return storage_error(404, "NoSuchKey", "The specified key does not exist")

    def _refused(self, refusal: Refusal, repo_id: str, path: str) -> Answer:
        if refusal is Refusal.BAD_SIGNATURE:
            # Nothing in such an address can be trusted, so it is not counted under the path that it names.
            return storage_error(403, "SignatureDoesNotMatch", "The request signature does not match")
        answer = expired() if refusal is Refusal.EXPIRED else text_answer(403, "Auth failed: invalid range")
        answer.counted_path = f"{repo_id}/{path}"
        return answer


def _headers(file: HubFile) -> dict[str, str]:
    return {
        "ETag": f'"{hashlib.sha256(b"cdn " + file.sha256.encode()).hexdigest()[:32]}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "public, max-age=31536000",
        "Content-Type": "application/octet-stream",
        "Content-Disposition": disposition(file.path),
        "Last-Modified": formatdate(file.mtime_ns // 10**9, usegmt=True),
    }
