"""A source of someone else's: a package of its own, installed by pip, used by the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "pairmill-postcards"
version = "1.0"

[project.entry-points."pairmill.sources"]
postcards = "pairmill_postcards:Postcards"

[tool.setuptools]
py-modules = ["pairmill_postcards"]
"""

#: The example of docs/sources.md, which a test below compares.
MODULE = '''\
"""Postcards: blocks of two lines, an address and a greeting, with a blank line between."""

from stages.ingest.source import BadFile, Columns, Pair, Reject, Source, SourceConfig, Unit


class PostcardsConfig(SourceConfig):
    """`kind: postcards`."""

    greeting: str = "Dear"
    """A card whose text does not begin so is rejected."""


class Postcards(Source[PostcardsConfig]):
    Config = PostcardsConfig

    def splits(self, files):
        return [Unit((file,)) for file in files]

    def read(self, unit):
        (file,) = unit.files
        with file.open_text() as handle:
            try:
                text = handle.read().decode("utf-8")
            except UnicodeDecodeError as error:
                raise BadFile(file, "not_utf8") from error
        yield Columns(file, {"url": "line", "caption": "line"})
        for card in text.split("\\n\\n"):
            lines = card.strip().split("\\n")
            if len(lines) != 2:
                yield Reject(file, "not_a_card")
            elif not lines[1].startswith(self.config.greeting):
                yield Reject(file, "unfriendly")
            else:
                yield Pair(file, caption=lines[1], url=lines[0], meta={"post": True})
'''

CARDS = """http://x.test/1.jpg
Dear all

http://x.test/2.jpg
Send money

alone
"""


def test_the_guide_shows_the_adapter_that_is_tested() -> None:
    guide = Path(__file__).parents[3] / "docs/sources.md"
    assert MODULE in guide.read_text("utf-8")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that has the package, which this one does not."""
    source, target = tmp_path_factory.mktemp("postcards"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "pairmill_postcards.py").write_text(MODULE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True, timeout=120)
    return {**os.environ, "PYTHONPATH": str(target)}


def _pairmill(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.main", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=Path(__file__).parents[3],
    )


@pytest.fixture
def chosen(tmp_path: Path) -> tuple[str, ...]:
    """What is said on the command line to use it."""
    (tmp_path / "cards.txt").write_text(CARDS)
    fields = f"{{kind: postcards, paths: ['{tmp_path}/cards.txt'], license: free}}"
    return ("source=[]", f"+sources.cards={fields}", f"workspace={tmp_path / 'w'}")


def test_its_config_is_validated_like_ours(installed: dict[str, str], chosen: tuple[str, ...]) -> None:
    shown = _pairmill(installed, "show", *chosen)
    assert shown.returncode == 0, shown.stderr
    assert "greeting: Dear" in shown.stdout
    wrong = _pairmill(installed, "show", *chosen, "+sources.cards.greting=Hi")
    assert wrong.returncode == 2
    assert "sources.cards.greting: unknown key" in wrong.stderr
    without = _pairmill({k: v for k, v in installed.items() if k != "PYTHONPATH"}, "show", *chosen)
    assert without.returncode == 2
    assert "sources.cards.kind: source kind 'postcards' is not known" in without.stderr


@pytest.mark.slow
def test_the_real_command_ingests_it(installed: dict[str, str], chosen: tuple[str, ...], tmp_path: Path) -> None:
    done = _pairmill(installed, "run", "ingest", *chosen)
    assert done.returncode == 0, done.stderr
    (artifact,) = {path.parent for path in (tmp_path / "w").rglob("pairs-00000.parquet")}
    (row,) = pq.read_table(artifact / "pairs-00000.parquet").to_pylist()
    told: dict[str, Any] = {name: row[name] for name in ("source", "url", "caption", "license", "meta")}
    assert told == {
        "source": "cards",
        "url": "http://x.test/1.jpg",
        "caption": "Dear all",
        "license": "free",
        "meta": '{"post":true}',
    }
    rejects = pq.read_table(artifact / "rejects.parquet").to_pylist()
    assert [(r["row"], r["reason"]) for r in rejects] == [(1, "unfriendly"), (2, "not_a_card")]
