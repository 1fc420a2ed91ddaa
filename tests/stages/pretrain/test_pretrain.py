"""Pretraining for real, over both phases; and the pairs it reads."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel

from models import registry
from stages.base.artifact import Artifact
from stages.base.contract import UserError
from stages.pretrain.config import PretrainConfig
from stages.pretrain.stage import Pretrain
from stages.shard.reader import ShardReader
from stages.tokenizer.config import TokenizerConfig
from stages.tokenizer.imported import write_imported
from stages.tokenizer.load import load
from stages.tokenizer.special import SpecialIds
from stages.train.data.crop import Crop
from stages.train.data.pairs import PairDataset

VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64}
MODELS: dict[str, dict[str, Any]] = {
    "blip2": {
        "architecture": "blip2",
        "name": "test",
        "vocabulary": 288,
        "vision": VISION,
        "qformer": {"queries": 2, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
        "language": {"width": 32, "layers": 2, "heads": 2, "mlp_width": 64, "positions": 64},
        "heads": {"projection": 16},
    },
    "florence2": {
        "architecture": "florence2",
        "name": "test",
        "vocabulary": 288,
        "vision": VISION,
        "reconstruction": {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
        "language": {
            "width": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "heads": 2,
            "mlp_width": 64,
            "positions": 64,
        },
    },
}
PHASES = {
    "blip2": [{"objective": "representation", "steps": 6}, {"objective": "language_modeling", "epochs": 2}],
    "florence2": [{"objective": "masked_autoencoding", "steps": 6}, {"objective": "sequence_to_sequence", "epochs": 2}],
}


def config(architecture: str, **train: Any) -> PretrainConfig:
    settings = {
        "phases": PHASES[architecture],
        "lr": 3e-3,
        "global_batch": 8,
        "micro_batch": 4,
        "log_every": 2,
        "checkpoint_every": 4,
    }
    return PretrainConfig.model_validate({"model": MODELS[architecture], "train": {**settings, **train}})


def test_pairs_come_with_the_tokens_of_their_caption_and_eos(inputs: Any) -> None:
    data = PairDataset(inputs["shards"][0], inputs["tokens"][0], max_tokens=8)
    tokenizer = Tokenizer.from_file(str(inputs["tokenizer"][0].path("tokenizer.json")))
    captions = json.loads(tokenizer.to_str())["model"]["vocab"]
    assert len(data) == 24
    for number in range(24):
        sample = data.sample(number, 0)
        (text,) = sample.texts(Crop.whole(20, 20))
        assert data.lengths(number, 0) == (0, len(text.target))
        assert len(text.prompt) == 0
        assert text.target[-1] == captions["</s>"] == 2
        assert len(text.target) <= 8
        said = "".join(tokenizer.id_to_token(i) for i in text.target[:-1]).replace("Ġ", " ")
        brightest = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
        image = Image.open(io.BytesIO(sample.image))
        means = [sum(image.getchannel(c).tobytes()) / 400 > 128 for c in range(3)]
        color = brightest[tuple(int(m) for m in means)]  # type: ignore[index]
        assert (color if len(text.target) < 8 else f"a {color} square").startswith(said)


def test_samples_of_one_image_share_their_image_id_and_no_others(inputs: Any) -> None:
    data = PairDataset(inputs["shards"][0], inputs["tokens"][0], max_tokens=8)
    ids = [data.sample(number, 0).image_id for number in range(len(data))]
    assert len(set(ids)) == 24
    assert all(0 <= i < 2**63 for i in ids)


def test_a_vocabulary_that_does_not_fit_is_refused_before_any_worker_starts(run_stage: Any, inputs: Any) -> None:
    small = PretrainConfig.model_validate(
        {"model": {**MODELS["blip2"], "vocabulary": 200}, "train": config("blip2").train.model_dump()}
    )
    with pytest.raises(UserError, match=r"tokenizer.vocabulary=259 .* model.vocabulary=200"):
        run_stage(Pretrain(small), inputs)


def test_shards_of_which_every_sample_was_forgotten_are_refused_before_any_worker_starts(
    run_stage: Any, inputs: Any, tmp_path: Path
) -> None:
    emptied = Path(shutil.copytree(inputs["shards"][0].path(), tmp_path / "emptied"))
    dataset = json.loads((emptied / "dataset.json").read_text())
    (emptied / "dataset.json").write_text(json.dumps({**dataset, "samples": 0}))
    with pytest.raises(UserError, match="none of the 2 shards holds a sample any more, since `pairmill forget`"):
        run_stage(Pretrain(config("blip2")), {**inputs, "shards": [Artifact(str(emptied))]})


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["blip2", "florence2"])
def test_both_phases_run_one_after_the_other(architecture: str, ray_session: None, run_stage: Any, inputs: Any) -> None:
    made: Artifact = run_stage(Pretrain(config(architecture)), inputs, cluster={"workers": 2})
    record = made.read_json("train.json")
    assert [phase["steps"] for phase in record["phases"]] == [6, 6]
    assert [phase["objective"] for phase in record["phases"]] == [p["objective"] for p in PHASES[architecture]]
    lines = [json.loads(line) for line in made.path("history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert lines[-1]["metrics"]["loss"] < lines[3]["metrics"]["loss"]
    model = registry.load(made.path("model"))
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert not [name for name in made.names() if "ray" in name or "step-" in name]
    card = made.path("model/README.md").read_text()
    assert f"| {record['phases'][0]['first_loss']:.3f} | {record['phases'][0]['last_loss']:.3f} |" in card
    for artifact in (inputs[role][0] for role in ("shards", "tokens", "tokenizer")):
        assert artifact.fingerprint in card
        assert artifact.url not in card + made.path("train.json").read_text()
    assert sum(record["parameters"].values()) == sum(weight.numel() for weight in model.parameters())
    tokenizer: Any = AutoTokenizer.from_pretrained(made.path("model"), local_files_only=True)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    said = "a red </s> square"
    assert tokenizer(said)["input_ids"] == load(made.path("tokenizer")).encode(said)


@pytest.mark.slow
def test_a_brought_tokenizers_own_ids_frame_the_texts_from_training_to_writing(
    ray_session: None, run_stage: Any, inputs: Any, tmp_path: Path
) -> None:
    """As OPT: `</s>` begins and ends a text, and the pad id is not 0."""
    content = json.loads(Tokenizer.from_file(str(inputs["tokenizer"][0].path("tokenizer.json"))).to_str())
    vocabulary = content["model"]["vocab"]
    # What the fixture calls <pad>, <s>, </s> = 0, 1, 2 is <s>, <pad>, </s> here, so captions keep their ids.
    vocabulary |= {"<s>": 0, "<pad>": 1}
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text('{"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}')
    taken = tmp_path / "taken"
    taken.mkdir()
    write_imported(TokenizerConfig(folder=str(folder)), taken)
    (taken / "manifest.json").write_text(json.dumps({"fingerprint": "e" * 64, "files": [], "counts": {}}))
    brought = {**inputs, "tokenizer": [Artifact(str(taken))]}
    made: Artifact = run_stage(
        Pretrain(config("blip2", phases=[{"objective": "language_modeling", "epochs": 4}])), brought
    )
    model: Any = registry.load(made.path("model"))
    assert (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id) == (1, 2, 2)
    tokenizer = load(made.path("tokenizer"))
    assert tokenizer.special == SpecialIds(1, 2, 2)
    empty = torch.zeros(2, 0, dtype=torch.long)
    pixels = torch.zeros(2, 3, 16, 16)
    written = registry.generate(model, pixels, torch.arange(2), empty, empty, num_beams=1, max_new_tokens=12)
    ended = [row.index(2) for row in written.tolist() if 2 in row]
    assert all(set(row[end + 1 :]) <= {1} for row, end in zip(written.tolist(), ended, strict=False))


@pytest.mark.slow
def test_samples_of_a_cut_shard_stop_training_or_are_replaced_and_counted(
    ray_session: None, run_stage: Any, inputs: Any, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    shutil.copytree(inputs["shards"][0].url, shards)
    tar = shards / "train-00001.tar"
    reader = ShardReader(Artifact(str(shards)))
    whole = reader.index[18].image_offset  # of the shard's twelve samples, six
    tar.write_bytes(tar.read_bytes()[:whole])
    damaged = {**inputs, "shards": [Artifact(str(shards))]}
    phase = {"phases": [{"objective": "language_modeling", "epochs": 1}], "loader_workers": 1}
    with pytest.raises(UserError, match=r"train-00001.tar: too short.*damaged_shards=skip"):
        run_stage(Pretrain(config("blip2", **phase)), damaged)
    made: Artifact = run_stage(Pretrain(config("blip2", damaged_shards="skip", **phase)), damaged)
    lost = sorted(reader.index[number].uid for number in range(18, 24))
    assert made.read_json("train.json")["replaced"] == {"samples": 6, "uids": lost}
    lines = [json.loads(line)["metrics"] for line in made.path("history.jsonl").read_text().splitlines()]
    assert sum(line["replaced_samples"] for line in lines) == 6


def test_weights_that_do_not_fit_are_refused_before_the_data_are_made(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=16, patch_size=8, hidden_act="gelu")).save_pretrained(tmp_path)
    model = {**MODELS["blip2"], "initialise_from": {"vision": str(tmp_path)}}
    stage = Pretrain(PretrainConfig.model_validate({"model": model, "train": {"phases": PHASES["blip2"]}}))
    with pytest.raises(UserError, match=r"^model\.initialise_from\.vision: .*num_hidden_layers=2, this model has 1"):
        stage.check()
