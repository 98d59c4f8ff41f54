"""Commits to the local hub, by the Hub's own client in a process that can be ended."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import AccessDeniedError, DiskError, NetworkError
from reelstream.hubserver import HubProcess
from reelstream.telemetry import Telemetry
from reelstream.transport import HubClient
from reelstream.transport.upload import CommitOrder, commit


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    root = tmp_path_factory.mktemp("hub")
    with HubProcess(root, writable=True, token="hf_right", faults=True) as hub:
        yield hub


def paths_of(hub: HubProcess, repo_id: str) -> list[str]:
    with HubClient(endpoint=hub.endpoint, token="hf_right", telemetry=Telemetry()) as client:
        return [file.path for file in client.repository(repo_id, kind="model").files]


def file_of(folder: Path, name: str, size_bytes: int) -> Path:
    path = folder / name
    path.write_bytes(b"x" * size_bytes)
    return path


def test_a_commit_makes_adds_and_deletes(hub: HubProcess, tmp_path: Path) -> None:
    weights, small = file_of(tmp_path, "a.safetensors", 2_000_000), file_of(tmp_path, "a.json", 10)
    order = CommitOrder(repo_id="me/run", message="1", create=True, files={"one/w": weights, "one/s.json": small})
    commit(order, endpoint=hub.endpoint, token="hf_right")
    assert paths_of(hub, "me/run") == ["one/s.json", "one/w"]
    order = CommitOrder(
        repo_id="me/run", message="2", files={"two/s.json": small}, deleted_folders=("one",), deleted_files=()
    )
    commit(order, endpoint=hub.endpoint, token="hf_right")
    assert paths_of(hub, "me/run") == ["two/s.json"]


def test_a_wrong_token_is_told_as_such_and_is_in_no_message(hub: HubProcess) -> None:
    with pytest.raises(AccessDeniedError) as caught:
        commit(CommitOrder(repo_id="me/x", message="", create=True), endpoint=hub.endpoint, token="hf_wrong12345")
    assert "hf_wrong" not in str(caught.value)


def test_a_file_that_is_gone_is_no_fault_of_the_hub(hub: HubProcess, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="gone"):
        commit(CommitOrder(repo_id="me/x", message="", files={"a": tmp_path / "a"}), endpoint=hub.endpoint, token=False)


def test_a_hub_that_fails_may_be_asked_again(hub: HubProcess) -> None:
    # The client itself tries five times.
    hub.set_faults([{"on": "api", "kind": "status", "status": 500, "match": "/api/repos/create", "times": 20}])
    with pytest.raises(NetworkError, match="500"):
        commit(CommitOrder(repo_id="me/y", message="", create=True), endpoint=hub.endpoint, token="hf_right")
    hub.set_faults([])


def test_a_stalled_upload_is_called_off_at_once(hub: HubProcess) -> None:
    hub.reset_stats()
    hub.set_faults([{"on": "api", "kind": "stall", "match": "/api/repos/create"}])
    cancellation = Cancellation()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            commit(
                CommitOrder(repo_id="me/z", message="", create=True),
                endpoint=hub.endpoint,
                token="hf_right",
                cancellation=cancellation,
            )
        except BaseException as error:  # noqa: BLE001 - shown to the test
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while hub.stats()["totals"]["requests"] == 0:
        thread.join(0.05)
    cancellation.cancel()
    thread.join(60)
    assert [type(error) for error in caught] == [Cancelled]


def test_the_child_leaves_with_its_parent() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "reelstream.transport.upload_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with child:
        assert child.stdin is not None
        # A host that never answers.
        child.stdin.write(
            b'{"endpoint": "http://127.0.0.1:9", "token": false, "create": true, "kind": "model", "private": true, '
            b'"repo_id": "a/b", "files": {}, "deleted_files": [], "deleted_folders": [], "message": ""}\n'
        )
        child.stdin.flush()
        child.stdin.close()
        assert child.wait(60) == 1
