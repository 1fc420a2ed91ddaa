"""Files and options that are wrong: one line on standard error, exit code 2, nothing on standard output."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import threading

import numpy as np
import pytest

from pipelines.main import main

REFERENCES = {
    "images": [{"id": i} for i in (1, 2)],
    "annotations": [{"image_id": i, "caption": f"a secret dog {i}"} for i in (1, 2)],
}
CANDIDATES = [{"image_id": i, "caption": "a secret dog"} for i in (1, 2)]
ANNOTATIONS = {
    "annotations": [
        {"question_id": i, "image_id": i, "answers": [{"answer": "secret"}] * 3, "answer_type": kind}
        for i, kind in enumerate(["yes/no", "number", "other"])
    ]
}
ANSWERS = [{"question_id": i, "answer": "secret"} for i in range(3)]
BOXES = {
    "images": [{"id": 1, "width": 90, "height": 50}],
    "annotations": [{"id": i, "image_id": 1, "bbox": [1, 2, 30, 40]} for i in (1, 2)],
}
FOUND = [{"id": i, "bbox": [1, 2, 30, 40]} for i in (1, 2)]
QUICK = ("--metrics", "CIDEr,Bleu_4,ROUGE_L")


@pytest.fixture
def put(tmp_path):
    def write(name, content):
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif isinstance(content, np.ndarray):
            np.save(file, content)
        else:
            file.write_text(json.dumps(content))
        return str(file)

    return write


@pytest.fixture
def run(capsys):
    def call(*words):
        code = main(["score", *map(str, words)])
        out, err = capsys.readouterr()
        assert "Warning" not in err
        assert "secret" not in err
        if code == 2:
            assert out == ""
            assert err.count("\n") == 1
        elif "--json" in words:
            json.loads(out, parse_constant=pytest.fail)
        return code, out, err

    return call


@pytest.fixture
def captions(put):
    def command(references=REFERENCES, candidates=CANDIDATES, name="c.json"):
        files = put("r.json", references), put(name, candidates)
        return ["captions", "--references", files[0], "--candidates", files[1], *QUICK]

    return command


@pytest.fixture
def vqa(put):
    return ["vqa", "--annotations", put("a.json", ANNOTATIONS), "--results", put("v.json", ANSWERS), "--json"]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "c.json", "not JSON (Expecting value at line 1, column 1)"),
        (b'["secret', "c.json", "(Unterminated string starting at line 1, column 2)"),
        (b"[" + b"1" * 5000 + b"]", "c.json", "too many digits"),
        (b"[" * 100_000, "c.json", "nested too deeply"),
        (b"\xff\xfe", "c.json", "not UTF-8 (byte 0)"),
        (b"{}", "c.json", "not a list"),
        (b"NaN", "c.json", "not a list"),
        (b'["secret", null, 5]', "c.json", "no caption of any image"),
        (gzip.compress(b"[1, 2, 3]" * 99)[:-30], "c.json.gz", "ends too early"),
        (gzip.compress(b"[]")[:10] + b"\xff" * 30, "c.json.gz", "damaged"),
        (b"[]", "c.json.gz", "Not a gzipped file"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(run, captions, content, name, message):
    code, _, err = run(*captions(candidates=content, name=name), "--json")
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image_id": True, "caption": "secret"}, "image_id is neither a number nor a string): entry number 2"),
        ({"image_id": 1.0, "caption": "secret"}, "image_id is neither a number nor a string): entry number 2"),
        ({"image_id": None, "caption": "secret"}, "image_id is neither a number nor a string): entry number 2"),
        ({"image_id": -1, "caption": "secret"}, "1 unknown"),
        ({"image_id": 10**400, "caption": "secret"}, "image 1" + "0" * 59 + "..."),
        ({"image_id": "a\nb\x1b[2J", "caption": "secret"}, r"image a\nb\x1b[2J"),
        ({"image_id": "\ud800", "caption": "secret"}, r"image \ud800"),
        ({"image_id": 1, "caption": "secret"}, "1 duplicate: caption of image 1"),
        (["secret"], "1 malformed (no object): entry number 2"),
        ({"caption": "secret"}, "1 malformed (no image_id): entry number 2"),
    ],
)
def test_a_broken_entry_is_named(run, captions, entry, message):
    command = [*captions(candidates=[*CANDIDATES, entry]), "--json"]
    code, _, err = run(*command)
    assert code == 2
    assert message in err
    code, out, err = run(*command, "--allow-missing")
    assert (code, json.loads(out)["partial"][0]["count"]) == (0, 1)
    assert message in err


@pytest.mark.parametrize(
    ("box", "failures"),
    [
        ([0, 0, 10**400, 1], 1),
        ([0, 0, 1e200, 1e200], 1),
        ([1.7e308] * 4, 1),
        ([0, 0, float("nan"), 1], 1),
        ([0, 0, float("inf"), 1], 1),
        ([1, 2, -3, 4], 1),
        ([1, 2, 3, 4, 5], 1),
        (["1", "2", "3", "4"], 1),
        ([True] * 4, 1),
        ("secret", 1),
        (None, 1),
        ([5, 5, 0, 0], 0),
        ([0, 0, 1e50, 1e50], 0),
    ],
)
@pytest.mark.parametrize("space", ["pixels", "normalized", "thousandths"])
def test_a_box_that_is_none_is_a_parse_failure_and_a_miss(run, put, box, failures, space):
    files = "--annotations", put("a.json", BOXES), "--results", put("b.json", [{"id": 1, "bbox": box}, FOUND[1]])
    code, out, _ = run("refexp", *files, "--coordinates", space, "--confidence", "--json")
    found = json.loads(out)
    assert (code, found["parse_failures"]) == (0, failures)
    assert found["accuracy"] == (50.0 if space == "pixels" else 0.0)


def test_a_declared_space_that_is_none_is_not_quoted(run, put):
    results = put("b.json", {"coordinates": "secret", "results": FOUND})
    code, _, err = run("refexp", "--annotations", put("a.json", BOXES), "--results", results)
    assert code == 2
    assert "coordinates is none of pixels, normalized, thousandths" in err


def _npy():
    file = io.BytesIO()
    np.save(file, np.eye(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"secret",
        b"PK\x03\x04secret",
        _npy()[:100],
        _npy()[:-8],
        _npy().replace(b"(3, 3)", b"(3, (3"),
        _npy().replace(b"(3, 3)", b"(3, -3"),
        np.array([[1, None]], dtype=object),
        np.zeros(3),
        np.zeros((3, 3, 3)),
        np.zeros((0, 3)),
        np.eye(3) > 0,
        np.eye(3) * np.nan,
    ],
)
def test_scores_that_are_no_matrix_of_numbers_are_refused(run, put, content):
    files = "--scores", put("s.npy", content), "--text-to-image", put("m.json", [0, 1, 2])
    code, _, err = run("retrieval", *files, "--json")
    assert code == 2
    assert "s.npy: " in err


def test_ids_of_any_size_reach_parquet(run, captions, tmp_path):
    references = {"annotations": [{"image_id": i, "caption": "a dog"} for i in (1, 10**30)]}
    candidates = [{"image_id": i, "caption": "a dog"} for i in (1, 10**30)]
    assert run(*captions(references, candidates), "--per-sample", tmp_path / "p.parquet", "--json")[0] == 0


@pytest.mark.parametrize("kind", ["captions", "compare"])
def test_a_metric_that_is_not_available_has_no_interval(run, captions, kind):
    command = [*captions()[:-2], "--metrics", "CLIPScore", "--json"]
    if kind == "compare":
        command = ["compare", *command[1:4], command[4], command[4], *command[5:]]
    else:
        command.append("--confidence")
    code, out, _ = run(*command)
    found = json.loads(out)
    assert (code, found["metrics"]) == (1, {})
    assert "CLIPScore" in found["unavailable"]


def test_a_group_that_was_never_drawn_has_no_interval_and_is_named(run, vqa):
    code, _, err = run(*vqa, "--confidence", "--resamples", 1)
    assert code == 2
    assert "no sample of it was drawn in 1 resamples" in err


def test_one_file_compared_with_itself_has_its_problems_once(run, captions):
    command = captions(candidates=CANDIDATES[:1])
    words = ["compare", *command[1:5], command[4], "--metrics", "ROUGE_L", "--json", "--allow-missing"]
    code, out, _ = run(*words)
    found = json.loads(out)
    assert (code, found["partial"][0]["entries"]) == (0, [2])
    assert found["metrics"]["ROUGE_L"]["p_value"] == 1.0


def test_frequencies_are_not_written_for_what_is_refused(run, captions, tmp_path):
    file = tmp_path / "df.parquet"
    code, _, _ = run(*captions(candidates=CANDIDATES[:1]), "--write-document-frequencies", file)
    assert (code, file.exists()) == (2, False)
    code, out, _ = run(*captions()[:3], "--write-document-frequencies", file, "--json")
    assert (code, json.loads(out)) == (0, {"document_frequencies": str(file)})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--per-sample", "x" * 300 + "/p.jsonl"], "no folder"),
        (["--per-sample", "p.csv"], "the ending decides the format"),
        (["--metrics", "foo"], "--metrics foo: no such metric"),
        (["--document-frequencies", "/dev/null"], "--write-document-frequencies"),
        (["--clip-model", "m", "--images", "i", "--image-pattern", "{image_id.x}"], "not possible for image 1"),
        (["--clip-model", "m", "--images", "i", "--image-pattern", "{image_id[0]}"], "not possible for image 1"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(run, captions, words, message):
    command = captions()[:-2] if "--clip-model" in words else captions()
    command += ["--metrics", "CLIPScore"] if "--clip-model" in words else []
    code, _, err = run(*command, *words)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("words", [["--seed", "-1"], ["--seed", "x"], ["--resamples", "0"], ["--resamples", "many"]])
def test_a_wrong_number_is_refused_by_what_it_must_be(capsys, vqa, words):
    with pytest.raises(SystemExit) as stopped:
        main(["score", *vqa, *words])
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "is not a whole number of at least" in err


def test_the_table_is_printed_whatever_the_encoding(put, monkeypatch):
    kinds = {"annotations": [{"question_id": 0, "answers": [{"answer": "a"}], "question_type": "q\u4f55\ud800"}]}
    files = "--annotations", put("a.json", kinds), "--results", put("v.json", ANSWERS[:1])
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii"))
    assert main(["score", "vqa", *files]) == 0
    sys.stdout.flush()
    assert rb"q\u4f55\ud800" in shown.getvalue()


def test_a_pipe_is_scored_and_has_no_hash(run, vqa, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(json.dumps(ANSWERS),), daemon=True)
    writer.start()
    code, out, _ = run(*vqa[:3], "--results", pipe, "--json")
    writer.join(timeout=10)
    assert (code, json.loads(out)["protocol"]["results"]) == (0, {"file": "pipe"})
