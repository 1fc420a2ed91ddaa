"""The DAG: which stage makes which artifact from which others, for one resolved config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pipelines import retry_passes
from pipelines.config import PairmillConfig
from pipelines.node import Dag, Node
from stages.base.contract import Stage, StageConfig, UserError
from stages.download.config import DownloadConfig
from stages.download.stage import Download
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.stage import Evaluate
from stages.finetune.config import FinetuneConfig
from stages.finetune.stage import Finetune
from stages.index.config import BenchmarkImages, Hash, IndexConfig
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
    "data": tuple(stage.name for stage in STAGES[:9]),
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
    """Adds nodes to a DAG, one method per stretch of the pipeline; each returns node ids."""

    def __init__(self, config: PairmillConfig) -> None:
        self.config = config
        self.dag: Dag = {}
        self.private = [name for name, source in config.sources.items() if source.private]

    def add(
        self,
        stage: type[Stage[Any]],
        instance: str,
        config: StageConfig,
        inputs: Mapping[str, Iterable[str | None]],
        kind: type[Node] = Node,
        **files: Any,
    ) -> str:
        """Add a node; input roles that nothing fills are left out."""
        filled = {role: tuple(i for i in ids if i) for role, ids in inputs.items()}
        node = kind(stage, instance, config, {role: ids for role, ids in filled.items() if ids}, **files)
        self.dag[node.id] = node
        return node.id

    def world(self, name: str | None, key: str) -> str | None:
        """The node of a world that config key `key` refers to; None for none."""
        if name is None:
            return None
        if name not in self.config.worlds:
            known = ", ".join(self.config.worlds) or "none"
            raise UserError(f"{key}.world={name}: no such world is configured (known: {known}); add world=[{name}]")
        return self.add(World, name, self.config.worlds[name], {})

    def source(self, name: str) -> dict[str, str]:
        """Ingest, download (all its retry passes) and signals of one source."""
        config, source, key = self.config, self.config.sources[name], f"sources.{name}"
        home = self.world(source.world, key)
        ingest = IngestConfig(**dict(config.ingest), name=name, source=source)
        lists: dict[str, Any] = {}
        if home is None:
            lists = {"files": partial(source.external_files, key), "files_key": f"{key}.paths"}
        pairs = self.add(Ingest, name, ingest, {"world": [home]}, **lists)
        download = DownloadConfig(**dict(config.download), name=name, source=source)
        local = source.images is not None and home is None
        images: dict[str, Any] = (
            {"files": partial(source.external_images, key), "files_key": f"{key}.images"} if local else {}
        )
        passes = retry_passes.newest(config.workspace, retry_passes.key(ingest, download))
        previous: list[str | None] = []
        for number in range(passes):
            inputs: dict[str, list[str | None]] = {"pairs": [pairs], "world": [home], "previous": previous}
            settings = download.model_copy(update={"retry_pass": number})
            previous = [self.add(Download, name, settings, inputs, kind=retry_passes.EarlierPass, **images)]
        newest = download.model_copy(update={"retry_pass": passes})
        raw = self.add(Download, name, newest, {"pairs": [pairs], "world": [home], "previous": previous}, **images)
        models = _outside("signals.clip.model", config.signals.external_files())
        signals = self.add(Signals, name, config.signals, {"pairs": [pairs], "raw": [raw]}, **models)
        return {"pairs": pairs, "raw": raw, "signals": signals}

    def data(self, sources: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
        """Select, shard, tokenizer and tokens over all sources."""
        config = self.config
        pairs, raw, signals = ([source[role] for source in sources] for role in ("pairs", "raw", "signals"))
        index = self.index(pairs, raw, signals)
        select = SelectConfig(selection=config.selection, private_sources=self.private)
        verdicts = self.add(Select, "", select, {"index": [index], "pairs": pairs, "raw": raw})
        shards = self.add(Shard, "", config.shard, {"pairs": pairs, "raw": raw, "verdicts": [verdicts]})
        corpora = [self.world(name, "tokenizer.text") for name in config.tokenizer.worlds()]
        tokenizer = self.add(
            Tokenizer,
            "",
            config.tokenizer,
            {"pairs": pairs, "verdicts": [verdicts], "worlds": corpora},
            **_outside(
                "tokenizer.folder" if config.tokenizer.brought else "tokenizer.text", config.tokenizer.external_files()
            ),
        )
        tokens = self.add(Tokens, "", config.tokens, {"shards": [shards], "tokenizer": [tokenizer]})
        return {"shards": [shards], "tokens": [tokens], "tokenizer": [tokenizer]}

    def index(self, pairs: Sequence[str], raw: Sequence[str], signals: Sequence[str]) -> str:
        """The table over all sources, searched as far as the selection asks for."""
        config, selection = self.config, self.config.selection
        radius: dict[Hash, int] = {}
        for near in (selection.duplicates.near, selection.contamination.near):
            if near is not None:
                radius[near.hash] = max(radius.get(near.hash, config.index.radius), near.radius)
        held_out = config.held_out.items() if selection.contamination.enabled else ()
        benchmarks = {name: BenchmarkImages.model_validate(benchmark.held_out()) for name, benchmark in held_out}
        worlds = [self.world(benchmark.world, f"benchmarks.{name}") for name, benchmark in held_out]
        return self.add(
            BuildIndex,
            "",
            IndexConfig(
                radius=radius,
                ngram=config.index.ngram,
                max_near=config.index.max_near,
                benchmarks=benchmarks,
                private_sources=self.private,
            ),
            {"pairs": pairs, "raw": raw, "signals": signals, "worlds": dict.fromkeys(worlds)},
            **_outside("held_out", [path for _, benchmark in held_out for path in benchmark.held_out_files()]),
        )

    def pretrain(self, data: Mapping[str, Sequence[str]]) -> str:
        """The pretrained model."""
        config = PretrainConfig(model=self.config.model, train=self.config.train)
        return self.add(Pretrain, self.config.model.name, config, data)

    def finetune(self, name: str, model: str, tokenizer: str) -> str:
        """The model fine-tuned for one task."""
        task = self.config.tasks[name]
        home = self.world(task.world, f"tasks.{name}")
        inputs: dict[str, list[str | None]] = {"model": [model], "tokenizer": [tokenizer], "world": [home]}
        config = FinetuneConfig(name=name, task=task)
        files = _outside(f"tasks.{name}", task.located())
        return self.add(Finetune, f"{self.config.model.name}/{name}", config, inputs, **files)

    def evaluate(self, name: str, model: str) -> str:
        """The scores of a model on one benchmark."""
        benchmark = self.config.benchmarks[name]
        home = self.world(benchmark.world, f"benchmarks.{name}")
        config = EvaluateConfig(**dict(self.config.evaluate), name=name, benchmark=benchmark)
        inputs: dict[str, list[str | None]] = {"model": [model], "world": [home]}
        files = _outside(f"benchmarks.{name}", benchmark.located())
        return self.add(Evaluate, f"{self.config.model.name}/{name}", config, inputs, **files)


def _outside(key: str, paths: Sequence[str]) -> dict[str, Any]:
    """The part of a node that says its result depends on the contents of these files."""
    return {"files": partial(list, paths), "files_key": key} if paths else {}


def targets(dag: Dag, name: str) -> list[str]:
    """Node ids that `pairmill run NAME` is to bring up to date. Raises UserError for an unknown name."""
    names = GROUPS.get(name, (name,))
    found = [node.id for node in dag.values() if node.stage.name in names or node.id == name]
    if not found:
        known = ", ".join([*GROUPS, *(stage.name for stage in STAGES)])
        raise UserError(f"run {name}: no such stage or group; choose one of {known}")
    return found
