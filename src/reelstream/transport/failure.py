"""What may pass: the internal signal between those who ask and those who try again."""

from __future__ import annotations

import re

_SHOWN_CHARACTERS = 300
_QUERY = re.compile(r"(?<=[^\s?])\?[^\s\"'<>]+=[^\s\"'<>]*")
_BEARER = re.compile(r"(?i)bearer\s+\S+|\bhf_[A-Za-z0-9]{8,}")
_TAG = re.compile(r"<[^>]*>")


class PassingFailure(Exception):  # noqa: N818 - not an error yet: it is one when patience has run out
    """A request failed in a way that may pass; never leaves this package.

    Attributes:
        reason: Words for people, without secrets.
        asked_s: The wait that the server asked for.
        first_contact: Whether no connection could be made, and none ever was.
    """

    def __init__(self, reason: str, *, asked_s: float | None = None, first_contact: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.asked_s = asked_s
        self.first_contact = first_contact


def without_secrets(text: str) -> str:
    """Return foreign text fit for a message: no queries of addresses, no tokens, no markup, of bounded length."""
    text = _TAG.sub(" ", text)
    text = _BEARER.sub("…", _QUERY.sub("?…", text))
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
