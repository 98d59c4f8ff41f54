"""Training loops of several ranks, on numbers: imports torch once, then forks the ranks of one scenario after another.

`python train_ranks_worker.py SCENARIOS.json` prints a JSON line for each rank of each scenario that came to an end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reelstream.data.sample import Sample
from reelstream.errors import NetworkError, ReelstreamError
from reelstream.ranks import RankPlace
from reelstream.telemetry import Telemetry
from reelstream.telemetry.events import Evaluated, Notice, StepFinished
from reelstream.testing import Recorder
from reelstream.train.checkpoints import CheckpointStore, load_newest
from reelstream.train.evaluate import EvaluationResult
from reelstream.train.loop import TrainingLoop
from reelstream.train.options import CheckpointOptions, TrainOptions
from reelstream.train.parallel import joined_team
from reelstream.train.state import weights_of
from reelstream.train.steps import answer_token_losses
from reelstream.types import Position
from train_kit import NumberStream, make_sample, smallest_model

NUM_SAMPLES = 24


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What the ranks of one run do."""

    name: str
    ranks: int
    folder: str
    resume: bool = False
    parallel: str = "auto"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    every_steps: int | None = 2
    evaluate: bool = False
    event: tuple[str, int, int] | None = None
    """What happens (kill, term, poison, raise, outage, silent), on which rank, at which step (sample of an outage)."""


class RankStream(NumberStream):
    """Every R-th number of the order, from the rank's own on; samples say which number they are."""

    def __init__(self, place: RankPlace, scenario: Scenario) -> None:
        super().__init__(NUM_SAMPLES)
        self.place = place
        self.scenario = scenario
        self.begun = 0

    def __iter__(self) -> Iterator[Sample]:
        order = self.order(self.epoch)
        for number in range(self.begun + self.place.rank, self.num_samples, self.place.world_size):
            if self.scenario.event == ("outage", self.place.rank, len(self.pulled)):
                raise NetworkError("the cable was cut", "mend it")
            self.pulled.append((self.epoch, order[number]))
            sample = make_sample(order[number], Position(self.epoch, number, 0))
            if self.scenario.event == ("silent", self.place.rank, 0):
                sample["messages"] = sample["messages"][:1]
            yield sample
        self.begun = self.num_samples

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.begun = epoch, 0

    def state_dict(self, after: Position | None = None) -> dict[str, Any]:
        assert after is not None
        return {"epoch": after.epoch, "rank": self.place.rank, "after": after.lane}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.begun = state["epoch"], state["begun"]


def merged(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    assert [state["rank"] for state in states] == list(range(len(states)))
    assert len({state["epoch"] for state in states}) == 1
    places = [state["after"] for state in states]
    assert places == list(range(places[0], places[0] + len(places))), "all have consumed the same global batches"
    return {"epoch": states[0]["epoch"], "begun": places[-1] + 1}


class Fate:
    """Does to this rank what the scenario has for it, once the step is made."""

    def __init__(self, scenario: Scenario, rank: int) -> None:
        self.event = scenario.event
        self.rank = rank
        self.model: Any = None

    def receive(self, wall_s: float, event: Any) -> None:
        if self.event is None or not isinstance(event, StepFinished) or self.event[1:] != (self.rank, event.step):
            return
        match self.event[0]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "term":
                os.kill(os.getpid(), signal.SIGTERM)
            case "poison":
                with torch.no_grad():
                    next(self.model.parameters()).fill_(float("nan"))
            case "raise":
                raise ZeroDivisionError("by mistake")


def run_rank(scenario: Scenario) -> dict[str, Any]:
    options = TrainOptions(
        **{
            "epochs": 3,
            "batch_size": 4,
            "warmup_steps": 2,
            "device": "cpu",
            "num_threads": 1,
            "parallel": scenario.parallel,
            **scenario.options,
        }
    )
    recorder = Recorder()
    telemetry = Telemetry(recorder)
    result: dict[str, Any] = {"scenario": scenario.name, "error": None, "interrupted_by": None, "weights": None}
    stream = None
    try:
        with joined_team(options, telemetry) as team:
            rank = team.place.rank
            fate = Fate(scenario, rank)
            telemetry.add(fate)
            stream = RankStream(team.place, scenario)
            loaded = smallest_model()
            fate.model = loaded.model
            store = CheckpointStore(Path(scenario.folder), keep=2) if team.is_first else None
            # Read before anybody writes.
            checkpoint = load_newest(Path(scenario.folder)) if scenario.resume else None
            team.exchange("read", b"")
            if store is not None:
                store.open()
            loop = TrainingLoop(
                loaded,
                stream,
                options=options,
                checkpoints=CheckpointOptions(every_steps=scenario.every_steps),
                store=store,
                telemetry=telemetry,
                samples_per_epoch=NUM_SAMPLES,
                team=team,
                merge_data_states=merged,
                evaluate=(lambda: scored(loaded)) if scenario.evaluate and team.is_first else None,
                evaluate_every_steps=3 if scenario.evaluate else None,
            )
            if checkpoint is not None:
                loop.resume(checkpoint)
            outcome = loop.run()
            result["interrupted_by"] = outcome.interrupted_by
            result["weights"] = digest_of(weights_of(loaded.model))
            # Nobody leaves while others gather.
            team.exchange("end", b"")
    except (ReelstreamError, ZeroDivisionError) as error:
        result["error"] = [type(error).__name__, str(error)]
    result["steps"] = [
        [event.step, event.epoch, event.loss, event.learning_rate, event.num_samples]
        for event in recorder.of(StepFinished)
    ]
    result["notices"] = [event.message for event in recorder.of(Notice)]
    result["evaluated"] = [[event.step, event.accuracy] for event in recorder.of(Evaluated)]
    result["pulled"] = [] if stream is None else stream.pulled
    return result


def scored(loaded: Any) -> EvaluationResult:
    """Call the model on one rank alone, as an evaluation does; the accuracy stands for its loss."""
    from reelstream.train.feeder import encode_sample

    samples = [encode_sample(loaded.family, make_sample(number, Position(0, 0, number))) for number in range(3)]
    with torch.no_grad():
        loss = answer_token_losses(loaded.model, loaded.family.collate(samples)).mean().item()
    return EvaluationResult(accuracy=round(loss, 4), chance=0.25, num_questions=3, chosen=(0, 0, 0))


def digest_of(weights: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    return digest.hexdigest()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run(scenario: Scenario) -> None:
    port = free_port()
    sys.stdout.flush()
    children = []
    for rank in range(scenario.ranks):
        child = os.fork()
        if child == 0:
            if scenario.ranks > 1:
                os.environ |= {
                    "RANK": str(rank),
                    "WORLD_SIZE": str(scenario.ranks),
                    "LOCAL_RANK": str(rank),
                    "LOCAL_WORLD_SIZE": str(scenario.ranks),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                }
            try:
                # One write, so that ranks do not cut into each other's lines.
                os.write(1, (json.dumps({"rank": rank, **run_rank(scenario)}) + "\n").encode())
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in json.loads(Path(sys.argv[1]).read_text()):
        run(Scenario(**{**each, "event": tuple(each["event"]) if each.get("event") else None}))
