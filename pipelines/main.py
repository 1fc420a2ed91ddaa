"""The `pairmill` command: parses the command line and calls the module of `pipelines/commands` that it names."""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

#: Command -> its line of `pairmill --help`. The module of a command declares its arguments and runs it.
COMMANDS = {
    "run": "bring a stage or group, and whatever it needs, up to date",
    "status": "show the state of every stage and the reason for it",
    "show": "print the resolved configuration",
    "plan": "compute the memory, FLOPs, time and energy of a training, and say whether it fits",
    "report": "write the data report, optionally compared with an earlier selection",
    "check-shards": "verify shards, ours or any WebDataset tars, and name every fault exactly",
    "why": "show the provenance of one sample: its row, attempts, signals, verdict, shard and models",
    "forget": "take samples out of every artifact, for good, and name the models that saw them",
    "export": "write a trained model as a folder of its own: weights, tokenizer, preprocessing, model card with scores",
    "score": "score result files in the public formats: captions, VQA, retrieval, referring expressions; no model",
    "convert": "convert a GGUF file into a folder of weights and tokenizer that a model starts from",
    "ui": "open the MLflow UI of the workspace on 127.0.0.1",
}


def parser(command: str | None) -> argparse.ArgumentParser:
    """The command line. Only `command` gets its arguments, so that no other command's module is imported."""
    root = argparse.ArgumentParser(
        prog="pairmill", description="From lists of image-text pairs to an evaluated vision-language model."
    )
    root.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = root.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=text, description=text)
        if name == command:
            _module(name).add_arguments(subparser)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 for a failure, 2 for a mistake of the user, 130 when interrupted."""
    # Imports and the configuration make many small objects that all live on: looking for cycles among them is a fifth
    # of the time that `status` takes. A run that has something to do turns the collector on again.
    gc.disable()
    words = sys.argv[1:] if argv is None else list(argv)
    # Flags in front of the command take no value, so the first word without a dash names the command.
    root = parser(next((word for word in words if not word.startswith("-")), None))
    # argparse stops reading positional words at the first flag; overrides may stand on either side of one.
    arguments, rest = root.parse_known_args(words)
    if rest and not (hasattr(arguments, "overrides") and all(_is_override(word) for word in rest)):
        root.parse_args(words)  # ends with a message that names the word
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    if arguments.version:
        from importlib.metadata import version

        print(f"pairmill {version('pairmill')}")
        return 0
    if arguments.command is None:
        root.print_help()
        return 0
    verbose = getattr(arguments, "verbose", False)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    from pipelines.failures import disk_errors_told, lines_of
    from stages.base.contract import UserError

    try:
        with disk_errors_told():
            return int(_module(arguments.command).main(arguments) or 0)
    except UserError as error:
        print("\n".join(f"pairmill: {line}" for line in lines_of(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pairmill: interrupted; finished work is kept, the same command resumes from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `pairmill status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"pipelines.commands.{command.replace('-', '_')}")


def _is_override(word: str) -> bool:
    return not word.startswith("-") and "=" in word


if __name__ == "__main__":
    sys.exit(main())
