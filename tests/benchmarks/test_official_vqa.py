"""The VQA peer of the benchmarks is the official algorithm, and ours equals it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.metric_peers import made_vqa
from benchmarks.metric_peers.official_vqa import OfficialVqa
from stages.evaluate.metrics.additive import labels, mean_by_group
from stages.evaluate.metrics.vqa.accuracy import accuracies
from stages.evaluate.metrics.vqa.normalize import CONTRACTIONS, NUMBERS, PUNCTUATION

KINDS = ("yes/no", "number", "other")
PIECES = (
    *PUNCTUATION,
    *[" ", " ", "\t", "\n", ".", ". ", "'", "1", "1,0", "2.5", "a", "The ", " an ", "dog", "Dog", "yes"],
    *[*NUMBERS][:4],
    *[*CONTRACTIONS][:8],
    "somebody'd",
)
ANSWERS = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)


def record(answers: list[str], kind: str = "other", question_type: str = "what") -> dict[str, Any]:
    said = [{"answer": answer, "answer_id": i} for i, answer in enumerate(answers, 1)]
    return {"answers": said, "answer_type": kind, "question_type": question_type}


def test_the_peer_gives_what_the_official_code_gave_for_the_tricky_cases(shared: Path) -> None:
    golden = json.loads((shared / "golden" / "vqa" / "tricky.json").read_text())
    cases = golden["cases"]
    peer = OfficialVqa(
        {i: record(case["answers"], case["answer_type"]) for i, case in enumerate(cases)},
        {i: case["prediction"] for i, case in enumerate(cases)},
    )
    peer.evaluate()
    for i, case in enumerate(cases):
        assert peer.per_question[i] == pytest.approx(100 * case["accuracy"], rel=1e-12), case["note"]
        assert [said["answer"] for said in peer.annotations[i]["answers"]] == case["gt_after"], case["note"]
    assert round(peer.overall, 2) == golden["overall_n2"]
    assert peer.per_answer_type == pytest.approx(golden["perAnswerType"], abs=1e-9)


def test_the_peer_gives_what_the_official_code_gave_for_whole_files(shared: Path) -> None:
    def part(name: str) -> Any:
        return json.loads(gzip.decompress((shared / "golden" / "vqa" / "rand500" / f"{name}.json.gz").read_bytes()))

    expected = part("expected")
    peer = OfficialVqa(
        {found["question_id"]: found for found in part("annotations")["annotations"]},
        {result["question_id"]: result["answer"] for result in part("results")},
    )
    peer.evaluate()
    assert {str(i): round(value, 2) for i, value in peer.per_question.items()} == expected["evalQA"]
    assert round(peer.overall, 2) == expected["accuracy"]["overall"]
    for found, key in ((peer.per_answer_type, "perAnswerType"), (peer.per_question_type, "perQuestionType")):
        assert {name: round(value, 2) for name, value in found.items()} == expected["accuracy"][key]


@given(
    st.lists(
        st.tuples(st.lists(ANSWERS, min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=1, max_size=10)),
        min_size=1,
        max_size=8,
    ),
    st.data(),
)
def test_ours_equals_the_peer_whatever_is_answered(questions: Any, data: st.DataObject) -> None:
    said = [[few[which % len(few)] for which in chosen] for few, chosen in questions]
    given_answers = [data.draw(st.sampled_from(few) | ANSWERS) for few, _ in questions]
    kinds = [data.draw(st.sampled_from(KINDS)) for _ in questions]
    peer = OfficialVqa(
        {i: record(answers, kind) for i, (answers, kind) in enumerate(zip(said, kinds, strict=True))},
        dict(enumerate(given_answers)),
    )
    peer.evaluate()
    ours = 100 * accuracies(given_answers, said, ["official"])["official"]
    np.testing.assert_allclose(ours, [*peer.per_question.values()], rtol=1e-12)
    total = mean_by_group("overall", ours, {"type": labels(kinds)}).total()
    of_types = {f"type.{kind}": value for kind, value in peer.per_answer_type.items()}
    assert total == pytest.approx({"overall": peer.overall, **of_types}, rel=1e-12)


def test_made_questions_are_the_same_for_a_seed_and_agree_about_as_often_as_vqav2s() -> None:
    captions = [
        f"a {colour} {thing} near the {place}"
        for colour in ["red", "blue"]
        for thing in ["dog", "cat", "bus"]
        for place in ["tree", "wall"]
    ]
    annotations, results = made_vqa.make(1000, captions)
    assert made_vqa.make(1000, captions) == (annotations, results)
    assert made_vqa.make(1000, captions, seed=1) != (annotations, results)
    records = annotations["annotations"]
    assert [found["question_id"] for found in records] == [result["question_id"] for result in results]
    said = [{entry["answer"] for entry in found["answers"]} for found in records]
    assert all(len(found["answers"]) == 10 for found in records)
    assert 0.25 < sum(len(answers) == 1 for answers in said) / len(records) < 0.42
