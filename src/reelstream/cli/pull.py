"""`reelstream pull PLACE RUN_DIR`: fetch the newest whole checkpoint that a run has pushed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reelstream.errors import NotFoundOnHubError
from reelstream.interrupt import Interrupted, Interrupts, exit_code_of
from reelstream.train.checkpoints import step_folders, step_name
from reelstream.train.remote.opening import opened_remote
from reelstream.train.remote.pulling import pull_newest
from reelstream.train.run_folder import locked_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument(
        "place", metavar="PLACE", help="as remote.push: owner/name, hf://owner/name/folder, or a folder"
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="folder of the run; made if need be")
    parser.add_argument("--endpoint", help="address of the Hub (default: $HF_ENDPOINT, or the public one)")


def run(arguments: argparse.Namespace) -> int:
    """Fetch; print the checkpoint's folder. One that is there and as new is left as it is."""
    checkpoints = arguments.run_dir / "checkpoints"
    try:
        with (
            Interrupts(),
            opened_remote(arguments.place, setting="PLACE", endpoint=arguments.endpoint) as remote,
            locked_folder(arguments.run_dir),
        ):
            present = max(step_folders(checkpoints), default=-1)
            step = pull_newest(remote, arguments.run_dir, newer_than=present, tell=_say)
    except Interrupted as interrupted:
        _say(f"reelstream: stopped by {interrupted.reason}; nothing half fetched is left")
        return exit_code_of(interrupted.reason)
    if step is None and present < 0:
        raise NotFoundOnHubError(f"{arguments.place} holds no checkpoint", "has the run pushed one yet?")
    if step is None:
        _say(f"{arguments.place} holds none that is newer than that of step {present}")
        step = present
    print(checkpoints / step_name(step))
    return 0


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
