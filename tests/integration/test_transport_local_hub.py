"""The transport against the local hub, which behaves as the real one."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reelstream.cancel import Cancellation, Cancelled
from reelstream.clock import SystemClock
from reelstream.errors import AccessDeniedError, HubError, NetworkError, NotFoundOnHubError
from reelstream.hubserver import HubProcess
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import RangeFinished, Retried
from reelstream.testing import FakeClock, Recorder
from reelstream.transport import HubClient, RemoteFile, Timeouts

TOKEN = "hf_verysecrettoken"
REPO_ID = "owner/data"
ARCHIVE = "part/part_videos_1.tar.gz"
CONTENT = random.Random(0).randbytes(3_000_000)


class ImpatientClock(SystemClock):
    """The machine's clock, but nobody waits by it."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.is_set()


@pytest.fixture(scope="module")
def running_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    root = tmp_path_factory.mktemp("hub")
    folder = root / REPO_ID / "part"
    folder.mkdir(parents=True)
    (folder / "part_videos_1.tar.gz").write_bytes(CONTENT)
    (folder / "part_cap.json").write_bytes(b"[]\n")
    (folder / "ünder %20#?.json").write_bytes(b'["a name that needs quoting"]')
    with HubProcess(root, token=TOKEN, faults=True) as hub:
        yield hub


@pytest.fixture
def hub(running_hub: HubProcess) -> HubProcess:
    running_hub.set_faults([])
    running_hub.reset_stats()
    return running_hub


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def telemetry(recorder: Recorder) -> Telemetry:
    return Telemetry(recorder)


@pytest.fixture
def client(hub: HubProcess, telemetry: Telemetry) -> Iterator[HubClient]:
    with HubClient(
        endpoint=hub.endpoint,
        token=TOKEN,
        telemetry=telemetry,
        clock=ImpatientClock(),
        timeouts=Timeouts(stall_s=1),
    ) as client:
        yield client


def archive_of(client: HubClient) -> RemoteFile:
    repository = client.repository(REPO_ID)
    return client.open(repository, next(file for file in repository.files if file.path == ARCHIVE))


def read(file: RemoteFile, first: int = 0, end: int | None = None) -> bytes:
    return b"".join(file.read(first, file.size_bytes if end is None else end, Cancellation()))


def path_stats(hub: HubProcess, path: str = ARCHIVE) -> dict[str, Any]:
    stats: dict[str, Any] = hub.stats()["paths"][f"{REPO_ID}/{path}"]
    return stats


def test_files_behind_the_cdn_and_at_the_hub_arrive_as_published(hub: HubProcess, client: HubClient) -> None:
    repository = client.repository(REPO_ID)
    assert {file.path: read(client.open(repository, file)) for file in repository.files} == {
        ARCHIVE: CONTENT,
        "part/part_cap.json": b"[]\n",
        "part/ünder %20#?.json": b'["a name that needs quoting"]',
    }
    # The CDN answers 400 where a token arrives.
    assert "400" not in hub.stats()["totals"]["statuses"]
    assert path_stats(hub)["bytes_sent"] == len(CONTENT)


def test_threads_share_one_address_and_no_byte_is_sent_twice(hub: HubProcess, client: HubClient) -> None:
    file = archive_of(client)
    borders = [*range(0, len(CONTENT), 100_000), len(CONTENT)]
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda pair: read(file, *pair), itertools.pairwise(borders)))
    assert b"".join(pieces) == CONTENT
    stats = path_stats(hub)
    assert stats["resolves"] == 1
    assert stats["bytes_sent"] == len(CONTENT)


@pytest.mark.parametrize("kind", ["reset", "cut_short", "stall"])
def test_a_range_that_breaks_goes_on_at_its_byte(
    kind: str, hub: HubProcess, client: HubClient, telemetry: Telemetry, recorder: Recorder
) -> None:
    file = archive_of(client)
    rule = {"match": ARCHIVE, "on": "cdn", "kind": kind}
    hub.set_faults([{**rule, "after_bytes": 700_000}, {**rule, "after_bytes": 0}, {**rule, "after_bytes": 1}])
    assert read(file, 1000) == CONTENT[1000:]
    assert telemetry.received_bytes == len(CONTENT) - 1000
    ranges = [event for event in recorder.events if isinstance(event, RangeFinished)]
    position = 1000
    for each in ranges:
        assert each.first_byte == position
        position += each.received_bytes
    assert position == len(CONTENT)
    assert sum(isinstance(event, Retried) for event in recorder.events) == 3


def test_an_expired_address_is_renewed(hub: HubProcess, client: HubClient) -> None:
    file = archive_of(client)
    assert read(file, 0, 1000) == CONTENT[:1000]
    hub.set_faults([{"match": ARCHIVE, "on": "cdn", "kind": "expire"}])
    assert read(file, 1000) == CONTENT[1000:]
    assert path_stats(hub)["resolves"] == 2


def test_an_address_that_is_refused_right_after_its_signing_is_an_error(hub: HubProcess, client: HubClient) -> None:
    file = archive_of(client)
    hub.set_faults([{"match": ARCHIVE, "on": "cdn", "kind": "status", "status": 403, "body": "banned", "times": 9}])
    with pytest.raises(AccessDeniedError, match="banned"):
        read(file)
    assert path_stats(hub)["resolves"] == 2


def test_a_busy_hub_is_waited_for(hub: HubProcess, client: HubClient, recorder: Recorder) -> None:
    hub.set_faults(
        [
            {"on": "api", "kind": "status", "status": 429, "headers": {"Retry-After": "7"}, "times": 2},
            {"on": "api", "kind": "reset"},
            {"on": "resolve", "kind": "status", "status": 502},
            {"on": "resolve", "kind": "stall"},
        ]
    )
    assert read(archive_of(client)) == CONTENT
    waits = [event.wait_s for event in recorder.events if isinstance(event, Retried)]
    assert len(waits) == 5
    assert all(7 <= wait_s <= 8 for wait_s in waits[:2])


@pytest.mark.parametrize(
    "fault",
    [
        {"match": ARCHIVE, "on": "cdn", "kind": "stall", "after_bytes": 500_000},
        {"match": ARCHIVE, "on": "cdn", "kind": "stall", "after_bytes": 0},
        {"match": ARCHIVE, "on": "resolve", "kind": "stall", "after_bytes": 0},
    ],
)
def test_cancellation_wakes_a_read_that_hears_nothing(fault: dict[str, Any], hub: HubProcess) -> None:
    cancellation = Cancellation()
    begun = threading.Event()

    def read_on(file: RemoteFile) -> int:
        received_bytes = 0
        with pytest.raises(Cancelled):
            for chunk in file.read(0, file.size_bytes, cancellation):
                received_bytes += len(chunk)
                if received_bytes >= fault["after_bytes"]:
                    begun.set()
        return received_bytes

    # By its own time-outs the read would end after an hour.
    patient = Timeouts(stall_s=3600)
    with HubClient(endpoint=hub.endpoint, token=TOKEN, telemetry=Telemetry(), timeouts=patient) as client:
        file = archive_of(client)
        hub.set_faults([fault])
        if not fault["after_bytes"]:
            begun.set()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read_on, file)
            begun.wait()
            cancellation.cancel()
            assert reading.result() == fault["after_bytes"]


def test_a_reader_that_hangs_up_leaves_the_client_usable(client: HubClient) -> None:
    file = archive_of(client)
    for _ in range(3):
        chunks = file.read(0, file.size_bytes, Cancellation())
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
    assert read(file) == CONTENT


def test_missing_things_are_told_apart(client: HubClient, hub: HubProcess) -> None:
    with pytest.raises(NotFoundOnHubError, match="no dataset repository owner/nothing"):
        client.repository("owner/nothing")
    with pytest.raises(NotFoundOnHubError, match="no revision 'nowhere'"):
        client.repository(REPO_ID, "nowhere")


def test_without_its_token_a_private_hub_says_what_to_do(hub: HubProcess, telemetry: Telemetry) -> None:
    client = HubClient(endpoint=hub.endpoint, token=False, telemetry=telemetry)
    with client, pytest.raises(HubError, match="HF_TOKEN"):
        client.repository(REPO_ID)


def test_without_a_network_the_error_comes_soon_and_names_the_settings() -> None:
    clock = FakeClock()
    client = HubClient(endpoint="http://127.0.0.1:9", token=False, telemetry=Telemetry(), clock=clock)
    with client, pytest.raises(NetworkError) as caught:
        client.repository(REPO_ID)
    assert "HF_ENDPOINT" in caught.value.hint
    assert sum(clock.waits_s) <= 30


FORKING_READER = """
import os, sys
from reelstream.cancel import Cancellation
from reelstream.telemetry import Telemetry
from reelstream.transport import HubClient

client = HubClient(telemetry=Telemetry())
repository = client.repository("owner/data")
file = client.open(repository, repository.files[1])

def read():
    return sum(len(chunk) for chunk in file.read(0, file.size_bytes, Cancellation()))

assert read() == file.size_bytes
child = os.fork()
if child == 0:
    os._exit(0 if read() == file.size_bytes else 1)
assert read() == file.size_bytes
_, status = os.waitpid(child, 0)
client.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_client_survives_a_fork_and_leaves_nothing_in_the_caches(hub: HubProcess, tmp_path: Path) -> None:
    environment = os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "huggingface"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING_READER],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.rglob("*")) == []
    assert path_stats(hub)["bytes_sent"] == 3 * len(CONTENT)
    assert path_stats(hub)["resolves"] == 2


def test_processes_of_one_machine_ask_once_for_an_address(hub: HubProcess, tmp_path: Path) -> None:
    shared = tmp_path / "hub.json"
    sharers = [
        subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("hub_sharer.py")),
                hub.endpoint,
                REPO_ID,
                ARCHIVE,
                shared,
                TOKEN,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    with contextlib.ExitStack() as stack:
        for sharer in sharers:
            stack.enter_context(sharer)
            assert sharer.stdout is not None
            assert sharer.stdout.readline() == "ready\n"
        for sharer in sharers:
            assert sharer.stdin is not None
            sharer.stdin.write("go\n")
            sharer.stdin.flush()
        answers = [sharer.communicate(timeout=60)[0] for sharer in sharers]
    assert answers == [hashlib.sha256(CONTENT).hexdigest() + "\n"] * 3
    assert path_stats(hub)["resolves"] == 1
    assert path_stats(hub)["bytes_sent"] == 3 * len(CONTENT)
