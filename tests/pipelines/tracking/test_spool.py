"""The parts of tracking that need no MLflow: params, redaction, the spool, and a metrics file that gets cut."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipelines.tracking.config import TrackingConfig
from pipelines.tracking.metrics_file import LoggedSteps, MetricsTail
from pipelines.tracking.params import entity_key, flatten, is_private, redact
from pipelines.tracking.spool import Spool, delivery_lock, driver_alive, pending, read_events, spool_path
from pipelines.tracking.tracker import Tracker

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def _line(step: int, **metrics: float) -> str:
    return json.dumps({"step": step, "time": 1.5, "metrics": metrics}) + "\n"


def _steps(tail: MetricsTail, logged: LoggedSteps) -> list[int]:
    return [point.step for point in logged.advance(tail.new_points())]


def test_a_nested_config_becomes_dotted_params() -> None:
    config = {"lr": 1e-3, "zero": {"stage": 3, "offload": None}, "names": ["a", "b"], "empty": {}}
    assert flatten(config) == {
        "lr": "0.001",
        "zero.stage": "3",
        "zero.offload": "null",
        "names": '["a", "b"]',
        "empty": "{}",
    }


def test_a_value_longer_than_mlflow_takes_is_carried_on_whole_in_parts() -> None:
    text = "".join(str(i) for i in range(4000))
    flat = flatten({"prompt": text})
    assert list(flat) == ["prompt", "prompt.part2", "prompt.part3"]
    assert "".join(flat.values()) == text
    assert max(map(len, flat.values())) <= 6000


@given(st.dictionaries(st.text(max_size=300), JSON, max_size=4))
def test_every_param_is_one_that_mlflow_takes(config: dict[str, object]) -> None:
    for key, value in flatten(config).items():
        assert 1 <= len(key) <= 250
        assert re.fullmatch(r"[\w\-. :/]+", key)
        assert len(value) <= 6000


def test_names_that_mlflow_would_read_as_paths_are_made_plain() -> None:
    assert entity_key("demo_vqa/accuracy") == "demo_vqa/accuracy"
    assert entity_key("R@1") == "R_1"
    assert entity_key("../up//x/") == "_/up/x"


def test_nothing_of_a_private_source_is_left_but_its_name_kind_and_mark() -> None:
    source = {"kind": "medical", "private": True, "paths": ["/secret"], "name": "ward7", "columns": {"text": "t"}}
    config = {"ingest": {"sources": [source, {"kind": "coco", "private": False, "paths": ["/open"]}]}}
    assert is_private(config)
    assert redact(config) == {
        "ingest": {
            "sources": [
                {"kind": "medical", "private": True, "name": "ward7"},
                {"kind": "coco", "private": False, "paths": ["/open"]},
            ]
        }
    }


def test_a_growing_metrics_file_is_read_once_and_only_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail, logged = MetricsTail(path), LoggedSteps()
    assert _steps(tail, logged) == []
    path.write_text(_line(1, loss=2.0) + _line(2, loss=1.0)[:10])
    assert _steps(tail, logged) == [1]
    path.write_text(_line(1, loss=2.0) + _line(2, loss=1.0) + _line(3, loss=0.5))
    assert _steps(tail, logged) == [2, 3]


def test_steps_repeated_after_a_resume_are_delivered_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail, logged = MetricsTail(path), LoggedSteps()
    path.write_text("".join(_line(i, loss=1.0) for i in range(1, 8)))
    assert _steps(tail, logged) == list(range(1, 8))
    with open(path, "a") as file:  # resumed at step 5, appending
        file.write("".join(_line(i, loss=1.0) for i in range(5, 10)))
    assert _steps(tail, logged) == [8, 9]
    # Resumed at step 5 with the file cut back, and already longer than where it was read to.
    path.write_text("".join(_line(i, loss=1.0) for i in range(1, 30)))
    assert _steps(tail, logged) == list(range(10, 30))


def test_logged_steps_are_counted_for_each_metric(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(_line(1, loss=1.0) + _line(2, loss=1.0, accuracy=0.5))
    new = LoggedSteps({"loss": 2}).advance(MetricsTail(path).new_points())
    assert [(point.key, point.step) for point in new] == [("accuracy", 2)]


def test_a_line_that_a_kill_cut_short_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        _line(1, loss=1.0) + _line(2, loss=1.0)[:14] + _line(3, loss=1.0) + "garbage\n" + _line(4, loss=1.0)
    )
    assert _steps(MetricsTail(path), LoggedSteps()) == [1, 3, 4]


def test_the_last_lines_are_read_even_after_the_scratch_folder_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(_line(1, loss=1.0))
    tail, logged = MetricsTail(path), LoggedSteps()
    assert _steps(tail, logged) == [1]
    with open(path, "a") as file:
        file.write(_line(2, loss=1.0))
    path.unlink()
    assert _steps(tail, logged) == [2]
    tail.close()


def test_a_killed_driver_is_noticed_and_its_events_are_kept(tmp_path: Path) -> None:
    path = spool_path(tmp_path, "a")
    code = (
        "import sys, time; from pathlib import Path; from pipelines.tracking.spool import Spool\n"
        f"spool = Spool(Path({str(path)!r})); spool.append('start', n=1); print('up', flush=True); time.sleep(60)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "up\n"
        assert driver_alive(path)
        driver.kill()
        driver.wait()
        assert not driver_alive(path)
        assert [event["n"] for event in read_events(path)[0]] == [1]
    finally:
        driver.kill()
        driver.wait()


def test_half_an_event_is_not_read(tmp_path: Path) -> None:
    spool = Spool(spool_path(tmp_path, "a"))
    spool.append("start", text="ü")
    with open(spool.path, "a") as file:
        file.write('{"event": "clo')
    events, offset = read_events(spool.path)
    assert [event["text"] for event in events] == ["ü"]
    with open(spool.path, "a") as file:
        file.write('se"}\n')
    assert [event["event"] for event in read_events(spool.path, offset)[0]] == ["close"]
    spool.close()


def test_one_process_at_a_time_delivers_an_invocation(tmp_path: Path) -> None:
    spool = spool_path(tmp_path, "a")
    Spool(spool).close()
    assert pending(tmp_path) == ["a"]
    with delivery_lock(spool, 0) as first, delivery_lock(spool, 0) as second:
        assert (first, second) == (True, False)
        spool.unlink()
    with delivery_lock(spool, 0) as third:
        assert not third
    assert list((tmp_path / "tracking").iterdir()) == []


def test_the_driver_side_never_imports_mlflow() -> None:
    code = "import sys, pipelines.tracking.tracker as t; print(sorted({'mlflow', 'torch', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tracking_that_is_off_leaves_nothing_behind(tmp_path: Path) -> None:
    tracker = Tracker(TrackingConfig(enabled=False), str(tmp_path))
    tracker.start("run", {}, {})
    tracker.node_failed("x", "y")
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_cannot_be_written_does_not_fail_the_run(tmp_path: Path) -> None:
    (tmp_path / "tracking").write_text("a file where the folder should be")
    tracker = Tracker(TrackingConfig(), str(tmp_path))
    tracker.start("run", {}, {})
    tracker.final_scores({"accuracy": 1.0})
    tracker.close()
