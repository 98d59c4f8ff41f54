"""Multiple-choice questions: the options as words, so that a model can be scored on what it would say."""

from __future__ import annotations

import re
from collections.abc import Sequence

# `A. text`, `A) text`, `(A) text`, `A: text`.
_OPTION = re.compile(r"^\s*(?:\(([A-Z])\)|([A-Z])[.):])\s+(\S.*?)\s*$")
_LETTER = re.compile(r"^\s*(?:\(([A-Z])\)|([A-Z])(?:[.):]|\s*$))")


def parse_options(text: str) -> list[str] | None:
    """Return the words of a question's options, in order, without their letters; None where it has none.

    Options stand one a line, lettered from A without gaps, at least two of them. Where a text holds several such
    lists, the last counts: it stands next to the answer.
    """
    best: list[str] | None = None
    run: list[str] = []
    for line in text.splitlines():
        match = _OPTION.match(line)
        if match is None:
            # A blank line may part the options; anything else ends them.
            run = run if not line.strip() else []
            continue
        number = _number_of(match)
        if number == len(run):
            run.append(match.group(3))
        else:
            run = [match.group(3)] if number == 0 else []
        if len(run) >= 2:
            best = run
    return best


def parse_answer(text: str, options: Sequence[str]) -> int | None:
    """Return the index of the option that an answer names, None where it names none.

    An answer names an option by its words (`training`, with or without a full stop, in any case), or by its letter
    (`E`, `(E)`, `E. training.`). Words count before letters: `A. dog` as words may begin with a letter by chance.
    """
    wanted = _words(text)
    said = [number for number, option in enumerate(options) if _words(option) == wanted]
    if len(said) == 1:
        return said[0]
    match = _LETTER.match(text)
    number = _number_of(match) if match else len(options)
    return number if number < len(options) else None


def _number_of(match: re.Match[str]) -> int:
    return ord(match.group(1) or match.group(2)) - ord("A")


def _words(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
