"""The history: means over the steps between two lines, each step once."""

from __future__ import annotations

import json
from pathlib import Path

from stages.train.trainer.metrics import History


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
