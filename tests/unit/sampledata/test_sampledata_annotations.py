from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reelstream.sampledata import SampleOptions
from reelstream.sampledata.annotations import rows_of, write_annotations
from reelstream.sampledata.options import Questions
from reelstream.sampledata.plan import PlannedSubset, SamplePlan, plan_sample
from reelstream.sampledata.scene import COLOURS, DIRECTIONS, SHAPES, Scene

_OPTION = re.compile(r"^([A-D])\. (\w+)$", re.MULTILINE)


def _plan(questions: Questions = "all") -> SamplePlan:
    return plan_sample(SampleOptions(num_clips=200, num_heldout=40, questions=questions))


def _rows(subset: PlannedSubset, questions: Questions = "all") -> list[tuple[str, dict[str, Any]]]:
    return [(kind, row) for kind, row in rows_of(subset, seed=1, questions=questions)]


def _scenes(plan: SamplePlan) -> dict[str, Scene]:
    return {clip.path: clip.scene for clip in plan.clips}


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_a_clip_has_about_seven_rows_of_three_kinds() -> None:
    plan = _plan()
    kinds = Counter(kind for subset in plan.subsets[:2] for kind, _ in _rows(subset))
    assert kinds["cap"] == 200
    assert 6.5 <= kinds.total() / 200 <= 7.5
    assert 0.9 <= kinds["mc"] / 200 <= 1.3


def test_rows_have_the_published_form() -> None:
    plan = _plan()
    lengths = set()
    for kind, row in _rows(plan.subsets[0]):
        assert list(row) == ["id", "conversations", "data_source", "video"]
        turns = row["conversations"]
        lengths.add(len(turns) // 2)
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert turns[0]["value"].startswith("<image>\n")
        assert all("<image>" not in turn["value"] for turn in turns[1:])
        assert kind == "oe" or len(turns) == 2
        assert "{" not in json.dumps([turn["value"] for turn in turns])
    assert lengths == {1, 2, 3, 4, 5}


def test_ids_are_not_unique() -> None:
    rows = [row for _, row in _rows(_plan().subsets[0])]
    videos_by_id: dict[str, set[str]] = {}
    for row in rows:
        videos_by_id.setdefault(row["id"], set()).add(row["video"])
    assert len(videos_by_id) < len(rows)
    assert max(len(videos) for videos in videos_by_id.values()) > 1


@pytest.mark.parametrize("questions", ["all", "motion"])
def test_answers_are_true_of_the_scene(questions: Questions) -> None:
    plan = _plan(questions)
    scenes = _scenes(plan)
    for subset in plan.subsets:
        for kind, row in _rows(subset, questions):
            scene = scenes[row["video"]]
            wrong = (
                (set(DIRECTIONS) - {scene.direction}) | (set(SHAPES) - {scene.shape}) | (set(COLOURS) - {scene.colour})
            )
            for turn in row["conversations"][1::2]:
                said = _words(turn["value"])
                if kind == "cap" and questions == "all":
                    # A caption names both edges, the pattern's corner and its colours, too.
                    assert {scene.colour} <= said
                    assert scene.shape in turn["value"]
                else:
                    assert not said & wrong, turn


@pytest.mark.parametrize("questions", ["all", "motion"])
def test_multiple_choice_has_one_right_option_of_four_and_balanced_letters(questions: Questions) -> None:
    plan = _plan(questions)
    scenes = _scenes(plan)
    for subset in plan.subsets:
        letters: Counter[str] = Counter()
        for kind, row in _rows(subset, questions):
            if kind != "mc":
                continue
            question, answer = (turn["value"] for turn in row["conversations"])
            options = dict(_OPTION.findall(question.split("\nOptions:\n")[1]))
            scene = scenes[row["video"]]
            true_words = {scene.direction, scene.shape, scene.colour, ("", "one", "two", "three", "four")[scene.count]}
            assert list(options) == list("ABCD")
            assert len(set(options.values())) == 4
            assert [letter for letter, word in options.items() if word in true_words] == [answer[0]]
            assert answer == f"{answer[0]}. {options[answer[0]]}"
            letters[answer[0]] += 1
        assert max(letters.values()) - min(letters.values()) <= 1


def test_rows_about_motion_name_nothing_else() -> None:
    for kind, row in _rows(_plan("motion").subsets[1], "motion"):
        text = _words(" ".join(turn["value"] for turn in row["conversations"]))
        assert not text & (set(COLOURS) | set(SHAPES)), (kind, row)
        assert text & set(DIRECTIONS)


@pytest.mark.parametrize(("questions", "choices"), [("motion", 1), ("all", 4)])
def test_held_out_clips_have_choices_and_captions_only(questions: Questions, choices: int) -> None:
    kinds = Counter(kind for kind, _ in _rows(_plan(questions).subsets[-1], questions))
    assert kinds == {"cap": 40, "mc": 40 * choices}


def test_rows_differ_by_seed_and_repeat_for_the_same() -> None:
    subset = _plan().subsets[0]
    assert list(rows_of(subset, seed=1, questions="all")) == list(rows_of(subset, seed=1, questions="all"))
    assert list(rows_of(subset, seed=1, questions="all")) != list(rows_of(subset, seed=2, questions="all"))


def test_files_are_json_arrays_under_the_published_names(tmp_path: Path) -> None:
    subset = _plan().subsets[0]
    num_rows = write_annotations(tmp_path, subset, seed=1, questions="all")
    names = {
        "cap": "0_30_s_academic_v0_1_cap_processed.json",
        "oe": "0_30_s_academic_oe_v0_1_qa_processed.json",
        "mc": "0_30_s_academic_mc_v0_1_qa_processed.json",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names.values())
    for kind, name in names.items():
        found = [path.name for path in tmp_path.glob(f"*{kind}*.json")]
        assert found == [name]
        rows = json.loads((tmp_path / name).read_text())
        assert len(rows) == num_rows[kind]  # type: ignore[index]
        assert rows == [row for row_kind, row in _rows(subset) if row_kind == kind]
