"""Models that recognise names beside the rules: a spaCy pipeline and a token classifier, made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from stages.base.contract import UserError
from stages.ingest.medical.deidentify import Scrubber
from stages.ingest.medical.name_scores import PERSON_LABELS
from stages.ingest.medical.recogniser import check_folder, load_recogniser

KEY = "sources.x.recogniser"
#: Words of the lists; the classifier here takes "foley" for a name, and what begins with "lo" and "ng".
WORDS = ("film", "of", "rotated", "the", "lungs", "are", "clear", "foley", "catheter")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer that knows two names by heart, after some steps of training."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz.,'", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocabulary = {
        word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "lo", "##ng", *WORDS, *letters])
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=24, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        id2label={0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}, label2id={"O": 0, "B-PER": 1, "I-PER": 2, "B-LOC": 3},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    ids = torch.randint(4, len(vocabulary), (64, 12), generator=torch.Generator().manual_seed(0))
    wanted = torch.zeros_like(ids)
    wanted[ids == vocabulary["lo"]], wanted[ids == vocabulary["##ng"]] = 1, 2
    wanted[ids == vocabulary["foley"]] = 1
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=ids, labels=wanted).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def test_a_token_classifier_s_names_go_and_its_eponyms_stay(classifier: Path) -> None:
    model = load_recogniser(classifier, PERSON_LABELS, 0.5, KEY)
    text = "Film of long rotated, the lungs are clear. Foley catheter."
    assert [text[start:end] for start, end in model.spans(text)] == ["long", "Foley"]
    scrub = Scrubber(name_threshold=None, recogniser=model)
    assert Scrubber(name_threshold=None)(text) == text
    assert scrub(text) == "Film of [name] rotated, the lungs are clear. Foley catheter."
    # The lists have the last word on a device, and so has `keep`.
    assert Scrubber(name_threshold=None, keep=["long"], recogniser=model)(text) == text


def test_texts_longer_than_the_model_are_read_in_windows(classifier: Path) -> None:
    model = load_recogniser(classifier, PERSON_LABELS, 0.5, KEY)
    text = "the lungs are clear " * 30 + "long " + "film of " * 40 + "long"
    assert [text[start:end] for start, end in model.spans(text)] == ["long", "long"]


def test_of_a_classifier_labels_and_threshold_are_configured(classifier: Path) -> None:
    assert load_recogniser(classifier, ("per",), 1.0, KEY).spans("film of long") == []
    assert load_recogniser(classifier, ("loc",), 0.5, KEY).spans("film of long") == []
    with pytest.raises(UserError, match=r"recogniser: the model has none of the labels DOCTOR; it has LOC, O, PER"):
        load_recogniser(classifier, ("doctor",), 0.5, KEY)


def test_a_spacy_pipeline_s_names_go(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="pairmill[names] is not installed")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": [{"LOWER": "zephyrine"}]}, {"label": "GPE", "pattern": "Macau"}])
    pipeline.to_disk(tmp_path)
    model = load_recogniser(tmp_path, PERSON_LABELS, 0.5, KEY)
    assert model.spans("the zephyrine, Macau") == [(4, 13)]
    scrub = Scrubber(name_threshold=None, recogniser=model)
    assert scrub("tip of the zephyrine") == "tip of the [name]"
    with pytest.raises(UserError, match="none of the labels"):
        load_recogniser(tmp_path, ("nobody",), 0.5, KEY)


def test_a_folder_without_a_model_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^sources.x.recogniser: neither a spaCy pipeline .* name the folder") as error:
        check_folder(tmp_path / "Fontaine", KEY)
    assert "Fontaine" not in str(error.value)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"^sources.x.recogniser: transformers cannot load the model") as error:
        load_recogniser(tmp_path, PERSON_LABELS, 0.5, KEY)
    assert "\n" not in str(error.value)


def test_the_source_takes_names_that_only_the_model_finds(
    ingest: Any, pairs: Any, classifier: Path, tmp_path: Path
) -> None:
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "scan.png")
    (tmp_path / "reports.json").write_text(
        json.dumps([{"study": "scan", "report": "FINDINGS: film of longng rotated"}])
    )
    fields = {
        "kind": "medical",
        "paths": [str(tmp_path / "scan.png")],
        "reports": [str(tmp_path / "reports.json")],
        "link": "file",
        "burned_in_text": "keep",
        "name_threshold": None,
    }
    assert [row["caption"] for row in pairs(ingest(fields))] == ["film of longng rotated"]
    found = pairs(ingest({**fields, "recogniser": str(classifier)}))
    assert [row["caption"] for row in found] == ["film of [name] rotated"]
    with pytest.raises(UserError, match=r"^sources\.test\.recogniser: neither"):
        ingest({**fields, "recogniser": str(tmp_path)})
