"""The process that takes spooled events to MLflow: `python -m pipelines.tracking.deliver HOME FLUSH [INVOCATION]`.

First what dead or cut-off invocations left, oldest first; then the named one, followed to its end. What the user
should know goes to stdout, one line each (the driver shows it); everything else, MLflow's own printing too, to stderr,
a log file.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from pipelines.tracking.backend import Backend, backend
from pipelines.tracking.process import UNDELIVERED
from pipelines.tracking.replay import Replay, Unavailable, open_client
from pipelines.tracking.spool import SpoolReader, delivery, pending, spool_path

log = logging.getLogger(__name__)

#: How often the spool is looked at, and how long to wait before an unreachable store is tried again.
_POLL_SECONDS = 0.1
_RETRY_SECONDS = 15.0

Say = Callable[[str], None]

#: The delivery process of a driver that was killed notices within a poll and needs a moment to finish.
_OTHERS_SECONDS = 60.0


def main(home: Path, flush_seconds: float, invocation: str | None, say: Say) -> int:
    """Deliver, telling `say` what the user should know; returns the process's exit code."""
    store = backend(str(home))
    told = False
    while True:
        try:
            _deliver_once(store, home, flush_seconds, invocation, say)
            return 0
        except Unavailable as error:
            if not told:
                say(f"MLflow at {store.uri} is not available ({error}); this run's events are kept and delivered later")
                told = True
            if not _wait_while_driver_lives(home, invocation):
                return UNDELIVERED


def _deliver_once(store: Backend, home: Path, flush_seconds: float, invocation: str | None, say: Say) -> None:
    client = open_client(store)
    for other in pending(home):
        if other != invocation:
            _follow(Replay(client, store), home, other, flush_seconds, say, wait=False)
    if invocation is not None:
        _follow(Replay(client, store), home, invocation, flush_seconds, say, wait=True)


def _follow(replay: Replay, home: Path, invocation: str, flush_seconds: float, say: Say, wait: bool) -> None:
    """Deliver one invocation from its first event (all of it is safe to repeat) and remove its spool at the end.

    With `wait` until its driver closes it or dies; without, one that is still being written is left alone.
    """
    spool = spool_path(home, invocation)
    if not wait and _alive(spool):
        return
    with delivery(home, invocation, _OTHERS_SECONDS) as ours:
        if not ours:
            return
        reader = SpoolReader(spool)
        try:
            flush_at = 0.0
            while not replay.closed:
                # Asked before reading: whatever a driver wrote before it died is then in the file.
                alive = reader.driver_lives()
                for event in reader.new_events():
                    replay.apply(event)
                if not alive and not replay.closed:
                    replay.abandon()
                elif time.monotonic() >= flush_at:
                    replay.flush()
                    flush_at = time.monotonic() + flush_seconds
                if not replay.closed:
                    time.sleep(_POLL_SECONDS)
        finally:
            reader.close()
            replay.close()
        for line in replay.refused:
            say(line)
        spool.unlink()


def _alive(spool: Path) -> bool:
    try:
        reader = SpoolReader(spool)
    except FileNotFoundError:
        return False
    try:
        return reader.driver_lives()
    finally:
        reader.close()


def _wait_while_driver_lives(home: Path, invocation: str | None) -> bool:
    """Pause before the next attempt; False at once when the driver has closed its spool or died."""
    if invocation is None:
        return False
    spool = spool_path(home, invocation)
    deadline = time.monotonic() + _RETRY_SECONDS
    while time.monotonic() < deadline:
        if not _alive(spool):
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _tell(driver: TextIO, line: str) -> None:
    try:
        print(line, file=driver, flush=True)
    except BrokenPipeError:
        log.warning("nobody left to tell: %s", line)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    tell = functools.partial(_tell, sys.stdout)
    with contextlib.redirect_stdout(sys.stderr):
        code = main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None, tell)
    sys.exit(code)
