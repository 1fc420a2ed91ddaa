"""Writes the data card of a selection: Markdown with the metadata block of Hugging Face's dataset cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Size categories of the hub's dataset cards: name and exclusive upper bound of the number of samples.
_SIZES = (
    ("n<1K", 10**3),
    ("1K<n<10K", 10**4),
    ("10K<n<100K", 10**5),
    ("100K<n<1M", 10**6),
    ("1M<n<10M", 10**7),
    ("10M<n<100M", 10**8),
    ("100M<n<1B", 10**9),
    ("1B<n<10B", 10**10),
)
_LANGUAGES = 20


def card(numbers: Mapping[str, Any]) -> str:
    """The text of the card. `numbers` is the content of `report.json`, which has only counts of private sources."""
    totals, sources = numbers["totals"], numbers["sources"]
    name = numbers["selection"]["name"]
    without_text = totals.get("kept_without_text")
    without_text = f" ({without_text:,} of them images without a text)" if without_text else ""
    parts = [
        _metadata(name, totals["kept_pairs"], numbers["languages"]),
        f"# {name}\n",
        f"{totals['kept_pairs']:,} image-text pairs{without_text} on {totals['kept_images']:,} images, selected by "
        f"Pairmill out of {totals['pairs']:,} listed pairs ({totals['listed_images']:,} images, "
        f"{totals['fetched_images']:,} fetched). An epoch shows {totals['epoch_pairs']:,} pairs.\n",
        "## Sources\n",
        _table(
            ("source", "listed pairs", "images", "fetched", "kept pairs", "share of kept", "pairs in an epoch"),
            [
                (
                    key + " (private)" * s["private"] + " (image-only)" * s.get("image_only", False),
                    s["pairs"],
                    s["attempts"]["listed"],
                    s["attempts"]["success"],
                    s["kept_pairs"],
                    f"{100 * s['share_kept']:.1f}%",
                    s["epoch_pairs"],
                )
                for key, s in sources.items()
            ],
        ),
        "Images of public sources stay the property of whoever published them; this card and the lists give addresses, "
        "not rights. Of a private source nothing but counts is told anywhere.\n",
        "## How it was selected\n",
        "Every listed pair has one verdict: kept, or the first reason that applied, in the order below.\n",
        _table(("setting", "value"), _settings(numbers["selection"])),
        "## What was removed\n",
        _table(
            ("reason", *sources, "all"),
            [
                (f"`{reason}`", *(s["reasons"].get(reason, 0) for s in sources.values()), n)
                for reason, n in totals["reasons"].items()
            ],
        ),
        _rejects(numbers["rejects"]),
        _removed(numbers),
        "## Languages\n",
        _table(
            ("language (lid.176)", "fetched pairs", "kept pairs"),
            [(row["language"], row["pairs"], row["kept"]) for row in numbers["languages"][:_LANGUAGES]],
        ),
        "## Licences\n",
        "As the lists state them, public sources only.\n",
        _table(
            ("licence", "listed pairs", "kept pairs"),
            [(_cell(row["licence"]), row["pairs"], row["kept"]) for row in numbers["licences"]],
        ),
        "## Known limits\n",
        _limits(numbers),
        "## Fingerprints\n",
        "sha256 over stage, version, configuration and inputs: equal fingerprints are equal bytes, save what was "
        "forgotten since (`manifest.json` says how many).\n",
        _table(
            ("artifact", "fingerprint"),
            [
                ("index", f"`{numbers['inputs']['index']}`"),
                *((f"pairs of {key}", f"`{value}`") for key, value in numbers["inputs"]["pairs"].items()),
                *((f"images of {key}", f"`{value}`") for key, value in numbers["inputs"]["raw"].items()),
            ],
        ),
    ]
    return "\n".join(parts)


def _metadata(name: str, samples: int, languages: Sequence[Mapping[str, Any]]) -> str:
    size = next((label for label, bound in _SIZES if samples < bound), "10B<n<100B")
    codes = sorted({row["language"] for row in languages if row["kept"] and row["language"] != "none"})
    lines = ["---", f'pretty_name: "{name}"', "task_categories:", "- image-to-text", "size_categories:", f"- {size}"]
    # Two letters are ISO 639-1, as the hub requires; quoted, since YAML reads `no` (Norwegian) as false.
    lines += ["language:", *(f'- "{code}"' for code in codes)] if codes else []
    return "\n".join([*lines, "---", ""])


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    body = [f"| {' | '.join(f'{v:,}' if isinstance(v, int) else str(v) for v in row)} |" for row in rows]
    return "\n".join([*lines, *body, ""]) if body else "None.\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _settings(selection: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Active settings by dotted key."""
    rows: list[tuple[str, str]] = []
    for key, value in selection.items():
        if isinstance(value, Mapping) and value:
            rows += _settings(value, f"{prefix}{key}.")
        elif value not in (None, {}, [], ()):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            rows.append((f"`{prefix}{key}`", _cell(shown)))
    return rows


def _rejects(rejects: Mapping[str, Any]) -> str:
    rows = [(name, f"`{reason}`", n) for name, r in rejects.items() for reason, n in r["reasons"].items()]
    table = _table(("source", "reason", "rows"), rows)
    return f"Rows of the lists that were no pairs:\n\n{table}" if rows else "Every row of the lists was a pair.\n"


def _removed(numbers: Mapping[str, Any]) -> str:
    duplicates = numbers["duplicates"]
    lines = [
        f"- Copies: {duplicates['exact']['images']:,} images with the pixels of another "
        f"({duplicates['exact']['groups']:,} groups), {duplicates['near']['images']:,} nearly equal ones "
        f"({duplicates['near']['groups']:,} groups). One of each group is kept."
    ]
    lines += [
        f"- Benchmark `{name}`: {counts['images']:,} images ({counts['pairs']:,} pairs), and {counts['texts']:,} pairs "
        "for their text."
        for name, counts in numbers["benchmarks"].items()
    ]
    if not numbers["benchmarks"]:
        lines.append("- No benchmark was looked for: scores on public benchmarks may be inflated.")
    return "\n".join([*lines, ""])


def _limits(numbers: Mapping[str, Any]) -> str:
    totals = numbers["totals"]
    lost = totals["listed_images"] - totals["fetched_images"]
    measured = numbers["distributions"]
    lines = [
        f"- {lost:,} of {totals['listed_images']:,} listed images could not be fetched; what is left is not a random "
        "sample of the lists.",
        "- Captions are alternative texts and titles as their authors wrote them: unchecked, and mostly not "
        "descriptions made for the picture.",
        "- Languages are told by a model that errs on short captions.",
        "- Near copies are found by perceptual hashes: strong crops, rotations and collages pass for others.",
    ]
    unmeasured = [name for name in ("nsfw", "text_coverage", "faces", "clip_similarity") if name not in measured]
    if unmeasured:
        lines.append(f"- Not measured: {', '.join(f'`{name}`' for name in unmeasured)}.")
    return "\n".join([*lines, ""])
