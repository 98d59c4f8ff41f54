"""`reelstream train`: what it prints, and what it says to bad input: one fact, one hint, nothing left lying about."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.run_kit import (
    ACADEMIC,
    HELD_OUT,
    REPO_ID,
    Running,
    digests_of,
    events_of,
    files_below,
    losses_of,
    report_of,
    root_of,
    sample,
    stray_files,
    train,
    weights_of,
    write_config,
)
from reelstream.hubserver import HubProcess
from reelstream.sampledata import SampleOptions, make_sample


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(root_of(sample(tmp_path_factory)), faults=True) as process:
        yield process


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")


@pytest.fixture
def own_root(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds a copy of the sample dataset, to be damaged."""
    shutil.copytree(root_of(sample(tmp_path_factory)), tmp_path / "hub")
    return tmp_path / "hub"


def _refused(capsys: pytest.CaptureFixture[str], config: Path, *words: str) -> str:
    """Run the command, which must fail; return its message."""
    capsys.readouterr()
    assert train(config, *words) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert "Traceback" not in streams.err
    assert streams.err.count("reelstream: ") == 1
    return streams.err[streams.err.index("reelstream: ") :]


def _assert_nothing_left(config: Path) -> None:
    assert [path.name for path in config.parent.iterdir() if path.name != "hub"] == ["config.yaml"]


# ---------------------------------------------------------------------- what it prints


def test_stdout_has_the_summary_and_stderr_plain_lines(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, hub.endpoint, {"evaluation.subset": HELD_OUT})
    assert train(config) == 0
    streams = capsys.readouterr()
    lines = streams.out.splitlines()
    assert re.fullmatch(r"streamed .+ in \d+ requests \(0 retries\); 24 clips decoded, 168 samples delivered", lines[0])
    assert re.fullmatch(r"at most .+ on disk, of 16\.0 MB allowed", lines[1])
    assert lines[2].startswith("waited ")
    assert re.fullmatch(r"loss [\d.]+ at the first step, [\d.]+ at the last", lines[3])
    assert re.fullmatch(
        r"held-out loss [\d.]+ on 20 samples, accuracy [\d.]+ on 16 questions \(chance 0\.25\)", lines[4]
    )
    assert re.match(r"(network|decode|training)-bound: ", lines[5])
    assert lines[6:] == [f"report: {tmp_path / 'run' / 'report.json'}"]
    told = streams.err.splitlines()
    assert told[0].startswith("reading the annotations")
    assert any(re.match(r"epoch 0 \| step 21/21 \| loss ", line) for line in told)
    assert "\x1b" not in streams.err


def test_the_report_has_all_that_was_promised_and_balances(hub: HubProcess, tmp_path: Path) -> None:
    config = write_config(tmp_path, hub.endpoint, {"train.epochs": 2})
    assert train(config, "--quiet") == 0
    report = report_of(config)
    assert report["version"] == 1
    promised = {
        "disk": {"budget_bytes", "high_water_bytes"},
        "network": {"bytes_received", "bytes_needed", "requests", "retries"},
        "samples": {"catalog", "delivered", "repeated", "quarantined", "without_media"},
        "clips": {"decoded", "decoded_again"},
        "time": {"wall_s", "first_batch_s", "stall_s", "floor_s"},
        "loss": {"first", "last"},
    }
    for section, names in promised.items():
        assert names <= report[section].keys()
        assert None not in [report[section][name] for name in names]
    assert report["verdict"] in {"network", "decode", "training"}
    samples = report["samples"]
    assert samples["catalog"] == samples["delivered"] == 2 * 168
    assert samples["balanced"]
    assert samples["imbalances"] == []
    assert [len(digest) for digest in digests_of(config)] == [64, 64]
    assert report["order_digest"] == digests_of(config)[-1] != digests_of(config)[0]
    assert report["time"]["floor_s"] <= report["time"]["wall_s"]
    assert report["time"]["stall_s"] <= report["time"]["wall_s"]
    # Every line is JSON, with its time and its name.
    times = [event["time"] for event in events_of(config)]
    assert times == sorted(times)
    seen = {event["event"] for event in events_of(config)}
    assert {
        "run_started",
        "epoch_started",
        "clip_arrived",
        "step_finished",
        "epoch_booked",
        "run_finished",
    } <= seen


def test_quiet_is_quiet(hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, hub.endpoint, {"train.max_steps": 1})
    assert train(config, "--quiet") == 0
    streams = capsys.readouterr()
    assert streams.err == ""
    assert streams.out.splitlines()[-1].startswith("report: ")


# ---------------------------------------------------------------------- the configuration


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train: {batchsize: 3}", r":4: unknown key 'batchsize' in train; did you mean 'batch_size'\?"),
        ("train: {batch_size: many}", r":4: train.batch_size must be a whole number, not 'many'"),
        ("train: {batch_size: 0}", r":4: train.batch_size must be at least 1, not 0"),
        ("train: {precision: float23}", r":4: .*; did you mean 'float32'\?"),
        ("log_budget: lots", r":4: log_budget: 'lots' is not a size"),
        ("checkpoints: {weights: adapters}", r":1: checkpoints.weights is adapters, but model.lora is not set"),
        ("model: {lora: {targets: everything}}", r":4: model.lora.targets must be 'all-linear' or a list"),
        (f"evaluation: {{subset: {ACADEMIC}}}", r":1: evaluation.subset .* is trained on as well"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_line(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"run_dir: {tmp_path / 'run'}\ndata: {{repo_id: a/b, subsets: [{ACADEMIC}]}}\n\n{line}\n")
    assert re.search(re.escape(str(config)) + message, _refused(capsys, config))
    _assert_nothing_left(config)


def test_a_missing_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{tmp_path / 'none.yaml'}: there is no such file" in _refused(capsys, tmp_path / "none.yaml")


# ---------------------------------------------------------------------- the Hub


@pytest.mark.parametrize(
    ("changes", "fact", "hint"),
    [
        ({"data.repo_id": "sample/none"}, "there is no dataset repository sample/none", "check the name"),
        ({"data.subsets": ["0_30_s_academic_v0_2"]}, "no subset '0_30_s_academic_v0_2'", f"Did you mean {ACADEMIC} "),
        ({"data.revision": "v9"}, "has no revision 'v9'", "see its branches, tags and commits"),
        ({"evaluation.subset": "0_30_s_held_out"}, "no subset '0_30_s_held_out'", f"Did you mean {HELD_OUT} "),
    ],
    ids=["repository", "subset", "revision", "held-out subset"],
)
def test_what_is_not_on_the_hub_is_named_with_the_nearest_that_is(
    *,
    changes: dict[str, Any],
    fact: str,
    hint: str,
    hub: HubProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config(tmp_path, hub.endpoint, changes)
    first, second = _refused(capsys, config).splitlines()
    assert fact in first
    assert second.startswith("  hint: ")
    assert hint in second
    assert not (tmp_path / "run").exists()
    assert stray_files(config) == []


def test_no_network_is_told_apart_from_a_wrong_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    config = write_config(tmp_path, f"http://127.0.0.1:{port}", {"data.give_up_after": 0.5})
    message = _refused(capsys, config)
    assert f"127.0.0.1:{port}" in message
    assert "hint: is there a network?" in message
    _assert_nothing_left(config)


@pytest.mark.parametrize(
    ("status", "headers", "fact", "hint"),
    [
        (403, {"X-Error-Code": "GatedRepo"}, "is gated", "accept its terms"),
        (401, {"X-Error-Code": "GatedRepo"}, "is gated", "accept its terms"),
        (403, {}, "refused", "accept its terms"),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            "does not know the token",
            "hf auth login",
        ),
    ],
    ids=["gated", "gated and signed out", "forbidden", "bad token"],
)
def test_a_refused_access_says_how_to_get_it(
    *,
    status: int,
    headers: dict[str, str],
    fact: str,
    hint: str,
    hub: HubProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config(tmp_path, hub.endpoint)
    hub.set_faults([{"on": "resolve", "kind": "status", "status": status, "headers": headers, "times": 20}])
    try:
        message = _refused(capsys, config)
    finally:
        hub.set_faults([])
    assert fact in message
    assert hint in message
    _assert_nothing_left(config)


def test_a_private_hub_wants_the_right_token(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with HubProcess(root_of(sample(tmp_path_factory)), token="hf_right") as private:
        config = write_config(tmp_path, private.endpoint, {"train.max_steps": 1})
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        message = _refused(capsys, config)
        assert "hint: " in message
        assert "hf_wrong" not in message
        _assert_nothing_left(config)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        assert train(config) == 0
    assert "hf_right" not in (tmp_path / "run" / "events.jsonl").read_text()


# ---------------------------------------------------------------------- the disk


def _named_budget(message: str) -> str:
    match = re.search(r"set disk_budget to (\d+MB)", message)
    assert match, message
    return match.group(1)


def test_a_budget_that_is_too_small_at_the_start_names_one_that_works(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, hub.endpoint, {"train.max_steps": 3, "data.lanes": 4})
    assert "too small for any dataset" in _refused(capsys, config, "data.disk_budget=1MB")
    _assert_nothing_left(config)
    message = _refused(capsys, config, "data.disk_budget=4200kB")
    assert "cannot hold 2 checkpoints" in message
    assert stray_files(config) == []
    assert train(config, f"data.disk_budget={_named_budget(message)}") == 0


def test_a_budget_that_is_too_small_for_a_clip_names_one_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = SampleOptions(
        num_clips=4, seed=1, num_archives=2, num_heldout=0, clip_bytes=400_000, min_duration_s=2, max_duration_s=3
    )
    make_sample(tmp_path / "hub", options)
    with HubProcess(tmp_path / "hub") as own_hub:
        config = write_config(tmp_path, own_hub.endpoint)
        message = _refused(capsys, config, "data.disk_budget=5600kB")
        assert re.search(r"the clip \S+\.mp4 has .+ kB; with 2 lanes .+ works with clips up to .+ kB", message)
        assert stray_files(config) == []
        assert files_below(tmp_path / "run") == ["config.yaml", "events.jsonl", "report.json", "totals.json"]
        # Without a checkpoint the folder needs no --restart. A larger clip that comes later may name a larger one.
        for _ in range(3):
            if train(config, f"data.disk_budget={_named_budget(message)}") == 0:
                return
            message = capsys.readouterr().err
    pytest.fail(message)


@pytest.mark.parametrize("which", ["run_dir", "data.cache_dir"])
def test_a_file_in_the_way_of_a_folder_is_named(
    which: str, hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, hub.endpoint)
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("mine")
    for path in (thesis, thesis / "below"):
        message = _refused(capsys, config, f"{which}={path}")
        assert str(path) in message
        assert "  hint: " in message
        assert files_below(tmp_path) == ["config.yaml", "thesis.txt"]
        assert thesis.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("which", ["run_dir", "data.cache_dir"])
def test_a_folder_that_cannot_be_written_to_is_named(
    which: str, hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, hub.endpoint)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    message = _refused(capsys, config, f"{which}={locked / 'inner'}")
    assert str(locked) in message
    assert list(locked.iterdir()) == []


@contextlib.contextmanager
def _files_up_to(size_bytes: int) -> Iterator[None]:
    """Let the system refuse to make a file larger than this, as it would on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("size_bytes", "message"),
    [
        (40_000, r"/clip-\d+\.part cannot be written: File too large"),
        (150_000, r"the checkpoint of step 5 cannot be written .*"),
    ],
    ids=["clip", "checkpoint"],
)
def test_a_disk_that_refuses_a_file_ends_the_run_and_leaves_its_checkpoint_whole(
    size_bytes: int, message: str, hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, hub.endpoint, {"data.limit": 8, "log_budget": "30kB"})
    assert train(config, "train.max_steps=2") == 0
    weights = weights_of(config)
    with _files_up_to(size_bytes):
        told = _refused(capsys, config, "--resume", "train.max_steps=5")
    assert re.search(message, told)
    assert "  hint: " in told
    assert weights_of(config) == weights
    assert files_below(tmp_path / "run" / "checkpoints")[0].startswith("step-00000002/")
    assert stray_files(config) == []
    assert report_of(config)["samples"]["balanced"]
    assert train(config, "--resume", "train.max_steps=5") == 0
    assert sorted(losses_of(config)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("size", ["300k", "700k", "1200k"])
def test_a_full_disk_ends_the_run_with_a_sentence(
    size: str, hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        config = write_config(tmp_path, hub.endpoint, {"run_dir": str(disk / "run"), "data.cache_dir": str(disk / "c")})
        message = _refused(capsys, config)
        assert "No space left on device" in message
        assert "  hint: " in message
        assert [name for name in files_below(disk) if not re.match(r"c/(catalog|indexes)/|run/", name)] == []
        torn = [name for name in files_below(disk) if ".part" in name or re.search(r"/\.", name)]
        assert torn == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---------------------------------------------------------------------- damaged datasets


def _first_archive(root: Path) -> Path:
    return root / REPO_ID / ACADEMIC / f"{ACADEMIC}_videos_1.tar.gz"


def test_an_archive_that_is_cut_short_ends_the_run_or_is_skipped_in_the_books(
    own_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = _first_archive(own_root)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with HubProcess(own_root) as hub:
        config = write_config(tmp_path, hub.endpoint)
        message = _refused(capsys, config)
        assert archive.name in message
        assert "set on_bad_archive to skip" in message
        assert stray_files(config) == []
        assert train(config, "--restart", "data.on_bad_archive=skip") == 0
    report = report_of(config)
    assert [suspect["path"] for suspect in report["archives"]["suspect"]] == [f"{ACADEMIC}/{archive.name}"]
    samples = report["samples"]
    assert samples["balanced"]
    assert samples["catalog"] == 168
    lost = samples["quarantined"] + samples["without_media"]
    assert 0 < lost == 168 - samples["delivered"]
    assert all("cut short" in clip["reason"] for clip in report["clips"]["quarantined"])
    assert archive.name in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ('{"id": 1}', "array"),
        ("[", ""),
        ("", ""),
        ("not json", ""),
        (
            json.dumps([{"id": "1", "conversations": [], "video": "../../../etc/passwd"}]),
            "../../../etc/passwd",
        ),
        (json.dumps([{"id": "1", "conversations": [], "video": "/etc/passwd"}]), "/etc/passwd"),
    ],
    ids=["object", "cut short", "empty", "no JSON", "video that climbs out", "absolute video"],
)
def test_annotations_that_are_wrong_are_named(
    content: str, fact: str, own_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own_root / REPO_ID / ACADEMIC / f"{ACADEMIC}_cap_processed.json"
    assert path.exists()
    path.write_text(content)
    with HubProcess(own_root) as hub:
        config = write_config(tmp_path, hub.endpoint)
        message = _refused(capsys, config)
    assert path.name in message
    assert fact in message
    assert "  hint: " in message
    _assert_nothing_left(config)


# ---------------------------------------------------------------------- the run folder


def test_a_run_folder_in_use_is_refused_and_a_finished_one_wants_a_decision(
    hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, hub.endpoint, {"train.epochs": 50, "checkpoints.every_steps": 2})
    with Running(config) as running:
        running.wait_for("checkpoint_saved")
        for words in ([], ["--resume"], ["--restart"]):
            assert "another process is training in" in _refused(capsys, config, *words)
        assert running.interrupt().code == 130
    message = _refused(capsys, config)
    assert f"a run is in {tmp_path / 'run'} already" in message
    assert "--resume" in message
    assert "--restart" in message
    assert "contradict each other" in _refused(capsys, config, "--resume", "--restart")
    # Deleting a run deletes what is its own, and nothing else.
    thesis = tmp_path / "run" / "checkpoints" / "thesis.txt"
    thesis.write_text("mine")
    assert train(config, "--restart", "train.max_steps=1") == 0
    assert thesis.read_text() == "mine"
    assert list(losses_of(config)) == [1]


def test_a_resume_without_a_run_is_refused(hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, hub.endpoint)
    message = _refused(capsys, config, "--resume")
    assert f"{tmp_path / 'run'} holds no run that could go on" in message
    assert "without --resume" in message
    _assert_nothing_left(config)


@pytest.mark.parametrize(
    ("word", "fact"),
    [
        ("data.seed=7", "seed"),
        (f"data.subsets=[{ACADEMIC}]", "catalog"),
        ("data.repo_id=sample/another", "sample/another"),
        ("data.limit=3", "limit"),
        ("train.batch_size=4", "train.batch_size = 8, not 4"),
        ("model.family=smolvlm2", "smolvlm"),
    ],
)
def test_a_resume_as_another_run_is_refused_and_leaves_the_run_as_it_was(
    *, word: str, fact: str, finished: Path, hub: HubProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished.parent / "run", tmp_path / "run")
    config = write_config(tmp_path, hub.endpoint)
    before, report = (tmp_path / "run" / "config.yaml").read_text(), report_of(config)
    message = _refused(capsys, config, "--resume", word)
    assert fact in message
    assert "  hint: " in message
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    assert weights_of(config) == weights_of(finished)
    assert report_of(config)["samples"] == report["samples"]
    assert stray_files(config) == []


@pytest.fixture(scope="module")
def finished(hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the configuration of a run of two steps."""
    config = write_config(tmp_path_factory.mktemp("finished"), hub.endpoint)
    assert train(config, "train.max_steps=2") == 0
    return config
