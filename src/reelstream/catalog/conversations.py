"""Conversations: the published turns, made uniform, and the form that chat templates take."""

from __future__ import annotations

import re
from typing import Any

from reelstream.types import VIDEO_PLACEHOLDER, Conversation, Messages

# Publishers write `<image>` for a video too.
_PLACEHOLDER = re.compile(r"<image>|<video>")
_PLACEHOLDER_WITH_NEWLINE = re.compile(r"(?:<image>|<video>)\n?")
_HUMAN = "human"


def with_one_placeholder(turns: Conversation) -> Conversation:
    r"""Return the turns with exactly one `VIDEO_PLACEHOLDER`, where the publisher put the first one.

    A conversation without one gets it, and a newline, at the start of its first human turn. Further ones, and those
    in answers, are taken out with the newline after them: a second would stand for a second video.

    Args:
        turns: At least one of them human.
    """
    place = _first_place(turns)
    uniform = []
    for number, turn in enumerate(turns):
        value = turn["value"]
        if place is not None and number == place[0]:
            before, after = value[: place[1]], value[place[2] :]
            value = f"{before}{VIDEO_PLACEHOLDER}{_without_placeholders(after)}"
        else:
            value = _without_placeholders(value)
        uniform.append({"from": turn["from"], "value": value})
    if place is None:
        first = next(turn for turn in uniform if turn["from"] == _HUMAN)
        first["value"] = f"{VIDEO_PLACEHOLDER}\n{first['value']}"
    return uniform


def _first_place(turns: Conversation) -> tuple[int, int, int] | None:
    """Return turn, start and end of the first placeholder of a human turn."""
    for number, turn in enumerate(turns):
        if turn["from"] == _HUMAN:
            match = _PLACEHOLDER.search(turn["value"])
            if match:
                return number, match.start(), match.end()
    return None


def _without_placeholders(text: str) -> str:
    # Taking one out can join the pieces of another: `<ima<image>ge>`.
    while "<" in text:
        shorter = _PLACEHOLDER_WITH_NEWLINE.sub("", text)
        if shorter == text:
            break
        text = shorter
    return text


def as_messages(conversations: Conversation) -> Messages:
    """Return a catalog's conversation in the OpenAI form, as chat templates take it.

    Roles are `user` and `assistant`. Every content is a list of parts; the one video part stands where the
    placeholder stood, and the line break beside it is dropped, since a template sets its own.
    """
    messages: Messages = []
    for turn in conversations:
        is_human = turn["from"] == _HUMAN
        parts = _parts(turn["value"]) if is_human else [_text_part(turn["value"])]
        messages.append({"role": "user" if is_human else "assistant", "content": parts})
    return messages


def _parts(text: str) -> list[dict[str, Any]]:
    before, placeholder, after = text.partition(VIDEO_PLACEHOLDER)
    if not placeholder:
        return [_text_part(text)]
    parts: list[dict[str, Any]] = []
    if before.strip():
        parts.append(_text_part(before.removesuffix("\n")))
    parts.append({"type": "video"})
    if after.strip():
        parts.append(_text_part(after.removeprefix("\n")))
    return parts


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
