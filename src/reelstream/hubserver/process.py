"""A hub in a process of its own, for tests and for the embedded hub of a run."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

from reelstream.errors import HubError, NetworkError
from reelstream.hubserver.extra import require_aiohttp

TOKEN_VARIABLE = "REELSTREAM_SERVE_TOKEN"  # noqa: S105 - a name, not a token
"""The environment variable from which `reelstream serve` takes its token, unless told."""

_START_TIMEOUT_S = 600.0
"""Long, since the digests of a large folder are computed first."""

_STOP_TIMEOUT_S = 10.0
_CALL_TIMEOUT_S = 60.0


class HubProcess:
    """Runs `reelstream serve` as a child process, as long as its `with` block runs.

    The child ends with this process, even where that is killed.

    Args:
        root: The folder that holds `<org>/<name>/...` repositories.
        bandwidth_bytes_per_s: Cap on all connections together; None for none.
        latency_s: Seconds added to each request.
        address_ttl_s: Seconds for which signed addresses are served.
        token: Where given, the hub answers to this token only.
        faults: Whether `set_faults` may be used.
        writable: Whether clients may make repositories and commit to them.
    """

    def __init__(
        self,
        root: Path,
        *,
        bandwidth_bytes_per_s: int | None = None,
        latency_s: float = 0,
        address_ttl_s: float = 3600,
        token: str | None = None,
        faults: bool = False,
        writable: bool = False,
    ) -> None:
        self._words = [
            str(root),
            "--exit-with-parent",
            "--latency",
            f"{latency_s}",
            "--address-ttl",
            f"{address_ttl_s}",
        ]
        if bandwidth_bytes_per_s is not None:
            self._words += ["--bandwidth", f"{bandwidth_bytes_per_s}"]
        if faults:
            self._words.append("--faults")
        if writable:
            self._words.append("--writable")
        self._token = token
        self._child: subprocess.Popen[bytes] | None = None
        self._talk: IO[bytes] | None = None
        self._endpoint: str | None = None

    def __enter__(self) -> Self:
        """Start the child and wait until it answers.

        Raises:
            MissingExtraError: Where aiohttp is not installed.
            HubError: Where the child ends instead, with what it said.
        """
        require_aiohttp()
        environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
        if self._token is not None:
            # Not among the arguments, which other users of the machine can read.
            environment[TOKEN_VARIABLE] = self._token
        # A file, since a pipe that nobody reads would fill up and stop the child.
        self._talk = tempfile.TemporaryFile()
        try:
            self._child = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "reelstream", "serve", *self._words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._talk,
                env=environment,
                # A Ctrl-C of the terminal is for this process, which then ends the child once it needs it no more.
                process_group=0,
            )
            self._endpoint = self._read_endpoint(self._child)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """The address for `HF_ENDPOINT`, such as `http://127.0.0.1:43211`."""
        if self._endpoint is None:
            raise RuntimeError("the hub is not running; use it in a `with` block")
        return self._endpoint

    @property
    def talk(self) -> str:
        """What the child has said on standard error so far; empty when it is not running."""
        if self._talk is None:
            return ""
        # The child writes where this descriptor stands, so it must not be moved.
        descriptor = self._talk.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode(errors="replace")

    def stats(self) -> dict[str, Any]:
        """Return what was asked and sent since the start or the last reset (see docs/reference/serve.md)."""
        stats: dict[str, Any] = self._call("GET", "/_stats")
        return stats

    def reset_stats(self) -> None:
        """Count from zero again."""
        self._call("POST", "/_reset")

    def set_faults(self, rules: Sequence[Mapping[str, Any]]) -> None:
        """Order these faults in place of those that are left.

        Raises:
            HubError: Where a rule is wrong, or the hub was not started with `faults=True`.
        """
        self._call("POST", "/_faults", json.dumps(list(rules)).encode())

    def close(self) -> None:
        """Stop the child and wait for its end; more than once does no harm."""
        child, self._child, self._endpoint = self._child, None, None
        if child is not None:
            # Leaving the block of a child closes its pipes and waits for its end.
            with child:
                child.terminate()
                try:
                    child.wait(_STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    child.kill()
        talk, self._talk = self._talk, None
        if talk is not None:
            talk.close()

    def _read_endpoint(self, child: subprocess.Popen[bytes]) -> str:
        assert child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            line = child.stdout.readline() if selector.select(_START_TIMEOUT_S) else b""
        word, _, endpoint = line.decode().strip().partition(" ")
        if word != "endpoint":
            raise HubError(f"the local hub did not start: {self.talk.strip() or 'it said nothing'}")
        return endpoint

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.endpoint + path, body, headers, method=method)  # noqa: S310
        # A proxy has no business between a process and its child.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_CALL_TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            raise HubError(f"the local hub answered {error.code} to {method} {path}: {said}") from error
        except OSError as error:
            raise NetworkError(f"the local hub at {self.endpoint} does not answer: {error}") from error
