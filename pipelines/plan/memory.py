"""Memory of one rank through a training step, under each ZeRO stage, as DeepSpeed 0.19 really allocates it.

Bytes per parameter after the ZeRO paper (Rajbhandari et al. 2020, section 3.1), e being 2 in bf16 and 4 in fp32:
weights e, gradients e, AdamW's two moments 8, and masters in float32, 4. DeepSpeed departs from the paper in these: in
fp32, stages 1 to 3 keep masters, too, beside the weights; gradients are accumulated in e bytes; stage 1 keeps whole
gradients until the step's last micro-batch; gradients are reduced through buckets, which are allocated whole and, once
they are full, copied once more for the collective (`deepspeed/runtime/zero/stage_1_and_2.py`, `stage3.py`). A bucket is
full when the next gradient has no room in it, so the last one is reduced after the backward pass, and so is the only
one of a model that fits into it.

A step has the moments of `moments`; what a run needs is the greatest of them. On a GPU, gradients are reduced while
the backward pass runs, from two buckets in turn, and AdamW is fused; on a CPU neither, which `Setting.on_gpu` decides,
and gloo, which has no reduce-scatter of its own, sums up a copy of what stage 3 reduces and scatters
(`ProcessGroupGloo::reduce_scatter_tensor_coalesced`).
"""

from __future__ import annotations

from dataclasses import dataclass

from models.common.cost_memory import FLOAT32
from models.common.cost_tape import Tape
from stages.train.trainer.zero_sizes import bucket_elements

#: Elements up to which ZeRO-3 never partitions a parameter, DeepSpeed's default (`deepspeed/runtime/zero/config.py`).
PERSISTENT = 100_000

#: AdamW's update in plain torch makes two temporaries of the weights that it updates at a time, in float32.
ADAM_TEMPORARIES = 2 * FLOAT32


@dataclass(frozen=True)
class Setting:
    """How the weights and the optimizer lie on the ranks."""

    stage: int
    data_ranks: int
    """Ranks that see different samples."""
    size: int
    """Bytes of an element in training: 2 in bf16, 4 in fp32."""
    accumulation: int
    """Micro-batches per step."""
    offload_optimizer: bool = False
    frozen_ranks: int | None = None
    """Under stage 3, ranks that share one copy of the frozen weights; None: all data ranks."""
    on_gpu: bool = True


@dataclass(frozen=True)
class Weights:
    """Parameters of one rank's copy: with tensor parallelism its share of the split matrices, and all others."""

    trainable: float
    frozen: float
    largest: float
    """Of those that learn."""
    persistent: float
    """In parameters too small for ZeRO-3 to partition."""
    layer: float = 0.0
    """In the largest transformer layer, frozen ones, too."""
    matrix: float = 0.0
    """In the largest single one, frozen ones, too: an embedding may be larger than a layer."""

    @property
    def total(self) -> float:
        """All."""
        return self.trainable + self.frozen


@dataclass(frozen=True)
class Moment:
    """A moment of the step, and what fills the memory then, in bytes."""

    name: str
    items: dict[str, float]

    @property
    def total(self) -> float:
        """Sum of its items."""
        return sum(self.items.values())


def moments(weights: Weights, tape: Tape, setting: Setting) -> list[Moment]:
    """Forward, backward, reduction and update, in the state of a later step (optimizer states exist)."""
    held = _held(weights, setting)
    waits = setting.accumulation > 1
    forward = {
        **held,
        "gathered weights": setting.size * sum(gathered(weights)) if setting.stage == 3 else 0.0,
        "gradients": held["gradients"] + (_accumulated(weights, setting) if waits else 0.0),
        # Stage 1 allocates its buckets at the step's first gradient, although they are used at the step's end.
        "buckets": _buckets(weights, setting) if waits and setting.stage == 1 else held["buckets"],
        "activations": tape.forward_peak - tape.forward_peak_loss,
        "loss": tape.forward_peak_loss,
    }
    return [Moment("forward", forward), _backward(weights, tape, setting), *_after(weights, setting)]


def peak(weights: Weights, tape: Tape, setting: Setting) -> Moment:
    """The moment that needs most."""
    return max(moments(weights, tape, setting), key=lambda moment: moment.total)


def host(weights: Weights, setting: Setting) -> float:
    """Bytes per rank in the host's memory that an offloaded optimizer takes: masters, moments, gradients and a copy of
    the weights in training precision on its way back."""
    if not setting.offload_optimizer:
        return 0.0
    return weights.trainable / setting.data_ranks * (12 + FLOAT32 + setting.size)


def _held(weights: Weights, setting: Setting) -> dict[str, float]:
    """What is there all the time: weights, optimizer, and gradients and buckets where they are never freed."""
    size, ranks, stage = setting.size, setting.data_ranks, setting.stage
    own = weights.trainable / ranks
    masters = FLOAT32 if size < FLOAT32 or stage else 0
    optimizer = (masters + 2 * FLOAT32) * (own if stage else weights.trainable)
    held = {"weights": size * weights.total, "gathered weights": 0.0, "gradients": 0.0, "buckets": 0.0}
    if stage == 3:
        frozen = weights.frozen / min(setting.frozen_ranks or ranks, ranks)
        held["weights"] = size * (own + frozen + weights.persistent)
        held["gradients"] = 0.0 if setting.offload_optimizer else size * own
        held["buckets"] = _buckets(weights, setting)
    held["optimizer"] = 0.0 if setting.offload_optimizer else optimizer
    return held


def gathered(weights: Weights) -> tuple[float, float]:
    """Elements of whole weights that ZeRO-3 holds beside its partitions, and of the buffers that they arrive in.

    One layer is in use, and the next, or the matrix that comes after the last, on its way; it is copied out of the
    buffer of its gather.
    """
    whole, following = weights.total - weights.persistent, max(weights.layer, weights.matrix)
    return min(weights.layer + following, whole), min(following, whole)


def _bucket(weights: Weights) -> float:
    return min(bucket_elements(weights.trainable), weights.trainable)


def _buckets(weights: Weights, setting: Setting) -> float:
    """Bytes of the buffers that gradients are copied into: two in turn where reducing overlaps with computing."""
    return setting.size * _bucket(weights) * (2 if setting.on_gpu and setting.stage < 3 else 1)


def _copies(reduced: float, own: float, setting: Setting) -> float:
    """Bytes made from a bucket of ``reduced`` bytes: its copy for the collective; at stages 1 and 2, after it, the
    rank's partition of ``own`` bytes that it is reduced into; at stage 3 over gloo, beside it, another copy."""
    if setting.stage == 3:
        return reduced * (1 if setting.on_gpu else 2)
    return max(reduced, own)


def _accumulated(weights: Weights, setting: Setting) -> float:
    """Bytes of gradients that wait between the micro-batches of a step."""
    whole = setting.size * weights.trainable
    if setting.stage == 3:
        return 0.0  # held anyway
    return whole if setting.stage < 2 else whole / setting.data_ranks


def _backward(weights: Weights, tape: Tape, setting: Setting) -> Moment:
    """The most memory-hungry operation of the last micro-batch's backward pass."""
    size, stage = setting.size, setting.stage
    held = _held(weights, setting)
    own, bucket = size * weights.trainable / setting.data_ranks, _bucket(weights)
    whole, ahead = gathered(weights)
    copied = max(bucket, weights.largest)  # a gradient larger than a bucket is reduced by itself
    reduces = stage >= 2 or (stage == 1 and setting.on_gpu)  # while the backward pass runs
    waits = setting.accumulation > 1
    worst = Moment("backward", held)
    for moment in tape.backward():
        before, made = moment.gradients_before, moment.gradients_made
        gradients = held["gradients"]
        buckets = _buckets(weights, setting) if stage else 0.0
        if stage < 2:
            # All of them wait for the step's end, or for their turn to be reduced.
            present = weights.trainable - (before if reduces else 0.0) if waits else 0.0 if reduces else before
            gradients += size * (present + made)
        else:
            gradients += size * made + (own if waits and stage == 2 else 0.0)
        if reduces and before + made > bucket:
            buckets += _copies(size * copied, own, setting)
        items = {
            **held,
            "gathered weights": size * (whole + ahead) if stage == 3 else 0.0,
            "gradients": gradients,
            "activations": moment.activations,
            "buckets": buckets,
        }
        worst = max(worst, Moment("backward", items), key=lambda each: each.total)
    return worst


def _after(weights: Weights, setting: Setting) -> list[Moment]:
    """Reduction of gradients (where the backward pass did not do it) and the update."""
    size, stage = setting.size, setting.stage
    held = _held(weights, setting)
    own = weights.trainable / setting.data_ranks
    bucket = size * _bucket(weights)
    result: list[Moment] = []
    if stage == 0:
        gradients = size * weights.trainable
        result.append(Moment("reduction", {**held, "gradients": gradients, "buckets": bucket}))
        wide = FLOAT32 * weights.trainable if size < FLOAT32 else 0.0
        temporaries = 0.0 if setting.on_gpu else ADAM_TEMPORARIES * weights.largest
        result.append(Moment("update", {**held, "gradients": gradients + wide, "temporaries": temporaries}))
        return result
    # The last bucket: with stage 1 and no overlap the only time that gradients are reduced.
    rest = max(size * weights.trainable - bucket, 0.0) if stage == 1 and not setting.on_gpu else 0.0
    earlier = size * own if stage == 2 and setting.accumulation > 1 else 0.0
    copied = max(bucket, size * weights.largest)
    buckets = _buckets(weights, setting) + _copies(copied, size * own, setting)
    result.append(Moment("reduction", {**held, "gradients": held["gradients"] + rest + earlier, "buckets": buckets}))
    if setting.offload_optimizer:
        return result
    # The rank's gradients; those of one group at a time flat once more, and in float32; then that group's update.
    group = min(max(bucket_elements(weights.trainable), weights.largest) / setting.data_ranks, own)
    gradients = held["gradients"] if stage == 3 else size * own
    wide = FLOAT32 * group if size < FLOAT32 else 0.0
    flat = {**held, "gradients": gradients + size * group + wide}
    temporaries = 0.0 if setting.on_gpu else ADAM_TEMPORARIES * group
    update = {**held, "gradients": gradients + FLOAT32 * group, "temporaries": temporaries}
    return [*result, Moment("flat gradients", flat), Moment("update", update)]
