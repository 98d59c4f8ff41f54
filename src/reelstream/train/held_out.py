"""Multiple-choice questions about clips that are not trained on, streamed as the training data are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from reelstream.cache import DiskBudget
from reelstream.data import StreamingVideoDataset
from reelstream.errors import ConfigError
from reelstream.prefetch.options import StreamOptions
from reelstream.telemetry import Telemetry, events
from reelstream.train.evaluate import Question, question_of
from reelstream.train.options import EvaluationOptions


class HeldOutQuestions:
    """The questions of a held-out subset; a context manager.

    Entering it opens the subset, so that what is wrong with it is known before hours of training, and its catalog has
    its part of the disk budget from the beginning.

    Args:
        options: Which subset, and how many questions.
        data: How the training data are streamed; the held-out clips come in the same way.
        telemetry: Told in notices what a person should read; the bytes and clips are not the training run's, and go
            to no books.
        budget: The run's.
        progress: Called with the bytes of annotations that were just read.

    Raises (when entered):
        ReelstreamError: Where the subset cannot be opened.
    """

    def __init__(
        self,
        options: EvaluationOptions,
        data: StreamOptions,
        *,
        telemetry: Telemetry,
        budget: DiskBudget,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        assert options.subset is not None
        self._options = options
        self._telemetry = Telemetry(_Notices(telemetry))
        held_out = dataclasses.replace(
            data,
            subsets=(options.subset,),
            annotations=("mc",),
            shuffle=False,
            limit=None,
            spans="auto" if data.spans == "block" else data.spans,
            parts=1,
            keep_clips=False,
        )
        self._dataset = StreamingVideoDataset.from_options(
            held_out, telemetry=self._telemetry, budget=budget, progress=progress
        )

    def __enter__(self) -> Self:
        _ = self._dataset.session
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dataset.cleanup()

    @property
    def received_bytes(self) -> int:
        """Bytes that came from the network so far."""
        return self._telemetry.received_bytes

    def __iter__(self) -> Iterator[Question]:
        """Yield the questions in their published order, each time from the first.

        Their clips are streamed inside the run's disk budget, so nobody else may be using its part for clips meanwhile.

        Raises:
            ConfigError: Where the subset holds no multiple-choice question.
        """
        num_questions = 0
        self._dataset.set_epoch(0)
        try:
            for sample in self._dataset:
                question = question_of(sample)
                if question is None:
                    continue
                num_questions += 1
                yield question
                if num_questions == self._options.max_questions:
                    return
        finally:
            # Whoever asks no further question needs the disk.
            self._dataset.reset()
        if num_questions == 0:
            raise ConfigError(
                f"evaluation.subset {self._options.subset} holds no multiple-choice question with an answer among its "
                "options",
                "name another subset, or leave evaluation.subset out",
            )


class _Notices:
    """Passes on what a person should read, without its figures."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def receive(self, wall_s: float, event: events.Event) -> None:  # noqa: ARG002 - the protocol's
        match event:
            case events.Notice():
                self._telemetry.emit(event)
            case events.ClipQuarantined():
                message = f"held-out clip {event.subset}/{event.path} is left out: {event.reason}"
                self._telemetry.emit(events.Notice(message=message))
            case _:
                pass
