"""The streamed dataset against a hub on loopback."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from reelstream.cache import DiskBudget
from reelstream.cancel import Cancelled
from reelstream.data import StreamingVideoDataset
from reelstream.errors import BudgetTooSmallError, ConfigError, OutOfReachError, StateError
from reelstream.prefetch.options import StreamOptions
from reelstream.telemetry import Telemetry, events
from reelstream.testing import Recorder
from reelstream.types import Position
from unit.data.data_kit import Served, assert_nothing_runs, contents, is_balanced, key, keys

pytestmark = pytest.mark.timeout(120)

Options = Callable[..., dict[str, Any]]


def make(served: Served, values: dict[str, Any], **changes: Any) -> StreamingVideoDataset:
    return StreamingVideoDataset(served.repo_id, served.subsets, **{**values, **changes})


# ---------------------------------------------------------------------- epochs


def test_each_epoch_serves_every_sample_once_in_another_order(good: Served, options: Options, tmp_path: Path) -> None:
    with make(good, options(good)) as dataset:
        first, second = list(dataset), list(dataset)
        assert len(first) == len(second) == len(dataset)
        assert {sample["position"].epoch for sample in first} == {0}
        assert {sample["position"].epoch for sample in second} == {1}
    assert contents(first) == contents(second)
    assert len(set(map(repr, contents(first)))) == len(first)
    assert [key(sample)[1:] for sample in first] != [key(sample)[1:] for sample in second]
    assert_nothing_runs(tmp_path / "cache")


def test_the_same_seed_gives_the_same_order_however_it_is_worked_on(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        order = keys(dataset)
    with make(good, options(good, connections=1, decode_threads=1, decoded_memory=0, prefetch=False)) as dataset:
        assert keys(dataset) == order
    with make(good, options(good), seed=1) as dataset:
        assert keys(dataset) != order


def test_a_sample_is_what_it_promises_to_be(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        sample = next(iter(dataset))
    assert sample["frames"].dtype == torch.uint8
    assert sample["frames"].shape[1] == 3
    assert max(sample["frames"].shape[2:]) == 32
    assert sample["timestamps"].dtype == torch.float64
    assert sample["frame_indices"].dtype == torch.int64
    assert len(sample["frames"]) == len(sample["timestamps"]) == len(sample["frame_indices"]) <= 2
    assert sample["position"] == Position(0, 0, 0)
    assert sample["conversations"][0]["value"].count("<video>") == 1
    assert sample["messages"][0]["role"] == "user"


def test_changing_a_samples_frames_in_place_reaches_no_other_sample(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        seen: dict[str, torch.Tensor] = {}
        for sample in dataset:
            frames = seen.setdefault(sample["clip"], sample["frames"].clone())
            assert torch.equal(sample["frames"], frames)
            sample["frames"].zero_()


def test_set_epoch_goes_to_an_epoch_and_lets_the_running_one_go_on(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        dataset.set_epoch(3)
        third = keys(dataset)
        assert third[0][0].epoch == 3
        assert dataset.epoch == 4
        dataset.set_epoch(3)
        iterator = iter(dataset)
        begun = keys(islice(iterator, 5))
        dataset.set_epoch(3)
        assert begun + keys(iterator) == third
        iterator = iter(dataset)
        next(iterator)
        dataset.set_epoch(9)
        with pytest.raises(OutOfReachError, match="set_epoch"):
            next(iterator)
        assert next(iter(dataset))["position"].epoch == 9


def test_after_a_break_the_epoch_begins_anew(good: Served, options: Options, tmp_path: Path) -> None:
    with make(good, options(good)) as dataset:
        begun = keys(islice(dataset, 7))
        assert_no_clips(tmp_path)
        again = keys(dataset)
        assert again[:7] == begun
        assert len(again) == len(dataset)


def assert_no_clips(tmp_path: Path) -> None:
    assert list((tmp_path / "cache" / "runs").rglob("clip-*")) == []


def test_a_newer_iteration_ends_the_one_before(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        older, newer = iter(dataset), iter(dataset)
        first = key(next(older))
        assert key(next(newer)) == first
        with pytest.raises(OutOfReachError, match="newer"):
            next(older)
        # The newer one does not suffer.
        assert len(list(newer)) == len(dataset) - 1


def test_reset_and_cleanup_begin_the_epoch_anew(good: Served, options: Options, tmp_path: Path) -> None:
    dataset = make(good, options(good))
    iterator = iter(dataset)
    first = key(next(iterator))
    dataset.reset()
    with pytest.raises(OutOfReachError):
        next(iterator)
    assert key(next(iter(dataset))) == first
    dataset.cleanup()
    dataset.cleanup()
    assert_nothing_runs(tmp_path / "cache")
    assert key(next(iter(dataset))) == first
    dataset.close()
    assert_nothing_runs(tmp_path / "cache")


def test_nothing_happens_before_something_is_asked_for(tmp_path: Path) -> None:
    with StreamingVideoDataset("nobody/nothing", "x", endpoint="http://127.0.0.1:9", cache_dir=tmp_path / "cache"):
        pass
    assert not (tmp_path / "cache").exists()


def test_a_cancelled_iteration_raises_cancelled(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        iterator = iter(dataset)
        next(iterator)
        dataset.cancel()
        with pytest.raises(Cancelled):
            next(iterator)


def test_gauges_tell_what_is_held_while_it_runs(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        assert dataset.gauges() is None
        iterator = iter(dataset)
        next(iterator)
        gauges = dataset.gauges()
        assert gauges is not None
        assert gauges.clips_bytes > 0


# ---------------------------------------------------------------------- books


def test_the_books_of_an_epoch_balance_and_name_the_digest(good: Served, options: Options) -> None:
    recorder = Recorder()
    with make(good, options(good), telemetry=Telemetry(recorder)) as dataset:
        number = len(list(dataset))
    (booked,), (finished,) = recorder.of(events.EpochBooked), recorder.of(events.EpochFinished)
    assert is_balanced(booked)
    assert booked.num_delivered == number == finished.num_samples
    assert booked.order_digest == finished.order_digest


def test_flaws_are_booked_and_nothing_else_is_lost(flawed: Served, options: Options) -> None:
    recorder = Recorder()
    with make(flawed, options(flawed, max_bad_share=1.0), telemetry=Telemetry(recorder)) as dataset:
        number = len(list(dataset))
        (booked,) = recorder.of(events.EpochBooked)
        assert is_balanced(booked)
        assert booked.num_catalog == len(dataset)
    assert booked.num_delivered == number
    assert booked.num_quarantined == sum(event.num_samples for event in recorder.of(events.ClipQuarantined)) > 0
    assert booked.num_without_media > 0


def test_books_in_the_middle_of_an_epoch_say_what_is_not_seen_yet(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        for sample in islice(dataset, 10):
            state = dataset.state_dict(after=sample["position"])
        booked = dataset.books_of(state)
        assert is_balanced(booked)
        assert booked.num_delivered == 10
        assert booked.left_out == {"not_seen": len(dataset) - 10}


@pytest.mark.parametrize("limit", [1, 7, 19])
def test_a_limit_takes_so_many_clips_and_the_same_in_every_epoch(good: Served, options: Options, limit: int) -> None:
    recorder = Recorder()
    with make(good, options(good), limit=limit, telemetry=Telemetry(recorder)) as dataset:
        first, second = list(dataset), list(dataset)
        assert 0 < len(dataset) < len(first) * 2
    clips = {(sample["subset"], sample["clip"]) for sample in first}
    assert len(clips) == limit
    assert contents(first) == contents(second)
    booked = recorder.of(events.EpochBooked)
    assert all(map(is_balanced, booked))
    assert {tuple(each.left_out) for each in booked} == {("limit",)}


def test_a_limit_beyond_the_dataset_takes_all(good: Served, options: Options) -> None:
    with make(good, options(good), limit=1000) as dataset:
        assert len(list(dataset)) == len(dataset)


def test_a_kind_that_a_subset_lacks_is_told_and_no_error(good: Served, options: Options) -> None:
    recorder = Recorder()
    dataset = StreamingVideoDataset(good.repo_id, good.held_out, telemetry=Telemetry(recorder), **options(good))
    with dataset:
        found = {dataset.session.catalog.annotation(row).kind for row in range(len(dataset))}
    missing = {"cap", "oe", "mc"} - found
    told = " ".join(event.message for event in recorder.of(events.Notice))
    assert bool(missing) == bool(told)
    assert all(kind in told for kind in missing)


# ---------------------------------------------------------------------- the state


def test_a_state_of_any_sample_resumes_right_after_it(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        order = list(dataset)
    for number in (1, 50, len(order) - 1, len(order)):
        with make(good, options(good)) as dataset:
            for sample in islice(dataset, number):
                last = sample["position"]
            state = json.loads(json.dumps(dataset.state_dict(after=last)))
        with make(good, options(good, disk_budget="6MB", connections=2)) as dataset:
            dataset.load_state_dict(state)
            assert dataset.epoch == 0
            dataset.set_epoch(0)
            assert keys(dataset) == keys(order[number:])
            # And the next epoch follows.
            assert next(iter(dataset))["position"].epoch == 1


def test_the_trainer_may_lag_behind_what_was_handed_out(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        served = list(islice(dataset, 30))
        state = dataset.state_dict(after=served[19]["position"])
        rest = [key(sample) for sample in served[20:]]
        dataset.load_state_dict(state)
        assert keys(islice(dataset, 10)) == rest


def test_the_digest_of_a_resumed_epoch_is_that_of_a_quiet_one(good: Served, options: Options) -> None:
    quiet, resumed = Recorder(), Recorder()
    with make(good, options(good), telemetry=Telemetry(quiet)) as dataset:
        list(dataset)
    with make(good, options(good)) as dataset:
        list(islice(dataset, 33))
        state = dataset.state_dict()
    with make(good, options(good), telemetry=Telemetry(resumed)) as dataset:
        dataset.load_state_dict(state)
        list(dataset)
    assert resumed.of(events.EpochFinished) == quiet.of(events.EpochFinished)
    assert resumed.of(events.EpochBooked) == quiet.of(events.EpochBooked)


def test_the_state_at_an_epochs_end_is_the_next_ones_beginning(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        list(dataset)
        state = dataset.state_dict()
        second = keys(dataset)
    with make(good, options(good)) as dataset:
        dataset.load_state_dict(state)
        assert dataset.epoch == 1
        assert keys(dataset) == second


def test_a_fresh_dataset_has_the_state_of_its_beginning(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        state = dataset.state_dict()
        order = keys(dataset)
        dataset.load_state_dict(state)
        assert dataset.state_dict() == state
        assert keys(dataset) == order


def test_a_state_that_is_refused_leaves_what_runs_as_it_is(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        order = keys(dataset)
        dataset.set_epoch(0)
        iterator = iter(dataset)
        begun = keys(islice(iterator, 3))
        state = dataset.state_dict()
        with pytest.raises(StateError, match="version"):
            dataset.load_state_dict({**state, "version": 99})
        assert begun + keys(iterator) == order


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "seed = 0, this run has 5"),
        ({"limit": 3}, "limit = None, this run has 3"),
        ({"shuffle": False}, "shuffle = True, this run has False"),
        ({"annotations": ("oe",)}, "catalog = "),
    ],
)
def test_a_state_of_other_options_is_refused_by_name(
    good: Served, options: Options, change: dict[str, Any], message: str
) -> None:
    with make(good, options(good)) as dataset:
        state = dataset.state_dict()
    with make(good, options(good), **change) as dataset, pytest.raises(StateError, match=message):
        dataset.load_state_dict(state)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"version": 0}, "version 0"),
        ({"repo_id": "other/data"}, "is of other/data"),
        ({"epoch_state": {}}, "version None"),
        ({"epoch_state": {"version": 3}}, "damaged"),
        ({"epoch": None}, "damaged"),
    ],
)
def test_a_state_of_another_kind_is_refused(
    good: Served, options: Options, damage: dict[str, Any], message: str
) -> None:
    with make(good, options(good)) as dataset, pytest.raises(StateError, match=message):
        dataset.load_state_dict({**dataset.state_dict(), **damage})


def test_the_state_of_a_sample_that_was_not_served_is_refused(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        list(islice(dataset, 3))
        for position in (Position(0, 0, 400), Position(7, 0, 0)):
            with pytest.raises(StateError):
                dataset.state_dict(after=position)


# ---------------------------------------------------------------------- the disk


def test_a_budget_too_small_names_one_that_works(good: Served, options: Options, tmp_path: Path) -> None:
    values = options(good)
    with make(good, values, disk_budget="2100kB") as dataset, pytest.raises(BudgetTooSmallError) as caught:
        next(iter(dataset))
    found = re.search(r"to (\d+)MB, or to (\d+)MB plus (\d+) times your largest clip", caught.value.hint)
    assert found is not None
    least, rest, times = map(int, found.groups())
    largest_clip_bytes = 100_000
    enough = max(least * 10**6, rest * 10**6 + times * largest_clip_bytes)
    with make(good, values, disk_budget=enough) as dataset:
        assert len(list(dataset)) == len(dataset)
    assert_nothing_runs(tmp_path / "cache")


def test_catalogs_of_other_selections_do_not_stay_beside_the_clips(
    good: Served, options: Options, tmp_path: Path
) -> None:
    catalogs = tmp_path / "cache" / "catalog"
    with make(good, options(good), annotations=("oe",)) as dataset:
        next(iter(dataset))
        assert len(list(catalogs.iterdir())) == len(good.subsets)
    with StreamingVideoDataset(good.repo_id, good.subsets[0], **options(good)) as dataset:
        next(iter(dataset))
        assert len(list(catalogs.iterdir())) == 1
        budget = dataset.session.budget
        assert budget.used_bytes >= dataset.session.catalog.size_bytes


def test_the_clip_budget_does_not_depend_on_what_earlier_runs_left(good: Served, options: Options) -> None:
    def clip_budget_bytes() -> int:
        with make(good, options(good)) as dataset:
            return dataset.session.clip_budget_bytes

    first = clip_budget_bytes()
    with make(good, options(good), annotations=("mc",)) as dataset:
        len(dataset)
    assert clip_budget_bytes() == first


def test_a_script_that_ends_without_closing_leaves_no_clips(good: Served, tmp_path: Path) -> None:
    script = f"""
from reelstream.data import StreamingVideoDataset
dataset = StreamingVideoDataset({good.repo_id!r}, {good.subsets!r}, endpoint={good.endpoint!r},
                                cache_dir={str(tmp_path / "cache")!r}, disk_budget="4MB")
iterator = iter(dataset)
next(iterator)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "cache" / "runs").exists()


# ---------------------------------------------------------------------- other processes


def test_the_default_collate_takes_batches_of_one(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        expected = keys(dataset)
        dataset.set_epoch(0)
        batches = list(DataLoader(dataset, batch_size=1))
    assert [batch["clip"][0] for batch in batches] == [clip for _, _, clip, _ in expected]
    assert batches[0]["frames"].shape[0] == 1
    assert batches[0]["position"].slot.item() == 0


def test_the_first_of_several_workers_streams_and_nothing_comes_twice(
    good: Served, options: Options, tmp_path: Path
) -> None:
    with make(good, options(good)) as dataset:
        # Opened here, before the workers are forked: they must leave this folder alone.
        number = len(dataset)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            served = list(DataLoader(dataset, batch_size=None, num_workers=2))
        assert len(served) == number
        expected = keys(dataset)
    assert keys(served) == expected
    assert_nothing_runs(tmp_path / "cache")


def test_idle_workers_are_told_of(good: Served, options: Options) -> None:
    # Warnings are errors here, in the workers too.
    with make(good, options(good)) as dataset, pytest.raises(UserWarning, match="first of 2 workers"):
        list(DataLoader(dataset, batch_size=None, num_workers=2))


def test_the_state_after_the_last_sample_is_of_its_own_epoch_and_finds_it_over(good: Served, options: Options) -> None:
    with make(good, options(good), spans="archive") as dataset:
        samples = list(dataset)
        state = dataset.state_dict(after=samples[-1]["position"])
        assert state["epoch"] == 0
        # Of whatever was yielded it is the next one's beginning.
        assert dataset.state_dict()["epoch"] == 1
        following = keys(islice(dataset, 5))
    with make(good, options(good), spans="archive") as dataset:
        dataset.load_state_dict(state)
        # As loops do that count epochs themselves.
        dataset.set_epoch(0)
        assert list(dataset) == []
        dataset.set_epoch(1)
        assert keys(islice(dataset, 5)) == following


def test_nothing_at_all_is_no_state(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset, pytest.raises(StateError, match="a dict, not NoneType"):
        dataset.load_state_dict(None)  # type: ignore[arg-type]


def test_idle_workers_open_nothing_for_their_state(good: Served, options: Options, tmp_path: Path) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = make(good, options(good))
        loader = stateful.StatefulDataLoader(dataset, batch_size=None, num_workers=2)
        iterator = iter(loader)
        next(iterator)
        state = loader.state_dict()
        # One session, in the worker that streams.
        assert len(list((tmp_path / "cache" / "runs").iterdir())) == 1
        del iterator, loader
        again = stateful.StatefulDataLoader(make(good, options(good)), batch_size=None, num_workers=2)
        again.load_state_dict(state)
        assert key(next(iter(again)))[0].slot == 0


def test_one_worker_is_fine(good: Served, options: Options, tmp_path: Path) -> None:
    dataset = make(good, options(good))
    with dataset:
        served = list(DataLoader(dataset, batch_size=None, num_workers=1))
        assert keys(served) == keys(dataset)
    assert_nothing_runs(tmp_path / "cache")


def test_a_dataset_survives_pickling_with_its_place(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        served = list(islice(dataset, 9))
        state = dataset.state_dict(after=served[4]["position"])
        dataset.load_state_dict(state)
        copy = pickle.loads(pickle.dumps(dataset))
    assert not copy.is_open
    with copy:
        assert keys(islice(copy, 4)) == keys(served[5:])
    fresh = pickle.loads(pickle.dumps(make(good, options(good))))
    with fresh:
        assert keys(islice(fresh, 9)) == keys(served)


def test_a_dataset_inside_a_runs_budget_does_not_leave_the_process(good: Served, options: Options) -> None:
    values = options(good)
    values["disk_budget"] = 4_000_000
    stream = StreamOptions(repo_id=good.repo_id, subsets=tuple(good.subsets), **values)
    dataset = StreamingVideoDataset.from_options(stream, telemetry=Telemetry(), budget=DiskBudget(4_000_000))
    with pytest.raises(ConfigError, match="shares its disk budget"):
        pickle.dumps(dataset)


def test_a_forked_child_that_cleans_up_leaves_the_parents_clips_alone(good: Served, options: Options) -> None:
    with make(good, options(good)) as dataset:
        order = keys(dataset)
        dataset.set_epoch(0)
        iterator = iter(dataset)
        begun = keys(islice(iterator, 5))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                dataset.session.close()
                dataset.cleanup()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert begun + keys(iterator) == order
