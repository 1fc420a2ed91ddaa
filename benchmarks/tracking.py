"""How many logged steps reach MLflow when the server or the driver dies: our spool beside MLflow's async logging.

A driver process logs one metric for `--steps` steps, 20 ms apart, to a real `mlflow server` (SQLite, 127.0.0.1). Each
case kills the server or the driver (SIGKILL) at the part of the run that `CASES` names. At the end the server is up;
`missing` and `repeated` count the steps in its database then, of those that the driver logged.

Ours: `Tracker` and a metrics file; what is left in the spool is delivered once the server is up. Peer:
`MlflowClient.log_batch(..., synchronous=False)` and `set_terminated`, with MLflow's default of 7 HTTP retries unless
`--retries` is given; a resumed driver gets the run id of the killed one. A driver that has not exited five minutes
after its last step is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

os.environ["NO_PROXY"] = "127.0.0.1"

#: Seconds that a driver may take to exit after its last step.
PATIENCE = 300.0

#: Case -> the part of the run at which each thing happens; `server_back` is in seconds after `server_dies`, and a
#: killed driver resumes from the part `resume`, where its last checkpoint was.
CASES: dict[str, dict[str, float]] = {
    "server up": {},
    "server down all the time": {"server_dies": 0.0},
    "server dies": {"server_dies": 0.5},
    "server away for a while": {"server_dies": 0.4, "server_back": 5.0},
    "driver killed": {"driver_dies": 0.5},
    "server dies, driver killed": {"server_dies": 0.3, "driver_dies": 0.7},
    "driver killed, resumed": {"driver_dies": 0.5, "resume": 0.4},
}


class Server:
    """A tracking server that can be killed and started again on the same database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, where it is not up already, and wait for its answer."""
        from pipelines.tracking.config import environment

        if self._process is not None:
            return
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        words += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--workers", "1"]
        words += ["--artifacts-destination", str(self.folder / "files")]
        log = open(self.folder / "server.log", "ab")  # noqa: SIM115 (the server writes on)
        self._process = subprocess.Popen(words, stdout=log, stderr=log, env=environment(), start_new_session=True)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                opener.open(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, all its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None


def ours(workspace: Path, steps: range, last: int) -> None:
    """Driver: the tracker as the runner uses it."""
    from pipelines.store import ArtifactDir
    from pipelines.tracking.config import TrackingConfig
    from pipelines.tracking.tracker import Tracker
    from stages.pretrain.stage import Pretrain

    tracker = Tracker(TrackingConfig(flush_seconds=0.5), str(workspace))
    tracker.start("run pretrain", {}, {})
    folder, metrics = workspace / "artifacts" / "model", workspace / "scratch" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True, exist_ok=True)
    tracker.node_started("pretrain[toy]", Pretrain, folder, {}, {}, metrics)
    for step in steps:
        time.sleep(0.02)
        with open(metrics, "a") as file:
            file.write(json.dumps({"step": step, "time": time.time(), "metrics": {"loss": 1 / step}}) + "\n")
        print(step, flush=True)
    if steps[-1] == last:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(metrics, folder / "history.jsonl")
        manifest = {"stage": "pretrain", "fingerprint": "0" * 64, "counts": {}, "files": [{"name": "history.jsonl"}]}
        tracker.node_finished("pretrain[toy]", ArtifactDir(str(folder)).seal(manifest, {}))
    tracker.close()


def peer(workspace: Path, steps: range, _last: int) -> None:
    """Driver: MLflow's own queue."""
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    known = workspace / "run_id"
    run_id = known.read_text() if known.exists() else client.create_run("0").info.run_id
    known.write_text(run_id)
    for step in steps:
        time.sleep(0.02)
        client.log_batch(run_id, [Metric("loss", 1 / step, time.time_ns() // 10**6, step)], synchronous=False)
        print(step, flush=True)
    client.set_terminated(run_id)


DRIVERS = {"ours": ours, "peer": peer}


def drive(who: str, server: Server, workspace: Path, steps: range, last: int, events: dict[str, float]) -> int:
    """Run one driver process and what happens around it; returns its exit code."""
    words = [sys.executable, __file__, "--driver", who, str(workspace), str(steps[0]), str(steps[-1]), str(last)]
    env = {**os.environ, "MLFLOW_TRACKING_URI": server.uri}
    with open(workspace / "driver.log", "ab") as log:
        driver = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
    assert driver.stdout is not None
    back = threading.Timer(events.get("server_back", 0.0), server.start)
    for line in driver.stdout:
        if not line.strip().isdigit():
            continue
        done = int(line) / last
        if done >= events.get("server_dies", 2.0):
            server.kill()
            if "server_back" in events and not back.is_alive():
                back.start()
            events = {**events, "server_dies": 2.0}
        if done >= events.get("driver_dies", 2.0):
            driver.kill()
            break
        if int(line) == steps[-1]:
            break
    try:
        driver.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        driver.kill()
    if "server_back" in events:
        back.join()
    return driver.wait()


def measure(who: str, case: str, steps: int) -> dict[str, Any]:
    """One case: a new store, the driver (twice if it resumes), and what the store has once the server is up."""
    from mlflow.tracking import MlflowClient

    from pipelines.tracking.deliver import deliver_pending

    events = dict(CASES[case])
    with tempfile.TemporaryDirectory() as folder:
        server, workspace = Server(Path(folder)), Path(folder) / "workspace"
        workspace.mkdir()
        os.environ["MLFLOW_TRACKING_URI"] = server.uri
        try:
            server.start()
            if events.get("server_dies") == 0.0:
                server.kill()
            began = time.monotonic()
            code = drive(who, server, workspace, range(1, steps + 1), steps, events)
            seconds = time.monotonic() - began
            logged = int(steps * events.get("driver_dies", 1.0))
            if "resume" in events:
                time.sleep(3)
                drive(who, server, workspace, range(int(steps * events["resume"]) + 1, steps + 1), steps, {})
                logged = steps
            server.start()
            if who == "ours":
                deliver_pending(str(workspace))
            client = MlflowClient(tracking_uri=server.uri)
            runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
            arrived = Counter(
                metric.step
                for run in runs
                if "loss" in run.data.metrics
                for metric in client.get_metric_history(run.info.run_id, "loss")
            )
        finally:
            server.kill()
    return {
        "missing": len(set(range(1, logged + 1)) - set(arrived)),
        "repeated": sum(count - 1 for count in arrived.values()),
        "logged": logged,
        "driver_seconds": round(seconds, 1),
        "exit": code,
    }


def main() -> None:
    """Every case for both, a table, one JSON object."""
    from common import machine
    from mlflow.version import VERSION

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--retries", help="MLFLOW_HTTP_REQUEST_MAX_RETRIES (unset: MLflow's 7)")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--who", choices=DRIVERS, action="append")
    arguments = parser.parse_args()
    if arguments.retries:
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = arguments.retries
    found: dict[str, Any] = {}
    columns = ("logged", "missing", "repeated", "driver_seconds", "exit")
    print(f"{'case':30}{'':8}" + "".join(f"{column:>16}" for column in columns))
    for case in arguments.case or CASES:
        for who in arguments.who or DRIVERS:
            figures = measure(who, case, arguments.steps)
            found.setdefault(case, {})[who] = figures
            print(f"{case:30}{who:8}" + "".join(f"{figures[column]:>16}" for column in columns), flush=True)
    inputs = {"steps": arguments.steps, "retries": arguments.retries or "default", "mlflow": VERSION}
    print(json.dumps({"name": "tracking", "cases": found, "inputs": inputs, "machine": machine()}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--driver"]:
        name, place, first, end, final = sys.argv[2:]
        DRIVERS[name](Path(place), range(int(first), int(end) + 1), int(final))
    else:
        main()
