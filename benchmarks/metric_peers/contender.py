"""One metric of one side in an interpreter of its own, one JSON object at the end. Started by `benchmarks/metrics.py`.

`contender.py prepare FOLDER IMAGES QUESTIONS SUITE_IMAGES METEOR_IMAGES` writes the inputs; `contender.py TASK SIDE
FOLDER` reads those of a task, times the work alone, and leaves what came out in `FOLDER/TASK-SIDE.npz`. The peak memory
is that of the whole process, imports and inputs included, and beside it that of its largest subprocess: a JVM.
`contender.py build` makes METEOR's tables in $PAIRMILL_CACHE, `contender.py golden SHARED` checks the VQA peer.
"""

from __future__ import annotations

import gc
import gzip
import io
import json
import resource
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from benchmarks.metric_peers import made_vqa  # noqa: E402
from benchmarks.metric_peers.official_vqa import OfficialVqa  # noqa: E402
from stages.evaluate.metrics.captions import cider, ngrams  # noqa: E402
from stages.evaluate.metrics.captions.suite import CaptionScorer  # noqa: E402
from stages.evaluate.metrics.java import reference_file  # noqa: E402
from stages.evaluate.metrics.meteor.meteor import meteor  # noqa: E402
from stages.evaluate.metrics.meteor.tables import tables_file  # noqa: E402
from stages.evaluate.metrics.ptb.tokenize import PtbTokenizer  # noqa: E402
from stages.evaluate.metrics.vqa.accuracy import MODES, Mode, accuracies  # noqa: E402
from stages.evaluate.scorers.vqa import score_vqa  # noqa: E402
from stages.formats.vqa import read_annotations, read_answers  # noqa: E402

Figures = dict[str, Any]
Work = Callable[[], Figures]
"""Does a task's work and returns its results: name -> score, or array of scores; a text is a remark."""

_RANDOM_PARTS = ("annotations", "results", "expected")


def prepare(folder: Path, images: int, questions: int, suite: int, of_meteor: int) -> Figures:
    """Write all inputs; returns what there is to say about them."""
    with zipfile.ZipFile(reference_file("spice", "spice-1.0.jar")) as jar:
        coco = json.loads(jar.read("coco/annotations/captions_val2014.json"))
    by_image: dict[int, list[str]] = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        by_image[annotation["image_id"]].append(annotation["caption"])
    raw = list(by_image.values())[: max(images, suite, of_meteor)]
    tokens = iter(PtbTokenizer().tokenize([caption for captions in raw for caption in captions]))
    tokenised = [[next(tokens) for _ in captions] for captions in raw]
    for name, captions in (
        ("cider_d", tokenised[:images]),
        ("captions", raw[:suite]),
        ("meteor", tokenised[:of_meteor]),
    ):
        (folder / f"{name}.json").write_text(json.dumps(captions))
    annotations, results = made_vqa.make(questions, [caption for captions in tokenised for caption in captions])
    (folder / "annotations.json").write_text(json.dumps(annotations))
    (folder / "results.json").write_text(json.dumps(results))
    answers_given = [[entry["answer"] for entry in record["answers"]] for record in annotations["annotations"]]
    return {
        "images": min(images, len(raw)),
        "captions": sum(map(len, raw[:images])),
        "questions": questions,
        "unanimous": round(sum(len(set(answers)) == 1 for answers in answers_given) / questions, 3),
        "distinct answers": len({answer for answers in answers_given for answer in answers}),
        "question types": len({record["question_type"] for record in annotations["annotations"]}),
        "suite images": min(suite, len(raw)),
        "meteor images": min(of_meteor, len(raw)),
    }


def build() -> Figures:
    """Build METEOR's tables where they are missing; returns how long that took."""
    began = time.perf_counter()
    tables_file()
    return {"seconds": time.perf_counter() - began, **_peaks()}


def golden(folder: Path) -> Figures:
    """Check the VQA peer on what the official code gave; returns on how many questions. Raises RuntimeError."""
    cases = json.loads((folder / "tricky.json").read_text())["cases"]
    for case in cases:
        record = {
            "answers": [{"answer": answer, "answer_id": i} for i, answer in enumerate(case["answers"])],
            "answer_type": case["answer_type"],
            "question_type": "",
        }
        peer = OfficialVqa({0: record}, {0: case["prediction"]})
        peer.evaluate()
        if abs(peer.overall - 100 * case["accuracy"]) > 1e-9:
            raise RuntimeError(f"golden/vqa/tricky.json: {case['note']}: {peer.overall}, not {100 * case['accuracy']}")
    parts = [json.loads(gzip.decompress((folder / "rand500" / f"{n}.json.gz").read_bytes())) for n in _RANDOM_PARTS]
    annotations, results, expected = parts
    peer = OfficialVqa(
        {record["question_id"]: record for record in annotations["annotations"]},
        {result["question_id"]: result["answer"] for result in results},
    )
    peer.evaluate()
    result = {
        "overall": round(peer.overall, 2),
        "perAnswerType": {name: round(value, 2) for name, value in peer.per_answer_type.items()},
        "perQuestionType": {name: round(value, 2) for name, value in peer.per_question_type.items()},
    }
    each = {str(question): round(value, 2) for question, value in peer.per_question.items()}
    if result != expected["accuracy"] or each != expected["evalQA"]:
        raise RuntimeError("golden/vqa/rand500: the peer's results are not those of the official code")
    return {"questions": len(cases) + len(results)}


def _captions(folder: Path, task: str) -> tuple[list[str], list[list[str]]]:
    """First captions, and the other ones of each image."""
    result = json.loads((folder / f"{task}.json").read_text())
    return [captions[0] for captions in result], [captions[1:] for captions in result]


def _for_peer(candidates: Sequence[str], references: Sequence[list[str]]) -> tuple[dict[int, Any], dict[int, Any]]:
    """The peer's `gts` and `res`."""
    return dict(enumerate(references)), {number: [caption] for number, caption in enumerate(candidates)}


def cider_ours(folder: Path) -> Work:
    """Counting and CIDEr-D."""
    candidates, references = _captions(folder, "cider_d")

    def work() -> Figures:
        result = cider.cider_d(ngrams.count(candidates, references))
        return {**result.total(), "per_image": result.per_sample[:, 0]}

    return work


def cider_peer(folder: Path) -> Work:
    """pycocoevalcap's."""
    from pycocoevalcap.cider.cider import Cider

    gts, res = _for_peer(*_captions(folder, "cider_d"))

    def work() -> Figures:
        score, scores = Cider().compute_score(gts, res)
        return {"CIDEr": score, "per_image": scores}

    return work


def vqa_ours(folder: Path, modes: Sequence[Mode] = ("official",)) -> Work:
    """Accuracies and means as `pairmill score vqa` takes them."""
    annotations = read_annotations(folder / "annotations.json")
    answers = read_answers(folder / "results.json", annotations).texts

    def work() -> Figures:
        scored = score_vqa(annotations, answers, modes)
        means = {name: value for name, value in scored.total().items() if "_normalized" not in name}
        per_question = 100 * np.array(scored.per_sample["accuracy"])
        return {**means, "per_question": per_question, "questions": np.array(list(answers))}

    return work


def vqa_ours_both(folder: Path) -> Work:
    """In both modes."""
    return vqa_ours(folder, MODES)


def vqa_alone(folder: Path) -> Work:
    """The accuracies without the means."""
    annotations = read_annotations(folder / "annotations.json")
    answers = read_answers(folder / "results.json", annotations).texts

    def work() -> Figures:
        annotated = [annotations.by_question[question].answers for question in answers]
        found = accuracies(list(answers.values()), annotated, ("official",))
        return {"per_question": 100 * found["official"], "questions": np.array(list(answers))}

    return work


def vqa_files_ours(folder: Path) -> Work:
    """From the files to the means: reading takes the largest part on either side."""
    return lambda: vqa_ours(folder)()


def vqa_files_peer(folder: Path) -> Work:
    """The same by the official algorithm."""
    return lambda: vqa_peer(folder)()


def vqa_peer(folder: Path) -> Work:
    """The official algorithm."""
    records = json.loads((folder / "annotations.json").read_text())["annotations"]
    results = json.loads((folder / "results.json").read_text())
    evaluation = OfficialVqa(
        {record["question_id"]: record for record in records},
        {result["question_id"]: result["answer"] for result in results},
    )

    def work() -> Figures:
        evaluation.evaluate()
        return {
            "accuracy": evaluation.overall,
            **{f"per_answer_type.{name}": value for name, value in evaluation.per_answer_type.items()},
            **{f"per_question_type.{name}": value for name, value in evaluation.per_question_type.items()},
            "per_question": np.array(list(evaluation.per_question.values())),
            "questions": np.array(list(evaluation.per_question)),
        }

    return work


def captions_ours(folder: Path) -> Work:
    """The suite, tokenization included."""
    candidates, references = _captions(folder, "captions")

    def work() -> Figures:
        result = CaptionScorer(references, ["bleu", "rouge_l", "cider_d"]).score(candidates)
        return {**result.total(), "tokenizer": result.protocol["tokenizer"]}

    return work


def captions_peer(folder: Path) -> Work:
    """What pycocoevalcap's `eval.py` does, with three of its five metrics."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    candidates, references = _captions(folder, "captions")
    raw_gts = {number: [{"caption": text} for text in texts] for number, texts in enumerate(references)}
    raw_res = {number: [{"caption": text}] for number, text in enumerate(candidates)}

    def work() -> Figures:
        tokenizer = PTBTokenizer()
        gts, res = tokenizer.tokenize(raw_gts), tokenizer.tokenize(raw_res)
        of_bleu, _ = Bleu(4).compute_score(gts, res)
        result = {f"Bleu_{n}": score for n, score in enumerate(of_bleu, 1)}
        return {**result, "ROUGE_L": Rouge().compute_score(gts, res)[0], "CIDEr": Cider().compute_score(gts, res)[0]}

    return work


def meteor_ours(folder: Path) -> Work:
    """Opening the tables and scoring, in one process."""
    candidates, references = _captions(folder, "meteor")

    def work() -> Figures:
        result = meteor(candidates, references)
        return {"METEOR": result.corpus, "per_image": result.per_image}

    return work


def meteor_peer(folder: Path) -> Work:
    """pycocoevalcap's, its JVM started and ended."""
    from pycocoevalcap.meteor.meteor import Meteor

    gts, res = _for_peer(*_captions(folder, "meteor"))

    def work() -> Figures:
        metric = Meteor()
        try:
            score, scores = metric.compute_score(gts, res)
        finally:
            # Ended here and waited for, so that its memory is known; where scoring failed, its own way of ending
            # would wait for a lock for ever.
            metric.meteor_p.kill()
            metric.meteor_p.wait()
            if metric.lock.locked():
                metric.lock.release()
        return {"METEOR": score, "per_image": np.array(scores)}

    return work


TASKS: Mapping[tuple[str, str], Callable[[Path], Work]] = {
    ("cider_d", "ours"): cider_ours,
    ("cider_d", "peer"): cider_peer,
    ("vqa", "ours"): vqa_ours,
    ("vqa", "both"): vqa_ours_both,
    ("vqa", "alone"): vqa_alone,
    ("vqa", "peer"): vqa_peer,
    ("vqa_files", "ours"): vqa_files_ours,
    ("vqa_files", "peer"): vqa_files_peer,
    ("captions", "ours"): captions_ours,
    ("captions", "peer"): captions_peer,
    ("meteor", "ours"): meteor_ours,
    ("meteor", "peer"): meteor_peer,
}


def run(task: str, side: str, folder: Path) -> Figures:
    """Time a task; returns seconds and memory."""
    work = TASKS[task, side](folder)
    late = 0.0
    if side != "peer" and task in ("cider_d", "captions"):
        # Counting imports pyarrow when it is first asked, and pyarrow pandas: imports are not the work of any side.
        began = time.perf_counter()
        ngrams.count(["a"], [["a"]])
        late = time.perf_counter() - began
    gc.collect()
    before = _peaks()["peak_mb"]
    began = time.perf_counter()
    with redirect_stdout(io.StringIO()):  # the peers print
        result = work()
    took = time.perf_counter() - began
    notes = {name: result.pop(name) for name, value in list(result.items()) if isinstance(value, str)}
    np.savez(folder / f"{task}-{side}.npz", **result)
    return {"seconds": took, "late_imports": late, "before_mb": before, **_peaks(), **notes}


def _peaks() -> dict[str, float]:
    """Of this process, and of the largest of its subprocesses that have ended (0 where there was none)."""
    whose = {"peak_mb": resource.RUSAGE_SELF, "subprocess_mb": resource.RUSAGE_CHILDREN}
    return {name: resource.getrusage(who).ru_maxrss / 1024 for name, who in whose.items()}


if __name__ == "__main__":
    first, *rest = sys.argv[1:]
    if first == "prepare":
        figures = prepare(Path(rest[0]), *map(int, rest[1:]))
    elif first == "golden":
        figures = golden(Path(rest[0]))
    else:
        figures = build() if first == "build" else run(first, rest[0], Path(rest[1]))
    print(json.dumps(figures), flush=True)
