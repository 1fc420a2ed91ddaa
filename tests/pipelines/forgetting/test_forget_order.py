"""Every stage of the pipeline states whether it holds samples; the order of forgetting follows from declarations."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.dag import STAGES
from pipelines.forgetting.forget import forget_order
from stages.base.contract import Stage
from stages.base.forgetting import Removal


def toy(name: str, holds: bool = True, before: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> type[Stage[Any]]:
    body: dict[str, Any] = {"name": name, "holds_samples": holds, "forget_before": before, "forget_after": after}
    body |= {"partitions": lambda self, inputs: [], "run": lambda self, partition, context: None}
    if holds:
        body["forget"] = classmethod(lambda cls, artifact, inputs, forgotten, out: Removal())
    return type(name.title(), (Stage,), body)


def names(*stages: type[Stage[Any]]) -> list[str]:
    return [stage.name for stage in forget_order(stages)]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_stage_states_itself_whether_it_holds_samples(stage: type[Stage[Any]]) -> None:
    assert isinstance(vars(stage).get("holds_samples"), bool), "not inherited: state it in the class's own body"
    assert ("forget" in vars(stage)) == stage.holds_samples


def test_the_pipelines_order() -> None:
    order = names(*STAGES)
    assert sorted(order) == ["download", "index", "ingest", "select", "shard", "signals", "tokens"]
    assert order.index("tokens") < order.index("shard")
    assert order.index("download") < order.index("index")


def test_declarations_come_before_the_order_given() -> None:
    assert names(toy("a"), toy("b"), toy("c")) == ["a", "b", "c"]
    assert names(toy("a"), toy("b", before=("a",)), toy("c")) == ["b", "c", "a"]
    assert names(toy("a", after=("c",)), toy("b"), toy("c", after=("b",))) == ["b", "c", "a"]
    assert names(toy("a"), toy("b", holds=False)) == ["a"]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="stage b: forget_after names 'x', which is no stage that holds samples"):
        names(toy("a"), toy("b", after=("x",)))
    with pytest.raises(ValueError, match="stage a: forget_before names 'b'"):
        names(toy("a", before=("b",)), toy("b", holds=False))


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match=r"form a cycle: .* → "):
        names(toy("a", before=("b",)), toy("b", before=("c",)), toy("c", before=("a",)))
