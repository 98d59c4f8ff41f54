"""Ranks without a model: a nursery that forks them, and what each does: read, write down, save the data's state.

The nursery is a process that has imported everything, so that a rank takes milliseconds to start. It reads a line
`start <job>` and answers with a process id, or a line `end <process id>` and answers with how that one has ended.

A rank appends each of its batches to `rank-<rank>.jsonl`, forced to disk. Every few batches all ranks gather their
state, and rank 0 writes it to `state.json`, whole or not at all.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import sys
import traceback
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch.distributed

from reelstream.data import StreamingVideoDataset
from reelstream.testing import SeenSample
from reelstream.types import FrameSampling

# How long torch waits for a rank that was killed before all were connected.
_GROUP_TIMEOUT = dt.timedelta(seconds=25)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One rank of one run."""

    folder: str
    """Of the run: states and what was served."""
    cache_dir: str
    endpoint: str
    repo_id: str
    subsets: list[str]
    options: dict[str, Any]
    """Further ones of the dataset."""
    rank: int
    world_size: int
    port: int
    """Where rank 0 listens."""
    epochs: int
    global_batch: int
    """Samples that all ranks together take in one step."""
    save_every: int
    """Steps."""

    @property
    def environment(self) -> dict[str, str]:
        """What a launcher sets."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(self.rank),
            "LOCAL_WORLD_SIZE": str(self.world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
        }


@dataclass(kw_only=True)
class Saved:
    """Where a run stands."""

    epoch: int = 0
    step: int = 0
    """Of the epoch: steps that are done."""
    data: dict[str, Any] | None = None

    def write(self, path: Path) -> None:
        """Write, whole or not at all."""
        partial = path.with_suffix(".partial")
        with partial.open("w") as file:
            json.dump(dataclasses.asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> Saved:
        """Read what was written; the beginning where nothing was."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()


def run_rank(job: Job) -> None:
    """Serve what is left of a run, as one rank of it."""
    folder = Path(job.folder)
    if job.world_size > 1:
        torch.distributed.init_process_group("gloo", timeout=_GROUP_TIMEOUT)
    with (
        StreamingVideoDataset(
            job.repo_id,
            job.subsets,
            endpoint=job.endpoint,
            cache_dir=job.cache_dir,
            frames=FrameSampling(fps=1.0, max_frames=1, size=32),
            **job.options,
        ) as dataset,
        (folder / f"rank-{job.rank}.jsonl").open("a+b") as log,
    ):
        if log.tell() and os.pread(log.fileno(), 1, log.tell() - 1) != b"\n":
            # A kill in the middle of a line.
            log.write(b"\n")
        saved = Saved.read(folder / "state.json")
        if saved.data is not None:
            dataset.load_state_dict(saved.data)
        for epoch in range(saved.epoch, job.epochs):
            dataset.set_epoch(epoch)
            _run_epoch(job, dataset, epoch, saved.step if epoch == saved.epoch else 0, log)
    if job.world_size > 1:
        # Rank 0 holds the store that the others still talk to.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _run_epoch(job: Job, dataset: StreamingVideoDataset, epoch: int, step: int, log: Any) -> None:
    samples = iter(dataset)
    while batch := list(islice(samples, job.global_batch // job.world_size)):
        seen = [SeenSample.of(sample) for sample in batch]
        values = [[list(each.position), each.clip, each.id, each.digest] for each in seen]
        # The number of the rank's first sample among all of the epoch, and the distance to its next.
        first = step * job.global_batch + job.rank
        line = {"epoch": epoch, "first": first, "stride": job.world_size, "samples": values}
        log.write(json.dumps(line).encode() + b"\n")
        log.flush()
        os.fsync(log.fileno())
        step += 1
        if step % job.save_every == 0:
            state = dataset.gather_state(after=seen[-1].position)
            if job.rank == 0:
                Saved(epoch=epoch, step=step, data=state).write(Path(job.folder) / "state.json")


def _become_rank(job: Job) -> NoReturn:
    """Run a rank in this process, which was forked for it."""
    os.environ.update(job.environment)
    talk = os.open(f"{job.folder}/rank-{job.rank}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(talk, 1)
    os.dup2(talk, 2)
    try:
        run_rank(job)
    except BaseException:  # noqa: BLE001 - nothing may get past here: this process is a copy of the nursery
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def nurse() -> None:
    """Fork ranks until standard input ends."""
    print("ready", flush=True)  # noqa: T201 - the answer to the test that started it
    for line in sys.stdin:
        word, _, rest = line.partition(" ")
        if word == "start":
            job = Job(**json.loads(rest))
            answer = os.fork()
            if answer == 0:
                _become_rank(job)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(int(rest), 0)[1])
        print(answer, flush=True)  # noqa: T201


if __name__ == "__main__":
    nurse()
