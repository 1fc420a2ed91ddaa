"""The demonstration's lists while they are being filled, and how each is written in its public format."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The sources of `conf/source/demo_*.yaml`, by host.
SOURCES = {host: f"demo_{host}" for host in ("laion", "cc3m", "cc12m", "coco", "medical")}
_LICENSES = (
    {"id": 1, "name": "MIT License", "url": "https://opensource.org/license/mit/"},
    {"id": 2, "name": "scikit-image sample data", "url": "https://scikit-image.org/"},
)


@dataclass(frozen=True)
class Row:
    """One listed pair; None and `raw` make the malformed ones."""

    url: str | None
    caption: str | None
    width: int = 64
    height: int = 64
    raw: bytes | None = None
    """A whole line of a TSV list as it stands."""


@dataclass
class DemoLists:
    """Rows by host, what is expected of the planted ones, and how the server answers for them."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {host: [] for host in SOURCES})
    expected: list[dict[str, Any]] = field(default_factory=list)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, host: str, url: str, caption: str, size: tuple[int, int] = (64, 64)) -> None:
        """List a pair."""
        self.rows[host].append(Row(url, caption, *size))

    def plant(
        self,
        host: str,
        url: str | None,
        caption: str | None,
        fault: str,
        reason: str = "",
        size: tuple[int, int] = (64, 64),
        **more: str,
    ) -> None:
        """List a pair on purpose, and write down what must become of it.

        `reason` is "" for a pair that must be kept; with `group` in `more`, all but one of the group end for it.
        """
        self.rows[host].append(Row(url, caption, *size))
        self.expect(host, url, caption, fault, reason, **more)

    def plant_raw(self, host: str, line: bytes, fault: str, reason: str) -> None:
        """List a malformed line, which must end among the rejects for `reason`."""
        self.rows[host].append(Row(None, None, raw=line))
        self.expect(host, None, None, fault, f"reject.{reason}")

    def expect(self, host: str, url: str | None, caption: str | None, fault: str, reason: str, **more: str) -> None:
        """Write down what must become of a pair."""
        entry = {"source": SOURCES[host], "url": url, "caption": caption, "fault": fault, "reason": reason}
        self.expected.append({**entry, **more})

    def write(self, out: Path, rng: random.Random) -> None:
        """Write `laion.parquet`, `cc3m.tsv`, `cc12m.tsv` and `coco_captions.json`, rows shuffled."""
        out.mkdir(parents=True, exist_ok=True)
        for rows in self.rows.values():
            rng.shuffle(rows)
        _write_laion(self.rows["laion"], out / "laion.parquet")
        for name, caption_first in (("cc3m", True), ("cc12m", False)):
            lines = [_line(row, caption_first) for row in self.rows[name]]
            (out / f"{name}.tsv").write_bytes(b"".join(line + b"\n" for line in lines))
        _write_coco(self.rows["coco"], out / "coco_captions.json")


def _line(row: Row, caption_first: bool) -> bytes:
    if row.raw is not None:
        return row.raw
    columns = (row.caption, row.url) if caption_first else (row.url, row.caption)
    return "\t".join(map(str, columns)).encode()


def _write_laion(rows: list[Row], path: Path) -> None:
    """As LAION-400M's files are; `similarity` is null, for nobody ran CLIP over these images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "SAMPLE_ID": pa.array(range(len(rows)), pa.int64()),
            "URL": pa.array([row.url for row in rows], pa.string()),
            "TEXT": pa.array([row.caption for row in rows], pa.string()),
            "HEIGHT": pa.array([row.height for row in rows], pa.int32()),
            "WIDTH": pa.array([row.width for row in rows], pa.int32()),
            "LICENSE": pa.array(["?"] * len(rows), pa.string()),
            "NSFW": pa.array(["UNLIKELY"] * len(rows), pa.string()),
            "similarity": pa.nulls(len(rows), pa.float64()),
        }
    )
    pq.write_table(table, path, compression="snappy", row_group_size=1024)


def _write_coco(rows: list[Row], path: Path) -> None:
    ids: dict[str | None, int] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for row in rows:
        if row.url is not None and row.url not in ids:
            ids[row.url] = len(ids) + 1
            images.append(
                {
                    "id": ids[row.url],
                    "file_name": row.url.rsplit("/", 1)[-1],
                    "coco_url": row.url,
                    "width": row.width,
                    "height": row.height,
                    "license": 1 if "/shapes/" in row.url else 2,
                }
            )
        # A row without a url is an annotation of an image that is not listed.
        image_id = ids.get(row.url, -1)
        annotations.append({"id": len(annotations) + 1, "image_id": image_id, "caption": row.caption})
    content = {
        "info": {"description": "Pairmill's demonstration, in the format of COCO captions"},
        "licenses": list(_LICENSES),
        "images": images,
        "annotations": annotations,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
