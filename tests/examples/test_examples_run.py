"""Each example runs, trains on all samples, and goes on from its checkpoint; killed and on several ranks, too."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")
pytest.importorskip("accelerate")

from integration.run_kit import root_of, sample
from reelstream.hubserver import HubProcess

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = ("plain_loop", "accelerate_loop", "hf_trainer", "trl_sft")
_LINE = re.compile(r"^step (\d+) rank 0 process \d+: (.*)$", re.MULTILINE)

Run = Callable[..., dict[int, list[str]]]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(root_of(sample(tmp_path_factory))) as process:
        yield process


@pytest.fixture
def run(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs an example in this process on a dataset of 46 samples; returns the samples of each step that it tells."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.chdir(tmp_path)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def run(script: str, *more: str) -> dict[int, list[str]]:
        words = ["sample/llava-video-mini", "0_30_s_academic_v0_1", "0_30_s_youtube_v0_1"]
        words += ["--annotations", "cap", "mc", "--disk-budget", "16MB", "--output", "out", "--cache", "cache"]
        monkeypatch.setattr(sys, "argv", [str(EXAMPLES / f"{script}.py"), *words, *more])
        runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
        return {int(step): names.split() for step, names in _LINE.findall(capsys.readouterr().out)}

    yield run
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize(
    "script", ["plain_loop", "hf_trainer", *(pytest.param(name, marks=pytest.mark.slow) for name in SCRIPTS[1::2])]
)
def test_an_example_trains_on_each_sample_once(script: str, run: Run) -> None:
    steps = run(script)
    names = [name for step in steps.values() for name in step]
    assert len(names) == len(set(names)) == 46
    assert list(steps) == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("script", [pytest.param("plain_loop", marks=pytest.mark.slow), "accelerate_loop"])
def test_a_loop_goes_on_from_its_last_checkpoint_with_the_same_samples(script: str, run: Run) -> None:
    whole = run(script)
    assert run(script, "--resume") == {step: names for step, names in whole.items() if step > 10}


@pytest.mark.slow
@pytest.mark.timeout(900)  # three launches of up to four processes, on a machine that may be busy
@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("plain_loop", []),
        ("plain_loop", ["--ranks", "2", "--resume-ranks", "4"]),
        ("accelerate_loop", ["--ranks", "2", "--launcher", "accelerate"]),
        # A stock Trainer on two processes with only the documented line.
        ("hf_trainer", ["--ranks", "2"]),
        ("hf_trainer", ["--ranks", "2", "--resume-ranks", "1"]),
        ("trl_sft", ["--ranks", "1", "--resume-ranks", "2"]),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "one rank",
)
def test_an_example_killed_and_resumed_trains_on_the_same_samples_in_each_step(script: str, options: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{script}.py"), "--demo", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=880,
    )
    assert shown.returncode == 0, shown.stderr[-4000:]
    assert "the same samples in each step as undisturbed" in shown.stdout


def test_each_example_stands_in_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"{script}.py" in readme for script in SCRIPTS)
