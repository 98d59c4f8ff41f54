"""How a writable hub is changed, as the Hub's client asks for it: make a repository, upload large files, commit.

```
POST /api/repos/create
POST /api/KIND/ORG/NAME/preupload/main          which files are large
POST /ORG/NAME.git/info/lfs/objects/batch       where the contents of large files go
PUT  CDN/.uploads/SIZE/SHA256?signature         one content, streamed to disk
POST /ORG/NAME.git/info/lfs/objects/verify
POST /api/KIND/ORG/NAME/commit/main             all paths at once
```

What changes something must come with a content type that a page in a browser cannot send unasked.
"""

from __future__ import annotations

import asyncio
import json
import re
from concurrent.futures import Executor
from functools import partial
from typing import Any

from aiohttp import web
from yarl import URL

from reelstream.hubserver.answers import Answer, hub_error, json_answer, storage_error
from reelstream.hubserver.bandwidth import Throttle
from reelstream.hubserver.large_files import is_large
from reelstream.hubserver.library import Library
from reelstream.hubserver.repositories import Snapshot
from reelstream.hubserver.routes import MODELS_FOLDER, Route, RouteKind
from reelstream.hubserver.signing import AddressSigner
from reelstream.hubserver.uploads import UPLOADS_FOLDER, RefusedError, UploadShelf, checked_repo_id, parse_commit

_LARGEST_BODY_BYTES = 64 << 20
_JSON_TYPES = frozenset({"application/json", "application/vnd.git-lfs+json"})
_COMMIT_TYPES = frozenset({"application/x-ndjson"})
_UPLOAD_PATH = re.compile(rf"/{re.escape(UPLOADS_FOLDER)}/(\d{{1,15}})/([0-9a-f]{{64}})")


class Writing:
    """Takes what clients change.

    Args:
        shelf: Where it goes.
        library: Told of each change, and asked what is there.
        signer: Signs and checks the addresses that contents are put to.
        cdn_port: Where those addresses are.
        throttle: Uploads share the cap on bytes a second with downloads.
        writers: Threads to write in.
    """

    def __init__(
        self,
        *,
        shelf: UploadShelf,
        library: Library,
        signer: AddressSigner,
        cdn_port: int,
        throttle: Throttle,
        writers: Executor,
    ) -> None:
        self._shelf = shelf
        self._library = library
        self._signer = signer
        self._cdn_port = cdn_port
        self._throttle = throttle
        self._writers = writers

    async def create(self, request: web.BaseRequest) -> Answer:
        """Make a repository; 409 where it is there already, as on the Hub."""
        try:
            document = await _json(request)
            repo_id = checked_repo_id(document.get("organization"), document.get("name"), document.get("type"))
            made = await self._library.change(repo_id, partial(self._shelf.create, repo_id))
        except RefusedError as error:
            return hub_error(400, None, str(error))
        url = f"{request.url.origin()}/{_public_name(repo_id)}"
        if not made:
            return json_answer({"error": "You already created this repository", "url": url}, status=409)
        return json_answer({"url": url, "name": _public_name(repo_id)})

    async def change(self, request: web.BaseRequest, route: Route, snapshot: Snapshot) -> Answer:
        """Answer one step on the way to a commit."""
        try:
            match route.kind:
                case RouteKind.PREUPLOAD:
                    return json_answer({"files": _modes(await _json(request), snapshot)})
                case RouteKind.LFS_BATCH:
                    return self._batch(request, await _json(request), snapshot)
                case RouteKind.LFS_VERIFY:
                    return self._verify(await _json(request), snapshot)
                case _:
                    return await self._commit(request, snapshot)
        except RefusedError as error:
            return hub_error(400, None, str(error))

    async def upload(self, request: web.BaseRequest) -> Answer:
        """Take one content at a signed address."""
        match = _UPLOAD_PATH.fullmatch(request.rel_url.raw_path)
        if match is None:
            return storage_error(404, "NoSuchKey", "The specified key does not exist")
        if self._signer.check(match.group(0), dict(request.query), None) is not None:
            return storage_error(403, "SignatureDoesNotMatch", "The request signature does not match, or has expired")
        size_bytes, sha256 = int(match.group(1)), match.group(2)
        if request.content_length != size_bytes:
            return storage_error(400, "IncompleteBody", "The body has another size than was announced")
        loop = asyncio.get_running_loop()
        reception = self._shelf.receive(sha256)
        try:
            async for block in request.content.iter_any():
                await self._throttle.turn(len(block))
                await loop.run_in_executor(self._writers, reception.write, block)
            await loop.run_in_executor(self._writers, reception.finish)
        except RefusedError as error:
            return storage_error(400, "BadDigest", str(error))
        except OSError:
            return storage_error(507, "InsufficientStorage", "The disk refuses")
        finally:
            reception.close()
        return Answer(status=200, headers={"ETag": f'"{sha256[:32]}"'})

    # ------------------------------------------------------------------ inside

    def _batch(self, request: web.BaseRequest, document: dict[str, Any], snapshot: Snapshot) -> Answer:
        objects = []
        for sha256, size_bytes in _objects(document):
            entry: dict[str, Any] = {"oid": sha256, "size": size_bytes}
            if not self._shelf.has(sha256, snapshot):
                verify = f"{request.url.origin()}{request.rel_url.raw_path.removesuffix('batch')}verify"
                upload = {"href": self._address(request, sha256, size_bytes)}
                entry["actions"] = {"upload": upload, "verify": {"href": verify}}
            objects.append(entry)
        return json_answer({"transfer": "basic", "objects": objects})

    def _address(self, request: web.BaseRequest, sha256: str, size_bytes: int) -> str:
        path = f"/{UPLOADS_FOLDER}/{size_bytes}/{sha256}"
        query = self._signer.sign(path, sha256, None)
        return str(URL.build(scheme="http", host=request.url.host or "", port=self._cdn_port, path=path, query=query))

    def _verify(self, document: dict[str, Any], snapshot: Snapshot) -> Answer:
        (sha256, _), *_ = _objects({"objects": [document]})
        return (
            json_answer({}) if self._shelf.has(sha256, snapshot) else hub_error(404, None, "There is no such content")
        )

    async def _commit(self, request: web.BaseRequest, snapshot: Snapshot) -> Answer:
        commit = parse_commit(await _body(request, _COMMIT_TYPES))
        if commit.parent not in {None, snapshot.commit}:
            return hub_error(412, None, "A commit has happened since")
        await self._library.change(snapshot.repo_id, partial(self._shelf.apply, snapshot.repo_id, commit, snapshot))
        changed = await self._library.snapshot(snapshot.repo_id)
        oid = snapshot.commit if changed is None else changed.commit
        url = f"{request.url.origin()}/{_public_name(snapshot.repo_id)}/commit/{oid}"
        return json_answer({"success": True, "commitUrl": url, "commitOid": oid, "hookOutput": ""})


def _modes(document: dict[str, Any], snapshot: Snapshot) -> list[dict[str, Any]]:
    files = document.get("files")
    if not isinstance(files, list):
        raise RefusedError('"files" must be a list')
    return [_mode(file, snapshot) for file in files]


def _mode(file: Any, snapshot: Snapshot) -> dict[str, Any]:
    try:
        path, size_bytes = str(file["path"]), int(file["size"])
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError("A file has no path or no size") from error
    large = is_large(path, size_bytes)
    known = snapshot.files.get(path)
    oid = None if known is None else known.sha256 if known.large else known.oid
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}


def _objects(document: dict[str, Any]) -> list[tuple[str, int]]:
    try:
        pairs = [(str(each["oid"]), int(each["size"])) for each in document["objects"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedError("An object has no oid or no size") from error
    if any(re.fullmatch(r"[0-9a-f]{64}", oid) is None or size_bytes < 0 for oid, size_bytes in pairs):
        raise RefusedError("An oid is no SHA-256, or a size is negative")
    return pairs


def _public_name(repo_id: str) -> str:
    model = repo_id.removeprefix(f"{MODELS_FOLDER}/")
    return model if model != repo_id else f"datasets/{repo_id}"


async def _json(request: web.BaseRequest) -> dict[str, Any]:
    try:
        document = json.loads(await _body(request, _JSON_TYPES))
    except ValueError as error:
        raise RefusedError("The body is not JSON") from error
    if not isinstance(document, dict):
        raise RefusedError("The body is not a JSON object")
    return document


async def _body(request: web.BaseRequest, types: frozenset[str]) -> bytes:
    if request.content_type not in types:
        raise RefusedError(f"The content type must be {' or '.join(sorted(types))}")
    body = bytearray()
    async for block in request.content.iter_any():
        body += block
        if len(body) > _LARGEST_BODY_BYTES:
            raise RefusedError("The body is too large")
    return bytes(body)
