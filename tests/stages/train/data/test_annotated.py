"""A task's own data."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stages.base.contract import UserError
from stages.tokenizer.load import LoadedTokenizer
from stages.tokenizer.special import SpecialIds
from stages.train.data.annotated import AnnotatedDataset
from stages.train.data.annotated_files import AnnotatedFiles, read_annotated
from stages.train.data.crop import Crop
from stages.train.data.dataset import TextTotals, TokenizedText, TrainingSample
from stages.train.data.decode import image_size


@pytest.fixture
def tokenizer() -> LoadedTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: i + 3 for i, token in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return LoadedTokenizer(made)


@pytest.fixture
def files(tmp_path: Path) -> AnnotatedFiles:
    """Three images with five, two and one question."""
    owners = [10] * 5 + [11] * 2 + [12]
    questions = [{"question_id": i, "image_id": o, "question": f"q{i}?"} for i, o in enumerate(owners)]
    answers = [{"question_id": i, "image_id": o, "multiple_choice_answer": f"a{i}"} for i, o in enumerate(owners)]
    (tmp_path / "questions.json").write_text(json.dumps({"questions": questions}))
    (tmp_path / "answers.json").write_text(json.dumps({"annotations": answers}))
    for image in set(owners):
        Image.new("L", (6, 4), image).save(tmp_path / f"{image:04d}.png")
    return AnnotatedFiles(
        str(tmp_path / "answers.json"), str(tmp_path / "questions.json"), str(tmp_path), "{image_id:04d}.png"
    )


def dataset(files: AnnotatedFiles, tokenizer: LoadedTokenizer, **options: Any) -> AnnotatedDataset:
    defaults = {"prompt": "Q: {} A:", "texts_per_image": 2, "max_tokens": 20, "seed": 0}
    return AnnotatedDataset(files, tokenizer, **{**defaults, **options})


def texts(sample: TrainingSample, flipped: bool = False) -> tuple[TokenizedText, ...]:
    width, height = image_size(sample.image)
    return sample.texts(Crop(width, height, (0, 0, width, height), flipped))


def decoded(tokenizer: LoadedTokenizer, ids: Any) -> str:
    return tokenizer.decode(list(ids))


def test_an_image_comes_with_some_of_its_questions_put_into_the_prompt(files: Any, tokenizer: LoadedTokenizer) -> None:
    sample = dataset(files, tokenizer).sample(1, 0)
    assert sample.image == Path(files.images, "0011.png").read_bytes()
    assert sample.boxes is None
    pairs = {(decoded(tokenizer, t.prompt), decoded(tokenizer, t.target[:-1])) for t in texts(sample)}
    assert pairs == {("Q: q5? A:", " a5"), ("Q: q6? A:", " a6")}
    assert all(t.target[-1] == 2 for t in texts(sample))


def test_epochs_cycle_through_all_questions_of_an_image(files: Any, tokenizer: LoadedTokenizer) -> None:
    data = dataset(files, tokenizer)
    taken = [decoded(tokenizer, t.target[:-1]) for epoch in range(5) for t in texts(data.sample(0, epoch))]
    assert len(taken) == 10
    assert all(taken.count(f" a{i}") == 2 for i in range(5))


def test_lengths_are_those_of_the_sample_even_when_cut(files: Any, tokenizer: LoadedTokenizer) -> None:
    for longest in (2, 3, 20):
        data = dataset(files, tokenizer, max_tokens=longest)
        for number in range(len(data)):
            made = texts(data.sample(number, 3))
            expected = (max(len(t.prompt) for t in made), max(len(t.target) for t in made))
            assert data.lengths(number, 3) == expected
            assert max(expected) <= longest


@pytest.mark.parametrize("texts_per_image", [1, 2, 4])
def test_totals_are_those_of_the_texts_shown(files: Any, tokenizer: LoadedTokenizer, texts_per_image: int) -> None:
    data = dataset(files, tokenizer, texts_per_image=texts_per_image, max_tokens=3)
    numbers, epochs = np.array([0, 2, 1, 0, 1]), np.array([0, 0, 1, 2, 5])
    shown = [t for number, epoch in zip(numbers, epochs, strict=True) for t in texts(data.sample(number, epoch))]
    totals = data.totals(numbers, epochs, lambda seed, epoch: True)
    assert totals == TextTotals(len(shown), sum(len(text.target) for text in shown))


def test_a_prompt_that_is_cut_keeps_its_end(files: Any, tokenizer: LoadedTokenizer) -> None:
    text = texts(dataset(files, tokenizer, max_tokens=4).sample(2, 0))[0]
    assert decoded(tokenizer, text.prompt) == "? A:"


def test_captions_follow_a_fixed_prompt(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"annotations": [{"image_id": 1, "caption": "a cat"}]}))
    Image.new("RGB", (4, 4)).save(tmp_path / "1.jpg")
    files = AnnotatedFiles(str(tmp_path / "c.json"), None, str(tmp_path), "{image_id}.jpg")
    text = texts(dataset(files, tokenizer, prompt="a photo of").sample(0, 0))[0]
    assert decoded(tokenizer, [*text.prompt, *text.target[:-1]]) == "a photo of a cat"


def test_the_tokenizers_own_end_ends_a_target(files: Any, tokenizer: LoadedTokenizer) -> None:
    other = LoadedTokenizer(tokenizer.backend, SpecialIds(pad=7, bos=8, eos=9))
    assert {int(t.target[-1]) for t in texts(dataset(files, other).sample(0, 0))} == {9}


def test_an_image_whose_texts_say_a_side_is_not_mirrored(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    captions = ["a cat", "a cat on the left", "the rightmost cat", "a bright cat"]
    rows = [{"image_id": i, "caption": caption} for i, caption in enumerate(captions)]
    (tmp_path / "c.json").write_text(json.dumps({"annotations": rows}))
    for image in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{image}.jpg")
    data = dataset(
        AnnotatedFiles(str(tmp_path / "c.json"), None, str(tmp_path), "{image_id}.jpg"), tokenizer, prompt=""
    )
    assert [data.sample(i, 0).flippable for i in range(4)] == [True, False, False, True]


def test_a_copy_in_another_process_is_small_and_says_the_same(files: Any, tokenizer: LoadedTokenizer) -> None:
    data = dataset(files, tokenizer)
    stored = pickle.dumps(data)
    assert len(stored) < 3000
    for here, there in zip(texts(data.sample(0, 4)), texts(pickle.loads(stored).sample(0, 4)), strict=True):
        assert here.prompt.tolist() == there.prompt.tolist()
        assert here.target.tolist() == there.target.tolist()


def test_a_task_has_no_sources_to_mix(files: Any, tokenizer: LoadedTokenizer) -> None:
    with pytest.raises(UserError, match="no sources to mix"):
        dataset(files, tokenizer).subsets(["a"])


def test_a_missing_image_is_named(files: AnnotatedFiles, tokenizer: LoadedTokenizer) -> None:
    Path(files.images, "0012.png").unlink()
    with pytest.raises(UserError, match=r"0012\.png: no such image"):
        dataset(files, tokenizer).sample(2, 0)


def test_answers_to_unknown_questions_are_refused(files: AnnotatedFiles) -> None:
    Path(files.questions or "").write_text(json.dumps({"questions": [{"question_id": 0, "question": "?"}]}))
    with pytest.raises(UserError, match=r"questions\.json: 7 missing: question 1 2 .*belong together"):
        read_annotated(files)


def test_what_training_needs_of_questions_and_answers_is_checked_by_id(files: AnnotatedFiles) -> None:
    assert files.questions is not None
    answers = [{"question_id": 0, "image_id": 10}, {"question_id": 1, "multiple_choice_answer": "a1"}]
    answers += [{"question_id": 2, "image_id": 10, "multiple_choice_answer": a} for a in ("one", "two")]
    Path(files.annotations).write_text(json.dumps({"annotations": answers}))
    with pytest.raises(UserError) as refused:
        read_annotated(files)
    assert "no multiple_choice_answer that is a string): annotation of question 0" in str(refused.value)
    assert "1 malformed (no image_id): annotation of question 1" in str(refused.value)
    Path(files.annotations).write_text(json.dumps({"annotations": answers[2:]}))
    assert [(a.image_id, a.question, a.text) for a in read_annotated(files)] == [(10, "q2?", "one"), (10, "q2?", "two")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no list"),
        ('{"annotations": []}', "no annotation in it"),
        ('{"annotations": [{}]}', r"1 malformed \(no image_id\): annotation number 0"),
        ('{"annotations": [{"image_id": 1}]}', "no caption that is a string"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"c\.json: .*{message}"):
        read_annotated(AnnotatedFiles(str(path), None, str(tmp_path), ""))
