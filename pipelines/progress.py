"""Progress of running stages: a live display on a terminal, plain lines when piped."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

#: Seconds between plain lines about the same node, and between updates.
PLAIN_EVERY = 15.0
LOOK_EVERY = 0.5


@dataclass
class _Active:
    total: int
    done: int
    scratch: Path
    began: float = field(default_factory=time.monotonic)
    at_start: int = 0
    printed: float = field(default_factory=time.monotonic)


class Progress:
    """Shows each running node: partitions done, rate, time left; for training, the metrics of the last step."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False)
        self._active: dict[str, _Active] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._live: Live | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        if self._live:
            self._live.stop()

    def note(self, text: str) -> None:
        """Print one line, live or piped."""
        self._console.print(text, markup=False, soft_wrap=True)

    def started(self, node: str, total: int, done: int, scratch: str) -> None:
        """A node starts, `done` of its `total` partitions being committed by an earlier run."""
        with self._lock:
            self._active[node] = _Active(total, done, Path(scratch), at_start=done)
        if done:
            self.note(f"{node}: resuming, {done} of {total} partitions are done")
        elif not self._live:
            self.note(f"{node}: started, {total} partition{'s' if total != 1 else ''}")

    def advanced(self, node: str) -> None:
        """One more partition is committed."""
        with self._lock:
            self._active[node].done += 1

    def finished(self, node: str, seconds: float, counts: Mapping[str, int]) -> None:
        """A node's artifact exists."""
        with self._lock:
            self._active.pop(node, None)
        shown = ", ".join(f"{name} {n:,}" for name, n in list(counts.items())[:5] if "." not in name)
        self.note(f"{node}: done in {seconds:.1f} s{'; ' + shown if shown else ''}")

    def failed(self, node: str) -> None:
        """A node failed and will not be finished in this run."""
        with self._lock:
            self._active.pop(node, None)
        self.note(f"{node}: failed")

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            if self._live:
                self._live.update(self._table())
                continue
            now = time.monotonic()
            with self._lock:
                due = [(node, state) for node, state in self._active.items() if now - state.printed > PLAIN_EVERY]
                for _, state in due:
                    state.printed = now
            for node, state in due:
                self.note(
                    f"{node}: {describe(state.done, state.total, state.at_start, now - state.began, state.scratch)}"
                )

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        now = time.monotonic()
        with self._lock:
            for node, state in self._active.items():
                table.add_row(
                    f"[bold]{node.replace('[', chr(92) + '[')}[/]",
                    describe(state.done, state.total, state.at_start, now - state.began, state.scratch),
                )
        return table


def describe(done: int, total: int, at_start: int, seconds: float, scratch: Path) -> str:
    """One line on a running node: the last step of its metrics file if it has one, else its partitions."""
    step = last_step(scratch)
    if step is not None:
        return step
    if done == total and total > 0:
        return f"all {total} partitions done, finishing, {clock(seconds)} so far"
    text = f"{done} of {total} partitions"
    fresh = done - at_start
    if fresh and seconds > 0:
        rate = fresh / seconds
        text += f", {rate:.1f}/s" if rate >= 1 else f", {1 / rate:.1f} s each"
        text += f", {clock((total - done) / rate)} left"
    else:
        text += f", {clock(seconds)} so far"
    return text


def last_step(scratch: Path) -> str | None:
    """The last step in `metrics.jsonl` as text, with the time left if the number of steps is known; None if empty."""
    lines = _tail(scratch / "metrics.jsonl")
    if not lines:
        return None
    newest = lines[-1]
    metrics = newest["metrics"]
    text = f"step {newest['step']}"
    total = newest.get("total")
    if total:
        text += f" of {total}"
    if "loss" in metrics:
        text += f", loss {metrics['loss']:.3f}"
    if "samples_per_s" in metrics:
        text += f", {metrics['samples_per_s']:,.0f} samples/s"
    if total and len(lines) > 1 and newest["step"] > lines[0]["step"] and newest["time"] > lines[0]["time"]:
        pace = (newest["time"] - lines[0]["time"]) / (newest["step"] - lines[0]["step"])
        text += f", {clock((total - newest['step']) * pace)} left"
    return text


def _tail(path: Path, most: int = 16_384) -> list[dict[str, Any]]:
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            size = file.tell()
            file.seek(max(0, size - most))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    lines = text.split("\n")[1 if size > most else 0 : -1]  # the first or last line may be incomplete
    return [json.loads(line) for line in lines if line]


def clock(seconds: float) -> str:
    """Seconds as m:ss, or as h:mm:ss from one hour."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
