"""The model card says what was run, and names no path and no source."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.registry import model_config
from stages.finetune.config import TaskConfig
from stages.train import launch
from stages.train.card import CardScores, card
from stages.train.config import TrainConfig
from stages.train.trainer.checkpoint import TrainState

VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "mlp_width": 64}
MODEL: dict[str, Any] = {
    "architecture": "florence2",
    "name": "test",
    "vocabulary": 288,
    "vision": VISION,
    "reconstruction": {"width": 32, "layers": 1, "heads": 2, "mlp_width": 64},
    "language": {"width": 32, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "mlp_width": 64, "positions": 64},
    "initialise_from": {"language": "/secret/weights"},
}
PRETRAINING = TrainConfig.model_validate(
    {"phases": [{"objective": "sequence_to_sequence", "steps": 3, "lr": 0.125}], "mixture": {"secret_ward": 1.0}}
)
TASK = TaskConfig.model_validate(
    {
        "kind": "captions",
        "annotations": "/secret/captions.json",
        "images": "/secret/images",
        "image_pattern": "secret-{image_id}.png",
        "steps": 3,
    }
)


@pytest.mark.parametrize(("key", "settings"), [("train", PRETRAINING), ("tasks.mine", TASK)])
def test_neither_record_nor_card_names_a_path_or_a_source(
    key: str, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases = settings.phases if key == "train" else [settings.phase("florence2")]
    job: Any = SimpleNamespace(
        key=key,
        settings=settings,
        phases=phases,
        model=model_config(MODEL),
        initial=None,
        source=SimpleNamespace(prompt=""),
        precision="bf16",
        tensor_parallel=1,
        folder=tmp_path,
    )
    monkeypatch.setattr(launch, "replaced_summary", lambda folder: {"samples": 2, "uids": ["x"]})
    done: Any = SimpleNamespace(
        step=3, seconds=1.0, ranks=2, hooks={"metrics": {"first_loss": 2.5, "last_loss": 1.25}}, spec=TrainState
    )
    earlier = {
        **launch.train_record(job, [done], {}),
        "data": [{"role": "shards", "stage": "shard", "fingerprint": "5" * 64, "counts": {"samples": 1234}}],
    }
    job.initial = None if key == "train" else "/secret/model"
    model: Any = SimpleNamespace(
        manifest={"stage": "pretrain"},
        fingerprint="b" * 64,
        counts={},
        names=lambda: ["train.json"],
        read_json=lambda name: earlier,
    )
    record = launch.train_record(job, [done], {} if key == "train" else {"model": (model,)})
    described = {"architecture": model_config(MODEL).model_dump(mode="json", exclude={"initialise_from"})}
    scored = CardScores("b", "vqa", {"accuracy": 61.5}, {"n": 12, "split_sha256": {"secret.json": "0"}}, "f" * 64)
    licences = [{"licence": "CC BY 4.0", "pairs": 3, "kept": 2}]
    text = card(record, described, fingerprint="a" * 64, scored=[scored], licences=licences)
    assert "secret" not in text + str(record)
    for told in (
        "2.500 | 1.250",
        "`bf16`",
        "`language`",
        "CC BY 4.0 | 3 | 2",
        "| accuracy | 61.5 |",
        "n = 12",
        "a" * 64,
    ):
        assert told in text
    assert ("0.125" in text) == (key == "train")
    for told in ("started from a pretrained model", "b" * 64, "5" * 64, "samples 1,234"):
        assert (told in text) == (key != "train"), told
    assert ("fine-tuned for `mine`" in text) == (key != "train")
