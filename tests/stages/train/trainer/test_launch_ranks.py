"""Ranks of tests end together: with the results of all, or with the error of the one that failed first."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.stages.train.trainer.launch_ranks import run_together

WAITING = """
import subprocess, sys, pathlib, os
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
file = pathlib.Path(sys.argv[1], str(os.getpid()))
file.write_text(str(child.pid))
child.wait()
"""
FAILING = """
import pathlib, sys, time
while not any(file.read_text() for file in pathlib.Path(sys.argv[1]).iterdir()):
    time.sleep(0.01)
raise ValueError("weights are not equal")
"""


def run(folder: Path, *codes: str, timeout: float = 60) -> list[str]:
    commands = [[sys.executable, "-S", "-c", code, str(folder)] for code in codes]
    return run_together(commands, [os.environ] * len(codes), timeout)


def assert_all_ended(folder: Path) -> None:
    files = list(folder.iterdir())
    assert files
    for pid in (int(pid) for file in files for pid in (file.name, file.read_text())):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and _runs(pid):
            time.sleep(0.01)
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_all_end_with_the_error_of_the_first_that_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"(?s)rank 1 failed first, with exit code 1.*weights are not equal"):
        run(tmp_path, WAITING, FAILING)
    assert_all_ended(tmp_path)


def test_a_rank_that_hangs_ends_with_the_others_after_the_time_given(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"(?s)not ended after 1 s: ranks \[0\]"):
        run(tmp_path, WAITING, "print('done')", timeout=1)
    assert_all_ended(tmp_path)


def test_a_killed_rank_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exit code -9"):
        run(tmp_path, "import os; os.kill(os.getpid(), 9)")


def test_outputs_come_in_the_order_of_ranks(tmp_path: Path) -> None:
    slow = "import time; time.sleep(0.2); print('first', flush=True)"
    assert run(tmp_path, slow, "print('x' * 200_000)") == ["first\n", "x" * 200_000 + "\n"]
