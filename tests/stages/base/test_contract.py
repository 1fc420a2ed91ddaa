"""A stage cannot be defined without stating whether it holds samples, and how it forgets them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stages.base.contract import Inputs, Partition, Stage, StageConfig, StageContext
from stages.base.forgetting import Removal


def methods() -> dict[str, Any]:
    def partitions(self: Any, inputs: Inputs) -> Sequence[Partition]:
        return []

    def run(self: Any, partition: Partition, context: StageContext) -> None:
        return

    return {"name": "toy", "partitions": partitions, "run": run}


def forget(cls: Any, *arguments: Any) -> Removal:
    return Removal()


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({}, "Toy does not state whether it holds samples: write `holds_samples = True` and a classmethod `forget`"),
        ({"holds_samples": None}, "Toy does not state whether it holds samples"),
        ({"holds_samples": True}, "Toy states `holds_samples = True` but has no classmethod `forget`: implement it"),
        ({"holds_samples": True, "forget": forget}, "has no classmethod `forget`"),
        ({"holds_samples": False, "forget": classmethod(forget)}, "but has `forget`: state True"),
    ],
)
def test_a_stage_that_does_not_say_is_refused_where_it_is_defined(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        type("Toy", (Stage,), {**methods(), **stated})


def test_a_stage_that_says_is_defined_and_its_subclasses_inherit_it() -> None:
    holder = type("Holder", (Stage,), {**methods(), "holds_samples": True, "forget": classmethod(forget)})
    derived = type("Derived", (holder,), {"name": "derived"})
    assert derived.holds_samples
    assert not type("Other", (Stage,), {**methods(), "holds_samples": False}).holds_samples


def test_an_abstract_base_need_not_say() -> None:
    class Base(Stage[StageConfig]):
        def partitions(self, inputs: Inputs) -> Sequence[Partition]:
            return []

        @abstractmethod
        def extra(self) -> None: ...

    assert not hasattr(Base, "holds_samples")


def test_by_default_all_scratch_of_a_stage_is_removed(tmp_path: Path) -> None:
    (tmp_path / "scratch" / "below").mkdir(parents=True)
    (tmp_path / "scratch" / "below" / "caption.txt").write_text("a red square")
    Stage.forget_scratch(tmp_path / "scratch", set())
    assert not (tmp_path / "scratch").exists()
