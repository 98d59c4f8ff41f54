"""The writers of tar.gz that are measured: those that this machine has, and the names of the others."""

from __future__ import annotations

import gzip
import importlib
import shutil
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_CHUNK_BYTES = 1 << 20
_MEMBER_BYTES = 3_000_000


@dataclass(frozen=True, kw_only=True)
class Writer:
    """A program, or a library, with its level."""

    name: str
    version: str
    write: Callable[[Path, Path], None]
    """Compresses a file to another."""


PROGRAMS = (
    ("gzip", "-1"),
    ("gzip", "-6"),
    ("gzip", "-9"),
    ("pigz", "-6"),
    ("bgzip",),
    ("libdeflate-gzip", "-6"),
    ("libdeflate-gzip", "-12"),
    ("igzip", "-1"),
)


def find_writers() -> tuple[list[Writer], list[str]]:
    """Return the writers that are here, and the names of those that are missing."""
    version = f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
    found = [
        Writer(name="Python 9 (tarfile)", version=version, write=_python(9)),
        Writer(name="stored blocks", version=version, write=_python(0)),
        Writer(name="several gzip members", version=version, write=_several),
    ]
    missing = []
    for command in PROGRAMS:
        name = " ".join(command)
        if shutil.which(command[0]):
            found.append(Writer(name=name, version=_version(command[0]), write=_program(*command)))
        else:
            missing.append(name)
    try:
        zlib_ng = importlib.import_module("zlib_ng.zlib_ng")
    except ImportError:
        missing.append("zlib-ng 6")
    else:
        found.append(Writer(name="zlib-ng 6", version=f"zlib-ng {zlib_ng.ZLIBNG_VERSION}", write=_zlib_ng(zlib_ng)))
    return found, missing


def _version(program: str) -> str:
    option = "-V" if program == "libdeflate-gzip" else "--version"
    said = subprocess.run([program, option], capture_output=True, text=True, check=False)
    return next(iter((said.stdout or said.stderr).splitlines()), program)


def _program(*command: str) -> Callable[[Path, Path], None]:
    def write(tar: Path, packed: Path) -> None:
        with packed.open("wb") as out:
            subprocess.run([*command, "-c", str(tar)], stdout=out, check=True)

    return write


def _python(level: int) -> Callable[[Path, Path], None]:
    def write(tar: Path, packed: Path) -> None:
        with tar.open("rb") as source, gzip.open(packed, "wb", level) as out:
            shutil.copyfileobj(source, out, _CHUNK_BYTES)

    return write


def _several(tar: Path, packed: Path) -> None:
    with tar.open("rb") as source, packed.open("wb") as out:
        while some := source.read(_MEMBER_BYTES):
            out.write(gzip.compress(some, 6))


def _zlib_ng(zlib_ng: object) -> Callable[[Path, Path], None]:
    def write(tar: Path, packed: Path) -> None:
        compressor = zlib_ng.compressobj(6, zlib.DEFLATED, 31)  # type: ignore[attr-defined]
        with tar.open("rb") as source, packed.open("wb") as out:
            while some := source.read(_CHUNK_BYTES):
                out.write(compressor.compress(some))
            out.write(compressor.flush())

    return write
