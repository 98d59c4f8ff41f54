"""The hub as a process: how it starts, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reelstream.errors import HubError, NetworkError
from reelstream.hubserver import HubProcess

PARENT = """
import sys, time
from pathlib import Path
from reelstream.hubserver import HubProcess
with HubProcess(Path(sys.argv[1])) as hub:
    print(hub._child.pid, flush=True)
    time.sleep(600)
"""


def test_a_hub_ends_with_its_block(tmp_path: Path) -> None:
    with HubProcess(tmp_path) as hub:
        child = hub._child
        assert child is not None
        assert hub.endpoint.startswith("http://127.0.0.1:")
        assert hub.stats()["totals"]["requests"] == 0
    assert child.returncode == 0
    hub.close()
    with pytest.raises(RuntimeError, match="not running"):
        _ = hub.endpoint


def test_a_hub_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="is not a folder"), HubProcess(tmp_path / "none"):
        pass


def test_a_hub_that_is_gone_is_reported(tmp_path: Path) -> None:
    with HubProcess(tmp_path) as hub:
        assert hub._child is not None
        hub._child.kill()
        hub._child.wait()
        with pytest.raises(NetworkError, match="does not answer"):
            hub.stats()


def test_a_hub_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        descriptor = os.pidfd_open(child_pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        try:
            # A pidfd becomes readable when its process has ended, whoever its parent is by then.
            import select

            assert select.select([descriptor], [], [], 60)[0]
        finally:
            os.close(descriptor)


def test_importing_the_package_imports_neither_aiohttp_nor_torch() -> None:
    program = (
        "import sys, reelstream.hubserver, reelstream.cli.serve; print({'aiohttp', 'torch', 'av'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=120)
    assert done.stdout == "set()\n"


def test_a_served_hub_imports_no_torch(tmp_path: Path) -> None:
    program = "import sys, reelstream.hubserver.server; print({'torch', 'av', 'pyarrow', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=120)
    assert done.stdout == "set()\n"
