"""Makes a sample dataset: carries out what `plan` planned."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reelstream.cancel import Cancellation
from reelstream.errors import DiskError
from reelstream.sampledata.annotations import write_annotations
from reelstream.sampledata.archives import open_archive
from reelstream.sampledata.encoding import encode_clip
from reelstream.sampledata.flaws import TEXT_MEMBER_CONTENT, TEXT_MEMBER_PATH, FlawKind, flawed_content
from reelstream.sampledata.options import Packing, SampleOptions
from reelstream.sampledata.plan import PlannedArchive, PlannedClip, PlannedSubset, SamplePlan, plan_sample
from reelstream.sampledata.readme import readme_text
from reelstream.sampledata.record import SampleSummary, SubsetSummary, find_existing, write_record
from reelstream.types import AnnotationKind
from reelstream.units import format_bytes

# Clips encoded ahead of the archive's writer, for each thread: enough to even out long and short ones.
_CLIPS_AHEAD = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleProgress:
    """How far the making of a sample dataset is."""

    done_clips: int
    num_clips: int
    media_bytes: int
    """Bytes of the clips that are done."""


def make_sample(
    folder: Path, options: SampleOptions, progress: Callable[[SampleProgress], None] | None = None
) -> SampleSummary:
    """Write a sample dataset to `folder/<organisation>/<name>`, or find it there.

    All is written to a folder beside the target, which takes the target's name once it is whole; whatever goes wrong,
    it is removed. A dataset of the same options that lies there is reused at once; its files' sizes are checked.

    Args:
        folder: Where repositories lie; made where it does not exist.
        options: What to make.
        progress: Called after each clip, from the calling thread.

    Raises:
        DiskError: Where something else lies at the target, or the disk is full or not ours to write to.
        ReelstreamError: Where PyAV cannot encode on this machine.
    """
    target = folder / options.repo_id
    existing = find_existing(target, options)
    if existing is not None:
        return existing
    plan = plan_sample(options)
    _require_free_space(folder, len(plan.clips) * options.clip_bytes)
    with _staging(target) as staging:
        summary = _write(staging, plan, options, progress or (lambda _: None))
        (staging / "README.md").write_text(readme_text(options, summary), encoding="utf-8")
        write_record(staging, options, summary)
    return dataclasses.replace(summary, folder=target)


def _require_free_space(folder: Path, media_bytes: int) -> None:
    # A tenth more for what overshoots, and some for the text.
    needed_bytes = media_bytes * 11 // 10 + 2_000_000
    present = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        free_bytes = shutil.disk_usage(present).free
    except OSError as error:
        raise DiskError(f"{present} cannot be read: {error}.", "Choose another folder.") from error
    if free_bytes < needed_bytes:
        raise DiskError(
            f"The sample dataset needs {format_bytes(needed_bytes)}; {present} has {format_bytes(free_bytes)} free.",
            "Free some space, choose another disk, or ask for fewer or smaller clips.",
        )


@contextlib.contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """Give a new folder beside `target`; rename it to `target` at the end, or leave nothing at all."""
    made = [parent for parent in (target.parent, *target.parent.parents) if not parent.exists()]
    staging = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir(parents=True)
        yield staging
        # An empty folder at the target gives way; anything that has appeared there since stops us.
        staging.replace(target)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError) and not isinstance(error, DiskError):
            raise DiskError(
                f"The sample dataset could not be written to {target}: {error}.",
                "Choose another folder, or free some space.",
            ) from error
        raise


def _write(
    staging: Path, plan: SamplePlan, options: SampleOptions, progress: Callable[[SampleProgress], None]
) -> SampleSummary:
    subsets = []
    size_bytes = media_bytes = done_clips = 0
    with _encoded(plan.clips, scratch=staging) as contents:
        for subset in plan.subsets:
            (staging / subset.name).mkdir()
            num_rows = write_annotations(staging / subset.name, subset, seed=options.seed, questions=options.questions)
            for archive in subset.archives:
                for clip_bytes in _write_archive(staging / archive.path, archive, contents, options.packing):
                    media_bytes += clip_bytes
                    done_clips += 1
                    progress(SampleProgress(done_clips=done_clips, num_clips=len(plan.clips), media_bytes=media_bytes))
                size_bytes += (staging / archive.path).stat().st_size
            subsets.append(_subset_summary(subset, dict(num_rows)))
    return SampleSummary(
        folder=staging,
        repo_id=options.repo_id,
        subsets=tuple(subsets),
        size_bytes=size_bytes,
        media_bytes=media_bytes,
        flaws=plan.flaws,
        reused=False,
    )


def _write_archive(path: Path, archive: PlannedArchive, contents: Iterator[bytes], packing: Packing) -> Iterator[int]:
    """Write one archive; yield the bytes of each clip once it is in."""
    with open_archive(path, packing, prefix="./" * (FlawKind.DOT_SLASH in archive.flaws)) as writer:
        if FlawKind.TEXT_MEMBER in archive.flaws:
            writer.add(TEXT_MEMBER_PATH, TEXT_MEMBER_CONTENT)
        for clip in archive.clips:
            content = next(contents)
            if clip.flaw is FlawKind.MISSING:
                yield 0
            else:
                writer.add(clip.path, content)
                yield len(content)


@contextlib.contextmanager
def _encoded(clips: Sequence[PlannedClip], *, scratch: Path) -> Iterator[Iterator[bytes]]:
    """Give the clips' contents in their order; threads encode a few clips ahead, and end with the block."""
    cancellation = Cancellation()
    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def encode(clip: PlannedClip) -> bytes:
        return flawed_content(encode_clip(clip.spec, scratch=scratch, cancellation=cancellation), clip.flaw)

    executor = ThreadPoolExecutor(num_threads, thread_name_prefix="sample-encode")

    def contents() -> Iterator[bytes]:
        pending: deque[Future[bytes]] = deque()
        for clip in clips:
            pending.append(executor.submit(encode, clip))
            if len(pending) > num_threads * _CLIPS_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    try:
        yield contents()
    finally:
        cancellation.cancel()
        executor.shutdown(wait=True, cancel_futures=True)


def _subset_summary(subset: PlannedSubset, num_rows: dict[AnnotationKind, int]) -> SubsetSummary:
    clips = [clip for archive in subset.archives for clip in archive.clips]
    return SubsetSummary(
        name=subset.name,
        heldout=subset.heldout,
        num_clips=sum(clip.flaw is not FlawKind.UNREFERENCED for clip in clips),
        num_rows=num_rows,
        archives=tuple(archive.path for archive in subset.archives),
    )
