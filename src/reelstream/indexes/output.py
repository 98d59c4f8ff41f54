"""Writing fetched clips below one folder: never outside it, never over a file that is another, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reelstream.archive import IndexRow
from reelstream.archive.seek.row_kinds import Digester
from reelstream.catalog.paths import normalise_path
from reelstream.errors import ArchiveError, ConfigError, DiskError

_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """The folder that clips are fetched to.

    Args:
        folder: Made with the first clip.
        force: Whether files that are there may be replaced.
    """

    folder: Path
    force: bool = False

    def path_of(self, member_name: str) -> Path:
        """Return where a member goes.

        Raises:
            ArchiveError: Where its name leads out of the folder, or is none.
        """
        try:
            return self.folder / normalise_path(member_name)
        except ValueError as error:
            raise ArchiveError(
                f"the archive names a member {member_name!r}, which {error}: it is not written",
                "tell the archive's publisher",
            ) from error

    def holds(self, path: Path, row: IndexRow) -> bool:
        """Return whether a file is there already, with the bytes that the row tells; nothing is fetched for it then.

        Raises:
            ConfigError: Where another file is there, and may not be replaced.
        """
        self._refuse_outside(path)
        if not path.exists() and not path.is_symlink():
            return False
        if (
            path.is_file()
            and path.stat().st_size == row.size_bytes
            and row.digest
            and _digest_of(path, row) == row.digest
        ):
            return True
        self.refuse_other(path)
        return False

    def refuse_other(self, path: Path) -> None:
        """Refuse to write where something is, unless files may be replaced.

        Raises:
            ConfigError: Where something is there that may not, or cannot, be replaced.
        """
        self._refuse_outside(path)
        if path.is_dir():
            raise ConfigError(f"{path} is a folder, and a clip is to go there", "name another folder by -o")
        if not self.force and (path.exists() or path.is_symlink()):
            raise ConfigError(
                f"{path} exists and is not the clip that is to go there", "move it away, or replace it by --force"
            )

    def write(self, path: Path, chunks: Iterable[bytes | memoryview]) -> None:
        """Write a file; it appears once it is whole. What iterating raises passes through, and leaves nothing.

        Raises:
            ConfigError: As `refuse_other`.
            DiskError: Where it cannot be written.
        """
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.refuse_other(path)
        # Not after the clip, whose name may be as long as names can be.
        partial = path.with_name(f".reelstream-{secrets.token_hex(8)}.partial")
        try:
            with _disk_errors(path):
                file = partial.open("xb")
            with file:
                for chunk in chunks:
                    with _disk_errors(path):
                        file.write(chunk)
                with _disk_errors(path):
                    file.flush()
            with _disk_errors(path):
                partial.replace(path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def copy(self, source: Path, path: Path) -> None:
        """Write a file that has the same bytes as one that was written; errors as `write`."""
        with source.open("rb") as file:
            self.write(path, iter(lambda: file.read(_READ_BYTES), b""))

    def _refuse_outside(self, path: Path) -> None:
        # A symbolic link in the folder may lead anywhere.
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            raise ConfigError(
                f"{path} lies outside of {self.folder}: a symbolic link in it leads away", "name another folder by -o"
            )


def _digest_of(path: Path, row: IndexRow) -> bytes:
    digester = Digester(row.digest_kind)
    with _disk_errors(path), path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digester.update(memoryview(chunk))
    return digester.digest()


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or os.strerror(error.errno or 0)}",
            "make room, or name another folder by -o",
        ) from error
