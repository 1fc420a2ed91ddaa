"""The figures of one training phase: what a rank holds and computes, whether it fits, how long a step takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from models.common.config import ModelConfig
from models.common.cost import Flops, MicroBatch, NoCost
from models.common.cost_tape import Tape
from models.registry import count_parameters, model_config, objective_parts, record_cost
from pipelines.cluster import ClusterConfig
from pipelines.plan import hardware
from pipelines.plan.communication import Traffic, traffic
from pipelines.plan.memory import PERSISTENT, Moment, Setting, Weights, host, moments
from stages.train.config import PhaseConfig, TrainConfig

#: Training precision -> bytes of an element.
SIZES = {"bf16": 2, "fp32": 4}


@dataclass(frozen=True)
class PhasePlan:
    """One phase on one cluster; everything else follows from these."""

    model: ModelConfig
    train: TrainConfig
    cluster: ClusterConfig
    number: int
    text_tokens: int | None = None
    """Mean length of a text, for FLOPs and times; None: `train.max_text_tokens`, for which memory is always planned."""

    @property
    def config(self) -> PhaseConfig:
        """The phase."""
        return self.train.phases[self.number]

    @property
    def on_gpu(self) -> bool:
        """Whether ranks train on GPUs."""
        return self.cluster.gpus_per_worker > 0

    @property
    def data_ranks(self) -> int:
        """Ranks that see different samples."""
        return max(1, self.cluster.workers // self.cluster.tensor_parallel)

    @property
    def accumulation(self) -> int:
        """Micro-batches of a rank per step, rounded up."""
        return max(1, -(-self.train.global_batch // (self.data_ranks * self.train.micro_batch)))

    @property
    def parts(self) -> dict[str, int]:
        """Part that the objective uses -> parameters."""
        counts = count_parameters(self.model)
        return {part: counts[part] for part in objective_parts(self.model, self.config.objective)}

    @property
    def trainable(self) -> list[str]:
        """Parts that learn. Raises UserError for one that the objective does not use."""
        return list(self.config.learning_parts(f"train.phases[{self.number}]", self.model))

    @cached_property
    def tape(self) -> Tape | None:
        """The micro-batch, its texts at their longest; None where the architecture does not tell its costs."""
        return self._tape(self.train.max_text_tokens, self.train.activation_checkpointing)

    @cached_property
    def tape_without_checkpointing(self) -> Tape | None:
        """The same if nothing were computed again."""
        return self._tape(self.train.max_text_tokens, {})

    def _tape(self, tokens: int, checkpointing: Mapping[str, int]) -> Tape | None:
        images = self.train.micro_batch
        return _recorded(
            self.model.model_dump_json(),
            self.config.objective,
            tuple(sorted(self.config.settings.items())),
            tuple(self.trainable),
            tuple(sorted(checkpointing.items())),
            MicroBatch(images, images, 0, tokens, self.data_ranks),
            SIZES[self.cluster.precision],
            self.train.loss_chunk,
            self.cluster.tensor_parallel,
            self.on_gpu,
        )

    @cached_property
    def setting(self) -> Setting:
        """How weights and optimizer lie on the ranks."""
        return Setting(
            stage=self.train.zero.stage,
            data_ranks=self.data_ranks,
            size=SIZES[self.cluster.precision],
            accumulation=self.accumulation,
            offload_optimizer=self.train.zero.offload_optimizer,
            frozen_ranks=self.train.zero.frozen_shards,
            on_gpu=self.on_gpu,
        )

    @cached_property
    def weights(self) -> Weights:
        """The parameters of one rank's copy."""
        ranks, tape = self.cluster.tensor_parallel, self.tape
        own: dict[str, float] = {}
        for part, count in self.parts.items():
            # Without costs it is not known what is split; all of it is the usual case.
            split = tape.split.get(part, 0.0) if tape is not None else count
            own[part] = count - split + split / ranks
        learning = set(self.trainable)
        trainable = sum(count for part, count in own.items() if part in learning)
        single = {p: list(weights.values()) for p, weights in tape.weights.items()} if tape is not None else {}
        return Weights(
            trainable=trainable,
            frozen=sum(own.values()) - trainable,
            largest=max((max(v) for p, v in single.items() if p in learning), default=trainable),
            layer=max(tape.layers.values(), default=0.0) if tape is not None else sum(own.values()),
            matrix=max((max(v) for v in single.values()), default=0.0),
            persistent=sum(e for v in single.values() for e in v if e <= PERSISTENT),
        )

    @cached_property
    def peak(self) -> Moment:
        """The moment of a step at which a rank needs most."""
        tape = self.tape if self.tape is not None else Tape(trainable=self.trainable)
        return max(moments(self.weights, tape, self.setting), key=lambda moment: moment.total)

    @property
    def gpu_bytes(self) -> float:
        """Bytes that a rank's tensors and their reserve take at the peak: of a GPU, or of the host on a CPU."""
        return self.peak.total * (1 + hardware.FRAGMENTATION) + (hardware.CONTEXT if self.on_gpu else hardware.PROCESS)

    @property
    def host_bytes_per_rank(self) -> float:
        """Bytes of the host's memory per rank from the start on: process, loader, offloaded states."""
        pixels = 3 * self.model.vision.image_size**2 * 4 * self.train.micro_batch
        loader = self.train.loader_workers * hardware.LOADER_WORKER + self.train.prefetch * pixels
        process = hardware.PROCESS_WITH_CUDA if self.on_gpu else hardware.PROCESS
        return process + loader + hardware.BLOCK + host(self.weights, self.setting)

    def fits(self, memory: float) -> bool:
        """Whether a rank fits a memory of so many bytes, activations and reserve included."""
        known = self.tape is not None
        return self.peak.total <= hardware.usable(memory, on_gpu=self.on_gpu, activations_known=known)

    # Time

    @cached_property
    def flops(self) -> dict[str, Flops]:
        """FLOPs per sample of the whole model, by part, at the mean length of texts; empty where not known."""
        tokens = self.text_tokens or self.train.max_text_tokens
        whole = self.model_copy_without_split()._tape(tokens, self.train.activation_checkpointing)
        if whole is None:
            return {}
        return {part: flops.divided(self.train.micro_batch) for part, flops in whole.flops.items()}

    def model_copy_without_split(self) -> PhasePlan:
        """The same phase with every rank a whole copy of the weights."""
        cluster = self.cluster.model_copy(update={"tensor_parallel": 1})
        return PhasePlan(self.model, self.train, cluster, self.number, self.text_tokens)

    @property
    def model_flops(self) -> float:
        """FLOPs per sample that MFU counts."""
        return sum(flops.model for flops in self.flops.values())

    @property
    def hardware_flops(self) -> float:
        """FLOPs per sample that are executed."""
        return sum(flops.hardware for flops in self.flops.values())

    @property
    def peak_flops(self) -> float:
        """Peak FLOP/s of a GPU in the training precision."""
        return hardware.GPUS[self.cluster.hardware.gpu].flops[self.cluster.precision]

    @cached_property
    def own_flops(self) -> float:
        """FLOPs per micro-batch that one rank executes; parts that are not split are computed by each."""
        tape = self._tape(self.text_tokens or self.train.max_text_tokens, self.train.activation_checkpointing)
        return sum(flops.hardware for flops in tape.flops.values()) if tape is not None else 0.0

    @cached_property
    def compute_seconds(self) -> float:
        """Seconds of a step in which a rank computes."""
        return self.accumulation * self.own_flops / (self.peak_flops * self.cluster.hardware.efficiency)

    @cached_property
    def traffic(self) -> Sequence[Traffic]:
        """Collectives of a step."""
        tape = self._tape(self.text_tokens or self.train.max_text_tokens, self.train.activation_checkpointing)
        return traffic(self.weights, tape, self.setting, self.cluster)

    @property
    def waiting_seconds(self) -> float:
        """Seconds of a step in which a rank waits for the network: what does not overlap, and what is left over of the
        rest once the computation it runs beside is done."""
        beside = sum(each.seconds for each in self.traffic if each.overlaps)
        alone = sum(each.seconds for each in self.traffic if not each.overlaps)
        return alone + max(0.0, beside - self.compute_seconds)

    @property
    def step_seconds(self) -> float:
        """Seconds of an optimizer step."""
        return self.compute_seconds + self.waiting_seconds

    @property
    def mfu(self) -> float:
        """Model FLOPs of a step over what all GPUs could compute meanwhile (PaLM, appendix B)."""
        possible = self.cluster.workers * self.peak_flops * self.step_seconds
        return self.train.global_batch * self.model_flops / possible if possible else 0.0


@lru_cache(maxsize=32)
def _recorded(
    model: str,
    objective: str,
    settings: tuple[tuple[str, float], ...],
    trainable: tuple[str, ...],
    checkpointing: tuple[tuple[str, int], ...],
    batch: MicroBatch,
    size: int,
    chunk: int,
    tensor_parallel: int,
    on_gpu: bool,
) -> Tape | None:
    """The tape of a micro-batch; ``model`` in JSON. Kept: comparing settings asks for the same ones again and again."""
    tape = Tape(
        trainable=trainable,
        size=size,
        checkpointing=dict(checkpointing),
        loss_chunk=chunk,
        tensor_parallel=tensor_parallel,
        on_gpu=on_gpu,
    )
    try:
        return record_cost(model_config(json.loads(model)), objective, tape, batch, dict(settings))
    except NoCost:
        return None


def phases(
    model: ModelConfig, train: TrainConfig, cluster: ClusterConfig, text_tokens: int | None = None
) -> list[PhasePlan]:
    """The plan of every phase."""
    return [PhasePlan(model, train, cluster, number, text_tokens) for number in range(len(train.phases))]
