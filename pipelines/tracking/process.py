"""The driver's side of delivery: starts the process that takes events to MLflow, and passes on what it has to say."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

from pipelines.tracking.backend import environment, home
from pipelines.tracking.spool import FOLDER, pending

log = logging.getLogger(__name__)

#: Exit code of the delivery process when it has said why events are left.
UNDELIVERED = 3


class Delivery:
    """The process that takes events to MLflow: importing MLflow and opening its store take seconds of pure CPU
    (measured: 1.5 to 3 s, then 1 s, or 2.5 s for a new SQLite store), which a thread would take from the driver."""

    def __init__(self, home: Path, invocation: str | None, flush_seconds: float = 2.0) -> None:
        """Deliver what is pending and then, unless None, follow a running invocation to its end."""
        words = [sys.executable, "-m", "pipelines.tracking.deliver", str(home), str(flush_seconds)]
        env = environment()
        root = str(Path(__file__).resolve().parents[2])
        env["PYTHONPATH"] = f"{root}:{env['PYTHONPATH']}" if env.get("PYTHONPATH") else root
        self._process: subprocess.Popen[str] | None = None
        try:
            (home / FOLDER).mkdir(parents=True, exist_ok=True)
            with open(home / FOLDER / "delivery.log", "a", encoding="utf-8") as noise:
                self._process = subprocess.Popen(
                    words + ([invocation] if invocation else []),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=noise,
                    text=True,
                    env=env,
                    # Ctrl-C reaches the driver alone, which then says how the run ended.
                    start_new_session=True,
                )
        except OSError as error:
            log.warning("MLflow delivery cannot start (events stay spooled in %s): %s", home / FOLDER, error)
            return
        self._reader = threading.Thread(target=self._pass_on, name="mlflow-notices", daemon=True)
        self._reader.start()

    def _pass_on(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            log.warning("%s", line.rstrip())

    def finish(self, seconds: float) -> bool:
        """Wait for the process; end it after that time. Returns whether everything was delivered."""
        if self._process is None:
            return False
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            code = self._process.wait()
        self._reader.join(1.0)
        # What could not be delivered was said by the process itself; a crash was not.
        return code in (0, UNDELIVERED)


def deliver_pending(workspace: str, seconds: float = 120.0) -> bool:
    """Take what earlier invocations left in the spool to MLflow; returns whether nothing is left."""
    folder = home(workspace)
    if not pending(folder):
        return True
    if not Delivery(folder, None).finish(seconds):
        log.warning("MLflow delivery did not end well; see %s", folder / FOLDER / "delivery.log")
    return not pending(folder)
