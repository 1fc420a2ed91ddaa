"""The table of architectures: lookup, validation by the chosen architecture, the folders' common layout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from models import registry
from models.common.errors import UserError

ROOT = Path(__file__).parents[2]


class Root(BaseModel):
    """A schema with a model of any architecture in it."""

    model: registry.AnyModelConfig


def test_each_architecture_is_registered_under_the_name_in_its_config() -> None:
    assert {"blip2", "florence2"} <= set(registry.architectures())
    for name in registry.architectures():
        spec = registry.spec(name)
        assert spec.config.model_fields["architecture"].default == name
        assert spec.text_objective in spec.objectives


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        UserError, match=r"architecture 'blip9' is not known \(known: blip2, florence2.*pairmill.models"
    ):
        registry.spec("blip9")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Registers entry points as installed packages would."""

    def register(**values: str | tuple[str, ...]) -> None:
        pairs = [(n, v) for n, value in values.items() for v in ((value,) if isinstance(value, str) else value)]
        entries = [EntryPoint(name, value, registry.GROUP) for name, value in pairs]
        monkeypatch.setattr(registry, "entry_points", lambda group: entries)
        registry.clear_cache()

    yield register
    monkeypatch.undo()
    registry.clear_cache()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:SPEC", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("models.blip2.spec:NOTHING", "AttributeError"),
        ("models.registry:GROUP", "is not a models.common.spec.ModelSpec"),
    ],
)
def test_a_package_that_does_not_load_is_named_and_blocks_no_other(
    registered: Callable[..., None], value: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    registered(broken=value)
    with pytest.raises(UserError, match=f"architecture 'broken'.*{reason}"):
        registry.spec("broken")
    assert registry.conf_folders() == registry.conf_folders() == ()
    assert caplog.text.count("architecture 'broken'") == 1
    assert registry.spec("blip2").config.model_fields["architecture"].default == "blip2"


def test_a_name_that_two_packages_register_is_refused_and_one_of_ours_stays_ours(
    registered: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    registered(twice=("one.spec:SPEC", "other.spec:SPEC"), blip2="theirs.spec:SPEC")
    with pytest.raises(UserError, match=r"two packages \(one.spec:SPEC and other.spec:SPEC\)"):
        registry.spec("twice")
    assert registry.spec("blip2").config.__module__ == "models.blip2.config"
    assert "'blip2' of theirs.spec:SPEC is ignored" in caplog.text


def test_looking_up_architectures_needs_no_heavy_import() -> None:
    script = (
        "import sys, models.registry as r; [r.spec(name) for name in r.architectures()];"
        "print(sorted({'torch', 'transformers', 'numpy', 'ray'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


def test_a_field_of_any_model_is_validated_and_dumped_by_its_architecture(config: Callable[..., Any]) -> None:
    given = config("florence2_tiny")
    for model in (given, given.model_dump()):
        root = Root.model_validate({"model": model})
        assert root.model == given
        assert root.model_dump(mode="json")["model"] == given.model_dump(mode="json")
        assert json.loads(root.model_dump_json())["model"]["reconstruction"]["layers"] == 1


@pytest.mark.parametrize(
    ("changes", "location"),
    [
        ({"vision": {"width": 64}}, ("model", "vision", "image_size")),
        ({"adapterz": {}}, ("model", "adapterz")),
        ({"architecture": "blip9"}, ("model", "architecture")),
        ({"architecture": None}, ("model", "architecture")),
    ],
)
def test_a_mistake_in_a_model_is_located_inside_it(
    changes: dict[str, Any], location: tuple[str, ...], config: Callable[..., Any]
) -> None:
    fields = {**config("blip2_tiny").model_dump(), **changes}
    with pytest.raises(ValidationError) as raised:
        Root.model_validate({"model": fields})
    assert location in {error["loc"] for error in raised.value.errors()}


def test_a_value_that_is_no_model_is_refused() -> None:
    with pytest.raises(ValidationError, match="model"):
        Root.model_validate({"model": "blip2"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 512, "patch_size": 14}, "image_size 512 is not divisible by patch_size 14"),
        ({"width": 66}, "width 66 is not divisible by heads 4"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, int], message: str, config: Callable[..., Any]) -> None:
    vision = {**config("blip2_tiny").vision.model_dump(), **changes}
    with pytest.raises(ValidationError, match=message):
        config("blip2_tiny", vision=vision)


def test_florence2_needs_room_for_a_prompt(config: Callable[..., Any]) -> None:
    language = {**config("florence2_tiny").language.model_dump(), "positions": 16}
    with pytest.raises(ValidationError, match="leaves no room for a prompt"):
        config("florence2_tiny", language=language)


def test_every_architectures_folder_has_the_same_files() -> None:
    """An architecture may have more beside them, for what only it has."""
    common = {
        "__init__",
        "spec",
        "config",
        "model",
        "vision",
        "language",
        "objectives",
        "initialise",
        "parameter_count",
    }
    for name in ("blip2", "florence2"):
        assert common <= {path.stem for path in (ROOT / "models" / name).glob("*.py")}, name
