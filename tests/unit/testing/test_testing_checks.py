"""The checks find what they are for: each kind of inexact resume, told at its first sample."""

from __future__ import annotations

import pickle
import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset

from reelstream.errors import ConfigError, StateError
from reelstream.testing import (
    ALL_WAYS,
    ExactnessError,
    SeenSample,
    Way,
    check_exact_resume,
    compare_orders,
    content_digest,
)
from reelstream.testing.resume import plan_stops
from reelstream.types import Position

NUM_SAMPLES = 13
WITHOUT_PROCESSES = [way for way in ALL_WAYS if not way.endswith("workers")]


class Numbers(IterableDataset[dict[str, Any]]):
    """An exact dataset: so many samples an epoch in a seeded order, two lanes."""

    def __init__(self) -> None:
        self.epoch = 0
        self.consumed = 0
        self.served = 0
        """Of the running epoch."""

    def make(self, number: int, place: int) -> dict[str, Any]:
        return {
            "id": f"{number}",
            "clip": f"{number // 3}.mp4",
            "subset": "numbers",
            "position": Position(self.epoch, place % 2, place // 2),
            "frames": torch.full((2, 3), number),
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch = self.epoch
        for place in range(self.consumed, NUM_SAMPLES):
            number = random.Random(epoch).sample(range(NUM_SAMPLES), NUM_SAMPLES)[place]
            self.served = place + 1
            yield self.make(number, place)
        self.epoch, self.consumed, self.served = epoch + 1, 0, 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.consumed, self.served = epoch, 0, 0

    def state_dict(self, after: Position | None = None) -> dict[str, Any]:
        if after is not None:
            return {"epoch": after.epoch, "consumed": after.slot * 2 + after.lane + 1}
        return {"epoch": self.epoch, "consumed": max(self.served, self.consumed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.consumed, self.served = state["epoch"], state["consumed"], 0


class LosesOne(Numbers):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "consumed": state["consumed"] + 1})


class RepeatsOne(Numbers):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "consumed": max(0, state["consumed"] - 1)})


class CountsWhatIsHandedOut(Numbers):
    def state_dict(self, after: Position | None = None) -> dict[str, Any]:
        return super().state_dict(None)


class BeginsAnewAtSetEpoch(Numbers):
    def set_epoch(self, epoch: int) -> None:
        self.epoch, self.consumed, self.served = epoch, 0, 0


class ForgetsTheEpoch(Numbers):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict({**state, "epoch": 0})


class ForgetsOnceSaved(Numbers):
    """Only the first state after loading is right."""

    def state_dict(self, after: Position | None = None) -> dict[str, Any]:
        if after is None and not self.served:
            return {"epoch": self.epoch, "consumed": 0}
        return super().state_dict(after)


class KeysThatAreNumbers(Numbers):
    def state_dict(self, after: Position | None = None) -> dict[str, Any]:
        state = super().state_dict(after)
        return {"of epoch": {state["epoch"]: state["consumed"]}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        ((epoch, consumed),) = state["of epoch"].items()
        super().load_state_dict({"epoch": epoch if isinstance(epoch, int) else 0, "consumed": consumed})


class DrawsFramesByTheProcess(Numbers):
    """The content depends on how many samples this object has made."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def make(self, number: int, place: int) -> dict[str, Any]:
        self.made += 1
        return {**super().make(number, place), "frames": torch.full((2, 3), self.made)}


class LeansOnItsFolder(Numbers):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        folder.mkdir(parents=True, exist_ok=True)
        self.known = (folder / "known").exists()
        (folder / "known").touch()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not self.known:
            raise StateError("nothing is known here")
        super().load_state_dict(state)


def check(make: Callable[[Path], Numbers], **options: Any) -> Any:
    return check_exact_resume(make, **{"stops": "all", "batch_size": 3, "ways": WITHOUT_PROCESSES, **options})


def test_an_exact_dataset_passes_at_every_stop_in_every_way() -> None:
    report = check(lambda folder: Numbers())
    assert len(report.order) == 2 * NUM_SAMPLES
    assert set(report.resumed) == set(WITHOUT_PROCESSES)
    assert list(report.resumed[Way.SAME_MACHINE]) == list(range(2 * NUM_SAMPLES + 1))
    # Under a loader, at the ends of batches; an epoch's last one is smaller.
    assert set(report.resumed[Way.LOADER]) == {0, 3, 6, 9, 12, 13, 16, 19, 22, 25, 26}
    assert "26 samples" in str(report)


@pytest.mark.parametrize(
    ("broken", "way"),
    [
        (LosesOne, Way.SAME_OBJECT),
        (LosesOne, Way.STATEFUL_LOADER),
        (RepeatsOne, Way.SAME_MACHINE),
        (RepeatsOne, Way.LOADER),
        (CountsWhatIsHandedOut, Way.LAGGING),
        (BeginsAnewAtSetEpoch, Way.SET_EPOCH),
        (ForgetsTheEpoch, Way.SAME_MACHINE),
        (ForgetsOnceSaved, Way.SEVERAL_TIMES),
        (KeysThatAreNumbers, Way.SAME_MACHINE),
        (DrawsFramesByTheProcess, Way.SAME_MACHINE),
    ],
)
def test_each_kind_of_inexact_resume_is_found(broken: type[Numbers], way: Way) -> None:
    with pytest.raises(ExactnessError, match=re.escape(f"by way of '{way}'")):
        check(lambda folder: broken(), ways=[way])


@pytest.mark.parametrize(
    ("broken", "way"),
    [
        (CountsWhatIsHandedOut, Way.SAME_MACHINE),
        (ForgetsOnceSaved, Way.SAME_MACHINE),
        (KeysThatAreNumbers, Way.SAME_OBJECT),
        (DrawsFramesByTheProcess, Way.SAME_OBJECT),
    ],
)
def test_a_flaw_of_one_way_is_not_found_in_another(broken: type[Numbers], way: Way) -> None:
    check(lambda folder: broken(), ways=[way])


def test_what_works_only_where_files_survive_is_found_on_an_empty_machine() -> None:
    check(LeansOnItsFolder, ways=["same machine"])
    for way in ("empty machine", "bare machine"):
        with pytest.raises(StateError, match="nothing is known"):
            check(LeansOnItsFolder, ways=[way])


def test_a_shorter_run_is_checked_to_where_it_ends() -> None:
    report = check(lambda folder: Numbers(), num_samples=5)
    assert len(report.order) == 5
    assert max(report.resumed[Way.EMPTY_MACHINE]) == 5


def test_datasets_are_closed_and_folders_deleted_one_by_one(tmp_path: Path) -> None:
    closed = []

    class Closing(Numbers):
        def __init__(self, folder: Path) -> None:
            super().__init__()
            # What an earlier one has left, and a run of its own.
            assert len(list(folder.parent.iterdir())) <= 2
            folder.mkdir(exist_ok=True)

        def close(self) -> None:
            closed.append(self)

    check(Closing, stops=2, folder=tmp_path)
    assert len(closed) > len(WITHOUT_PROCESSES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"epochs": 0}, {"batch_size": 0}, {"stops": 0}, {"stops": []}, {"stops": [27]}, {"stops": [-1]}]
)
def test_arguments_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        check(lambda folder: Numbers(), **options)


def test_a_way_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="sideways"):
        check(lambda folder: Numbers(), ways=["sideways"])


# ---------------------------------------------------------------------- stops


@pytest.mark.parametrize("number", [1, 2, 5, 99])
def test_drawn_stops_hold_the_first_epochs_end_and_depend_on_the_seed_only(number: int) -> None:
    stops = plan_stops(number, 40, [20], 7)
    assert 20 in stops
    assert len(stops) == min(number, 39)
    assert all(0 < one < other < 40 for one, other in pairwise(stops))
    assert stops == plan_stops(number, 40, [20], 7)


def test_other_seeds_draw_other_stops() -> None:
    assert len({plan_stops(3, 1000, [], seed) for seed in range(20)}) == 20


# ---------------------------------------------------------------------- differences


def seen(number: int, digest: str = "same") -> SeenSample:
    return SeenSample(position=Position(0, 0, number), clip=f"s/{number}.mp4", id=str(number), digest=digest)


ORDER = [seen(number) for number in range(6)]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([*ORDER[:2], *ORDER[3:]], r"sample 3 of 6 differs[\s\S]*1 later: samples were lost"),
        ([*ORDER[:3], *ORDER[2:]], r"sample 4 of 6 differs[\s\S]*1 before: samples were repeated"),
        (ORDER[:4], r"ends before sample 5 of 6, s/4.mp4"),
        ([*ORDER, seen(9)], r"goes on after its 6 samples with s/9.mp4"),
        ([*ORDER[:5], seen(5, "other")], r"sample 6 of 6[\s\S]*same sample with other content"),
        ([seen(7), *ORDER[1:]], r"sample 1 of 6[\s\S]*another one"),
        ([SeenSample(Position(0, 1, 0), "s/0.mp4", "0", "same"), *ORDER[1:]], r"another position"),
    ],
)
def test_the_first_difference_is_told(found: list[SeenSample], told: str) -> None:
    with pytest.raises(ExactnessError, match=told) as raised:
        compare_orders(found, ORDER, told="this run")
    assert str(raised.value).startswith("this run: ")
    assert isinstance(raised.value, AssertionError)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_equal_orders_are_equal() -> None:
    compare_orders(list(ORDER), tuple(ORDER), told="this run")


# ---------------------------------------------------------------------- digests


def test_digests_tell_values_apart(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    values: list[Any] = [
        *(None, True, 1, 1.0, "1", b"1", "", b""),
        *([], [[]], [1, 2], [[1], 2], {"a": 1}, {"b": 1}, {"a": [1]}, "a1", ["a1"], ["a", "1"]),
        *(torch.zeros(2), torch.zeros(2, 1), torch.zeros(2, dtype=torch.uint8), torch.ones(2, dtype=torch.bfloat16)),
        *(torch.tensor(1), np.zeros(2), np.zeros(2, np.uint8), np.float32(1.0)),
        *(tmp_path / "0", tmp_path / "1"),
        Position(0, 1, 2),
    ]
    digests = [content_digest(value) for value in values]
    assert len(set(digests)) == len(values)
    assert digests == [content_digest(value) for value in values]


def test_digests_depend_on_content_only(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"same")
    (tmp_path / "other").write_bytes(b"same")
    assert content_digest(tmp_path / "one") == content_digest(tmp_path / "other")
    assert content_digest({"a": 1, "b": 2}) == content_digest({"b": 2, "a": 1})
    assert content_digest(torch.arange(6).view(2, 3).T) == content_digest(torch.arange(6).view(2, 3).T.contiguous())


def test_a_value_of_unknown_content_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds a object"):
        content_digest({"a": object()})
