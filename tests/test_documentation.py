"""The pages of documentation: all are indexed, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")


def _links(page: Path) -> list[str]:
    return [match["target"] for match in _LINK.finditer(page.read_text("utf-8"))]


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    assert {page.name for page in index.parent.glob("*.md")} - {index.name} <= set(_links(index))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _links(page):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        linked = (page.parent / target) if target else page
        assert linked.exists(), link
        assert not anchor or anchor in _anchors(linked), link
