"""Code blocks of a Markdown page, so that tests can run the examples that the page shows."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_HEADING = re.compile(r"^#{1,6} (?P<title>.+)$", re.MULTILINE)
_BLOCK = re.compile(r"(?:^`(?P<file>[^`\n]+)`\n\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Example:
    """The code blocks of one section."""

    files: dict[str, str] = field(default_factory=dict)
    """Path -> content, of blocks below a line that names a file."""
    edits: dict[str, str] = field(default_factory=dict)
    """Path -> `diff` block below a line that names a file."""
    commands: list[list[str]] = field(default_factory=list)
    """Words of every line of the `sh` blocks."""


def example(page: str, title: str) -> Example:
    """The code blocks below a heading of a page, up to the next heading. Raises KeyError without that heading."""
    # A `#` inside a block is no heading.
    text = (ROOT / page).read_text("utf-8")
    blocks = [(match.start(), match.end()) for match in _BLOCK.finditer(text)]
    headings = [m for m in _HEADING.finditer(text) if not any(start < m.start() < end for start, end in blocks)]
    sections = {
        match["title"]: text[match.end() : after.start() if after else len(text)]
        for match, after in zip(headings, [*headings[1:], None], strict=True)
    }
    found = Example()
    for block in _BLOCK.finditer(sections[title]):
        if block["language"] == "sh":
            found.commands += [shlex.split(line) for line in block["text"].splitlines()]
        else:
            assert block["file"], f"{page}, {title}: name the file of the block {block['text'][:40]!r}"
            kind = found.edits if block["language"] == "diff" else found.files
            kind[block["file"]] = block["text"]
    return found


def write(files: dict[str, str], folder: Path) -> None:
    """Write files below a folder; a file that exists there is appended to."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)


def apply(edits: dict[str, str], folder: Path) -> None:
    """Apply `diff` blocks of added lines with hunks separated by `@@`. AssertionError if context lines differ."""
    for name, edit in edits.items():
        path = folder / name
        for hunk in edit.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] == " ")
            text = path.read_text("utf-8")
            assert text.count(before) == 1, f"{name} has these lines {text.count(before)} times, not once:\n{before}"
            path.write_text(text.replace(before, "".join(line[1:] for line in lines)), "utf-8")
