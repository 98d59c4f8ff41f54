"""Ranks that do not do the same: none waits for ever for one that lives and is elsewhere."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest

from reelstream.cache.names import ClipName
from reelstream.data import StreamingVideoDataset, merge_states
from reelstream.errors import ArchiveError, BudgetTooSmallError, RankLostError, RanksApartError, StateError
from reelstream.prefetch.division import ClipDivision
from reelstream.prefetch.learned import IndexKeeper
from reelstream.types import Position
from unit.data.data_kit import Served, key
from unit.data.ranks_in_threads import MakeOptions, Outcome, joined, run_ranks, without_error

pytestmark = pytest.mark.timeout(60)


def take(dataset: StreamingVideoDataset, outcome: Outcome, most: int | None = None) -> None:
    outcome.keys += [key(sample) for sample in itertools.islice(dataset, most)]


def test_a_state_that_is_loaded_on_one_rank_only_is_told_on_all(good: Served, stream: MakeOptions) -> None:
    def begin(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        take(dataset, outcome, 4)
        outcome.state = dataset.state_dict()

    state = merge_states([outcome.state or {} for outcome in without_error(run_ranks(2, begin, stream(good)))])

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        if dataset.rank == 0:
            dataset.load_state_dict(state)
        take(dataset, outcome)

    for outcome in run_ranks(2, work, stream(good)):
        assert isinstance(outcome.error, RanksApartError)
        assert "rank 0 goes on in epoch 0 after 4 samples" in str(outcome.error)
        assert "rank 1 begins epoch 0" in str(outcome.error)


def test_another_epoch_on_one_rank_is_told_on_all(good: Served, stream: MakeOptions) -> None:
    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        dataset.set_epoch(dataset.rank)
        take(dataset, outcome)

    for outcome in run_ranks(2, work, stream(good)):
        assert isinstance(outcome.error, RanksApartError)
        assert "rank 1 begins epoch 1" in str(outcome.error)


def test_a_rank_that_looks_at_a_sample_first_ends_the_others_with_a_message(good: Served, stream: MakeOptions) -> None:
    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        if dataset.rank == 0:
            next(iter(dataset))
        take(dataset, outcome)

    outcomes = run_ranks(2, work, stream(good))
    assert isinstance(outcomes[1].error, RanksApartError)
    assert "rank 0 of 2 has left this pass over the epoch: it has stopped" in str(outcomes[1].error)
    assert isinstance(outcomes[0].error, RankLostError)


def test_ranks_that_stop_at_different_samples_may_iterate_anew_together(good: Served, stream: MakeOptions) -> None:
    everyone = threading.Barrier(2)

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        # Both within one round: four lanes are two samples a rank.
        take(dataset, Outcome(), 3 + dataset.rank)
        everyone.wait(30)
        take(dataset, outcome)

    again = joined(without_error(run_ranks(2, work, stream(good))))
    assert again == joined(without_error(run_ranks(1, take, stream(good, "quiet", tail="repeat"))))


def test_damage_on_one_rank_ends_the_others_though_it_stays(
    good: Served, stream: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    others_end = threading.Event()

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        if dataset.rank == 1:
            iterator = iter(dataset)
            next(iterator)
            pipeline = dataset.session._running
            assert pipeline is not None
            with pipeline._lock:
                pipeline._fail(ArchiveError("an archive is damaged"))
            with pytest.raises(ArchiveError):
                take(iterator, outcome)  # type: ignore[arg-type]
            # It catches the error, and lives on.
            assert others_end.wait(30)
        else:
            try:
                take(dataset, outcome)
            finally:
                others_end.set()

    outcomes = run_ranks(2, work, stream(good))
    assert outcomes[1].error is None
    assert isinstance(outcomes[0].error, RanksApartError)
    assert "an archive is damaged" in str(outcomes[0].error)


def test_a_budget_that_is_too_small_for_one_rank_ends_the_others(
    good: Served, stream: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = ClipDivision.room
    others_end = threading.Event()

    def room_of_first_only(self: ClipDivision, *args: Any) -> Any:
        if self._together.place.rank == 1:
            raise BudgetTooSmallError("no room here")
        return room(self, *args)

    monkeypatch.setattr(ClipDivision, "room", room_of_first_only)

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        if dataset.rank == 1:
            with pytest.raises(BudgetTooSmallError):
                take(dataset, outcome)
            assert others_end.wait(30)
        else:
            try:
                take(dataset, outcome)
            finally:
                others_end.set()

    outcomes = run_ranks(2, work, stream(good))
    assert outcomes[1].error is None
    assert isinstance(outcomes[0].error, RanksApartError)
    assert "no room here" in str(outcomes[0].error)


def test_what_a_killed_run_of_fewer_ranks_has_left_takes_no_more_than_a_rank_s_share(
    good: Served, stream: MakeOptions, tmp_path: Path
) -> None:
    dead = tmp_path / "cache" / "runs" / "run-0123456789ab"
    dead.mkdir(parents=True)
    for number in range(30):
        name = ClipName.of(number, f"{number:032x}", bytes(16))
        (dead / str(name)).write_bytes(bytes(200_000))
    taken_bytes: dict[int, tuple[int, int]] = {}
    everyone = threading.Barrier(2)

    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        iterator = iter(dataset)
        next(iterator)
        everyone.wait(30)
        taken_bytes[dataset.rank] = (dataset.session._cache.used_bytes, dataset.session._division.share_bytes)
        everyone.wait(30)
        outcome.keys += map(key, iterator)

    without_error(run_ranks(2, work, stream(good)))
    for used_bytes, share_bytes in taken_bytes.values():
        assert 0 < used_bytes <= share_bytes


def test_a_rank_without_a_state_to_give_holds_up_no_gathering(good: Served, stream: MakeOptions) -> None:
    def work(dataset: StreamingVideoDataset, outcome: Outcome) -> None:
        iterator = iter(dataset)
        position = next(iterator)["position"]
        with pytest.raises(StateError, match=r"rank 1 has no state|no sample at"):
            dataset.gather_state(position if dataset.rank == 0 else Position(7, 0, 0))
        # Nothing is out of step by it.
        outcome.state = dataset.gather_state(position)

    first, second = without_error(run_ranks(2, work, stream(good)))
    assert first.state == second.state


def test_an_archive_that_one_rank_has_read_whole_is_judged_by_that_one(
    good: Served, stream: MakeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It alone knows whether the whole is the published file; its pieces' checksums would do for the others.
    judged: list[tuple[str, str | None]] = []
    monkeypatch.setattr(
        IndexKeeper, "verified", lambda self, archive, reports, sha256: judged.append((archive.path, sha256))
    )
    without_error(run_ranks(2, take, stream(good, spans="archive")))
    assert judged
    assert len({path for path, _ in judged}) == len(judged)
    assert all(sha256 is not None for _, sha256 in judged)
