"""What the driver hands to the training workers: one picklable record, and the data set it names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from models import registry
from models.common.config import ModelConfig
from models.common.spec import without_layers
from models.registry import objective_parts, spec
from stages.base.artifact import Artifact, is_remote
from stages.base.contract import StageContext, UserError
from stages.tokenizer.special import SpecialIds, read_special, token_ids
from stages.train.config import OptimizationConfig, PhaseConfig, Precision
from stages.train.data.annotated_files import AnnotatedFiles

if TYPE_CHECKING:
    from stages.train.data.dataset import Dataset
    from stages.train.trainer.hooks import Hook


S = TypeVar("S", bound=OptimizationConfig)


@dataclass(frozen=True)
class PairSource:
    """Pretraining data: the `shard` artifact and the `tokens` artifact that belongs to it."""

    shards: Artifact
    tokens: Artifact


@dataclass(frozen=True)
class AnnotatedSource:
    """Fine-tuning data: a task's files, and how its prompts are built."""

    files: AnnotatedFiles
    prompt: str
    texts_per_image: int


@dataclass(frozen=True)
class TrainingJob:
    """Everything a rank needs. Paths are absolute and lie on a file system all ranks share."""

    key: str
    """Where the settings stand in the config (`train`, `tasks.<name>`), for messages."""
    settings: OptimizationConfig
    phases: Sequence[PhaseConfig]
    model: ModelConfig
    """The architecture."""
    initial: str | None
    """Folder of a model in Hugging Face format to start from; null initialises the model as `model` specifies."""
    source: PairSource | AnnotatedSource
    tokenizer: str
    """Folder with `tokenizer.json`."""
    special: SpecialIds
    """Its control tokens: what pads a batch, begins and ends a text."""
    scratch: str
    """Folder for checkpoints, history and the finished phases' weights; outlives a kill."""
    precision: str
    threads: int
    """Torch threads of a rank."""
    tensor_parallel: int
    """Neighbouring ranks that share one copy of the weights."""
    hooks: Sequence[Callable[[], Hook]] = ()
    """Make further hooks, on every rank and for every phase anew: classes, or functools.partial of them."""

    @property
    def needs_texts(self) -> list[bool]:
        """Of every phase, whether its objective learns from texts and so sees no image without one."""
        return [registry.needs_texts(self.model, phase.objective) for phase in self.phases]

    @property
    def folder(self) -> Path:
        """Where finished phases and checkpoints lie."""
        return Path(self.scratch, "train")

    @property
    def model_folder(self) -> Path:
        """Where the workers leave the finished model; it is there when it is whole."""
        return self.folder / "model"

    @property
    def user_error(self) -> Path:
        """File in which a worker leaves the text of a UserError for the driver."""
        return self.folder / "user_error.txt"


def check_vocabulary(model: int, tokenizer: int) -> None:
    """Raise UserError when the tokenizer has ids that the model has no embedding for."""
    if tokenizer > model:
        raise UserError(
            f"tokenizer.vocabulary={tokenizer} does not fit model.vocabulary={model}: set model.vocabulary to at "
            f"least {tokenizer}, or tokenizer.vocabulary to at most {model}"
        )


def with_pixel_statistics(key: str, settings: S, model: ModelConfig) -> tuple[S, ModelConfig]:
    """Settings and model that both state the mean and deviation by which pixels are normalised.

    The model's own count; where it has none, the settings', or else CLIP's. Raises UserError where both state one and
    they differ: a model is of use only with pixels normalised as those it learnt from.
    """
    used = {}
    for name, default in zip(("image_mean", "image_std"), settings.pixel_statistics, strict=True):
        own, stated = getattr(model.vision, name), getattr(settings, name)
        if own is not None and stated is not None and own != stated:
            raise UserError(
                f"{key}.{name}={list(stated)}, but {model.name} takes pixels normalised with {list(own)}: remove "
                f"{key}.{name}"
            )
        used[name] = own or default
    vision = model.vision.model_copy(update=used)
    return settings.model_copy(update=used), model.model_copy(update={"vision": vision})


def check_frozen(key: str, settings: OptimizationConfig, phases: Sequence[PhaseConfig], model: ModelConfig) -> None:
    """Raise UserError where a phase uses a part that stays frozen at random weights, unless that is asked for.

    A part has weights from the folder that `initialise_from` names for it, or from an earlier phase that trained it; a
    language model without its embeddings (`initialise_from.embeddings=false`) has them from an earlier phase alone.
    """
    if settings.random_frozen:
        return
    given = set(model.initialise_from.folders)
    if blind := "language" in given and not model.initialise_from.embeddings:
        given.remove("language")
    for number, phase in enumerate(phases):
        used = objective_parts(model, phase.objective)
        learning = phase.learning_parts(f"{key}.phases[{number}]", model)
        for part in used:
            if part in learning or part in given:
                continue
            if part == "language" and blind:
                raise UserError(
                    f"{key}.phases[{number}]: {phase.objective} uses the part 'language', which is frozen, and its "
                    "embeddings are random (model.initialise_from.embeddings=false): take its own tokenizer "
                    "(tokenizer.folder) and set embeddings to true, or add language to "
                    f"{key}.phases[{number}].trainable (or set {key}.random_frozen=true)"
                )
            own_folder = part in type(model.initialise_from).model_fields
            start = f"set model.initialise_from.{part} to a folder of weights, or " if own_folder else ""
            raise UserError(
                f"{key}.phases[{number}]: {phase.objective} uses the part {part!r}, which is frozen and has no weights "
                f"but random ones: {start}add {part} to {key}.phases[{number}].trainable (or, if it is meant to stay "
                f"random, set {key}.random_frozen=true)"
            )
        given.update(learning)


def check_checkpointing(key: str, settings: OptimizationConfig, model: ModelConfig) -> None:
    """Raise UserError where `activation_checkpointing` names what is no part of the model, or a part without layers.

    Of an architecture that does not declare its layers, only the names of parts are checked.
    """
    own = spec(model.architecture)
    parts = own.count_parameters(model)
    layers = own.layers(model) if own.layers else parts
    for part in settings.activation_checkpointing:
        if part not in layers:
            raise UserError(f"{key}.{without_layers(part, parts, layers)}")


def check_lengths(key: str, phases: Sequence[PhaseConfig], model: ModelConfig, target: int, prompt: int = 0) -> None:
    """Raise UserError where the model has no positions for targets of so many tokens beside prompts of so many."""
    own = spec(model.architecture)
    for phase in phases:
        if own.longest_target is None or not own.objectives[phase.objective].needs_texts:
            continue
        room = own.longest_target(model, phase.objective, prompt)
        if target > room:
            beside = f" beside prompts of up to {prompt}" if prompt else ""
            raise UserError(
                f"{key}.max_text_tokens lets targets have {target} tokens, but {model.name} has positions for "
                f"{max(room, 0)} in {phase.objective}{beside}: lower it, or give the model more positions"
            )


def check_compile(key: str, settings: OptimizationConfig, tensor_parallel: int) -> None:
    """Raise UserError where layers cannot be compiled: hooks inside them gather or add up weights."""
    if settings.compile and settings.zero.stage == 3:
        raise UserError(
            f"{key}.compile=true does not go with {key}.zero.stage=3, which gathers weights inside the layers: set "
            f"{key}.compile=false or {key}.zero.stage to 0, 1 or 2"
        )
    if settings.compile and tensor_parallel > 1:
        raise UserError(
            f"{key}.compile=true does not go with cluster.tensor_parallel={tensor_parallel}, which communicates inside "
            f"of the layers: set {key}.compile=false or cluster.tensor_parallel=1"
        )


def check_tensor_parallel(model: ModelConfig, degree: int) -> None:
    """Raise UserError where so many ranks cannot share a copy of the model's weights."""
    own = spec(model.architecture)
    if degree == 1 or own.split_heads is None:
        return
    for key, heads in own.split_heads(model).items():
        if heads % degree:
            raise UserError(
                f"cluster.tensor_parallel={degree} does not divide {key}={heads}, and attention is split by heads: set "
                "another, or 1 and train.zero.stage=3"
            )


def check_frozen_shards(key: str, settings: OptimizationConfig, data_ranks: int) -> None:
    """Raise UserError where the data-parallel ranks do not fall into groups of `zero.frozen_shards`."""
    shards = settings.zero.frozen_shards
    if shards is not None and data_ranks % shards:
        raise UserError(
            f"{key}.zero.frozen_shards={shards} does not divide the {data_ranks} ranks that see different samples, so "
            f"they cannot share copies of the frozen weights: set a divisor of {data_ranks}, or null"
        )


def check_pretraining(
    key: str, settings: OptimizationConfig, phases: Sequence[PhaseConfig], model: ModelConfig, tensor_parallel: int
) -> None:
    """Raise UserError for settings of a pretraining that do not fit the model, or each other."""
    for number, phase in enumerate(phases):
        phase.learning_parts(f"{key}.phases[{number}]", model)
    check_checkpointing(key, settings, model)
    check_lengths(key, phases, model, settings.max_text_tokens)
    check_tensor_parallel(model, tensor_parallel)
    check_compile(key, settings, tensor_parallel)


def tokenizer_vocabulary(tokenizer: Artifact) -> int:
    """Number of ids of a `tokenizer` artifact, special tokens included."""
    return max(token_ids(tokenizer.read_json("tokenizer.json")).values()) + 1


def make_job(
    key: str,
    settings: OptimizationConfig,
    phases: Sequence[PhaseConfig],
    model: ModelConfig,
    initial: Path | None,
    source: PairSource | AnnotatedSource,
    context: StageContext,
    precision: Precision,
    hooks: Sequence[Callable[[], Hook]] = (),
) -> TrainingJob:
    """A job with the cluster's grants and every local path made absolute: workers run in another folder.

    Raises UserError for settings that do not fit the model.
    """
    if isinstance(source, PairSource):
        source = PairSource(_absolute(source.shards), _absolute(source.tokens))
    tensor_parallel = int(context.cluster.get("tensor_parallel", 1))
    if isinstance(source, PairSource):
        check_pretraining(key, settings, phases, model, tensor_parallel)
    else:  # lengths are checked once they are known
        for phase in phases:
            phase.learning_parts(key, model)
        check_checkpointing(key, settings, model)
        check_tensor_parallel(model, tensor_parallel)
        check_compile(key, settings, tensor_parallel)
    settings, model = with_pixel_statistics(key, settings, model)
    tokenizer = context.input("tokenizer").path().absolute()
    return TrainingJob(
        key=key,
        settings=settings,
        phases=tuple(phases),
        model=with_absolute_folders(model),
        initial=str(initial.absolute()) if initial else None,
        source=source,
        tokenizer=str(tokenizer),
        special=read_special(tokenizer),
        scratch=os.path.abspath(context.scratch),
        precision=precision,
        threads=int(context.cluster.get("cpus_per_worker", 1)),
        tensor_parallel=tensor_parallel,
        hooks=tuple(hooks),
    )


def with_absolute_folders(model: ModelConfig) -> ModelConfig:
    """The model's config with the folders that its parts start from as absolute paths."""
    start = model.initialise_from
    folders = {part: os.path.abspath(folder) for part, folder in start.folders.items()}
    return model.model_copy(update={"initialise_from": start.model_copy(update=folders)})


def _absolute(artifact: Artifact) -> Artifact:
    return artifact if is_remote(artifact.url) else Artifact(os.path.abspath(artifact.url))


def open_dataset(job: TrainingJob) -> Dataset:
    """The job's samples, in the process that will read them. Raises UserError for missing or malformed files."""
    settings = job.settings
    if isinstance(job.source, PairSource):
        from stages.train.data.pairs import PairDataset

        source = job.source
        flips = settings.augmentation.horizontal_flip > 0
        return PairDataset(source.shards, source.tokens, settings.max_text_tokens, job.special, flips)
    from stages.tokenizer.load import load
    from stages.train.data.annotated import AnnotatedDataset

    dataset = AnnotatedDataset(
        job.source.files,
        load(job.tokenizer),
        prompt=job.source.prompt,
        texts_per_image=job.source.texts_per_image,
        max_tokens=settings.max_text_tokens,
        seed=settings.seed,
    )
    prompt, target = dataset.longest_texts()
    check_lengths(job.key, job.phases, job.model, target, prompt)
    return dataset
