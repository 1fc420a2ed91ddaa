"""Every golden case, from the command line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

EXACT = 1e-12
UNCHANGED = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr")


@pytest.fixture(scope="module")
def golden(shared):
    def read(name):
        file = shared / "golden" / name
        return json.loads(gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_text())

    return read


def published_example(shared):
    with gzip.open(shared / "golden/captions_fakecap1000/data.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return rows, {row["image_id"]: row["refs"] for row in rows}, {row["image_id"]: row["cand"] for row in rows}


def test_the_published_coco_caption_example(scored, captions, golden, shared, tmp_path):
    rows, references, candidates = published_example(shared)
    each = tmp_path / "each.jsonl"
    found = scored("captions", *captions(references, candidates), "--per-sample", each)
    expected = golden("captions_fakecap1000/corpus.json")["scores"]
    assert found["metrics"] == pytest.approx(expected, abs=EXACT)
    assert (found["metrics"]["CIDEr"], found["metrics"]["Bleu_4"], found["metrics"]["METEOR"]) == pytest.approx(
        (0.5997905185184199, 0.1908290437674253, 0.19525467177780284), abs=EXACT
    )
    assert (found["n"], list(found["unavailable"])) == (1000, ["SPICE"])
    by_image = {row["image_id"]: row for row in map(json.loads, each.read_text().splitlines())}
    for row in rows:
        ours = {name: by_image[row["image_id"]][name] for name in UNCHANGED}
        assert ours == pytest.approx(row["scores"], abs=EXACT)


def test_the_command_itself_prints_one_object_and_starts_neither_torch_nor_ray(captions, shared):
    _, references, candidates = published_example(shared)
    few = list(references)[:20]
    words = captions({i: references[i] for i in few}, {i: candidates[i] for i in few})
    code = (
        "import sys; from pipelines.main import main\n"
        "code = main(sys.argv[1:])\n"
        "heavy = [name for name in ('torch', 'ray', 'transformers', 'mlflow', 'hydra') if name in sys.modules]\n"
        "print(heavy, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "score", "captions", *map(str, words), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["n"] == 20
    assert done.stderr.splitlines()[-1] == "[]"


def test_caption_edge_cases(scored, captions, golden):
    for name, case in golden("caption_scorer_edge_cases.json").items():
        files = captions(case["gts"], {image: captions[0] for image, captions in case["res"].items()})
        found = scored("captions", *files, *(["--allow-missing"] if "empty" in name else []))
        for n, value in enumerate(case["Bleu"]["corpus"], 1):
            assert found["metrics"][f"Bleu_{n}"] == pytest.approx(value, abs=EXACT), name
        for key in ("ROUGE_L", "METEOR"):
            assert found["metrics"][key] == pytest.approx(case[key]["corpus"], abs=EXACT), name
        if len(case["gts"]) == 1:
            assert "single image" in found["unavailable"]["CIDEr"]
        else:
            assert found["metrics"]["CIDEr"] == pytest.approx(case["CIDEr"]["corpus"], abs=EXACT), name


def test_the_clipscore_example(scored, captions, golden):
    example = golden("clipscore_example.json")
    for kind in ("good", "bad"):
        found = scored("captions", *captions(example["refs"], example[kind]["cands"]))
        expected = example[kind]["computed"]
        ours = [found["metrics"][f"Bleu_{n}"] for n in range(1, 5)]
        assert ours == pytest.approx(expected["BLEU"], abs=EXACT)
        for key in ("METEOR", "ROUGE_L", "CIDEr"):
            assert found["metrics"][key] == pytest.approx(expected[key], abs=EXACT)


def test_vqa_in_the_official_formats(scored, put, golden, tmp_path):
    files = ["--annotations", put("a.json", golden("vqa/rand500/annotations.json.gz"))]
    files += ["--results", put("r.json", golden("vqa/rand500/results.json.gz"))]
    expected = golden("vqa/rand500/expected.json.gz")
    each = tmp_path / "each.jsonl"
    found = scored("vqa", *files, "--per-sample", each)
    names = {"accuracy", "per_answer_type", "per_question_type"}
    assert set(found) == names | {f"{name}_normalized" for name in names} | {"n", "protocol"}
    assert found["n"] == 500
    # The official code rounds what it writes.
    assert round(found["accuracy"], 2) == expected["accuracy"]["overall"]
    for ours, official in (("per_answer_type", "perAnswerType"), ("per_question_type", "perQuestionType")):
        assert {k: round(v, 2) for k, v in found[ours].items()} == expected["accuracy"][official]
    for row in map(json.loads, each.read_text().splitlines()):
        assert round(100 * row["accuracy"], 2) == expected["evalQA"][str(row["question_id"])]


def test_tricky_vqa_answers(scored, put, golden, tmp_path):
    tricky = golden("vqa/tricky.json")
    annotations = [
        {
            "question_id": n,
            "image_id": n,
            "question_type": case["answer_type"],
            "answer_type": case["answer_type"],
            "answers": [{"answer": answer, "answer_id": i} for i, answer in enumerate(case["answers"], 1)],
        }
        for n, case in enumerate(tricky["cases"])
    ]
    results = [{"question_id": n, "answer": case["prediction"]} for n, case in enumerate(tricky["cases"])]
    files = ["--annotations", put("a.json", {"annotations": annotations}), "--results", put("r.json", results)]
    each = tmp_path / "each.jsonl"
    found = scored("vqa", *files, "--allow-missing", "--per-sample", each)
    assert round(found["accuracy"], 2) == tricky["overall_n2"]
    for row, case in zip(map(json.loads, each.read_text().splitlines()), tricky["cases"], strict=True):
        assert row["accuracy"] == pytest.approx(case["accuracy"], abs=EXACT), case["note"]
    for kind, value in tricky["perAnswerType"].items():
        assert found["per_answer_type"][kind] == pytest.approx(value, abs=1e-9)


def test_retrieval(scored, put, golden, tmp_path):
    for name, case in golden("retrieval_lavis.json").items():
        if name == "note":
            continue
        images, each = case["n_images"], case["caps_per_image"]
        owners = np.repeat(np.arange(images), each if isinstance(each, int) else [3 + i % 5 for i in range(images)])
        scores = np.random.default_rng(case["seed"]).standard_normal((images, len(owners)))
        scores[owners, np.arange(len(owners))] += 3 * case["bonus"]
        np.save(tmp_path / "s.npy", scores if case["round"] is None else np.round(scores, case["round"]))
        as_object = {str(text): image for text, image in enumerate(owners.tolist())}
        for content in (owners.tolist(), as_object):
            found = scored("retrieval", "--scores", tmp_path / "s.npy", "--text-to-image", put("map.json", content))
            for key, value in case["metrics"].items():
                if key != "agg_metrics":
                    assert found[key] == pytest.approx(value, abs=EXACT), (name, key)


def test_boxes(scored, put, golden, tmp_path):
    boxes = golden("rec_iou.json")
    annotations = [{"id": i, "image_id": i, "bbox": box} for i, box in enumerate(boxes["gt_xywh"])]
    results = [{"id": i, "bbox": box} for i, box in enumerate(boxes["pred_xywh"])]
    files = ["--annotations", put("a.json", {"annotations": annotations}), "--results", put("r.json", results)]
    each = tmp_path / "each.jsonl"
    found = scored("refexp", *files, "--per-sample", each)
    assert found["accuracy"] == pytest.approx(100 * boxes["acc@0.5_ge"], abs=EXACT)
    assert found["mean_iou"] == pytest.approx(boxes["mean_iou"], abs=EXACT)
    ious = [row["iou"] for row in map(json.loads, each.read_text().splitlines())]
    assert ious == pytest.approx(boxes["iou"], abs=EXACT)
    for case in boxes["boundary"]:
        x1, y1, x2, y2 = case.get("pred_xyxy_reversed", [0] * 4)
        box = case.get("pred_xywh", [x1, y1, x2 - x1, y2 - y1])
        files = ["--annotations", put("a.json", [{"id": 1, "bbox": case["gt_xywh"]}])]
        found = scored("refexp", *files, "--results", put("r.json", [{"id": 1, "bbox": box}]))
        assert found["mean_iou"] == pytest.approx(case["iou"], abs=EXACT)
        assert found["accuracy"] == (100 if case["iou"] >= 0.5 else 0)
