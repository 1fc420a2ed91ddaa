"""How much of what identifies a patient the medical source takes out of reports, and how much else it takes.

Input: the invented sentences of `planted_reports.py`, `--repeats` times with identifiers drawn anew. An identifier
counts as removed when none of its parts survives. Clean words lost are counted over sentences without identifiers.
The peer is scrubadub 2.0 (`pip install scrubadub==2.0.1` into an environment of its own, its Python as `--peer`),
with its default detectors; both get the same sentences, in turns. Names that nothing announces and clean words lost
over the threshold: `name_curve.py`; with `--recogniser` also with a model's names. Nothing is written elsewhere.

The last line is one JSON object: name, ours, peers, ratios, names.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from name_curve import THRESHOLDS, curve  # noqa: E402
from planted_reports import CLEAN, Half, Sentence, planted  # noqa: E402

from stages.ingest.medical.name_scores import NAME_THRESHOLD  # noqa: E402

_PEER = """
import json, sys
import scrubadub
scrubber = scrubadub.Scrubber()
for line in sys.stdin:
    print(json.dumps([scrubber.clean(text) for text in json.loads(line)]), flush=True)
"""


def survives(part: str, text: str) -> bool:
    """Whether a part of an identifier is still there as a word of its own."""
    return re.search(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])", text) is not None


def misses(sentences: Sequence[Sentence], cleaned: Sequence[str]) -> list[tuple[str, str, str]]:
    """(kind, sentence, what came out) of every identifier of which something survived."""
    survivors: list[tuple[str, str, str]] = []
    for sentence, after in zip(sentences, cleaned, strict=True):
        survivors.extend(
            (kind, sentence.text, after) for kind, parts in sentence.secrets if any(survives(p, after) for p in parts)
        )
    return survivors


def recall(sentences: Sequence[Sentence], cleaned: Sequence[str]) -> dict[str, float]:
    """Share removed of each kind of identifier, and of `all`."""
    planted_kinds = Counter(kind for s in sentences for kind, parts in s.secrets if parts)
    missed = Counter(kind for kind, _, _ in misses(sentences, cleaned))
    shares = {kind: 1 - missed[kind] / count for kind, count in sorted(planted_kinds.items())}
    return {**shares, "all": 1 - missed.total() / planted_kinds.total()}


def words_lost(before: Sequence[str], after: Sequence[str]) -> tuple[float, float]:
    """Shares of words lost and of sentences changed, of texts that should stay as they are."""
    lost = total = changed = 0
    for old, new in zip(before, after, strict=True):
        words, left = Counter(old.split()), Counter(new.split())
        lost += (words - left).total()
        total += words.total()
        changed += bool(words - left)
    return lost / total, changed / len(before)


def carriers_lost(sentences: Sequence[Sentence], cleaned: Sequence[str]) -> float:
    """Share of the words around identifiers that went with them."""
    lost = sum(not survives(word, after) for s, after in zip(sentences, cleaned, strict=True) for word in s.carrier)
    return lost / sum(len(s.carrier) for s in sentences)


def judged(
    sentences: Sequence[Sentence], clean: Sequence[str], scrub: Callable[[list[str]], list[str]]
) -> dict[str, object]:
    """All figures of one scrubber on one half."""
    cleaned = scrub([s.text for s in sentences])
    words, changed = words_lost(clean, scrub(list(clean)))
    return {
        "recall": {kind: round(share, 4) for kind, share in recall(sentences, cleaned).items()},
        "clean_words_lost": round(words, 4),
        "clean_sentences_changed": round(changed, 4),
        "carrier_words_lost": round(carriers_lost(sentences, cleaned), 4),
    }


def ours(texts: list[str]) -> list[str]:
    """Every text by the medical source's scrubber, nothing known from a header."""
    from stages.ingest.medical.deidentify import Scrubber

    scrub = Scrubber()
    return [scrub(text) for text in texts]


class Peer:
    """scrubadub in an interpreter of its own."""

    def __init__(self, python: str) -> None:
        self._process = subprocess.Popen(
            [python, "-c", _PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __call__(self, texts: list[str]) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        cleaned: list[str] = json.loads(self._process.stdout.readline())
        return cleaned

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40, help="times every template is filled (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each, in turns (default: %(default)s)")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has scrubadub; without it ours alone")
    parser.add_argument("--misses", type=int, default=0, help="show this many misses of the tuning half")
    parser.add_argument("--recogniser", metavar="FOLDER", type=Path, help="measure with this model's names, too")
    options = parser.parse_args()
    scrubbers: dict[str, Callable[[list[str]], list[str]]] = {"ours": ours}
    peer = Peer(options.peer) if options.peer else None
    if peer is not None:
        scrubbers["scrubadub"] = peer
    halves: tuple[Half, ...] = ("tuning", "held_out", "hard")
    figures: dict[str, dict[str, object]] = {name: {} for name in scrubbers}
    for half in halves:
        sentences = list(planted(half, options.repeats))
        for name, scrub in scrubbers.items():
            figures[name][half] = judged(sentences, CLEAN[half], scrub)
            print(f"{name:10} {half:9} {json.dumps(figures[name][half])}")
        if half == "tuning":
            for kind, text, after in misses(sentences, ours([s.text for s in sentences]))[: options.misses]:
                print(f"  missed {kind}: {text} -> {after}")
            for text, after in zip(CLEAN[half], ours(list(CLEAN[half])), strict=True):
                if options.misses and text != after:
                    print(f"  changed: {text} -> {after}")
    texts = [s.text for s in planted("held_out", options.repeats)]
    seconds: dict[str, list[float]] = {name: [] for name in scrubbers}
    for _ in range(options.rounds):
        for name, scrub in scrubbers.items():
            start = time.perf_counter()
            scrub(texts)
            seconds[name].append(time.perf_counter() - start)
    rates = {name: [len(texts) / s for s in spent] for name, spent in seconds.items()}
    for name, rate in rates.items():
        figures[name]["sentences_per_second"] = {
            "median": round(statistics.median(rate), 1),
            "min": round(min(rate), 1),
            "max": round(max(rate), 1),
        }
    ratios: dict[str, object] = {}
    if peer is not None:
        peer.close()
        paired = [a / b for a, b in zip(rates["ours"], rates["scrubadub"], strict=True)]
        ratios = {
            "speed": {
                "median": round(statistics.median(paired), 2),
                "min": round(min(paired), 2),
                "max": round(max(paired), 2),
            },
            "missed_identifiers": _ratio(figures, "held_out"),
        }
    rows = list(_shown(curve(THRESHOLDS, max(1, options.repeats // 5))))
    if options.recogniser:
        rows += _shown(curve((None, NAME_THRESHOLD), max(1, options.repeats // 5), options.recogniser))
    peers = {name: value for name, value in figures.items() if name != "ours"}
    print(
        json.dumps(
            {"name": "deidentification", "ours": figures["ours"], "peers": peers, "ratios": ratios, "names": rows}
        )
    )
    return 0


def _shown(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        print(f"names      {json.dumps(row)}", flush=True)
        yield row


def _ratio(figures: dict[str, dict[str, object]], half: str) -> float:
    """Identifiers missed by us for each one missed by the peer."""
    missed = []
    for name in ("ours", "scrubadub"):
        held = figures[name][half]
        assert isinstance(held, dict)
        missed.append(1 - held["recall"]["all"])
    return round(missed[0] / max(missed[1], 1e-9), 4)


if __name__ == "__main__":
    sys.exit(main())
