"""`reelstream train CONFIG [key=value …]`: train a model on a streamed dataset."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from reelstream.config import dump, load
from reelstream.interrupt import exit_code_of
from reelstream.telemetry.report import summary_lines
from reelstream.train.run import RunResult, run_training
from reelstream.train.run_options import RunOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's own arguments."""
    parser.add_argument("config", type=Path, help="YAML file; configs/streaming.yaml is one with a comment each")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="replaces a value of the file, such as data.disk_budget=8GB",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest good checkpoint of the run")
    parser.add_argument(
        "--resume-or-start",
        action="store_true",
        help="go on where there is a checkpoint, here or at remote.push, and start where there is none",
    )
    parser.add_argument("--restart", action="store_true", help="delete the run that is in the run folder, and start")
    parser.add_argument("--quiet", action="store_true", help="show nothing while it runs")
    parser.add_argument(
        "--trust-imports", action="store_true", help="run the code that train.step names; look at it before"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train; print what was streamed, the most that was on disk, the stall and the verdict."""
    options = load(arguments.config, arguments.overrides, RunOptions)
    result = run_training(
        options,
        resolved=dump(options),
        resume=arguments.resume,
        restart=arguments.restart,
        resume_or_start=arguments.resume_or_start,
        quiet=arguments.quiet,
        trust_imports=arguments.trust_imports,
    )
    if result.report is not None:
        for line in summary_lines(result.report):
            print(line)
        print(f"report: {options.run_dir / 'report.json'}")
    if result.interrupted_by is None:
        return 0
    if result.rank == 0:
        print(_farewell(arguments, result), file=sys.stderr)
    return exit_code_of(result.interrupted_by)


def _farewell(arguments: argparse.Namespace, result: RunResult) -> str:
    trusted = ["--trust-imports"] * arguments.trust_imports
    words = ["reelstream", "train", str(arguments.config), *arguments.overrides, *trusted]
    launched = "" if result.world_size == 1 else "with the launcher, and as many processes as divide the lanes, "
    if result.checkpoint_step is None:
        return (
            f"reelstream: stopped by {result.interrupted_by} before the first step; no checkpoint is saved\n"
            f"  hint: start again {launched}with: {shlex.join(words)}"
        )
    return (
        f"reelstream: stopped by {result.interrupted_by}; the checkpoint of step {result.checkpoint_step} is saved\n"
        f"  hint: go on {launched}with: {shlex.join([*words, '--resume'])}"
    )
