"""Families by name: the built-in ones, and those of other packages (entry-point group `pairmill.signals`)."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stages.base.contract import NotFingerprinted, StageConfig, UserError
from stages.signals.family import BytesFamily, Family, ImageFamily, JointFamily, PairFamily

if TYPE_CHECKING:
    from stages.signals.config import SignalsConfig

GROUP = "pairmill.signals"

#: In the order of their columns.
BUILT_IN = {
    "size": "stages.signals.image:Size",
    "tone": "stages.signals.image:Tone",
    "sharpness": "stages.signals.image:Sharpness",
    "hashes": "stages.signals.image:Hashes",
    "nsfw": "stages.signals.content:Nsfw",
    "text_coverage": "stages.signals.content:TextCoverage",
    "faces": "stages.signals.content:Faces",
    "text": "stages.signals.caption:TextStatistics",
    "language": "stages.signals.caption:Language",
    "listed": "stages.signals.list_columns:ListColumns",
    "clip": "stages.signals.similarity:Clip",
}

_CHEAP = ("size", "tone", "sharpness", "hashes", "text", "language", "listed")
#: Names that stand for several families.
GROUPS = {"cheap": _CHEAP, "default": (*_CHEAP, "nsfw", "text_coverage", "faces")}

#: Columns of the tables that no family may write.
_RESERVED = {
    "images": {"image_uid", "source", "bytes", "format", "sha256", "decoded"},
    "pairs": {"uid", "image_uid", "source"},
}


def selected(config: SignalsConfig) -> list[str]:
    """Names of the families that a config selects: the built-in ones in the order above, then others by name.

    Always includes `size`, and `clip` if a model is named.
    """
    names = {family for name in config.families for family in GROUPS.get(name, (name,))} | {"size"}
    if config.clip.model is not None:
        names.add("clip")
    elif "clip" in names:
        raise UserError(
            "signals.clip.model: missing; name a folder with a CLIP model, or leave clip out of signals.families"
        )
    return [name for name in BUILT_IN if name in names] + sorted(names - BUILT_IN.keys())


def family_class(name: str) -> type[Family[Any]]:
    """The class registered under a name. Raises UserError listing the known names for any other."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        return getattr(import_module(module), attribute)  # type: ignore[no-any-return]
    others = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in others:
        known = ", ".join([*GROUPS, *BUILT_IN, *sorted(others)])
        raise UserError(
            f"signals.families: no family {name!r} (known: {known}); correct it, or install the package that registers"
            f" it under {GROUP!r}"
        )
    loaded = others[name].load()
    kinds = (ImageFamily, BytesFamily, PairFamily, JointFamily)
    if not (isinstance(loaded, type) and issubclass(loaded, kinds)):
        raise UserError(
            f"signals.families: {others[name].value}, registered as {name!r}, is not a subclass of ImageFamily,"
            " BytesFamily, PairFamily or JointFamily of stages.signals.family"
        )
    return loaded


def build(config: SignalsConfig) -> list[Family[Any]]:
    """The families of a config, unloaded. Raises UserError for invalid settings and for a column that two write."""
    families: list[Family[Any]] = []
    writers: dict[tuple[str, str], str] = {}
    for name in selected(config):
        kind = family_class(name)
        for column in kind.columns:
            other = writers.setdefault((kind.table, column), name)
            if other != name or column in _RESERVED[kind.table]:
                whose = f"the family {other!r}" if other != name else "the table itself"
                raise UserError(f"signals.families: {name!r} writes the column {column!r} of {whose}; leave one out")
        families.append(kind(_settings(config, name, kind)))
    unused = sorted(config.options.keys() - {family.name for family in families})
    if unused:
        raise UserError(f"signals.options.{unused[0]}: no family of that name from another package is measured")
    return families


def measured_settings(config: SignalsConfig) -> dict[str, dict[str, Any]]:
    """The value of :attr:`SignalsConfig.measured`: what results depend on, by family."""
    return {family.name: family_settings(family) for family in build(config)}


def family_settings(family: Family[Any]) -> dict[str, Any]:
    """Version and settings of one family, without those that do not affect values."""
    fields = type(family.config).model_fields
    fingerprinted = {name for name, field in fields.items() if NotFingerprinted not in field.metadata}
    return {"version": family.version, **family.config.model_dump(mode="json", include=fingerprinted)}


def _settings(config: SignalsConfig, name: str, kind: type[Family[Any]]) -> StageConfig:
    if name in BUILT_IN:
        own = getattr(config, name, None)
        return own if isinstance(own, StageConfig) else kind.Config()
    try:
        return kind.Config.model_validate(config.options.get(name, {}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(["signals.options", name, *map(str, first["loc"])])
        raise UserError(f"{where}: {first['msg']}") from None
