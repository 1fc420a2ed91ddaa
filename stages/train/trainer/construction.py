"""Building a phase's model where it is trained: every rank makes and fills its own shards, and never holds the rest.

The model is constructed on the meta device, where it has shapes but no memory. What the objective does not use is left
out, tensor parallelism splits the matrices while they are still on the meta device, and under ZeRO-3 each parameter
becomes the rank's partition of it. Only then is memory allocated, and when the engine exists (DeepSpeed copies weights
to flatten them, which costs nothing while they are untouched) each shard is filled: from files, tensor by tensor, or
with random values that depend on the seed and the parameter's name alone. Weights that learn get their float32 masters
from the same values, not from the rounded weights.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import registry
from models.common.checkpointing import checkpoint_activations
from models.common.construction import leave_out, replace_parameters
from models.common.output_layer import set_loss_chunk
from models.common.pretrained import VisionLanguageModel
from models.common.weights import Values, blocks
from stages.train.job import TrainingJob
from stages.train.trainer.checkpoint import phase_folder
from stages.train.trainer.phase_weights import (
    Split,
    TensorParallelValues,
    WeightShard,
    read_phase_weights,
    tensor_parallel_split,
    whole_shape,
    write_phase_weights,
)
from stages.train.trainer.ranks import RankInfo


@dataclass
class PhaseModel:
    """What a phase trains, on the meta device until :func:`allocate` and :func:`fill`."""

    model: VisionLanguageModel
    """Of its parts, those that the objective uses."""
    objective: nn.Module
    """The model with its loss."""
    values: dict[str, Values]
    """What every parameter and buffer of the whole model starts the phase from, by name in the model."""


def starting_values(job: TrainingJob, phase: int) -> tuple[VisionLanguageModel, dict[str, Values]]:
    """The whole model on the meta device, and the values it has before a phase: 0 is the first.

    Each weight comes from the newest phase that trained it, else from the model or the folders that the job starts
    from, else it is random.
    """
    ids = job.special
    if job.initial is not None:
        model, values = registry.construct_saved(job.initial, job.settings.seed)
    else:
        model, values = registry.construct(
            job.model, pad_id=ids.pad, bos_id=ids.bos, eos_id=ids.eos, seed=job.settings.seed
        )
    for earlier in range(phase):
        values.update(read_phase_weights(phase_folder(job.folder, earlier)))
    return model, values


def construct(job: TrainingJob, phase: int) -> PhaseModel:
    """The model of a phase with its objective, equal on every rank."""
    model, values = starting_values(job, phase)
    config = job.phases[phase]
    used = registry.objective_parts(job.model, config.objective)
    leave_out(model, model.named_parts(), used)
    registry.set_trainable(model, config.trainable or used)
    every = job.settings.activation_checkpointing
    checkpoint_activations(model, {part: every[part] for part in every if part in used})
    set_loss_chunk(model, job.settings.loss_chunk)
    objective = registry.objective(model, config.objective, config.settings)
    return PhaseModel(model, objective, values)


def split_tensor_parallel(
    module: nn.Module, degree: int, layer_specs: list[dict[str, Any]]
) -> Callable[[nn.Module], None]:
    """Replace the matrices that ``layer_specs`` names by DeepSpeed's tensor-parallel layers of the rank's share.

    `deepspeed.initialize` does the same to weights that every rank has whole; here they are on the meta device. Returns
    what is left to do with the module once its parameters have memory.
    """
    from deepspeed.checkpoint.constants import UNIVERSAL_CHECKPOINT_INFO
    from deepspeed.module_inject import set_autotp_mode
    from deepspeed.module_inject.auto_tp import AutoTP
    from deepspeed.module_inject.autotp_config import AutoTPConfig
    from deepspeed.module_inject.layers import collect_autotp_universal_checkpoint_info
    from deepspeed.utils import groups

    set_autotp_mode(training=True)
    groups._init_tp_mesh_device(tensor_model_parallel_size=degree)
    partition = AutoTPConfig.from_dict({"layer_specs": layer_specs, "use_default_specs": False})
    partition.tp_size = degree
    autotp = AutoTP(
        module=module,
        all_reduce_linears=(),
        prefix="",
        state_dict=None,
        linear_layer_setting=(nn.Linear, nn.Embedding),
        orig_layer_impl=None,
        partition_config=partition,
        training_mode=True,
    )
    autotp.set_tensor_parallel_config(degree, groups.get_tensor_model_parallel_group())
    autotp.update_linear_policies()
    autotp._replace_module(module)

    def finish(module: Any) -> None:
        autotp.register_replicated_grad_hooks(module)
        setattr(module, UNIVERSAL_CHECKPOINT_INFO, collect_autotp_universal_checkpoint_info(module))
        module.ds_autotp_parsed = True  # nothing is left for `deepspeed.initialize`

    return finish


def allocate(module: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every parameter memory, without touching it."""
    made = {
        weight: nn.Parameter(torch.empty(weight.shape, dtype=dtype, device=device), requires_grad=weight.requires_grad)
        for weight in module.parameters()
    }
    replace_parameters(module, made)


def allocate_partitioned(
    module: nn.Module, dtype: torch.dtype, ranks: RankInfo, config: dict[str, Any], frozen_shards: int | None
) -> None:
    """Make every parameter a ZeRO-3 parameter of which this rank has its partition alone, without touching it.

    `deepspeed.zero.Init` does the same but first makes each parameter whole. With ``frozen_shards`` those that are
    frozen are divided over that many neighbouring data-parallel ranks instead of all.
    """
    from deepspeed.runtime.zero.partition_parameters import Init, PartitionedParamStatus, ZeroParamStatus
    from deepspeed.utils import groups

    device = ranks.device
    data_group = groups.get_data_parallel_group() if ranks.tensor_parallel > 1 else None
    # An empty module, for what `Init` does besides: it prepares linear layers for weights that come and go.
    init = Init(module=nn.Module(), data_parallel_group=data_group, config_dict_or_path=config, dtype=dtype)
    frozen_group = _frozen_group(ranks, frozen_shards) if frozen_shards is not None else None
    made: dict[nn.Parameter, nn.Parameter] = {}
    for weight in module.parameters():
        # Of the parameter's shape, which DeepSpeed takes note of, but with the memory of one element.
        new: Any = nn.Parameter(
            torch.empty(1, dtype=dtype, device=device).expand(weight.shape), requires_grad=weight.requires_grad
        )
        if frozen_group is not None and not weight.requires_grad:
            new.ds_zero_partition_process_group = frozen_group
        init._convert_to_deepspeed_param(new)
        size = init._aligned_size(new) // init._partition_world_size(new)
        partition: Any = torch.empty(size, dtype=dtype, device=device)
        partition.ds_numel = size
        partition.status = PartitionedParamStatus.AVAILABLE
        partition.final_location = None
        new.ds_tensor = partition
        new.ds_numel_aligned = init._aligned_size(new)
        new.data = torch.empty(0, dtype=dtype, device=device)
        new.ds_status = ZeroParamStatus.NOT_AVAILABLE
        made[weight] = new
    replace_parameters(module, made)


def _frozen_group(ranks: RankInfo, shards: int) -> Any:
    """The process group of the data-parallel ranks, this one included, that share one copy of the frozen weights."""
    import torch.distributed as dist

    own = None
    for share in range(ranks.tensor_parallel):
        of_share = range(share, ranks.world_size, ranks.tensor_parallel)
        for first in range(0, len(of_share), shards):
            members = list(of_share[first : first + shards])
            group = dist.new_group(members)  # every rank must make every group
            if ranks.rank in members:
                own = group
    return own


def weight_shard(weight: nn.Parameter) -> WeightShard:
    """The elements of a parameter that this rank holds for use in forward and backward."""
    if (partition := getattr(weight, "ds_tensor", None)) is None:
        return WeightShard(0, weight.numel(), weight.data.view(-1))
    partitioned: Any = weight
    start = min(partitioned.ds_zero_partition_rank * partition.ds_numel, partitioned.ds_numel)
    stop = min(start + partition.ds_numel, partitioned.ds_numel)
    return WeightShard(start, stop, partition.data[: stop - start])


def master_shard(engine: Any, weight: nn.Parameter) -> WeightShard | None:
    """The elements of a parameter that this rank's optimizer updates, in float32; None where it updates none of it.

    Over the ranks that share no weights (data-parallel ones) these shards cover the parameter; at ZeRO stage 0 each
    has all of it.
    """
    if not weight.requires_grad:
        return None
    optimizer = engine.optimizer
    partitioned: Any = weight
    if hasattr(weight, "ds_tensor"):
        held = weight_shard(weight)
        if not len(held.tensor):
            return None
        group, offset, _ = optimizer.grad_position[optimizer.get_param_id(weight)]
        flat = optimizer.fp32_partitioned_groups_flat[group]
        return WeightShard(held.start, held.stop, flat.data[offset : offset + held.stop - held.start])
    if hasattr(weight, "_hp_mapping"):
        mapping = partitioned._hp_mapping
        if mapping is None:
            return None
        address = mapping.lp_fragment_address
        return WeightShard(address.start, address.start + address.numel, mapping.get_hp_fragment().data.view(-1))
    for weights, masters in _unpartitioned_groups(optimizer):
        for own, master in zip(weights, masters, strict=True):
            if own is weight:
                return WeightShard(0, weight.numel(), master.data.view(-1))
    return WeightShard(0, weight.numel(), weight.data.view(-1))


def _unpartitioned_groups(optimizer: Any) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """(weights, their masters) of each group of DeepSpeed's bf16 optimizers without ZeRO; none where there are none.

    One has a master per weight, the other, for fused kernels, a flat one per group.
    """
    groups = getattr(optimizer, "fp16_groups", [])
    if hasattr(optimizer, "fp32_groups"):
        yield from zip(groups, optimizer.fp32_groups, strict=True)
    elif groups:
        for weights, flat in zip(groups, optimizer.fp32_groups_flat, strict=True):
            yield weights, list(flat.data.split([weight.numel() for weight in weights]))


def fill(engine: Any, phase: PhaseModel) -> None:
    """Write the phase's starting values into the shards that this rank holds, and into its masters."""
    with torch.no_grad():
        for name, weight in phase.model.named_parameters():
            values = local_values(phase.values[name], weight)
            held, master = weight_shard(weight), master_shard(engine, weight)
            for start, stop in blocks(held.start, held.stop):
                block = values.flat(start, stop).to(held.tensor.device)
                held.tensor[start - held.start : stop - held.start].copy_(block)
                if master is not None:
                    low, high = max(start, master.start), min(stop, master.stop)
                    if low < high:
                        master.tensor[low - master.start : high - master.start].copy_(block[low - start : high - start])


def release(engine: Any) -> None:
    """Give back all memory of an engine and its model; neither can be used again.

    `engine.destroy()` leaves both reachable: DeepSpeed keeps every ZeRO-3 module in a list of its own, and parameters
    know their optimizer. The next phase would be built beside them.
    """
    from deepspeed.runtime.zero import parameter_offload

    module = engine.module
    engine.destroy()
    parameter_offload.FWD_MODULE_STACK.clear()
    for weight in module.parameters():
        weight.grad = None
        weight.data = torch.empty(0, dtype=weight.dtype, device=weight.device)
        weight.__dict__.clear()
    engine.optimizer = engine.basic_optimizer = None
    gc.collect()


def local_values(values: Values, weight: nn.Parameter) -> Values:
    """The values of this rank's tensor-parallel share of a parameter, or all of them where it is not split."""
    share = tensor_parallel_split(weight)
    return values if share is None else TensorParallelValues(values, *share)


def save_phase_weights(engine: Any, model: nn.Module, ranks: RankInfo, folder: Path) -> None:
    """Write what this rank's optimizer holds of the weights that learn, in float32, below a finished phase's folder.

    Every rank calls this. Where several have the same elements, each writes its part of them.
    """
    replicated = engine.zero_optimization_stage() == 0
    shards: dict[str, tuple[tuple[int, ...], Split | None, WeightShard]] = {}
    for name, weight in model.named_parameters():
        split, shard = tensor_parallel_split(weight), master_shard(engine, weight)
        if shard is None or (split is None and not ranks.is_first_of_data_rank):
            continue
        if replicated:
            size = shard.stop - shard.start
            low, high = (size * rank // ranks.data_ranks for rank in (ranks.data_rank, ranks.data_rank + 1))
            shard = WeightShard(low, high, shard.tensor[low:high])
        if shard.stop > shard.start:
            shards[name] = (whole_shape(weight), split, shard)
    write_phase_weights(folder, ranks.rank, shards)
