"""Names of subsets that mean a part of one: `0_30_s_academic_v0_1_part2`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from reelstream.errors import ConfigError
from reelstream.types import Repository

_PART = re.compile(r"(?P<subset>.+?)_part(?P<part>[0-9]+)/?")


def split_parts(
    names: Sequence[str], repository: Repository, *, num_parts: int
) -> tuple[list[str], list[tuple[int, ...]]]:
    """Return the subsets that names mean, and which parts of each, from 0; no part where a name asks for all of it.

    Args:
        names: As a person writes them, parts counted from 1. Several parts of one subset are fine.
        repository: A folder of it that is called like a part is a subset of its own.
        num_parts: Into how many parts subsets are divided.

    Raises:
        ConfigError: Where a part is asked for that there is not.
    """
    parts_of: dict[str, tuple[int, ...]] = {}
    subsets: list[str] = []
    folders = {file.path.rpartition("/")[0] for file in repository.files}
    whole: set[str] = set()
    for name in names:
        match = None if name.strip("/") in folders else _PART.fullmatch(name)
        if match is None:
            subsets.append(name)
            whole.add(name.strip("/"))
            continue
        subset, part = match["subset"], int(match["part"])
        if not 1 <= part <= num_parts or num_parts == 1:
            raise ConfigError(
                f"the subset {name} is part {part} of {subset}, and parts is {num_parts}",
                "set parts to how many parts there are; they are counted from 1",
            )
        if subset not in parts_of:
            subsets.append(subset)
        parts_of[subset] = tuple(sorted({*parts_of.get(subset, ()), part - 1}))
    if both := whole & parts_of.keys():
        name = min(both)
        raise ConfigError(
            f"subsets names {name}, and parts of it as well", "name its parts, or the subset alone: all of its parts"
        )
    return subsets, [parts_of.get(subset, ()) for subset in subsets]
