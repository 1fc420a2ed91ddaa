"""What training leaves on disk while it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.base.contract import UserError
from stages.train.job import check_vocabulary
from stages.train.trainer.checkpoint import (
    Progress,
    discard_torn_snapshot,
    finished_phases,
    newest_on_disk,
    phase_folder,
    read_progress,
    write_progress,
)
from stages.train.trainer.history import History


def steps(history: History) -> list[int]:
    return [json.loads(line)["step"] for line in history.path.read_text().splitlines()]


def test_truncation_drops_later_steps_and_a_line_cut_short(tmp_path: Path) -> None:
    history = History(str(tmp_path))
    history.truncate(5)
    for step in (2, 4, 6):
        history.log(step, {"loss": 1.0})
    with open(history.path, "a") as file:
        file.write('{"step": 8, "ti')
    history.truncate(4)
    assert steps(history) == [2, 4]


def test_progress_survives_the_disk(tmp_path: Path) -> None:
    progress = Progress(ranks=2, phase=1, step=7, window={"loss": 0.1 + 0.2}, window_steps=3, first_loss=None)
    write_progress(tmp_path, progress)
    assert read_progress(tmp_path) == progress


def test_phases_count_as_finished_only_in_order(tmp_path: Path) -> None:
    for phase in (0, 2):
        phase_folder(tmp_path, phase).mkdir()
        write_progress(phase_folder(tmp_path, phase), Progress(ranks=1))
    assert finished_phases(tmp_path, 3) == 1


def test_a_checkpoint_without_progress_is_not_whole(tmp_path: Path) -> None:
    assert newest_on_disk(tmp_path) is None
    for step in (5, 10, 15):
        (tmp_path / f"step-{step:09d}").mkdir()
    write_progress(tmp_path / "step-000000005", Progress(ranks=1))
    write_progress(tmp_path / "step-000000010", Progress(ranks=1))
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


def test_a_tokenizer_larger_than_the_model_is_refused_with_both_keys() -> None:
    check_vocabulary(100, 100)
    check_vocabulary(128, 100)
    with pytest.raises(UserError, match=r"tokenizer.vocabulary=101 .* model.vocabulary=100"):
        check_vocabulary(100, 101)
