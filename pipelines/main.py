"""The `pairmill` command: reads the command line and hands over to one module of `pipelines/commands`."""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from pipelines.commands.score.arguments import add_arguments as add_score_arguments

OVERRIDES = "Hydra overrides of conf/config.yaml, e.g. model=florence2_tiny train.lr=1e-3 source=coco,cc12m"

COMMANDS = {
    "run": "bring a stage or group, and whatever it needs, up to date",
    "status": "say where every stage stands and why",
    "show": "print the resolved configuration",
    "report": "write the data report, if wished against an earlier selection",
    "check-shards": "verify shards, ours or anyone's WebDataset tars, and name every fault exactly",
    "why": "tell one sample's whole history: its row, attempt, signals, verdict, shard and models",
    "forget": "take samples out of every artifact, for good, and name the models that saw them",
    "score": "score result files in the public formats: captions, VQA, retrieval, referring expressions; no model",
    "ui": "open the MLflow UI of the workspace on 127.0.0.1",
}


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="pairmill", description="From lists of image-text pairs to an evaluated vision-language model."
    )
    root.add_argument("--version", action="store_true", help="print the version and exit")
    commands = root.add_subparsers(dest="command", metavar="COMMAND")
    made = {name: commands.add_parser(name, help=text, description=text) for name, text in COMMANDS.items()}
    made["run"].add_argument(
        "target",
        metavar="STAGE|GROUP",
        help="world, ingest, download, signals, index, select, shard, tokenizer, tokens, pretrain, finetune, evaluate; "
        "data (up to tokens) or all; or one node as `status` names it",
    )
    made["run"].add_argument("-v", "--verbose", action="store_true", help="also show what workers log")
    made["run"].add_argument(
        "--retry-failed",
        action="store_true",
        help="try again what the download failed to get for reasons that may pass",
    )
    made["report"].add_argument(
        "--against", metavar="WHICH", help="`previous`, a fingerprint's first digits, or an artifact's folder"
    )
    made["report"].add_argument("--out", metavar="FOLDER", help="where to (default: <workspace>/reports/<fingerprint>)")
    made["check-shards"].add_argument(
        "folder", metavar="FOLDER|URL", nargs="?", help="of shards (default: the workspace's current ones)"
    )
    made["check-shards"].add_argument("--json", action="store_true", help="machine-readable")
    made["why"].add_argument("sample", metavar="UID|URL", help="uid of a pair or of an image, or a listed URL")
    made["why"].add_argument("--json", action="store_true", help="machine-readable")
    made["forget"].add_argument(
        "list", metavar="LIST", help="a file, one uid, URL, sha256 or domain a line (- for standard input)"
    )
    made["forget"].add_argument("--dry-run", action="store_true", help="only say what would go")
    made["status"].add_argument("--json", action="store_true", help="machine-readable")
    made["show"].add_argument("--json", action="store_true", help="JSON, with the model's parameter counts")
    made["ui"].add_argument("--port", type=int, default=5000, help="first port to try (default: 5000)")
    add_score_arguments(made["score"])
    for command in (command for name, command in made.items() if name != "score"):
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for a failure, 2 for a mistake of the user, 130 when interrupted."""
    # argparse stops taking positional words at the first flag; overrides may stand on either side of one.
    arguments, rest = parser().parse_known_args(argv)
    if any(word.startswith("-") or "=" not in word for word in rest) or (rest and arguments.command == "score"):
        parser().parse_args(argv)
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    if arguments.version:
        from importlib.metadata import version

        print(f"pairmill {version('pairmill')}")
        return 0
    if arguments.command is None:
        parser().print_help()
        return 0
    verbose = getattr(arguments, "verbose", False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    # Reading the configuration makes many small objects that all live on: looking for cycles among them is a fifth of
    # the time that `status` takes. A run that has something to do turns the collector on again.
    gc.disable()
    command = importlib.import_module(f"pipelines.commands.{arguments.command.replace('-', '_')}")
    from stages.base.contract import UserError

    try:
        return int(command.main(arguments) or 0)
    except UserError as error:
        print(f"pairmill: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pairmill: interrupted; nothing done is lost, the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `pairmill status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
