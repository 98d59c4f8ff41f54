from __future__ import annotations

import contextlib
import itertools
import json
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reelstream.cancel import Cancelled
from reelstream.data import StreamingVideoDataset, merge_states
from reelstream.errors import ConfigError, RankLostError, StateError
from reelstream.prefetch import spans
from reelstream.prefetch.options import StreamOptions
from reelstream.ranks import OneRank
from reelstream.telemetry import Telemetry, events
from unit.data.data_kit import Served, is_balanced, key
from unit.data.ranks_in_threads import MakeOptions, Outcome, joined, run_ranks, without_error


def serve(num_epochs: int = 1, most: int | None = None) -> Callable[[StreamingVideoDataset, Outcome], None]:
    """A rank that takes so many samples, or epochs, and keeps its state."""

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        for _ in range(num_epochs):
            for sample in itertools.islice(dataset, most):
                outcome.keys.append(key(sample))
        outcome.state = json.loads(json.dumps(dataset.state_dict()))

    return work


def go_on(state: dict[str, Any], most: int | None = None) -> Callable[[StreamingVideoDataset, Outcome], None]:
    """A rank that goes on from a state."""
    rest = serve(most=most)

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        dataset.load_state_dict(state)
        rest(dataset, outcome)

    return work


def merged(outcomes: list[Outcome]) -> dict[str, Any]:
    return merge_states([outcome.state for outcome in outcomes if outcome.state is not None])


@pytest.fixture(autouse=True)
def few_clips_a_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit has as few lanes as it needs, which are fewer than there may be ranks where so few clips are taken."""
    monkeypatch.setattr(spans, "_LEAST_CLIPS_OF_LIMITED_LANE", 2)


@pytest.mark.parametrize("changes", [{}, {"spans": "cut", "cut_size": 300_000}, {"limit": 10}, {"tail": "drop"}])
def test_the_order_is_the_same_for_every_number_of_ranks_that_divides_the_lanes(
    good: Served, stream: MakeOptions, changes: dict[str, Any]
) -> None:
    orders = []
    for world_size in (1, 2, 4):
        outcomes = without_error(run_ranks(world_size, serve(2), stream(good, f"cache-{world_size}", **changes)))
        orders.append(joined(outcomes))
        for outcome in outcomes:
            booked = outcome.recorder.of(events.EpochBooked)
            assert all(map(is_balanced, booked))
            assert booked == outcomes[0].recorder.of(events.EpochBooked)
    assert orders[0] == orders[1] == orders[2]
    # The second epoch is one of blocks, but where a limit keeps the spans of the first.
    kinds = [event.span_kind for event in outcomes[0].recorder.of(events.EpochStarted)]
    assert kinds[1] == ("block" if not {"limit", "spans"} & changes.keys() else kinds[0])


@pytest.mark.parametrize("changes", [{}, {"spans": "cut", "cut_size": 300_000}, {"limit": 10}])
def test_a_run_goes_on_on_another_number_of_ranks_with_the_same_order(
    good: Served, stream: MakeOptions, changes: dict[str, Any]
) -> None:
    quiet = joined(without_error(run_ranks(1, serve(), stream(good, "quiet", **changes))))
    for then, now in ((2, 1), (2, 4), (4, 2), (1, 4)):
        first = without_error(run_ranks(then, serve(most=24 // then), stream(good, f"{then}-{now}", **changes)))
        assert joined(first) == quiet[:24]
        rest = run_ranks(now, go_on(merged(first)), stream(good, f"{then}-{now}", **changes))
        assert joined(without_error(rest)) == quiet[24:], f"from {then} ranks to {now}"


def test_ranks_that_have_loaded_a_state_and_gone_no_further_give_it_back(good: Served, stream: MakeOptions) -> None:
    whole = merged(without_error(run_ranks(2, serve(most=12), stream(good))))

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        dataset.load_state_dict(whole)
        outcome.state = dataset.state_dict()
        assert dataset.gather_state()["epoch_state"] == whole["epoch_state"]

    for world_size in (1, 2, 4):
        outcomes = without_error(run_ranks(world_size, work, stream(good)))
        assert merged(outcomes)["epoch_state"] == whole["epoch_state"], f"on {world_size} ranks"


def test_a_run_goes_on_where_lanes_have_ended_already(good: Served, stream: MakeOptions) -> None:
    quiet = joined(without_error(run_ranks(1, serve(), stream(good, "quiet"))))
    num_before = len(quiet) - 4
    first = without_error(run_ranks(2, serve(most=num_before // 2), stream(good)))
    state = merged(first)
    assert state["epoch_state"]["books"]["repeated"] > 0
    rest = without_error(run_ranks(4, go_on(state), stream(good)))
    assert joined(rest) == quiet[num_before:]


def test_ranks_on_nodes_of_their_own_exchange_what_they_have_learned(
    good: Served, stream: MakeOptions, tmp_path: Path
) -> None:
    quiet = joined(without_error(run_ranks(1, serve(2), stream(good, "quiet"))))

    def of_node(rank: int) -> StreamOptions:
        return stream(good, f"node-{rank}")(rank)

    outcomes = without_error(run_ranks(2, serve(2), of_node, nodes=2))
    assert joined(outcomes) == quiet
    kinds = [event.span_kind for event in outcomes[1].recorder.of(events.EpochStarted)]
    assert kinds == ["archive", "block"]
    names = [sorted(path.name for path in (tmp_path / f"node-{rank}" / "indexes").glob("*.rsi*")) for rank in range(2)]
    assert names[0] == names[1]


def figures(served: Served) -> dict[str, tuple[int, int]]:
    """Bytes and resolves of each archive so far, as the hub counts them."""
    with urllib.request.urlopen(f"{served.endpoint}/_stats", timeout=10) as answer:
        paths = json.load(answer)["paths"]
    return {path: (of["bytes_sent"], of["resolves"]) for path, of in paths.items() if path.endswith(".tar.gz")}


def test_no_byte_is_fetched_by_two_ranks_and_one_resolves_an_archive(good: Served, stream: MakeOptions) -> None:
    before = figures(good)
    without_error(run_ranks(2, serve(), stream(good, spans="cut", cut_size=250_000)))
    after = figures(good)
    root = good.summary.folder.parent.parent
    for path, (num_bytes, resolves) in after.items():
        bytes_before, resolves_before = before.get(path, (0, 0))
        if resolves == resolves_before:
            continue
        assert resolves - resolves_before == 1
        # Archives of 300 kB are two cuts: at a border some clips of 60 kB are looked at from both sides.
        assert num_bytes - bytes_before <= (root / path).stat().st_size + 3 * 60_000
    assert any(after[path][1] > before.get(path, (0, 0))[1] for path in after)


def test_bad_clips_leave_all_ranks_in_step(flawed: Served, stream: MakeOptions) -> None:
    changes = {"max_bad_share": 1.0, "on_bad_archive": "skip"}
    orders = []
    for world_size in (1, 2, 4):
        outcomes = without_error(run_ranks(world_size, serve(), stream(flawed, f"cache-{world_size}", **changes)))
        orders.append(joined(outcomes))
        booked = outcomes[0].recorder.of(events.EpochBooked)[0]
        assert booked.num_quarantined > 0
        assert is_balanced(booked)
    assert orders[0] == orders[1] == orders[2]


def test_the_ranks_of_a_node_share_its_clip_budget(good: Served, stream: MakeOptions) -> None:
    shares: dict[int, tuple[int, int]] = {}

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        next(iter(dataset))
        division = dataset.session._division
        shares[dataset.rank] = (division.clip_budget_bytes, division.share_bytes)

    without_error(run_ranks(2, work, stream(good)))
    assert shares[0] == shares[1]
    assert shares[0][1] == shares[0][0] // 2


def test_a_rank_that_fails_ends_the_others_with_its_reason(good: Served, stream: MakeOptions) -> None:
    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        for number, sample in enumerate(dataset):
            outcome.keys.append(key(sample))
            if dataset.rank == 1 and number == 3:
                raise ConfigError("something is wrong here")

    outcomes = run_ranks(2, work, stream(good))
    assert isinstance(outcomes[1].error, ConfigError)
    assert isinstance(outcomes[0].error, RankLostError)
    assert "rank 1" in str(outcomes[0].error)


def test_ranks_that_cannot_share_the_lanes_are_told_which_numbers_can(good: Served, stream: MakeOptions) -> None:
    state = merged(without_error(run_ranks(2, serve(most=3), stream(good))))
    outcomes = run_ranks(3, go_on(state), stream(good, "three"))
    assert all(isinstance(outcome.error, StateError | RankLostError) for outcome in outcomes)
    message = "; ".join(str(outcome.error) for outcome in outcomes)
    assert "4 lanes, which 3 ranks cannot share" in message
    assert "resume on 1, 2, 4 ranks" in message


def test_a_rank_s_own_state_is_for_the_same_rank_only(good: Served, stream: MakeOptions) -> None:
    first = without_error(run_ranks(2, serve(most=4), stream(good)))
    states = [outcome.state for outcome in first]

    def own(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        go_on(states[dataset.rank] or {}, most=4)(dataset, outcome)

    again = without_error(run_ranks(2, own, stream(good)))
    whole = without_error(run_ranks(2, go_on(merged(first), most=4), stream(good)))
    assert joined(again) == joined(whole)
    with (
        StreamingVideoDataset.from_options(stream(good)(0), telemetry=Telemetry(), ranks=OneRank()) as alone,
        pytest.raises(StateError, match="rank 1's of 2"),
    ):
        alone.load_state_dict(states[1] or {})


def test_skipping_lanes_that_have_ended_is_for_one_rank(good: Served, stream: MakeOptions) -> None:
    outcomes = run_ranks(2, serve(), stream(good, tail="skip"))
    for outcome in outcomes:
        assert isinstance(outcome.error, ConfigError), "each says so itself, not that another one has left"
        assert "set tail to repeat" in str(outcome.error)


def test_gathered_states_are_those_of_all_ranks(good: Served, stream: MakeOptions) -> None:
    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        iterator = iter(dataset)
        samples = [next(iterator) for _ in range(6)]
        outcome.keys = [key(sample) for sample in samples[:4]]
        # Two are handed out and not consumed.
        outcome.state = dataset.gather_state(samples[3]["position"])

    outcomes = without_error(run_ranks(2, work, stream(good)))
    assert outcomes[0].state == outcomes[1].state
    state = outcomes[0].state
    assert state is not None
    assert state["epoch_state"]["num_consumed"] == 8
    quiet = joined(without_error(run_ranks(1, serve(), stream(good, "quiet"))))
    assert joined(without_error(run_ranks(1, go_on(state), stream(good)))) == quiet[8:]
    assert joined(outcomes) == quiet[:8]


def test_an_iteration_is_called_off_while_it_waits_for_another_rank(good: Served, stream: MakeOptions) -> None:
    waits = threading.Event()

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        iterator = iter(dataset)
        for _ in range(4):
            outcome.keys.append(key(next(iterator)))
        if dataset.rank == 0:
            # The other one never asks for the next round.
            threading.Timer(0.2, dataset.cancel).start()
            try:
                with pytest.raises(Cancelled):
                    outcome.keys += map(key, iterator)
            finally:
                waits.set()
        else:
            waits.wait()

    outcomes = without_error(run_ranks(2, work, stream(good)))
    assert len(outcomes[0].keys) < 10


def test_the_disk_of_a_node_never_holds_more_than_its_budget(good: Served, stream: MakeOptions, tmp_path: Path) -> None:
    budget_bytes = 2_500_000
    over, most_bytes = threading.Event(), [0]

    def watch() -> None:
        while not over.wait(0.002):
            most_bytes[0] = max(most_bytes[0], disk_bytes(tmp_path / "cache"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        without_error(run_ranks(4, serve(2), stream(good, disk_budget=budget_bytes)))
    finally:
        over.set()
        watcher.join()
    assert 0 < most_bytes[0] <= budget_bytes


def disk_bytes(folder: Path) -> int:
    """What a folder takes on disk, as far as it holds still."""
    total = 0
    # A folder may go while it is being listed.
    with contextlib.suppress(FileNotFoundError):
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.lstat().st_blocks * 512
    return total


@pytest.mark.parametrize("states", [[], [{}], [{"version": 1, "epoch_state": {}}]])
def test_what_is_no_state_of_ranks_is_refused_in_a_sentence(states: list[dict[str, Any]]) -> None:
    with pytest.raises(StateError, match=r"states"):
        merge_states(states)
