"""Source adapters by kind, found in the entry-point group `pairmill.sources` of every installed package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from stages.base.contract import UserError
from stages.ingest.config import SourceConfig

if TYPE_CHECKING:
    from stages.ingest.source import Source

GROUP = "pairmill.sources"


@cache
def _registered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def source_class(kind: str) -> type[Source[Any]]:
    """The adapter registered for a kind. Raises UserError that names the known kinds."""
    from stages.ingest.source import Source

    known = _registered()
    if kind not in known:
        raise UserError(
            f"source kind {kind!r} is not known (known: {', '.join(sorted(known)) or 'none'}): correct it, or install"
            f" the package that registers it under {GROUP!r}"
        )
    loaded = known[kind].load()
    if not (isinstance(loaded, type) and issubclass(loaded, Source)):
        raise UserError(f"source kind {kind!r}: {known[kind].value} is not a subclass of stages.ingest.source.Source")
    return loaded


def source_config(name: str, fields: Any) -> SourceConfig:
    """A source's config, validated by the schema of its kind.

    Raises UserError when the kind is missing or unknown, pydantic's ValidationError for anything else that is wrong.
    """
    if isinstance(fields, SourceConfig):
        return fields
    if not isinstance(fields, Mapping) or not fields.get("kind"):
        raise UserError(f"sources.{name}.kind: missing; choose one of {', '.join(sorted(_registered()))}")
    try:
        schema = source_class(str(fields["kind"])).Config
    except UserError as error:
        raise UserError(f"sources.{name}.kind: {error}") from None
    return schema.model_validate(dict(fields))
