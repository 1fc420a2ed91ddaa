"""The list of samples to forget: uids, URLs, sha256 digests and domains, one a line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.base.contract import UserError
from stages.base.tombstones import Tombstones, domain_digest, url_digest

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

#: Columns by which tables name samples.
IDENTITY = frozenset({"uid", "image_uid", "url", "sha256", "source_sha256"})

_UID = re.compile(r"[0-9a-fA-F]{32}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_URL = re.compile(r"https?://\S+", re.IGNORECASE)
_DOMAIN = re.compile(r"(?!-)[^\s/:@?#]+\.[^\s/:@?#.]+\.?")


@dataclass(frozen=True)
class ForgetList:
    """The entries of a list, by kind."""

    uids: frozenset[str]
    """Of pairs or of images: they differ only in the column in which they occur."""
    urls: frozenset[str]
    sha256: frozenset[str]
    domains: frozenset[str]

    def __len__(self) -> int:
        return len(self.uids) + len(self.urls) + len(self.sha256) + len(self.domains)

    def tombstones(self) -> Tombstones:
        """The entries in the form of the workspace's file of tombstones."""
        return Tombstones(
            pairs=self.uids,
            images=self.uids,
            urls=frozenset(map(url_digest, self.urls)),
            sha256=self.sha256,
            domains=frozenset(map(domain_digest, self.domains)),
        )

    def image_rows(self, table: pa.Table) -> NDArray[np.bool_]:
        """Boolean per row: whether the list names its image, by those of the columns `image_uid`, `url`, `sha256` and
        `source_sha256` that the table has."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        named = np.zeros(table.num_rows, dtype=bool)
        sets = {"image_uid": self.uids, "sha256": self.sha256, "source_sha256": self.sha256, "url": self.urls}
        for column, values in sets.items():
            if values and column in table.column_names:
                named |= pc.is_in(table[column], value_set=pa.array(sorted(values), pa.string())).to_numpy()
        if self.domains and "url" in table.column_names:
            named |= self._in_domain(table["url"])
        return named

    def pair_rows(self, table: pa.Table) -> NDArray[np.bool_]:
        """Boolean per row: whether the list names its `uid`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        return pc.is_in(table["uid"], value_set=pa.array(sorted(self.uids), pa.string())).to_numpy().astype(bool)

    def _in_domain(self, urls: pa.ChunkedArray) -> NDArray[np.bool_]:
        import numpy as np
        import pyarrow.compute as pc

        # A cheap search for the name first; only the tombstones decide what a URL's host is.
        tombstones = Tombstones(domains=frozenset(map(domain_digest, self.domains)))
        named = np.zeros(len(urls), dtype=bool)
        for domain in self.domains:
            hit = pc.fill_null(pc.match_substring(urls, domain, ignore_case=True), False).to_numpy().astype(bool)
            named |= hit
        for row in np.flatnonzero(named).tolist():
            named[row] = tombstones.covers_url(urls[row].as_py())
        return named


def read_forget_list(lines: Iterable[str], name: str) -> ForgetList:
    """Parse a list; empty lines and those that begin with ``#`` are skipped.

    Raises UserError naming the line of an invalid entry, and for a list without any. `name` is used in messages.
    """
    kinds: dict[str, set[str]] = {"uids": set(), "urls": set(), "sha256": set(), "domains": set()}
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if _SHA256.fullmatch(entry):
            kinds["sha256"].add(entry.lower())
        elif _UID.fullmatch(entry):
            kinds["uids"].add(entry.lower())
        elif _URL.fullmatch(entry):
            kinds["urls"].add(entry)
        elif _DOMAIN.fullmatch(entry):
            kinds["domains"].add(entry.rstrip(".").lower())
        else:
            raise UserError(
                f"{name}, line {number}: neither a uid (32 hex digits), a sha256 (64), an http(s) URL nor a domain; "
                "mend or remove it"
            )
    entries = ForgetList(**{kind: frozenset(values) for kind, values in kinds.items()})
    if not len(entries):
        raise UserError(f"{name}: nothing to forget in it; write one uid, URL, sha256 or domain a line")
    return entries
