"""Files that a config names: a path or URL of one's own, or the address `world:NAME/PATH` of a file in a world.

A world is the artifact of a demonstration's own files. Fields that take either are marked :data:`ExternalFile`. The DAG
derives a node's inputs from the addresses in its config (:func:`addresses`) and digests the other files
(:func:`own_files`); a stage that reads a field calls :func:`resolve`, :func:`local_path` or :func:`find_in_worlds`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from stages.base.artifact import Artifact, is_remote
from stages.base.contract import Inputs, StageConfig

SCHEME = "world:"
_ADDRESS = re.compile(r"world:[\w.-]+/\S")
#: Input roles that hold worlds: of a stage's one instance among several, and of a stage over all sources.
WORLD_ROLES = (WORLD_ROLE, WORLDS_ROLE) = ("world", "worlds")


@dataclass(frozen=True)
class Address:
    """A file, folder or glob in a world."""

    world: str
    """A name of the root key `worlds`."""
    path: str
    """Relative to the world's root, as written; ``.`` is the root."""

    def __str__(self) -> str:
        return f"{SCHEME}{self.world}/{self.path}"


def parse(value: str) -> Address | None:
    """The address that a value is, or None for a path or URL of one's own.

    Raises ValueError for one without name or path and for one that leads out of the world. A file of one's own whose
    path begins with `world:` is written `./world:...`.
    """
    if not value.startswith(SCHEME):
        return None
    world, _, path = value.removeprefix(SCHEME).partition("/")
    if not world or not path or path.startswith("/"):
        raise ValueError(f"write {SCHEME}NAME/PATH for a file in a world, or ./{value} for a file of your own")
    if ".." in path.split("/"):
        raise ValueError("an address cannot lead out of its world; leave out '..'")
    return Address(world, path)


class _ExternalFile:
    """Marks a field that holds files; its addresses are checked when the config is validated."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_checked, handler(source))

    def __repr__(self) -> str:
        return "ExternalFile"


#: Use as ``annotations: Annotated[str, ExternalFile]``, for a string, several or None. Only the field's addresses are
#: fingerprinted (:func:`fingerprinted_files`).
ExternalFile = _ExternalFile()


def _checked(value: Any) -> Any:
    for item in _strings(value):
        parse(item)
    return value


def _strings(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else list(value or ())


class ExternalFilesConfig(StageConfig):
    """Base of the configs of sources, tasks and benchmarks, all of whose files may be in a world.

    It keeps the fingerprints of the time when they named their world in a field of its own.
    """

    @model_validator(mode="before")
    @classmethod
    def _no_world_key(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "world" in values:
            name = values["world"]
            remedy = f"where a file is named, write {SCHEME}{name}/PATH" if name else "leave it out"
            raise ValueError(f"unknown key world; {remedy}")
        return values

    def fingerprinted_addresses(self) -> dict[str, Any]:
        """`world`, and `world_files`: the paths in it by field. Of an address in a second world the whole is noted."""
        by_field = addressed_fields(self)
        world = next((address.world for value in by_field.values() for address in _addresses(value)), None)
        return {"world": world, "world_files": {name: _below(value, world) for name, value in by_field.items()}}


def addressed_fields(config: BaseModel) -> dict[str, Any]:
    """Name and value of the marked fields of one config (not of those in it) that hold an address."""
    fields = type(config).model_fields.items()
    return {name: value for name, field in fields if _marked(field) and _addresses(value := getattr(config, name))}


def fingerprinted_files(config: BaseModel) -> dict[str, Any]:
    """What stands for the marked fields of one config in its fingerprint and manifest.

    Of files of one's own only the contents count, so that moving them changes nothing; the runner digests them. A
    world's fingerprint covers the contents of all its files but not which of them are read, so the addresses count.
    """
    if isinstance(config, ExternalFilesConfig):
        return config.fingerprinted_addresses()
    return {name: [str(it) for it in _addresses(value)] for name, value in addressed_fields(config).items()}


def _addresses(value: Any) -> list[Address]:
    """The addresses in the value of a marked field."""
    return [address for item in _strings(value) if (address := parse(item)) is not None]


def _below(value: Any, world: str | None) -> Any:
    paths = [address.path if address.world == world else str(address) for address in _addresses(value)]
    return paths[0] if isinstance(value, str) else paths


def with_addresses(config: Any) -> Any:
    """A fingerprinted config with its addresses under the keys they are configured by, for messages."""
    if isinstance(config, list):
        return [with_addresses(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    plain = {key: with_addresses(value) for key, value in config.items()}
    if "world_files" in plain:
        world, files = plain.pop("world"), plain.pop("world_files")
        plain |= {name: _full_address(value, world) for name, value in files.items()}
    return plain


def _full_address(value: Any, world: str) -> Any:
    if isinstance(value, list):
        return [_full_address(item, world) for item in value]
    return value if value.startswith(SCHEME) else str(Address(world, value))


def _marked(field: FieldInfo) -> bool:
    return any(mark is ExternalFile for mark in field.metadata)


def _walk(value: Any, key: str = "", is_file: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Every string in a config: its dotted key, itself, and whether its field holds files."""
    if isinstance(value, str):
        yield key, value, is_file
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _walk(getattr(value, name), f"{key}.{name}" if key else name, _marked(field))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _walk(item, f"{key}.{name}" if key else str(name), is_file)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item, key, is_file)


def addresses(config: BaseModel) -> list[tuple[str, Address]]:
    """Dotted key and address of each file in a world that a config names, at any depth."""
    return [
        (key, address) for key, value, is_file in _walk(config) if is_file and (address := parse(value)) is not None
    ]


def named_files(config: BaseModel) -> list[str]:
    """All that the marked fields of a config hold, at any depth, as written."""
    return [value for _, value, is_file in _walk(config) if is_file and value]


#: Files that no user made: of macOS, of Windows (both without regard to case), of Spark and Hadoop.
_SYSTEM_FILES = frozenset({".ds_store", ".localized", "thumbs.db", "desktop.ini", "_success"})


def is_system_file(name: str) -> bool:
    """Whether a file found in a folder or archive is no data, by its name or path there: what an operating system or a
    program puts beside data of its own accord.

    macOS writes AppleDouble files (`._NAME` beside each NAME; in zips below `__MACOSX/`) wherever a file system or
    archive has no room for its attributes, and `.DS_Store` into every folder that was looked at; Spark writes
    `_SUCCESS` and checksums `.NAME.crc`.
    """
    *folders, base = name.split("/")
    lower = base.lower()
    hidden = base.startswith("._") or (base.startswith(".") and lower.endswith(".crc"))
    return hidden or lower in _SYSTEM_FILES or "__MACOSX" in folders


def own_files(config: BaseModel) -> list[str]:
    """Those of :func:`named_files` that are no addresses."""
    return [value for value in named_files(config) if parse(value) is None]


def misplaced_addresses(config: BaseModel) -> list[str]:
    """A line on each address in a field that takes none; a text that merely begins with the scheme is no address."""
    return [
        f"{key}={value}: this key takes no file of a world; name a file of your own"
        for key, value, is_file in _walk(config)
        if not is_file and _ADDRESS.match(value)
    ]


def find_in_worlds(value: str, inputs: Inputs) -> tuple[Artifact, str] | None:
    """The input artifact that an address leads to and the path in it (empty for its root); None for one's own file.

    Raises KeyError where no input is that world.
    """
    address = parse(value)
    if address is None:
        return None
    worlds = [artifact for role in WORLD_ROLES for artifact in inputs.get(role, ())]
    if len(worlds) > 1:  # the inputs are derived from the addresses, so a single one is the right one
        worlds = [world for world in worlds if world.manifest.get("node") == f"world[{address.world}]"]
    if not worlds:
        raise KeyError(f"{value}: no input is the world {address.world}")
    return worlds[0], "" if address.path in (".", "./") else address.path


def resolve(value: str, inputs: Inputs) -> str:
    """Local path or fsspec URL of a file or folder that a config names; one's own as it is."""
    location = find_in_worlds(value, inputs)
    if location is None:
        return value
    artifact, path = location
    return f"{artifact.url}/{path}" if path else artifact.url


def local_path(value: str, inputs: Inputs) -> Path:
    """Local path of a file or folder that a config names; what lies in a remote world is fetched into the cache."""
    location = find_in_worlds(value, inputs)
    if location is None:
        return Path(value)
    artifact, path = location
    if is_remote(artifact.url) and path in artifact.names():
        return artifact.path(path)
    return artifact.path() / path
