from __future__ import annotations

from reelstream.train.remote.rhythm import Rhythm


def test_nothing_is_due_before_the_first_save() -> None:
    assert Rhythm().wait_s(0.0) is None
    assert Rhythm().up_to_date


def test_a_save_is_due_at_once_and_not_again() -> None:
    rhythm = Rhythm().saved(5)
    assert rhythm.wait_s(7.0) == 0
    assert rhythm.begun(7.0).succeeded(5).wait_s(8.0) is None


def test_pushes_keep_their_distance() -> None:
    rhythm = Rhythm(every_s=1800.0).saved(5).begun(100.0).succeeded(5).saved(10)
    assert rhythm.wait_s(400.0) == 1500.0
    assert rhythm.wait_s(1900.0) == 0


def test_only_each_nth_checkpoint_is_due_but_the_last_one_goes_anyway() -> None:
    rhythm = Rhythm(every_checkpoints=3).saved(1).saved(2)
    assert rhythm.wait_s(0.0) is None
    assert rhythm.saved(3).wait_s(0.0) == 0
    assert rhythm.hurry(0.0).wait_s(0.0) == 0


def test_a_checkpoint_saved_during_a_push_is_due_after_it() -> None:
    rhythm = Rhythm().saved(1).begun(0.0).saved(2).succeeded(1)
    assert not rhythm.up_to_date
    assert rhythm.wait_s(1.0) == 0


def test_failures_wait_longer_each_time_up_to_ten_minutes() -> None:
    rhythm, waits = Rhythm().saved(1), []
    for _ in range(12):
        rhythm = rhythm.begun(0.0).failed(0.0)
        waits.append(rhythm.wait_s(0.0))
    assert waits[:4] == [5.0, 10.0, 20.0, 40.0]
    assert waits[-1] == 600.0


def test_the_end_of_a_run_does_not_wait_for_a_retry_and_retries_soon() -> None:
    rhythm = Rhythm(every_s=1800.0).saved(1)
    for _ in range(9):
        rhythm = rhythm.begun(0.0).failed(0.0)
    rhythm = rhythm.hurry(50.0)
    assert rhythm.wait_s(50.0) == 0
    assert rhythm.begun(50.0).failed(50.0).wait_s(50.0) == 5.0


def test_a_checkpoint_that_is_there_already_is_not_pushed_again() -> None:
    assert Rhythm(pushed_step=7).saved(7).wait_s(0.0) is None
