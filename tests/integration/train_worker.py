"""A training run in a process of its own, so that it can be killed: prints a JSON line for each step."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import Any

from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import StepFinished
from reelstream.train.checkpoints import CheckpointStore, load_newest
from reelstream.train.loop import TrainingLoop
from reelstream.train.options import CheckpointOptions, TrainOptions
from train_kit import NumberStream, smallest_model

NUM_SAMPLES = 22
OPTIONS = TrainOptions(epochs=4, batch_size=4, accumulate=2, warmup_steps=2, device="cpu", num_threads=1)


class Printer:
    def __init__(self, kill_at: int | None) -> None:
        self.kill_at = kill_at

    def receive(self, wall_s: float, event: Any) -> None:
        if not isinstance(event, StepFinished):
            return
        print(json.dumps([event.step, event.epoch, event.loss, event.learning_rate, event.num_samples]), flush=True)  # noqa: T201 - for the test that started it
        if event.step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    store = CheckpointStore(arguments.folder, keep=1)
    store.open()
    loop = TrainingLoop(
        smallest_model(),
        NumberStream(NUM_SAMPLES),
        options=OPTIONS,
        checkpoints=CheckpointOptions(every_steps=5),
        store=store,
        telemetry=Telemetry(Printer(arguments.kill_at)),
        samples_per_epoch=NUM_SAMPLES,
    )
    if arguments.resume:
        checkpoint = load_newest(arguments.folder)
        assert checkpoint is not None
        loop.resume(checkpoint)
    loop.run()


if __name__ == "__main__":
    main()
