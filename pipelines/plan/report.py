"""A plan as a record for `--json`, and as text: a screen per phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from models.common.config import ModelConfig
from models.registry import count_parameters
from pipelines.cluster import ClusterConfig
from pipelines.plan import hardware
from pipelines.plan.options import (
    best,
    largest_micro_batch,
    layouts,
    memory_per_rank,
    phase_shares,
    problem,
    remedies,
    reserve_line,
)
from pipelines.plan.phase import PhasePlan, phases
from pipelines.plan.published import PUBLISHED, findings
from stages.base.contract import UserError
from stages.train.config import TrainConfig
from stages.train.job import check_frozen_shards, check_pretraining


@dataclass(frozen=True)
class TrainingSetup:
    """What is asked."""

    model: ModelConfig
    train: TrainConfig
    cluster: ClusterConfig
    samples: float | None = None
    """Samples of the data set; None: the published number where there is one."""
    text_tokens: int | None = None

    def check(self) -> None:
        """Raise UserError for what is no question: numbers that nothing has, settings that `run` refuses for the model.

        What does not fit the cluster, or does not divide over it, is a question whose answer is no.
        """
        train, cluster = self.train, self.cluster
        if self.samples is not None and not (math.isfinite(self.samples) and self.samples >= 1):
            raise UserError(f"--samples {self.samples:g} is no number of samples: give one of at least 1")
        if self.text_tokens is not None and not 1 <= self.text_tokens <= train.max_text_tokens:
            raise UserError(
                f"--text-tokens {self.text_tokens} is no length of texts that are cut at train.max_text_tokens="
                f"{train.max_text_tokens}: give one from 1 to that, or change it"
            )
        check_pretraining("train", train, train.phases, self.model, cluster.tensor_parallel)


def plan(question: TrainingSetup) -> dict[str, Any]:
    """Everything that `pairmill plan --json` prints. Raises UserError for settings that no memory would let run."""
    model, train, cluster = question.model, question.train, question.cluster
    published = PUBLISHED.get(model.name)
    samples = question.samples or (published.samples if published else None)
    question.check()
    plans = phases(model, train, cluster, question.text_tokens)
    shares = phase_shares(train, samples)
    why = problem(model, train, cluster)
    if not why:
        check_frozen_shards("train", train, plans[0].data_ranks)
    counts = count_parameters(model)
    record: dict[str, Any] = {
        "model": model.name,
        "cluster": cluster.name,
        "fits": not why,
        "why": why,
        "change": remedies(model, train, cluster) if why else [],
        "ranks": cluster.workers,
        "tensor_parallel": cluster.tensor_parallel,
        "zero": train.zero.model_dump(),
        "precision": cluster.precision,
        "micro_batch": train.micro_batch,
        "global_batch": train.global_batch,
        "text_tokens": {"memory": train.max_text_tokens, "time": question.text_tokens or train.max_text_tokens},
        "samples": samples,
        "parameters": {"total": sum(counts.values()), "parts": counts},
        "phases": [_phase(each, samples) for each in plans],
    }
    if cluster.gpus_per_worker and plans[0].flops:
        found = layouts(model, train, cluster, question.text_tokens)
        chosen = best(found, shares)
        record["layouts"] = [
            {
                "name": layout.name,
                "overrides": list(layout.overrides),
                "fits": layout.fits,
                "gb": layout.gb,
                "micro_batch": layout.plans[0].train.micro_batch,
                "step_seconds": [each.step_seconds for each in layout.plans],
                "compute_seconds": [each.compute_seconds for each in layout.plans],
                "network": [{each.name: each.seconds for each in own.traffic} for own in layout.plans],
                "current": layout.current,
                "best": layout is chosen,
            }
            for layout in found
        ]
        record["total"] = _total(record["phases"], cluster)
        if published:
            record["published"] = findings(published, plans, shares)
    return record


def _phase(phase: PhasePlan, samples: float | None) -> dict[str, Any]:
    room = memory_per_rank(phase.cluster)
    known = phase.tape is not None
    without = phase.tape_without_checkpointing
    trainable = sum(count for part, count in phase.parts.items() if part in phase.trainable)
    used = sum(phase.parts.values())
    steps = phase.config.steps
    if steps is None and samples:
        steps = math.ceil((phase.config.epochs or 0) * samples / phase.train.global_batch)
    record: dict[str, Any] = {
        "objective": phase.config.objective,
        "parts": {part: {"parameters": n, "trainable": part in phase.trainable} for part, n in phase.parts.items()},
        "trainable_share": trainable / used,
        "accumulation": phase.accumulation,
        "fits": phase.fits(room),
        "activations_known": known,
        "memory": {
            "moment": phase.peak.name,
            "bytes": phase.gpu_bytes,
            "available": room if math.isfinite(room) else None,
            "items": {**phase.peak.items, "reserve": phase.gpu_bytes - phase.peak.total},
            "activations_kept": phase.tape.kept if phase.tape is not None else None,
            "activations_kept_without_checkpointing": without.kept if without is not None else None,
            "host_bytes_per_rank_at_start": phase.host_bytes_per_rank,
        },
        "largest_micro_batch": largest_micro_batch(phase, room),
        "steps": steps,
        "checkpoint_bytes": trainable * (12 if phase.setting.size < 4 or phase.setting.stage else 8)
        + trainable * phase.setting.size,
        "model_bytes": sum(count_parameters(phase.model).values()) * phase.setting.size,
    }
    rate = phase.cluster.hardware.storage_gb_per_s * 1e9
    record["checkpoint_seconds"] = record["checkpoint_bytes"] / rate
    record["model_seconds"] = record["model_bytes"] / rate
    if known:
        record["flops_per_sample"] = {
            part: {
                "forward": flops.forward,
                "backward": flops.backward,
                "recomputed": flops.recomputed,
            }
            for part, flops in phase.flops.items()
        }
        record["model_flops_per_sample"] = phase.model_flops
        record["hardware_flops_per_sample"] = phase.hardware_flops
        if phase.on_gpu:
            record["time"] = {
                "step": phase.step_seconds,
                "compute": phase.compute_seconds,
                "waiting": phase.waiting_seconds,
                "network": [
                    {"name": each.name, "bytes": each.bytes, "seconds": each.seconds, "overlaps": each.overlaps}
                    for each in phase.traffic
                ],
                "mfu": phase.mfu,
                "seconds_in_all": steps * phase.step_seconds if steps else None,
            }
    return record


def _total(records: list[dict[str, Any]], cluster: ClusterConfig) -> dict[str, float] | None:
    seconds = [record["time"]["seconds_in_all"] for record in records]
    if any(each is None for each in seconds):
        return None
    hours = sum(seconds) / 3600
    gpu_hours = hours * cluster.workers
    watts = hardware.GPUS[cluster.hardware.gpu].watts
    return {
        "days": hours / 24,
        "gpu_hours": gpu_hours,
        "kwh": gpu_hours * watts / 1000 * cluster.hardware.pue,
    }


def text(record: dict[str, Any], question: TrainingSetup) -> str:
    """The plan to read."""
    cluster = question.cluster
    lines = [*_head(record, question), ""]
    for number, phase in enumerate(record["phases"]):
        lines += [*_phase_lines(number, phase, question), ""]
    if "layouts" in record:
        lines += [*_layout_lines(record), ""]
    if record.get("total"):
        total = record["total"]
        gpu = hardware.GPUS[cluster.hardware.gpu]
        lines.append(
            f"in all  {total['days']:,.1f} days, {total['gpu_hours']:,.0f} GPU-hours, {total['kwh']:,.0f} kWh"
            f" ({gpu.watts:g} W a GPU x PUE {cluster.hardware.pue:g}) for {record['samples']:,.0f} samples"
        )
        lines.append("")
    if "published" in record:
        lines += ["what was published", *(f"  {line}" for line in record["published"]), ""]
    lines.append("yes: it fits" if record["fits"] else f"no: {record['why']}")
    if not record["fits"]:
        lines += [f"  change {' '.join(change)}" for change in record["change"]] or ["  no change of the recipe helps"]
    return "\n".join(lines)


def _head(record: dict[str, Any], question: TrainingSetup) -> list[str]:
    cluster = question.cluster
    zero = record["zero"]
    where = (
        f"{cluster.workers} x {hardware.GPUS[cluster.hardware.gpu].name}"
        if cluster.gpus_per_worker
        else (f"{cluster.workers} CPU processes")
    )
    shards = f", frozen weights over {zero['frozen_shards']} ranks" if zero["frozen_shards"] else ""
    tokens = record["text_tokens"]
    return [
        f"{record['model']} on {cluster.name}: {where}, {record['precision']}, ZeRO-{zero['stage']}{shards},"
        f" tensor parallel {cluster.tensor_parallel}",
        f"{record['parameters']['total'] / 1e9:,.2f}B parameters; global batch {record['global_batch']:,},"
        f" micro-batch {record['micro_batch']}; texts of {tokens['memory']} tokens for memory,"
        f" {tokens['time']} for time",
    ]


def _phase_lines(number: int, phase: dict[str, Any], question: TrainingSetup) -> list[str]:
    memory, cluster = phase["memory"], question.cluster
    lines = [
        f"phase {number}: {phase['objective']}" + (f", {phase['steps']:,} steps" if phase["steps"] else ""),
        f"  parameters {'':14} {'':>9}        TFLOPs per sample: forward  backward  recomputed",
    ]
    for part, own in phase["parts"].items():
        flops = phase.get("flops_per_sample", {}).get(part)
        figures = (
            f"{flops['forward'] / 1e12:26.3f} {flops['backward'] / 1e12:9.3f} {flops['recomputed'] / 1e12:11.3f}"
            if flops
            else ""
        )
        state = "learns" if own["trainable"] else "frozen"
        lines.append(f"    {part:22} {own['parameters'] / 1e9:8.3f}B  {state} {figures}")
    lines.append(f"    {phase['trainable_share']:.1%} of them learn")
    place = "GPU" if cluster.gpus_per_worker else "process"
    available = f" of {memory['available'] / 1e9:,.1f} GB" if memory["available"] else ""
    verdict = "fits" if phase["fits"] else "DOES NOT FIT"
    lines.append(
        f"  memory of a {place}: {memory['bytes'] / 1e9:,.2f} GB{available}: {verdict} (peak: {memory['moment']})"
    )
    lines += [f"    {name:22} {value / 1e9:8.2f} GB" for name, value in memory["items"].items() if value >= 5e6]
    lines.append(f"      reserve: {reserve_line(cluster.gpus_per_worker > 0)}")
    if phase["activations_known"]:
        lines.append(
            f"    activations kept {memory['activations_kept'] / 1e9:.2f} GB, without checkpointing"
            f" {memory['activations_kept_without_checkpointing'] / 1e9:.2f} GB"
        )
    else:
        lines.append(
            f"    activations and FLOPs are not known: the architecture has no record_cost;"
            f" {hardware.UNKNOWN_ACTIVATIONS:.0%} of the memory is left for them"
        )
    ranks = min(cluster.hardware.gpus_per_node if cluster.gpus_per_worker else cluster.workers, cluster.workers)
    lines.append(
        f"    host at start {memory['host_bytes_per_rank_at_start'] / 1e9:.2f} GB a rank,"
        f" {ranks * memory['host_bytes_per_rank_at_start'] / 1e9:,.1f} GB a node;"
        f" largest micro-batch that fits: {phase['largest_micro_batch'] or 'none'}"
    )
    if "time" in phase:
        lines += _time_lines(phase, question)
    lines.append(
        f"  a checkpoint {phase['checkpoint_bytes'] / 1e9:,.1f} GB in {phase['checkpoint_seconds']:,.1f} s,"
        f" the model {phase['model_bytes'] / 1e9:,.1f} GB in {phase['model_seconds']:,.1f} s,"
        f" at {cluster.hardware.storage_gb_per_s:g} GB/s"
    )
    return lines


def _time_lines(phase: dict[str, Any], question: TrainingSetup) -> list[str]:
    time, cluster = phase["time"], question.cluster
    lines = [
        f"  a step {time['step']:.2f} s: {time['compute']:.2f} s of computing at {cluster.hardware.efficiency:.0%}"
        f" of peak and {time['waiting']:.2f} s of waiting; MFU {time['mfu']:.1%}"
    ]
    for each in time["network"]:
        beside = "beside the computation" if each["overlaps"] else "alone"
        lines.append(f"    {each['name']:26} {each['bytes'] / 1e9:9.2f} GB {each['seconds']:7.2f} s  {beside}")
    return lines


def _layout_lines(record: dict[str, Any]) -> list[str]:
    lines = [
        f"where the weights lie {'':17} {'GB a rank':>9} {'micro':>6} {'step':>9} {'computing':>10} {'network':>8}"
    ]
    for layout in record["layouts"]:
        marks = [name for name in ("best", "current") if layout[name]]
        network = sum(sum(own.values()) for own in layout["network"])
        lines.append(
            f"  {layout['name']:37} {layout['gb']:9.1f} {layout['micro_batch']:6}"
            f" {sum(layout['step_seconds']):8.2f}s {sum(layout['compute_seconds']):9.2f}s {network:7.2f}s"
            f"  {'' if layout['fits'] else 'does not fit'} {', '.join(marks)}".rstrip()
        )
    lines.append("  (a step of every phase; network: all collectives, most of which run beside the computation)")
    return lines
