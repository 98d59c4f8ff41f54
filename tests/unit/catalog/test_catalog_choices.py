from __future__ import annotations

import pytest

from reelstream.catalog import parse_answer, parse_options

NEXTQA = "<video>\nWhat is he doing?\nOptions:\nA. running.\nB. in a band.\nC. training.\nAnswer with the letter."


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (NEXTQA, ["running.", "in a band.", "training."]),
        ("Which?\n(A) left\n(B) right", ["left", "right"]),
        ("Which?\nA) left\nB) right", ["left", "right"]),
        ("Which?\nA: left\r\n\r\nB: right  ", ["left", "right"]),
        ("Which?\n(A) left\n(B) right\nOr\nA. up\nB. down\nC. still", ["up", "down", "still"]),
        ("What?", None),
        ("A. only one", None),
        ("B. x\nC. y", None),
        ("A. x\nC. y", None),
        ("A cat sits.\nB movies", None),
        ("", None),
    ],
)
def test_options_are_the_lettered_lines_in_order(text: str, options: list[str] | None) -> None:
    assert parse_options(text) == options


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("C. training.", 2),
        ("training", 2),
        ("In a band", 1),
        ("B", 1),
        ("(A)", 0),
        ("(C) training.", 2),
        ("A. B", 0),
        ("D", None),
        ("Both of them.", None),
        ("A man.", None),
        ("", None),
    ],
)
def test_an_answer_names_an_option_by_its_words_or_its_letter(answer: str, number: int | None) -> None:
    assert parse_answer(answer, ["running.", "in a band.", "training."]) == number


def test_words_count_before_letters() -> None:
    assert parse_answer("B", ["C", "A", "B"]) == 2
