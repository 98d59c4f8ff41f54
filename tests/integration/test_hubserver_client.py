"""The hub as the real `huggingface_hub` client sees it."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, close_session
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from integration.hubserver_calls import write_files
from reelstream.hubserver import HubProcess

ARCHIVE = "0_30_s_x/0_30_s_x_videos_1.tar.gz"
FILES = {
    "README.md": b"# A dataset\n",
    ".gitattributes": b"*.gz filter=lfs\n",
    "0_30_s_x/0_30_s_x_cap.json": b'[{"id": "1"}]',
    ARCHIVE: random.Random(1).randbytes(700_000),
    "empty/nothing.json": b"",
    "large.json": b" " * 1_000_001,
    "é è/ 日本 #1?%41.json": "ü".encode(),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    write_files(root / "org/name", FILES)
    write_files(root / "org/gated", FILES)
    (root / "org/gated.gated").write_text("manual\nhf_friend\n")
    write_files(root / "org/many", {f"{number % 3}/{number:04}.json": b"[]" for number in range(1100)})
    return root


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[HubProcess]:
    with HubProcess(root) as hub:
        yield hub
        # The client's connections are pooled for the process; they would outlive their server.
        close_session()


@pytest.fixture
def api(hub: HubProcess) -> HfApi:
    hub.reset_stats()
    return HfApi(endpoint=hub.endpoint, token=False)


def test_dataset_info_names_commit_files_and_digests(api: HfApi) -> None:
    info = api.dataset_info("org/name", files_metadata=True)
    assert info.id == "org/name"
    assert info.sha is not None
    assert len(info.sha) == 40
    assert info.private is False
    assert info.gated is False
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert {path: sibling.size for path, sibling in siblings.items()} == {
        path: len(content) for path, content in FILES.items()
    }
    lfs = siblings[ARCHIVE].lfs
    assert lfs is not None
    assert lfs.sha256 == hashlib.sha256(FILES[ARCHIVE]).hexdigest()
    assert siblings["README.md"].lfs is None


def test_the_commit_is_accepted_as_a_revision(api: HfApi) -> None:
    commit = api.dataset_info("org/name").sha
    assert api.dataset_info("org/name", revision=commit).sha == commit
    assert api.list_repo_refs("org/name", repo_type="dataset").branches[0].target_commit == commit


def test_the_tree_lists_files_and_folders(api: HfApi) -> None:
    entries = list(api.list_repo_tree("org/name", repo_type="dataset", recursive=True, expand=True))
    assert {entry.path for entry in entries if isinstance(entry, RepoFile)} == set(FILES)
    assert {entry.path for entry in entries if isinstance(entry, RepoFolder)} == {"0_30_s_x", "empty", "é è"}
    large = {entry.path for entry in entries if isinstance(entry, RepoFile) and entry.lfs is not None}
    assert large == {ARCHIVE, "large.json"}
    below = list(api.list_repo_tree("org/name", "é è", repo_type="dataset"))
    assert [entry.path for entry in below] == ["é è/ 日本 #1?%41.json"]


def test_a_tree_of_many_files_comes_in_pages(api: HfApi, hub: HubProcess) -> None:
    entries = list(api.list_repo_tree("org/many", repo_type="dataset", recursive=True))
    assert len({entry.path for entry in entries}) == len(entries) == 1103
    assert hub.stats()["totals"]["api_calls"] == 2


def test_paths_info_answers_for_what_exists(api: HfApi) -> None:
    found = api.get_paths_info(
        "org/name", [ARCHIVE, "empty", "none", "é è/ 日本 #1?%41.json"], repo_type="dataset", expand=True
    )
    assert [entry.path for entry in found] == [ARCHIVE, "empty", "é è/ 日本 #1?%41.json"]
    assert isinstance(found[0], RepoFile)
    assert found[0].lfs is not None
    assert found[0].last_commit is not None


@pytest.mark.parametrize("path", sorted(FILES))
def test_every_file_downloads_as_it_is(api: HfApi, tmp_path: Path, path: str) -> None:
    local = api.hf_hub_download("org/name", path, repo_type="dataset", cache_dir=tmp_path)
    assert Path(local).read_bytes() == FILES[path]


def test_a_download_goes_to_the_folder_asked_for(api: HfApi, tmp_path: Path) -> None:
    api.snapshot_download("org/name", repo_type="dataset", local_dir=tmp_path, allow_patterns="0_30_s_x/*")
    assert (tmp_path / ARCHIVE).read_bytes() == FILES[ARCHIVE]


def test_file_metadata_names_commit_digest_and_size(api: HfApi, hub: HubProcess) -> None:
    for path, digest in (
        (ARCHIVE, hashlib.sha256(FILES[ARCHIVE]).hexdigest()),
        ("README.md", hashlib.sha1(b"blob 12\0" + FILES["README.md"]).hexdigest()),
    ):
        metadata = api.get_hf_file_metadata(url=f"{hub.endpoint}/datasets/org/name/resolve/main/{path}")
        assert metadata.commit_hash == api.dataset_info("org/name").sha
        assert metadata.etag == digest
        assert metadata.size == len(FILES[path])
        assert metadata.xet_file_data is None


def test_the_counts_say_what_a_download_cost(api: HfApi, hub: HubProcess, tmp_path: Path) -> None:
    api.hf_hub_download("org/name", ARCHIVE, repo_type="dataset", cache_dir=tmp_path)
    stats = hub.stats()
    size_bytes = len(FILES[ARCHIVE])
    assert stats["paths"] == {
        f"org/name/{ARCHIVE}": {
            "bytes_sent": size_bytes,
            "requests": 2,
            "resolves": 1,
            "statuses": {"200": 1, "302": 1},
            "ranges": [{"first": 0, "last": size_bytes - 1, "bytes_sent": size_bytes}],
            "ranges_left_out": 0,
        }
    }
    assert stats["totals"]["cdn_requests"] == 1


def test_what_does_not_exist_is_named_by_the_real_errors(api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("org/none")
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("org/none", token="hf_somebody")
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info("org/name", revision="none")
    with pytest.raises(RevisionNotFoundError):
        list(api.list_repo_tree("org/name", repo_type="dataset", revision="f" * 40))
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("org/name", "none", repo_type="dataset"))
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("org/name", "none", repo_type="dataset", cache_dir=tmp_path)


def test_a_gated_repository_lists_to_all_and_serves_to_those_with_access(api: HfApi, tmp_path: Path) -> None:
    info = api.dataset_info("org/gated")
    assert info.gated == "manual"
    assert len(info.siblings or []) == len(FILES)
    for token in (False, "hf_stranger"):
        with pytest.raises(GatedRepoError):
            api.hf_hub_download("org/gated", ARCHIVE, repo_type="dataset", cache_dir=tmp_path, token=token)
    local = api.hf_hub_download("org/gated", ARCHIVE, repo_type="dataset", cache_dir=tmp_path, token="hf_friend")
    assert Path(local).read_bytes() == FILES[ARCHIVE]


def test_a_private_hub_answers_to_its_token_only(root: Path, tmp_path: Path) -> None:
    with HubProcess(root, token="hf_secret") as hub:
        api = HfApi(endpoint=hub.endpoint, token=False)
        with pytest.raises(RepositoryNotFoundError):
            api.dataset_info("org/name")
        with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
            api.dataset_info("org/name", token="hf_wrong")
        assert api.dataset_info("org/name", token="hf_secret").private
        # The client must not hand its token on to the CDN, which would refuse it.
        local = api.hf_hub_download("org/name", ARCHIVE, repo_type="dataset", cache_dir=tmp_path, token="hf_secret")
        assert Path(local).read_bytes() == FILES[ARCHIVE]
        assert hub.stats()["paths"][f"org/name/{ARCHIVE}"]["statuses"] == {"200": 1, "302": 1}
        close_session()


def test_an_unchanged_client_needs_the_environment_only(hub: HubProcess, tmp_path: Path) -> None:
    program = (
        "from huggingface_hub import hf_hub_download\n"
        "print(open(hf_hub_download('org/name', 'README.md', repo_type='dataset')).read(), end='')"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True, timeout=120
    )
    assert done.stdout == FILES["README.md"]
