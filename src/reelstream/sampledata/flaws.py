"""What `--with-flaws` plants: things that go wrong, or are only unusual, in published datasets."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from pathlib import PurePosixPath

from reelstream.sampledata.drawing import ClipSpec


class FlawKind(enum.StrEnum):
    """What is planted; `FLAW_MEANINGS` says what each means."""

    MISSING = "missing"
    TRUNCATED = "truncated"
    CUT_SHORT = "cut_short"
    TWO_FRAMES = "two_frames"
    NO_EXTENSION = "no_extension"
    LEADING_DOT = "leading_dot"
    LEADING_UNDERSCORES = "leading_underscores"
    DOTS_IN_STEM = "dots_in_stem"
    NON_ASCII = "non_ascii"
    LONG_NAME = "long_name"
    UNREFERENCED = "unreferenced"
    DOT_SLASH = "dot_slash"
    TEXT_MEMBER = "text_member"


FLAW_MEANINGS = {
    FlawKind.MISSING: "rows refer to a clip that no archive holds.",
    FlawKind.TRUNCATED: "a clip whose file ends before its index: it cannot be opened.",
    FlawKind.CUT_SHORT: "a clip whose index lies in front and names more frames than follow: it opens, and ends early.",
    FlawKind.TWO_FRAMES: "a clip of two frames.",
    FlawKind.NO_EXTENSION: "a clip whose path has no extension.",
    FlawKind.LEADING_DOT: "a clip whose file name begins with a dot.",
    FlawKind.LEADING_UNDERSCORES: "a clip whose file name begins with two underscores.",
    FlawKind.DOTS_IN_STEM: "a clip whose file name has dots before its extension.",
    FlawKind.NON_ASCII: "a clip whose file name has letters beyond ASCII.",
    FlawKind.LONG_NAME: "a clip whose path is longer than the 100 bytes that a plain tar header holds.",
    FlawKind.UNREFERENCED: "a clip in an archive that no row refers to.",
    FlawKind.DOT_SLASH: "an archive whose members' names begin with `./`, while the rows' paths do not.",
    FlawKind.TEXT_MEMBER: "a text file among the clips of an archive.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One planted flaw."""

    kind: FlawKind
    subset: str
    path: str
    """The clip as rows name it, or the member as it is named without `./`; empty where a whole archive is meant."""
    archive: str | None
    """The archive's path in the repository; `None` where no archive holds the clip."""


# Each falls on a clip of its own.
ACADEMIC_FLAWS = (
    FlawKind.MISSING,
    FlawKind.TRUNCATED,
    FlawKind.NO_EXTENSION,
    FlawKind.LEADING_DOT,
    FlawKind.LEADING_UNDERSCORES,
)
YOUTUBE_FLAWS = (
    FlawKind.CUT_SHORT,
    FlawKind.TWO_FRAMES,
    FlawKind.DOTS_IN_STEM,
    FlawKind.NON_ASCII,
    FlawKind.LONG_NAME,
)
TEXT_MEMBER_PATH = "academic_source/README.txt"
TEXT_MEMBER_CONTENT = b"Clips of the academic sources, as they were published.\n"


def flawed_path(path: str, kind: FlawKind) -> str:
    """Return the path of a clip once it has the flaw."""
    plain = PurePosixPath(path)
    if kind is FlawKind.NO_EXTENSION:
        return str(plain.with_suffix(""))
    file_names = {
        FlawKind.LEADING_DOT: f".{plain.name}",
        FlawKind.LEADING_UNDERSCORES: f"__{plain.name}",
        FlawKind.DOTS_IN_STEM: f"{plain.stem}.part.1.of.2.mp4",
        FlawKind.NON_ASCII: f"{plain.stem}_übung_東京.mp4",
        FlawKind.LONG_NAME: f"{plain.stem}_{'a_title_that_goes_on_' * 5}end.mp4",
    }
    return str(plain.with_name(file_names.get(kind, plain.name)))


def flawed_spec(spec: ClipSpec, kind: FlawKind) -> ClipSpec:
    """Return what is encoded for a clip with the flaw."""
    match kind:
        case FlawKind.TWO_FRAMES:
            return dataclasses.replace(spec, num_frames=2)
        case FlawKind.TRUNCATED:
            return dataclasses.replace(spec, with_faststart=False)
        case FlawKind.CUT_SHORT:
            return dataclasses.replace(spec, with_faststart=True)
        case _:
            return spec


def flawed_content(content: bytes, kind: FlawKind | None) -> bytes:
    """Return what the archive holds of an encoded clip with the flaw."""
    if kind in {FlawKind.TRUNCATED, FlawKind.CUT_SHORT}:
        return content[: len(content) * 6 // 10]
    return content
