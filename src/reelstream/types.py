"""The words that the layers share: values only, no behaviour that reads or writes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

UInt8Array: TypeAlias = npt.NDArray[np.uint8]
Int64Array: TypeAlias = npt.NDArray[np.int64]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]

AnnotationKind = Literal["cap", "oe", "mc"]
"""Captions, open-ended questions, multiple-choice questions."""

MediaKind = Literal["frames", "bytes", "path"]
"""What a sample holds of its clip: decoded frames, the clip's own bytes, or a file that holds them."""

MediaCheck = Literal["decode", "open", "none"]
"""How a clip that is handed out undecoded is looked at: decoded as its frames would be, opened, or not at all."""

VIDEO_PLACEHOLDER = "<video>"
"""What stands in a conversation where the clip goes, whatever the published file wrote there."""


RepositoryKind = Literal["dataset", "model"]
"""What a repository of the Hub holds; each kind has names of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryFile:
    """One file of a repository at one commit."""

    path: str
    size_bytes: int
    sha256: str | None
    """Hex digest, where the Hub names one (LFS and Xet files)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository pinned to one commit."""

    repo_id: str
    commit: str
    files: tuple[RepositoryFile, ...]
    """Sorted by path."""
    kind: RepositoryKind = "dataset"


class ContainerKind(enum.StrEnum):
    """What kind of file holds media."""

    TAR_GZ = "tar.gz"
    TAR = "tar"
    ZIP = "zip"
    FILE = "file"
    """One media file by itself."""

    @classmethod
    def of(cls, path: str) -> ContainerKind:
        """Return the kind that a file's name tells, in any case; what is no archive is a file of its own."""
        name = path.lower()
        endings = ((".tar.gz", cls.TAR_GZ), (".tgz", cls.TAR_GZ), (".tar", cls.TAR), (".zip", cls.ZIP))
        return next((kind for ending, kind in endings if name.endswith(ending)), cls.FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A published container of a subset's media; a media file by itself is one with a single member."""

    subset: str
    file: RepositoryFile

    @property
    def path(self) -> str:
        """Path in the repository."""
        return self.file.path

    @property
    def size_bytes(self) -> int:
        """Compressed size."""
        return self.file.size_bytes

    @property
    def kind(self) -> ContainerKind:
        """What kind of container it is."""
        return ContainerKind.of(self.path)

    @property
    def path_in_subset(self) -> str:
        """Path below the subset's folder: what the only member of a loose file is called."""
        return self.path.removeprefix(f"{self.subset}/")


class SpanKind(enum.StrEnum):
    """How a span is bounded; see `Span`."""

    ARCHIVE = "archive"
    """A whole archive: needs nothing known, costs 1.000 times its bytes."""
    CUT = "cut"
    """Compressed bytes [first_byte, end_byte) of an archive, entered without an index."""
    BLOCK = "block"
    """Adjacent members whose places an index knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A contiguous piece of an archive that can be read by itself."""

    kind: SpanKind
    archive: Archive
    first_byte: int
    """First compressed byte; of a block, the first unpacked one."""
    end_byte: int
    """One past the last of these bytes."""
    rows: tuple[int, ...] = ()
    """Of a block: the numbers of its members among the rows that are known of its archive, ascending."""
    clips: tuple[int, ...] = ()
    """Of a block: which clips of the catalog they are, in the same order."""

    @property
    def size_bytes(self) -> int:
        """Bytes in the span, compressed ones but for a block; media hardly shrink."""
        return self.end_byte - self.first_byte


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSampling:
    """Which frames of a clip are taken, and how large they are."""

    fps: float = 1.0
    """Frames per second of video, as long as that gives no more than `max_frames`."""
    max_frames: int = 32
    """The most frames of one clip; a longer one is sampled evenly."""
    size: int = 384
    """Longest side in pixels; the aspect ratio is kept, both sides are even."""

    def __post_init__(self) -> None:
        if self.fps <= 0:
            raise ValueError(f"frames.fps must be above 0, not {self.fps}")
        if self.max_frames < 1:
            raise ValueError(f"frames.max_frames must be at least 1, not {self.max_frames}")
        if self.size < 2:
            raise ValueError(f"frames.size must be at least 2 pixels, not {self.size}")

    @property
    def largest_size_bytes(self) -> int:
        """The most memory that one clip's frames can take."""
        return self.max_frames * 3 * self.size * self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioSampling:
    """How the sound of a clip is taken."""

    sampling_rate: int = 16_000
    """Samples a second and channel."""
    mono: bool = True
    """Whether the channels are mixed into one; else they stay as the clip has them."""

    def __post_init__(self) -> None:
        if not 1_000 <= self.sampling_rate <= 384_000:
            raise ValueError(f"audio.sampling_rate must be from 1000 to 384000, not {self.sampling_rate}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedClip:
    """The sampled frames of one clip."""

    frames: UInt8Array
    """RGB, T x 3 x H x W."""
    timestamps: Float64Array
    """Seconds from the clip's first frame to each sampled one, T."""
    frame_indices: Int64Array
    """Index of each sampled frame among the clip's shown frames, in order of time, T."""
    fps: float
    """Frames per second of the video itself."""
    duration: float
    """Seconds."""
    truncated: bool
    """Whether the file ended well before the duration that its header names."""
    start: float = 0.0
    """Seconds on the file's own clock at which the first frame is shown; sound is timed by the same clock."""

    @property
    def size_bytes(self) -> int:
        """Memory of the frames."""
        return int(self.frames.nbytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFacts:
    """What the packets of a clip tell of its video."""

    fps: float
    """Frames per second."""
    duration: float
    """Seconds."""
    start: float
    """Seconds on the file's own clock at which the first frame is shown."""
    truncated: bool
    """Whether the file ended well before the duration that its header names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMedia:
    """What is in memory of a clip, for all its samples."""

    decoded: DecodedClip | None = None
    """Its frames, where they are asked for."""
    content: bytes | None = None
    """Its own bytes, container and all, where they are asked for."""
    audio: Float32Array | None = None
    """Its sound, where that is asked for: N samples, or channels x N; none of them where it has no sound."""
    fps: float | None = None
    """Frames per second of the video itself; None where nobody looked."""
    duration: float | None = None
    """Seconds; None where nobody looked."""

    @property
    def size_bytes(self) -> int:
        """Memory of all of it."""
        frames_bytes = 0 if self.decoded is None else self.decoded.size_bytes
        content_bytes = 0 if self.content is None else len(self.content)
        audio_bytes = 0 if self.audio is None else int(self.audio.nbytes)
        return frames_bytes + content_bytes + audio_bytes


class Position(NamedTuple):
    """A place in the schedule: the slot-th sample of a lane in an epoch."""

    epoch: int
    lane: int
    slot: int


Conversation: TypeAlias = list[dict[str, str]]
"""LLaVA turns: `{"from": "human" | "gpt", "value": text}`."""

Messages: TypeAlias = list[dict[str, Any]]
"""OpenAI turns: `{"role": "user" | "assistant", "content": [{"type": "video"}, {"type": "text", "text": ...}]}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One training example's text, as the catalog keeps it."""

    row: int
    """Number of the sample in the catalog."""
    id: str
    """The publisher's id; not unique."""
    clip: int
    """Number of the clip in the catalog."""
    kind: AnnotationKind
    conversations: Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRecord:
    """One clip as the catalog knows it."""

    clip: int
    """Number of the clip in the catalog."""
    subset: str
    path: str
    """The member's path inside one of the subset's archives, normalised."""
    num_samples: int
