"""Tokenizers brought by the user: the ids they have stay, what our models need comes behind, mistakes are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipelines.fingerprint import FileDigests
from stages.base.contract import UserError
from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.imported import write_imported
from stages.tokenizer.load import LoadedTokenizer, load
from stages.tokenizer.special import SpecialIds
from stages.tokenizer.stage import Tokenizer as TokenizerStage

TEXTS = [
    "a red circle on a blue square",
    "ein roter Kreis",
    "赤い丸",
    "two  spaces, and </s> or <|endoftext|> as text",
    "",
]


def trained(model: Any, special: list[str], **settings: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if "pre_tokenizer" in settings else []
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def gpt2(special: list[str]) -> Tokenizer:
    byte_level = {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False), "decoder": decoders.ByteLevel()}
    return trained(models.BPE(), special, **byte_level)


def llama() -> Tokenizer:
    """SentencePiece's shape: bytes where a character has no piece, and a space before the text."""
    prefix = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    bare = trained(models.BPE(unk_token="<unk>", byte_fallback=True), ["<unk>", "<s>", "</s>"], normalizer=prefix)
    content = json.loads(bare.to_str())
    vocabulary = content["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
    return tokenizer


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """A folder as `transformers` saves it."""

    def save(tokenizer: Tokenizer, **named: str) -> Path:
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(tmp_path / "folder")
        return tmp_path / "folder"

    return save


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., tuple[Path, LoadedTokenizer]]:
    def run(folder: Path, **config: Any) -> tuple[Path, LoadedTokenizer]:
        out = tmp_path / "taken"
        out.mkdir()
        write_imported(TokenizerConfig(folder=str(folder), **config), out)
        return out, load(out)

    return run


SHAPES: dict[str, tuple[Callable[[], Tokenizer], dict[str, str], tuple[str, str, str]]] = {
    "gpt2": (lambda: gpt2(["<|endoftext|>"]), {"eos_token": "<|endoftext|>"}, ("<pad>", *2 * ["<|endoftext|>"])),  # type: ignore[dict-item]
    "opt": (
        lambda: gpt2(["<s>", "<pad>", "</s>", "<unk>"]),
        {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"},
        ("<pad>", "</s>", "</s>"),
    ),
    "llama": (llama, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, ("<pad>", "<s>", "</s>")),
    "smollm2": (
        lambda: gpt2(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
        ("<pad>", "<|im_start|>", "<|im_end|>"),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_stay_and_what_is_missing_comes_behind_them(shape: str, saved: Any, take: Any) -> None:
    make, named, (pad, bos, eos) = SHAPES[shape]
    before = make()
    folder = saved(before, **named)
    out, tokenizer = take(folder, task_tokens=["<caption>"], location_tokens=1000)
    ids, had = json_ids(out), before.get_vocab()
    assert {token: ids[token] for token in had} == had
    assert tokenizer.special == SpecialIds(ids[pad], ids[bos], ids[eos])
    new = ["<pad>"] * (pad not in had) + ["<caption>", *(f"<loc_{n}>" for n in range(1000))]
    assert [ids[token] for token in new] == list(range(len(had), len(had) + len(new)))
    assert tokenizer.vocabulary == len(had) + len(new) == len(set(ids.values()))
    encoded = tokenizer.encode_batch(TEXTS)
    assert tokenizer.losses(TEXTS, encoded) == (0, 0)
    assert not {*vars(tokenizer.special).values()} & {i for row in encoded for i in row}, "no text ends or pads a text"
    framed = [tokenizer.special.bos, *tokenizer.encode("a<loc_7>"), tokenizer.special.eos, tokenizer.special.pad]
    assert tokenizer.decode(framed) == "a<loc_7>"
    assert tokenizer.token_id("<loc_7>") in framed


def json_ids(folder: Path) -> dict[str, int]:
    return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_transformers_reads_the_same_ids_from_what_was_taken(shape: str, saved: Any, take: Any) -> None:
    make, named, _ = SHAPES[shape]
    out, tokenizer = take(saved(make(), **named), task_tokens=["<caption>"])
    theirs: Any = AutoTokenizer.from_pretrained(out)
    special = tokenizer.special
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (special.pad, special.bos, special.eos)
    for text in ["a red circle<caption>", "赤い丸"]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)


def test_an_older_folder_of_vocab_and_merges_gives_the_ids_its_owner_gives(tmp_path: Path, take: Any) -> None:
    made = gpt2(["<|endoftext|>"])
    folder = tmp_path / "old"
    folder.mkdir()
    made.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}')
    assert sorted(path.name for path in folder.iterdir()) == ["merges.txt", "tokenizer_config.json", "vocab.json"]
    _, tokenizer = take(folder)
    made.encode_special_tokens = True
    assert tokenizer.encode_batch(TEXTS) == [made.encode(text, add_special_tokens=False).ids for text in TEXTS]


def test_lengths_of_another_use_neither_cut_nor_pad(saved: Any, take: Any) -> None:
    made = gpt2(["<|endoftext|>"])
    folder = saved(made, eos_token="<|endoftext|>")
    made.enable_truncation(2)
    made.enable_padding(length=9)
    made.save(str(folder / "tokenizer.json"))
    _, tokenizer = take(folder)
    assert tokenizer.losses(TEXTS, tokenizer.encode_batch(TEXTS)) == (0, 0)


def test_what_a_tokenizer_loses_is_counted(saved: Any, take: Any) -> None:
    bare = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "a": 2, "cat": 3}, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    _, tokenizer = take(saved(bare, eos_token="</s>", unk_token="<unk>"))
    texts = ["a cat", "a dog or two", "cat"]
    assert tokenizer.losses(texts, tokenizer.encode_batch(texts)) == (1, 3)


def test_mistakes_are_named(saved: Any, take: Any, tmp_path: Path) -> None:
    def refused(folder: Path, message: str, **config: Any) -> None:
        with pytest.raises(UserError, match=message):
            write_imported(TokenizerConfig(folder=str(folder), **config), tmp_path)

    refused(tmp_path / "nowhere", r"tokenizer\.folder: no folder .*nowhere")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"tokenizer\.folder: .*empty has no tokenizer\.json, and transformers finds no other")
    folder = saved(gpt2(["<|endoftext|>"]))
    refused(folder, "no eos token, so a text could not end")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<end>"}))
    refused(folder, "its eos_token '<end>' has no id")
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    refused(folder, r"tokenizer\.vocabulary=300, but .* has \d+ ids", vocabulary=300)
    (folder / "tokenizer.json").write_text("{}")
    refused(folder, r"tokenizer\.json cannot be read")


def test_gaps_between_ids_are_refused_where_a_token_would_take_one_in_use(saved: Any, tmp_path: Path) -> None:
    content = json.loads(gpt2(["<|endoftext|>"]).to_str())
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary[last] += 1
    folder = saved(Tokenizer.from_str(json.dumps(content)), eos_token="<|endoftext|>")
    with pytest.raises(UserError, match="has gaps between its ids"):
        write_imported(TokenizerConfig(folder=str(folder), task_tokens=["<caption>"]), tmp_path)


def test_a_task_token_the_folder_holds_as_special_keeps_its_id_and_is_read_from_text(saved: Any, take: Any) -> None:
    made = gpt2(["<|endoftext|>"])
    made.add_special_tokens([AddedToken("<caption>", special=True)])
    _, tokenizer = take(saved(made, eos_token="<|endoftext|>"), task_tokens=["<caption>"])
    assert tokenizer.encode("<caption>") == [made.token_to_id("<caption>")]


def test_the_contents_of_the_folder_count_and_not_where_it_lies_or_what_else_it_holds(
    saved: Any, tmp_path: Path
) -> None:
    folder = saved(gpt2(["<|endoftext|>"]), eos_token="<|endoftext|>")
    digests = FileDigests(tmp_path / "memory.json")

    def digest() -> str:
        return digests.digest(TokenizerConfig(folder=str(folder)).external_files(), "tokenizer.folder")

    first = digest()
    (folder / "model.safetensors").write_bytes(b"weights")
    folder = folder.rename(tmp_path / "elsewhere")
    assert digest() == first
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "a"}))
    assert digest() != first


def test_the_stage_makes_its_artifact_from_the_folder_and_reports_on_it(
    saved: Any, run_stage: Any, corpus_inputs: Any
) -> None:
    folder = saved(llama(), bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    inputs = corpus_inputs({"web": TEXTS[:3], "own": ["private words"]}, private=["own"])
    artifact = run_stage(TokenizerStage(TokenizerConfig(folder=str(folder))), inputs)
    assert artifact.manifest["config"]["brought"] is True
    assert artifact.counts["vocabulary"] == load(artifact.path()).vocabulary
    report = artifact.read_json("report.json")
    assert {name: corpus["round_trip_failed"] for name, corpus in report["corpora"].items()} == {"web": 0, "own": 0}
    assert not any(corpus["trained_on"] for corpus in report["corpora"].values())
    written = artifact.path("manifest.json").read_text() + artifact.path("report.json").read_text()
    assert str(folder) not in written
