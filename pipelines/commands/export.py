"""`pairmill export OUT`: a trained model as a folder of its own, with a card that has its scores so far."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from stages.train.card import CardScores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("out", metavar="OUT", help="folder to write, which must be empty or not exist")
    parser.add_argument(
        "--task", metavar="NAME", help="the model fine-tuned for this task (default: the pretrained one)"
    )
    parser.add_argument(
        "--format",
        choices=("pairmill", "transformers"),
        default="pairmill",
        help="pairmill: any model, opened with `import models.auto`; transformers: a class of transformers itself, "
        "where there is one of the model's shape",
    )
    parser.add_argument("--copy", action="store_true", help="copy the weights even where a hard link would do")
    add_overrides(parser)


def main(arguments: argparse.Namespace) -> int:
    """Write the folder and print where it is."""
    config = _config(arguments)
    out = Path(arguments.out)
    _check_out(arguments.out, out)
    workspace = Workspace(build(config), Store(config.workspace))
    artifact = _newest(workspace, config, arguments.task)
    make: Callable[[Path], None]
    if arguments.format == "transformers":
        from models.registry import saved_config
        from models.stock import check_stock_class

        check_stock_class(saved_config(artifact.path("model/config.json").parent))
        make = lambda folder: _write_stock(artifact, workspace.store, folder)  # noqa: E731
    else:
        make = lambda folder: _write(artifact, workspace.store, folder, link=not arguments.copy)  # noqa: E731
    _atomically(out, make)
    print(f"model: {out}")
    return 0


def _config(arguments: argparse.Namespace) -> PairmillConfig:
    if "=" in arguments.out and not os.path.exists(arguments.out) and "/" not in arguments.out.partition("=")[0]:
        raise UserError(f"export {arguments.out}: name the folder to write first, then KEY=VALUE")
    config = load(arguments.overrides)
    if arguments.task and arguments.task not in config.tasks:
        config = load([*arguments.overrides, f"task={arguments.task}"])  # a task of conf/ that is not chosen
    return config


def _check_out(given: str, out: Path) -> None:
    if is_remote(given):
        raise UserError(f"export {given}: write to a local folder, and put it into the object store from there")
    if out.is_symlink() or (out.exists() and not out.is_dir()) or (out.is_dir() and any(out.iterdir())):
        raise UserError(f"export {out}: there is something already; name a folder that is empty or does not exist")


def _newest(workspace: Workspace, config: PairmillConfig, task: str | None) -> Artifact:
    """The newest finished model of the configuration. Raises UserError where there is none."""
    stage, instance = ("finetune", f"{config.model.name}/{task}") if task else ("pretrain", config.model.name)
    node = workspace.dag[f"{stage}[{instance}]"]
    artifact = workspace.artifact(node)
    if artifact is not None:
        return artifact
    latest = workspace.store.latest(node.id)
    newest = workspace.store.artifact_dir(stage, instance, latest["fingerprint"]).artifact() if latest else None
    if newest is None:
        raise UserError(
            f"export: {node.id} is not made in {config.workspace} yet; run `pairmill run {stage}` with the same choices"
        )
    because = workspace.changes(node)
    print(
        f"note: the model of this configuration is not made yet; this is {newest.fingerprint[:12]}, the newest"
        + (f" (changed since: {because})" if because else "")
    )
    return newest


def _atomically(out: Path, make: Callable[[Path], None]) -> None:
    """Make a folder under another name, and give it its own when it is whole."""
    partial = out.with_name(f"{out.name}.part")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            make(partial)
            os.replace(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(
            f"export {out}: cannot be written ({error.strerror or error}); free space or name another folder"
        ) from None


def _write(artifact: Artifact, store: Store, folder: Path, link: bool) -> None:
    from stages.train.model_folder import complete

    for name in artifact.names("model/*"):
        target = folder / name.removeprefix("model/")
        target.parent.mkdir(parents=True, exist_ok=True)
        _place(artifact.path(name), target, link=link and name.endswith(".safetensors"))
    record = artifact.read_json("train.json")
    complete(folder, _tokenizer(artifact), record["preprocessing"], _card(artifact, record, store))


def _write_stock(artifact: Artifact, store: Store, folder: Path) -> None:
    from models.stock import save_stock
    from stages.train.model_folder import complete_stock, image_token_id

    for name in artifact.names("model/*"):
        artifact.path(name)  # one of an object store is fetched
    saved = artifact.path("model/config.json").parent
    tokenizer, record = _tokenizer(artifact), artifact.read_json("train.json")
    image = image_token_id(tokenizer)
    described = save_stock(saved, folder, image)
    card = _card(artifact, record, store, stock=described["architectures"][0])
    complete_stock(folder, tokenizer, record["preprocessing"], card, described["num_query_tokens"])


def _place(source: Path, target: Path, link: bool) -> None:
    """A hard link where that is asked for and possible, else a copy."""
    if link:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)


def _tokenizer(artifact: Artifact) -> Path:
    """The local folder of the tokenizer that the model was trained with."""
    for name in artifact.names("tokenizer/*"):
        artifact.path(name)
    return artifact.path("tokenizer/tokenizer.json").parent


def _card(artifact: Artifact, record: dict[str, Any], store: Store, stock: str = "") -> str:
    from pipelines.lineage import Lineage
    from stages.train.card import card

    lineage = Lineage(store)
    described = artifact.read_json("model/config.json")
    if "data" not in record:  # trained before train.json told what from
        inputs = artifact.manifest.get("inputs", {}).items()
        record = {
            **record,
            "data": [{"stage": role, "fingerprint": mark, "counts": {}} for role, marks in inputs for mark in marks],
        }
    return card(
        record,
        described,
        fingerprint=artifact.fingerprint,
        scored=_scored(lineage, artifact),
        licences=_licences(lineage, artifact),
        stock=stock,
    )


def _scored(lineage: Lineage, model: Artifact) -> list[CardScores]:
    """All finished evaluations of the model, by benchmark."""
    from stages.train.card import CardScores

    found = []
    for artifact in lineage.of_stage("evaluate"):
        if model.fingerprint in artifact.manifest["inputs"].get("model", ()):
            content = artifact.read_json("scores.json")
            figures = {name: value for name, value in content["scores"].items() if isinstance(value, int | float)}
            found.append(
                CardScores(content["benchmark"], content["kind"], figures, content["protocol"], artifact.fingerprint)
            )
    return sorted(found, key=lambda one: (one.benchmark, one.fingerprint))


def _licences(lineage: Lineage, model: Artifact) -> list[dict[str, Any]]:
    """Licences of the pairs that the model was pretrained on, as the selection's report counts them."""
    pretrained = next(iter(lineage.inputs(model, "model")), model) or model
    for shards in lineage.inputs(pretrained, "shards"):
        for verdicts in lineage.inputs(shards, "verdicts") if shards else ():
            if verdicts and "report.json" in verdicts.names():
                rows: list[dict[str, Any]] = verdicts.read_json("report.json").get("licences", [])
                return rows
    return []
