"""Writes the rows of a subset as the real dataset does: three JSON arrays, one for each kind of annotation."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from reelstream.sampledata import texts
from reelstream.sampledata.flaws import FlawKind
from reelstream.sampledata.options import Questions
from reelstream.sampledata.plan import PlannedClip, PlannedSubset
from reelstream.sampledata.scene import deal
from reelstream.types import AnnotationKind

_NUM_OPEN_QUESTIONS = (4, 5, 6)
_OPEN_QUESTION_WEIGHTS = (1, 2, 1)
# 1.1 a clip, as in the real dataset.
_NUM_MULTIPLE_CHOICE = (0, 1, 2)
_MULTIPLE_CHOICE_WEIGHTS = (15, 60, 25)


def annotation_names(subset: PlannedSubset) -> dict[AnnotationKind, str]:
    """Return the file names of a subset's annotations; as in the real dataset, `v0_1` does not stay in its place."""
    stem = subset.name.removesuffix("_v0_1")
    names: dict[AnnotationKind, str] = {
        "cap": f"{stem}_v0_1_cap_processed.json",
        "oe": f"{stem}_oe_v0_1_qa_processed.json",
        "mc": f"{stem}_mc_v0_1_qa_processed.json",
    }
    # Held-out questions must be scored without a reader of free text.
    return {kind: name for kind, name in names.items() if not (subset.heldout and kind == "oe")}


def write_annotations(
    folder: Path, subset: PlannedSubset, *, seed: int, questions: Questions
) -> Counter[AnnotationKind]:
    """Write the annotation files of `subset` into `folder`; return the number of rows of each kind."""
    num_rows: Counter[AnnotationKind] = Counter()
    with contextlib.ExitStack() as stack:
        files = {
            kind: stack.enter_context((folder / name).open("w", encoding="utf-8"))
            for kind, name in annotation_names(subset).items()
        }
        for kind, row in rows_of(subset, seed=seed, questions=questions):
            _append(files[kind], row, first=not num_rows[kind])
            num_rows[kind] += 1
        for file in files.values():
            file.write("\n]\n" if file.tell() else "[]\n")
    return num_rows


def _append(file: IO[str], row: dict[str, Any], *, first: bool) -> None:
    file.write("[\n" if first else ",\n")
    # Real files escape letters beyond ASCII, so paths must be compared after parsing.
    file.write(json.dumps(row))


def rows_of(
    subset: PlannedSubset, *, seed: int, questions: Questions
) -> Iterator[tuple[AnnotationKind, dict[str, Any]]]:
    """Yield the rows of a subset with their kind, about seven a clip; clips come in another order than in archives."""
    chance = random.Random(f"{seed}/text/{subset.name}")
    letters = texts.spread_letters(chance)
    only_motion = questions == "motion"
    topics = deal(("motion",) if only_motion else texts.CHOICE_TOPICS, chance)
    clips = [clip for archive in subset.archives for clip in archive.clips if clip.flaw is not FlawKind.UNREFERENCED]
    for clip in chance.sample(clips, len(clips)):
        scene = clip.scene
        yield "cap", _row(subset, clip, [texts.caption(scene, only_motion=only_motion, chance=chance)])
        if subset.heldout:
            num_open, num_choices = 0, 1 if only_motion else len(texts.CHOICE_TOPICS)
        else:
            (num_open,) = chance.choices(_NUM_OPEN_QUESTIONS, _OPEN_QUESTION_WEIGHTS)
            (num_choices,) = chance.choices(_NUM_MULTIPLE_CHOICE, _MULTIPLE_CHOICE_WEIGHTS)
        for _ in range(num_open):
            yield "oe", _row(subset, clip, texts.open_questions(scene, only_motion=only_motion, chance=chance))
        for _ in range(num_choices):
            pair = texts.multiple_choice(scene, next(topics), answer_letter=next(letters), chance=chance)
            yield "mc", _row(subset, clip, [pair])


def _row(subset: PlannedSubset, clip: PlannedClip, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    conversations = []
    for number, (question, answer) in enumerate(pairs):
        # The placeholder says image, although it stands for a video, and stands in the first turn only.
        conversations.append({"from": "human", "value": question if number else f"<image>\n{question}"})
        conversations.append({"from": "gpt", "value": answer})
    return {
        "id": _row_id(clip.path),
        "conversations": conversations,
        "data_source": subset.name,
        "video": clip.path,
    }


def _row_id(path: str) -> str:
    """Return an id as the real ones: of the clip, hence shared by its rows, and sometimes by other clips."""
    plain = PurePosixPath(path)
    return f"{plain.parent.name}-{plain.stem}" if "NextQA" in plain.parts else plain.stem
