from __future__ import annotations

import pytest

from reelstream.catalog import find_subsets, select_subset, select_subsets
from reelstream.errors import ConfigError, NotFoundOnHubError
from reelstream.types import ContainerKind, Repository, RepositoryFile


def repository(*paths: str) -> Repository:
    files = tuple(RepositoryFile(path=path, size_bytes=10, sha256=None) for path in sorted(paths))
    return Repository(repo_id="lmms-lab/LLaVA-Video-178K", commit="c" * 40, files=files)


def published(folder: str, num_archives: int, *annotations: str) -> list[str]:
    archives = [f"{folder}/{folder}_videos_{number}.tar.gz" for number in range(1, num_archives + 1)]
    return [*archives, *(f"{folder}/{name}" for name in annotations)]


REAL = repository(
    "README.md",
    ".gitattributes",
    *published(
        "0_30_s_academic_v0_1",
        11,
        "0_30_s_academic_v0_1_cap_processed.json",
        "0_30_s_academic_oe_v0_1_qa_processed.json",
        "0_30_s_academic_mc_v0_1_qa_processed.json",
    ),
    *published("0_30_s_activitynetqa", 1, "0_30_s_activitynetqa_oe_qa_processed.json"),
    *published("0_30_s_nextqa", 1, "0_30_s_nextqa_oe_qa_processed.json", "0_30_s_nextqa_mc_qa_processed.json"),
    *published("0_30_s_perceptiontest", 1, "0_30_s_perceptiontest_mc_qa_processed.json"),
    *published("llava_hound", 0, "sharegptvideo_qa_255k_processed.json"),
)


def test_subsets_are_the_folders_with_archives_and_annotations() -> None:
    assert find_subsets(REAL) == (
        "0_30_s_academic_v0_1",
        "0_30_s_activitynetqa",
        "0_30_s_nextqa",
        "0_30_s_perceptiontest",
    )


def test_archives_are_in_the_order_of_their_numbers() -> None:
    layout = select_subset(REAL, "0_30_s_academic_v0_1")
    numbers = [archive.path.rpartition("_")[2].removesuffix(".tar.gz") for archive in layout.archives]
    assert numbers == [str(number) for number in range(1, 12)]
    assert {archive.subset for archive in layout.archives} == {"0_30_s_academic_v0_1"}
    assert layout.archive_size_bytes == 110


def test_archives_of_other_names_come_after_the_numbered_ones() -> None:
    layout = select_subset(
        repository("s/s_videos_2.tar.gz", "s/extra.tar.gz", "s/s_videos_10.tgz", "s/s_cap.json"), "s"
    )
    assert [archive.path for archive in layout.archives] == [
        "s/s_videos_2.tar.gz",
        "s/s_videos_10.tgz",
        "s/extra.tar.gz",
    ]


def test_kinds_are_found_wherever_v0_1_moved_them_and_come_in_the_order_asked_for() -> None:
    layout = select_subset(REAL, "0_30_s_academic_v0_1", ["mc", "cap", "oe"])
    assert [annotation.kind for annotation in layout.annotations] == ["mc", "cap", "oe"]
    assert layout.annotations[0].path == "0_30_s_academic_v0_1/0_30_s_academic_mc_v0_1_qa_processed.json"
    assert layout.annotation_size_bytes == 30


@pytest.mark.parametrize("name", ["capoeira.json", "escape_room.json", "s_moe_data.json", "mcdonalds.json", "qa.json"])
def test_a_kind_inside_a_word_is_none(name: str) -> None:
    with pytest.raises(ConfigError, match="has no annotations of kind cap or oe or mc"):
        select_subset(repository("s/s_videos_1.tar.gz", f"s/{name}"), "s")


@pytest.mark.parametrize(
    ("folder", "name", "kind"),
    [
        ("s", "s-captions.json", "cap"),
        ("mc_set", "mc_set_oe_processed.json", "oe"),
        ("mc_set", "oe.json", "oe"),
        ("s", "train_oe_from_cap_mc.json", "mc"),
        ("s", "S_CAP.json", "cap"),
    ],
)
def test_the_kind_is_the_last_kind_word_after_the_folders_name(folder: str, name: str, kind: str) -> None:
    layout = select_subset(repository(f"{folder}/x.tar.gz", f"{folder}/{name}"), folder)
    assert [annotation.kind for annotation in layout.annotations] == [kind]


@pytest.mark.parametrize(
    "name", ["0_30s_academic_v0_1", "0_30_s_academic_v0_1/", "030sacademicv01", "0_30_S_Academic_v0_1"]
)
def test_the_folders_name_is_taken_without_its_underscore(name: str) -> None:
    assert select_subset(REAL, name).name == "0_30_s_academic_v0_1"


def test_a_name_that_could_mean_two_folders_is_refused_with_both() -> None:
    two = repository(*published("1_2_m_x", 1, "cap.json"), *published("12_m_x", 1, "cap.json"))
    with pytest.raises(NotFoundOnHubError, match=r"Did you mean 12_m_x or 1_2_m_x\?"):
        select_subset(two, "12m_x")
    assert select_subset(two, "12_m_x").name == "12_m_x"


def test_an_unknown_subset_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(NotFoundOnHubError) as caught:
        select_subset(REAL, "0_30_s_nextq")
    assert "'0_30_s_nextq'" in caught.value.fact
    assert "Did you mean 0_30_s_nextqa" in caught.value.hint
    assert "0_30_s_perceptiontest" in caught.value.hint
    assert "llava_hound." not in caught.value.hint


def test_a_subset_without_media_is_refused_by_name_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"llava_hound .* folders of frames in another repository"):
        select_subset(REAL, "llava_hound")
    with pytest.raises(ConfigError, match="no archive and no video"):
        select_subset(repository("s/s_cap.json"), "s")


MIXED = repository(
    "s/s_cap.json",
    "s/s_videos_2.zip",
    "s/s_videos_10.tar",
    "s/s_videos_1.tar.gz",
    "s/more/clips.ZIP",
    "s/b.MP4",
    "s/source/deep/a.webm",
    "s/source/metadata.json",
    "s/source/x.txt",
    "s/part/part_oe.json",
    "s/part/own.mkv",
    "loose/without/annotations.mp4",
    "root.mp4",
)


def test_archives_of_all_kinds_and_videos_below_the_folder_are_its_media() -> None:
    layout = select_subset(MIXED, "s")
    assert [(archive.path, archive.kind) for archive in layout.archives] == [
        ("s/s_videos_1.tar.gz", ContainerKind.TAR_GZ),
        ("s/s_videos_2.zip", ContainerKind.ZIP),
        ("s/s_videos_10.tar", ContainerKind.TAR),
        ("s/more/clips.ZIP", ContainerKind.ZIP),
        ("s/b.MP4", ContainerKind.FILE),
        ("s/source/deep/a.webm", ContainerKind.FILE),
    ]
    assert layout.archives[-1].path_in_subset == "source/deep/a.webm"
    assert layout.archive_size_bytes == 60


def test_media_belong_to_the_nearest_folder_with_annotations() -> None:
    assert find_subsets(MIXED) == ("s", "s/part")
    assert [archive.path_in_subset for archive in select_subset(MIXED, "s/part").archives] == ["own.mkv"]


def test_videos_without_annotations_above_them_make_no_subset() -> None:
    with pytest.raises(NotFoundOnHubError):
        select_subset(MIXED, "loose/without")


def test_a_kind_that_only_one_subset_lacks_is_fine() -> None:
    layouts = select_subsets(REAL, ["0_30_s_academic_v0_1", "0_30_s_activitynetqa"])
    assert [len(layout.annotations) for layout in layouts] == [3, 1]
    assert layouts[1].kinds == ("cap", "oe", "mc")


def test_a_kind_that_no_chosen_subset_has_is_fine_as_long_as_each_has_another() -> None:
    layouts = select_subsets(REAL, ["0_30_s_nextqa", "0_30_s_activitynetqa"])
    assert {annotation.kind for layout in layouts for annotation in layout.annotations} == {"oe", "mc"}


def test_a_subset_with_none_of_the_kinds_is_refused_as_it_would_cost_bytes_for_nothing() -> None:
    with pytest.raises(ConfigError, match=r"0_30_s_activitynetqa .* has no annotations of kind mc") as caught:
        select_subsets(REAL, ["0_30_s_nextqa", "0_30_s_activitynetqa"], ["mc"])
    assert "It has oe" in caught.value.hint


@pytest.mark.parametrize(
    ("names", "kinds", "message"),
    [
        ([], ["cap"], "No subset"),
        (["0_30_s_nextqa", "0_30s_nextqa"], ["oe"], "named twice"),
        (["0_30_s_nextqa"], [], "list of kinds"),
        (["0_30_s_nextqa"], "oe", "list of kinds"),
        (["0_30_s_nextqa"], ["caption"], "'caption' is no kind"),
    ],
)
def test_a_wrong_choice_is_refused(names: list[str], kinds: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select_subsets(REAL, names, kinds)  # type: ignore[arg-type]
