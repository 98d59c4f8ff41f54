"""What the pages' blocks find: a Hub with the sample dataset, also under the real one's name, and a folder."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from docs.docs_kit import REPOSITORY
from reelstream.hubserver import HubProcess
from reelstream.sampledata import SampleOptions, make_sample

REAL_REPO_ID = "lmms-lab/LLaVA-Video-178K"


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A Hub with `sample/llava-video-mini`, and the same as a stand-in for the real dataset."""
    root = tmp_path_factory.mktemp("hub")
    options = SampleOptions(num_clips=24, seed=1, clip_bytes=60_000, min_duration_s=1, max_duration_s=2, num_heldout=4)
    made = make_sample(root, options)
    shutil.copytree(made.folder, root / REAL_REPO_ID)
    with HubProcess(root) as process:
        yield process


@pytest.fixture
def reader_folder(hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a page's reader works in: a checkout's `configs/`, the Hub in the environment."""
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_UPDATE_CHECK", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf_home"))
    # The commands of the environment that runs the tests, activated or not.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    # Tiny models gain nothing by more, and tests that run beside each other wait for each other's threads.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(num_threads)
