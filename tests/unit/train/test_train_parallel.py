from __future__ import annotations

import pytest
import torch.distributed as dist

from reelstream.cancel import Cancellation, Cancelled
from reelstream.errors import ConfigError, RankLostError
from reelstream.ranks import ALONE, RankPlace
from reelstream.telemetry import Telemetry
from reelstream.train.device import choose_compute, seed_of
from reelstream.train.options import TrainOptions
from reelstream.train.parallel import ALONE_TEAM, Team, joined_team

GLOO = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:4242\nframe #0: ...")


class FakeRanks:
    """Two ranks, the other of which is as a test says."""

    def __init__(self, other: bytes | Exception) -> None:
        self.place = RankPlace(rank=0, world_size=2, local_rank=0, local_world_size=2)
        self.other = other
        self.names: list[str] = []
        self.reasons: list[str] = []

    def exchange(self, name: str, value: bytes, cancellation: Cancellation) -> list[bytes]:
        self.names.append(name)
        if isinstance(self.other, Exception):
            raise self.other
        return [value, self.other]

    def give(self, name: str, value: bytes) -> None:
        self.names.append(name)

    def leave(self, reason: str) -> None:
        self.reasons.append(reason)


def test_a_process_by_itself_agrees_with_itself() -> None:
    assert ALONE_TEAM.is_first
    assert ALONE_TEAM.gather(b"record") == [b"record"]
    assert ALONE_TEAM.exchange("topic", b"value") == [b"value"]
    ALONE_TEAM.leave(ValueError("never mind"))
    assert not ALONE_TEAM.has_left


def test_each_exchange_has_a_name_of_its_own() -> None:
    ranks = FakeRanks(b"b")
    team = Team(ranks)
    for topic in ("x", "x", "y"):
        assert team.exchange(topic, b"a") == [b"a", b"b"]
    assert len(set(ranks.names)) == 3


def test_who_leaves_says_why() -> None:
    ranks = FakeRanks(b"")
    team = Team(ranks)
    team.leave(ConfigError("the fact", "the hint"))
    assert team.has_left
    assert ranks.reasons == ["the fact"]


def test_a_connection_that_breaks_is_a_rank_that_is_gone_named_by_its_own_reason() -> None:
    team = Team(FakeRanks(RankLostError("rank 1 of 2 has left: out of memory")))
    with pytest.raises(RankLostError, match="out of memory"), team.watched("a step"):
        raise GLOO


@pytest.mark.parametrize("found", [b"", Cancelled()])
def test_a_connection_that_breaks_without_a_word_is_told_as_it_is(found: bytes | Exception) -> None:
    team = Team(FakeRanks(found))
    with (
        pytest.raises(RankLostError, match=r"lost in a step: .*Connection closed by peer") as caught,
        team.watched("a step"),
    ):
        raise GLOO
    assert "frame" not in caught.value.fact


def test_other_errors_pass_as_they_are() -> None:
    team = Team(FakeRanks(b""))
    with pytest.raises(RuntimeError, match="out of memory"), team.watched("a step"):
        raise RuntimeError("CUDA out of memory")


@pytest.fixture
def three_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("three_ranks")
def test_a_batch_that_ranks_cannot_share_is_refused_with_the_sizes_that_they_can() -> None:
    with pytest.raises(ConfigError, match="batch_size is 8") as caught, joined_team(TrainOptions(), Telemetry()):
        pass
    assert "6 or 9" in caught.value.hint
    with pytest.raises(ConfigError) as caught, joined_team(TrainOptions(batch_size=2), Telemetry()):
        pass
    assert "set it to 3," in caught.value.hint
    assert not dist.is_initialized()


@pytest.mark.usefixtures("three_ranks")
def test_several_ranks_that_share_nothing_are_refused() -> None:
    options = TrainOptions(parallel="none", batch_size=3)
    with pytest.raises(ConfigError, match=r"train\.parallel is none"), joined_team(options, Telemetry()):
        pass


def test_one_rank_is_a_process_by_itself_whatever_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined_team(TrainOptions(parallel="fsdp2"), Telemetry()) as team:
        assert team.place == ALONE
        assert not dist.is_initialized()


def test_one_gpu_for_several_ranks_is_refused() -> None:
    place = RankPlace(rank=1, world_size=2, local_rank=1, local_world_size=2)
    with pytest.raises(ConfigError, match="a GPU of its own"):
        choose_compute(TrainOptions(device="cuda:0"), place)
    assert choose_compute(TrainOptions(device="cpu"), place).device.type == "cpu"


def test_seeds_of_other_ranks_and_steps_are_others() -> None:
    seeds = {seed_of(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)
