"""What training leaves on disk while it runs."""

from __future__ import annotations

import json
from pathlib import Path

from stages.train.trainer.checkpoint import (
    TrainState,
    discard_torn_snapshot,
    finished_phases,
    newest_on_disk,
    phase_folder,
    read_state,
    write_state,
)


def test_the_state_survives_the_disk(tmp_path: Path) -> None:
    hooks = {"metrics": {"window": {"loss": 0.1 + 0.2}, "window_steps": 3, "first_loss": None}, "other": {"best": 1}}
    state = TrainState(ranks=2, phase=1, step=7, seconds=0.1 + 0.2, hooks=hooks)
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


def test_the_state_written_before_there_were_hooks_is_read(tmp_path: Path) -> None:
    metrics = {"window": {"loss": 1.25, "tokens": 9.0}, "window_steps": 2, "first_loss": 2.5, "last_loss": 1.5}
    old = {"ranks": 2, "phase": 1, "step": 7, **metrics, "seconds": 3.5}
    (tmp_path / "progress.json").write_text(json.dumps(old))
    assert read_state(tmp_path) == TrainState(ranks=2, phase=1, step=7, seconds=3.5, hooks={"metrics": metrics})


def test_phases_count_as_finished_only_in_order(tmp_path: Path) -> None:
    for phase in (0, 2):
        phase_folder(tmp_path, phase).mkdir()
        write_state(phase_folder(tmp_path, phase), TrainState(ranks=1))
    assert finished_phases(tmp_path, 3) == 1


def test_a_checkpoint_without_a_state_is_not_whole(tmp_path: Path) -> None:
    assert newest_on_disk(tmp_path) is None
    for step in (5, 10, 15):
        (tmp_path / f"step-{step:09d}").mkdir()
    write_state(tmp_path / "step-000000005", TrainState(ranks=1))
    write_state(tmp_path / "step-000000010", TrainState(ranks=1))
    assert newest_on_disk(tmp_path) == tmp_path / "step-000000010"


def test_only_a_torn_snapshot_is_discarded(tmp_path: Path) -> None:
    snapshot = tmp_path / "checkpoint_manager_snapshot.json"
    discard_torn_snapshot(tmp_path)
    snapshot.write_text("{}")
    discard_torn_snapshot(tmp_path)
    assert snapshot.exists()
    snapshot.write_text('{"ray')
    discard_torn_snapshot(tmp_path)
    assert not snapshot.exists()
