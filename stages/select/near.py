"""Near copies over all ranges: the same choice as on one machine, taken for each connected component on its own.

The nodes are classes (images of equal hash and thumbnail, which are kept or dropped together) with an image that is
kept; the edges are the near pairs of the index that the rule confirms. Ranges offer the best image of each of their
classes, a class's bucket knows the best of all; edges pass through the buckets of both their classes, which drop them
where a class is not there. A component then lies in one bucket with all its edges, where the best image survives and
drops those near it, and so on. What came of its class is sent to every range that asked.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.exchange import Exchange
from stages.base.tasks import done
from stages.select.components import component_labels, read_labels
from stages.select.config import Near
from stages.select.copies import Answers, Candidates, answer
from stages.select.decision import Decision
from stages.select.duplicates import confirmed, survivors
from stages.select.job import Job, Passes, scattered

EDGES = pa.schema([("first", pa.int64()), ("second", pa.int64())])
_ASKED = pa.schema([("label", pa.int64()), ("range", pa.int32())])


def drop_near_copies(passes: Passes, near: Near, candidates: int, edges: int) -> None:
    """Drop images for the best survivor that is near them, over all ranges.

    `candidates` is the number of images that may be near copies, `edges` that of near pairs in the index.
    """
    job = passes.job
    count = job.buckets(max(candidates, edges))
    offers, asked = job.exchange("near-offers", count), job.exchange("near-asked", count)
    firsts, seconds = job.exchange("near-firsts", count), job.exchange("near-seconds", count)
    done(passes.read(_offer, near, offers, asked, firsts))
    done(passes.buckets(_first_there, count, offers, firsts, seconds))
    left = sum(passes.buckets(_second_there, count, offers, seconds))
    parts = max(1, -(-left // job.limits.edges))
    labels = component_labels(passes, count) if parts > 1 else None
    nodes, joined = job.exchange("near-nodes", parts), job.exchange("near-joined", parts)
    done(passes.buckets(_by_component, count, offers, labels, nodes, joined))
    settled, answers = job.exchange("near-settled", count), job.exchange("near-answers", passes.ranges)
    done(passes.buckets(_settle, parts, nodes, joined, settled))
    done(passes.buckets(_answer, count, asked, settled, answers))
    passes.change(_drop, near, answers)
    passes.clear("near-offers", "near-asked", "near-firsts", "near-seconds", "near-nodes", "near-joined")
    passes.clear("near-settled", "near-answers", "near-edges")


def write_edges(job: Job, bucket: int, edges: pa.Table) -> None:
    """Leave the edges whose `second` belongs to a bucket, once both their classes are known to be there."""
    file = _edges_file(job, bucket)
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(f"{file}.{os.getpid()}.part", EDGES) as out:
        out.write_table(edges.combine_chunks())
    os.replace(f"{file}.{os.getpid()}.part", file)


def read_edges(job: Job, bucket: int) -> pa.Table:
    """What :func:`write_edges` has left: `first` < `second`, int64."""
    with pa.memory_map(str(_edges_file(job, bucket))) as mapped:
        return pa.ipc.open_file(mapped).read_all()


def _edges_file(job: Job, bucket: int) -> Path:
    return Path(job.folder, "exchange", "near-edges", f"{bucket:05d}.arrow")


def _concerned(decision: Decision, near: Near) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the images that may have near copies and are kept, and rows of exact copies, whose survivor may have."""
    similar = decision.images[f"similar_{near.hash}"].to_numpy().astype(bool, copy=False)
    return np.flatnonzero(decision.kept_images & similar), decision.copies[similar[decision.copies]]


def _offer(decision: Decision, near: Near, offers: Exchange, asked: Exchange, firsts: Exchange) -> None:
    kept, copies = _concerned(decision, near)
    classes = decision.images[f"class_{near.hash}"].to_numpy()
    best = Candidates.of(decision, kept, classes[kept]).best()
    offers.write(decision.number, best.table(), scattered(best.label, offers.buckets))
    labels = np.unique(np.concatenate([best.label, classes[copies]]))
    ranges = np.full(len(labels), decision.number, dtype=np.int32)
    asked.write(decision.number, pa.table([labels, ranges], schema=_ASKED), scattered(labels, asked.buckets))
    table = decision.index.near(near.hash, decision.number)
    edges = table.filter(pa.array(confirmed(table, near))).select(EDGES.names).cast(EDGES)
    firsts.write(decision.number, edges, scattered(edges["first"].to_numpy(), firsts.buckets))


def _nodes(offers: Exchange, bucket: int) -> Candidates:
    return Candidates.from_table(offers.read(bucket)).best()


def _there(edges: pa.Table, end: str, nodes: Candidates) -> pa.Table:
    return edges.filter(pa.array(np.isin(edges[end].to_numpy(), nodes.label)))


def _first_there(job: Job, bucket: int, offers: Exchange, firsts: Exchange, seconds: Exchange) -> None:
    edges = _there(firsts.read(bucket), "first", _nodes(offers, bucket))
    seconds.write(bucket, edges, scattered(edges["second"].to_numpy(), seconds.buckets))


def _second_there(job: Job, bucket: int, offers: Exchange, seconds: Exchange) -> int:
    edges = _there(seconds.read(bucket), "second", _nodes(offers, bucket))
    write_edges(job, bucket, edges)
    return int(edges.num_rows)


def _by_component(
    job: Job, bucket: int, offers: Exchange, labels: Exchange | None, nodes: Exchange, joined: Exchange
) -> None:
    there, edges = _nodes(offers, bucket), read_edges(job, bucket)
    seconds = edges["second"].to_numpy()
    if labels is None:  # everything is one component's bucket
        of_node, of_edge = np.zeros(len(there.label), dtype=np.int64), np.zeros(len(seconds), dtype=np.int64)
    else:
        known = read_labels(labels, bucket)
        of_node, of_edge = (scattered(known.of(label), nodes.buckets) for label in (there.label, seconds))
    nodes.write(bucket, there.table(), of_node)
    joined.write(bucket, edges, of_edge)


def _settle(job: Job, bucket: int, nodes: Exchange, joined: Exchange, settled: Exchange) -> None:
    read = Candidates.from_table(nodes.read(bucket))
    candidates = read.take(np.argsort(read.label))
    rank = np.empty(len(candidates.label), dtype=np.int64)
    rank[candidates.order(by_label=False)] = np.arange(len(rank))
    edges = joined.read(bucket)
    ends = (np.searchsorted(candidates.label, edges[name].to_numpy()) for name in EDGES.names)
    final = survivors(rank, *ends)
    result = Candidates(
        candidates.label, candidates.row[final], candidates.keys[:, :0], candidates.uid.take(pa.array(final))
    )
    settled.write(bucket, result.table(), scattered(result.label, settled.buckets))


def _answer(job: Job, bucket: int, asked: Exchange, settled: Exchange, answers: Exchange) -> None:
    questions = asked.read(bucket)
    read = Candidates.from_table(settled.read(bucket))
    result = read.take(np.argsort(read.label))
    label, ranges = questions["label"].to_numpy(), questions["range"].to_numpy()
    answer(job, bucket, label, ranges, result, answers)


def _drop(decision: Decision, near: Near, answers: Exchange) -> None:
    kept, copies = _concerned(decision, near)
    if not len(kept) and not len(copies):
        return
    told = Answers(answers.read(decision.number))
    classes = decision.images[f"class_{near.hash}"].to_numpy()
    # The survivor of exact copies may itself be dropped for a near one: point to the image that is kept.
    places = np.flatnonzero(np.isin(decision.copies, copies))
    decision.survivor[places], decision.survivor_uid[places] = told.of(classes[copies])
    survivor, uid = told.of(classes[kept])
    copy = survivor != kept + decision.range.first_image
    decision.drop_copies(kept[copy], survivor[copy], uid[copy], "duplicate.near")
