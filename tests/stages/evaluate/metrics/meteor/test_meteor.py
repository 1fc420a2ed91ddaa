"""METEOR against scores its reference gave."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from stages.evaluate.metrics.meteor import Meteor, aggregate, meteor, score, score_of_sums


@pytest.fixture(scope="module")
def metric() -> Meteor:
    return Meteor()


def test_a_thousand_captions_score_as_the_jar_scored_them(shared: Path) -> None:
    folder = shared / "golden" / "captions_fakecap1000"
    with gzip.open(folder / "data.jsonl.gz", "rt", encoding="utf-8") as file:
        images = [json.loads(line) for line in file]
    found = meteor([i["cand_tok"] for i in images], [i["refs_tok"] for i in images])
    assert found.per_image == pytest.approx([i["scores"]["METEOR"] for i in images], rel=0, abs=1e-12)
    assert found.corpus == pytest.approx(0.19525467177780284, rel=0, abs=1e-12)


def test_edge_cases_score_as_the_jar_scored_them(shared: Path, metric: Meteor) -> None:
    cases = json.loads((shared / "golden" / "caption_scorer_edge_cases.json").read_text(encoding="utf-8"))
    compared = 0
    for name, case in cases.items():
        if not isinstance(case, dict) or not isinstance(case.get("METEOR"), dict):
            continue
        each = [metric.statistics(case["res"][i][0], case["gts"][i]) for i in case["gts"]]
        expected = case["METEOR"]
        assert [score(one) for one in each] == pytest.approx(expected["per_image"], rel=0, abs=1e-12), name
        assert aggregate(each) == pytest.approx(expected["corpus"], rel=0, abs=1e-12), name
        compared += 1
    assert compared > 3


def test_a_bootstrap_sample_scores_as_its_images_do(metric: Meteor) -> None:
    texts = [("a dog runs", ["a dog is running"]), ("the cat sat", ["the cat sat"]), ("", ["a man"])]
    found = meteor([c for c, _ in texts], [r for _, r in texts])
    again = [0, 0, 1, 2]
    sampled = aggregate([metric.statistics(*texts[i]) for i in again])
    assert float(score_of_sums(found.statistics[again].sum(axis=0))) == sampled
    assert score_of_sums(np.stack([found.statistics.sum(axis=0)] * 2)).shape == (2,)


def test_the_number_of_workers_changes_nothing() -> None:
    candidates = [f"a man riding {i % 7} horses" for i in range(2100)]
    references = [[f"a person rides {i % 5} horses", "two dogs"] for i in range(2100)]
    one, two = meteor(candidates, references), meteor(candidates, references, workers=2)
    assert np.array_equal(one.statistics, two.statistics)
    assert np.array_equal(one.per_image, two.per_image)


@pytest.mark.parametrize("bars", ["a man ||| riding a horse", "a man\nriding a horse"])
def test_a_reference_with_a_separator_stays_one_text(metric: Meteor, bars: str) -> None:
    plain = metric.statistics("a man riding a horse", ["a man riding a horse"])
    assert metric.statistics("a man riding a horse", [bars]) == plain


def test_of_equally_good_references_the_first_counts(metric: Meteor) -> None:
    assert metric.statistics("cat", ["dog", "the dog"]).reference_length == 1
    assert metric.statistics("cat", ["the dog", "dog"]).reference_length == 2


def test_empty_texts_score_zero() -> None:
    found = meteor(["", "a dog", ""], [["a dog"], [""], []])
    assert found.per_image.tolist() == [0.0, 0.0, 0.0]
    assert found.corpus == 0.0
    assert meteor([], []).corpus == 0.0


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        meteor(["a dog"], [])


@pytest.mark.parametrize("which", ["good", "bad"])
def test_the_clipscore_example_scores_as_published(shared: Path, which: str) -> None:
    from stages.evaluate.metrics.ptb.tokenize import tokenize

    example = json.loads((shared / "golden" / "clipscore_example.json").read_text(encoding="utf-8"))
    candidates = example[which]["cands"]
    found = meteor(tokenize(list(candidates.values())), [tokenize(example["refs"][i]) for i in candidates])
    assert found.corpus == pytest.approx(example[which]["computed"]["METEOR"], rel=0, abs=1e-12)
