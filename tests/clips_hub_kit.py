"""A repository of archives of all kinds on a local Hub, and the commands that ask for single clips of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from archive_entry_kit import media
from indexes_kit import tar, tar_gz, zipped
from reelstream.cli.main import main
from reelstream.hubserver import HubProcess

REPO_ID = "me/videos"
_DEADLINE_S = 60.0

SHORTS = {f"a/{number}.mp4": media(number, 1_200_000) for number in range(5)}
MORE = {f"b/{number}.mp4": media(10 + number, 300_000) for number in range(4)}
PLAIN = {f"c/{number}.mp4": media(20 + number, 200_000) for number in range(3)}
PACKED = {f"d/{number}.mp4": media(30 + number, 250_000) for number in range(3)}
LOOSE = media(40, 150_000)

SHORTS_PATH, MORE_PATH = "shorts/videos_1.tar.gz", "shorts/videos_2.tar.gz"
PLAIN_PATH, PACKED_PATH, LOOSE_PATH = "plain/all.tar", "packed/all.zip", "shorts/e/loose.mp4"
ALL_CLIPS = SHORTS | MORE | PLAIN | PACKED | {"e/loose.mp4": LOOSE}


def write_repository(root: Path) -> None:
    """Write the repository, for a Hub to serve from `root`."""
    for path, content in {
        SHORTS_PATH: tar_gz(SHORTS),
        MORE_PATH: tar_gz(MORE),
        PLAIN_PATH: tar(PLAIN),
        PACKED_PATH: zipped(PACKED),
        LOOSE_PATH: LOOSE,
        "shorts/shorts_cap.json": b"[]",
    }.items():
        file = root / REPO_ID / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


class Client:
    """Runs the commands with a cache folder of its own, and tells what they asked the Hub for."""

    def __init__(self, hub: HubProcess, cache_dir: Path) -> None:
        self.hub = hub
        self.options = ["--endpoint", hub.endpoint, "--cache-dir", str(cache_dir)]
        self.cache_dir = cache_dir
        hub.reset_stats()

    def run(self, command: str, *words: str) -> int:
        """Run a command in this process; return its exit code."""
        self.hub.reset_stats()
        return main([command, REPO_ID, *words, *self.options])

    def asked(self, path: str) -> dict[str, Any]:
        """Return what the last command asked for of a file of the repository."""
        nothing = {"bytes_sent": 0, "requests": 0, "resolves": 0, "ranges": []}
        asked: dict[str, Any] = self.hub.stats()["paths"].get(f"{REPO_ID}/{path}", nothing)
        return asked

    def bytes_of(self, path: str) -> int:
        return int(self.asked(path)["bytes_sent"])

    def ranges_of(self, path: str) -> int:
        return len(self.asked(path)["ranges"])

    def kept(self) -> set[str]:
        """Return the names of the files that the commands have kept."""
        return {path.name for path in self.cache_dir.rglob("*") if path.is_file()}

    def begin(self, command: str, *words: str, before: str = "") -> RunningCommand:
        """Run a command in a process of its own.

        Args:
            command: The command.
            words: Its arguments, but those of each.
            before: Python to run in that process first.
        """
        self.hub.reset_stats()
        return RunningCommand(self, [command, REPO_ID, *words, *self.options], before)


class RunningCommand:
    """A command in a process of its own, which tells its progress often; killed when the block ends."""

    def __init__(self, client: Client, words: list[str], before: str) -> None:
        self._client = client
        code = (
            f"from reelstream.cli import progress; progress._LINE_EVERY_S = 0.02\n{before}\n"
            f"import sys; from reelstream.cli.main import main; sys.exit(main({words!r}))"
        )
        # A file, since it is read while the process writes it.
        self._talk = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=self._talk,
            text=True,
            env=dict(os.environ),
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process, self._talk:
            if self.process.poll() is None:
                self.process.kill()

    @property
    def talk(self) -> str:
        """What the process has said so far."""
        # The process writes where this descriptor stands, so it must not be moved.
        descriptor = self._talk.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()

    def wait_until_stalled(self, path: str, size_bytes: int) -> None:
        """Wait until the Hub has sent so much of a file, and the process has worked it off."""
        self._wait_until(lambda: self._client.bytes_of(path) >= size_bytes)
        lines_before = self.talk.count("\n")
        self._wait_until(lambda: any("read, 0 B/s" in line for line in self.talk.splitlines()[lines_before + 2 :]))

    def _wait_until(self, is_true: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + _DEADLINE_S
        while not is_true():
            code = self.process.poll()
            assert code is None, f"ended with {code}: {self.talk}"
            assert time.monotonic() < deadline_s, f"it did not come to that: {self.talk}"
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.01)

    def end_by(self, number: signal.Signals | None = None) -> tuple[int, str, str]:
        """Wait for the end, after a signal where one is given; return exit code and what went to both streams."""
        if number is not None:
            self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=_DEADLINE_S)
        return self.process.returncode, out, self.talk
