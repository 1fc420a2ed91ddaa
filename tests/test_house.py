"""The rules that a reader of the code relies on: which way imports go, what stays light, one name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("pipelines", "stages", "models")
MODULES = sorted(path.relative_to(ROOT) for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))

#: Packages that take long to import; modules named stage.py, config.py or spec.py may not import them, since every
#: command imports those.
HEAVY = {
    "torch",
    "ray",
    "deepspeed",
    "mlflow",
    "transformers",
    "pyarrow",
    "PIL",
    "cv2",
    "numpy",
    "pandas",
    "onnxruntime",
}

#: Folders of `stages/` that are libraries for others, besides `base` and `imaging`.
LIBRARIES: dict[str, set[str]] = {}


def tree(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text("utf-8"))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names of the modules that import statements name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(module: ast.Module) -> Iterator[ast.AST]:
    """Statements that run when the module is imported; what only type checkers see is left out."""
    for node in module.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_go_one_way(floor: str) -> None:
    above = FLOORS[: FLOORS.index(floor)]
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        if module.parts[0] == floor
        for name in imported(ast.walk(tree(module)))
        if name.split(".")[0] in above
    ]
    assert wrong == []


def test_the_models_share_nothing_but_what_is_common() -> None:
    wrong = []
    for module in MODULES:
        if module.parts[0] == "models" and len(module.parts) > 2:
            own = {"common", module.parts[1]}
            for name in imported(ast.walk(tree(module))):
                parts = name.split(".")
                if (
                    parts[0] == "models"
                    and len(parts) > 1
                    and (ROOT / "models" / parts[1]).is_dir()
                    and parts[1] not in own
                ):
                    wrong.append(f"{module} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("name", ["stage.py", "config.py", "spec.py"])
def test_what_every_command_imports_is_light(name: str) -> None:
    wrong = [
        f"{module} imports {found}"
        for module in MODULES
        if module.name == name
        for found in imported(top_level(tree(module)))
        if found.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_every_module_begins_with_what_it_is_for() -> None:
    assert [str(module) for module in MODULES if not ast.get_docstring(tree(module))] == []


def test_a_class_name_means_one_thing() -> None:
    """Model folders have the same file and class names on purpose; elsewhere a public name is defined once."""
    places = defaultdict(list)
    for module in MODULES:
        if module.parts[0] == "models" and module.parts[1] != "common":
            continue
        for node in tree(module).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(str(module))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
