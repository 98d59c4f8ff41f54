"""The streamed dataset: an `IterableDataset` whose order is exact, bounded on disk, and resumable to the sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from reelstream.cache import DiskBudget
from reelstream.catalog import SplitSide
from reelstream.data.stream import StreamedDataset
from reelstream.prefetch.options import StreamOptions
from reelstream.telemetry import Telemetry
from reelstream.types import AnnotationKind, AudioSampling, FrameSampling, MediaCheck, MediaKind
from reelstream.units import parse_bytes

_Defaults = StreamOptions


class StreamingVideoDataset(StreamedDataset):
    """Streams a published video dataset through a small window on disk.

    Nothing happens until the samples, the length or the state are asked for. Iterating serves one epoch and goes to the
    next one; a new iteration before an epoch's end begins that epoch anew, or at the state that was loaded, and ends
    the iteration before it. Close it, or use it as a context manager: then no thread and no clip is left.

    It works in the background by itself: `num_workers=0` is right for a `DataLoader`. With workers the first one
    streams and the others stay idle; epoch and state then live in that process, so call `set_epoch` before each epoch.

    With several ranks each has a dataset of the same arguments, and serves its own part: sample k of the epoch goes to
    rank k mod R, all ranks serve the same number of samples, and the order of the whole is the same for every number
    of ranks that divides the lanes. All of them open, iterate and end it together.

    ```python
    with StreamingVideoDataset("lmms-lab/LLaVA-Video-178K", subsets=["0_30_s_academic_v0_1"]) as dataset:
        for sample in dataset:
            train_on(sample["frames"], sample["messages"])
    ```

    The keyword arguments are those of `StreamOptions`, documented there. Sizes may be written as `"5GB"`.

    Args:
        repo_id: Dataset repository on the Hub.
        subsets: Its folders to train on; a single name is fine.
        annotations: Kinds of samples to take.
        revision: Branch, tag or commit.
        cache_dir: Where clips live for a while; the catalog and archive indexes stay for later runs.
        disk_budget: The most bytes on disk.
        cache_size: Clips whose samples are shuffled together at a time.
        prefetch: Whether to download ahead.
        shuffle: Whether the order is shuffled.
        seed: Same seed, same order.
        lanes: Archives, or pieces of archives, read side by side.
        tail: What happens when lanes end.
        limit: Take this many clips only.
        spans: What is read in one go: `archive`, `cut`, `block`, or `auto`.
        cut_size: Compressed bytes of a cut; None chooses.
        block_size: The most bytes of neighbours that are read as one block.
        parts: Into how many parts each subset is divided.
        epochs_per_part: Epochs on a part before the next one's turn.
        streaming_mode: False downloads all archives before the first sample, and reads them from disk.
        keep_clips: Whether clips that fit stay on disk for the epochs to come.
        split: Which clips are taken: `all`, those for `training`, or those `held_out` from it.
        held_out_share: Hold out about this share of the clips, by their file names.
        held_out_clips: Hold out so many clips instead.
        held_out_samples: Of a `held_out` split, take no more samples than this.
        frames: Which frames are decoded.
        media: What a sample holds of its clip: `frames`, its own `bytes`, or the `path` of a file.
        check: How a clip is looked at that is handed out as bytes or path: `decode`, `open`, or `none`.
        audio: How the sound of clips is taken; None takes none.
        lease_samples: How many samples later a path ends that nobody holds; see `reelstream.prefetch.paths`.
        decode_threads: Clips decoded side by side; None takes the number of cores.
        decoded_memory: Memory for what samples hold of clips: frames, bytes, sound.
        connections: The most ranged reads at once.
        max_bad_share: Stop above this share of bad clips.
        on_bad_archive: `stop` at a damaged archive, or `skip` what it does not give.
        endpoint: Address of the Hub; None takes `HF_ENDPOINT`, or else the public one.
        give_up_after: Seconds without a byte after which a download has failed.
        rank: Which process of the run this is; None asks torch.distributed, or else the launcher's environment.
        world_size: Of how many; None as with `rank`.
        token: For the Hub; None takes the one that is logged in, False none.
        telemetry: Who is told what happens; nobody where None.

    Raises:
        ConfigError: Where an option is wrong.
    """

    def __init__(
        self,
        repo_id: str,
        subsets: str | Sequence[str],
        *,
        annotations: Sequence[AnnotationKind] = _Defaults.annotations,
        revision: str | None = _Defaults.revision,
        cache_dir: str | Path = _Defaults.cache_dir,
        disk_budget: int | str = _Defaults.disk_budget,
        cache_size: int = _Defaults.cache_size,
        prefetch: bool = _Defaults.prefetch,
        shuffle: bool = _Defaults.shuffle,
        seed: int = _Defaults.seed,
        lanes: int = _Defaults.lanes,
        tail: Literal["auto", "skip", "repeat", "drop"] = _Defaults.tail,
        limit: int | None = _Defaults.limit,
        spans: Literal["auto", "archive", "cut", "block"] = _Defaults.spans,
        cut_size: int | str | None = _Defaults.cut_size,
        block_size: int | str = _Defaults.block_size,
        parts: int = _Defaults.parts,
        epochs_per_part: int = _Defaults.epochs_per_part,
        streaming_mode: bool = _Defaults.streaming_mode,
        keep_clips: bool = _Defaults.keep_clips,
        split: SplitSide = _Defaults.split,
        held_out_share: float | None = _Defaults.held_out_share,
        held_out_clips: int | None = _Defaults.held_out_clips,
        held_out_samples: int | None = _Defaults.held_out_samples,
        frames: FrameSampling | None = None,
        media: MediaKind = _Defaults.media,
        check: MediaCheck = _Defaults.check,
        audio: AudioSampling | None = None,
        lease_samples: int = _Defaults.lease_samples,
        decode_threads: int | None = None,
        decoded_memory: int | str = _Defaults.decoded_memory,
        connections: int = _Defaults.connections,
        max_bad_share: float = _Defaults.max_bad_share,
        on_bad_archive: Literal["stop", "skip"] = _Defaults.on_bad_archive,
        endpoint: str | None = _Defaults.endpoint,
        give_up_after: float = _Defaults.give_up_after,
        rank: int | None = None,
        world_size: int | None = None,
        token: str | bool | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__()
        options = StreamOptions(
            repo_id=repo_id,
            subsets=(subsets,) if isinstance(subsets, str) else tuple(subsets),
            annotations=tuple(annotations),
            revision=revision,
            cache_dir=Path(cache_dir),
            disk_budget=parse_bytes(disk_budget),
            cache_size=cache_size,
            prefetch=prefetch,
            shuffle=shuffle,
            seed=seed,
            lanes=lanes,
            tail=tail,
            limit=limit,
            spans=spans,
            cut_size=None if cut_size is None else parse_bytes(cut_size),
            block_size=parse_bytes(block_size),
            parts=parts,
            epochs_per_part=epochs_per_part,
            streaming_mode=streaming_mode,
            keep_clips=keep_clips,
            split=split,
            held_out_share=held_out_share,
            held_out_clips=held_out_clips,
            held_out_samples=held_out_samples,
            frames=frames or FrameSampling(),
            media=media,
            check=check,
            audio=audio,
            lease_samples=lease_samples,
            decode_threads=decode_threads or os.cpu_count() or 1,
            decoded_memory=parse_bytes(decoded_memory),
            connections=connections,
            max_bad_share=max_bad_share,
            on_bad_archive=on_bad_archive,
            endpoint=endpoint,
            give_up_after=give_up_after,
        )
        self._set_up(
            options,
            telemetry or Telemetry(),
            DiskBudget(options.disk_budget),
            token=token,
            asked_place=(rank, world_size),
        )
