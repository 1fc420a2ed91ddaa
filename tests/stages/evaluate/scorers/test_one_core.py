"""`pairmill score` and the evaluate stage give the same figures the same names."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from pipelines.main import main
from stages.evaluate.benchmarks.files import open_benchmark
from stages.evaluate.config import EvaluateConfig

TEXTS = {"vqa": ["red", "Yes", "the green", "no"], "captions": ["A red square.", "One blue thing", "a a a", "green"]}


@pytest.fixture
def by_stage(tmp_path):
    """The stage's scores of some texts, and the file of its predictions."""

    def run(kind, **benchmark):
        options = {"split": "test", "images": "unused", "max_new_tokens": 4, "prompt": "{}" if kind == "vqa" else ""}
        opened = open_benchmark(EvaluateConfig(name="b", benchmark={"kind": kind, **options, **benchmark}), {})
        opened.check()
        examples = opened.examples()
        texts = {example.id: TEXTS[kind][n % len(TEXTS[kind])] for n, example in enumerate(examples)}
        result = opened.score(examples, texts)
        file = tmp_path / "predictions.json"
        file.write_text(json.dumps(result.predictions))
        return result, file

    return run


@pytest.fixture
def by_command(capsys):
    """The JSON object of `pairmill score`."""

    def run(*words):
        capsys.readouterr()
        assert main(["score", *map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_vqa(by_stage, by_command, benchmark_files, tmp_path):
    files = {name: str(benchmark_files / f"{name}.json") for name in ("questions", "annotations")}
    result, predictions = by_stage("vqa", **files)
    each = tmp_path / "each.parquet"
    words = ["--annotations", files["annotations"], "--results", predictions, "--per-sample", each]
    found = by_command("vqa", *words)
    assert 0 < result.scores["accuracy"] < result.scores["accuracy_normalized"] < 100
    shared = ["accuracy", "accuracy_normalized", "per_answer_type", "per_question_type"]
    assert {name: found[name] for name in shared} == {name: result.scores[name] for name in shared}
    assert found["protocol"]["metric"] == result.protocol["metric"]
    columns = ["accuracy", "accuracy_normalized"]
    per_sample = pq.read_table(each, columns=columns).to_pydict()
    assert per_sample == {name: result.per_sample[name] for name in columns}


def test_captions_by_domain(by_stage, by_command, benchmark_files):
    references = str(benchmark_files / "captions.json")
    result, predictions = by_stage("captions", references=references)
    found = by_command("nocaps", "--references", references, "--candidates", predictions)
    per_domain = result.scores.pop("CIDEr_per_domain")
    unavailable = result.scores.pop("unavailable", {})
    assert result.scores["CIDEr"] > 0
    assert (found["metrics"], found["unavailable"]) == (result.scores, unavailable)
    assert {name: domain["metrics"]["CIDEr"] for name, domain in found["domains"].items()} == per_domain
    assert found["protocol"]["metrics"] == result.protocol["metrics"]
