"""The README of a sample dataset."""

from __future__ import annotations

from reelstream.sampledata.flaws import FLAW_MEANINGS, Flaw
from reelstream.sampledata.options import SampleOptions
from reelstream.sampledata.plan import HELDOUT_SUBSET
from reelstream.sampledata.record import SampleSummary
from reelstream.units import count, format_bytes

_TEXT = """\
---
license: apache-2.0
task_categories:
- visual-question-answering
- video-text-to-text
language:
- en
tags:
- video
- synthetic
---

# {name}

A synthetic dataset in the layout of LLaVA-Video-178K, made by `reelstream make-sample` (seed {seed}): {clips} with
{rows} in {archives} of {size} together. No footage in it comes from anywhere else.

Each clip shows one or several shapes that cross the frame once. The texts are about {questions}.
The black and white pattern in the upper left corner of each frame is its number, counted from 0 in order of
presentation; `reelstream.sampledata.read_frame_number` reads it.

| subset | clips | captions | open-ended | multiple-choice | {held_by} |
|---|---|---|---|---|---|
{table}

{heldout}\
"""
_FLAWS = """
## Flaws

Planted on purpose, to see that a reader copes with them:

| flaw | clip or member | archive |
|---|---|---|
{table}

{meanings}
"""


def readme_text(options: SampleOptions, summary: SampleSummary) -> str:
    """Return the README, the planted flaws listed in it."""
    held_by = "file" if options.packing == "files" else "archive"
    table = "\n".join(
        f"| `{subset.name}` | {subset.num_clips} | "
        + " | ".join(str(subset.num_rows.get(kind, 0)) for kind in ("cap", "oe", "mc"))
        + f" | {len(subset.archives)} |"
        for subset in summary.subsets
    )
    text = _TEXT.format(
        name=options.repo_id,
        seed=options.seed,
        clips=count(summary.num_clips, "clip"),
        rows=count(summary.num_rows, "row"),
        held_by=f"{held_by}s",
        archives=count(summary.num_archives, held_by),
        size=format_bytes(summary.size_bytes),
        questions="the direction of motion" if options.questions == "motion" else "shape, colour, count and motion",
        table=table,
        heldout=f"The clips of `{HELDOUT_SUBSET}` are meant for scoring, not for training.\n" * bool(options.heldout),
    )
    return text + (_flaws_text(summary.flaws) if summary.flaws else "")


def _flaws_text(flaws: tuple[Flaw, ...]) -> str:
    rows = []
    for flaw in flaws:
        path = f"`{flaw.path}`" if flaw.path else "all members"
        rows.append(f"| {flaw.kind} | {path} | {f'`{flaw.archive}`' if flaw.archive else 'none'} |")
    present = {flaw.kind for flaw in flaws}
    meanings = [f"- *{kind}*: {meaning}" for kind, meaning in FLAW_MEANINGS.items() if kind in present]
    return _FLAWS.format(table="\n".join(rows), meanings="\n".join(meanings))
