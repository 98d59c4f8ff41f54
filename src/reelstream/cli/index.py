"""`reelstream index REPO`: learns where the clips lie in their archives, and keeps nothing else of them."""

from __future__ import annotations

import argparse
import shlex

from reelstream.archive import Verification
from reelstream.cli.dataset_options import (
    OpenedDataset,
    add_connections_argument,
    add_dataset_arguments,
    command_words,
    one_line,
    opened_dataset,
    say,
)
from reelstream.cli.progress import BytesDone, told_progress
from reelstream.indexes.learn import ArchiveOutcome, LearningProgress, Outcome, learn
from reelstream.interrupt import Interrupted, Interrupts, exit_code_of
from reelstream.types import Archive, ContainerKind
from reelstream.units import count, format_bytes

_VERIFIED_BY = {
    Verification.PROVISIONAL: "each member by itself",
    Verification.CHECKSUM: "checksum",
    Verification.SHA256: "SHA-256",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    add_dataset_arguments(parser)
    add_connections_argument(parser)
    parser.add_argument(
        "--check", action="store_true", help="read no archive: say what is known, leave with 1 if not all"
    )


def run(arguments: argparse.Namespace) -> int:
    """Learn what is not known; print a line an archive: path, outcome, members, what verified it."""
    try:
        with Interrupts(), opened_dataset(arguments) as dataset:
            return _check(dataset, arguments) if arguments.check else _learn(dataset, arguments)
    except Interrupted as interrupted:
        again = shlex.join(command_words("index", arguments))
        say(f"reelstream: stopped by {interrupted.reason}; what was learned is kept\n  hint: go on with: {again}")
        return exit_code_of(interrupted.reason)


def _learn(dataset: OpenedDataset, arguments: argparse.Namespace) -> int:
    progress = LearningProgress()
    with told_progress(lambda: _state(progress)):
        outcomes = learn(
            dataset.archives,
            dataset.open_source,
            dataset.store,
            connections=arguments.connections,
            progress=progress,
            cancellation=dataset.cancellation,
        )
    for outcome in outcomes:
        _print(outcome)
    failed = [outcome for outcome in outcomes if outcome.outcome is Outcome.FAILED]
    num_learned = sum(outcome.outcome is Outcome.LEARNED for outcome in outcomes)
    num_known = sum(outcome.outcome is Outcome.KNOWN for outcome in outcomes)
    text = (
        f"learned {count(num_learned, 'archive')} from {format_bytes(progress.read_bytes)}, {num_known:,} known before"
    )
    say(text + (f", {len(failed):,} failed" if failed else ""))
    for outcome in failed:
        if outcome.error is not None:
            say(f"reelstream: {outcome.error.fact}" + (f"\n  hint: {outcome.error.hint}" if outcome.error.hint else ""))
    return 1 if failed else 0


def _check(dataset: OpenedDataset, arguments: argparse.Namespace) -> int:
    """Say what is known; nothing of the archives is asked for."""
    missing: list[Archive] = []
    for archive in dataset.archives:
        index = dataset.store.find(archive)
        # Of a video by itself all is known from the list of files.
        if index is not None or archive.kind is ContainerKind.FILE:
            _print(ArchiveOutcome(archive=archive, outcome=Outcome.KNOWN, index=index))
        else:
            missing.append(archive)
            print(f"{one_line(archive.path)}\tnot known\t\t", flush=True)
    if not missing:
        return 0
    say(
        f"{count(len(missing), 'archive')} of {len(dataset.archives):,} "
        f"{'is' if len(missing) == 1 else 'are'} not known; learn them with: "
        f"{shlex.join(command_words('index', arguments))}"
    )
    return 1


def _print(outcome: ArchiveOutcome) -> None:
    index = outcome.index
    members, verified = ("", "") if index is None else (f"{len(index)}", _VERIFIED_BY[index.verification])
    print(f"{one_line(outcome.archive.path)}\t{outcome.outcome}\t{members}\t{verified}", flush=True)


def _state(progress: LearningProgress) -> BytesDone:
    return BytesDone(
        label=f"learned {progress.num_done:,} of {count(progress.num_archives, 'archive')}",
        done_bytes=progress.read_bytes,
        total_bytes=progress.needed_bytes,
    )
