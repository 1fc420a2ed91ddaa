"""Which column of a list is what: chosen by the config, or recognised by the usual spellings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.ingest.files import BadFile, InputFile
from stages.ingest.source import Pair, Reject, Source

#: LAION and img2dataset (URL, url), the hub's copies of Conceptual Captions (image_url), COCO (coco_url).
URL_COLUMNS = ("URL", "url", "image_url", "coco_url")
#: LAION (TEXT), DataComp (text), and everyone else.
CAPTION_COLUMNS = ("TEXT", "text", "CAPTION", "caption")
PATH_COLUMNS = ("path", "file", "file_name", "filename", "image_path", "image")
LICENSE_COLUMNS = ("LICENSE", "license")


@dataclass(frozen=True)
class Roles:
    """Positions of a list's columns."""

    place: int
    caption: int | None
    """None in an image-only source."""
    license: int | None
    digests: Mapping[str, int]
    """`sha256`, `md5` -> position, where the list has them."""
    others: Mapping[str, int]
    """Name -> position of all further columns (of a repeated name the first)."""


@dataclass(frozen=True)
class Choice:
    """The choice of the config; None leaves it to the usual spellings."""

    source: Source[Any]
    url: str | None = None
    path: str | None = None
    caption: str | None = None
    caption_key: str = "caption_column"
    license: str | None = None
    sha256: str | None = "sha256"
    md5: str | None = "md5"

    @property
    def local(self) -> bool:
        """Whether the list names files below `images`."""
        return self.source.config.images is not None

    def of(self, file: InputFile, names: Sequence[str]) -> Roles:
        """Roles of a file's columns. Raises BadFile naming the key to set where one is missing."""
        if self.local:
            place = self._required(file, names, self.path, PATH_COLUMNS, "path_column")
        else:
            place = self._required(file, names, self.url, URL_COLUMNS, "url_column")
        caption = None
        if not self.source.config.image_only:
            caption = self._required(file, names, self.caption, CAPTION_COLUMNS, self.caption_key)
        license = next((name for name in (self.license, *LICENSE_COLUMNS) if name in names), None)
        digests = {kind: names.index(name) for kind, name in self.digests().items() if name in names}
        used = {place, *digests.values(), *map(names.index, self.ignored(names))}
        if caption is not None:
            used.add(caption)
        if license is not None:
            used.add(names.index(license))
        others: dict[str, int] = {}
        for position, name in enumerate(names):
            if position not in used:
                others.setdefault(name, position)
        return Roles(place, caption, None if license is None else names.index(license), digests, others)

    def ignored(self, names: Sequence[str]) -> tuple[str, ...]:
        """The column of captions that an image-only source lists all the same; none for any other source."""
        if not self.source.config.image_only:
            return ()
        candidates = (self.caption,) if self.caption else CAPTION_COLUMNS
        return tuple(name for name in candidates if name in names)[:1]

    def digests(self) -> dict[str, str]:
        """`sha256`, `md5` -> the column that holds it."""
        return {kind: name for kind, name in (("sha256", self.sha256), ("md5", self.md5)) if name is not None}

    def take(self, row: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Place, caption and license of a row with keys of its own, taken out of it; None for what it lacks."""
        places = (self.path, PATH_COLUMNS) if self.local else (self.url, URL_COLUMNS)
        roles = (places, (self.caption, CAPTION_COLUMNS), (self.license, LICENSE_COLUMNS))
        names = [
            next((name for name in ((chosen,) if chosen else usual) if name in row), "") for chosen, usual in roles
        ]
        place, caption, license = (row.pop(name, None) for name in names)
        return place, None if self.source.config.image_only else caption, license

    def _required(
        self, file: InputFile, names: Sequence[str], chosen: str | None, usual: Sequence[str], key: str
    ) -> int:
        candidates = [chosen] if chosen else usual
        for name in candidates:
            if name in names:
                return names.index(name)
        source = f"sources.{self.source.name}"
        images = f", or {source}.captions=none for images without captions" if key == self.caption_key else ""
        raise BadFile(
            file,
            "no_column",
            f"no column {' or '.join(candidates)}; it has {', '.join(names)[:300]}: set {source}.{key}{images}",
        )

    def complete(self, names: Sequence[str]) -> bool:
        """Whether a header names the columns that a row needs."""
        places = (self.path, PATH_COLUMNS) if self.local else (self.url, URL_COLUMNS)
        needed = [places] if self.source.config.image_only else [places, (self.caption, CAPTION_COLUMNS)]
        return all(any(name in names for name in ((chosen,) if chosen else usual)) for chosen, usual in needed)

    @property
    def each(self) -> bool:
        """Whether a value of the column of captions may be a list, each of which is a pair's."""
        return bool(getattr(self.source.config, "captions", None) == "each")

    def items(
        self, file: InputFile, place: Any, caption: Any, license: Any, meta: Mapping[str, Any] | str
    ) -> Iterator[Pair | Reject]:
        """:meth:`item` of a row, or one of each caption where a list of them is allowed (an empty one has none)."""
        for each in _listed(caption) if self.each else (caption,):
            yield self.item(file, place, each, license, meta)

    def item(
        self, file: InputFile, place: Any, caption: Any, license: Any, meta: Mapping[str, Any] | str
    ) -> Pair | Reject:
        """A row as a pair, or why it is none: values that are not text, a path that leads out of `images`."""
        if isinstance(place, bytes) or isinstance(caption, bytes):
            return Reject(file, "not_utf8")
        if not (place is None or isinstance(place, str)) or not (caption is None or isinstance(caption, str)):
            return Reject(file, "not_text")
        stated = None if license is None or license == "" else str(license)
        if not self.local:
            return Pair(file, caption or "", place or "", None, stated, meta)
        if not place:
            return Reject(file, "no_path")
        path = self.source.local_image(place)
        return Reject(file, "bad_path") if path is None else Pair(file, caption or "", None, path, stated, meta)


def _listed(value: Any) -> Sequence[Any]:
    """The captions that a value of a column holds: those of a list, or of the text of a JSON list, or itself alone."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            return (value,)  # a caption that happens to begin so
        texts = isinstance(parsed, list) and all(item is None or isinstance(item, str) for item in parsed)
        value = parsed if texts else value
    return (value or (None,)) if isinstance(value, list) else (value,)
