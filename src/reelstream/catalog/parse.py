"""Annotation arrays, read piece by piece as they come: no file on disk, no whole file in memory.

`parse_annotations` takes the bytes of one published JSON array and yields one outcome for each of its rows: a
`ParsedSample`, or `LeftOut` with the reason. A row that is wrong in itself (no turns, a path that points outside)
stops the reading: it names no sample, and a file that holds one is not what the format says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import ijson

from reelstream.catalog.conversations import with_one_placeholder
from reelstream.catalog.paths import normalise_path
from reelstream.errors import AnnotationError
from reelstream.types import Conversation, RepositoryFile
from reelstream.units import format_bytes

NO_VIDEO = "names no video"
SEVERAL_VIDEOS = "names several videos"
NO_QUESTION = "has no question"
NO_ANSWER = "has no answer"

# Small, so that few rows are in memory at once, and so that `_MAX_BRACKETS` can be checked before the parser sees
# them: its memory grows with the square of the nesting, and 20 kB of `[` would take gigabytes.
_PIECE_BYTES = 8192
_MAX_BRACKETS = 4000
# The parser looks at an unfinished text again with each piece, so that a longer one takes long as well.
_MAX_ROW_BYTES = 4 * 2**20
_SHOWN_CHARACTERS = 60
# Some editors put it first; JSON does not know it.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}
_RETRY_HINT = "Try again; if it stays so, the published file is damaged: choose another revision."


class ParsedSample(NamedTuple):
    """One row that is a training example."""

    row: int
    """Number of the row in its file, from 0."""
    id: str
    path: str
    """The clip's path, normalised."""
    conversations: Conversation


class LeftOut(NamedTuple):
    """One row that is no example of a video, and why."""

    row: int
    reason: str


def parse_annotations(file: RepositoryFile, chunks: Iterable[bytes]) -> Iterator[ParsedSample | LeftOut]:
    """Yield the outcome of each row of `file`, in order, as its bytes come in.

    Args:
        file: What the Hub says of the file: the bytes are checked against its size and SHA-256 at their end.
        chunks: The file's bytes, in pieces of any size. What it raises passes.

    Raises:
        AnnotationError: The bytes are no JSON array, are cut short, are not the file that the Hub names, or hold a
            row that is wrong; the message names the file and the row or the byte.
    """
    for row, record in enumerate(_records(file, chunks)):
        yield _parse_row(file.path, row, record)


class _Reading:
    """How far a file has been read: for messages, for the check at its end, and to bound what one row can take."""

    def __init__(self, file: RepositoryFile) -> None:
        self.file = file
        self.read_bytes = 0
        self.num_rows = 0
        self._digest = hashlib.sha256()
        self._row_bytes = 0
        self._row_brackets = 0

    def take(self, piece: bytes) -> None:
        """Note a piece that the parser is about to see; refuse one that would make it hold too much."""
        self._digest.update(piece)
        self.read_bytes += len(piece)
        self._row_bytes += len(piece)
        self._row_brackets += piece.count(b"[") + piece.count(b"{")
        if self._row_bytes > _MAX_ROW_BYTES or self._row_brackets > _MAX_BRACKETS:
            raise AnnotationError(
                f"{self.file.path} holds a row that is no conversation, {self.place}: it is longer than "
                f"{format_bytes(_MAX_ROW_BYTES)} or has more than {_MAX_BRACKETS:,} brackets.",
                "Choose a revision whose file is an array of short records.",
            )

    def complete(self, num_rows: int) -> None:
        """Note that rows have been completed by the piece just taken."""
        self.num_rows += num_rows
        self._row_bytes = self._row_brackets = 0

    @property
    def place(self) -> str:
        """Where the reading stands, for a message."""
        return f"after row {self.num_rows - 1:,}" if self.num_rows else "before the end of its first row"

    def check_whole(self) -> None:
        """Raise where the bytes were not the file that the Hub names."""
        sha256 = self._digest.hexdigest()
        if self.read_bytes != self.file.size_bytes:
            came, announced = f"{self.read_bytes:,} bytes", f"{self.file.size_bytes:,}"
        elif self.file.sha256 not in {None, sha256}:
            came, announced = f"bytes of SHA-256 {sha256[:12]}…", f"{str(self.file.sha256)[:12]}…"
        else:
            return
        raise AnnotationError(f"{self.file.path}: {came} came, but the Hub announced {announced}.", _RETRY_HINT)


def _records(file: RepositoryFile, chunks: Iterable[bytes]) -> Iterator[Any]:
    """Yield the array's elements."""
    elements = ijson.sendable_list()
    parser = ijson.items_coro(elements, "item", use_float=True)
    reading = _Reading(file)
    for piece in _pieces(file, chunks):
        is_first = reading.read_bytes == 0
        reading.take(piece)
        error = _feed(parser, piece.removeprefix(_BYTE_ORDER_MARK) if is_first else piece)
        # Rows before a broken place are good, and their number says where it is.
        if elements:
            reading.complete(len(elements))
            yield from elements
            elements.clear()
        if error is not None:
            raise AnnotationError(
                f"{file.path} is not JSON: {_reason(error)}, {reading.place}, near byte {reading.read_bytes:,}.",
                _RETRY_HINT,
            ) from error
    try:
        parser.close()
    except ijson.JSONError as error:
        raise AnnotationError(
            f"{file.path} is cut short: it ends {reading.place}, at {reading.read_bytes:,} of "
            f"{file.size_bytes:,} bytes.",
            _RETRY_HINT,
        ) from error
    reading.check_whole()


def _feed(parser: Any, piece: bytes) -> ijson.JSONError | None:
    try:
        parser.send(piece)
    except ijson.JSONError as error:
        return error
    return None


def _reason(error: ijson.JSONError) -> str:
    """Return the first line of what the parser says, which comes as `lexical error: …` or as the bytes of that."""
    return str(error).removeprefix("b'").replace("\\n", "\n").splitlines()[0].strip().rstrip(".")


def _pieces(file: RepositoryFile, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut the bytes into small pieces, once their beginning is that of an array."""
    begun = False
    for chunk in chunks:
        if not begun:
            head = chunk.removeprefix(_BYTE_ORDER_MARK).lstrip()
            if head and not head.startswith(b"["):
                raise _not_an_array(file, head)
            begun = bool(head)
        for start in range(0, len(chunk), _PIECE_BYTES):
            yield chunk[start : start + _PIECE_BYTES]


def _not_an_array(file: RepositoryFile, head: bytes) -> AnnotationError:
    shown = head[:_SHOWN_CHARACTERS].decode(errors="replace")
    if head.startswith(b"<"):
        what = "is a web page, not JSON"
        hint = "A proxy or a log-in page answered in the Hub's place: check the network and the token."
    elif head.startswith(b"version https://git-lfs"):
        what = "is a Git LFS pointer, not JSON"
        hint = "The folder that is served holds pointers: fetch its files with `git lfs pull`."
    elif head.startswith(b"{"):
        what = "is not a JSON array, but begins with an object"
        hint = "An annotation file is one array of records; JSON lines are not read."
    else:
        what = "is not a JSON array"
        hint = _RETRY_HINT
    return AnnotationError(f"{file.path} {what}: at byte 0 it begins with {shown!r}.", hint)


def _parse_row(path: str, row: int, record: Any) -> ParsedSample | LeftOut:
    if not isinstance(record, dict):
        raise _bad_row(path, row, f"is no record, but {_shown(record)}")
    video = record.get("video")
    if video is None or video == "":
        return LeftOut(row, NO_VIDEO)
    if isinstance(video, list):
        return LeftOut(row, SEVERAL_VIDEOS)
    if not isinstance(video, str):
        raise _bad_row(path, row, f"has a 'video' that is no path: {_shown(video)}")
    try:
        clip_path = normalise_path(video)
    except ValueError as error:
        raise _bad_row(path, row, f"has a 'video' that {error}: {_shown(video)}") from error
    turns = _turns(path, row, record.get("conversations"))
    if not any(turn["from"] == "human" for turn in turns):
        return LeftOut(row, NO_QUESTION)
    if not any(turn["from"] == "gpt" and turn["value"].strip() for turn in turns):
        return LeftOut(row, NO_ANSWER)
    sample_id = record.get("id")
    return ParsedSample(row, "" if sample_id is None else str(sample_id), clip_path, with_one_placeholder(turns))


def _turns(path: str, row: int, conversations: Any) -> Conversation:
    if not isinstance(conversations, list):
        raise _bad_row(path, row, f"has no list of 'conversations', but {_shown(conversations)}")
    turns = []
    for published in conversations:
        turn = _uniform_turn(published)
        if turn is None:
            what = f"has a turn that is not {{'from': human or gpt, 'value': text}}: {_shown(published)}"
            raise _bad_row(path, row, what)
        turns.append(turn)
    return turns


def _uniform_turn(turn: Any) -> dict[str, str] | None:
    if not isinstance(turn, dict):
        return None
    role, value = turn.get("from"), turn.get("value")
    if not isinstance(role, str) or role not in _ROLES or not isinstance(value, str):
        return None
    return {"from": _ROLES[role], "value": value}


def _bad_row(path: str, row: int, what: str) -> AnnotationError:
    return AnnotationError(
        f"Row {row:,} of {path} {what}.",
        "The file does not hold what its format says: choose another revision, or leave this kind of annotation out.",
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
