"""How a model is optimised: the settings pretraining and fine-tuning share, and those of pretraining."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from models.common.config import Deviation, ModelConfig
from models.registry import objective_parts, objective_settings
from stages.base.contract import FingerprintedUnless, NotFingerprinted, StageConfig, UserError

Unit = Annotated[float, Field(ge=0, le=1)]
Triple = tuple[float, float, float]
Precision = Literal["fp32", "bf16"]


def _some_part(trainable: list[str] | None) -> list[str] | None:
    if trainable == []:
        raise ValueError("names no part, so nothing would learn; name some, or leave it out for all that are used")
    return trainable


def _in_order(steps: list[int]) -> list[int]:
    return sorted(set(steps))


Trainable = Annotated[list[str] | None, AfterValidator(_some_part)]

#: Of CLIP's training images (Radford et al. 2021, its released preprocessing).
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ZeroConfig(StageConfig):
    """What DeepSpeed's ZeRO spreads over the ranks."""

    stage: Literal[0, 1, 2, 3] = 1
    """0 nothing, 1 optimizer states, 2 also gradients, 3 also weights."""
    offload_optimizer: bool = False
    """Keep optimizer states and their update on the CPU (stages 1 to 3)."""

    frozen_shards: Annotated[int | None, NotFingerprinted, Field(ge=1)] = None
    """Under stage 3: neighbouring ranks that share one copy of the frozen weights, so that gathering what never changes
    stays within a node; null: all ranks."""

    @model_validator(mode="after")
    def _fits_stage(self) -> ZeroConfig:
        if self.offload_optimizer and self.stage == 0:
            raise ValueError("offload_optimizer needs stage 1, 2 or 3")
        if self.frozen_shards is not None and self.stage != 3:
            raise ValueError("frozen_shards needs stage 3, which divides weights")
        return self


class ColorJitterConfig(StageConfig):
    """Greatest relative change of each; 0 turns it off."""

    brightness: Unit = 0.0
    """Factor drawn from [1 - x, 1 + x]."""
    contrast: Unit = 0.0
    """Factor drawn from [1 - x, 1 + x]."""
    saturation: Unit = 0.0
    """Factor drawn from [1 - x, 1 + x]."""


class AugmentationConfig(StageConfig):
    """How a training image is varied. Drawn per sample from (seed, epoch, uid), so no worker count changes it."""

    crop_scale: tuple[Unit, Unit] = (1.0, 1.0)
    """Area of the random resized crop, as a share of the image; (1, 1) resizes the whole image instead. A crop holds
    all boxes of the sample's texts."""
    crop_ratio: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.75, 4 / 3)
    """Width to height of the crop."""
    horizontal_flip: Unit = 0.0
    """Probability of mirroring. Images whose text names left or right, which that would make untrue, are not mirrored;
    texts of regions are corrected instead."""
    color_jitter: ColorJitterConfig = ColorJitterConfig()
    """Brightness, contrast, saturation."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentationConfig:
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two rising numbers above 0, not [{low}, {high}]")
        return self


class PhaseConfig(StageConfig):
    """One objective trained for a while, with an optimizer and a learning-rate schedule of its own."""

    objective: str
    """The objective: a name that the model defines, e.g. `representation`, `masked_autoencoding`."""
    steps: Annotated[int | None, Field(ge=1)] = None
    """Optimizer steps; exactly one of `steps` and `epochs` is given."""
    epochs: Annotated[float | None, Field(gt=0)] = None
    """Passes over the samples that the phase sees: those with a text if its objective needs texts, else all."""
    settings: dict[str, float] = {}
    """Settings of the objective, such as `label_smoothing` or `mask_ratio`; the model's own defaults otherwise."""
    lr: Annotated[float | None, Field(gt=0)] = None
    """Peak learning rate of this phase; null takes the recipe's."""
    trainable: Trainable = None
    """Parts of the model that learn, the others stay frozen; null lets every part learn that the objective uses."""

    @model_validator(mode="after")
    def _one_length(self) -> PhaseConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps and epochs")
        return self

    def learning_parts(self, key: str, model: ModelConfig) -> tuple[str, ...]:
        """The parts of a model that learn.

        Raises UserError, for the phase's ``key``, for one that is not used, and for settings that the objective lacks.
        """
        used = objective_parts(model, self.objective)
        try:
            objective_settings(model.architecture, self.objective, self.settings)
        except UserError as error:
            raise UserError(f"{key}.{error}") from None
        for part in self.trainable or ():
            if part not in used:
                raise UserError(
                    f"{key}.trainable: {self.objective} uses no part {part!r}, so it cannot learn; name some of "
                    f"{', '.join(used)}"
                )
        return tuple(part for part in used if self.trainable is None or part in self.trainable)


class OptimizationConfig(StageConfig):
    """What every training run sets, whatever it learns from."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    """Where cosine and linear decay end."""
    warmup: Annotated[float, Field(ge=0)] = 0.1
    """Length of the linear warm-up: a share of the phase's steps when below 1, otherwise a number of steps."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """AdamW's decoupled decay, of matrices only: biases, norms and other vectors are spared."""
    betas: tuple[Unit, Unit] = (0.9, 0.98)
    """AdamW's decay rates of both moments."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's epsilon."""
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    """Greatest global gradient norm; 0 turns clipping off."""
    global_batch: Annotated[int, Field(ge=1)] = 64
    """Samples (images with their texts) per optimizer step, over all ranks and accumulation steps."""
    micro_batch: Annotated[int, Field(ge=1)] = 32
    """Samples one rank takes through the model at once; accumulation steps follow from the number of ranks."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds initial weights, data order, augmentation and dropout."""
    zero: ZeroConfig = ZeroConfig()
    """DeepSpeed ZeRO."""
    activation_checkpointing: Annotated[dict[str, Annotated[int, Field(ge=1)]], NotFingerprinted] = {}
    """Part of the model -> k: of its layers, each k-th keeps its input alone and computes the rest again when gradients
    are taken (1: every layer). Saves memory for time, changes no result."""
    loss_chunk: Annotated[int, NotFingerprinted, Field(ge=1)] = 1024
    """Target tokens of a rank whose logits are held at a time; memory, not the result, depends on it."""
    compile: Annotated[bool, NotFingerprinted] = False
    """Have `torch.compile` compile the transformer layers, which takes minutes at first and equals the plain ones to
    rounding. Not with `zero.stage: 3`, nor under tensor parallelism."""
    random_frozen: Annotated[bool, NotFingerprinted] = False
    """Whether a part may stay frozen at random weights; otherwise a recipe is refused that freezes a part which neither
    `model.initialise_from` nor an earlier phase gives weights."""
    max_text_tokens: Annotated[int, Field(ge=1)] = 64
    """Longer texts are cut (the end-of-text token, which is kept, counts)."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """How training images are varied."""
    image_mean: Triple | None = None
    """Subtracted per channel from pixels in [0, 1]. Null: what the model was trained with or states itself
    (`model.vision.image_mean`), and CLIP's for a new model that states nothing. Another value than the model's is
    refused."""
    image_std: Deviation | None = None
    """Divided by per channel; as `image_mean`."""
    log_every: Annotated[int, Field(ge=1)] = 10
    """Steps per line of the history; its losses are means over those steps."""
    checkpoint_every: Annotated[int, NotFingerprinted, Field(ge=1)] = 100
    """Steps between checkpoints, the newest two of which are kept until training ends."""
    max_skipped_steps: Annotated[int, NotFingerprinted, Field(ge=0)] = 20
    """A step whose loss or gradients are not finite updates no weight, on any rank. More than so many in a row, or of
    `skip_spikes`, end the run, as does a phase that would end on one that is not finite."""
    spike_deviations: Annotated[float | None, NotFingerprinted, Field(gt=0)] = 20.0
    """Report a step whose loss or gradient norm is so many deviations above its median over the last 100 steps; null:
    none."""
    skip_spikes: Annotated[float | None, FingerprintedUnless(None), Field(gt=0)] = None
    """Leave out the update of a step whose loss is so many deviations above its median; null: of none."""
    skip_steps: Annotated[list[Annotated[int, Field(ge=1)]], FingerprintedUnless([]), AfterValidator(_in_order)] = []
    """Steps, counted over all phases as in the history, that are passed over with their samples: nothing is computed. A
    run with some goes on from the newest checkpoint of the run without them."""
    corrupt_samples: Literal["replace", "stop"] = "replace"
    """A sample that is damaged or does not decode: put another one in its place, count and log it, or stop."""
    damaged_shards: Literal["stop", "skip"] = "stop"
    """A shard that is missing or too short when training starts: stop, or treat its samples as corrupt."""
    loader_workers: Annotated[int, NotFingerprinted, Field(ge=0)] = 0
    """Processes per rank that read, decode and augment images; 0: a thread of the rank's own process does."""
    prefetch: Annotated[int, NotFingerprinted, Field(ge=0)] = 2
    """Micro-batches prepared ahead of the model; 0 prepares each when it is needed (workers: one ahead)."""
    image_cache_mb: Annotated[int, NotFingerprinted, Field(ge=0)] = 512
    """Memory per rank for decoded images, which small data sets fit into whole; of use only without workers."""

    @property
    def pixel_statistics(self) -> tuple[Triple, Triple]:
        """Mean and deviation by which pixels are normalised."""
        return self.image_mean or CLIP_MEAN, self.image_std or CLIP_STD


class TrainConfig(OptimizationConfig):
    """`conf/recipe/*.yaml`: how a model is pretrained."""

    mixture: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Weight of each source in the batches, whatever its size (0 leaves it out); each source then has epochs of its
    own. Null shows every sample as often as the selection specifies. A phase whose objective needs texts leaves
    image-only sources out with their weights, and the others keep their proportions: one mixture serves all phases, and
    it must name every source."""
    phases: Annotated[list[PhaseConfig], Field(min_length=1)]
    """One after the other, each starting from the last one's weights."""
