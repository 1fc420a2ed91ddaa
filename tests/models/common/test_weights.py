"""Folders of weights that are incomplete or contradict themselves are refused with their key, file and remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models.common.errors import UserError
from models.common.weights import INDEX, read_folder

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def folder(path: Path, weight_map: Any) -> Path:
    """Two files with a tensor each, `a` and `b`, and an index."""
    save_file({"a": torch.arange(6.0).view(2, 3)}, path / FIRST)
    save_file({"b": torch.ones(4)}, path / SECOND)
    (path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return path


def test_tensors_are_found_by_the_index(tmp_path: Path) -> None:
    values = read_folder(folder(tmp_path, {"a": FIRST, "b": SECOND}), "key")
    assert values.keys() == {"a", "b"}
    assert values["a"].flat(2, 5).tolist() == [2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("weight_map", "match"),
    [
        ({"a": SECOND, "b": SECOND}, rf"^key: \S*{SECOND} has no tensor a, which its index looks for there; get"),
        ({"a": FIRST, "c": SECOND}, rf"^key: \S*{SECOND} has no tensor c"),
        (
            {"a": FIRST, "b": "other.safetensors"},
            r"^key: \S*other\.safetensors: these weights cannot be read",
        ),
        ([FIRST], rf"^key: \S*{INDEX} is no index of safetensors files"),
        ({"a": None}, rf"^key: \S*{INDEX} is no index of safetensors files"),
    ],
)
def test_an_index_that_its_files_contradict_is_refused(weight_map: Any, match: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=match) as raised:
        read_folder(folder(tmp_path, weight_map), "key")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:-8], lambda data: data[:20], lambda data: b"", lambda data: b"version https://git-lfs.gith"],
)
def test_a_file_that_is_cut_short_is_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = folder(tmp_path, {"a": FIRST, "b": SECOND}) / FIRST
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=rf"^key: \S*{FIRST}: these weights cannot be read \(.*\); get them again$"):
        read_folder(tmp_path, "key")
