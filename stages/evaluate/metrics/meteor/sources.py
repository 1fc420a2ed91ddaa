"""METEOR's language data in the package pycocoevalcap: inside its jar, and the paraphrases beside it."""

from __future__ import annotations

import gzip
import hashlib
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from stages.evaluate.metrics.java import Unavailable, reference_file

JAR = ("meteor", "meteor-1.5.jar")
PARAPHRASES = ("meteor", "data", "paraphrase-en.gz")
_MEMBERS = (
    "function/english.words",
    "nonbreaking/english.prefixes",
    "synonym/english.exceptions",
    "synonym/english.synsets",
)
#: Increase it with every change of the layout of the tables.
_LAYOUT = 1


@dataclass(frozen=True)
class Sources:
    """The files that hold the data."""

    jar: Path
    paraphrases: Path
    #: Identifies the data and the layout of the tables.
    digest: str

    def text(self, member: str) -> str:
        """A text inside the jar."""
        with zipfile.ZipFile(self.jar) as archive:
            return archive.read(member).decode("utf-8")

    def paraphrase_bytes(self) -> bytes:
        """The decompressed paraphrases (some 270 MB): probability, phrase, paraphrase, a line each, over and over."""
        try:
            with gzip.open(self.paraphrases, "rb") as file:
                return file.read()
        except (OSError, EOFError) as error:
            raise Unavailable(f"{self.paraphrases} is damaged ({error}); reinstall pycocoevalcap==1.2") from None


def find_sources() -> Sources:
    """The data of the installed pycocoevalcap. Raises Unavailable with what is missing.

    Named by the checksums that the archives themselves carry, so that this reads a few kilobytes and not 68 MB.
    """
    jar, paraphrases = reference_file(*JAR), reference_file(*PARAPHRASES)
    try:
        with zipfile.ZipFile(jar) as archive:
            marks = [(name, archive.getinfo(name).CRC, archive.getinfo(name).file_size) for name in _MEMBERS]
    except (zipfile.BadZipFile, KeyError) as error:
        raise Unavailable(f"{jar} is not METEOR's jar ({error}); reinstall pycocoevalcap==1.2") from None
    size = paraphrases.stat().st_size
    with paraphrases.open("rb") as file:
        file.seek(max(size - 8, 0))
        trailer = file.read().hex()
    identity = repr((_LAYOUT, sys.byteorder, marks, size, trailer))
    return Sources(jar, paraphrases, hashlib.sha256(identity.encode()).hexdigest()[:16])
