"""`reelstream find REPO PATTERN`: says which archive holds a clip, from what is known; no archive is read."""

from __future__ import annotations

import argparse
import shlex

from reelstream.cli.dataset_options import add_dataset_arguments, command_words, one_line, opened_dataset, say
from reelstream.indexes.known import NamePattern, known_archives, search
from reelstream.units import count, format_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    add_dataset_arguments(parser)
    parser.add_argument(
        "pattern", metavar="PATTERN", help="a clip's path, the end of one, or a pattern with *, ? and [...] in quotes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print a line a member: archive, member, size in bytes; return 1 where there is none."""
    pattern = NamePattern(arguments.pattern)
    with opened_dataset(arguments) as dataset:
        known = known_archives(dataset.archives, dataset.store, dataset.open_source)
        num_found = 0
        for found in search(known, pattern):
            num_found += 1
            print(f"{one_line(found.archive.path)}\t{one_line(found.name)}\t{found.size_bytes}")
    unknown = [each.archive for each in known if not each.complete]
    if not num_found:
        say(f"reelstream: no member that is known matches {arguments.pattern!r}")
    if unknown:
        size = format_bytes(sum(archive.size_bytes for archive in unknown))
        say(
            f"{count(len(unknown), 'archive')} ({size}) of {len(known):,} "
            f"{'is' if len(unknown) == 1 else 'are'} not known, or not wholly\n"
            f"  hint: learn them with: {shlex.join(command_words('index', arguments))}"
        )
    return 0 if num_found else 1
