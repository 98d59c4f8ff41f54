"""What every place for checkpoints does, for each kind of place there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import BudgetTooSmallError, HubError, ReelstreamError, StateError
from reelstream.hubserver import HubProcess
from reelstream.train.checkpoints import load_newest
from reelstream.train.remote.folder import FolderRemote
from reelstream.train.remote.hub import HubRemote
from reelstream.train.remote.place import HubPlace
from reelstream.train.remote.pulling import pull_newest
from reelstream.train.remote.remote import Remote
from reelstream.transport import upload, upload_child
from remote_kit import bundle_of, files_of, run_with_checkpoints

# The client's own way to send a file, in huggingface_hub 2.4.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NOW = Cancellation()


@pytest.fixture(scope="module", autouse=True)
def commits_in_this_process() -> Iterator[None]:
    """Spare the second that each child takes to start; `test_transport_upload` has them."""
    patch = pytest.MonkeyPatch()
    patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    patch.setattr("reelstream.train.remote.hub.commit", _commit)
    yield
    patch.undo()
    close_session()


def _commit(order: upload.CommitOrder, *, endpoint: str, token: object, cancellation: Cancellation) -> None:
    cancellation.raise_if_cancelled()
    answer = upload_child._outcome({**upload._as_json(order), "endpoint": endpoint, "token": token})
    if "error" in answer:
        raise upload._error_of(answer, order, endpoint)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(tmp_path_factory.mktemp("hub"), writable=True) as hub:
        hub.root = Path(hub._words[0])  # type: ignore[attr-defined]
        yield hub


@pytest.fixture(params=["folder", "repository", "folder of a repository"])
def remote(request: pytest.FixtureRequest, tmp_path: Path, hub: HubProcess) -> Iterator[Remote]:
    if request.param == "folder":
        folder = FolderRemote(tmp_path / "mounted")
        folder.prepare(NOW)
        yield folder
        return
    name = f"me/run-{abs(hash(str(tmp_path)))}"
    place = HubPlace(repo_id=name, folder="" if request.param == "repository" else "runs/first")
    with HubRemote(place, endpoint=hub.endpoint, token=False) as repository:
        repository.prepare(NOW)
        yield repository


def place_of(remote: Remote, hub: HubProcess, tmp_path: Path) -> Path:
    """Return where the bytes lie."""
    if isinstance(remote, FolderRemote):
        return tmp_path / "mounted"
    return hub.root / ".models" / str(remote).removeprefix("hf://")  # type: ignore[attr-defined,no-any-return]


def test_what_was_pushed_comes_back_byte_for_byte(remote: Remote, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "a", 5)
    remote.push(bundle_of(tmp_path / "a", 5), keep=1, cancellation=NOW)
    assert remote.steps(NOW) == [5]
    told: list[str] = []
    assert pull_newest(remote, tmp_path / "b", tell=told.append) == 5
    assert files_of(tmp_path / "b") == files_of(tmp_path / "a")
    assert len(told) == 1
    assert str(remote) in told[0]
    checkpoint = load_newest(tmp_path / "b/checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == 5


def test_older_ones_beyond_those_to_keep_go_and_so_do_those_of_a_future_given_up(
    remote: Remote, tmp_path: Path
) -> None:
    run_with_checkpoints(tmp_path / "a", 1, 2, 3, 9)
    for step, there in ((1, [1]), (2, [1, 2]), (9, [2, 9]), (3, [2, 3])):
        remote.push(bundle_of(tmp_path / "a", step), keep=2, cancellation=NOW)
        assert remote.steps(NOW) == there


def test_indexes_follow_those_of_the_run(remote: Remote, hub: HubProcess, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "a", 1, 2)
    remote.push(bundle_of(tmp_path / "a", 1), keep=1, cancellation=NOW)
    (tmp_path / "a/indexes/abc.reelindex").rename(tmp_path / "a/indexes/def.reelindex")
    remote.push(bundle_of(tmp_path / "a", 2), keep=1, cancellation=NOW)
    indexes = [path for path in files_of(place_of(remote, hub, tmp_path)) if path.startswith("indexes/")]
    assert indexes == ["indexes/def.reelindex"]


def test_a_checkpoint_with_one_wrong_byte_is_passed_over_for_the_one_before(
    remote: Remote, hub: HubProcess, tmp_path: Path
) -> None:
    run_with_checkpoints(tmp_path / "a", 1, 2)
    for step in (1, 2):
        remote.push(bundle_of(tmp_path / "a", step), keep=2, cancellation=NOW)
    weights = place_of(remote, hub, tmp_path) / "step-00000002/model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    told: list[str] = []
    assert pull_newest(remote, tmp_path / "b", tell=told.append) == 1
    assert any("step-00000002" in sentence for sentence in told)
    assert sorted(path.name for path in (tmp_path / "b/checkpoints").iterdir()) == ["step-00000001"]


def test_an_upload_that_is_not_finished_is_never_taken(remote: Remote, hub: HubProcess, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "a", 1, 2)
    for step in (1, 2):
        remote.push(bundle_of(tmp_path / "a", step), keep=2, cancellation=NOW)
    (place_of(remote, hub, tmp_path) / "step-00000002/manifest.json").unlink()
    assert remote.steps(NOW) == [1]
    assert pull_newest(remote, tmp_path / "b") == 1


def test_where_all_are_damaged_that_is_said(remote: Remote, hub: HubProcess, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "a", 1)
    remote.push(bundle_of(tmp_path / "a", 1), keep=1, cancellation=NOW)
    (place_of(remote, hub, tmp_path) / "step-00000001/model.safetensors").write_bytes(b"")
    with pytest.raises(StateError, match="step-00000001"):
        pull_newest(remote, tmp_path / "b")
    assert list((tmp_path / "b/checkpoints").iterdir()) == []


def test_only_what_is_newer_is_fetched(remote: Remote, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "a", 4)
    remote.push(bundle_of(tmp_path / "a", 4), keep=1, cancellation=NOW)
    assert pull_newest(remote, tmp_path / "b", newer_than=4) is None
    assert not (tmp_path / "b").exists()


def test_a_checkpoint_beyond_the_disk_budget_is_not_begun(remote: Remote, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "a", 4)
    remote.push(bundle_of(tmp_path / "a", 4), keep=1, cancellation=NOW)
    with pytest.raises(BudgetTooSmallError):
        pull_newest(remote, tmp_path / "b", limit_bytes=1000)
    assert not (tmp_path / "b").exists()


def test_clearing_takes_the_run_and_nothing_else(remote: Remote, hub: HubProcess, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "a", 4)
    remote.push(bundle_of(tmp_path / "a", 4), keep=1, cancellation=NOW)
    place = place_of(remote, hub, tmp_path)
    (place / "README.md").write_text("mine")
    (place / "step-notes").mkdir()
    (place / "step-notes/a.txt").write_text("mine, too")
    remote.clear(NOW)
    assert files_of(place) == {"README.md": b"mine", "step-notes/a.txt": b"mine, too"}
    assert remote.steps(NOW) == []


def test_what_is_called_off_leaves_nothing(remote: Remote, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "a", 4)
    gone = Cancellation()
    gone.cancel()
    with pytest.raises(Cancelled):
        remote.push(bundle_of(tmp_path / "a", 4), keep=1, cancellation=gone)
    assert remote.steps(NOW) == []
    remote.push(bundle_of(tmp_path / "a", 4), keep=1, cancellation=NOW)
    with pytest.raises(Cancelled):
        pull_newest(remote, tmp_path / "b", cancellation=gone)
    assert files_of(tmp_path) == {
        path: content for path, content in files_of(tmp_path).items() if not path.startswith("b/")
    }


def test_a_file_that_vanishes_fails_the_push_and_keeps_what_was_there(remote: Remote, tmp_path: Path) -> None:
    run_with_checkpoints(tmp_path / "a", 1, 2)
    remote.push(bundle_of(tmp_path / "a", 1), keep=1, cancellation=NOW)
    torn = bundle_of(tmp_path / "a", 2)
    (torn.checkpoint / "model.safetensors").unlink()
    (torn.checkpoint / "model.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ReelstreamError):
        remote.push(torn, keep=1, cancellation=NOW)
    assert remote.steps(NOW) == [1]


def test_a_place_that_is_not_there_is_an_error_and_not_an_empty_one(hub: HubProcess, tmp_path: Path) -> None:
    with pytest.raises(ReelstreamError):
        FolderRemote(tmp_path / "unmounted").steps(NOW)
    with (
        HubRemote(HubPlace(repo_id="me/nothing"), endpoint=hub.endpoint, token=False) as remote,
        pytest.raises(HubError),
    ):
        remote.steps(NOW)
