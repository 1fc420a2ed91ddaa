"""METEOR against its reference, run side by side."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.evaluate.metrics.java import Unavailable
from stages.evaluate.metrics.meteor import Meteor, aggregate, score
from stages.evaluate.metrics.meteor.jar import MeteorJar
from stages.evaluate.metrics.meteor.sources import JAR, PARAPHRASES, find_sources

Texts = tuple[str, ...]


@pytest.fixture(scope="module")
def jar() -> Iterator[MeteorJar]:
    try:
        running = MeteorJar()
    except Unavailable as why:
        pytest.skip(str(why))
    with running:
        yield running


def _repeats(rng: random.Random) -> Iterator[Texts]:
    """Few words, often: many alignments, so that the beam is pruned."""
    vocabularies = (
        "a b",
        "a b c",
        "a b dog dogs cat the of in",
        "a man men riding ride rides horse horses in front of",
    )
    for longest in [22] * 1500 + [80] * 30:
        words = rng.choice(vocabularies).split()
        yield tuple(" ".join(rng.choices(words, k=rng.randint(0, longest))) for _ in range(3))


def _paraphrases(rng: random.Random) -> Iterator[Texts]:
    lines = find_sources().paraphrase_bytes().decode("utf-8").split("\n")
    pairs = [rng.randrange(len(lines) // 3) for _ in range(4000)]
    for at in range(0, len(pairs), 4):
        entries = [[lines[3 * i + 1], lines[3 * i + 2]] for i in pairs[at : at + 4]]
        left, right = [rng.choice(e) for e in entries], [rng.choice(e) for e in entries]
        if rng.random() < 0.5:
            rng.shuffle(right)
        yield " ".join(left), " ".join(right), " ".join(reversed(left))


def _odd(rng: random.Random) -> Iterator[Texts]:
    parts = [
        *"abz019.,'`\"- AZ",
        "...",
        "'s",
        "\u2018",
        "\u2019",
        "\u201c",
        "\u2013",
        "\u00a0",
        "\u3000",
        "\u2028",
        "é",
    ]
    parts += ["İ", "Σ", "ж", "\U0001f600", "_", "|", "$", "\\", "no. 5", "e.g.", "u.s.", "1,000", " the ", " dogs "]
    for _ in range(1500):
        yield tuple("".join(rng.choices(parts, k=rng.randint(0, 25))) for _ in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("made", [_repeats, _paraphrases, _odd])
def test_statistics_and_scores_equal_the_jars(jar: MeteorJar, made: Callable[[random.Random], Iterator[Texts]]) -> None:
    metric = Meteor()
    images = [(candidate, references) for candidate, *references in made(random.Random(3))]
    ours = [metric.statistics(*image) for image in images]
    theirs = [jar.statistics(*image) for image in images]
    assert [(i, a.line(), b.line()) for i, a, b in zip(images, ours, theirs, strict=True) if a != b] == []
    scores, corpus = jar.scores(theirs)
    assert [score(one) for one in ours] == pytest.approx(scores, rel=0, abs=1e-12)
    assert aggregate(ours) == pytest.approx(corpus, rel=0, abs=1e-12)


@pytest.mark.slow
def test_the_jar_runs_from_a_folder_with_a_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = find_sources()
    folder = tmp_path / "a folder"
    (folder / "meteor" / "data").mkdir(parents=True)
    shutil.copy(sources.jar, folder.joinpath(*JAR))
    shutil.copy(sources.paraphrases, folder.joinpath(*PARAPHRASES))
    monkeypatch.setattr("stages.evaluate.metrics.meteor.jar.reference_file", folder.joinpath)
    with MeteorJar() as running:
        assert running.statistics("a man", ["a man"]).perfect
