"""A resume stays at the commit that it began with, wherever the branch is by then."""

import pytest

from reelstream.data.states import at_commit_of
from reelstream.prefetch.options import StreamOptions

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "deadbeef"])
def test_a_branch_gives_way_to_the_commit_of_the_state(revision: str | None) -> None:
    options = StreamOptions(repo_id="a/b", subsets=("c",), revision=revision)
    assert at_commit_of(options, {"commit": COMMIT}).revision == COMMIT


def test_a_commit_stays_to_be_compared_with_the_states() -> None:
    options = StreamOptions(repo_id="a/b", subsets=("c",), revision=OTHER)
    assert at_commit_of(options, {"commit": COMMIT}) == options


def test_a_state_without_a_commit_changes_nothing() -> None:
    options = StreamOptions(repo_id="a/b", subsets=("c",))
    assert at_commit_of(options, {}) == options
