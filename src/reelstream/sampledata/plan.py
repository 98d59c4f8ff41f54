"""Plans a sample dataset: which clip lies where, and what it shows. Pure; nothing is drawn or written here."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from reelstream.sampledata import paths
from reelstream.sampledata.drawing import ClipSpec
from reelstream.sampledata.flaws import (
    ACADEMIC_FLAWS,
    TEXT_MEMBER_PATH,
    YOUTUBE_FLAWS,
    Flaw,
    FlawKind,
    flawed_path,
    flawed_spec,
)
from reelstream.sampledata.options import Packing, SampleOptions
from reelstream.sampledata.scene import Scene, deal, deal_scenes

HELDOUT_SUBSET = "0_30_s_heldout_v0_1"

# What recorders give, most of them twelve: a rate that is no whole number shows who rounds timestamps.
_FRAME_RATES = (Fraction(12), Fraction(12), Fraction(12), Fraction(12000, 1001), Fraction(10), Fraction(15))
_KEYFRAME_INTERVALS = (36, 96, 250)
# Short clips are more frequent: a mean of 10 s between 5 and 30 keeps a large dataset quick to encode.
_SKEW = 4
# The encoder overshoots at the start, as if a clip were this much longer. Measured over sets of 100 to 700
# clips of 20 to 450 kB and 1 to 30 s: their mean is then within 2 %, or 9 % where clips of 1 to 2 s have 20 kB.
_OVERSHOOT_S = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedClip:
    """One clip, or something that poses as one."""

    path: str
    """In its archive, and in the rows."""
    spec: ClipSpec
    flaw: FlawKind | None = None

    @property
    def scene(self) -> Scene:
        """What it shows."""
        return self.spec.scene


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedArchive:
    """One archive of a subset, or one clip that is a file of its own."""

    path: str
    """In the repository."""
    clips: tuple[PlannedClip, ...]
    flaws: frozenset[FlawKind] = frozenset()
    """`DOT_SLASH` and `TEXT_MEMBER`, which concern no clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSubset:
    """One folder of the repository."""

    name: str
    archives: tuple[PlannedArchive, ...]
    heldout: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan:
    """The whole dataset."""

    subsets: tuple[PlannedSubset, ...]
    flaws: tuple[Flaw, ...]

    @property
    def clips(self) -> list[PlannedClip]:
        """All clips, in the order in which they are written."""
        return [clip for subset in self.subsets for archive in subset.archives for clip in archive.clips]


def plan_sample(options: SampleOptions) -> SamplePlan:
    """Return the plan that the options stand for; equal options give equal plans."""
    specs = _specs(options)
    # As in the real dataset, where the academic bucket has 8 archives and the one from YouTube 19.
    academic_archives = max(1, round(options.archives * 3 / 8))
    academic_clips = options.num_clips * academic_archives // options.archives
    shares: tuple[tuple[Literal["academic", "youtube"], int, int], ...] = (
        ("academic", academic_clips, academic_archives),
        ("youtube", options.num_clips - academic_clips, options.archives - academic_archives),
    )
    subsets = []
    for source, num_clips, num_archives in shares:
        chance = _chance(options, source)
        names = paths.academic_paths(chance) if source == "academic" else paths.youtube_paths(chance)
        clips = [PlannedClip(path=next(names), spec=next(specs)) for _ in range(num_clips)]
        if options.with_flaws:
            clips = _with_flaws(clips, ACADEMIC_FLAWS if source == "academic" else YOUTUBE_FLAWS, chance)
        archives = _into_archives(f"0_30_s_{source}_v0_1", clips, num_archives, options.packing)
        if options.with_flaws:
            archives = _with_academic_flaws(archives) if source == "academic" else _with_stray(archives, names, specs)
        subsets.append(PlannedSubset(name=f"0_30_s_{source}_v0_1", archives=archives))
    if options.heldout:
        clips = [
            PlannedClip(path=f"academic_source/heldout/{number:05d}.mp4", spec=next(specs))
            for number in range(options.heldout)
        ]
        archives = _into_archives(HELDOUT_SUBSET, clips, 1, options.packing)
        subsets.append(PlannedSubset(name=HELDOUT_SUBSET, archives=archives, heldout=True))
    return SamplePlan(subsets=tuple(subsets), flaws=tuple(_list_flaws(subsets)))


def _chance(options: SampleOptions, purpose: str) -> random.Random:
    return random.Random(f"{options.seed}/{purpose}")


def _specs(options: SampleOptions) -> Iterator[ClipSpec]:
    """Yield the specs of all clips, and of one spare; their mean size is the one asked for."""
    chance = _chance(options, "clips")
    scenes = deal_scenes(_chance(options, "scenes"), only_motion=options.questions == "motion")
    sizes = deal(options.sizes, chance)
    rates = deal(_FRAME_RATES, chance)
    num_clips = options.num_clips + options.heldout
    shortest_s, longest_s = options.min_duration_s, options.max_duration_s
    durations_s = [shortest_s + (longest_s - shortest_s) * chance.random() ** _SKEW for _ in range(num_clips + 1)]
    mean_duration_s = sum(durations_s[:num_clips]) / num_clips
    bit_rate_bps = options.clip_bytes * 8 / (mean_duration_s + _OVERSHOOT_S)
    for duration_s in durations_s:
        fps = next(rates)
        width, height = next(sizes)
        yield ClipSpec(
            scene=next(scenes),
            seed=chance.getrandbits(32),
            width=width,
            height=height,
            fps=fps,
            num_frames=max(3, round(duration_s * fps)),
            bit_rate_bps=max(8_000, round(bit_rate_bps)),
            keyframe_interval=chance.choice(_KEYFRAME_INTERVALS),
            with_audio=chance.random() < 0.4,
            with_faststart=chance.random() < 0.5,
        )


def _into_archives(
    subset: str, clips: Sequence[PlannedClip], num_archives: int, packing: Packing
) -> tuple[PlannedArchive, ...]:
    """Deal clips to archives in order, the last ones are the smaller ones; a loose file is an archive of one clip."""
    if packing == "files":
        return tuple(PlannedArchive(path=f"{subset}/{clip.path}", clips=(clip,)) for clip in clips)
    each, left = divmod(len(clips), num_archives)
    archives = []
    first = 0
    for number in range(num_archives):
        end = first + each + (number < left)
        path = f"{subset}/{subset}_videos_{number + 1}.{packing}"
        archives.append(PlannedArchive(path=path, clips=tuple(clips[first:end])))
        first = end
    return tuple(archives)


def _with_flaws(clips: Sequence[PlannedClip], kinds: Sequence[FlawKind], chance: random.Random) -> list[PlannedClip]:
    flawed = list(clips)
    for place, kind in zip(chance.sample(range(len(clips)), len(kinds)), kinds, strict=True):
        clip = clips[place]
        flawed[place] = PlannedClip(path=flawed_path(clip.path, kind), spec=flawed_spec(clip.spec, kind), flaw=kind)
    return flawed


def _with_academic_flaws(archives: Sequence[PlannedArchive]) -> tuple[PlannedArchive, ...]:
    changed = list(archives)
    for place, kind in ((0, FlawKind.TEXT_MEMBER), (-1, FlawKind.DOT_SLASH)):
        changed[place] = dataclasses.replace(changed[place], flaws=changed[place].flaws | {kind})
    return tuple(changed)


def _with_stray(
    archives: Sequence[PlannedArchive], names: Iterator[str], specs: Iterator[ClipSpec]
) -> tuple[PlannedArchive, ...]:
    first, *others = archives
    clips = list(first.clips)
    # Among the others, where a reader cannot stop before it.
    clips.insert(len(clips) // 2, PlannedClip(path=next(names), spec=next(specs), flaw=FlawKind.UNREFERENCED))
    return dataclasses.replace(first, clips=tuple(clips)), *others


def _list_flaws(subsets: Sequence[PlannedSubset]) -> Iterator[Flaw]:
    for subset in subsets:
        for archive in subset.archives:
            for kind in sorted(archive.flaws):
                path = TEXT_MEMBER_PATH if kind is FlawKind.TEXT_MEMBER else ""
                yield Flaw(kind=kind, subset=subset.name, path=path, archive=archive.path)
            for clip in archive.clips:
                if clip.flaw is not None:
                    holder = None if clip.flaw is FlawKind.MISSING else archive.path
                    yield Flaw(kind=clip.flaw, subset=subset.name, path=clip.path, archive=holder)
