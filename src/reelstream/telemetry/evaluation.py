"""What a report says of held-out clips: how many there are, what the model knew of them when, and what leaked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reelstream.telemetry.events import Evaluated
from reelstream.telemetry.totals import Consumed, Spent
from reelstream.units import count

MOST_LEAKS = 100
"""Leaks that the report names; their number is always whole."""


def evaluation_report(consumed: Consumed, spent: Spent) -> dict[str, Any] | None:
    """Return the report's part about evaluations: the latest one's figures, and all of them; None without any."""
    if consumed.held_out is None and not consumed.evaluations:
        return None
    curve = [_figures(evaluated) for _, evaluated in sorted(consumed.evaluations.items())]
    latest = curve[-1] if curve else dict.fromkeys(_figures(_NONE))
    held_out = consumed.held_out
    return {
        **latest,
        "curve": curve,
        "held_out": held_out
        and {
            "clips": held_out.num_clips,
            "samples": held_out.num_samples,
            "evaluated_clips": held_out.num_evaluated_clips,
            "evaluated_samples": held_out.num_evaluated_samples,
        },
        "num_leaks": spent.num_leaks,
        "leaks": [
            {"clip": clip, "held_out": held_out_clip} for clip, held_out_clip in list(spent.leaks.items())[:MOST_LEAKS]
        ],
    }


_NONE = Evaluated(step=0, accuracy=0.0, chance=0.0, num_questions=0)


def _figures(evaluated: Evaluated) -> dict[str, Any]:
    has_questions = evaluated.num_questions > 0
    loss = evaluated.loss
    return {
        "step": evaluated.step,
        # JSON has no NaN; a loss that is none must not make the report unreadable.
        "loss": loss if loss is not None and math.isfinite(loss) else None,
        "num_samples": evaluated.num_samples,
        "accuracy": evaluated.accuracy if has_questions else None,
        "chance": evaluated.chance if has_questions else None,
        "num_questions": evaluated.num_questions,
        "bytes_received": evaluated.received_bytes,
        "wait_s": round(evaluated.wait_s, 3),
    }


def evaluation_sentence(figures: Mapping[str, Any]) -> str | None:
    """Return what an evaluation found, in words; None where it found nothing.

    Args:
        figures: `loss`, `num_samples`, `accuracy`, `chance` and `num_questions`, as in the report.
    """
    parts = []
    if figures["loss"] is not None:
        parts.append(f"held-out loss {figures['loss']:.3f} on {count(figures['num_samples'], 'sample')}")
    if figures["num_questions"]:
        questions = count(figures["num_questions"], "question")
        parts.append(f"accuracy {figures['accuracy']:.2f} on {questions} (chance {figures['chance']:.2f})")
    return ", ".join(parts) or None


def evaluation_note(evaluated: Evaluated) -> str:
    """Return the line that a person reads when held-out samples were scored."""
    return (
        f"{evaluation_sentence(_figures(evaluated)) or 'no held-out sample could be scored'} at step {evaluated.step}"
    )


def evaluation_lines(report: Mapping[str, Any] | None) -> list[str]:
    """Return the lines about held-out clips that end a run.

    Args:
        report: As `evaluation_report` gave it.
    """
    if report is None:
        return []
    lines = []
    if not report["curve"]:
        lines.append("held-out clips were not evaluated")
    elif (sentence := evaluation_sentence(report)) is not None:
        lines.append(sentence)
    if report["num_leaks"]:
        leaks = count(report["num_leaks"], "clip")
        lines.append(f"{leaks} trained on with the very bytes of a held-out one; the report names them")
    return lines
