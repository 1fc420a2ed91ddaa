"""The rules that a reader of the code relies on: what a stage may import, what stays light, one name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("pipelines", "stages", "models")
MODULES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))

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

#: Folders of `stages/` that belong to no stage.
SHARED = ("base", "imaging", "formats")
#: Stage -> folders or modules of other stages that it may import; docs/design.md says why.
LIBRARIES: dict[str, set[str]] = {
    "download": {"ingest.config", "world.plugin"},
    "select": {"index"},
    "shard": {"download.failed_source"},
    "tokens": {"shard", "tokenizer"},
    "train": {"shard", "tokenizer", "tokens"},
    "pretrain": {"train", "tokenizer"},
    "finetune": {"train", "tokenizer"},
    "evaluate": {"train", "tokenizer"},
}


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


def test_a_stage_imports_no_other_stages_folder_but_those_that_are_libraries() -> None:
    wrong = []
    for module in MODULES:
        if module.parts[0] != "stages" or len(module.parts) < 3:
            continue
        own = module.parts[1]
        for name in imported(ast.walk(tree(module))):
            parts = name.split(".")
            if parts[0] != "stages" or len(parts) < 3 or parts[1] in (own, *SHARED):
                continue
            if parts[1] not in LIBRARIES.get(own, ()) and ".".join(parts[1:3]) not in LIBRARIES.get(own, ()):
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
