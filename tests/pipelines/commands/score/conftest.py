"""The command, called in this process: exit code, standard output, standard error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def score(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`pairmill score` with these words."""
    from pipelines.main import main

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["score", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def scored(score: Callable[..., tuple[int, str, str]]) -> Callable[..., dict[str, Any]]:
    """The JSON object of a call that succeeds."""

    def run(*words: object) -> dict[str, Any]:
        code, out, err = score(*words, "--json")
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    return run


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write JSON into a file of the test's folder."""

    def write(name: str, content: Any) -> Path:
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def captions(put: Callable[[str, Any], Path]) -> Callable[..., list[object]]:
    """Image -> references, and image -> candidate, as the options that name their files."""

    def write(references: dict[Any, list[str]], candidates: dict[Any, str], **images: Any) -> list[object]:
        annotations = [
            {"id": f"{image}/{n}", "image_id": image, "caption": caption}
            for image, captions in references.items()
            for n, caption in enumerate(captions)
        ]
        listed = [{"id": image, "file_name": f"{image}.png", **images.get(str(image), {})} for image in references]
        results = [{"image_id": image, "caption": caption} for image, caption in candidates.items()]
        refs = put("refs.json", {"images": listed, "annotations": annotations})
        return ["--references", refs, "--candidates", put("cands.json", results)]

    return write
