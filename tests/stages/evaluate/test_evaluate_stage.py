"""The evaluate stage on a real tiny model: formats, protocol, and bytes that do not depend on how it is run."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from stages.base.artifact import file_sha256
from stages.base.contract import UserError
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.stage import Evaluate


def vqa(folder, **changes):
    benchmark = {
        "kind": "vqa",
        "split": "test",
        "questions": str(folder / "questions.json"),
        "annotations": str(folder / "annotations.json"),
        "images": str(folder / "images"),
        "image_pattern": "{image_id}.png",
        "prompt": "Question: {} Short answer:",
        "beams": 2,
        "max_new_tokens": 3,
    }
    return EvaluateConfig(name="vqa", images_per_partition=2, samples=4, benchmark={**benchmark, **changes})


def captions(folder, **changes):
    benchmark = {
        "kind": "captions",
        "split": "test",
        "references": str(folder / "captions.json"),
        "images": str(folder / "images"),
        "image_pattern": "{file_name}",
        "beams": 2,
        "max_new_tokens": 4,
    }
    return EvaluateConfig(name="captions", images_per_partition=3, benchmark={**benchmark, **changes})


def test_vqa_is_predicted_and_scored_in_the_public_formats(run_stage, model_artifact, benchmark_files):
    config = vqa(benchmark_files)
    artifact = run_stage(Evaluate(config), {"model": [model_artifact]})
    predictions = artifact.read_json("predictions.json")
    assert [p["question_id"] for p in predictions] == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41]
    assert all(set(p) == {"question_id", "answer"} and isinstance(p["answer"], str) for p in predictions)
    scores = artifact.read_json("scores.json")
    # Five questions are answered "no" (3) or "yes" (2), five by a colour.
    assert scores["scores"]["majority_answer"] == {
        "answer": "no",
        "accuracy": pytest.approx(30.0),
        "taken_from": "the scored split itself",
    }
    protocol = scores["protocol"]
    assert (protocol["n"], protocol["images"], protocol["beams"], protocol["max_new_tokens"]) == (10, 5, 2, 3)
    assert protocol["prompt"] == "Question: {} Short answer:"
    assert protocol["split_sha256"]["questions.json"] == file_sha256(benchmark_files / "questions.json")
    assert artifact.counts == {"images": 5, "predictions": 10}
    rows = pq.read_table(artifact.path("samples.parquet")).to_pylist()
    assert [row["question_id"] for row in rows] == [str(p["question_id"]) for p in predictions]
    assert len(artifact.read_json("samples.json")) == 4
    assert Evaluate(config).summary(artifact)["majority_accuracy"] == pytest.approx(30.0)


def test_the_majority_answer_is_the_training_splits_where_there_is_one(run_stage, model_artifact, benchmark_files):
    training = benchmark_files / "train.json"
    training.write_text(
        json.dumps(
            {"annotations": [{"question_id": 1, "multiple_choice_answer": "blue", "answers": [{"answer": "blue"}]}]}
        )
    )
    artifact = run_stage(Evaluate(vqa(benchmark_files, train_annotations=str(training))), {"model": [model_artifact]})
    majority = artifact.read_json("scores.json")["scores"]["majority_answer"]
    assert (majority["answer"], majority["taken_from"]) == ("blue", "training split")
    assert majority["accuracy"] == pytest.approx(10.0)


def test_captions_are_scored_overall_and_per_domain(run_stage, model_artifact, benchmark_files):
    artifact = run_stage(Evaluate(captions(benchmark_files)), {"model": [model_artifact]})
    scores = artifact.read_json("scores.json")["scores"]
    assert {"Bleu_1", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr"} <= set(scores)
    per_image = pq.read_table(artifact.path("samples.parquet"))["CIDEr"].to_pylist()
    assert scores["CIDEr_per_domain"] == {"in": sum(per_image[:2]) / 2, "out": sum(per_image[2:]) / 3}
    assert [set(p) for p in artifact.read_json("predictions.json")] == [{"image_id", "caption"}] * 5


def test_karpathys_format_gives_the_same_scores(run_stage, model_artifact, benchmark_files):
    coco = json.loads((benchmark_files / "captions.json").read_text())
    images = [
        {
            "filename": image["file_name"],
            "imgid": image["id"],
            "split": "test",
            "sentences": [{"raw": a["caption"]} for a in coco["annotations"] if a["image_id"] == image["id"]],
        }
        for image in coco["images"]
    ]
    other = benchmark_files / "karpathy.json"
    other.write_text(json.dumps({"images": [*images, {**images[0], "imgid": 99, "split": "train"}]}))
    one, two = (
        run_stage(Evaluate(captions(benchmark_files, references=str(file))), {"model": [model_artifact]})
        for file in (benchmark_files / "captions.json", other)
    )
    expected = one.read_json("scores.json")["scores"]
    expected.pop("CIDEr_per_domain")
    assert two.read_json("scores.json")["scores"] == expected


def test_the_order_of_partitions_never_changes_a_byte(run_stage, model_artifact, benchmark_files):
    stage = Evaluate(vqa(benchmark_files))
    one = run_stage(stage, {"model": [model_artifact]})
    two = run_stage(stage, {"model": [model_artifact]}, reverse=True)
    assert one.manifest["files"] == two.manifest["files"]


def test_a_fine_tuned_models_own_prompt_is_used_where_it_suits(benchmark_files):
    from stages.evaluate.generate import prompt_of

    ours, theirs = vqa(benchmark_files).benchmark, captions(benchmark_files, prompt="a photo of").benchmark
    assert prompt_of({"prompt": "Q: {} A:"}, ours) == "Q: {} A:"
    assert prompt_of({"prompt": "Q: {} A:"}, theirs) == "a photo of"
    assert prompt_of({"prompt": ""}, theirs) == "a photo of"


def test_prompts_are_padded_on_the_left_and_may_be_empty():
    from stages.evaluate.generate import left_padded

    ids, mask = left_padded([[5, 6], [7]], 0)
    assert (ids.tolist(), mask.tolist()) == ([[5, 6], [0, 7]], [[1, 1], [0, 1]])
    assert left_padded([[], []], 0)[0].shape == (2, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": "nowhere.json"}, "nowhere.json: no such file"),
        ({"image_pattern": "{image_id}.jpg"}, r"image 0: no file .*0\.jpg"),
    ],
)
def test_what_is_missing_is_named(run_stage, model_artifact, benchmark_files, changes, message):
    with pytest.raises(UserError, match=message):
        run_stage(Evaluate(vqa(benchmark_files, **changes)), {"model": [model_artifact]})


def test_a_question_without_annotation_is_named(run_stage, model_artifact, benchmark_files):
    file = benchmark_files / "annotations.json"
    file.write_text(json.dumps({"annotations": json.loads(file.read_text())["annotations"][1:]}))
    with pytest.raises(UserError, match="1 missing: annotation of question 0; correct it"):
        run_stage(Evaluate(vqa(benchmark_files)), {"model": [model_artifact]})


def test_a_world_file_is_part_of_the_fingerprint_and_a_local_path_is_not(benchmark_files):
    from pipelines.fingerprint import fingerprinted

    local = [fingerprinted(vqa(benchmark_files, questions=name)) for name in ("a.json", "b.json")]
    world = [fingerprinted(vqa(benchmark_files, questions=f"world:demo/{name}")) for name in ("a.json", "b.json")]
    assert local[0] == local[1]
    assert world[0] != world[1]


def test_a_protocol_that_contradicts_itself_is_refused(benchmark_files):
    with pytest.raises(ValidationError, match="min_new_tokens=9 is above max_new_tokens=3"):
        vqa(benchmark_files, min_new_tokens=9)
    with pytest.raises(ValidationError, match=r"must hold \{\}"):
        vqa(benchmark_files, prompt="Answer:")
