"""What follows from the figures that the published models came with, and where those contradict each other."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.plan.hardware import GPUS
from pipelines.plan.phase import PhasePlan


@dataclass(frozen=True)
class Published:
    """How a model is said to have been trained."""

    gpus: int
    gpu: str
    samples: float
    """Pairs, each seen once."""
    weeks: float
    claimed_gpu_hours: float | None = None

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours."""
        return self.gpus * self.weeks * 7 * 24


PUBLISHED = {
    "blip2_xl": Published(128, "a100", 1.5e9, 7),
    "florence2_xl": Published(64, "a100", 2.5e9, 3, claimed_gpu_hours=1.5e6),
}


def findings(published: Published, plans: list[PhasePlan], shares: dict[int, float]) -> list[str]:
    """One line per consequence."""
    hours, gpu = published.gpu_hours, GPUS[published.gpu]
    flops = published.samples * sum(plan.model_flops * shares[plan.number] for plan in plans)
    possible = hours * 3600 * gpu.flops["bf16"]
    mfu = flops / possible
    tokens = plans[0].text_tokens or plans[0].train.max_text_tokens
    lines = [
        f"{published.gpus} x {gpu.name} for {published.weeks:g} weeks are {hours:,.0f} GPU-hours,"
        f" in which they could compute {possible:.3g} FLOPs in bf16;",
        f"{published.samples / 1e9:g}B pairs with texts of {tokens} tokens take {flops:.3g} model FLOPs:"
        f" an MFU of {mfu:.1%}, {published.samples / (hours * 3600):.2f} pairs per GPU and second.",
    ]
    if mfu > 1:
        lines.append(
            f"CONTRADICTION: above 100%. Texts of {tokens} tokens each cannot have been trained on in that time."
        )
        if (mean := _tokens_at(plans, shares, 0.5 * possible / published.samples)) is not None:
            lines.append(f"At an MFU of 50% their mean length would have been {mean} tokens.")
    elif mfu < 0.2:
        at = flops / (0.4 * gpu.flops["bf16"] * published.gpus) / 86400
        lines.append(
            f"NOT WHAT COMPUTING TAKES: at an MFU of 40% it would be {at:.1f} days; the rest of the"
            f" {published.weeks * 7:g} days went elsewhere (reading images, waiting, restarts), or more was computed."
        )
    claimed = published.claimed_gpu_hours
    if claimed is not None:
        days = claimed / published.gpus / 24
        lines.append(
            f"CONTRADICTION: {claimed:,.0f} GPU-hours are claimed, {claimed / hours:.0f} times as many: on"
            f" {published.gpus} GPUs they would last {days:,.0f} days, not {published.weeks * 7:g}."
            f" At an MFU of {flops / (claimed * 3600 * gpu.flops['bf16']):.1%} they would do."
        )
    return lines


def _tokens_at(plans: list[PhasePlan], shares: dict[int, float], flops_per_sample: float) -> int | None:
    """The greatest mean text length whose FLOPs per sample stay within a budget."""
    low, high = 1, plans[0].train.max_text_tokens
    if _flops(plans, shares, low) > flops_per_sample:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _flops(plans, shares, middle) <= flops_per_sample else (low, middle)
    return low


def _flops(plans: list[PhasePlan], shares: dict[int, float], tokens: int) -> float:
    at = [PhasePlan(plan.model, plan.train, plan.cluster, plan.number, tokens) for plan in plans]
    return sum(plan.model_flops * shares[plan.number] for plan in at)
