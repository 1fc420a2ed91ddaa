"""MLflow run ids by our own keys, without MLflow: importing it takes seconds that a look-up has not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from pipelines.tracking.backend import backend

_TABLE = "tags"


def run_ids(workspace: str, keys: Iterable[str]) -> dict[str, str]:
    """Key (the tag `pairmill.key`) -> run id, of the workspace's SQLite store; empty for any other store.

    Reads MLflow's table `tags` (key, value, run_uuid), which has been the same since its first schema.
    """
    database = backend(workspace).database
    if database is None or not database.exists():
        return {}
    try:
        connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
    except sqlite3.OperationalError:
        return {}
    try:
        found = {}
        for key in keys:
            row = connection.execute(
                f"SELECT run_uuid FROM {_TABLE} WHERE key = 'pairmill.key' AND value = ?", (key,)
            ).fetchone()
            if row:
                found[key] = str(row[0])
        return found
    except sqlite3.OperationalError:  # a store that is being made, or locked for writing
        return {}
    finally:
        connection.close()
