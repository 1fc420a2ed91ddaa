"""Recall at k: LAVIS's figures, and a stated rule for ties."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.evaluate.metrics import retrieval
from stages.evaluate.metrics.retrieval import ranks, recalls


def golden(case):
    """The matrix that a golden case's recipe describes, and its map."""
    images, each = case["n_images"], case["caps_per_image"]
    counts = [each] * images if isinstance(each, int) else [3 + i % 5 for i in range(images)]
    owners = np.repeat(np.arange(images), counts)
    scores = np.random.default_rng(case["seed"]).standard_normal((images, len(owners)))
    scores[owners, np.arange(len(owners))] += 3 * case["bonus"]
    return scores if case["round"] is None else np.round(scores, case["round"]), owners


def test_every_golden_case_has_lavis_figures(shared):
    cases = json.loads((shared / "golden/retrieval_lavis.json").read_text())
    for name, case in cases.items():
        if name != "note":
            scores, owners = golden(case)
            for other in (None, scores.T.copy()):
                found = recalls(ranks(scores, owners, other), owners).total()
                for key, value in found.items():
                    assert value == pytest.approx(case["metrics"][key], abs=1e-12), (name, key)


@given(st.data())
def test_ranks_are_those_of_a_stable_descending_sort(data):
    images, texts = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9))
    owners = np.array(data.draw(st.lists(st.integers(0, images - 1), min_size=texts, max_size=texts)))
    values = st.lists(st.integers(0, 3), min_size=images * texts, max_size=images * texts)
    scores = np.array(data.draw(values)).reshape(images, texts)
    found = ranks(scores, owners)
    for image in range(images):
        order = np.argsort(-scores[image], kind="stable")
        mine = [place for place, text in enumerate(order) if owners[text] == image]
        assert found.of_texts[image] == (mine[0] if mine else -1)
    for text in range(texts):
        order = np.argsort(-scores[:, text], kind="stable")
        assert order[found.of_images[text]] == owners[text]


def test_blocks_of_rows_change_nothing(monkeypatch):
    scores, owners = golden({"n_images": 20, "caps_per_image": 5, "seed": 4, "bonus": 0.3, "round": 1})
    whole = ranks(scores, owners, scores.T)
    monkeypatch.setattr(retrieval, "_CELLS_AT_ONCE", 150)
    for other in (None, scores.T):
        found = ranks(scores, owners, other)
        assert np.array_equal(found.of_texts, whole.of_texts)
        assert np.array_equal(found.of_images, whole.of_images)


def test_a_constant_matrix_is_no_perfect_one():
    owners = np.arange(100)
    found = recalls(ranks(np.zeros((100, 100)), owners), owners).total()
    assert (found["txt_r1"], found["img_r1"]) == (1, 1)


def test_what_cannot_be_ranked_is_named():
    scores = np.zeros((3, 4))
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="row 1, column 2 is NaN"):
        ranks(scores, np.array([0, 1, 2, 2]))
    with pytest.raises(ValueError, match="4 columns of scores for 2 texts"):
        ranks(scores, np.array([0, 1]))
