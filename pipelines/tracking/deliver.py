"""Delivery: a process of its own takes spooled events to MLflow.

It is `python -m pipelines.tracking.deliver HOME FLUSH_SECONDS [INVOCATION]`: first it delivers what earlier
invocations left, oldest first, then it follows the named one to its end. Importing MLflow and opening its store take
seconds of CPU (measured: 1.5 to 3 s, then 1 s, or 2.5 s for a new SQLite store), which a thread would take from the
driver. Its stdout carries one line for each thing that the user should know, which the driver logs as a warning;
everything else, MLflow's own prints included, goes to `<home>/tracking/delivery.log`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from pipelines.tracking.client import StoreUnavailable, TrackingClient
from pipelines.tracking.config import backend, environment, home
from pipelines.tracking.replay import Replay
from pipelines.tracking.spool import FOLDER, delivery_lock, driver_alive, pending, read_events, spool_path

log = logging.getLogger(__name__)

#: Exit code of the process if events are left and it has reported why.
UNDELIVERED = 3

#: How often a spool is read, and how long to wait before an unreachable store is tried again.
_POLL_SECONDS = 0.1
_RETRY_SECONDS = 15.0

#: How long another process may go on with a spool whose driver was killed: it notices within a poll, then finishes.
_LOCK_SECONDS = 60.0

Notify = Callable[[str], None]


# -- in the driver -----------------------------------------------------------------------------------------------
class Delivery:
    """The driver's handle on the process."""

    def __init__(self, home: Path, invocation: str | None, flush_seconds: float = 2.0) -> None:
        """Start it: to deliver what is pending and then, unless None, to follow a running invocation to its end."""
        words = [sys.executable, "-m", "pipelines.tracking.deliver", str(home), str(flush_seconds)]
        env = environment()
        root = str(Path(__file__).resolve().parents[2])
        env["PYTHONPATH"] = f"{root}:{env['PYTHONPATH']}" if env.get("PYTHONPATH") else root
        self._process: subprocess.Popen[str] | None = None
        try:
            (home / FOLDER).mkdir(parents=True, exist_ok=True)
            with open(home / FOLDER / "delivery.log", "a", encoding="utf-8") as errors:
                self._process = subprocess.Popen(
                    words + ([invocation] if invocation else []),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=env,
                    # Ctrl-C reaches the driver only, which then records how the run ended.
                    start_new_session=True,
                )
        except OSError as error:
            log.warning("MLflow delivery cannot start (events stay spooled in %s): %s", home / FOLDER, error)
            return
        self._notices = threading.Thread(target=self._log_notices, name="mlflow-notices", daemon=True)
        self._notices.start()

    def _log_notices(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            log.warning("%s", line.rstrip())

    def finish(self, seconds: float) -> bool:
        """Wait for the process, and terminate it after that time.

        Returns False where it ended early or crashed; if events are left and it has reported why, that is True.
        """
        if self._process is None:
            return False
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            code = self._process.wait()
        self._notices.join(1.0)
        return code in (0, UNDELIVERED)


def deliver_pending(workspace: str, seconds: float = 120.0) -> bool:
    """Deliver what earlier invocations left in the spool; returns whether nothing is left."""
    folder = home(workspace)
    if not pending(folder):
        return True
    if not Delivery(folder, None).finish(seconds):
        log.warning("MLflow delivery did not finish; see %s", folder / FOLDER / "delivery.log")
    return not pending(folder)


# -- in the process ----------------------------------------------------------------------------------------------
def main(home: Path, flush_seconds: float, invocation: str | None, notify: Notify) -> int:
    """Deliver, passing `notify` what the user should know; returns the exit code of the process."""
    store = backend(str(home))
    notified = False
    while True:
        try:
            client = TrackingClient(store)
            for other in pending(home):
                if other != invocation and not driver_alive(spool_path(home, other)):
                    _deliver(Replay(client), spool_path(home, other), flush_seconds, notify)
            if invocation is not None:
                _deliver(Replay(client), spool_path(home, invocation), flush_seconds, notify)
            return 0
        except StoreUnavailable as error:
            if not notified:
                notify(f"MLflow at {store.uri} is not available ({error}); events are kept and delivered later")
                notified = True
            if invocation is None or not _pause(spool_path(home, invocation)):
                return UNDELIVERED


def _deliver(replay: Replay, spool: Path, flush_seconds: float, notify: Notify) -> None:
    """Replay a spool from its first event until its driver closes it or dies, then remove it. Raises Unavailable."""
    with delivery_lock(spool, _LOCK_SECONDS) as locked:
        if not locked:
            return
        with contextlib.closing(replay):
            offset, flush_at = 0, 0.0
            while not replay.ended:
                # Checked before reading: whatever a driver wrote before it died is then in the file.
                alive = driver_alive(spool)
                events, offset = read_events(spool, offset)
                for event in events:
                    replay.apply(event)
                if not alive and not replay.ended:
                    replay.abandon()
                elif time.monotonic() >= flush_at:
                    replay.flush()
                    flush_at = time.monotonic() + flush_seconds
                if not replay.ended:
                    time.sleep(_POLL_SECONDS)
        for line in replay.refused:
            notify(line)
        spool.unlink()


def _pause(spool: Path) -> bool:
    """Wait before the next attempt; returns False as soon as the driver has closed the spool or died."""
    deadline = time.monotonic() + _RETRY_SECONDS
    while driver_alive(spool):
        if time.monotonic() >= deadline:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _print(driver: TextIO, line: str) -> None:
    try:
        print(line, file=driver, flush=True)
    except BrokenPipeError:
        log.warning("the driver has ended and does not see: %s", line)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    notices = functools.partial(_print, sys.stdout)
    with contextlib.redirect_stdout(sys.stderr):
        code = main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None, notices)
    sys.exit(code)
