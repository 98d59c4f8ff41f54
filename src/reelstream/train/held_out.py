"""Clips that are not trained on, streamed beside the training data, and what the model is asked about them.

They are clips of the subsets that are trained on, held out by their file names, or a subset of its own. Their bytes
come by ranged reads of just these clips, where it is known where they lie. As long as it is not:

- clips held out of the training data wait: the first epoch of training learns the places in passing, and reading all
  archives a second time for two clips in a hundred would be no bargain;
- a subset of its own is read through once, which learns its places.

During training they have a part of the disk budget of their own, set aside before the first step. Evaluated at the end
only they need none: then the disk is free.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import Self

from reelstream.cache import DiskBudget
from reelstream.catalog import ANNOTATION_KINDS, Catalog, Split
from reelstream.data import Sample, StreamingVideoDataset
from reelstream.errors import BudgetTooSmallError, ConfigError
from reelstream.indexes.same_bytes import NamedMember, same_bytes
from reelstream.prefetch.division import LEAST_CLIP_BUDGET_BYTES
from reelstream.prefetch.options import StreamOptions
from reelstream.prefetch.session import StreamSession
from reelstream.ranks import OneRank
from reelstream.telemetry import Telemetry, events
from reelstream.train.device import Compute
from reelstream.train.evaluate import EvaluationResult, evaluate_samples
from reelstream.train.models import LoadedModel
from reelstream.train.options import EvaluationOptions
from reelstream.units import count, format_bytes

CLIP_ACCOUNT = "held-out clips"
"""The part of the disk budget that held-out clips have during training."""

# Few clips, asked for one after the other: more lanes would only need more room.
_NUM_LANES = 2
# Room for so many mean clips makes room for a clip of ten times the mean, whatever lane it comes in.
_MOVING_CLIPS = 10 * (_NUM_LANES + 2)
# Clips differ, and the mean is that of all clips as they are packed.
_KEEP_MARGIN = 1.25
# Of the frames' memory that training has.
_MEMORY_SHARE = 4

Evaluator = Callable[[], EvaluationResult | None]
"""Scores the held-out samples; None where their clips cannot be had yet."""


class HeldOutClips:
    """The held-out clips of a run; a context manager.

    Entering it opens their catalog and sets their room aside, so that what is wrong with either is known before hours
    of training. With several ranks only one of them makes it.

    Args:
        options: Which clips, and what to ask of them.
        data: How the training data are streamed; held-out clips are decoded in the same way.
        trained_on: The training data, opened; the held-out clips are of the same commit.
        telemetry: Told what is held out, what leaks, and what a person should read; bytes and clips of held-out clips
            are not the training run's, and go to no books.
        budget: The run's, before the first clip of an epoch.
        progress: Called with the bytes of annotations that were just read.

    Raises (when entered):
        BudgetTooSmallError: Where the room is not free.
        ConfigError: Where nothing, or all, would be held out, or there is no such subset.
        ReelstreamError: Where the subset cannot be opened.
    """

    def __init__(
        self,
        options: EvaluationOptions,
        data: StreamOptions,
        *,
        trained_on: StreamingVideoDataset,
        telemetry: Telemetry,
        budget: DiskBudget,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        assert options.enabled
        self._options = options
        self._trained_on = trained_on
        self._telemetry = telemetry
        self._own_telemetry = Telemetry(_Notices(telemetry))
        self._budget = budget
        self._dataset = StreamingVideoDataset.from_options(
            held_out_options(options, data, trained_on.session),
            telemetry=self._own_telemetry,
            budget=budget,
            ranks=OneRank(),
            progress=progress,
            clip_account=CLIP_ACCOUNT if self._has_own_room else "clips",
        )
        self._told_waiting = False
        self._num_indexes_compared = 0
        self._leaks: set[str] = set()

    def __enter__(self) -> Self:
        catalog = self._dataset.session.catalog
        if self._options.holds_out:
            trained = self._trained_on.session.catalog
            num_clips = trained.num_clips - trained.num_taken_clips
            num_samples = trained.num_samples - trained.num_taken_samples
        else:
            num_clips, num_samples = catalog.num_clips, catalog.num_samples
        self._telemetry.emit(
            events.HeldOut(
                num_clips=num_clips,
                num_samples=num_samples,
                num_evaluated_clips=catalog.num_taken_clips,
                num_evaluated_samples=catalog.num_taken_samples,
            )
        )
        try:
            if self._has_own_room:
                self._budget.account(CLIP_ACCOUNT).set_aside(self.room_bytes)
            self._is_ready()
            self._tell_leaks()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._dataset.cleanup()
        self._budget.account(CLIP_ACCOUNT).set_aside(0)

    def download(self) -> None:
        """Have their archives on disk where nothing shall be streamed, else do nothing."""
        self._dataset.session.download()

    @property
    def received_bytes(self) -> int:
        """Bytes that came from the network so far."""
        return self._own_telemetry.received_bytes

    def evaluator(self, loaded: LoadedModel, compute: Compute) -> Evaluator:
        """Return what scores the held-out samples with a model, each time the same ones.

        The model must be on the device, and nothing else may run in it. Where evaluations come at the end only, the
        training data give up what they have on disk for it.

        Args:
            loaded: The model.
            compute: Device and arithmetic.
        """

        def evaluate() -> EvaluationResult | None:
            self._tell_leaks()
            if not self._is_ready():
                return None
            if not self._has_own_room:
                self._telemetry.emit(events.Notice(message="evaluating held-out clips"))
                # Training has ended, perhaps within an epoch: its clips make room.
                self._trained_on.reset()
                self._trained_on.session.drop_kept()
            started_s, received_bytes = time.monotonic(), self.received_bytes
            with contextlib.closing(self._samples()) as samples:
                result = evaluate_samples(
                    loaded.model,
                    loaded.family,
                    samples,
                    batch_size=self._options.batch_size,
                    compute=compute,
                    max_questions=self._options.max_questions,
                )
            return dataclasses.replace(
                result,
                received_bytes=self.received_bytes - received_bytes,
                wait_s=time.monotonic() - started_s,
            )

        return evaluate

    # ------------------------------------------------------------------ the clips

    @property
    def _has_own_room(self) -> bool:
        return self._options.every_steps is not None

    @property
    def room_bytes(self) -> int:
        """The part of the disk budget that held-out clips have during training; 0 where they need none.

        A function of dataset and options alone: the order of training follows from what is left.
        """
        if not self._has_own_room:
            return 0
        if self._options.disk_share is not None:
            return self._options.disk_share
        session = self._dataset.session
        archive_bytes = sum(layout.archive_size_bytes for layout in session.layouts)
        mean_clip_bytes = archive_bytes / max(1, session.catalog.num_clips)
        num_kept = session.catalog.num_taken_clips if self._options.keep else 0
        return max(LEAST_CLIP_BUDGET_BYTES, int((_MOVING_CLIPS + _KEEP_MARGIN * num_kept) * mean_clip_bytes))

    def _samples(self) -> Generator[Sample, None, None]:
        self._dataset.set_epoch(0)
        try:
            yield from self._dataset
        except BudgetTooSmallError as error:
            if not self._has_own_room:
                raise
            raise BudgetTooSmallError(
                f"held-out clips have {format_bytes(self.room_bytes)} of the disk budget: {error.fact}",
                f"set evaluation.disk_share to {_NUM_LANES + 2} times the largest held-out clip or more",
            ) from error
        finally:
            # What is not kept is deleted.
            self._dataset.reset()

    def _is_ready(self) -> bool:
        """Return whether the clips can be had, and say once what they wait for."""
        session = self._dataset.session
        unknown = session.unknown_archives()
        if not unknown:
            return True
        num_archives = sum(len(layout.archives) for layout in session.layouts)
        of_archives = f"{len(unknown)} of {count(num_archives, 'archive')}"
        if not self._options.holds_out:
            message = (
                f"evaluation.subset {self._options.subset}: where clips lie in {of_archives} is not known yet; its "
                f"first evaluation reads all of it, the later ones {count(session.catalog.num_taken_clips, 'clip')}"
            )
        else:
            message = (
                f"held-out clips are evaluated once it is known where they lie: in {of_archives} it is not, and "
                "training learns it as it reads these to their ends; to evaluate from the first step on, learn it "
                f"before by `{session.learning_command}`"
            )
        if not self._told_waiting:
            self._told_waiting = True
            self._telemetry.emit(events.Notice(message=message))
        return not self._options.holds_out

    # ------------------------------------------------------------------ leaks

    def _tell_leaks(self) -> None:
        """Tell of clips that are trained on and have the very bytes of held-out ones, as far as indexes know."""
        sessions = (
            [self._dataset.session] if self._options.holds_out else [self._trained_on.session, self._dataset.session]
        )
        indexes = [known for session in sessions for known in session.indexes.whole()]
        if len(indexes) <= self._num_indexes_compared:
            return
        self._num_indexes_compared = len(indexes)
        leaks = [
            leak for group in same_bytes(indexes) for leak in self._leaks_of(group) if leak.clip not in self._leaks
        ]
        if not leaks:
            return
        self._leaks.update(leak.clip for leak in leaks)
        for leak in leaks:
            self._telemetry.emit(leak)
        message = (
            f"{count(len(leaks), 'clip')} trained on with the very bytes of a held-out one under another name, such as "
            f"{leaks[0].clip} and {leaks[0].held_out}: what is measured on held-out clips flatters the model; the "
            "report lists them as evaluation.leaks"
        )
        self._telemetry.emit(events.Notice(message=message))

    def _leaks_of(self, group: Sequence[NamedMember]) -> Iterator[events.Leak]:
        trained, held_out = set[str](), set[str]()
        for member in group:
            named = self._clip_of(member)
            if named is not None:
                (held_out if named[1] else trained).add(named[0])
        if held_out:
            yield from (events.Leak(clip=clip, held_out=min(held_out)) for clip in sorted(trained - held_out))

    def _clip_of(self, member: NamedMember) -> tuple[str, bool] | None:
        """Return the `subset/path` of the clip that a member is, and whether it is held out; None where it is none."""
        subset = member.archive.subset
        trained_on = self._trained_on.session.catalog
        is_trained_on = subset in trained_on.subsets
        catalog = self._whole_catalogs[not is_trained_on]
        clip = catalog.find(subset, member.name)
        if clip is None:
            return None
        return f"{subset}/{catalog.clip(clip).path}", not (is_trained_on and trained_on.takes(clip))

    @functools.cached_property
    def _whole_catalogs(self) -> tuple[Catalog, Catalog]:
        """The catalogs of the training data and of the held-out clips, with the clips of both sides."""
        trained_on, held_out = self._trained_on.session.catalog, self._dataset.session.catalog
        return trained_on.on_side(Split()), held_out.on_side(Split())


def held_out_options(options: EvaluationOptions, data: StreamOptions, trained_on: StreamSession) -> StreamOptions:
    """Return how the held-out clips are streamed.

    Args:
        options: Which clips.
        data: How the training data are.
        trained_on: The training data; its subsets and commit are taken.

    Raises:
        ConfigError: Where the subset is trained on as well.
    """
    shared = dataclasses.replace(
        data,
        revision=trained_on.repository.commit,
        split="held_out",
        # Of a subset of its own all is held out.
        held_out_share=options.share if options.holds_out else 1.0,
        held_out_clips=options.clips,
        held_out_samples=options.max_samples,
        shuffle=False,
        limit=None,
        parts=1,
        # What is downloaded as a whole is the training data's archives, of which some clips may be held out.
        streaming_mode=data.streaming_mode or options.subset is not None,
        lanes=_NUM_LANES,
        # One rank reads them, each sample once: a repeat would weigh twice, a lane cut short not at all.
        tail="skip",
        keep_clips=options.keep,
        decoded_memory=max(1, data.decoded_memory // _MEMORY_SHARE),
        # Each is told by name, and none of them is worth ending a training run for.
        max_bad_share=1.0,
    )
    names = tuple(layout.name for layout in trained_on.layouts)
    if options.subset is None:
        return dataclasses.replace(shared, subsets=names, spans="block")
    if options.subset.strip("/") in names:
        raise ConfigError(
            f"evaluation.subset {options.subset} is trained on as well",
            "take it out of data.subsets: what was trained on says nothing about what was learned",
        )
    return dataclasses.replace(
        shared,
        subsets=(options.subset,),
        # Questions are asked whatever is trained on.
        annotations=tuple(kind for kind in ANNOTATION_KINDS if kind == "mc" or kind in data.annotations),
        spans="auto",
    )


class _Notices:
    """Passes on what a person should read, once, without its figures."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._told: set[str] = set()

    def receive(self, wall_s: float, event: events.Event) -> None:  # noqa: ARG002 - the protocol's
        match event:
            case events.Notice():
                self._tell(event.message)
            case events.ClipQuarantined():
                self._tell(f"held-out clip {event.subset}/{event.path} is left out: {event.reason}")
            case _:
                pass

    def _tell(self, message: str) -> None:
        # Clips are met anew at each evaluation.
        if message not in self._told:
            self._told.add(message)
            self._telemetry.emit(events.Notice(message=message))
