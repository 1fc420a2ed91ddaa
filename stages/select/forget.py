"""Removes forgotten samples from a `select` artifact: their verdicts change, their pictures leave the report.

Nothing is decided again: what was kept beside them was trained on, and the figures are those of the selection as made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from stages.base.artifact import Artifact
from stages.base.forgetting import ForgetInputs, Forgotten, Removal, split_parquet, write_parquet

REASON = "forgotten"
_SETTINGS = {"compression": "zstd", "row_group_size": 65_536}
_FIGURE = re.compile(r"<figure>.*?</figure>", re.DOTALL)
_UID = re.compile(r'title="([0-9a-f]{32})"')
_BLANK = (
    '<figure>\n  <div class="blank">forgotten</div>\n'
    '  <figcaption><small class="soft">{}</small></figcaption>\n</figure>'
)


def forget(artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
    """Set the verdicts in `verdicts.parquet` to `forgotten`; remove rows of `contamination.parquet`, pictures of
    `report.html`."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    removal = Removal()
    with artifact.open("verdicts.parquet") as file:
        table = pq.read_table(file)
    matches = forgotten.pair_mask(table["uid"])
    # The report shows a picture beside the caption of one of its pairs, whichever that is.
    images = forgotten.images | set(table["image_uid"].filter(matches).to_pylist())
    # Counted once, however often it is requested: rows forgotten earlier have their verdict already.
    lost = pc.and_(matches, pc.not_equal(table["reason"], REASON))
    rows = table.filter(lost)
    removal.samples = rows.num_rows
    if rows.num_rows:
        removal.rewritten.append("verdicts.parquet")
        reasons = {row["values"]: row["counts"] for row in pc.value_counts(rows["reason"]).to_pylist()}
        for reason, pairs in reasons.items():
            removal.counts[f"dropped.{reason}" if reason else "kept"] -= pairs
        removal.counts[f"dropped.{REASON}"] += rows.num_rows
        values = {"keep": False, "reason": REASON, "detail": "", "repeats": 0}
        if "repeats" in table.column_names:
            removal.counts["shown"] -= int(pc.sum(rows["repeats"].cast(pa.int64())).as_py() or 0)
        for name in (name for name in values if name in table.column_names):
            place = table.schema.get_field_index(name)
            field = table.schema.field(place)
            new = pc.if_else(lost, pa.scalar(values[name], field.type), table.column(place))
            table = table.set_column(place, field, new)
        write_parquet(table, out, "verdicts.parquet", **_SETTINGS)
    for name, kept, _ in split_parquet(artifact, "contamination.parquet", "uid", forgotten.pair_mask):
        write_parquet(kept, out, name, **_SETTINGS)
        removal.rewritten.append(name)
    for name in artifact.names("report.html"):
        with artifact.open(name) as file:
            page = file.read().decode("utf-8")
        new_page = without_pictures(page, images.__contains__)
        if new_page != page:
            removal.rewritten.append(name)
            if out is not None:
                (out / name).write_text(new_page, "utf-8")
    return removal


def without_pictures(page: str, forgotten: Callable[[str], bool]) -> str:
    """A report's page without picture and caption of the images for whose image_uid `forgotten` is true."""

    def blanked(figure: re.Match[str]) -> str:
        uid = _UID.search(figure[0])
        return _BLANK.format(uid[1][:8]) if uid and forgotten(uid[1]) else figure[0]

    return _FIGURE.sub(blanked, page)
