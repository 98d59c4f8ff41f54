"""The page of `reelstream.testing` names all that is public there."""

from __future__ import annotations

import inspect
import re

from docs.docs_kit import REPOSITORY
from reelstream import testing
from reelstream.testing import Way, check_exact_resume, check_ranks, contracts, strategies

_TEXT = (REPOSITORY / "docs" / "reference" / "testing.md").read_text(encoding="utf-8")
_WORDS = set(re.findall(r"\w+", " ".join(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", _TEXT))))
# Types that nobody names who uses the checks, and what the text explains by other words.
_LEFT_OUT = {"ALL_WAYS", "ExactnessReport", "RanksReport", "MakeDataset", "MakeRank", "SharedDataset", "Way"}


def test_each_public_name_is_there() -> None:
    assert set(testing.__all__) - _LEFT_OUT <= _WORDS
    assert set(contracts.__all__) <= _WORDS
    drawn = {
        name for name, value in vars(strategies).items() if getattr(value, "__module__", "") == strategies.__name__
    }
    assert drawn <= _WORDS


def test_each_way_is_there() -> None:
    assert set(re.findall(r"^\| `([^`]+)` \| (?:in|with|as|from|under|the same)", _TEXT, re.MULTILINE)) >= set(Way)


def test_each_argument_of_the_checks_is_there() -> None:
    for check in (check_exact_resume, check_ranks):
        assert set(inspect.signature(check).parameters) - {"make_dataset", "make_rank"} <= _WORDS
