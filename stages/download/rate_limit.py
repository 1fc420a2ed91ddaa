"""Hosts that asked for a longer wait than a run can spend: they are not asked again in this run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path

from stages.download.outcome import Failure, Reason


class RateLimits:
    """What hosts asked for by Retry-After. Thread-safe.

    Kept in a folder that the partitions of an artifact share, and that outlives a kill, so that a host's demand also
    holds in other processes and after a restart. Files are named by the digest of a host.
    """

    def __init__(self, folder: Path | None) -> None:
        """`folder` need not exist; without one, the limits are known to this object only."""
        self._folder = folder
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}

    def check(self, host: str) -> None:
        """Raises Failure (`rate_limited`) if the host asked not to be asked yet."""
        with self._lock:
            if host not in self._until:
                self._until[host] = self._recorded(host)
            if self._until[host] > time.time():
                raise Failure(Reason.RATE_LIMITED, host=host)

    def refuse(self, host: str, seconds: float) -> Failure:
        """Do not ask a host for so long; returns the failure of its images."""
        with self._lock:
            self._until[host] = until = time.time() + seconds
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = self._folder / f".{self._name(host)}.{os.getpid()}.{threading.get_ident()}"
            partial.write_text(str(until))
            partial.replace(self._folder / self._name(host))
        return Failure(Reason.RATE_LIMITED, host=host)

    def _recorded(self, host: str) -> float:
        if self._folder is not None:
            with contextlib.suppress(FileNotFoundError):
                return float((self._folder / self._name(host)).read_text())
        return 0.0

    def _name(self, host: str) -> str:
        return hashlib.sha256(host.encode()).hexdigest()[:32]
