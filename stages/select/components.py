"""Connected components of a graph whose edges lie in many buckets: alternating large-star and small-star.

Kiveris, Lattanzi, Mirrokni, Rastogi, Vassilvitskii: Connected components in MapReduce and beyond, SoCC 2014. Large-star
links every larger neighbour of a node to its smallest neighbour, small-star every smaller one and the node itself; the
components stay as they are, and the graph becomes a star around the smallest node of each. Needs about log2(nodes)
rounds; a round passes every edge through the buckets of its ends.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.base.exchange import Exchange
from stages.base.splitmix import mixed
from stages.base.tasks import done
from stages.select.job import Job, Passes, scattered

_LINKS = pa.schema([("node", pa.int64()), ("other", pa.int64())])


class ComponentLabels:
    """Smallest node of each component, by node; nodes without an edge are their own."""

    def __init__(self, node: NDArray[np.int64], label: NDArray[np.int64]) -> None:
        order = np.argsort(node)
        self._node, self._label = node[order], label[order]

    def of(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Label of each node."""
        if not len(self._node):
            return nodes
        place = np.minimum(np.searchsorted(self._node, nodes), len(self._node) - 1)
        return np.where(self._node[place] == nodes, self._label[place], nodes)


def component_labels(passes: Passes, buckets: int) -> Exchange:
    """The components of the edges in `near-edges`, for :func:`read_labels` by bucket of the nodes."""
    job = passes.job
    links = job.exchange("links-000", buckets)
    done(passes.buckets(_start, buckets, links))
    before: tuple[int, int] | None = None
    number = 0
    while True:
        larger, smaller = (
            job.exchange(f"larger-{number:03d}", buckets),
            job.exchange(f"links-{number + 1:03d}", buckets),
        )
        seen = list(passes.buckets(_large_star, buckets, links, larger))
        now = sum(count for count, _ in seen), sum(check for _, check in seen) % (1 << 64)
        if now == before:
            passes.clear(f"larger-{number:03d}")
            return links
        before = now
        done(passes.buckets(_small_star, buckets, larger, smaller))
        passes.clear(f"links-{number:03d}", f"larger-{number:03d}")
        links, number = smaller, number + 1


def read_labels(labels: Exchange, bucket: int) -> ComponentLabels:
    """The labels of a bucket's nodes."""
    links = labels.read(bucket)
    node, other = _distinct(links["node"].to_numpy(), links["other"].to_numpy())
    up = other < node  # in a star a node has one smaller neighbour, its centre none
    return ComponentLabels(node[up], other[up])


def _start(job: Job, bucket: int, links: Exchange) -> None:
    from stages.select.near import read_edges

    edges = read_edges(job, bucket)
    first, second = edges["first"].to_numpy(), edges["second"].to_numpy()
    _write_both(links, bucket, *_contracted(second, first))


def _contracted(node: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fewer edges with the same components: stars, found by hooking and pointer jumping within one process."""
    nodes, place = np.unique(np.concatenate([node, other]), return_inverse=True)
    one, two = place[: len(node)], place[len(node) :]
    label = np.arange(len(nodes))
    while True:
        low, high = np.minimum(label[one], label[two]), np.maximum(label[one], label[two])
        if (low == high).all():
            break
        np.minimum.at(label, high, low)
        while (label[label] != label).any():
            label = label[label]
    member = np.flatnonzero(label != np.arange(len(nodes)))
    return nodes[member], nodes[label[member]]


def _write_both(links: Exchange, task: int, node: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    """Leave each link in the buckets of both its ends."""
    ends = np.concatenate([node, other])
    table = pa.table([ends, np.concatenate([other, node])], schema=_LINKS)
    links.write(task, table, scattered(ends, links.buckets))


def _distinct(node: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Links without repetition, sorted by (node, other)."""
    order = np.lexsort((other, node))
    node, other = node[order], other[order]
    new = np.concatenate([[True], (node[1:] != node[:-1]) | (other[1:] != other[:-1])])[: len(node)]
    return node[new], other[new]


def _smallest(node: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each link, sorted by (node, other), the smaller of the node and its smallest neighbour."""
    starts = np.flatnonzero(np.concatenate([[True], node[1:] != node[:-1]])[: len(node)])
    lengths = np.diff(np.append(starts, len(node)))
    return np.minimum(node, np.repeat(other[starts], lengths))


def _large_star(job: Job, bucket: int, links: Exchange, larger: Exchange) -> tuple[int, int]:
    """Returns how many links point to a smaller node, and a checksum of them."""
    table = links.read(bucket)
    node, other = _distinct(table["node"].to_numpy(), table["other"].to_numpy())
    centre = _smallest(node, other)
    up = other < node
    check = mixed(mixed(node[up].astype(np.uint64)) + other[up].astype(np.uint64))
    above = other > node
    # Each to the bucket of the larger end, where small-star looks for the smaller ones.
    linked, to = other[above], centre[above]
    larger.write(bucket, pa.table([linked, to], schema=_LINKS), scattered(linked, larger.buckets))
    return int(up.sum()), int(np.add.reduce(check, dtype=np.uint64))


def _small_star(job: Job, bucket: int, larger: Exchange, links: Exchange) -> None:
    table = larger.read(bucket)
    node, other = _distinct(table["node"].to_numpy(), table["other"].to_numpy())
    centre = _smallest(node, other)
    inside = other != centre
    _write_both(
        links, bucket, *_distinct(np.concatenate([node, other[inside]]), np.concatenate([centre, centre[inside]]))
    )
