"""The saved states of datasets: each rank's, and the one of all."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from reelstream.errors import StateError
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.shares import merge_shares
from reelstream.prefetch.state import EpochState

STATE_VERSION = 2
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SAME = ("version", "repo_id", "commit", "world_size", "epoch")
_SAVE_HINT = "save all ranks' states at the same step, and merge those"


def merge_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of all ranks, to be loaded on any number of ranks that divides the lanes.

    Args:
        states: What `state_dict` gave on each rank of one run, after the same number of samples; in any order.

    Raises:
        StateError: Where they are not that.
    """
    if not states:
        raise StateError("there are no states to merge", _SAVE_HINT)
    first = states[0]
    for state in states:
        for name in _SAME:
            if state.get(name) != first.get(name):
                raise StateError(
                    f"the ranks' states differ in {name}: {first.get(name)!r} and {state.get(name)!r}", _SAVE_HINT
                )
    if first.get("version") != STATE_VERSION or "epoch_state" not in first:
        raise StateError(
            f"the ranks' states have version {first.get('version')!r}; this Reelstream reads {STATE_VERSION}",
            "resume with the Reelstream that saved them",
        )
    if len(states) == first["world_size"] == 1:
        return first
    begun = [state["epoch_state"] for state in states if state["epoch_state"] is not None]
    if begun and len(begun) < len(states):
        raise StateError("some ranks had begun the epoch and others had not", _SAVE_HINT)
    merged = merge_shares([EpochState.from_json(values) for values in begun]).to_json() if begun else None
    return {**first, "rank": None, "epoch_state": merged}


def at_commit_of(options: StreamOptions, state: dict[str, Any]) -> StreamOptions:
    """Return the options with the commit of a saved state in the place of a branch, which may have moved since.

    A revision that is a commit itself stays: where it is another one, loading the state refuses it.
    """
    commit = state.get("commit")
    if commit is None or (options.revision is not None and _COMMIT.fullmatch(options.revision)):
        return options
    return dataclasses.replace(options, revision=commit)
