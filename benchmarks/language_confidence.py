"""How sure lid.176 must be of a language before `selection.rules.languages` drops a caption: English lost, others kept.

    .venv/bin/python benchmarks/language_confidence.py --english captions.json --other FOLDER

`--english` takes COCO caption JSONs and text files; `--other` a folder of `<code>.txt`, a text a line, of other
languages. Texts of fewer than 6 characters or 3 words are left out, as by `datacomp_basic`; of languages written
without spaces, of fewer than 6 characters. Prints a table, and one JSON object last.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from stages.signals.caption import Language
from stages.signals.family import Listing, NoConfig

_BOUNDS = (0.0, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8)
_WITHOUT_SPACES = ("ja", "km", "lo", "my", "th", "zh")


def _texts(file: Path) -> list[str]:
    if file.suffix == ".json":
        return [str(row["caption"]) for row in json.loads(file.read_text("utf-8"))["annotations"]]
    return file.read_text("utf-8").splitlines()


def _found(family: Language, texts: list[str], spaced: bool = True) -> list[tuple[str, float]]:
    usual = [text for text in texts if len(text) >= 6 and (not spaced or len(text.split()) >= 3)]
    rows = family.measure([Listing(text, {}) for text in usual])
    return [(row["language"], row["language_score"]) for row in rows if row["language"]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--english", nargs="+", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    arguments = parser.parse_args()
    family = Language(NoConfig())
    family.setup()
    english = {file.name: _found(family, _texts(file)) for file in arguments.english}
    files = sorted(arguments.other.glob("*.txt"))
    other = {file.stem: _found(family, _texts(file), file.stem not in _WITHOUT_SPACES) for file in files}
    lost = {
        name: {bound: sum(code != "en" and score >= bound for code, score in found) / len(found) for bound in _BOUNDS}
        for name, found in english.items()
    }
    kept = {
        code: {bound: sum(got == "en" or score < bound for got, score in found) / len(found) for bound in _BOUNDS}
        for code, found in other.items()
    }
    kept["mean"] = {bound: sum(shares[bound] for shares in kept.values()) / len(kept) for bound in _BOUNDS}
    print("language_confidence " + " ".join(f"{bound:>7g}" for bound in _BOUNDS))
    for what, table, texts in (("lost", lost, english), ("kept", kept, other)):
        for name, shares in table.items():
            number = f" of {len(texts[name])}" if name in texts else ""
            print(f"{what} {name}{number}: " + " ".join(f"{shares[bound]:7.2%}" for bound in _BOUNDS))
    print(json.dumps({"lost": lost, "kept": kept}))


if __name__ == "__main__":
    main()
