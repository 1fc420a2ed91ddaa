"""What a family of signals is: the columns it writes, and how it measures one image or one pair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image


class ImageFamily(ABC):
    """Measures decoded images."""

    columns: ClassVar[tuple[tuple[str, pa.DataType], ...]]
    """Name and Arrow type of what :meth:`measure` returns."""

    @abstractmethod
    def measure(self, rgb: Image.Image) -> dict[str, Any]:
        """One value per column for an upright 8-bit RGB image."""


class PairFamily(ABC):
    """Measures a caption together with what the source's list says of the pair."""

    columns: ClassVar[tuple[tuple[str, pa.DataType], ...]]
    """Name and Arrow type of what :meth:`measure` returns."""

    @abstractmethod
    def measure(self, caption: str, meta: dict[str, Any]) -> dict[str, Any]:
        """One value per column; `meta` holds the source's own columns."""
