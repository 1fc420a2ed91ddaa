"""The root schema: one field per key of `conf/config.yaml`, validated whole before anything starts."""

from __future__ import annotations

from pydantic import SerializeAsAny, field_validator, model_validator

from models.registry import AnyModelConfig
from pipelines.cluster import ClusterConfig
from pipelines.tracking.config import TrackingConfig
from stages.base.contract import StageConfig
from stages.base.external_files import misplaced_addresses
from stages.download.config import DownloadSettings
from stages.evaluate.config import BenchmarkConfig, EvaluateSettings
from stages.finetune.config import TaskConfig
from stages.index.config import IndexSettings
from stages.ingest.config import IngestSettings, SourceConfig
from stages.select.config import SelectionConfig
from stages.shard.config import ShardConfig
from stages.signals.config import SignalsConfig
from stages.tokenizer.config import TokenizerConfig
from stages.tokens.config import TokensConfig
from stages.train.config import TrainConfig
from stages.world.config import WorldConfig


class PairmillConfig(StageConfig):
    """Everything a run is made of. The keys are those a user overrides on the command line."""

    workspace: str
    """Folder or fsspec URL that holds artifacts and the MLflow store."""
    worlds: dict[str, WorldConfig] = {}
    sources: dict[str, SerializeAsAny[SourceConfig]]
    """By name; each already validated by the schema of its `kind`, which may come from another package."""
    ingest: IngestSettings
    download: DownloadSettings
    signals: SignalsConfig
    index: IndexSettings
    selection: SelectionConfig
    shard: ShardConfig
    tokenizer: TokenizerConfig
    tokens: TokensConfig
    model: AnyModelConfig
    """Validated by the schema of its `architecture`, which may come from another package."""
    train: TrainConfig
    tasks: dict[str, TaskConfig] = {}
    """What to fine-tune for; those a chosen benchmark needs are added."""
    benchmarks: dict[str, BenchmarkConfig] = {}
    held_out: dict[str, BenchmarkConfig] = {}
    """Benchmarks (by name, from `conf/benchmark/`) whose images must not be trained on, whatever is evaluated today."""
    evaluate: EvaluateSettings
    cluster: ClusterConfig
    tracking: TrackingConfig

    @field_validator("workspace")
    @classmethod
    def _local_is_a_path(cls, workspace: str) -> str:
        # As a name it would be a folder called `file:` in the current one.
        return workspace.removeprefix("file://")

    @model_validator(mode="after")
    def _addresses_are_of_files(self) -> PairmillConfig:
        if misplaced := misplaced_addresses(self):
            raise ValueError("\n".join(misplaced))
        return self

    @model_validator(mode="after")
    def _mixture_is_of_these_sources(self) -> PairmillConfig:
        named, there = set(self.train.mixture or self.sources), set(self.sources)
        if unknown := sorted(named - there):
            raise ValueError(
                f"train.mixture names {', '.join(unknown)}, but the sources are {', '.join(sorted(there))}"
            )
        if missing := sorted(there - named):
            raise ValueError(f"train.mixture gives {', '.join(missing)} no weight: give one, 0 to leave it out")
        return self
