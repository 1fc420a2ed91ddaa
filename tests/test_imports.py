"""Imports go one way: pipelines -> stages -> models, and nothing imports an architecture but itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARCHITECTURES = {"models.blip2", "models.florence2"}


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """(file, name of the module it imports) of all files of a folder, imports inside functions included."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import"
                # `from models import registry` imports models.registry.
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            yield from ((str(path.relative_to(ROOT)), name) for name in names)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("models", {"stages", "pipelines"}),
        ("stages", {"pipelines", *ARCHITECTURES}),
        ("pipelines", ARCHITECTURES),
        ("models/common", ARCHITECTURES),
        *((name.replace(".", "/"), ARCHITECTURES - {name}) for name in sorted(ARCHITECTURES)),
    ],
)
def test_a_folder_imports_nothing_above_or_beside_it(folder: str, forbidden: set[str]) -> None:
    found = list(imported(folder))
    assert found, folder
    wrong = [(file, name) for file, name in found if any(f"{name}.".startswith(f"{f}.") for f in forbidden)]
    assert wrong == []
