"""`reelstream make-sample DIR`: writes a sample dataset, which shows what its text says."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reelstream.errors import ConfigError
from reelstream.sampledata.make import SampleProgress, make_sample
from reelstream.sampledata.options import Packing, SampleOptions, parse_size
from reelstream.sampledata.record import SampleSummary
from reelstream.units import count, format_bytes, format_seconds, parse_bytes, parse_seconds

# Without a terminal: often enough to see that it goes on, seldom enough to read.
_LINE_EVERY_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where repositories lie; made if need be")
    parser.add_argument("--clips", type=int, required=True, metavar="N", help="clips of the training subsets")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all that is drawn by chance (default 0)")
    parser.add_argument("--archives", type=int, metavar="K", help="archives of the training subsets (default 8)")
    parser.add_argument(
        "--heldout", "--held-out", type=int, metavar="M", help="held-out clips (default N/10, at least 20)"
    )
    parser.add_argument("--size", nargs="+", metavar="WxH", help="frame sizes (default 320x240 240x320 384x216)")
    parser.add_argument(
        "--questions",
        choices=("motion", "all"),
        default="all",
        help="what the rows are about: only the direction of motion, or all that is shown (default)",
    )
    parser.add_argument("--clip-bytes", metavar="SIZE", help="the mean size of a clip (default 450kB)")
    parser.add_argument(
        "--duration", nargs=2, metavar=("MIN", "MAX"), help="least and most seconds of a clip (default 5s 30s)"
    )
    parser.add_argument(
        "--packing",
        choices=get_args(Packing),
        default="tar.gz",
        help="what holds the clips: tar.gz (default), tar, zip, or files: each clip is a file of its own",
    )
    parser.add_argument("--with-flaws", action="store_true", help="plant what goes wrong in published datasets")
    parser.add_argument("--repo-id", metavar="ORG/NAME", help="the repository (default sample/llava-video-mini)")


def run(arguments: argparse.Namespace) -> int:
    """Make the dataset, or find it; print its folder on stdout."""
    options = _options(arguments)
    begun_s = time.monotonic()
    with _shown_progress() as progress:
        summary = make_sample(arguments.folder, options, progress)
    print(_sentence(summary, options.packing, time.monotonic() - begun_s), file=sys.stderr)
    print(summary.folder)
    return 0


def _options(arguments: argparse.Namespace) -> SampleOptions:
    try:
        chosen = {
            "sizes": arguments.size and tuple(parse_size(text) for text in arguments.size),
            "clip_bytes": arguments.clip_bytes and parse_bytes(arguments.clip_bytes),
            "min_duration_s": arguments.duration and parse_seconds(arguments.duration[0]),
            "max_duration_s": arguments.duration and parse_seconds(arguments.duration[1]),
            "repo_id": arguments.repo_id,
        }
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{error}.", "See reelstream make-sample --help.") from error
    return SampleOptions(
        num_clips=arguments.clips,
        seed=arguments.seed,
        num_archives=arguments.archives,
        num_heldout=arguments.heldout,
        questions=arguments.questions,
        with_flaws=arguments.with_flaws,
        packing=arguments.packing,
        # The defaults live in SampleOptions only.
        **{name: value for name, value in chosen.items() if value is not None},
    )


def _sentence(summary: SampleSummary, packing: Packing, wall_s: float) -> str:
    verb = "found" if summary.reused else "wrote"
    held_by = "file" if packing == "files" else "archive"
    text = (
        f"{verb} {summary.repo_id}: {count(summary.num_clips, 'clip')}, {count(summary.num_rows, 'row')}, "
        f"{format_bytes(summary.size_bytes)} in {count(summary.num_archives, held_by)}"
    )
    if summary.flaws:
        text += f", {count(len(summary.flaws), 'flaw')} (listed in its README)"
    return text + (", made before with the same options" if summary.reused else f", in {format_seconds(wall_s)}")


@contextlib.contextmanager
def _shown_progress() -> Iterator[Callable[[SampleProgress], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines()
        return
    columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[size]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("encoding", total=None, size="", visible=False)

        def show(state: SampleProgress) -> None:
            size = format_bytes(state.media_bytes)
            bar.update(task, completed=state.done_clips, total=state.num_clips, size=size, visible=True)

        yield show


class _PlainLines:
    """Prints a line every few seconds."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def __call__(self, state: SampleProgress) -> None:
        """Print how far it is, if it is time to."""
        if time.monotonic() - self._last_s >= _LINE_EVERY_S:
            self._last_s = time.monotonic()
            clips = f"{state.done_clips:,} of {count(state.num_clips, 'clip')}"
            print(f"encoded {clips}, {format_bytes(state.media_bytes)}", file=sys.stderr, flush=True)
