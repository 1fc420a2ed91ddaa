"""Caption metrics against their reference implementations, and what must not change them."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluate.metrics.captions.bleu import bleu
from stages.evaluate.metrics.captions.cider import cider_d
from stages.evaluate.metrics.captions.frequencies import frequencies_of, read_frequencies, write_frequencies
from stages.evaluate.metrics.captions.ngrams import count
from stages.evaluate.metrics.captions.rouge import rouge_l
from stages.evaluate.metrics.captions.suite import CaptionScorer

CHEAP = ["bleu", "rouge_l", "cider_d"]
# Few words, so that n-grams meet; white space that only some of the reference's splits know.
WORDS = st.sampled_from(["a", "dog", "cat", "runs", "the", "1\u00a01/2", "on"])
CAPTION = st.lists(WORDS, max_size=9).map(" ".join)
IMAGES = st.lists(st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=4)), min_size=2, max_size=6)


@pytest.fixture(scope="module")
def corpus(shared):
    with gzip.open(shared / "golden/captions_fakecap1000/data.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def all_scores(candidates, references):
    counted = count(candidates, references)
    return [bleu(counted), rouge_l(candidates, references), cider_d(counted)]


def by_reference(candidates, references):
    """pycocoevalcap's own scorers: name -> (corpus, per image)."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    gts, res = dict(enumerate(references)), {i: [caption] for i, caption in enumerate(candidates)}
    whole, each = Bleu(4).compute_score(gts, res, verbose=0)
    found = {f"Bleu_{n + 1}": (whole[n], each[n]) for n in range(4)}
    return found | {"ROUGE_L": Rouge().compute_score(gts, res), "CIDEr": Cider().compute_score(gts, res)}


def test_scores_of_the_published_example_are_the_references(corpus, shared):
    found = CaptionScorer([d["refs"] for d in corpus], CHEAP).score([d["cand"] for d in corpus])
    golden = json.loads((shared / "golden/captions_fakecap1000/corpus.json").read_text())["scores"]
    for name, value in found.total().items():
        assert value == pytest.approx(golden[name], abs=1e-12)
        assert found.per_image()[name] == pytest.approx([d["scores"][name] for d in corpus], abs=1e-12)


def test_edge_cases_score_as_the_references(shared):
    for name, case in json.loads((shared / "golden/caption_scorer_edge_cases.json").read_text()).items():
        references = list(case["gts"].values())
        candidates = [case["res"][key][0] for key in case["gts"]]
        of_bleu, of_rouge, of_cider = all_scores(candidates, references)
        assert list(of_bleu.total().values()) == pytest.approx(case["Bleu"]["corpus"], abs=1e-12), name
        assert pytest.approx(np.array(case["Bleu"]["per_image"]), abs=1e-12) == of_bleu.per_sample.T, name
        for ours, key in ((of_rouge, "ROUGE_L"), (of_cider, "CIDEr")):
            assert ours.per_sample[:, 0] == pytest.approx(case[key]["per_image"], abs=1e-12), name
            assert ours.total()[key] == pytest.approx(case[key]["corpus"], abs=1e-12), name


@settings(deadline=None)
@given(IMAGES)
def test_any_tokens_score_as_the_reference_scores_them(images):
    candidates, references = [c for c, _ in images], [r for _, r in images]
    if not any(" " in r or r for refs in references for r in refs):
        return  # the reference has no maximum of nothing
    expected = by_reference(candidates, references)
    for ours in all_scores(candidates, references):
        for i, name in enumerate(ours.names):
            corpus, each = expected[name]
            assert ours.total()[name] == pytest.approx(float(corpus), abs=1e-12)
            assert ours.per_sample[:, i] == pytest.approx(np.array(each), abs=1e-12)


def test_captions_of_more_than_64_words_score_as_the_reference_scores_them():
    draw = random.Random(0)
    captions = [" ".join(draw.choices("abcdefg", k=length)) for length in (1, 63, 64, 65, 66, 130, 200, 64)]
    candidates, references = captions, [[captions[-1 - i], captions[i - 1]] for i in range(len(captions))]
    expected = by_reference(candidates, references)
    for ours in all_scores(candidates, references):
        for i, name in enumerate(ours.names):
            assert ours.per_sample[:, i] == pytest.approx(np.array(expected[name][1]), abs=1e-12)


@settings(deadline=None)
@given(IMAGES, st.randoms(use_true_random=False))
def test_the_order_of_images_and_references_changes_nothing(images, draw):
    order = draw.sample(range(len(images)), len(images))
    shuffled = [(images[i][0], draw.sample(images[i][1], len(images[i][1]))) for i in order]
    for one, two in zip(all_scores(*zip(*images, strict=True)), all_scores(*zip(*shuffled, strict=True)), strict=True):
        assert list(one.total().values()) == pytest.approx(list(two.total().values()), abs=1e-12)
        assert one.per_sample[order] == pytest.approx(two.per_sample, abs=1e-12)


@settings(deadline=None)
@given(IMAGES, st.integers(1, 5))
def test_the_size_of_a_batch_changes_nothing(images, batch):
    candidates, references = zip(*images, strict=True)
    assert np.array_equal(
        rouge_l(candidates, references).per_sample, rouge_l(candidates, references, batch=batch).per_sample
    )


@given(st.lists(st.permutations("abcdefgh").map(" ".join), min_size=2, max_size=5, unique=True))
def test_a_perfect_candidate_scores_the_maximum(captions):
    of_bleu, of_rouge, of_cider = all_scores(captions, [[caption] for caption in captions])
    assert list(of_bleu.total().values()) == pytest.approx([1] * 4, abs=1e-8)  # the reference's smoothing
    assert of_rouge.total() == {"ROUGE_L": 1}
    # An n-gram that all images share weighs nothing; where a caption has others of every length, it scores 10.
    assert of_cider.per_sample.max() <= 10 + 1e-9


def test_a_perfect_caption_of_a_picture_like_no_other_has_a_cider_of_ten():
    captions = ["a dog runs fast", "the cat sat down"]
    assert cider_d(count(captions, [[c] for c in captions])).total()["CIDEr"] == pytest.approx(10)


def test_frequencies_from_a_file_are_those_of_the_collection(tmp_path, corpus):
    references = [d["refs_tok"] for d in corpus]
    candidates = [d["cand_tok"] for d in corpus]
    file = tmp_path / "df.parquet"
    write_frequencies(frequencies_of(references), file)
    frequencies = read_frequencies(file)
    expected = cider_d(count(candidates, references)).per_sample
    for few in (slice(0, 1), slice(10, 30)):
        counted = count(candidates[few], references[few])
        found = cider_d(counted, frequencies.of(counted), frequencies.images)
        assert found.per_sample == pytest.approx(expected[few], abs=1e-12)


def test_a_single_image_has_no_cider_of_its_own_and_the_rest_is_scored():
    found = CaptionScorer([["a dog"]], CHEAP).score(["a dog"])
    assert "single image" in found.unavailable["CIDEr"]
    assert found.total()["ROUGE_L"] == 1


def test_an_empty_candidate_scores_zero_and_leaves_the_others():
    found = CaptionScorer([["a dog runs fast"], ["the cat sat down"]], CHEAP).score(["", "the cat sat down"])
    assert found.per_image()["CIDEr"] == pytest.approx([0, 10])
    assert found.per_image()["ROUGE_L"] == pytest.approx([0, 1])


def test_what_cannot_be_computed_is_named_and_never_zero(monkeypatch):
    monkeypatch.delenv("SPICE_CORENLP_DIR", raising=False)
    found = CaptionScorer([["a dog"], ["a cat"]], ["cider_d", "spice"]).score(["a dog", "a cat"])
    assert "SPICE" not in found.total()
    assert "SPICE_CORENLP_DIR" in found.unavailable["SPICE"]
    assert "CIDEr" in found.total()


def test_an_image_without_references_is_an_error():
    with pytest.raises(ValueError, match="image number 1 has no reference"):
        CaptionScorer([["a"], []], CHEAP)
    with pytest.raises(ValueError, match="1 candidates for the references of 2 images"):
        CaptionScorer([["a"], ["b"]], CHEAP).score(["a"])


def test_metrics_need_neither_torch_nor_ray():
    code = (
        "import sys, stages.evaluate.metrics.vqa.accuracy\n"
        "from stages.evaluate.metrics.captions.suite import CaptionScorer\n"
        "CaptionScorer([['a dog'], ['a cat']]).score(['a dog', 'a cat'])\n"
        "print([name for name in ('torch', 'ray', 'transformers', 'mlflow', 'scipy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
