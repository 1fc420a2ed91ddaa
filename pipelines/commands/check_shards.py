"""`pairmill check-shards [FOLDER|URL]`: verify shards, ours or any WebDataset tars, and name every fault."""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands import add_json, add_overrides
from pipelines.compose import load
from pipelines.config import PairmillConfig
from stages.base.artifact import is_remote
from stages.base.contract import UserError

if TYPE_CHECKING:
    from stages.shard.check import ShardCheck
    from stages.shard.reader import ShardReader

#: Shards of fewer bytes in total are checked in this process: starting Ray takes longer.
_LOCAL_BYTES = 200_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "folder", metavar="FOLDER|URL", nargs="?", help="of shards (default: the workspace's current ones)"
    )
    add_json(parser)
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Print one line per fault, then the totals; returns 1 if there is any fault."""
    folder, overrides = _split([*([arguments.folder] if arguments.folder else []), *arguments.overrides])
    config = load(overrides)
    where = folder or _current(config)
    where = where if is_remote(where) else os.path.abspath(where)  # Ray's workers may be elsewhere
    gc.enable()
    from stages.shard.check import check
    from stages.shard.reader import ShardReader

    reader = ShardReader(where)
    with _Progress() as progress:

        def execute(numbers: Sequence[int], by_index: bool) -> Iterator[ShardCheck]:
            progress.total = len(numbers)
            few = len(numbers) == 1 or _bytes(reader) < _LOCAL_BYTES
            for result in (_locally if few else _on_ray)(reader, numbers, by_index, config):
                progress.advance(result)
                yield result

        report = check(reader, execute)
    if arguments.json:
        record = {"where": where, "shards": report.shards, "samples": report.samples, "bytes": report.bytes}
        problems = [problem.to_json() for problem in report.problems]
        if report.system_files:
            record["system_files"] = report.system_files
        print(json.dumps({**record, "problems": problems}, indent=1, ensure_ascii=False))
    else:
        for problem in report.problems:
            print(problem)
        faults = _counted(len(report.problems), "problem") if report.problems else "no damage"
        totals = f"{_counted(report.shards, 'shard')}, {_counted(report.samples, 'sample')}, {report.bytes:,} bytes"
        if report.system_files:
            totals += f" ({_counted(report.system_files, 'file')} of an operating system passed over)"
        print(f"{where}: {totals}: {faults}")
    return 1 if report.problems else 0


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """(folder or URL, overrides) among the words of the command line."""
    folders = [word for word in words if "=" not in word or "://" in word.partition("=")[0] or Path(word).is_dir()]
    if len(folders) > 1:
        raise UserError(f"check-shards {' '.join(folders)}: one folder or URL at a time")
    return folders[0] if folders else None, [word for word in words if word not in folders]


def _current(config: PairmillConfig) -> str:
    """The workspace's shards as configured."""
    from pipelines.dag import build
    from pipelines.state import Workspace
    from pipelines.store import Store

    workspace = Workspace(build(config), Store(config.workspace))
    (node,) = (node for node in workspace.dag.values() if node.stage.name == "shard")
    state = workspace.state(node)
    artifact = workspace.artifact(node)
    if artifact is None:
        because = f" ({state.why})" if state.why else ""
        raise UserError(
            f"check-shards: the shards of {config.workspace} are {state.standing}{because}; run `pairmill run shard`, "
            "or name a folder of shards"
        )
    return artifact.url


def _bytes(reader: ShardReader) -> int:
    """Bytes of all shards; `_LOCAL_BYTES` where counting them takes too long."""
    if reader.indexed:
        return sum(entry.get("bytes", _LOCAL_BYTES) for entry in reader.dataset["shards"])
    if len(reader.shards) > 100:
        return _LOCAL_BYTES
    return sum(reader.files.size(name) for name in reader.shards)


def _locally(
    reader: ShardReader, numbers: Sequence[int], by_index: bool, config: PairmillConfig
) -> Iterator[ShardCheck]:
    from stages.shard.check import check_shard

    for number in numbers:
        yield check_shard(reader, number, by_index)


def _task(reader: ShardReader, number: int, by_index: bool) -> ShardCheck:
    from stages.shard.check import check_shard

    return check_shard(reader, number, by_index)


def _on_ray(
    reader: ShardReader, numbers: Sequence[int], by_index: bool, config: PairmillConfig
) -> Iterator[ShardCheck]:
    """A Ray task per shard, twice as many in flight as CPUs. A task whose worker dies is a fault of its shard."""
    from pipelines import ray_session

    cluster = config.cluster
    ray_session.start(cluster.cpus or os.cpu_count() or 1, cluster.address)
    import ray
    from ray.exceptions import RayError, RayTaskError

    from stages.shard.check import ShardCheck as Result
    from stages.shard.tarcheck import ShardFault

    remote = ray.remote(_task).options(num_cpus=1, max_retries=1, name="pairmill:check-shards")
    window = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(numbers)
    running: dict[Any, int] = {}
    while True:
        while len(running) < window and (number := next(waiting, None)) is not None:
            running[remote.remote(reader, number, by_index)] = number
        if not running:
            return
        done, _ = ray.wait(list(running), num_returns=1)
        number = running.pop(done[0])
        try:
            yield ray.get(done[0])
        except RayTaskError as error:  # an error of the code or the user, not of the shard
            raise error.cause if isinstance(error.cause, UserError) else error from None
        except RayError as error:
            what = f"checking it killed its worker ({type(error).__name__})"
            problem = ShardFault(reader.shards[number], what, "free memory, or look at this shard alone")
            yield Result(number, problems=[problem])


class _Progress:
    """A progress bar on standard error, if that is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("shards")
        self._problems = 0
        self.total = 0

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, result: ShardCheck) -> None:
        """Count one more checked shard and its problems."""
        self._problems += len(result.problems)
        words = f"shards, {self._problems} problems" if self._problems else "shards"
        self._bar.update(self._task, total=self.total, advance=1, description=words)
