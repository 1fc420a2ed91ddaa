"""Configs that name files: inside a demonstration's world, or anywhere outside the workspace."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from stages.base.contract import StageConfig


class ExternalFilesConfig(StageConfig):
    """Base of configs with paths, which subclasses mark `NotFingerprinted` and list in `file_keys`.

    Outside a world only the contents of files count, so that moving them changes nothing; the runner digests what
    `located` lists. A world's fingerprint covers the contents of all its files but not which of them
    are read, so their names are noted in `world_files`, which is fingerprinted.
    """

    file_keys: ClassVar[tuple[str, ...]]
    """Fields that hold a path, or several."""

    world: str | None = None
    """The world whose files the paths name; null for files of your own."""
    world_files: dict[str, Any] = {}
    """Filled in: where in the world the files are."""

    @model_validator(mode="before")
    @classmethod
    def _note_world_files(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        files = {key: values[key] for key in cls.file_keys if values.get(key)} if values.get("world") else {}
        return {**values, "world_files": {k: list(v) if isinstance(v, tuple) else v for k, v in files.items()}}

    def located(self) -> list[str]:
        """Files and folders outside any world that the result depends on."""
        if self.world is not None:
            return []
        paths = [getattr(self, key) for key in self.file_keys]
        return [path for path in paths if path]
