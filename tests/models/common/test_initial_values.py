"""Initial values made in pieces: equal to the whole, distributed as the modules' own, a function of seed and name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from models import registry
from models.common import initial_values
from models.common.initial_values import construct


@pytest.mark.parametrize("name", ["blip2_tiny", "florence2_tiny"])
def test_values_are_distributed_as_the_modules_draw_them(name: str, config: Callable[..., Any]) -> None:
    _, values = registry.construct(config(name), seed=3)
    torch.manual_seed(0)
    kind = type(registry.build(config(name, vocabulary=60)))
    own = kind(kind.config_class.of(config(name), pad_id=0, bos_id=1, eos_id=2))
    for key, drawn in own.state_dict().items():
        if key not in values:
            continue  # a further name of a tied weight
        made = values[key].whole()
        assert (made.shape, made.dtype) == (drawn.shape, drawn.dtype), key
        if drawn.is_floating_point() and drawn.numel() > 50:
            spread = float(drawn.std())
            loose = 0.1 if drawn.numel() > 1000 else 0.5
            assert float(made.std()) == pytest.approx(spread, rel=loose, abs=1e-7), key
            assert float(made.mean()) == pytest.approx(float(drawn.mean()), abs=loose * spread + 1e-7), key
        elif not drawn.is_floating_point() or drawn.std(correction=0) == 0:
            assert torch.equal(made, drawn), key


def test_any_range_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_values, "BLOCK", 64)
    _, values = construct(lambda: nn.Linear(10, 100), seed=1)
    whole = values["weight"].whole().reshape(-1)
    for start, stop in ((0, 1000), (0, 64), (63, 65), (640, 1000), (5, 5), (999, 1000)):
        assert torch.equal(values["weight"].flat(start, stop), whole[start:stop])
    assert whole.unique().numel() > 900  # no block repeats another


def test_values_follow_from_seed_and_name_alone() -> None:
    _, alone = construct(lambda: nn.ModuleDict({"b": nn.Linear(8, 8)}), seed=1)
    _, beside = construct(lambda: nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)}), seed=1)
    _, other = construct(lambda: nn.ModuleDict({"b": nn.Linear(8, 8)}), seed=2)
    assert torch.equal(alone["b.weight"].whole(), beside["b.weight"].whole())
    assert not torch.equal(beside["a.weight"].whole(), beside["b.weight"].whole())
    assert not torch.equal(alone["b.weight"].whole(), other["b.weight"].whole())


class Unusual(nn.Module):
    """Parameters and buffers that no elementwise initialisation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.scaled = nn.Parameter(torch.randn(4, 6) * 0.02 + 1)
        self.padded = nn.Parameter(torch.empty(5, 6))
        nn.init.normal_(self.padded)
        with torch.no_grad():
            self.padded[2].zero_()
            self.padded[:, 1].fill_(7)
        self.truncated = nn.Parameter(torch.ones(40, 40))
        nn.init.trunc_normal_(self.truncated, std=2.0, a=-1.0, b=1.0)
        self.orthogonal = nn.Parameter(torch.empty(4, 4))
        nn.init.orthogonal_(self.orthogonal)
        self.register_buffer("frequencies", 1.0 / (10000 ** (torch.arange(0, 8, 2) / 8)), persistent=False)


def test_what_is_not_elementwise_is_made_as_it_was_recorded() -> None:
    _, values = construct(Unusual, seed=0)
    made = {name: one.whole() for name, one in values.items()}
    assert float(made["scaled"].mean()) == pytest.approx(1, abs=0.02)
    assert 0 < made["scaled"].std() < 0.05
    assert torch.equal(made["padded"][2], torch.tensor([0.0, 7, 0, 0, 0, 0]))
    assert (made["padded"][:, 1] == 7).all()
    assert made["padded"][[0, 1, 3, 4]][:, [0, 2, 3]].std() > 0.5
    assert made["truncated"].abs().max() <= 1
    assert 0.4 < made["truncated"].std() < 0.7
    torch.testing.assert_close(made["orthogonal"] @ made["orthogonal"].T, torch.eye(4))
    torch.testing.assert_close(made["frequencies"], 1.0 / (10000 ** (torch.arange(0, 8, 2) / 8)))
    _, again = construct(Unusual, seed=0)
    assert all(torch.equal(again[name].whole(), one) for name, one in made.items())
