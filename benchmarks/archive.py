"""Any place of an archive: what it costs to enter one, to cut it, to index it in passing, and to read one clip of it.

    python benchmarks/archive.py [--json FILE] [--page docs/benchmarks.md]     some ten minutes
    python benchmarks/archive.py --quick                                       some seconds, as the tests run it

For each writer of tar.gz that is installed and for clips of several sizes: the speed of a pass without the index and
with it, the index, the bytes and requests of reading each member by range, and entries at random bytes and cuts of
random sizes, right or wrong. What is read is compared with what GNU tar unpacks from the same file. Markdown on stdout.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from archive_parts.clips import make_clips, pack, unpacked_digests
from archive_parts.entries import measure_entries
from archive_parts.pages import Result, as_json, as_markdown, put_into
from archive_parts.passes import measure_passes
from archive_parts.writers import Writer, find_writers

QUICK_WRITERS = ("Python 9 (tarfile)", "stored blocks", "gzip -6", "bgzip")


def measure(writer: Writer, tar: Path, clip_mb: float, options: argparse.Namespace) -> Result:
    """Pack, and measure all of one archive."""
    with tempfile.TemporaryDirectory() as made:
        archive = Path(made) / "clips.tar.gz"
        writer.write(tar, archive)
        digests = unpacked_digests(archive, Path(made) / "unpacked")
        return Result(
            clip_mb=clip_mb,
            writer=writer.name,
            archive_bytes=archive.stat().st_size,
            num_members=len(digests),
            passed=measure_passes(archive, digests, rounds=options.rounds),
            entered=measure_entries(archive, digests, num_entries=options.entries, num_cuts=options.cuts),
        )


def main() -> None:
    """Make the archives, measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clip-mb", type=float, nargs="+", default=[0.2, 1.5, 12])
    parser.add_argument("--total-mb", type=float, default=60)
    parser.add_argument("--entries", type=int, default=40, help="places to enter an archive at")
    parser.add_argument("--cuts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4, help="passes of which the fastest counts")
    parser.add_argument("--folder", type=Path, help="pack these files instead of made clips")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--page", type=Path, help="write the tables between the marks of this page")
    options = parser.parse_args()
    if options.quick:
        options.clip_mb, options.total_mb, options.entries, options.rounds = [0.1], 1.5, 5, 1
    writers, missing = find_writers()
    if options.quick:
        writers = [writer for writer in writers if writer.name in QUICK_WRITERS]
    results = []
    for clip_mb in options.clip_mb:
        with tempfile.TemporaryDirectory() as made:
            folder, tar = options.folder or Path(made) / "clips", Path(made) / "clips.tar"
            if options.folder is None:
                make_clips(folder, round(clip_mb * 1e6), round(options.total_mb * 1e6))
            pack(folder, tar)
            for writer in writers:
                results.append(measure(writer, tar, clip_mb, options))
                print(f"{clip_mb:g} MB, {writer.name}: done", file=sys.stderr)
    markdown = as_markdown(results, missing)
    print(markdown)
    if options.json is not None:
        options.json.write_text(as_json(results, writers, missing), "utf-8")
    if options.page is not None:
        put_into(options.page, markdown)


if __name__ == "__main__":
    main()
