"""SPICE (Anderson et al., ECCV 2016) by its reference: the jar of pycocoevalcap 1.2, on Stanford CoreNLP 3.6.0.

The package carries the jar but not CoreNLP, and nothing is fetched here: SPICE is computed where
`SPICE_CORENLP_DIR` names a folder with CoreNLP's two jars. Two more variables are read: `SPICE_MEMORY`, the most memory
Java may take (`8G`, as in the reference), and `SPICE_CACHE_DIR`, a folder on a local disk to keep parsed captions in
from one run to the next. The reference always keeps them, inside its own package; the scores are the same with and
without, by the jar's source.

The tests run the jar itself, on parses put into its cache. It has not been run on captions parsed by CoreNLP 3.6.0,
which was not at hand: the published scores remain to be compared where it is.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stages.evaluate.metrics.java import Process, Unavailable, find_java, java_version, reference_file

#: Kinds of propositions that are scored separately, as the reference names them.
CATEGORIES = ("Relation", "Attribute", "Object", "Color", "Cardinality", "Size")

_FOLDER = "SPICE_CORENLP_DIR"
_CACHE = "SPICE_CACHE_DIR"
_MEMORY = "SPICE_MEMORY"
_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_ARCHIVE = "stanford-corenlp-full-2015-12-09"  # what CoreNLP 3.6.0's archive unpacks to
_SCORER = "edu.anu.spice.SpiceScorer"
#: Packages whose classes the cache's serializer (FST 2.47) looks into, which Java 16 and later refuse unless opened.
_OPENED = ("lang", "math", "net", "text", "util", "util.concurrent")

# The jar's own `main` lays its result out with Java's JavaScript engine, removed in Java 15: it would fail
# after all the work. This calls the same scorer and writes the same result as it is.
_PRINTER = """\
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Arrays;

public class Printer {
    private static Constructor<?> constructor(String name, Class<?>... of) throws Exception {
        Constructor<?> found = Class.forName("edu.anu.spice." + name).getDeclaredConstructor(of);
        found.setAccessible(true);
        return found;
    }

    public static void main(String[] args) throws Throwable {
        try {
            Object scorer = constructor("SpiceScorer").newInstance();
            Object options = constructor("SpiceArguments", String[].class)
                .newInstance((Object) Arrays.copyOfRange(args, 1, args.length));
            scorer.getClass().getMethod("scoreBatch", options.getClass()).invoke(scorer, options);
            Object stats = scorer.getClass().getField("stats").get(scorer);
            String result = (String) stats.getClass().getMethod("toJSONString").invoke(stats);
            Files.write(Paths.get(args[0]), result.getBytes(StandardCharsets.UTF_8));
        } catch (InvocationTargetException wrapped) {
            throw wrapped.getCause();
        }
    }
}
"""


@dataclass(frozen=True)
class SpiceScores:
    """SPICE of a set of captions; the corpus score is the mean of `per_image`."""

    per_image: list[float]
    """F-score of all propositions in [0, 1], in the order given. 0 where the candidate or the references hold no
    proposition, such as an empty caption: so the reference scores them. Never NaN."""
    categories: dict[str, list[float | None]]
    """Category -> F-score of its propositions in [0, 1]; None where the references hold none, which the reference
    leaves out of the category's mean."""


def check() -> None:
    """Raise Unavailable with the reason where SPICE cannot be computed; scores nothing."""
    _class_path()
    _memory()
    _needs_printer(find_java())


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> SpiceScores:
    """Score tokenized captions (`ptb.tokenize`, as COCO's evaluation gives them to SPICE too), by one run of Java.

    One candidate and at least one reference per image. Raises Unavailable where it cannot be computed, ValueError
    when the two differ in length or an image has no reference.
    """
    for position, refs in enumerate(references):
        if not refs:
            raise ValueError(f"image number {position} has no reference caption")
    images = [
        {"image_id": position, "test": candidate, "refs": list(refs)}
        for position, (candidate, refs) in enumerate(zip(candidates, references, strict=True))
    ]
    check()
    return _scores(_run(images) if images else [], len(images))


def _run(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    java = find_java()
    # What it unpacks and writes goes into the folder, never beside the jars.
    with tempfile.TemporaryDirectory(prefix="pairmill-spice-") as name:
        scratch = Path(name)
        read, written = scratch / "captions.json", scratch / "scores.json"
        read.write_text(json.dumps(images), encoding="ascii")
        options = [f"-Xmx{_memory()}", f"-Djava.io.tmpdir={scratch}", "-cp", _class_path()]
        scored = [str(read), "-subset", "-silent"]
        if cache := os.environ.get(_CACHE):
            scored += ["-cache", str(_created(cache))]
            if java_version(java) >= 9:
                options += [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED]
        if _needs_printer(java):
            (scratch / "Printer.java").write_text(_PRINTER, encoding="ascii")
            program = ["Printer.java", str(written), *scored]
        else:
            program = [_SCORER, *scored, "-out", str(written)]
        try:
            with Process(program, scratch, options) as process:
                process.communicate(b"")
            found: list[dict[str, Any]] = json.loads(written.read_text(encoding="utf-8"))
        except Unavailable as problem:
            raise Unavailable(f"SPICE failed: {str(problem).partition(' ended with ')[2] or problem}") from None
        except (FileNotFoundError, ValueError):
            raise Unavailable("SPICE failed: its jar ended without writing scores") from None
        return found


def _scores(found: list[dict[str, Any]], count: int) -> SpiceScores:
    of_image = {item["image_id"]: item["scores"] for item in found}
    per_image: list[float] = []
    categories: dict[str, list[float | None]] = {category: [] for category in CATEGORIES}
    for position in range(count):
        scores = of_image.get(position, {})
        score = _f(scores, "All")
        if score is None:
            # The jar's formula gives every image a number; pycocoevalcap would make the corpus NaN of one without.
            raise Unavailable(f"SPICE failed: its jar gave no score for image number {position}")
        per_image.append(score)
        for category, own in categories.items():
            own.append(_f(scores, category))
    return SpiceScores(per_image, categories)


def _f(scores: dict[str, dict[str, Any]], category: str) -> float | None:
    value = scores.get(category, {}).get("f")  # the jar writes NaN as null
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _class_path() -> str:
    # CoreNLP comes first, and all jars are named: the jar's manifest only knows those beside itself.
    bundled = reference_file("spice", "spice-1.0.jar")
    libraries = sorted(reference_file("spice", "lib", "SceneGraphParser-1.0.jar").parent.glob("*.jar"))
    jars = [*_corenlp(), *(jar for jar in libraries if not jar.name.startswith("stanford-corenlp")), bundled]
    for jar in jars:
        if os.pathsep in str(jar):
            raise Unavailable(f"{jar}: Java takes no jar at a path with {os.pathsep!r}; move it")
    return os.pathsep.join(str(jar.absolute()) for jar in jars)


def _corenlp() -> list[Path]:
    given = os.environ.get(_FOLDER)
    if not given:
        raise Unavailable(
            f"SPICE needs Stanford CoreNLP 3.6.0; set {_FOLDER} to a folder with {_JARS[0]} and {_JARS[1]} "
            f"(both are in {_ARCHIVE}.zip)"
        )
    folders = [Path(given), Path(given, _ARCHIVE)]
    if not folders[0].is_dir():
        raise Unavailable(f"{_FOLDER}={given}: no such folder; name one with {_JARS[0]} and {_JARS[1]}")
    found = []
    for name in _JARS:
        jar = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if jar is None:
            raise Unavailable(f"{_FOLDER}={given}: no {name}, there or in {_ARCHIVE}; put it there")
        if not zipfile.is_zipfile(jar):
            raise Unavailable(f"{jar}: cut short, or no jar; get it again")
        found.append(jar)
    return found


def _memory() -> str:
    given = os.environ.get(_MEMORY, "8G")
    if not re.fullmatch(r"[1-9]\d*[kKmMgG]", given):
        raise Unavailable(f"{_MEMORY}={given}: no amount of memory; give it like 8G or 6000M")
    return given


def _created(folder: str) -> Path:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise Unavailable(f"{_CACHE}={folder}: {problem.strerror}; name a folder that can be written") from None
    return Path(folder).absolute()


@cache
def _needs_printer(java: str) -> bool:
    """Whether the jar's `main` would fail to write its result. Raises Unavailable where the result cannot be had."""
    version = java_version(java)
    if version < 9:
        return False
    done = subprocess.run([java, "--list-modules"], capture_output=True, text=True, errors="replace", check=False)
    modules = {line.partition("@")[0].strip() for line in done.stdout.splitlines()}
    if "jdk.scripting.nashorn" in modules:
        return False
    if version >= 11 and "jdk.compiler" in modules:  # a program can be run from its source
        return True
    raise Unavailable(
        f"SPICE needs a JDK, or a Java before 15 (with its JavaScript engine); {java} is a runtime of Java {version} "
        "without compiler: install a JDK and put its `java` on PATH or set JAVA_HOME"
    )
