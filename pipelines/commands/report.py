"""`pairmill report`: the data report of the newest selection, optionally compared with an earlier one."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.commands import add_overrides
from pipelines.compose import load
from pipelines.config import PairmillConfig
from pipelines.dag import build
from pipelines.state import Workspace
from pipelines.store import Store
from stages.base.artifact import Artifact, is_remote
from stages.base.contract import UserError

if TYPE_CHECKING:
    from pipelines.lineage import Lineage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--against", metavar="WHICH", help="`previous`, a fingerprint's first digits, or an artifact's folder"
    )
    parser.add_argument("--out", metavar="FOLDER", help="output folder (default: <workspace>/reports/<fingerprint>)")
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write `report.html`, `report.json`, `data_card.md` (and `compare.json`) and print their folder."""
    config = load(arguments.overrides)
    workspace = Workspace(build(config), Store(config.workspace))
    artifact = _newest(workspace, config)
    folder = _folder(config, artifact, arguments.out)
    page = artifact.path("report.html").read_text("utf-8")
    if arguments.against:
        from pipelines.comparison import with_comparison
        from pipelines.lineage import Lineage

        lineage = Lineage(workspace.store)
        old = _earlier(lineage, artifact, arguments.against)
        private = {name for name, source in config.sources.items() if source.private}
        page, figures = with_comparison(page, old, artifact, lineage, private)
        text = json.dumps({"against": old.fingerprint, **figures}, indent=2, ensure_ascii=False)
        _create(folder)
        (folder / "compare.json").write_text(text + "\n", "utf-8")
    _create(folder)
    (folder / "report.html").write_text(page, "utf-8")
    for name in ("report.json", "data_card.md"):
        if name in artifact.names():
            shutil.copyfile(artifact.path(name), folder / name)
    print(f"report: {folder / 'report.html'}")
    return 0


def _newest(workspace: Workspace, config: PairmillConfig) -> Artifact:
    node = workspace.dag["select"]
    artifact = workspace.artifact(node)
    if artifact is not None:
        return artifact
    latest = workspace.store.latest(node.id)
    newest = (
        workspace.store.artifact_dir(node.stage.name, node.instance, latest["fingerprint"]).artifact()
        if latest
        else None
    )
    if newest is None:
        raise UserError(f"report: nothing is selected in {config.workspace} yet; run `pairmill run select` first")
    print(f"note: the selection of this configuration is not made yet; this is {newest.fingerprint[:12]}, the newest")
    return newest


def _folder(config: PairmillConfig, artifact: Artifact, out: str | None) -> Path:
    if out is not None:
        return Path(out)
    if is_remote(config.workspace):
        raise UserError(f"report: workspace={config.workspace} is an object store; name a folder with --out")
    return Path(config.workspace, "reports", artifact.fingerprint[:12]).absolute()


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be created ({error.strerror}); name another") from None


def _earlier(lineage: Lineage, artifact: Artifact, which: str) -> Artifact:
    from pipelines.lineage import find, started

    others = [a for a in lineage.of_stage("select") if a.fingerprint != artifact.fingerprint]
    if which == "previous":
        ours = started(artifact)
        before = [a for a in others if started(a) <= ours]
        if not before:
            raise UserError("--against previous: this is the first selection of the workspace; there is none before it")
        return max(before, key=lambda a: (started(a), a.fingerprint))
    matches = find(others, which)
    if len(matches) != 1 or not matches[0].names("verdicts*.parquet"):
        known = ", ".join(a.fingerprint[:12] for a in others) or "none"
        many = "several selections begin with these digits" if len(matches) > 1 else "no selection"
        raise UserError(f"--against {which}: {many}; give `previous`, a folder, or the digits of one of: {known}")
    return matches[0]
