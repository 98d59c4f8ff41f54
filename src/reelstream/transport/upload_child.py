"""The child of `upload`: carries out one order with the Hub's own client, and leaves."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any


def main() -> int:
    """Read an order from standard input, carry it out, say how it went on standard output."""
    order = json.loads(sys.stdin.readline())
    # Daemon: it waits for the end of an input that ends with the parent, however that went.
    threading.Thread(target=_leave_with_parent, name="upload-parent", daemon=True).start()
    answer = _outcome(order)
    print(json.dumps(answer), flush=True)  # noqa: T201 - it is read by the parent
    return 1 if "error" in answer else 0


def _leave_with_parent() -> None:
    while sys.stdin.read(4096):
        pass
    os._exit(1)


def _outcome(order: dict[str, Any]) -> dict[str, Any]:
    import httpx2  # noqa: PLC0415 - a second of imports, during which the parent may leave already
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415

    try:
        _carry_out(order)
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it
        causes = list(_chain(error))
        for cause in causes:
            if isinstance(cause, HfHubHTTPError):
                message = cause.server_message or str(cause).splitlines()[0]
                return {"error": message, "kind": "answer", "status": cause.response.status_code}
            if isinstance(cause, httpx2.TransportError | OfflineModeIsEnabled):
                return {"error": f"{type(cause).__name__}: {cause}", "kind": "network"}
            if isinstance(cause, FileNotFoundError | PermissionError):
                return {"error": str(cause), "kind": "file"}
        kind = "network" if any(isinstance(cause, OSError) for cause in causes) else "answer"
        return {"error": f"{type(error).__name__}: {error}", "kind": kind}
    return {"done": True}


def _carry_out(order: dict[str, Any]) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi  # noqa: PLC0415

    api = HfApi(endpoint=order["endpoint"], token=order["token"])
    if order["create"]:
        api.create_repo(order["repo_id"], repo_type=order["kind"], private=order["private"], exist_ok=True)
    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in order["files"].items()
    ]
    operations += [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in order["deleted_files"]]
    operations += [CommitOperationDelete(path_in_repo=f"{path}/", is_folder=True) for path in order["deleted_folders"]]
    if operations:
        api.create_commit(order["repo_id"], operations, commit_message=order["message"], repo_type=order["kind"])


def _chain(error: BaseException | None) -> list[BaseException]:
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


if __name__ == "__main__":
    sys.exit(main())
