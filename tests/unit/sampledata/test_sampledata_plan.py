from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath

from reelstream.sampledata import FlawKind, SampleOptions
from reelstream.sampledata.plan import HELDOUT_SUBSET, plan_sample


def test_equal_options_give_equal_plans_and_other_seeds_others() -> None:
    options = SampleOptions(num_clips=40, seed=7, with_flaws=True)
    assert plan_sample(options) == plan_sample(options)
    other = plan_sample(SampleOptions(num_clips=40, seed=8, with_flaws=True))
    assert other.clips[0].path != plan_sample(options).clips[0].path


def test_archives_are_numbered_from_one_and_hold_all_clips() -> None:
    plan = plan_sample(SampleOptions(num_clips=101, num_archives=9, num_heldout=5))
    academic, youtube, heldout = plan.subsets
    assert [len(subset.archives) for subset in plan.subsets] == [3, 6, 1]
    assert academic.archives[0].path == "0_30_s_academic_v0_1/0_30_s_academic_v0_1_videos_1.tar.gz"
    assert sum(len(archive.clips) for subset in (academic, youtube) for archive in subset.archives) == 101
    assert (heldout.name, len(heldout.archives[0].clips), heldout.heldout) == (HELDOUT_SUBSET, 5, True)
    for subset in plan.subsets:
        sizes = [len(archive.clips) for archive in subset.archives]
        assert sizes == sorted(sizes, reverse=True)
        assert max(sizes) - min(sizes) <= 1


def test_each_archive_has_a_clip_however_few_there_are() -> None:
    for num_clips in range(2, 30):
        plan = plan_sample(SampleOptions(num_clips=num_clips, num_heldout=0))
        assert len(plan.subsets) == 2
        assert all(archive.clips for subset in plan.subsets for archive in subset.archives)


def test_paths_are_distinct_though_stems_are_not() -> None:
    clips = plan_sample(SampleOptions(num_clips=400)).clips
    assert len({clip.path.lower() for clip in clips}) == len(clips)
    assert len({PurePosixPath(clip.path).stem for clip in clips}) < len(clips)


def test_scenes_are_balanced_also_among_the_held_out() -> None:
    plan = plan_sample(SampleOptions(num_clips=480, num_heldout=40))
    for clips, each in ((plan.clips, 130), (plan.subsets[-1].archives[0].clips, 10)):
        assert set(Counter(clip.scene.direction for clip in clips).values()) == {each}
    pairs = Counter((clip.scene.direction, clip.scene.count) for clip in plan.clips)
    # Independent of each other: no count gives a direction away.
    assert len(pairs) == 16
    assert max(pairs.values()) < 3 * min(pairs.values())


def test_duration_and_size_do_not_tell_the_direction() -> None:
    clips = plan_sample(SampleOptions(num_clips=800, questions="motion")).clips
    overall_s = sum(clip.spec.duration_s for clip in clips) / len(clips)
    for direction in ("left", "right", "up", "down"):
        durations = [clip.spec.duration_s for clip in clips if clip.scene.direction == direction]
        assert abs(sum(durations) / len(durations) - overall_s) < 1.5
        assert len({(clip.spec.width, clip.spec.height) for clip in clips if clip.scene.direction == direction}) == 3


def test_clips_about_motion_show_a_single_shape() -> None:
    clips = plan_sample(SampleOptions(num_clips=40, questions="motion")).clips
    assert {clip.scene.count for clip in clips} == {1}


def test_each_flaw_is_planted_once_and_listed_with_its_place() -> None:
    for num_clips, num_archives in ((16, 2), (16, 3), (16, 8), (16, 16), (60, 8)):
        plan = plan_sample(SampleOptions(num_clips=num_clips, num_archives=num_archives, with_flaws=True))
        flaws = {flaw.kind: flaw for flaw in plan.flaws}
        assert len(plan.flaws) == len(FlawKind)
        assert set(flaws) == set(FlawKind)
        assert flaws[FlawKind.MISSING].archive is None
        assert all(flaw.archive for flaw in plan.flaws if flaw.kind is not FlawKind.MISSING)


def test_flawed_names_are_what_they_are_called() -> None:
    plan = plan_sample(SampleOptions(num_clips=40, with_flaws=True))
    names = {flaw.kind: PurePosixPath(flaw.path) for flaw in plan.flaws}
    assert names[FlawKind.NO_EXTENSION].suffix == ""
    assert names[FlawKind.LEADING_DOT].name.startswith(".")
    assert names[FlawKind.LEADING_UNDERSCORES].name.startswith("__")
    assert names[FlawKind.DOTS_IN_STEM].name.count(".") > 1
    assert not names[FlawKind.NON_ASCII].name.isascii()
    assert len(str(names[FlawKind.LONG_NAME])) > 100
    assert len(names[FlawKind.LONG_NAME].name.encode()) < 255


def test_a_plain_sample_has_no_flaws() -> None:
    plan = plan_sample(SampleOptions(num_clips=40))
    assert plan.flaws == ()
    assert all(clip.flaw is None for clip in plan.clips)
