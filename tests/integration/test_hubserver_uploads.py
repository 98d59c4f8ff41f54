"""A writable hub as the real client changes it, and as somebody with bad intentions would."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, close_session
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RepositoryNotFoundError

from reelstream.errors import ConfigError
from reelstream.hubserver import HubProcess
from reelstream.hubserver.settings import ServeSettings

# The client's own way to send a file, in huggingface_hub 2.4.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

LARGE = random.Random(2).randbytes(300_000)


@pytest.fixture(scope="module", autouse=True)
def without_xet() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[HubProcess]:
    with HubProcess(root, writable=True) as hub:
        yield hub
        close_session()


@pytest.fixture
def api(hub: HubProcess) -> HfApi:
    return HfApi(endpoint=hub.endpoint, token=False)


def commit(api: HfApi, repo_id: str, files: dict[str, bytes], delete: tuple[str, ...] = (), **options: Any) -> str:
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()
    ]
    operations += [CommitOperationDelete(path_in_repo=path) for path in delete]
    made = api.create_commit(repo_id, list(operations), commit_message="a test", **options)
    return str(made.oid)


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".reelstream-digests.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def post(url: str, body: bytes, content_type: str) -> int:
    request = urllib.request.Request(url, body, {"Content-Type": content_type}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def put(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_what_is_committed_is_served_and_what_is_deleted_is_gone(api: HfApi, root: Path, tmp_path: Path) -> None:
    api.create_repo("me/run", private=True)
    with pytest.raises(HfHubHTTPError):
        api.create_repo("me/run")
    api.create_repo("me/run", exist_ok=True)
    first = {"step-00000001/model.safetensors": LARGE, "step-00000001/manifest.json": b"{}", "empty.json": b""}
    oid = commit(api, "me/run", first)
    assert files_of(root / ".models/me/run") == first
    assert api.model_info("me/run").sha == oid
    assert sorted(api.list_repo_files("me/run")) == sorted(first)
    path = api.hf_hub_download("me/run", "step-00000001/model.safetensors", local_dir=tmp_path)
    assert Path(path).read_bytes() == LARGE

    # The same content at another path is not sent again.
    second = {"step-00000002/model.safetensors": LARGE, "step-00000002/manifest.json": b"[]"}
    commit(api, "me/run", second, delete=("step-00000001/",))
    assert files_of(root / ".models/me/run") == {**second, "empty.json": b""}
    assert list((root / ".uploads").iterdir()) == []


def test_models_and_datasets_of_one_name_are_two_repositories(api: HfApi, root: Path) -> None:
    api.create_repo("me/twice")
    api.create_repo("me/twice", repo_type="dataset")
    commit(api, "me/twice", {"a.txt": b"model"})
    commit(api, "me/twice", {"b.txt": b"dataset"}, repo_type="dataset")
    assert api.list_repo_files("me/twice") == ["a.txt"]
    assert api.list_repo_files("me/twice", repo_type="dataset") == ["b.txt"]
    assert files_of(root / "me/twice") == {"b.txt": b"dataset"}


def test_a_commit_for_another_state_of_the_repository_is_refused(api: HfApi) -> None:
    api.create_repo("me/race")
    parent = commit(api, "me/race", {"a.txt": b"1"})
    commit(api, "me/race", {"a.txt": b"2"})
    with pytest.raises(HfHubHTTPError, match="412"):
        commit(api, "me/race", {"a.txt": b"3"}, parent_commit=parent)


def test_there_is_no_commit_without_a_repository(api: HfApi) -> None:
    with pytest.raises(RepositoryNotFoundError):
        commit(api, "me/nothing", {"a.txt": b"1"})


@pytest.mark.parametrize("path", ["../out", "a/../../out", "/etc/x", "a//b", ".git/config", "link/x", "a\0b"])
def test_no_path_leads_out_of_the_repository(path: str, api: HfApi, hub: HubProcess, root: Path) -> None:
    api.create_repo("me/safe", exist_ok=True)
    link = root / ".models/me/safe/link"
    if not link.is_symlink():
        link.symlink_to(root)
    before = files_of(root)
    for operation in (
        {"key": "file", "value": {"path": path, "content": base64.b64encode(b"x").decode(), "encoding": "base64"}},
        {"key": "deletedFolder", "value": {"path": path}},
    ):
        body = b"\n".join(json.dumps(line).encode() for line in ({"key": "header", "value": {}}, operation))
        url = f"{hub.endpoint}/api/models/me/safe/commit/main"
        assert post(url, body, "application/x-ndjson") == 400
    assert files_of(root) == before


@pytest.mark.parametrize("name", ["..", ".models/x", "a/b/c", "a b", "x.git", "", "a%2fb"])
def test_no_repository_gets_another_name_than_owner_and_name(name: str, hub: HubProcess, root: Path) -> None:
    before = sorted(root.rglob("*"))
    body = json.dumps({"organization": "me", "name": name, "type": "model"}).encode()
    assert post(f"{hub.endpoint}/api/repos/create", body, "application/json") == 400
    assert sorted(root.rglob("*")) == before


def test_a_page_in_a_browser_cannot_commit(api: HfApi, hub: HubProcess) -> None:
    api.create_repo("me/browser")
    url = f"{hub.endpoint}/api/models/me/browser/commit/main"
    line = json.dumps({"key": "file", "value": {"path": "a", "content": "x"}}).encode()
    assert post(url, line, "text/plain") == 400
    assert post(f"{hub.endpoint}/api/repos/create", b'{"organization": "a", "name": "b"}', "text/plain") == 400
    assert api.list_repo_files("me/browser") == []


def batch(hub: HubProcess, content: bytes) -> str:
    body = {"objects": [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}]}
    request = urllib.request.Request(
        f"{hub.endpoint}/me/signed.git/info/lfs/objects/batch",
        json.dumps(body).encode(),
        {"Content-Type": "application/vnd.git-lfs+json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        href: str = json.load(response)["objects"][0]["actions"]["upload"]["href"]
        return href


def test_an_address_takes_the_content_it_was_signed_for_and_no_other(api: HfApi, hub: HubProcess, root: Path) -> None:
    api.create_repo("me/signed")
    href = batch(hub, b"hello")
    assert put(href, b"jello") == 400
    assert put(href, b"hello, all") == 400
    assert put(href.replace("signature=", "signature=0"), b"hello") == 403
    other = hashlib.sha256(b"other").hexdigest()
    assert put(urllib.parse.urlsplit(href)._replace(path=f"/.uploads/5/{other}").geturl(), b"other") == 403
    assert list((root / ".uploads").iterdir()) == []
    assert put(href, b"hello") == 200
    # Not committed, it is served nowhere.
    assert api.list_repo_files("me/signed") == []


def test_a_hub_that_is_only_read_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "me/data").mkdir(parents=True)
    with HubProcess(tmp_path) as hub:
        api = HfApi(endpoint=hub.endpoint, token=False)
        with pytest.raises(HfHubHTTPError, match="403"):
            api.create_repo("me/run")
        with pytest.raises((HfHubHTTPError, BadRequestError), match="403"):
            commit(api, "me/data", {"a.txt": b"1"}, repo_type="dataset")
        close_session()
    assert files_of(tmp_path) == {}


def test_a_private_hub_takes_changes_from_its_token_only(tmp_path: Path) -> None:
    with HubProcess(tmp_path, writable=True, token="hf_right") as hub:
        with pytest.raises(HfHubHTTPError, match="401"):
            HfApi(endpoint=hub.endpoint, token="hf_wrong").create_repo("me/run")
        api = HfApi(endpoint=hub.endpoint, token="hf_right")
        api.create_repo("me/run")
        commit(api, "me/run", {"model.safetensors": LARGE})
        close_session()
    assert files_of(tmp_path / ".models") == {"me/run/model.safetensors": LARGE}


def test_what_no_commit_took_is_gone_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / ".uploads").mkdir()
    (tmp_path / ".uploads/left").write_bytes(b"x")
    with HubProcess(tmp_path, writable=True):
        assert not os.path.lexists(tmp_path / ".uploads/left")


def test_a_writable_hub_that_others_reach_wants_a_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="token"):
        ServeSettings(root=tmp_path, host="0.0.0.0", writable=True)
    ServeSettings(root=tmp_path, host="0.0.0.0", writable=True, token="hf_right")
