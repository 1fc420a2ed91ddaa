"""The DAG: which stage makes which artifact from which others, for one resolved config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pipelines import retry_passes
from pipelines.config import PairmillConfig
from pipelines.node import Dag, Node, OutsideFiles
from stages.base.contract import Stage, StageConfig, UserError
from stages.base.external_files import WORLD_ROLE, WORLDS_ROLE, addresses, own_files
from stages.download.config import DownloadConfig
from stages.download.stage import Download
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.stage import Evaluate
from stages.finetune.config import FinetuneConfig
from stages.finetune.stage import Finetune
from stages.index.config import BenchmarkImages, IndexConfig, search_radius
from stages.index.stage import BuildIndex
from stages.ingest.config import IngestConfig
from stages.ingest.stage import Ingest
from stages.pretrain.config import PretrainConfig
from stages.pretrain.stage import Pretrain
from stages.select.config import SelectConfig
from stages.select.stage import Select
from stages.shard.stage import Shard
from stages.signals.stage import Signals
from stages.tokenizer.stage import Tokenizer
from stages.tokens.stage import Tokens
from stages.world.stage import World

#: In the order of the pipeline; `world` makes a demonstration's own files and is only there when something reads them.
STAGES: tuple[type[Stage[Any]], ...] = (
    World,
    Ingest,
    Download,
    Signals,
    BuildIndex,
    Select,
    Shard,
    Tokenizer,
    Tokens,
    Pretrain,
    Finetune,
    Evaluate,
)

#: What `pairmill run` takes besides the name of a stage.
GROUPS: dict[str, tuple[str, ...]] = {
    "data": tuple(stage.name for stage in STAGES[: STAGES.index(Tokens) + 1]),
    "all": tuple(stage.name for stage in STAGES),
}


def build(config: PairmillConfig) -> Dag:
    """All nodes of a config, parents before children. Raises UserError for a world or task that is not configured."""
    builder = _Builder(config)
    sources = [builder.source(name) for name in config.sources]
    data = builder.data(sources)
    trained: dict[str | None, str] = {None: builder.pretrain(data)}
    for name in config.tasks:
        trained[name] = builder.finetune(name, str(trained[None]), data["tokenizer"][0])
    for name, benchmark in config.benchmarks.items():
        builder.evaluate(name, trained[benchmark.task])
    return builder.dag


class _Builder:
    """Adds nodes to a DAG, one method per part of the pipeline; each returns node ids."""

    def __init__(self, config: PairmillConfig) -> None:
        self.config = config
        self.dag: Dag = {}
        self.private = [name for name, source in config.sources.items() if source.private]

    def add(
        self,
        stage: type[Stage[Any]],
        instance: str,
        config: StageConfig,
        inputs: Mapping[str, Iterable[str]],
        files: Callable[[], OutsideFiles] | None = None,
        files_key: str = "",
        kind: type[Node] = Node,
    ) -> str:
        """Add a node; input roles that nothing fills are left out, worlds that its config addresses are added.

        `files` lists the outside files to digest, by default all that the config names.
        """
        filled = {role: tuple(ids) for role, ids in inputs.items()}
        node = kind(stage, instance, config, files=files or partial(own_files, config), files_key=files_key)
        filled[WORLD_ROLE if instance else WORLDS_ROLE] = self.worlds(node)
        node = replace(node, inputs={role: ids for role, ids in filled.items() if ids})
        self.dag[node.id] = node
        return node.id

    def worlds(self, node: Node) -> tuple[str, ...]:
        """The nodes of all worlds that a node's config addresses, in the order of first mention."""
        node_ids: dict[str, None] = {}
        for path, address in addresses(node.config):
            name = address.world
            if name not in self.config.worlds:
                known = ", ".join(self.config.worlds) or "none"
                raise UserError(
                    f"{node.config_key(path)}={address}: no world {name} is configured (known: {known});"
                    f" add world=[{name}]"
                )
            node_ids[self.add(World, name, self.config.worlds[name], {})] = None
        return tuple(node_ids)

    def source(self, name: str) -> dict[str, str]:
        """Ingest, download (all its retry passes) and signals of one source."""
        config, source, key = self.config, self.config.sources[name], f"sources.{name}"
        ingest = IngestConfig(**dict(config.ingest), name=name, source=source)
        pairs = self.add(Ingest, name, ingest, {}, partial(source.external_files, key), f"{key}.paths")
        download = DownloadConfig(**dict(config.download), name=name, source=source)
        images, images_key = partial(source.external_images, key), f"{key}.images"
        passes = retry_passes.newest(config.workspace, retry_passes.key(ingest, download))
        previous: list[str] = []
        for number in range(passes + 1):
            settings = download.model_copy(update={"retry_pass": number})
            inputs = {"pairs": [pairs], "previous": previous}
            kind = Node if number == passes else retry_passes.EarlierPass
            previous = [self.add(Download, name, settings, inputs, images, images_key, kind)]
        (raw,) = previous
        measured = {"pairs": [pairs], "raw": [raw]}
        signals = self.add(Signals, name, config.signals, measured, config.signals.external_files, "signals.clip.model")
        return {"pairs": pairs, "raw": raw, "signals": signals}

    def data(self, sources: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
        """Select, shard, tokenizer and tokens over all sources."""
        config = self.config
        pairs, raw, signals = ([source[role] for source in sources] for role in ("pairs", "raw", "signals"))
        index = self.index(pairs, raw, signals)
        select = SelectConfig(selection=config.selection, private_sources=self.private)
        verdicts = self.add(Select, "", select, {"index": [index], "pairs": pairs, "raw": raw})
        shards = self.add(Shard, "", config.shard, {"pairs": pairs, "raw": raw, "verdicts": [verdicts]})
        tokenizer = self.add(
            Tokenizer,
            "",
            config.tokenizer,
            {"pairs": pairs, "verdicts": [verdicts]},
            config.tokenizer.external_files,
            "tokenizer.folder" if config.tokenizer.brought else "tokenizer.text",
        )
        tokens = self.add(Tokens, "", config.tokens, {"shards": [shards], "tokenizer": [tokenizer]})
        return {"shards": [shards], "tokens": [tokens], "tokenizer": [tokenizer]}

    def index(self, pairs: Sequence[str], raw: Sequence[str], signals: Sequence[str]) -> str:
        """The table over all sources, searched as far as the selection asks for."""
        config, selection = self.config, self.config.selection
        held_out = config.held_out.items() if selection.contamination.enabled else ()
        index = IndexConfig(
            search_radius=search_radius(config.index, [selection.duplicates.near, selection.contamination.near]),
            crops=selection.contamination.enabled and selection.contamination.crops is not None,
            ngram=config.index.ngram,
            max_near=config.index.max_near,
            range_rows=config.index.range_rows,
            benchmarks={name: BenchmarkImages.model_validate(it.held_out()) for name, it in held_out},
            private_sources=self.private,
        )
        inputs = {"pairs": pairs, "raw": raw, "signals": signals}
        return self.add(BuildIndex, "", index, inputs, files_key="held_out")

    def pretrain(self, data: Mapping[str, Sequence[str]]) -> str:
        """The pretrained model."""
        config = PretrainConfig(
            model=self.config.model, train=self.config.train, precision=self.config.cluster.precision
        )
        weights, key = config.weight_files, "model.initialise_from"
        return self.add(Pretrain, self.config.model.name, config, data, weights, key)

    def finetune(self, name: str, model: str, tokenizer: str) -> str:
        """The model fine-tuned for one task."""
        config = FinetuneConfig(name=name, task=self.config.tasks[name], precision=self.config.cluster.precision)
        inputs = {"model": [model], "tokenizer": [tokenizer]}
        return self.add(Finetune, f"{self.config.model.name}/{name}", config, inputs, files_key=f"tasks.{name}")

    def evaluate(self, name: str, model: str) -> str:
        """The scores of a model on one benchmark."""
        benchmark = self.config.benchmarks[name]
        config = EvaluateConfig(**dict(self.config.evaluate), name=name, benchmark=benchmark)
        instance = f"{self.config.model.name}/{name}"
        return self.add(Evaluate, instance, config, {"model": [model]}, files_key=f"benchmarks.{name}")


def targets(dag: Dag, name: str) -> list[str]:
    """Node ids that `pairmill run NAME` is to bring up to date. Raises UserError for an unknown name."""
    names = GROUPS.get(name, (name,))
    node_ids = [node.id for node in dag.values() if node.stage.name in names or node.id == name]
    if not node_ids:
        known = ", ".join([*GROUPS, *(stage.name for stage in STAGES)])
        raise UserError(f"run {name}: no such stage or group; choose one of {known}")
    return node_ids
