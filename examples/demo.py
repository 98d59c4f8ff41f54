"""What the examples share: their arguments, and a demonstration of each that is killed, resumed and compared.

With `--demo` an example makes a small dataset, serves it as the Hub would, and runs itself three times: undisturbed;
killed after some steps; and resumed from its newest checkpoint. The samples of each step must be those of the
undisturbed run, and all samples of the dataset must be among them: each once on one rank; on several, those whose lanes
end early repeat samples of their last windows, so that all ranks take the same number of steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from reelstream.data import Sample
from reelstream.hubserver import HubProcess
from reelstream.sampledata import SampleOptions, make_sample

REPO_ID = "sample/llava-video-mini"
SUBSETS = ["0_30_s_academic_v0_1", "0_30_s_youtube_v0_1"]
ANNOTATIONS: list[Literal["cap", "oe"]] = ["cap", "oe"]
KILL_AFTER_STEP = 8
_LINE = re.compile(r"^step (\d+) rank (\d+) process (\d+): (.*)$")


def arguments(description: str | None) -> argparse.Namespace:
    """Return an example's arguments; with `--demo`, demonstrate it and leave."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo_id", nargs="?", help="dataset repository on the Hub, such as lmms-lab/LLaVA-Video-178K")
    parser.add_argument("subsets", nargs="*", help="its folders to train on")
    parser.add_argument("--output", type=Path, default=Path("output"), help="folder of the checkpoints")
    parser.add_argument("--cache", type=Path, default=Path("data/stream_cache"), help="where clips live for a while")
    parser.add_argument("--disk-budget", default="5GB", help="the most bytes on disk, clips and checkpoints together")
    parser.add_argument("--global-batch", type=int, default=4, help="samples of a step, on all ranks together")
    parser.add_argument("--annotations", nargs="+", default=["cap", "oe", "mc"], help="kinds of samples to take")
    parser.add_argument("--tail", choices=["auto", "skip", "repeat", "drop"], default="auto", help="how an epoch ends")
    parser.add_argument("--resume", action="store_true", help="go on at the newest checkpoint")
    parser.add_argument("--demo", action="store_true", help="show it on a small dataset made for that")
    parser.add_argument("--ranks", type=int, default=1, help="processes of the demonstration")
    parser.add_argument("--resume-ranks", type=int, help="processes after the kill, where that is another number")
    parser.add_argument("--launcher", choices=["torchrun", "accelerate"], default="torchrun")
    args = parser.parse_args()
    if args.demo:
        if min(args.ranks, args.resume_ranks or 1) < 1:
            parser.error("at least one process")
        demonstrate(Path(sys.argv[0]), args.ranks, args.resume_ranks or args.ranks, args.launcher)
        sys.exit()
    if not args.repo_id or not args.subsets:
        parser.error("name a repository and its subsets, or give --demo")
    return args


# ---------------------------------------------------------------------- what the examples tell of themselves


class WithNames:
    """A collator that keeps beside the tensors which samples a batch holds."""

    def __init__(self, collate: Callable[[Sequence[Sample]], dict[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the batch, and the samples' names under `names`."""
        return {**self._collate(samples), "names": [_name_of(sample) for sample in samples]}


def _name_of(sample: Sample) -> str:
    text = json.dumps([sample["subset"], sample["clip"], sample["conversations"]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def tell(step: int, names: Sequence[str]) -> None:
    """Print which samples this rank trains on in a step, numbered from 1."""
    rank = os.environ.get("RANK", "0")
    # In one write: lines of several ranks share a pipe.
    sys.stdout.write(f"step {step} rank {rank} process {os.getpid()}: {' '.join(names)}\n")
    sys.stdout.flush()


# ---------------------------------------------------------------------- the demonstration


def demonstrate(script: Path, ranks: int, resume_ranks: int, launcher: str) -> None:
    """Run an example undisturbed, killed and resumed; compare what was trained on.

    Raises:
        AssertionError: Where a sample was lost, repeated, or trained on in another step, or other ranks have trained.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = SampleOptions(
            num_clips=16, seed=1, clip_bytes=60_000, min_duration_s=1, max_duration_s=2, num_heldout=2
        )
        made = make_sample(folder / "hub", options)
        rows = [subset.num_rows for subset in made.subsets if subset.name in SUBSETS]
        num_samples = sum(rows_of[kind] for rows_of in rows for kind in ANNOTATIONS)
        tail = "skip" if ranks == resume_ranks == 1 else "repeat"
        with HubProcess(folder / "hub") as hub:
            os.environ["HF_ENDPOINT"] = hub.endpoint

            def run(ranks: int, output: str, *more: str, kill_after: int | None = None) -> dict[int, list[str]]:
                command = [*_launch(launcher, ranks), str(script), REPO_ID, *SUBSETS]
                command += ["--output", str(folder / output), "--cache", str(folder / f"{output}-cache")]
                command += ["--disk-budget", "16MB", "--annotations", *ANNOTATIONS, "--tail", tail, *more]
                return _samples_by_step(command, kill_after, ranks)

            quiet = run(ranks, "quiet")
            killed = run(ranks, "killed", kill_after=KILL_AFTER_STEP)
            resumed = run(resume_ranks, "killed", "--resume")

    first = min(resumed)
    assert 1 < first <= KILL_AFTER_STEP + 1, f"the resumed run began with step {first}"
    joined = {step: names for step, names in killed.items() if step < first} | resumed
    assert joined == quiet, "the resumed run trained on other samples than the undisturbed one"
    names = [name for step in joined.values() for name in step]
    num_repeated = len(names) - len(set(names))
    assert len(set(names)) == num_samples, f"{num_samples - len(set(names))} samples were not trained on"
    assert tail == "repeat" or not num_repeated, "a sample was trained on twice in one epoch"
    print(
        f"{num_samples} samples in {len(joined)} steps, {num_repeated} of them repeated at the end; killed after step "
        f"{KILL_AFTER_STEP} on {ranks}, resumed before step {first} on {resume_ranks}: the same samples in each step "
        "as undisturbed"
    )


def _launch(launcher: str, ranks: int) -> list[str]:
    if launcher == "accelerate":
        # Without --multi_gpu it starts one process on a machine without GPUs, whatever their number is said to be.
        several = ["--multi_gpu"] if ranks > 1 else ["--cpu"]
        options = ["--num_processes", f"{ranks}", "--num_machines", "1", "--mixed_precision", "no"]
        return [
            sys.executable, "-m", "accelerate.commands.launch", *several, *options,
            "--dynamo_backend", "no", "--main_process_port", "0",
        ]  # fmt: skip
    if ranks == 1:
        return [sys.executable]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]


def _samples_by_step(command: list[str], kill_after: int | None, ranks: int) -> dict[int, list[str]]:
    """Run a command; return what it told, of each step that all ranks told."""
    told: dict[int, dict[int, list[str]]] = defaultdict(dict)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with (
        tempfile.TemporaryFile("w+") as talk,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=talk, text=True, env=environment) as child,
    ):
        assert child.stdout is not None
        processes = {child.pid}
        for step, rank, process, names in _told(child.stdout):
            told[step][rank] = names
            processes.add(process)
            if kill_after is not None and step > kill_after:
                for each in processes:
                    os.kill(each, signal.SIGKILL)
                break
        else:
            code = child.wait()
            if code != 0 or kill_after is not None:
                talk.seek(0)
                raise AssertionError(f"{' '.join(command)} left with {code}:\n{talk.read()[-4000:]}")
    seen = {rank for of_step in told.values() for rank in of_step}
    assert seen == set(range(ranks)), f"{ranks} ranks were started, and ranks {sorted(seen)} have trained"
    steps = {step: of_step for step, of_step in told.items() if len(of_step) == ranks}
    # Sorted: another number of ranks divides a step's samples in another way.
    return {step: sorted(name for names in of_step.values() for name in names) for step, of_step in steps.items()}


def _told(lines: Iterator[str]) -> Iterator[tuple[int, int, int, list[str]]]:
    for line in lines:
        if match := _LINE.match(line):
            yield int(match[1]), int(match[2]), int(match[3]), match[4].split()
