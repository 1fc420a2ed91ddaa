"""Taking forgotten samples out of a `select` artifact: their verdicts change, their pictures leave the report.

Nothing is decided again: what was kept beside them was trained on, and the figures are those of the selection as made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.forgetting import Gone, Known, Taken, parquet_rows, write_parquet

REASON = "forgotten"
_SETTINGS = {"compression": "zstd", "row_group_size": 65_536}
_FIGURE = re.compile(r"<figure>.*?</figure>", re.DOTALL)
_UID = re.compile(r'title="([0-9a-f]{32})"')
_BLANK = (
    '<figure>\n  <div class="blank">forgotten</div>\n'
    '  <figcaption><small class="soft">{}</small></figcaption>\n</figure>'
)


def forget(artifact: Artifact, inputs: Known, gone: Gone, out: Path | None) -> Taken:
    """`verdicts.parquet` says `forgotten`, `contamination.parquet` loses the rows, `report.html` the pictures."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    taken = Taken()
    with artifact.open("verdicts.parquet") as file:
        table = pq.read_table(file)
    named = gone.has_pair(table["uid"])
    # A picture stands beside the caption of one of its pairs, whichever that is.
    images = gone.images | set(table["image_uid"].filter(named).to_pylist())
    # Each once, whoever asks again: what is forgotten already needs no other verdict.
    lost = pc.and_(named, pc.not_equal(table["reason"], REASON))
    rows = table.filter(lost)
    taken.samples = rows.num_rows
    if rows.num_rows:
        taken.files.append("verdicts.parquet")
        reasons = {row["values"]: row["counts"] for row in pc.value_counts(rows["reason"]).to_pylist()}
        for reason, pairs in reasons.items():
            taken.counts[f"dropped.{reason}" if reason else "kept"] -= pairs
        taken.counts[f"dropped.{REASON}"] += rows.num_rows
        values = {"keep": False, "reason": REASON, "detail": "", "repeats": 0}
        if "repeats" in table.column_names:
            taken.counts["shown"] -= int(pc.sum(rows["repeats"].cast(pa.int64())).as_py() or 0)
        for name in (name for name in values if name in table.column_names):
            place = table.schema.get_field_index(name)
            field = table.schema.field(place)
            new = pc.if_else(lost, pa.scalar(values[name], field.type), table.column(place))
            table = table.set_column(place, field, new)
        write_parquet(table, out, "verdicts.parquet", **_SETTINGS)
    for name, kept, _ in parquet_rows(artifact, "contamination.parquet", "uid", gone.has_pair):
        write_parquet(kept, out, name, **_SETTINGS)
        taken.files.append(name)
    for name in artifact.names("report.html"):
        with artifact.open(name) as file:
            page = file.read().decode("utf-8")
        new_page = without_pictures(page, images.__contains__)
        if new_page != page:
            taken.files.append(name)
            if out is not None:
                (out / name).write_text(new_page, "utf-8")
    return taken


def without_pictures(page: str, gone: Callable[[str], bool]) -> str:
    """A report's page without picture and caption of some images (by image_uid)."""

    def blanked(figure: re.Match[str]) -> str:
        uid = _UID.search(figure[0])
        return _BLANK.format(uid[1][:8]) if uid and gone(uid[1]) else figure[0]

    return _FIGURE.sub(blanked, page)
