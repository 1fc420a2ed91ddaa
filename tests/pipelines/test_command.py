"""The command line: help and refusals are immediate, mistakes are one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.main import COMMANDS, main

HEAVY = ("torch", "ray", "mlflow", "deepspeed", "transformers", "pyarrow", "numpy", "PIL")


def pairmill(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.main", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=120)


def loaded_by(*words: str) -> set[str]:
    code = (
        "import sys; from pipelines.main import main\n"
        f"try: main({list(words)!r})\nexcept SystemExit: pass\n"
        f"print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    return set(done.stderr.split("LOADED")[-1].split())


@pytest.mark.parametrize("words", [(), *((command,) for command in COMMANDS)])
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    # The metrics that `score` offers are modules of array operations.
    assert loaded_by(*words, "--help") <= ({"numpy"} if words == ("score",) else set())


def test_the_list_of_commands_loads_the_module_of_none() -> None:
    code = (
        "import sys; from pipelines.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*[m for m in sys.modules if m.startswith(('pipelines.commands', 'stages', 'pydantic', 'hydra'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_declares_its_arguments(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main([command, "--help"])
    assert exit_code.value.code == 0
    assert ("KEY=VALUE" in capsys.readouterr().out) == (command not in ("score", "convert"))


@pytest.mark.parametrize("words", [["status", "--bar"], ["score", "vqa", "--annotations=a", "--results=b", "model=x"]])
def test_an_unknown_argument_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main(words)
    assert exit_code.value.code == 2
    assert f"unrecognized arguments: {words[-1]}" in capsys.readouterr().err


def test_status_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("status", f"workspace={tmp_path}") == set()


def test_a_refused_training_run_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("run", "pretrain", "model=blip2_xl", f"workspace={tmp_path}") == set()


def test_status_of_an_empty_workspace_is_all_missing(tmp_path: Path) -> None:
    done = pairmill("status", "--json", f"workspace={tmp_path / 'w'}")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["standing"] for row in rows} == {"missing"}
    assert {"world", "ingest", "download", "signals", "select", "shard", "tokenizer", "tokens"} <= {
        row["stage"] for row in rows
    }
    assert not (tmp_path / "w").exists()


def test_an_xl_model_is_refused_here_before_any_data_is_touched(tmp_path: Path) -> None:
    done = pairmill("run", "pretrain", "model=blip2_xl", f"workspace={tmp_path / 'w'}")
    assert done.returncode == 2
    assert "35.3B parameters" in done.stderr
    assert "GPU" in done.stderr
    assert "CLUSTER=" in done.stderr
    assert not (tmp_path / "w").exists()


def test_a_mistake_is_one_line_without_a_traceback(tmp_path: Path) -> None:
    done = pairmill("run", "all", "train.lr=-1", f"workspace={tmp_path}")
    assert done.returncode == 2
    assert done.stderr == "pairmill: train.lr=-1: input should be greater than 0\n"


def test_an_unknown_stage_lists_stages_and_groups(tmp_path: Path) -> None:
    done = pairmill("run", "trian", f"workspace={tmp_path}")
    assert done.returncode == 2
    assert "run trian: no such stage or group; choose one of data, all, world, ingest" in done.stderr


@pytest.mark.parametrize(("model", "total"), [("blip2_xl", 35e9), ("florence2_xl", 12e9)])
def test_show_counts_parameters(model: str, total: float) -> None:
    done = pairmill("show", "--json", f"model={model}")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["parameters"]["total"] == pytest.approx(total, rel=0.03)
    assert sum(shown["parameters"]["parts"].values()) == shown["parameters"]["total"]


def test_flags_may_stand_between_overrides(tmp_path: Path) -> None:
    done = pairmill("status", f"workspace={tmp_path}", "--json", "model=florence2_tiny")
    assert done.returncode == 0, done.stderr
    assert any(row["node"] == "pretrain[florence2_tiny]" for row in json.loads(done.stdout))


def test_the_35b_recipe_asks_for_the_weights_of_its_frozen_parts_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "pretrain", "model=blip2_xl", "cluster=a100x128", f"workspace={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "set model.initialise_from.vision to a folder of weights" in line
    assert not list(tmp_path.iterdir())
