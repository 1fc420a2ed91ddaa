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
    """Set the verdicts of every range to `forgotten`; remove rows of its contamination, pictures of `report.html`."""
    removal = Removal()
    images = set(forgotten.images)
    for name in artifact.names("verdicts*.parquet"):
        images.update(_forget_verdicts(artifact, name, forgotten, out, removal))
    for name, kept, _ in split_parquet(artifact, "contamination*.parquet", "uid", forgotten.pair_mask):
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


def _forget_verdicts(
    artifact: Artifact, name: str, forgotten: Forgotten, out: Path | None, removal: Removal
) -> list[str]:
    """Rewrite one file of verdicts if it has any of the pairs, and return the images of these."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with artifact.open(name) as file:
        # One column first: most files are not concerned.
        parquet = pq.ParquetFile(file)
        matches = forgotten.pair_mask(parquet.read(columns=["uid"])["uid"])
        if not pc.any(matches).as_py():
            return []
        table = parquet.read()
    # The report shows a picture beside the caption of one of its pairs, whichever that is.
    images: list[str] = table["image_uid"].filter(matches).to_pylist()
    # Counted once, however often it is requested: rows forgotten earlier have their verdict already.
    lost = pc.and_(matches, pc.not_equal(table["reason"], REASON))
    rows = table.filter(lost)
    if not rows.num_rows:
        return images
    removal.samples += rows.num_rows
    removal.rewritten.append(name)
    for row in pc.value_counts(rows["reason"]).to_pylist():
        removal.counts[f"dropped.{row['values']}" if row["values"] else "kept"] -= row["counts"]
    removal.counts[f"dropped.{REASON}"] += rows.num_rows
    values = {"keep": False, "reason": REASON, "detail": "", "repeats": 0}
    if "repeats" in table.column_names:
        removal.counts["shown"] -= int(pc.sum(rows["repeats"].cast(pa.int64())).as_py() or 0)
    for column in (column for column in values if column in table.column_names):
        place = table.schema.get_field_index(column)
        field = table.schema.field(place)
        new = pc.if_else(lost, pa.scalar(values[column], field.type), table.column(place))
        table = table.set_column(place, field, new)
    write_parquet(table, out, name, **_SETTINGS)
    return images


def without_pictures(page: str, forgotten: Callable[[str], bool]) -> str:
    """A report's page without picture and caption of the images for whose image_uid `forgotten` is true."""

    def blanked(figure: re.Match[str]) -> str:
        uid = _UID.search(figure[0])
        return _BLANK.format(uid[1][:8]) if uid and forgotten(uid[1]) else figure[0]

    return _FIGURE.sub(blanked, page)
