"""What every stage implements: its typed config, its partitions, and how one partition is made.

A stage defines only what is specific to it: `partitions` (or `plan`), `run` and `finish`, and where it needs them
`check`, `setup`, `on_commit`, `summary` and `forget`. Retry, commit, progress, counters, MLflow and Ray belong to the
runner (`pipelines/runner.py`).

Modules that define a stage are imported by every `pairmill` command, `--help` included: import heavy packages
(torch, ray, pyarrow, PIL, ...) inside the methods, not at module level.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from models.common.config import FingerprintedUnless as FingerprintedUnless  # defined in models, which mark fields, too
from models.common.config import StrictConfig
from models.common.errors import UserError as UserError  # defined in models, which raise it too
from stages.base.artifact import Artifact
from stages.base.forgetting import ForgetInputs, Forgotten, Removal


class _NotFingerprinted:
    """Marks a config field that decides *how* a result is made and cannot change a byte of it."""

    def __repr__(self) -> str:
        return "NotFingerprinted"


#: Use as ``threads: Annotated[int, NotFingerprinted, Field(ge=1)] = 16``. The field is left out of the fingerprint.
NotFingerprinted = _NotFingerprinted()


@dataclass(frozen=True)
class FingerprintedAs:
    """Marks a config field that was renamed, or has values that were: fingerprints keep the old spelling.

    ``retry_pass: Annotated[int, FingerprintedAs("round")] = 0`` leaves every existing artifact up to date.
    """

    key: str | None = None
    """The field's name in fingerprints and manifests; null: its own."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Value -> its spelling in fingerprints and manifests; other values stand for themselves."""


class StageConfig(StrictConfig):
    """Base of the schemas of stages and pipelines: a field counts in fingerprints unless it is marked otherwise."""


C = TypeVar("C", bound=StageConfig)

#: Role -> the artifacts that fill it: one, or one per source or world in the stages that span them.
Inputs = Mapping[str, tuple[Artifact, ...]]


@dataclass(frozen=True)
class Partition:
    """A unit of work that commits on its own.

    Its number and content depend on the stage's inputs alone, never on the number of workers.
    """

    id: str
    """File-safe and unique in the stage, e.g. ``"00003"``; files the partition writes carry it in their names."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """JSON-serialisable; whatever :meth:`Stage.run` needs to identify the work."""


@dataclass
class StageContext:
    """What the runner hands to :meth:`Stage.plan`, :meth:`Stage.run` (one partition) and :meth:`Stage.finish` (the
    whole)."""

    inputs: Inputs
    out: Path
    """Files written below it belong to the finished artifact (names unique over all partitions)."""
    intermediate: Path
    """Files written below it are kept for `finish` and dropped after it; in `finish`, all partitions' files."""
    scratch: str
    """A folder on a file system that all workers share and that outlives a kill, e.g. for training checkpoints;
    emptied after the manifest is written."""
    cluster: Mapping[str, Any] = field(default_factory=dict)
    """What the cluster grants: the fields of `pipelines.cluster.ClusterConfig`, e.g. ``{"workers": 2,
    "gpus_per_worker": 0, "cpus_per_worker": 1, "precision": "fp32", "max_failures": 3}``."""
    cache: str = ""
    """Folder or fsspec URL shared by all artifacts of this stage in the workspace and never emptied by the runner
    (`stages/base/cache.py`): for what is costly and named by its contents. It saves work and never changes a byte."""
    tombstones: str = ""
    """The workspace's file of forgotten samples (`stages/base/tombstones.py`), which may not exist."""
    artifact: str = ""
    """Folder or fsspec URL of the artifact that is being made, where the files of finished partitions are."""
    earlier: Mapping[str, str] = field(default_factory=dict)
    """Scratch folders of the configs of :meth:`Stage.earlier`, by the key it gave them; each may not exist."""
    counts: Counter[str] = field(default_factory=Counter)
    report: dict[str, Any] = field(default_factory=dict)
    """What :meth:`Stage.on_commit` receives from this partition; JSON-serialisable, small, kept until the artifact is
    finished and no part of it."""

    each_part: Callable[[str], Iterator[Path]] | None = None
    """What :meth:`parts` calls; set by the runner."""

    def count(self, name: str, n: int = 1) -> None:
        """Add to a counter. Counters are part of the manifest: count only what the inputs determine."""
        self.counts[name] += n

    @property
    def metrics_file(self) -> Path:
        """JSON lines ``{"step", "total", "time", "metrics": {...}}``: the run's history, delivered to MLflow."""
        return Path(self.scratch) / "metrics.jsonl"

    def log(self, step: int, metrics: Mapping[str, float], time_unix: float, total: int | None = None) -> None:
        """Append one step's metrics to the history (call from one rank only, with increasing steps).

        `total` is the last step there will be, where it is known: progress is shown against it.
        """
        self.metrics_file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"step": step, "total": total, "time": time_unix, "metrics": dict(metrics)})
        with open(self.metrics_file, "a", encoding="utf-8") as history:
            history.write(line + "\n")

    def parts(self, pattern: str) -> Iterator[Path]:
        """In `finish`: the partitions' files below `intermediate` that match a glob pattern, by name; with
        :attr:`Stage.reads_parts_singly` in order of the partitions, each of which may be gone when the next is asked
        for."""
        return iter(sorted(self.intermediate.glob(pattern))) if self.each_part is None else self.each_part(pattern)

    def input(self, role: str) -> Artifact:
        """The single artifact of a role; raises KeyError when there is none, ValueError when there are several."""
        artifacts = self.inputs[role]
        if len(artifacts) != 1:
            raise ValueError(f"input {role!r} holds {len(artifacts)} artifacts, not one")
        return artifacts[0]


class Stage(ABC, Generic[C]):
    """One step of the DAG: reads artifacts, writes one artifact.

    Subclasses are cheap to construct (config only) and picklable: a Ray worker gets a copy.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when the code changes what the stage makes from the same config and inputs."""
    executor: ClassVar[Literal["ray_tasks", "ray_data", "driver"]] = "ray_tasks"
    """``ray_tasks``: one Ray task per partition. ``ray_data``: partitions stream through a pool of Ray Data actors,
    each of which called :meth:`setup` once (models are loaded there). ``driver``: in the driver process, for stages
    that start Ray work of their own (Ray tasks over tables, Ray Train)."""
    reads_parts_singly: ClassVar[bool] = False
    """Whether :meth:`finish` reads what partitions left through :meth:`StageContext.parts` alone: `intermediate` is
    empty then, and an object store's parts are never all on the driver's disk."""
    cpus: ClassVar[float] = 1.0
    """CPUs a Ray task or actor of this stage reserves."""
    tracked: ClassVar[tuple[str, ...]] = ()
    """Glob patterns of the artifact's files that are copied into MLflow (reports, samples, tokenizers, scores)."""
    registers: ClassVar[bool] = False
    """Whether the artifact's `model/` folder is a trained model to register by reference."""
    holds_samples: ClassVar[bool]
    """Whether the stage writes single samples of sources into its artifact, its partitions' files or its scratch.

    A sample is a pair or an image that `ingest` listed, and any data of a single one: a row, an address, the ids of a
    caption, a position in a file. Weights, vocabularies, scores and figures over many samples are none, nor is the bare
    mention of a uid; nor are files from outside the workspace, or a demonstration's, before `ingest` lists them. Has no
    default: a concrete stage that does not state it cannot be defined, and one that states True implements
    :meth:`forget`."""
    forget_before: ClassVar[tuple[str, ...]] = ()
    """Stages whose artifacts :meth:`forget` reads while they still hold the forgotten samples: those that define the
    positions which this stage's files repeat without a uid."""
    forget_after: ClassVar[tuple[str, ...]] = ()
    """Stages whose artifacts :meth:`forget` reads once they are rewritten: those whose new positions it copies."""
    sample_tables: ClassVar[tuple[str, ...]] = ("*.parquet",)
    """Glob patterns of the artifact's Parquet files that define samples: `pairmill forget` looks up in them which pairs
    (`uid`, `image_uid`) and images (`image_uid`) a URL, sha256, domain or uid names. Empty for a stage whose samples
    are all defined by its inputs."""
    keeps_clean_partitions: ClassVar[bool] = False
    """Whether forgetting keeps the partitions of an unfinished artifact that hold no forgotten sample; otherwise all
    are made again. State True only if no partition depends on the samples or positions of another, and each one's
    files name its samples in columns `uid`, `image_uid`, `url`, `sha256` or `source_sha256` (Parquet, Arrow) or by the
    names of tar members."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if any(getattr(getattr(cls, name, None), "__isabstractmethod__", False) for name in dir(cls)):
            return
        holds = getattr(cls, "holds_samples", None)
        if not isinstance(holds, bool):
            raise TypeError(
                f"{cls.__name__} does not state whether it holds samples: write `holds_samples = True` and a "
                "classmethod `forget`, or `holds_samples = False` (see Stage.holds_samples in stages/base/contract.py)"
            )
        forget = next(base.__dict__["forget"] for base in cls.__mro__ if "forget" in base.__dict__)
        implemented = forget is not Stage.__dict__["forget"]
        if holds != implemented or not isinstance(forget, classmethod):
            problem = "but has no classmethod `forget`: implement it" if holds else "but has `forget`: state True"
            raise TypeError(f"{cls.__name__} states `holds_samples = {holds}` {problem}")

    def __init__(self, config: C) -> None:
        self.config = config

    def needs_ray(self, inputs: Inputs | None) -> bool:
        """Whether Ray must run. False for a ``driver`` stage of a few array operations, which alone starts no cluster.

        `inputs` are None where they are still to be made; stages that make them are asked themselves.
        """
        return True

    @property
    def gpus(self) -> float:
        """GPUs a Ray task or actor of this stage reserves, on a cluster that has any; without, it works on the CPU."""
        return 0.0

    def earlier(self) -> Mapping[str, C]:
        """Configs whose unfinished work, in their scratch folders, this one may go on from; by keys of the stage's
        own."""
        return {}

    def check(self) -> None:
        """Raises UserError when this machine lacks what the stage needs (a package, a model), as far as that can be
        checked quickly. Called for every stage that is going to run, before any of them runs."""
        return

    def partitions(self, inputs: Inputs) -> Sequence[Partition]:
        """The work, split. Runs in the driver; reads inputs' manifests and small tables only. A stage implements this
        or :meth:`plan`."""
        raise NotImplementedError(f"{type(self).__name__} implements neither `partitions` nor `plan`")

    def plan(self, context: StageContext) -> Sequence[Partition]:
        """:meth:`partitions` of the inputs; a stage that must go through large tables to split its work implements it.

        Runs in the driver at the start of every run that finds the artifact unfinished, and gives the same partitions
        every time. It may start Ray tasks, and leave in ``context.scratch`` what :meth:`run` needs: each file whole or
        not at all, so that a plan that was interrupted goes on from there.
        """
        return self.partitions(context.inputs)

    def setup(self) -> None:
        """Load what all partitions share (models); called once per process before the first `run`."""
        return

    @abstractmethod
    def run(self, partition: Partition, context: StageContext) -> None:
        """Make one partition: write files to ``context.out`` and ``context.intermediate``. Deterministic, byte for
        byte."""

    def on_commit(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Called in the driver when partitions were committed, with the `StageContext.report` of every one that is, the
        newest last: after each of the first hundred, then whenever there are a hundredth more, and when all are, also
        where a run finds them so.

        Raises UserError to stop the stage because of how it is going; what is committed stays. So that a run that is
        started again is not finished in spite of it, the last word is on all reports and on nothing else: no file that
        a commit leaves behind, no state of the stage.
        """
        return

    def finish(self, context: StageContext) -> None:
        """After all partitions: write what spans them to ``context.out``. Runs in the driver; reads
        ``context.intermediate`` (all partitions' files, local) or :meth:`StageContext.parts`. Must be repeatable: a
        kill in the middle runs it again from the start."""
        return

    def summary(self, artifact: Artifact) -> dict[str, float]:
        """A few figures of a finished artifact for MLflow and the summary of a run; its counts unless overridden.

        Judges nothing: the artifact is finished, and the next run would not call it again. What must be refused is
        refused by `run`, `on_commit` or `finish`, which every run calls until the artifact is finished.
        """
        return {key: float(value) for key, value in artifact.manifest.get("counts", {}).items()}

    @classmethod
    def forget(cls, artifact: Artifact, inputs: ForgetInputs, forgotten: Forgotten, out: Path | None) -> Removal:
        """Remove samples from a finished artifact, whatever configuration made it.

        Writes new versions of the files that hold one below `out`, and of no others; with ``out=None`` only counts.
        Must be repeatable: after a kill it is called again, on the artifact as it was or as it has become.
        """
        raise NotImplementedError(f"{cls.__name__}.forget")

    @classmethod
    def forget_scratch(cls, scratch: Path, marks: AbstractSet[str]) -> None:
        """Remove what the scratch folder of an unfinished artifact holds of forgotten samples: all of it unless
        overridden. `marks` are the hex uids and sha256 digests by which they can be recognised."""
        shutil.rmtree(scratch)
