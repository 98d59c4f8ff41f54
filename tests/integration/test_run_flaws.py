"""What goes wrong in published datasets, on the whole way: told by name and reason, and balanced in the books."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.run_kit import events_of, report_of, root_of, sample_with_flaws, stray_files, train, write_config
from reelstream.hubserver import HubProcess
from reelstream.sampledata import FlawKind


def test_flaws_are_told_by_name_and_all_samples_are_accounted_for(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = sample_with_flaws(tmp_path_factory)
    with HubProcess(root_of(summary)) as hub:
        config = write_config(tmp_path, hub.endpoint, {"data.disk_budget": "8MB"})
        assert train(config) == 0
    flawed = {flaw.kind: f"{flaw.subset}/{flaw.path}" for flaw in summary.flaws}
    rows = _rows_by_clip(summary.folder)
    report = report_of(config)
    quarantined = {each["clip"]: each for each in report["clips"]["quarantined"]}
    # What cannot be decoded, or not to its end; the rest is only unusual, and is used.
    assert set(quarantined) == {flawed[FlawKind.TRUNCATED], flawed[FlawKind.CUT_SHORT]}
    assert all(each["num_samples"] == rows[clip] and each["reason"] for clip, each in quarantined.items())
    samples = report["samples"]
    assert samples["balanced"], samples["imbalances"]
    assert samples["catalog"] == sum(rows[clip] for clip in rows if "heldout" not in clip)
    assert samples["quarantined"] == sum(rows[clip] for clip in quarantined)
    assert samples["without_media"] == rows[flawed[FlawKind.MISSING]]
    assert samples["delivered"] == samples["catalog"] - samples["quarantined"] - samples["without_media"]
    assert samples["left_out"] == {"limit": 0, "tail": 0, "not_seen": 0}
    decoded = {f"{event['subset']}/{event['path']}" for event in events_of(config, "clip_decoded")}
    unusual = {kind: clip for kind, clip in flawed.items() if kind in _UNUSUAL}
    assert decoded >= set(unusual.values())
    # A clip that no row refers to, and a text among the clips.
    assert sum(event["num_unreferenced"] for event in events_of(config, "span_finished")) == 2
    assert flawed[FlawKind.UNREFERENCED] not in decoded
    told = capsys.readouterr()
    assert all(f"quarantined {clip}: " in told.err for clip in quarantined)
    assert "2 clips quarantined; the report names them" in told.out
    assert stray_files(config) == []


_UNUSUAL = {
    FlawKind.TWO_FRAMES,
    FlawKind.NO_EXTENSION,
    FlawKind.LEADING_DOT,
    FlawKind.LEADING_UNDERSCORES,
    FlawKind.DOTS_IN_STEM,
    FlawKind.NON_ASCII,
    FlawKind.LONG_NAME,
}


def _rows_by_clip(repository: Path) -> dict[str, int]:
    """Return how many rows refer to each clip, read from the published files."""
    rows: dict[str, int] = {}
    for path in repository.glob("*/*.json"):
        for row in json.loads(path.read_text()):
            clip = f"{path.parent.name}/{row['video']}"
            rows[clip] = rows.get(clip, 0) + 1
    return rows
