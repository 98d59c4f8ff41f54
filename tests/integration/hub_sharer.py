"""A process that reads a file of a Hub when it is told to: `hub_sharer.py ENDPOINT REPO PATH SHARED TOKEN`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from reelstream.cancel import Cancellation
from reelstream.telemetry import Telemetry
from reelstream.transport import HubClient


def main() -> None:
    endpoint, repo_id, path, shared, token = sys.argv[1:]
    with HubClient(endpoint=endpoint, token=token, telemetry=Telemetry(), shared=Path(shared)) as client:
        repository = client.repository(repo_id)
        remote = client.open(repository, next(file for file in repository.files if file.path == path))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        content = b"".join(remote.read(0, remote.size_bytes, Cancellation()))
        sys.stdout.write(hashlib.sha256(content).hexdigest() + "\n")


if __name__ == "__main__":
    main()
