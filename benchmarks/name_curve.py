"""The curve of `deidentification.py` over the threshold for names that nothing announces: names found, words lost.

Names found: those of `planted_names.py`, by form, and of the `hard` sentences of `planted_reports.py`. Words lost: of
the clean sentences of `planted_reports.py`, and of the real clinical texts in `$PAIRMILL_SHARED` (or `../shared`),
where it is there: the notes of `data/cxr` (the word lists were extended after a look at them; the threshold was chosen
on every other one) and the questions and answers of VQA-RAD in `data/vqa_rad`. Most of what the rules alone take from
the notes are dates.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from planted_names import NamesHalf, uncued
from planted_reports import CLEAN, planted

#: None: the rules alone, as before there was a threshold.
THRESHOLDS: tuple[float | None, ...] = (None, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0, 0.5, 0.0, -1.0)


def clinical_texts() -> dict[str, list[str]]:
    """Real texts without names, by where they are from; empty without the shared data."""
    folder = Path(os.environ.get("PAIRMILL_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data"
    texts: dict[str, list[str]] = {}
    if (folder / "cxr/meta.json").is_file():
        notes = sorted({entry["report"] for entry in json.loads((folder / "cxr/meta.json").read_text("utf-8"))})
        texts |= {"notes_tuning": notes[::2], "notes_held_out": notes[1::2]}
    if (folder / "vqa_rad/trainset.json").is_file():
        rows = [
            row
            for name in ("trainset", "testset")
            for row in json.loads((folder / f"vqa_rad/{name}.json").read_text("utf-8"))
        ]
        texts["vqa_rad"] = sorted({str(row[key]) for row in rows for key in ("question", "answer")})
    return texts


def scrubber(threshold: float | None, recogniser: Path | None = None) -> Callable[[Sequence[str]], list[str]]:
    """Every text by the medical source's scrubber, with a model's names beside the others if a folder is given."""
    from stages.ingest.medical.deidentify import Scrubber
    from stages.ingest.medical.name_scores import PERSON_LABELS
    from stages.ingest.medical.recogniser import load_recogniser

    model = load_recogniser(recogniser, PERSON_LABELS, 0.5, "--recogniser") if recogniser else None
    scrub = Scrubber(name_threshold=threshold, recogniser=model)
    return lambda texts: [scrub(text) for text in texts]


def curve(thresholds: Sequence[float | None], repeats: int, recogniser: Path | None = None) -> Iterator[dict[str, Any]]:
    """One row per threshold: shares of names found and of words lost."""
    from deidentification import recall, words_lost

    halves: tuple[NamesHalf, ...] = ("tuning", "held_out")
    names = {half: list(uncued(half, repeats)) for half in halves}
    hard = list(planted("hard", 40))
    clean = {**{f"clean_{half}": CLEAN[half] for half in halves}, **clinical_texts()}
    for threshold in thresholds:
        scrub = scrubber(threshold, recogniser)
        found = {half: recall(sentences, scrub([s.text for s in sentences])) for half, sentences in names.items()}
        yield {
            "threshold": threshold,
            "recogniser": recogniser is not None,
            "found": {half: _rounded(shares) for half, shares in found.items()},
            "found_hard": round(recall(hard, scrub([s.text for s in hard]))["name"], 4),
            "words_lost": {name: round(words_lost(texts, scrub(texts))[0], 5) for name, texts in clean.items()},
        }


def _rounded(shares: dict[str, float]) -> dict[str, float]:
    return {name: round(share, 4) for name, share in shares.items()}
