"""Peak memory and processor time of a command, driver and Ray's workers apart, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_MB = 1e6
#: What Ray starts for itself, by a part of its command line.
_DAEMONS = ("/raylet/raylet", "gcs_server", "log_monitor", "/dashboard/", "runtime_env/agent", "autoscaler")


@dataclass
class Peaks:
    """Highest figures of all samples, MB (10^6 bytes).

    Proportional set size: pages that several processes map (files, Ray's object store) count for each by its part, so
    that those of a tree add up. `anonymous` leaves out pages of files, which the kernel takes back when it needs
    memory: a table that is memory-mapped costs none of it.
    """

    driver: float = 0.0
    worker: float = 0.0
    """The largest process that is neither driver nor one of Ray's daemons."""
    tree: float = 0.0
    """All processes at one moment without the daemons' own memory, but with Ray's object store."""
    driver_anonymous: float = 0.0
    worker_anonymous: float = 0.0
    store: float = 0.0
    """Of Ray's object store, the part that its daemon maps."""
    daemons: float = 0.0
    """Ray's daemons without the object store."""
    processes: int = 0
    """Most workers at a time."""


@dataclass
class Run:
    """One command."""

    seconds: float
    cpu_seconds: float
    """Of driver and workers, as last sampled: what a busy machine does not stretch."""
    code: int
    peaks: Peaks


@dataclass
class _Sampler:
    root: int
    interval: float
    peaks: Peaks = field(default_factory=Peaks)
    cpu: dict[int, float] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.ended.is_set():
            began = time.perf_counter()
            self._sample()
            # Reading takes long where much is mapped; it must not become the load that is measured.
            self.ended.wait(max(self.interval, 4 * (time.perf_counter() - began)))

    def _sample(self) -> None:
        peaks, tree, daemons, store, processes = self.peaks, 0.0, 0.0, 0.0, 0
        for pid in descendants(self.root):
            memory = _rollup(pid)
            if memory is None:
                continue
            pss, anonymous, shared = memory
            if pid == self.root:
                peaks.driver = max(peaks.driver, pss)
                peaks.driver_anonymous = max(peaks.driver_anonymous, anonymous + shared)
                tree += pss
                self.cpu[pid] = _cpu_seconds(pid) or self.cpu.get(pid, 0.0)
            elif any(part in _command_line(pid) for part in _DAEMONS):
                daemons += pss - shared
                store += shared
            else:
                peaks.worker = max(peaks.worker, pss)
                peaks.worker_anonymous = max(peaks.worker_anonymous, anonymous + shared)
                tree += pss
                processes += 1
                self.cpu[pid] = _cpu_seconds(pid) or self.cpu.get(pid, 0.0)
        peaks.tree = max(peaks.tree, tree + store)
        peaks.store = max(peaks.store, store)
        peaks.daemons = max(peaks.daemons, daemons)
        peaks.processes = max(peaks.processes, processes)


def measured(
    command: Sequence[str], log: Path, folder: Path, environment: Mapping[str, str], interval: float = 0.25
) -> Run:
    """Run a command with its output in `log`, and sample all its processes every `interval` seconds."""
    with open(log, "wb") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=dict(environment))
        sampler = _Sampler(process.pid, interval)
        thread = threading.Thread(target=sampler.run, daemon=True)
        thread.start()
        try:
            code = process.wait()
        finally:
            took = time.perf_counter() - began
            sampler.ended.set()
            thread.join()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return Run(took, sum(sampler.cpu.values()), code, sampler.peaks)


def descendants(root: int) -> list[int]:
    """The process and all that come from it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int(_status(int(name))[1])
                children.setdefault(parent, []).append(int(name))
    found, stack = [], [root]
    while stack:
        pid = stack.pop()
        found.append(pid)
        stack += children.get(pid, [])
    return found


def _status(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` from the third on (man 5 proc), behind the program's name in brackets."""
    return Path("/proc", str(pid), "stat").read_text("utf-8", "replace").rpartition(")")[2].split()


def _cpu_seconds(pid: int) -> float | None:
    try:
        fields = _status(pid)
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _command_line(pid: int) -> str:
    try:
        return Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


def _rollup(pid: int) -> tuple[float, float, float] | None:
    """Proportional set size, of which anonymous and shared memory, MB; None if the process has ended."""
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    sizes = {line.split(":")[0]: float(line.split()[1]) * 1024 / _MB for line in lines}
    if "Pss" not in sizes:
        return None
    return sizes["Pss"], sizes.get("Pss_Anon", 0.0), sizes.get("Pss_Shmem", 0.0)
