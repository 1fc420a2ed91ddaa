"""The line about a source of which no image could be fetched: how its images failed, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stages.base.artifact import Artifact
from stages.download.outcome import Failure, Reason, is_transient, remedy
from stages.download.success_rate import commonest
from stages.download.success_rate import most_frequent as most_frequent  # for stages that read downloads


def nothing_fetched(source: str, statuses: Mapping[str, int]) -> str:
    """The line about a source without a single image; ``statuses``: images by status, at least one."""
    status = commonest(statuses)
    explained = Failure(status).explanation
    if status in (Reason.MISSING_FILE, Reason.UNREADABLE_FILE):
        advice = f"sources.{source}.images is the folder that they are looked for in"
    elif is_transient(status):
        advice = "when the cause is mended, `pairmill run download --retry-failed` fetches them again"
    else:
        advice = remedy(status) or "such a failure is final; attempts-*.parquet of the download has a row per image"
    why = "" if explained == status else f" ({explained})"
    return (
        f"sources.{source}: none of its {sum(statuses.values()):,} images could be fetched: {most_frequent(statuses)}"
        f"{why}; {advice}"
    )


def failed_sources(raw: Iterable[Artifact]) -> list[str]:
    """The line about each source that has images and none that could be fetched; ``raw``: download artifacts."""
    lines = []
    for artifact in raw:
        counts = artifact.counts
        statuses = {name.removeprefix("status."): n for name, n in counts.items() if name.startswith("status.") and n}
        statuses.pop(Reason.FORGOTTEN, None)
        if statuses and not counts.get("success"):
            lines.append(nothing_fetched(artifact.manifest["config"]["name"], statuses))
    return lines
