"""All families together: an image is decoded once and shown to each of them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from stages.imagehash import UNDECODABLE, decode_rgb
from stages.signals.hashes import Hashes
from stages.signals.image import Tone
from stages.signals.language import Language
from stages.signals.listed import Listed
from stages.signals.text import Text

_STRING, _INT = pa.string(), pa.int64()


class Measurer:
    """Holds one of each family; built once per process, since the language model takes a while to load."""

    def __init__(self) -> None:
        self.image_families = (Tone(), Hashes())
        self.pair_families = (Text(), Language(), Listed())
        # Bytes that were fetched whole and yet hold no picture keep their row: all below is null then.
        measured = [column for family in self.image_families for column in family.columns]
        self.image_schema = pa.schema(
            [
                pa.field("image_uid", _STRING, nullable=False),
                pa.field("source", _STRING, nullable=False),
                pa.field("bytes", _INT, nullable=False),
                pa.field("format", _STRING),
                pa.field("sha256", _STRING, nullable=False),
                pa.field("decoded", pa.bool_(), nullable=False),
                pa.field("width", pa.int32()),
                pa.field("height", pa.int32()),
                *(pa.field(name, kind) for name, kind in measured),
            ]
        )
        said = [column for family in self.pair_families for column in family.columns]
        self.pair_schema = pa.schema(
            [
                pa.field("uid", _STRING, nullable=False),
                pa.field("image_uid", _STRING, nullable=False),
                pa.field("source", _STRING, nullable=False),
                *(pa.field(name, kind) for name, kind in said),
            ]
        )

    def image(self, data: bytes) -> dict[str, Any]:
        """The measured columns of one image from its stored bytes."""
        try:
            rgb = decode_rgb(data)
        except UNDECODABLE:
            return {"decoded": False}
        row: dict[str, Any] = {"decoded": True, "width": rgb.width, "height": rgb.height}
        for family in self.image_families:
            row.update(family.measure(rgb))
        return row

    def pair(self, caption: str, meta: str) -> dict[str, Any]:
        """The measured columns of one pair; `meta` is the JSON object of the pairs table."""
        parsed = json.loads(meta)
        row: dict[str, Any] = {}
        for family in self.pair_families:
            row.update(family.measure(caption, parsed))
        return row
