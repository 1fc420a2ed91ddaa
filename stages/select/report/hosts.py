"""Figures of hosts: what each one lost. Ranges count theirs, and exchange the counts by host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from stages.base.exchange import Exchange
from stages.base.tasks import done
from stages.select.decision import Decision
from stages.select.job import Job, Passes
from stages.select.report.codes import codes

#: Statuses of images whose host was never contacted (`stages/download/outcome.py`): the name does not resolve, or the
#: address or the request is not permitted.
_NOT_ASKED = frozenset({"dns", "forbidden_address", "forbidden_scheme", "forgotten", "invalid_url"})
#: Maximum number of hosts listed, those that lost most images first.
HOSTS = 50
#: Images per distinct text (host or licence) of a range, at least, for the size of a bucket.
_REPEATED = 4


def hosts(passes: Passes) -> dict[str, Any]:
    """Hosts by images lost in the download, and why; the index has none of private sources."""
    job = passes.job
    counted = job.exchange("hosts", text_buckets(job))
    done(passes.read(_offer, counted))
    total = np.zeros(3, dtype=np.int64)
    top: list[dict[str, Any]] = []
    for part in passes.buckets(_count, counted.buckets, counted) if passes.ranges else ():
        total += (part.asked, part.without_success, part.not_asked)
        top = _first([*top, *part.top])
    passes.clear("hosts")
    asked, without_success, not_asked = total.tolist()
    return {"hosts": asked, "without_success": without_success, "not_asked": not_asked, "top": top}


def text_buckets(job: Job) -> int:
    """Number of buckets for the distinct texts of a column."""
    return job.buckets(sum(range.pairs for range in job.index.ranges) // _REPEATED)


def buckets_of_texts(texts: Iterable[str], buckets: int) -> NDArray[np.int64]:
    """A bucket per text, int64 [n]."""
    if buckets == 1:
        return np.zeros(len(list(texts)), dtype=np.int64)
    return np.array(
        [xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) % buckets for text in texts], dtype=np.int64
    )


def _offer(decision: Decision, counted: Exchange) -> None:
    """Leave the range's images by host and status, and those kept."""
    host, status = codes(decision.images["host"]), codes(decision.images["status"])
    known = (host.of >= 0) & (status.of >= 0)
    cells = host.of[known].astype(np.int64) * len(status.names) + status.of[known]
    size = len(host.names) * len(status.names)
    images = np.bincount(cells, minlength=size)
    kept = np.bincount(cells[decision.kept_images[known]], minlength=size)
    used = np.flatnonzero(images)
    place = used // max(1, len(status.names))
    columns = {
        "host": pa.array(host.names, pa.string()).take(pa.array(place)),
        "status": pa.array(status.names, pa.string()).take(pa.array(used - place * len(status.names))),
        "images": pa.array(images[used], pa.int64()),
        "kept": pa.array(kept[used], pa.int64()),
    }
    counted.write(decision.number, pa.table(columns), buckets_of_texts(host.names, counted.buckets)[place])


@dataclass(frozen=True)
class _Hosts:
    asked: int
    without_success: int
    not_asked: int
    top: list[dict[str, Any]]


def _count(job: Job, bucket: int, counted: Exchange) -> _Hosts:
    rows = counted.read(bucket)
    host, status = codes(rows["host"]), codes(rows["status"])
    shape = len(host.names), len(status.names)
    cells = host.of.astype(np.int64) * shape[1] + status.of
    table = np.bincount(cells, weights=rows["images"].to_numpy(), minlength=shape[0] * shape[1]).astype(np.int64)
    table = table.reshape(shape)
    kept = np.bincount(host.of, weights=rows["kept"].to_numpy(), minlength=shape[0]).astype(np.int64)
    fetched = table[:, [name == "success" for name in status.names]].sum(axis=1)
    tried = table.sum(axis=1)
    asked = table[:, [name not in _NOT_ASKED for name in status.names]].sum(axis=1) > 0
    lost = tried - fetched
    order = np.lexsort((np.arange(shape[0]), -tried, -lost))  # names are in alphabetical order
    listed = []
    for n in order[:HOSTS].tolist():
        reasons = {name: c for name, c in zip(status.names, table[n].tolist(), strict=True) if c and name != "success"}
        listed.append(
            {
                "host": host.names[n],
                "images": int(tried[n]),
                "success": int(fetched[n]),
                "failed": int(lost[n]),
                "kept": int(kept[n]),
                "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
            }
        )
    without_success, not_asked = int((asked & (fetched == 0)).sum()), int(((tried > 0) & ~asked).sum())
    return _Hosts(int(asked.sum()), without_success, not_asked, listed)


def _first(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(listed, key=lambda h: (-h["failed"], -h["images"], h["host"]))[:HOSTS]
