"""Which spans an epoch has: whole archives, cuts, or blocks of known members; all of them, or those of a part.

What is chosen is fixed when the epoch begins (`SpanSettings`), and everything else follows from it: an index that is
completed in the middle of an epoch changes nothing before the next one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reelstream.archive import ArchiveIndex
from reelstream.catalog import Catalog, SubsetLayout
from reelstream.errors import ArchiveError, ConfigError, StateError
from reelstream.indexes import IndexStore
from reelstream.indexes.known import chained
from reelstream.prefetch.learned_rows import LearnedRows
from reelstream.prefetch.options import LEAST_CUT_BYTES, StreamOptions
from reelstream.prefetch.plan import EpochPlan, KnownArchive
from reelstream.prefetch.state import EpochSettings, SpanSettings
from reelstream.schedule import (
    KnownMember,
    archive_spans,
    block_spans,
    cut_bytes_for,
    cut_spans,
    deal_to_lanes,
    lanes_for,
    order_spans,
    part_of_spans,
)
from reelstream.types import Archive, ContainerKind, Span, SpanKind

# Below this many clips a lane, what is entered and not used would outweigh what is.
_LEAST_CLIPS_OF_LIMITED_LANE = 16


_LEAST_CUTS_OF_PART = 4
"""Of each subset."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The blocks of an epoch, and what their rows are numbers of."""

    settings: SpanSettings
    blocks: Sequence[Span]
    archives: Mapping[str, KnownArchive]
    digest: str


class SpanPlanner:
    """Chooses the spans of epochs. Not thread-safe.

    Args:
        layouts: The subsets.
        catalog: Their clips.
        options: What was asked for.
        named_parts: By subset, the parts that its name asks for, from 0.
        indexes: What is known of the archives.
        directory: Gives the members that a container names before any is read; None where it names none.
        world_size: Ranks that share the lanes.
    """

    def __init__(
        self,
        layouts: Sequence[SubsetLayout],
        catalog: Catalog,
        options: StreamOptions,
        *,
        named_parts: Mapping[str, tuple[int, ...]],
        indexes: IndexStore,
        directory: Callable[[Archive], ArchiveIndex | None],
        world_size: int = 1,
    ) -> None:
        self._layouts = layouts
        self._catalog = catalog
        self._options = options
        self._named_parts = named_parts
        self._indexes = indexes
        self._directory = directory
        self._world_size = world_size
        self.lanes_before = 0
        """Lanes of the run's epoch before: where nobody has told how many, other numbers of ranks keep them."""
        self._directories: dict[str, ArchiveIndex | None] = {}
        self._archives = [archive for layout in layouts for archive in layout.archives]
        self._known: _Known | None = None

    # ------------------------------------------------------------------ what an epoch's spans shall be

    def choose(self, epoch: int, before: SpanSettings | None) -> SpanSettings:
        """Return what is fixed when an epoch begins, from what is known of the archives now.

        Args:
            epoch: Which one.
            before: What an epoch of this run before it had: how subsets are divided into parts stays, and with
                a limit all but the part does, so that the clips are the same in every epoch of a part.

        Raises:
            ConfigError: Where blocks are asked for and not all members are known, or a part would be empty.
        """
        options = self._options
        if options.limit is not None and before is not None and before.parts == options.parts:
            again = self._again(before, epoch)
            if again is not None:
                return again
        settings = SpanSettings(
            kind=SpanKind.ARCHIVE,
            cut_bytes=self._cut_bytes(),
            parts=options.parts,
            part_of=self._part_of(epoch),
            part_rule=before.part_rule if before is not None else self._part_rule(),
        )
        if options.spans in {"auto", "block"}:
            known = self._learned(dataclasses.replace(settings, block_bytes=options.block_size, kind=SpanKind.BLOCK))
            if known is not None:
                self._refuse_empty(known.blocks, epoch)
                return known.settings
            if options.spans == "block":
                raise self._unknown_members()
        self._refuse_empty(self._unknown_spans(settings), epoch)
        return settings if settings.cut_bytes is None else dataclasses.replace(settings, kind=SpanKind.CUT)

    def _again(self, before: SpanSettings, epoch: int) -> SpanSettings | None:
        """Return the spans of an epoch before, of the part whose turn it is; None where blocks of it are not known."""
        settings = dataclasses.replace(before, part_of=self._part_of(epoch))
        if settings == before:
            return before
        if settings.kind is SpanKind.BLOCK:
            known = self._learned(dataclasses.replace(settings, known=None))
            return None if known is None else known.settings
        self._refuse_empty(self._unknown_spans(settings), epoch)
        return settings

    def share_of(self, subset: str) -> float:
        """Return about how much of a subset an epoch takes, from 0 to 1."""
        return len(self._named_parts.get(subset, (0,))) / self._options.parts

    def num_lanes(self, settings: SpanSettings) -> int:
        """Return how many lanes an epoch of these spans has: an empty one would only make others' windows smaller.

        Raises:
            ConfigError: Where there are fewer spans than ranks.
        """
        num_spans = len(self._spans(settings))
        if num_spans < self._world_size:
            raise ConfigError(
                f"{num_spans} pieces of archives cannot be shared by {self._world_size} ranks",
                "set spans to cut and cut_size to less, or use fewer ranks",
            )
        num_lanes = min(self._most_lanes(), num_spans)
        return num_lanes - num_lanes % self._world_size

    def _most_lanes(self) -> int:
        options, world_size = self._options, self._world_size
        wanted = options.lanes if options.lanes != StreamOptions.lanes else max(options.lanes, self.lanes_before)
        num_lanes = lanes_for(wanted, world_size)
        if options.limit is None:
            return num_lanes
        return min(num_lanes, lanes_for(-(-options.limit // _LEAST_CLIPS_OF_LIMITED_LANE), world_size))

    def _cut_bytes(self) -> int | None:
        """Return the size of cuts where nothing is known; None where archives are read whole."""
        options = self._options
        if options.spans == "archive":
            return None
        # Each part must have an archive for each lane.
        num_archives = sum(len(layout.archives) // options.parts for layout in self._layouts)
        if options.spans != "cut" and num_archives >= self._most_lanes():
            return None
        if options.cut_size is not None:
            return options.cut_size
        cut_bytes = cut_bytes_for(
            total_bytes=sum(archive.size_bytes for archive in self._archives) // options.parts,
            num_clips=self._catalog.num_clips // options.parts,
            num_lanes=self._most_lanes(),
        )
        if options.parts == 1:
            return cut_bytes
        # Parts of a few large cuts would be of very different sizes.
        num_cuts = _LEAST_CUTS_OF_PART * options.parts
        return max(
            LEAST_CUT_BYTES, min(cut_bytes, *(layout.archive_size_bytes // num_cuts for layout in self._layouts))
        )

    def _part_of(self, epoch: int) -> dict[str, tuple[int, ...]]:
        """Return which parts of each subset an epoch takes."""
        options = self._options
        if options.parts == 1:
            return {}
        current = epoch // options.epochs_per_part % options.parts
        return {layout.name: self._named_parts.get(layout.name, (current,)) for layout in self._layouts}

    def _part_rule(self) -> Literal["bytes", "members"]:
        if self._options.parts == 1 or self._options.spans in {"archive", "cut"}:
            return "bytes"
        if self._all_cuts_known():
            # A run of these very parts has learned them: one that goes on shall divide the subsets as it did.
            return "bytes"
        return "members" if all(self._index(archive) for archive in self._archives) else "bytes"

    def _all_cuts_known(self) -> bool:
        cut_bytes = self._cut_bytes()
        if cut_bytes is None:
            # Parts are of whole archives, whoever learned them.
            return True
        cuts = (
            self._indexes.find_cut(span.archive, span.first_byte)
            for span in cut_spans(self._archives, cut_bytes, can_cut=_can_cut)
            if span.kind is SpanKind.CUT
        )
        return all(cut is not None and cut.report is not None for cut in cuts)

    def _refuse_empty(self, spans: Sequence[Span], epoch: int) -> None:
        if not spans:
            raise ConfigError(
                f"epoch {epoch} has nothing to read: {self._options.parts} parts are more than there are pieces",
                "set parts to fewer, or cut_size to less",
            )

    def unknown_archives(self) -> list[Archive]:
        """Return the archives of which it is not known where all members lie."""
        return [archive for archive in self._archives if self._all_rows(archive) is None]

    @property
    def learning_command(self) -> str:
        """What a person types to learn it."""
        options = self._options
        words = ["reelstream", "index", options.repo_id, "--cache-dir", str(options.cache_dir)]
        if options.endpoint is not None:
            words += ["--endpoint", options.endpoint]
        return shlex.join(words)

    def _unknown_members(self) -> ConfigError:
        unknown = self.unknown_archives()
        names = ", ".join(archive.path for archive in unknown[:3]) + (", …" if len(unknown) > 3 else "")
        return ConfigError(
            f"spans is block, and the members of {len(unknown)} of {len(self._archives)} archives are not known here "
            f"({names})",
            f"learn them by `{self.learning_command}`, or set spans to auto: an epoch of archives or "
            "cuts learns them in passing",
        )

    # ------------------------------------------------------------------ the spans themselves

    def plan(self, settings: EpochSettings) -> EpochPlan:
        """Return the spans of each lane in an epoch, and what their readers must know.

        Raises:
            StateError: Where the epoch is one of blocks, and their members are not known here (any more).
        """
        spans = self._spans(settings.spans)
        # Limited epochs keep the first one's lanes, so that they take the same clips.
        epoch = settings.epoch if settings.limit is None else 0
        ordered = order_spans(spans, seed=settings.seed, epoch=epoch, shuffle=settings.shuffle)
        samples_per_byte = {
            layout.name: self._catalog.samples_in(layout.name) / max(1, layout.archive_size_bytes)
            for layout in self._layouts
        }

        def weight(span: Span) -> float:
            if span.kind is SpanKind.BLOCK:
                return sum(map(self._catalog.num_samples_of, span.clips))
            return span.size_bytes * samples_per_byte[span.archive.subset]

        cuts: dict[str, list[int]] = {}
        if settings.spans.kind is SpanKind.CUT:
            for span in self._all_unknown_spans(settings.spans):
                cuts.setdefault(span.archive.path, []).append(span.first_byte)
        return EpochPlan(
            lanes=deal_to_lanes(ordered, settings.num_lanes, weight),
            cuts=cuts,
            known=self._known.archives if settings.spans.kind is SpanKind.BLOCK and self._known else {},
            mean_clip_bytes={
                layout.name: layout.archive_size_bytes / max(1, self._catalog.clips_in(layout.name))
                for layout in self._layouts
            },
        )

    def _spans(self, settings: SpanSettings) -> Sequence[Span]:
        """Return the spans of an epoch, in the order they are published."""
        if settings.kind is not SpanKind.BLOCK:
            return self._unknown_spans(settings)
        known = self._learned(settings)
        if known is None or settings.known not in {None, known.digest}:
            raise StateError(
                "the epoch takes blocks of members that archive indexes name, and "
                + ("these indexes are not here" if known is None else "the indexes here name other ones"),
                f"put the indexes that were saved with the state into the cache folder, or learn them anew by "
                f"`{self.learning_command}`; or start the epoch anew",
            )
        return known.blocks

    def _unknown_spans(self, settings: SpanSettings) -> list[Span]:
        """Return the archives or cuts of an epoch's part."""
        return [
            span
            for layout in self._layouts
            for span in _chosen(self._spans_of(layout, settings), layout.name, settings)
        ]

    def _all_unknown_spans(self, settings: SpanSettings) -> Iterator[Span]:
        return (span for layout in self._layouts for span in self._spans_of(layout, settings))

    @staticmethod
    def _spans_of(layout: SubsetLayout, settings: SpanSettings) -> list[Span]:
        if settings.cut_bytes is None:
            return archive_spans(layout.archives)
        return cut_spans(layout.archives, settings.cut_bytes, can_cut=_can_cut)

    # ------------------------------------------------------------------ blocks

    def _learned(self, settings: SpanSettings) -> _Known | None:
        """Return the blocks of an epoch; None where not all of its members are known."""
        wanted = dataclasses.replace(settings, known=None)
        if self._known is not None and dataclasses.replace(self._known.settings, known=None) == wanted:
            return self._known
        archives: dict[str, KnownArchive] = {}
        blocks: list[Span] = []
        digest = hashlib.sha256()
        for layout in self._layouts:
            of_layout: list[Span] = []
            for archive, rows in self._rows_of(layout, settings):
                if rows is None:
                    return None
                archives[archive.path] = rows
                members = self._members(archive, rows)
                of_layout += block_spans(archive, members, settings.block_bytes or 1)
                for member in members:
                    digest.update(f"{archive.path} {member}".encode())
            blocks += _chosen(of_layout, layout.name, settings) if settings.part_rule == "members" else of_layout
        found = dataclasses.replace(settings, known=digest.hexdigest()[:32])
        self._known = _Known(found, blocks, archives, digest.hexdigest()[:32])
        return self._known

    def _index(self, archive: Archive) -> ArchiveIndex | None:
        """Return the index of an archive, if all its members are known."""
        if archive.kind in {ContainerKind.TAR_GZ, ContainerKind.TAR}:
            return self._indexes.find(archive)
        if archive.path not in self._directories:
            index = self._indexes.find(archive) if archive.kind is ContainerKind.ZIP else None
            # Whoever reads it says what is wrong with it, and whether that ends the epoch.
            with contextlib.suppress(ArchiveError):
                index = index or self._directory(archive)
            self._directories[archive.path] = index
        return self._directories[archive.path]

    def _all_rows(self, archive: Archive) -> ArchiveIndex | LearnedRows | None:
        """Return the rows of an archive, if all its members are known.

        For held-out clips that may be by the cuts of parts that were trained on one after the other. Not for training:
        which spans an epoch has shall not depend on what other runs have learned of this one's cuts.
        """
        index = self._index(archive)
        if index is not None or self._options.split != "held_out":
            return index
        cuts = chained(self._indexes.cuts(archive))
        report = cuts[-1].report if cuts else None
        return LearnedRows.of(cuts) if report is not None and report.served_until == archive.size_bytes else None

    def _rows_of(
        self, layout: SubsetLayout, settings: SpanSettings
    ) -> Iterator[tuple[Archive, ArchiveIndex | LearnedRows | None]]:
        """Yield the archives of an epoch, and the rows of its part that are known of each; None where not all are."""
        if settings.parts == 1 or settings.part_rule == "members":
            yield from ((archive, self._all_rows(archive)) for archive in layout.archives)
            return
        by_archive: dict[Archive, list[Span]] = {}
        for span in _chosen(self._spans_of(layout, settings), layout.name, settings):
            by_archive.setdefault(span.archive, []).append(span)
        for archive, spans in by_archive.items():
            if spans[0].kind is SpanKind.ARCHIVE:
                yield archive, self._index(archive)
                continue
            cuts = [self._indexes.find_cut(archive, span.first_byte) for span in spans]
            whole = [cut for cut in cuts if cut is not None and cut.report is not None]
            yield archive, LearnedRows.of(whole) if len(whole) == len(cuts) else None

    def _members(self, archive: Archive, rows: ArchiveIndex | LearnedRows) -> list[KnownMember]:
        """Return the clips of an archive, the first of each name, in the order they lie."""
        members: list[KnownMember] = []
        met: set[int] = set()
        for number, row in enumerate(rows):
            clip = self._catalog.find(archive.subset, row.name)
            if clip is None or clip in met:
                continue
            holding = rows.holding(number)
            if holding is None:  # a hard link to nothing
                continue
            met.add(clip)
            size_bytes = rows.row(holding).size_bytes if holding != number else row.size_bytes
            members.append(
                KnownMember(
                    row=number, clip=clip, first_offset=row.header_offset, end_offset=row.data_offset + size_bytes
                )
            )
        return members


def _can_cut(archive: Archive) -> bool:
    return archive.kind is ContainerKind.TAR_GZ


def _chosen(spans: Sequence[Span], subset: str, settings: SpanSettings) -> list[Span]:
    """Return those of a subset's spans that are in the epoch's parts."""
    parts = settings.part_of.get(subset)
    if parts is None:
        return list(spans)
    return [span for part in parts for span in part_of_spans(spans, part=part, num_parts=settings.parts)]
