"""A model's embeddings and the tokenizer's ids go together, or the run is refused before it starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MBartConfig,
    MBartForConditionalGeneration,
    OPTConfig,
    OPTForCausalLM,
)

from models import registry
from models.blip2.config import Blip2Config
from models.florence2.config import Florence2Config
from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.pretrain.embeddings import check_embeddings, check_start
from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.imported import write_imported
from stages.tokenizer.special import read_special

VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64}
SIZES = {"width": 32, "heads": 2, "mlp_width": 64, "positions": 64}
#: Rows of the weights: a few more than their tokenizer has ids, as in OPT.
ROWS = 264


def tokenizer(first: tuple[str, ...]) -> Tokenizer:
    tokens = [*first, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(first))
    return made


@pytest.fixture
def opt(tmp_path: Path) -> Path:
    """A folder like OPT's: `</s>` begins and ends a text, the tokenizer lies beside the weights."""
    torch.manual_seed(0)
    shape = OPTConfig(
        vocab_size=ROWS,
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=64,
        max_position_embeddings=64,
    )
    folder = tmp_path / "opt"
    OPTForCausalLM(shape).save_pretrained(folder)
    tokenizer(("<s>", "<pad>", "</s>", "<unk>")).save(str(folder / "tokenizer.json"))
    named = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


@pytest.fixture
def brought(tmp_path: Path) -> Callable[..., Artifact]:
    """The files of a `tokenizer` artifact made from a folder."""

    def make(folder: Path, **config: Any) -> Artifact:
        out = tmp_path / "tokenizer"
        out.mkdir()
        write_imported(TokenizerConfig(folder=str(folder), **config), out)
        return Artifact(str(out))

    return make


def blip2(vocabulary: int, language: Path, **start: Any) -> Blip2Config:
    return Blip2Config.model_validate(
        {
            "name": "test",
            "vocabulary": vocabulary,
            "vision": VISION,
            "qformer": {"queries": 2, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
            "language": {**SIZES, "layers": 2},
            "heads": {"projection": 16},
            "initialise_from": {"language": str(language), **start},
        }
    )


def test_a_models_own_tokenizer_with_added_tokens_starts_from_its_embeddings(opt: Path, brought: Any) -> None:
    artifact = brought(opt, task_tokens=[f"<task_{n}>" for n in range(20)])
    config = blip2(300, opt)
    check_start(config)
    check_embeddings(config, artifact)
    special = read_special(artifact.path())
    assert (special.pad, special.bos, special.eos) == (1, 2, 2)
    model: Any = registry.build(config, **special.models())
    theirs = OPTForCausalLM.from_pretrained(opt).state_dict()["model.decoder.embed_tokens.weight"]
    embeddings = model.language.get_input_embeddings().weight
    assert torch.equal(embeddings[:ROWS], theirs)
    assert embeddings.shape[0] == 300
    assert embeddings[ROWS:].std() > 0.01
    assert model.language.lm_head.weight is embeddings
    assert (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id) == (1, 2, 2)


def test_embeddings_of_another_tokenizer_are_refused_unless_they_start_at_random(
    opt: Path, tmp_path: Path, brought: Any
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    tokenizer(("<pad>", "<s>", "</s>", "<more>")).save(str(folder / "tokenizer.json"))
    artifact = brought(folder)
    message = r"3 of the 260 tokens .* set tokenizer\.folder=.*opt .* model\.initialise_from\.embeddings=false"
    with pytest.raises(UserError, match=message):
        check_embeddings(blip2(300, opt), artifact)
    config = blip2(300, opt, embeddings=False)
    check_embeddings(config, artifact)
    model: Any = registry.build(config)
    theirs = OPTForCausalLM.from_pretrained(opt).state_dict()
    own = model.language.state_dict()
    assert not torch.equal(own["model.decoder.embed_tokens.weight"][:ROWS], theirs["model.decoder.embed_tokens.weight"])
    assert torch.equal(own["model.decoder.layers.0.fc1.weight"], theirs["model.decoder.layers.0.fc1.weight"])


def test_an_older_folders_vocabulary_is_compared_too(opt: Path, brought: Any) -> None:
    artifact = brought(opt)
    vocabulary = json.loads((opt / "tokenizer.json").read_text())["model"]["vocab"]
    (opt / "tokenizer.json").unlink()
    (opt / "vocab.json").write_text(json.dumps(vocabulary))
    check_embeddings(blip2(300, opt), artifact)
    (opt / "vocab.json").write_text(json.dumps({**vocabulary, "a": vocabulary["b"], "b": vocabulary["a"]}))
    with pytest.raises(UserError, match="2 of the 260 tokens"):
        check_embeddings(blip2(300, opt), artifact)


def test_too_few_embeddings_are_refused_with_both_keys_and_numbers(opt: Path, brought: Any) -> None:
    artifact = brought(opt)
    with pytest.raises(UserError, match=r"tokenizer\.vocabulary=260 does not fit model\.vocabulary=200"):
        check_embeddings(blip2(200, opt), artifact)
    described = json.loads((opt / "config.json").read_text())
    (opt / "config.json").write_text(json.dumps({**described, "vocab_size": 100}))
    message = r"260 ids besides added tokens, but model\.initialise_from\.language has embeddings for 100"
    content = json.loads(artifact.path("tokenizer.json").read_text())
    artifact.path("tokenizer.json").write_text(json.dumps({**content, "added_tokens": []}))
    with pytest.raises(UserError, match=message):
        check_embeddings(blip2(300, opt), artifact)


def test_a_folder_of_another_kind_of_model_is_refused_before_anything_runs(opt: Path, tmp_path: Path) -> None:
    described = json.loads((opt / "config.json").read_text())
    (opt / "config.json").write_text(json.dumps({**described, "model_type": "llama"}))
    with pytest.raises(UserError, match=r"type 'llama'; this architecture starts from 'opt'"):
        check_start(blip2(300, opt))
    with pytest.raises(UserError, match=r"nowhere is not a folder with a config\.json"):
        check_start(blip2(300, tmp_path / "nowhere"))


def test_a_decoder_without_a_pad_token_starts_with_its_own_tokenizer(tmp_path: Path, brought: Any) -> None:
    shape = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    folder = tmp_path / "llama"
    theirs = LlamaForCausalLM(shape)
    theirs.save_pretrained(folder)
    tokenizer(("<unk>", "<s>", "</s>", "<0x0A>")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    artifact = brought(folder)
    fields = blip2(300, folder).model_dump() | {"language": {"family": "transformers"}}
    config = Blip2Config.model_validate(fields)
    check_start(config)
    check_embeddings(config, artifact)
    special = read_special(artifact.path())
    assert (special.pad, special.bos, special.eos) == (260, 1, 2)
    model: Any = registry.build(config, **special.models())
    assert torch.equal(model.language.get_input_embeddings().weight[:260], theirs.model.embed_tokens.weight)
    assert model.language.generation_config.pad_token_id == 260
    with pytest.raises(UserError, match=r"type 'llama'; this architecture starts from 'mistral'"):
        check_start(
            Blip2Config.model_validate(
                {
                    **fields,
                    "language": {
                        **config.language.model_dump(),
                        "shape": {**(config.language.shape or {}), "model_type": "mistral"},
                    },
                }
            )
        )


def test_florence2_starts_from_an_mbart_of_fewer_ids(tmp_path: Path, brought: Any) -> None:
    torch.manual_seed(0)
    shape = MBartConfig(
        vocab_size=ROWS,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    )
    folder = tmp_path / "mbart"
    theirs = MBartForConditionalGeneration(shape)
    theirs.save_pretrained(folder)
    tokenizer(("<s>", "<pad>", "</s>", "<unk>")).save(str(folder / "tokenizer.json"))
    artifact = brought(folder, location_tokens=1000)
    config = Florence2Config.model_validate(
        {
            "name": "test",
            "vocabulary": 1264,
            "vision": VISION,
            "reconstruction": {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
            "language": {**SIZES, "encoder_layers": 1, "decoder_layers": 1},
            "initialise_from": {"language": str(folder)},
        }
    )
    check_embeddings(config, artifact)
    special = read_special(artifact.path())
    model: Any = registry.build(config, **special.models())
    assert torch.equal(model.language.get_input_embeddings().weight[:ROWS], theirs.model.shared.weight)
    model.save_pretrained(tmp_path / "saved")
    loaded: Any = registry.load(tmp_path / "saved")
    assert loaded.language.config.decoder_start_token_id == special.bos == 0
