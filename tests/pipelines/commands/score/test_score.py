"""What `pairmill score` does besides the figures: domains, frequencies, partial results, intervals, comparison."""

from __future__ import annotations

import importlib
import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages.evaluate.metrics.captions.cider import cider_d
from stages.evaluate.metrics.captions.ngrams import count

WORDS = ["a", "dog", "cat", "man", "runs", "sits", "on", "the", "red", "grass", "near", "some", "tall", "house"]
EXACT = 1e-12


def made(images, seed=0):
    """References and candidates of some images, all plain words."""
    draw = random.Random(seed)

    def caption():
        return " ".join(draw.choices(WORDS, k=draw.randint(4, 10)))

    references = {i: [caption() for _ in range(draw.randint(1, 5))] for i in range(1, images + 1)}
    return references, {i: draw.choice([caption(), refs[0]]) for i, refs in references.items()}


def per_image(references, candidates):
    counted = count(list(candidates.values()), list(references.values()))
    return dict(zip(candidates, cider_d(counted).per_sample[:, 0].tolist(), strict=True))


def test_nocaps_averages_each_domain_with_the_frequencies_of_the_whole(scored, captions):
    references, candidates = made(30)
    names = ["in-domain", "near-domain", "out-domain"]
    domains = {str(i): {"domain": names[i % 3]} for i in references}
    found = scored("nocaps", *captions(references, candidates, **domains), "--metrics", "CIDEr,Bleu_4", "--confidence")
    each = per_image(references, candidates)
    assert list(found["domains"]) == names
    for k, name in enumerate(names):
        mine = [each[i] for i in references if i % 3 == k]
        domain = found["domains"][name]
        assert domain["metrics"]["CIDEr"] == pytest.approx(sum(mine) / len(mine), abs=EXACT)
        assert domain["n"] == len(mine)
        low, high = domain["intervals"]["CIDEr"]
        assert low <= domain["metrics"]["CIDEr"] <= high
    assert found["metrics"]["CIDEr"] == pytest.approx(sum(each.values()) / 30, abs=EXACT)
    # A part of the candidates is judged by the frequencies of all references all the same.
    fewer = {i: caption for i, caption in candidates.items() if i > 10}
    files = captions(references, fewer, **domains)
    partial = scored("nocaps", *files, "--metrics", "cider", "--allow-missing")
    assert partial["metrics"]["CIDEr"] == pytest.approx(sum(each[i] for i in fewer) / len(fewer), abs=EXACT)
    assert partial["partial"][0]["count"] == 10


def test_frequencies_written_for_a_set_serve_a_part_of_it(scored, score, captions, tmp_path):
    references, candidates = made(20)
    file = tmp_path / "df.parquet"
    files = captions(references, candidates)
    code, out, _ = score("captions", *files[:2], "--write-document-frequencies", file)
    assert (code, out) == (0, "")
    whole = scored("captions", *files, "--metrics", "CIDEr")["metrics"]["CIDEr"]
    given = scored("captions", *files, "--metrics", "CIDEr", "--document-frequencies", file)
    assert given["metrics"]["CIDEr"] == pytest.approx(whole, abs=EXACT)
    alone = captions({7: references[7]}, {7: candidates[7]})
    assert "single image" in scored("captions", *alone)["unavailable"]["CIDEr"]
    found = scored("captions", *alone, "--document-frequencies", file)["metrics"]["CIDEr"]
    assert found == pytest.approx(per_image(references, candidates)[7], abs=EXACT)


def test_what_is_missing_is_refused_and_with_leave_scored_as_partial(score, scored, captions):
    references, candidates = made(12)
    del candidates[3], candidates[8]
    files = captions(references, candidates)
    code, out, err = score("captions", *files, "--json")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "cands.json: 2 missing: caption of image 3 8" in err
    assert "--allow-missing" in err
    found = scored("captions", *files, "--allow-missing")
    assert found["n"] == 10
    (problem,) = found["partial"]
    assert (problem["kind"], problem["count"], problem["entries"]) == ("missing", 2, [3, 8])
    expected = scored("captions", *captions({i: references[i] for i in candidates}, candidates))
    assert found["metrics"] == pytest.approx(expected["metrics"], abs=EXACT)


def test_the_order_of_entries_changes_nothing(scored, put):
    references, candidates = made(15)
    annotations = [{"image_id": i, "caption": c} for i, refs in references.items() for c in refs]
    results = [{"image_id": i, "caption": c} for i, c in candidates.items()]
    found = []
    for seed in range(3):
        draw = random.Random(seed)
        # References of one image keep their order: METEOR takes the first of equally good ones, as the reference does.
        images = draw.sample(list(references), len(references))
        sorted_by_image = sorted(annotations, key=lambda a: images.index(a["image_id"]))
        refs = put("refs.json", {"annotations": sorted_by_image})
        cands = put("cands.json", draw.sample(results, len(results)))
        found.append(scored("captions", "--references", refs, "--candidates", cands, "--confidence"))
        found[-1].pop("protocol")
    assert found[0] == found[1] == found[2]


def test_a_perfect_result_scores_the_maximum(scored, captions, put, tmp_path):
    references = {i: [f"{w} {x} sits near a tall house"] for i, (w, x) in enumerate([("dog", "red"), ("cat", "grey")])}
    found = scored("captions", *captions(references, {i: refs[0] for i, refs in references.items()}))["metrics"]
    assert found["METEOR"] == 1
    assert found["ROUGE_L"] == 1
    assert found["Bleu_4"] == pytest.approx(1, abs=1e-8)
    annotations = [{"question_id": i, "image_id": i, "answers": [{"answer": "red"}] * 10} for i in range(3)]
    files = ["--annotations", put("a.json", {"annotations": annotations})]
    files += ["--results", put("r.json", [{"question_id": i, "answer": "red"} for i in range(3)])]
    vqa = scored("vqa", *files)
    assert (vqa["accuracy"], vqa["accuracy_normalized"]) == (100, 100)
    np.save(tmp_path / "s.npy", np.eye(12))
    words = ["--scores", tmp_path / "s.npy", "--text-to-image", put("map.json", list(range(12)))]
    found = scored("retrieval", *words)
    assert {found[f"{way}_r{k}"] for way in ("txt", "img") for k in (1, 5, 10)} == {100}


def test_workers_change_nothing(scored, captions, monkeypatch):
    module = importlib.import_module("stages.evaluate.metrics.meteor.meteor")  # its package has a function of the name
    monkeypatch.setattr(module, "_WORTH_A_WORKER", 5)
    files = captions(*made(12))
    one, two = (scored("captions", *files, "--workers", n) for n in (1, 2))
    assert one == two


def test_per_sample_scores_are_written_in_both_formats(scored, captions, tmp_path):
    files = captions(*made(6))
    rows = []
    for name in ("each.jsonl", "each.parquet"):
        found = scored("captions", *files, "--metrics", "CIDEr,METEOR", "--per-sample", tmp_path / name)
        assert list(found["metrics"]) == ["METEOR", "CIDEr"]
    rows = [json.loads(line) for line in (tmp_path / "each.jsonl").read_text().splitlines()]
    assert rows == pq.read_table(tmp_path / "each.parquet").to_pylist()
    assert list(rows[0]) == ["image_id", "caption", "METEOR", "CIDEr"]
    assert sum(row["CIDEr"] for row in rows) / 6 == pytest.approx(found["metrics"]["CIDEr"])


def test_a_mode_of_vqa_can_be_chosen_and_questions_are_checked(scored, score, put):
    annotations = [{"question_id": i, "image_id": 1, "answers": [{"answer": "yes"}] * 10} for i in range(2)]
    files = ["--annotations", put("a.json", {"annotations": annotations})]
    files += ["--results", put("r.json", [{"question_id": i, "answer": "Yes"} for i in range(2)])]
    assert "accuracy_normalized" not in scored("vqa", *files, "--mode", "official")
    assert scored("vqa", *files, "--mode", "normalized")["accuracy_normalized"] == 100
    questions = put("q.json", {"questions": [{"question_id": 0, "image_id": 1, "question": "is it?"}]})
    code, _, err = score("vqa", *files, "--questions", questions)
    assert code == 2
    assert "q.json: 1 missing: question 1" in err


def test_boxes_in_other_spaces_and_answers_that_are_none(scored, put):
    images = [{"id": 1, "width": 200, "height": 100}]
    annotations = [{"id": i, "image_id": 1, "bbox": [20, 20, 100, 50], "caption": "x"} for i in range(4)]
    file = put("a.json", {"images": images, "annotations": annotations})
    results = [
        {"id": 0, "bbox": [0.1, 0.2, 0.5, 0.5]},
        {"id": 1, "text": "<loc_100><loc_200><loc_600><loc_700>"},
        {"id": 2, "bbox": None, "text": "no box at all"},
        {"id": 3, "bbox": [0.6, 0.7, -0.5, -0.5]},
    ]
    found = scored("refexp", "--annotations", file, "--results", put("r.json", results), "--coordinates", "normalized")
    assert (found["accuracy"], found["hits"], found["parse_failures"], found["n"]) == (50, 2, 2, 4)
    declared = put("r.json", {"coordinates": "normalized", "results": results})
    assert scored("refexp", "--annotations", file, "--results", declared)["accuracy"] == 50


def test_fractions_are_not_taken_for_pixels(score, put):
    annotations = [{"id": i, "image_id": i, "bbox": [20, 20, 100, 50]} for i in range(10)]
    results = [{"id": i, "bbox": [0.1, 0.2, 0.5, 0.5]} for i in range(10)]
    code, _, err = score("refexp", "--annotations", put("a.json", annotations), "--results", put("r.json", results))
    assert code == 2
    assert "r.json: no coordinate is above 1" in err
    assert "--coordinates normalized" in err


def test_sentences_of_refcoco_are_a_trial_each(scored, put):
    ref = {"ref_id": 5, "image_id": 1, "bbox": [0, 0, 10, 10], "sentences": [{"sent_id": 1}, {"sent_id": 2}]}
    results = [{"sent_id": 1, "bbox": [0, 0, 10, 10]}, {"sent_id": 2, "bbox": [0, 0, 10, 5]}]
    files = ["--annotations", put("a.json", [ref]), "--results", put("r.json", results)]
    found = scored("refexp", *files)
    assert (found["accuracy"], found["mean_iou"]) == (100, 0.75)


def test_comparison_is_paired(scored, score, captions, put):
    references, candidates = made(40)
    files = captions(references, candidates)
    better = [{"image_id": i, "caption": refs[0]} for i, refs in references.items()]
    words = ["compare", *files, put("better.json", better), "--metrics", "CIDEr,METEOR"]
    found = scored(*words)
    gap = found["metrics"]["CIDEr"]
    assert gap["difference"] == gap["second"] - gap["first"] > 0
    assert 0 < gap["interval"][0] < gap["difference"] < gap["interval"][1]
    assert gap["p_value"] == pytest.approx(2 / 1001)
    assert scored(*words) == found
    same = scored("compare", *files, files[-1], "--metrics", "CIDEr")["metrics"]["CIDEr"]
    assert (same["difference"], same["interval"], same["p_value"]) == (0, [0, 0], 1)
    code, _, err = score("compare", "--references", files[1])
    assert code == 2
    assert "--candidates" in err


def test_comparison_takes_answers_boxes_and_matrices(scored, put, tmp_path):
    questions = [{"question_id": i, "image_id": i, "answers": [{"answer": "yes"}] * 10} for i in range(20)]
    yes, no = ([{"question_id": i, "answer": answer} for i in range(20)] for answer in ("yes", "no"))
    files = ["--annotations", put("a.json", {"annotations": questions}), "--results", put("n", no), put("y", yes)]
    assert scored("compare", *files)["metrics"]["accuracy"]["difference"] == 100
    boxes = [{"id": i, "image_id": i, "bbox": [0, 0, 9, 9]} for i in range(20)]
    files = ["--annotations", put("a.json", {"annotations": boxes}), "--results", put("x", boxes), put("y", boxes)]
    assert scored("compare", *files)["metrics"]["accuracy"]["second"] == 100
    for name in ("one.npy", "two.npy"):
        np.save(tmp_path / name, np.eye(5))
    words = ["--text-to-image", put("map.json", list(range(5))), "--scores", tmp_path / "one.npy", tmp_path / "two.npy"]
    assert scored("compare", *words)["metrics"]["img_r1"]["first"] == 100


def test_the_table_has_every_score_and_its_interval(score, captions):
    code, out, err = score("captions", *captions(*made(8)), "--confidence")
    assert (code, err) == (0, "")
    for name in ("Bleu_1", "METEOR", "ROUGE_L", "CIDEr", "95% from", "SPICE: unavailable"):
        assert name in out


def test_without_java_everything_but_spice_is_scored(scored, captions, monkeypatch, tmp_path):
    from stages.evaluate.metrics import java

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    java.find_java.cache_clear()
    try:
        references, candidates = made(5)
        references[1].append('"Odd" (words), it\'s said; 3.5% of them...')
        found = scored("captions", *captions(references, candidates))
    finally:
        java.find_java.cache_clear()
    assert list(found["unavailable"]) == ["SPICE"]
    assert "METEOR" in found["metrics"]
    assert "no Java found" in found["protocol"]["tokenizer"]


@pytest.mark.slow
def test_meteors_own_jar_gives_the_same(scored, captions):
    files = captions(*made(30))
    own, jar = (scored("captions", *files, "--metrics", "METEOR", *flag) for flag in ([], ["--meteor-jar"]))
    assert own["metrics"]["METEOR"] == pytest.approx(jar["metrics"]["METEOR"], abs=EXACT)
    assert "by its jar" in jar["protocol"]["metrics"]["meteor"]


def test_clipscore_is_computed_where_a_model_is_named(scored, score, captions):
    files = captions(*made(3))
    code, _, err = score("captions", *files, "--clip-model", "nowhere", "--images", "nowhere")
    assert code == 2
    assert "nowhere: no such folder" in err
    assert "CLIPScore" not in scored("captions", *files)["unavailable"]
