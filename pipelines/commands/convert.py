"""`pairmill convert FILE FOLDER`: weights in another format, as a folder that `model.initialise_from` takes."""

from __future__ import annotations

import argparse
import gc
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", metavar="FILE", type=Path, help="a GGUF file of a decoder, or a package that holds one")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write safetensors, config and tokenizer")


def main(arguments: argparse.Namespace) -> int:
    """Convert, and print what to set."""
    gc.enable()
    from models.common.gguf import convert_gguf

    convert_gguf(_in_package(arguments.file), arguments.folder)
    print(f"set model.initialise_from.language={arguments.folder} tokenizer.folder={arguments.folder}")
    return 0


def _in_package(file: Path) -> Path:
    """The one GGUF file of an installed package of that name, or the file itself."""
    from importlib.util import find_spec

    if file.exists() or file.suffix or len(file.parts) != 1:
        return file
    found = find_spec(file.name)
    held = sorted(Path(found.origin).parent.glob("*.gguf")) if found is not None and found.origin else []
    return held[0] if len(held) == 1 else file
