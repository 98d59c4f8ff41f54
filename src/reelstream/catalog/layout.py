"""From a repository's list of files to its subsets: which archives hold the videos, which files the annotations.

```
0_30_s_academic_v0_1/                                  subset
├── 0_30_s_academic_v0_1_videos_1.tar.gz               archive
├── 0_30_s_academic_v0_1_videos_2.tar.gz               … number 10 comes after 9
├── more/clips.zip                                     archive
├── more/source/a.mp4                                  archive of one member, `more/source/a.mp4`
├── 0_30_s_academic_v0_1_cap_processed.json            annotations, kind cap
└── 0_30_s_academic_oe_v0_1_qa_processed.json          annotations, kind oe
```

Media belong to the nearest folder above them that has annotations. Everything here is pure: names in, names out. The
kind of an annotation file is a whole word of its name, so that neither `capoeira` nor `0_30_s_academic` is taken for
one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import get_args

from reelstream.errors import ConfigError, NotFoundOnHubError
from reelstream.types import AnnotationKind, Archive, ContainerKind, Repository, RepositoryFile

ANNOTATION_KINDS: tuple[AnnotationKind, ...] = get_args(AnnotationKind)

# Published with annotations whose videos are elsewhere, and why they cannot be streamed from this repository.
_MEDIA_ELSEWHERE = {"llava_hound": "its videos are folders of frames in another repository (ShareGPTVideo)"}

# What is published by itself, not in an archive.
_VIDEO_ENDINGS = (
    *(".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv"),
)
_ARCHIVE_NUMBER = re.compile(r"_videos_(\d+)\.(?:tar\.gz|tgz|tar|zip)$")
_WORD = re.compile(r"[A-Za-z0-9]+")
_KIND_OF_WORD: dict[str, AnnotationKind] = {"cap": "cap", "caption": "cap", "captions": "cap", "oe": "oe", "mc": "mc"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationFile:
    """One published array of annotations."""

    kind: AnnotationKind
    file: RepositoryFile

    @property
    def path(self) -> str:
        """Path in the repository."""
        return self.file.path


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetLayout:
    """What one subset consists of, at one commit."""

    repo_id: str
    commit: str
    name: str
    """The folder, as published."""
    kinds: tuple[AnnotationKind, ...]
    """The kinds asked for, in the order that the samples of a clip follow; some may have no file here."""
    archives: tuple[Archive, ...]
    """By their number, then unnumbered ones, then videos that are files of their own."""
    annotations: tuple[AnnotationFile, ...]
    """In the order of `kinds`, then by path."""

    @property
    def archive_size_bytes(self) -> int:
        """Compressed size of all archives."""
        return sum(archive.size_bytes for archive in self.archives)

    @property
    def annotation_size_bytes(self) -> int:
        """Size of all annotation files."""
        return sum(annotation.file.size_bytes for annotation in self.annotations)


def find_subsets(repository: Repository) -> tuple[str, ...]:
    """Return the names of the subsets that can be streamed: folders with media and annotations, sorted."""
    return tuple(
        name for name, folder in _folders(repository).items() if folder.media and _annotations(name, folder.json)
    )


def select_subset(
    repository: Repository, name: str, kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS
) -> SubsetLayout:
    """Return the layout of the subset that `name` means, with those of `kinds` that it has.

    Args:
        repository: All files at one commit.
        name: The folder; underscores may be left out where that is not ambiguous (`0_30s_academic_v0_1`).
        kinds: The annotations wanted, in the order that the samples of one clip shall have.

    Raises:
        NotFoundOnHubError: No such folder; the message names the nearest ones and all that exist.
        ConfigError: The subset holds no archive or video, or none of `kinds`, or `kinds` is wrong in itself.
    """
    wanted = _checked_kinds(kinds)
    folders = _folders(repository)
    folder = _resolve_name(repository, folders, name)
    archives = _archives(folder, folders[folder].media)
    if not archives:
        raise _without_media(repository, folder)
    annotations = _annotations(folder, folders[folder].json)
    chosen = tuple(annotation for kind in wanted for annotation in annotations if annotation.kind == kind)
    if not chosen:
        raise _without_kinds(repository, folder, wanted, annotations)
    return SubsetLayout(
        repo_id=repository.repo_id,
        commit=repository.commit,
        name=folder,
        kinds=wanted,
        archives=archives,
        annotations=chosen,
    )


def select_subsets(
    repository: Repository, names: Sequence[str], kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS
) -> tuple[SubsetLayout, ...]:
    """Return the layouts of several subsets, in the order given.

    A kind that some of them lack, or all, is fine: `*_activitynetqa` has open-ended questions only.

    Raises:
        NotFoundOnHubError: As `select_subset`.
        ConfigError: As `select_subset`; also where no name is given, or two names mean the same folder.
    """
    if not names:
        raise ConfigError(
            f"No subset of {repository.repo_id} was chosen.", f"It has: {_listed(find_subsets(repository))}."
        )
    layouts = tuple(select_subset(repository, name, kinds) for name in names)
    seen: set[str] = set()
    for layout in layouts:
        if layout.name in seen:
            raise ConfigError(f"The subset {layout.name} is named twice.", "Name it once.")
        seen.add(layout.name)
    return layouts


def select_media(repository: Repository, names: Sequence[str] = ()) -> tuple[Archive, ...]:
    """Return the archives and videos of folders, whether or not annotations lie beside them.

    Args:
        repository: All files at one commit.
        names: The folders, as for `select_subset`; where none is given, all archives there are, those of no folder
            too, and all videos that belong to a subset.

    Raises:
        NotFoundOnHubError: As `select_subset`.
        ConfigError: A folder, or the whole repository, holds no archive or video.
    """
    folders = _folders(repository)
    chosen = dict.fromkeys(_resolve_name(repository, folders, name) for name in names)
    for folder in chosen:
        if not folders[folder].media:
            raise _without_media(repository, folder)
    if chosen:
        return tuple(archive for folder in chosen for archive in _archives(folder, folders[folder].media))
    at_root = [
        file
        for file in repository.files
        if not _parent(file.path) and ContainerKind.of(file.path) is not ContainerKind.FILE
    ]
    below = (archive for folder, each in folders.items() for archive in _archives(folder, each.media))
    media = (*_archives("", at_root), *below)
    if not media:
        raise ConfigError(f"{repository.repo_id} has no archive and no video.", "Check its name and its revision.")
    return media


def _checked_kinds(kinds: Sequence[AnnotationKind]) -> tuple[AnnotationKind, ...]:
    if isinstance(kinds, str) or not kinds:
        raise ConfigError(f"annotations must be a list of kinds, not {kinds!r}.", 'Write for example ["cap", "oe"].')
    for kind in kinds:
        if kind not in ANNOTATION_KINDS:
            raise ConfigError(f"{kind!r} is no kind of annotation.", f"The kinds are {_listed(ANNOTATION_KINDS)}.")
    return tuple(dict.fromkeys(kinds))


@dataclass(slots=True)
class _Folder:
    """What may make a subset."""

    json: list[RepositoryFile] = field(default_factory=list)
    """In the folder itself."""
    media: list[RepositoryFile] = field(default_factory=list)
    """In it, or below."""


def _folders(repository: Repository) -> dict[str, _Folder]:
    """Return the folders that have archives or JSON files, sorted, with the media that belong to each."""
    folders: dict[str, _Folder] = {}
    annotated = {
        folder
        for file in repository.files
        if (folder := _parent(file.path)) and _kind_of(folder, file.path) is not None
    }
    for file in repository.files:
        parent = _parent(file.path)
        # Files at the root belong to no subset.
        if not parent:
            continue
        if file.path.endswith(".json"):
            folders.setdefault(parent, _Folder()).json.append(file)
        elif ContainerKind.of(file.path) is not ContainerKind.FILE:
            folders.setdefault(_nearest(parent, annotated) or parent, _Folder()).media.append(file)
        elif file.path.lower().endswith(_VIDEO_ENDINGS) and (folder := _nearest(parent, annotated)):
            folders.setdefault(folder, _Folder()).media.append(file)
    return dict(sorted(folders.items()))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _nearest(folder: str, annotated: Container[str]) -> str:
    """Return the nearest folder with annotations, from `folder` upwards; empty where there is none."""
    while folder and folder not in annotated:
        folder = _parent(folder)
    return folder


def _archives(folder: str, media: Iterable[RepositoryFile]) -> tuple[Archive, ...]:
    archives = (Archive(subset=folder, file=file) for file in media)
    return tuple(sorted(archives, key=_archive_order))


def _archive_order(archive: Archive) -> tuple[int, int, str]:
    match = _ARCHIVE_NUMBER.search(archive.path)
    if match:
        return 0, int(match.group(1)), archive.path
    return 2 if archive.kind is ContainerKind.FILE else 1, 0, archive.path


def _annotations(folder: str, files: Iterable[RepositoryFile]) -> tuple[AnnotationFile, ...]:
    annotations = []
    for file in sorted(files, key=lambda file: file.path):
        kind = _kind_of(folder, file.path)
        if kind is not None:
            annotations.append(AnnotationFile(kind=kind, file=file))
    return tuple(annotations)


def _kind_of(folder: str, path: str) -> AnnotationKind | None:
    """Return the kind that a file's name tells: the last word of it that is a kind, the folder's own name aside."""
    if not path.endswith(".json"):
        return None
    name = path.rpartition("/")[2].removesuffix(".json").removeprefix(folder.rpartition("/")[2])
    kinds = [_KIND_OF_WORD[word] for word in _WORD.findall(name.lower()) if word in _KIND_OF_WORD]
    return kinds[-1] if kinds else None


def _resolve_name(repository: Repository, folders: Iterable[str], name: str) -> str:
    wanted = name.strip("/")
    names = list(folders)
    if wanted in names:
        return wanted
    alike = [folder for folder in names if _without_separators(folder) == _without_separators(wanted)]
    if len(alike) == 1:
        return alike[0]
    nearest = alike or difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    hints = [f"Did you mean {' or '.join(nearest)}?"] if nearest else []
    hints.append(f"It has: {_listed(find_subsets(repository)) or 'no folder with media and annotations'}.")
    raise NotFoundOnHubError(
        f"{repository.repo_id} has no subset {name!r} at commit {repository.commit[:12]}.", " ".join(hints)
    )


def _without_separators(name: str) -> str:
    return re.sub(r"[_\-]", "", name).lower()


def _without_media(repository: Repository, folder: str) -> ConfigError:
    reason = _MEDIA_ELSEWHERE.get(folder, "the folder has annotations but no archive and no video")
    return ConfigError(
        f"The subset {folder} of {repository.repo_id} cannot be streamed: {reason}.",
        f"Choose others: {_listed(find_subsets(repository))}.",
    )


def _without_kinds(
    repository: Repository,
    folder: str,
    wanted: Sequence[AnnotationKind],
    annotations: Sequence[AnnotationFile],
) -> ConfigError:
    has = _listed(sorted({annotation.kind for annotation in annotations}))
    fact = f"The subset {folder} of {repository.repo_id} has no annotations of kind {' or '.join(wanted)}."
    # Streaming its archives would cost bytes and give no sample.
    hint = f"It has {has}: ask for that too, or leave the subset out." if has else "Leave the subset out."
    return ConfigError(fact, hint)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
