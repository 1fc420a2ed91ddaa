"""Small pictures for a report, as JPEGs in data URIs, read out of raw shards by offset."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from stages.base.artifact import Artifact
from stages.imaging.perceptual_hash import UNDECODABLE, decode_rgb

_SIDE = 160
_CAPTION = 140


@dataclass(frozen=True)
class Sample:
    """One image on the page; `picture` is a data URI, or empty where none may or can be shown."""

    image_uid: str
    source: str
    picture: str
    caption: str = ""


def picture(raw: Artifact, shard: int, offset: int, length: int) -> str:
    """The picture of one member of a raw shard; empty when it does not decode."""
    with raw.open(f"raw-{shard:05d}.tar") as tar:
        tar.seek(offset)
        data = tar.read(length)
    try:
        rgb = decode_rgb(data)
    except UNDECODABLE:
        return ""
    rgb.thumbnail((_SIDE, _SIDE))
    small = io.BytesIO()
    rgb.save(small, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"


def shortened(caption: str) -> str:
    """A caption as the page has room for it."""
    return caption if len(caption) <= _CAPTION else caption[: _CAPTION - 1] + "…"
