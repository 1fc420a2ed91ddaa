"""Caption metrics and PTB tokens against their reference implementations."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from stages.evaluate.metrics.captions.bleu import bleu
from stages.evaluate.metrics.captions.cider import cider_d
from stages.evaluate.metrics.captions.rouge import rouge_l
from stages.evaluate.metrics.captions.score import score

NAMES = {f"BLEU-{n}": f"Bleu_{n}" for n in range(1, 5)} | {"ROUGE-L": "ROUGE_L", "CIDEr": "CIDEr"}
ALL = ["bleu", "rouge_l", "cider_d"]


@pytest.fixture(scope="module")
def corpus(shared):
    with gzip.open(shared / "golden/captions_fakecap1000/data.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_scores_of_the_published_example_are_the_references(corpus, shared):
    found = score([d["cand"] for d in corpus], [d["refs"] for d in corpus], ALL)
    golden = json.loads((shared / "golden/captions_fakecap1000/corpus.json").read_text())["scores"]
    for ours, theirs in NAMES.items():
        assert found.corpus[ours] == pytest.approx(golden[theirs], abs=1e-12)
        assert found.per_image[ours] == pytest.approx([d["scores"][theirs] for d in corpus], abs=1e-12)


def test_edge_cases_score_as_the_references(shared):
    for name, case in json.loads((shared / "golden/caption_scorer_edge_cases.json").read_text()).items():
        references = list(case["gts"].values())
        candidates = [case["res"][key][0] for key in case["gts"]]
        found = bleu(candidates, references)
        assert found.corpus == pytest.approx(case["Bleu"]["corpus"], abs=1e-12), name
        for ours, theirs in zip(found.per_image, case["Bleu"]["per_image"], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-12), name
        assert rouge_l(candidates, references) == pytest.approx(case["ROUGE_L"]["per_image"], abs=1e-12), name
        assert cider_d(candidates, references) == pytest.approx(case["CIDEr"]["per_image"], abs=1e-12), name


def test_an_empty_candidate_scores_zero_and_leaves_the_others():
    found = score(["", "the cat sat down"], [["a dog runs fast"], ["the cat sat down"]], ALL)
    assert found.per_image["CIDEr"] == pytest.approx([0, 10])
    assert found.per_image["ROUGE-L"] == pytest.approx([0, 1])


def test_what_cannot_be_computed_is_named_and_never_zero():
    found = score(["a dog"], [["a dog"]], ["cider_d", "spice"])
    assert "SPICE" not in found.corpus
    assert found.unavailable["spice"]
    assert "CIDEr" in found.corpus


def test_an_image_without_references_is_an_error():
    with pytest.raises(ValueError, match="image number 1 has no reference"):
        score(["a", "b"], [["a"], []], ALL)


def test_metrics_need_neither_torch_nor_ray():
    code = (
        "import sys, stages.evaluate.metrics.vqa, stages.evaluate.metrics.captions.score\n"
        "print([name for name in ('torch', 'ray', 'transformers', 'mlflow') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
