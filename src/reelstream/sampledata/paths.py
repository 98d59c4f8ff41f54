"""Paths of clips, made up in the manner of the sources that the real dataset draws from."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Iterator

_CAPITALS = string.ascii_uppercase + string.digits
_VIDEO_ID = string.ascii_letters + string.digits + "-_"


def _text(chance: random.Random, letters: str, length: int) -> str:
    return "".join(chance.choices(letters, k=length))


def _charades(chance: random.Random) -> str:
    return f"academic_source/Charades/{_text(chance, _CAPITALS, 5)}.mp4"


def _activitynet(chance: random.Random) -> str:
    return f"academic_source/activitynet/v_{_text(chance, _VIDEO_ID, 11)}.mp4"


def _nextqa(chance: random.Random) -> str:
    return f"academic_source/NextQA/{chance.randrange(1000, 1200)}/{_text(chance, string.digits, 10)}.mp4"


def _youcook2(chance: random.Random) -> str:
    # Stems that many clips share, as in the real dataset: only the whole path names a clip.
    folder = f"{chance.randrange(101, 430)}/{_text(chance, _VIDEO_ID, 11)}"
    return f"academic_source/youcook2/{folder}/split_{chance.randrange(8)}.mp4"


def _ego4d(chance: random.Random) -> str:
    return f"academic_source/ego4d/{uuid.UUID(int=chance.getrandbits(128), version=4)}.mp4"


def _youtube(chance: random.Random) -> str:
    return f"liwei_youtube_videos/videos/youtube_video_2024/ytb_{_text(chance, _VIDEO_ID, 11)}.mp4"


def academic_paths(chance: random.Random) -> Iterator[str]:
    """Yield paths of academic sources for ever, no path twice."""
    return _distinct((_charades, _activitynet, _nextqa, _youcook2, _ego4d), chance)


def youtube_paths(chance: random.Random) -> Iterator[str]:
    """Yield paths of downloaded videos for ever, no path twice."""
    return _distinct((_youtube,), chance)


def _distinct(sources: tuple[Callable[[random.Random], str], ...], chance: random.Random) -> Iterator[str]:
    seen = set()
    while True:
        path = chance.choice(sources)(chance)
        # Compared without case, so that the archives can be unpacked on any file system.
        if path.lower() not in seen:
            seen.add(path.lower())
            yield path
