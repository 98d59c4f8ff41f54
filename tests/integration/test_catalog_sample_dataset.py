"""The catalog of a dataset in the published layout, with its flaws, against what its archives hold."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from catalog_kit import COMMIT
from reelstream.catalog import as_messages, find_subsets, parse_answer, parse_options, prepare_catalog, select_subsets
from reelstream.sampledata import SampleOptions, make_sample
from reelstream.sampledata.flaws import FlawKind
from reelstream.types import Repository, RepositoryFile

OPTIONS = SampleOptions(
    num_clips=16,
    num_heldout=2,
    with_flaws=True,
    sizes=((192, 144),),
    clip_bytes=60_000,
    min_duration_s=5.0,
    max_duration_s=6.0,
)


def test_each_member_is_found_and_each_question_can_be_scored(tmp_path: Path) -> None:
    summary = make_sample(tmp_path / "made", OPTIONS)
    root = summary.folder
    repository = Repository(
        repo_id=OPTIONS.repo_id,
        commit=COMMIT,
        files=tuple(
            RepositoryFile(path=path.relative_to(root).as_posix(), size_bytes=path.stat().st_size, sha256=None)
            for path in sorted(root.rglob("*"))
            if path.is_file()
        ),
    )

    def open_file(file: RepositoryFile) -> Iterator[bytes]:
        yield (root / file.path).read_bytes()

    layouts = select_subsets(repository, find_subsets(repository))
    with prepare_catalog(layouts, tmp_path / "catalog", open_file=open_file, reserve=lambda _: None) as catalog:
        assert catalog.left_out == {}
        found, unreferenced = set(), set()
        for layout in layouts:
            for archive in layout.archives:
                with tarfile.open(root / archive.path) as members:
                    for name in (member.name for member in members if member.isfile()):
                        clip = catalog.find(layout.name, name)
                        if clip is None:
                            unreferenced.add(name.removeprefix("./"))
                        else:
                            found.add(clip)
        flaws = {kind: {flaw.path for flaw in summary.flaws if flaw.kind == kind} for kind in FlawKind}
        missing = {catalog.clip(clip).path for clip in set(range(catalog.num_clips)) - found}
        assert missing == flaws[FlawKind.MISSING]
        assert unreferenced == flaws[FlawKind.UNREFERENCED] | flaws[FlawKind.TEXT_MEMBER]
        num_questions = 0
        for row in range(catalog.num_samples):
            annotation = catalog.annotation(row)
            user, assistant = as_messages(annotation.conversations)[:2]
            assert [part["type"] for part in user["content"]] == ["video", "text"]
            if annotation.kind == "mc":
                options = parse_options(user["content"][1]["text"])
                assert options is not None
                assert parse_answer(assistant["content"][0]["text"], options) is not None
                num_questions += 1
        assert num_questions
