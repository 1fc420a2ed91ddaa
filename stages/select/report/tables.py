"""The report's figures as tables in the JSON format that MLflow displays: pandas' `split`, `columns` and `data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Table = dict[str, list[Any]]


def tables(numbers: Mapping[str, Any]) -> dict[str, Table]:
    """Name -> table, for `tables/<name>.json`."""
    sources: Mapping[str, Any] = numbers["sources"]
    return {
        "sources": _table(
            (
                "source",
                "private",
                "pairs",
                "images",
                "fetched",
                "kept_pairs",
                "share_listed",
                "share_kept",
                "epoch_pairs",
            ),
            [
                [
                    name,
                    s["private"],
                    s["pairs"],
                    s["attempts"]["listed"],
                    s["attempts"]["success"],
                    s["kept_pairs"],
                    s["share_listed"],
                    s["share_kept"],
                    s["epoch_pairs"],
                ]
                for name, s in sources.items()
            ],
        ),
        "reasons": _table(
            ("reason", *sources, "all"),
            [
                [reason, *(s["reasons"].get(reason, 0) for s in sources.values()), total]
                for reason, total in numbers["totals"]["reasons"].items()
            ],
        ),
        "downloads": _table(
            ("source", "status", "images"),
            [
                [name, status, n]
                for name, s in sources.items()
                for status, n in {"success": s["attempts"]["success"], **s["attempts"]["failures"]}.items()
            ],
        ),
        "rejects": _table(
            ("source", "reason", "rows"),
            [[name, reason, n] for name, r in numbers["rejects"].items() for reason, n in r["reasons"].items()],
        ),
        "hosts": _table(
            ("host", "images", "success", "failed", "kept"),
            [[h["host"], h["images"], h["success"], h["failed"], h["kept"]] for h in numbers["hosts"]["top"]],
        ),
        "languages": _table(
            ("language", "pairs", "kept"), [[r["language"], r["pairs"], r["kept"]] for r in numbers["languages"]]
        ),
        "licences": _table(
            ("licence", "pairs", "kept"), [[r["licence"], r["pairs"], r["kept"]] for r in numbers["licences"]]
        ),
        "distributions": _table(
            ("signal", "from", "fetched", "kept"),
            [
                [name, edge, fetched, kept]
                for name, h in numbers["distributions"].items()
                for edge, fetched, kept in zip(h["edges"], h["fetched"], h["kept"], strict=True)
            ],
        ),
    }


def _table(columns: tuple[str, ...], rows: list[list[Any]]) -> Table:
    return {"columns": list(columns), "data": rows}
