"""A task's own data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stages.contract import UserError
from stages.tokenizer.load import LoadedTokenizer
from stages.train.annotated import AnnotatedDataset
from stages.train.annotated_files import AnnotatedFiles, read_annotated


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
    defaults = {"prompt": "Q: {} A:", "texts_per_image": 2, "max_tokens": 20, "seed": 0, "cache_mb": 1}
    return AnnotatedDataset(files, tokenizer, **{**defaults, **options})


def said(tokenizer: LoadedTokenizer, ids: Any) -> str:
    return tokenizer.decode(list(ids))


def test_an_image_comes_with_some_of_its_questions_put_into_the_prompt(files: Any, tokenizer: LoadedTokenizer) -> None:
    sample = dataset(files, tokenizer).sample(1, 0)
    assert sample.image.mode == "RGB"
    assert sample.image.size == (6, 4)
    texts = {(said(tokenizer, t.prompt), said(tokenizer, t.target[:-1])) for t in sample.texts}
    assert texts == {("Q: q5? A:", " a5"), ("Q: q6? A:", " a6")}
    assert all(t.target[-1] == 2 for t in sample.texts)


def test_epochs_cycle_through_all_questions_of_an_image(files: Any, tokenizer: LoadedTokenizer) -> None:
    data = dataset(files, tokenizer)
    taken = [said(tokenizer, t.target[:-1]) for epoch in range(5) for t in data.sample(0, epoch).texts]
    assert len(taken) == 10
    assert all(taken.count(f" a{i}") == 2 for i in range(5))


def test_lengths_are_those_of_the_sample_even_when_cut(files: Any, tokenizer: LoadedTokenizer) -> None:
    for longest in (2, 3, 20):
        data = dataset(files, tokenizer, max_tokens=longest)
        for number in range(len(data)):
            texts = data.sample(number, 3).texts
            expected = (max(len(t.prompt) for t in texts), max(len(t.target) for t in texts))
            assert data.lengths(number, 3) == expected
            assert max(expected) <= longest


def test_a_prompt_that_is_cut_keeps_its_end(files: Any, tokenizer: LoadedTokenizer) -> None:
    text = dataset(files, tokenizer, max_tokens=4).sample(2, 0).texts[0]
    assert said(tokenizer, text.prompt) == "? A:"


def test_captions_follow_a_fixed_prompt(tmp_path: Path, tokenizer: LoadedTokenizer) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"annotations": [{"image_id": 1, "caption": "a cat"}]}))
    Image.new("RGB", (4, 4)).save(tmp_path / "1.jpg")
    files = AnnotatedFiles(str(tmp_path / "c.json"), None, str(tmp_path), "{image_id}.jpg")
    text = dataset(files, tokenizer, prompt="a photo of").sample(0, 0).texts[0]
    assert said(tokenizer, [*text.prompt, *text.target[:-1]]) == "a photo of a cat"


def test_a_missing_image_is_named(files: AnnotatedFiles, tokenizer: LoadedTokenizer) -> None:
    Path(files.images, "0012.png").unlink()
    with pytest.raises(UserError, match=r"0012\.png: no such image"):
        dataset(files, tokenizer).sample(2, 0)


def test_answers_to_unknown_questions_are_refused(files: AnnotatedFiles) -> None:
    Path(files.questions or "").write_text(json.dumps({"questions": [{"question_id": 0, "question": "?"}]}))
    with pytest.raises(UserError, match=r"annotations\[1\] answers question 1"):
        read_annotated(files)


@pytest.mark.parametrize(
    ("content", "says"), [("{", "not JSON"), ("[]", "no list"), ('{"annotations": [{}]}', "no `image_id`")]
)
def test_malformed_files_are_named(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"c\.json: .*{says}"):
        read_annotated(AnnotatedFiles(str(path), None, str(tmp_path), ""))
