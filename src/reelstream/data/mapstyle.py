"""The map-style face of the stream: `dataset[i]` is the i-th sample of the epoch's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from torch.utils.data import Dataset, get_worker_info

from reelstream.data.iterable import StreamingVideoDataset
from reelstream.data.sample import Sample, make_sample
from reelstream.errors import ConfigError, OutOfReachError
from reelstream.prefetch.board import Served
from reelstream.prefetch.paths import PathLease
from reelstream.prefetch.pipeline import EpochPipeline
from reelstream.prefetch.state import EpochState
from reelstream.telemetry import events
from reelstream.types import ClipMedia

# The last samples are held, so that one can be had twice in a row, and places left empty at the end can be filled.
_NUM_HELD = 8
# Places whose clips are gone are forgotten once there are so many, and then each time their number has doubled.
_LEAST_PRUNED = 1024


class StreamingLLaVAVideo(Dataset[Sample]):
    """A subset to be indexed from 0 on: shuffled once, then sequential.

    `dataset[i]` downloads the window of clips that holds the i-th sample where it is absent, deletes what is behind,
    and prefetches what is ahead. A sample can be asked for again until its window ends; going further back needs
    another pass over the data and raises an error, except from the end to the beginning, which starts the next pass in
    the same order. Samples of quarantined clips leave their places to the next ones; the places that this leaves empty
    at the end are filled by repeats of the last samples.

    Use it in a `DataLoader` with `shuffle=False` (it is shuffled already) and `num_workers=0` (it prefetches by
    itself).

    Args:
        repo_id: Dataset repository on the Hub.
        subset: One of its folders, or several.
        cache_size: Clips whose samples are shuffled together at a time.
        **options: As of `StreamingVideoDataset`.
    """

    def __init__(self, repo_id: str, subset: str | Sequence[str], cache_size: int = 100, **options: Any) -> None:
        super().__init__()
        self._set_up(StreamingVideoDataset(repo_id, subset, cache_size=cache_size, **options))

    def _set_up(self, stream: StreamingVideoDataset) -> None:
        self._stream = stream
        self._pipeline: EpochPipeline | None = None
        # One for all passes: what the first one learns of the archives would choose other spans, in another order.
        self._start: EpochState | None = None
        self._next = 0
        self._over = False
        self._within_reach: dict[int, Served] = {}
        self._prune_at = _LEAST_PRUNED
        self._held: deque[tuple[int, Sample]] = deque(maxlen=_NUM_HELD)
        self.num_repeated = 0
        """Places of this pass that were filled by repeats."""

    def __len__(self) -> int:
        """Samples in the catalog; with `limit`, as many as that many clips have on average."""
        return len(self._stream)

    def __getitem__(self, index: int) -> Sample:
        """Return the sample at a place of the epoch's order.

        Raises:
            IndexError: Beyond the end.
            OutOfReachError: At a place whose window has ended.
            ConfigError: In a worker process of a `DataLoader`.
        """
        if get_worker_info() is not None:
            raise ConfigError(
                "StreamingLLaVAVideo was indexed in a worker process, where each worker would download all data",
                "set num_workers=0 in the DataLoader; it prefetches in the background by itself",
            )
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"place {index} is beyond the {len(self)} samples of the epoch")
        if place == 0 and self._next >= len(self):
            self.reset()
        return self._sample_again(place) if place < self._next else self._sample_ahead(place)

    def reset(self) -> None:
        """Go back to the beginning of the same order."""
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close()
        self._next, self._over, self.num_repeated = 0, False, 0
        self._within_reach.clear()
        self._prune_at = _LEAST_PRUNED
        self._held.clear()

    def cleanup(self) -> None:
        """Stop all work and delete all clips from disk."""
        self.reset()
        self._start = None
        self._stream.cleanup()

    close = cleanup

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs, which begins at the beginning."""
        return {"_stream": self._stream}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_up(state["_stream"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()

    def _sample_ahead(self, place: int) -> Sample:
        """Serve the order up to a place."""
        sample: Sample | None = None
        while self._next <= place:
            sample = self._serve()
            self._held.append((self._next, sample))
            self._next += 1
        assert sample is not None
        if self._next == len(self):
            self._tell_end()
        return sample

    def _tell_end(self) -> None:
        assert self._pipeline is not None
        session = self._stream.session
        state = self._pipeline.state_after(None)
        booked = session.booked(state, over=self._over)
        session.telemetry.emit(replace(booked, num_repeated=booked.num_repeated + self.num_repeated))
        session.telemetry.emit(
            events.EpochFinished(epoch=state.settings.epoch, num_samples=self._next, order_digest=state.order_digest)
        )

    def _serve(self) -> Sample:
        if self._pipeline is None:
            session = self._stream.session
            if self._stream.world_size > 1:
                raise ConfigError(
                    f"StreamingLLaVAVideo was indexed by one of {self._stream.world_size} ranks, and each would "
                    "download all data",
                    "use StreamingVideoDataset: its ranks share the lanes",
                )
            self._start = self._start or session.start_of(0)
            self._pipeline = session.pipeline(self._start, keep_until_window_end=True)
            self._pipeline.__enter__()
        ready = None if self._over else self._pipeline.next_sample()
        if ready is None:
            return self._repeat()
        served = ready.served
        self._within_reach[self._next] = served
        if len(self._within_reach) >= self._prune_at:
            self._within_reach = {place: was for place, was in self._within_reach.items() if was.clip.file is not None}
            self._prune_at = max(_LEAST_PRUNED, 2 * len(self._within_reach))
        return self._made(served, ready.media, ready.lease)

    def _repeat(self) -> Sample:
        self._over = True
        if not self._held:
            raise OutOfReachError(
                "no clip of the epoch could be used, so there is no sample to serve",
                "look at the quarantined clips in the report",
            )
        self.num_repeated += 1
        # The oldest held one; appended again, it goes to the end, so that all of them take turns.
        return self._held[0][1]

    def _sample_again(self, place: int) -> Sample:
        for held_place, sample in self._held:
            if held_place == place:
                return sample
        served = self._within_reach.get(place)
        ready = None
        if served is not None and self._pipeline is not None:
            ready = self._pipeline.again(served)
        if served is None or ready is None:
            raise OutOfReachError(
                f"place {place} lies behind the window in use (the next place is {self._next}); its clip is deleted",
                "use shuffle=False in the DataLoader: the order is shuffled already; or call reset() to begin again",
            )
        return self._made(served, ready.media, ready.lease)

    def _made(self, served: Served, media: ClipMedia, lease: PathLease | None) -> Sample:
        return make_sample(
            record=served.clip.record,
            annotation=self._stream.session.catalog.annotation(served.row),
            position=served.position,
            media=media,
            lease=lease,
            share=False,
        )


StreamingLLaVAVideoDataset = StreamingLLaVAVideo
