"""SPICE's reference jar, run for real wherever it can be; what is missing is named in one line.

CoreNLP 3.6.0 is not among what the tests install. Its place is taken by the CoreNLP of pycocoevalcap's tokenizer, which
has the code that SPICE starts with and no models: enough to score captions whose parses lie in SPICE's cache.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.evaluate.metrics import java
from stages.evaluate.metrics.java import OPTIONS, Unavailable, find_java, java_version, reference_file
from stages.evaluate.metrics.spice import _OPENED, CATEGORIES, _class_path, check, spice

needs_jdk = pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK")

#: Caption -> what a parser makes of it: objects, attributes (object, attribute) and relations (from, to, name).
PARSES = {
    "a red cat on two mats": ["cat", "cat,red", "mat", "mat,two", "cat,mat,on"],
    "a cat on a mat": ["cat", "mat", "cat,mat,on"],
    "a big dog": ["dog", "dog,big"],
    "an automobile": ["automobile"],
    "a red car": ["car", "car,red"],
    "": [],
    "on the and": [],
    "un café 猫": ["café", "猫"],
}
_KEEP = """\
import java.util.*;

public class Keep {
    public static void main(String[] args) throws Exception {
        Map<String, ArrayList<ArrayList<String>>> parses = new HashMap<>();
        for (String line : System.getProperty("parses").split("\\n")) {
            String[] parts = line.split("\\t", -1);
            ArrayList<ArrayList<String>> tuples = new ArrayList<>();
            for (String tuple : parts[1].isEmpty() ? new String[0] : parts[1].split(";"))
                tuples.add(new ArrayList<>(Arrays.asList(tuple.split(","))));
            parses.put(parts[0], tuples);
        }
        new edu.anu.spice.LmdbTupleDB(args[0]).putTransaction(parses);
    }
}
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("SPICE_CORENLP_DIR", "SPICE_CACHE_DIR", "SPICE_MEMORY"):
        monkeypatch.delenv(name, raising=False)
    find_java.cache_clear()
    yield
    find_java.cache_clear()


@pytest.fixture
def corenlp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in, at a path with a space and a letter beyond ASCII."""
    folder = tmp_path / "core nlp é"
    folder.mkdir()
    real = reference_file("tokenizer", "stanford-corenlp-3.4.1.jar")
    for name in ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"):
        (folder / name).symlink_to(real)
    monkeypatch.setenv("SPICE_CORENLP_DIR", str(folder))
    return folder


@pytest.fixture
def parsed(corenlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SPICE's cache, holding PARSES."""
    cache = tmp_path / "kept parses"
    cache.mkdir()
    (tmp_path / "Keep.java").write_text(_KEEP)
    parses = "\n".join(f"{caption}\t{';'.join(tuples)}" for caption, tuples in PARSES.items())
    opened = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED]
    subprocess.run(
        [find_java(), *OPTIONS, *opened, "-cp", _class_path(), f"-Dparses={parses}", "Keep.java", str(cache)],
        cwd=tmp_path,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=True,
    )
    monkeypatch.setenv("SPICE_CACHE_DIR", str(cache))
    return cache


def f(true: int, candidate: int, reference: int) -> float:
    """F-score from the numbers of propositions in common, of the candidate's and of the references'."""
    return pytest.approx(2 * true / (candidate + reference), abs=1e-12)


@needs_jdk
def test_the_jar_scores_the_propositions_of_parsed_captions(parsed: Path) -> None:
    scores = spice(["a cat on a mat", "a big dog"], [["a red cat on two mats", "a big dog"], ["a cat on a mat"]])
    assert scores.per_image == [f(3, 3, 7), 0.0]
    assert list(scores.categories) == list(CATEGORIES)
    assert scores.categories == {
        "Relation": [f(1, 1, 1), 0.0],
        "Attribute": [0.0, None],
        "Object": [f(2, 2, 3), 0.0],
        "Color": [0.0, None],
        "Cardinality": [0.0, None],
        "Size": [0.0, None],
    }


@needs_jdk
def test_synonyms_are_found_in_the_jars_own_wordnet(parsed: Path) -> None:
    assert spice(["an automobile"], [["a red car"]]).per_image == [f(1, 1, 2)]
    assert spice(["an automobile"], [["a big dog"]]).per_image == [0.0]


@needs_jdk
def test_an_empty_caption_scores_zero_and_never_nan(parsed: Path) -> None:
    scores = spice(["", "", "a big dog"], [["a big dog"], ["on the and"], ["on the and", ""]])
    assert scores.per_image == [0.0, 0.0, 0.0]
    assert scores.categories["Object"] == [0.0, None, None]
    assert scores.categories["Relation"] == [None, None, None]


@needs_jdk
def test_scores_come_in_the_order_given_whatever_the_script(parsed: Path) -> None:
    captions = ["un café 猫", "a big dog", "", "a cat on a mat"] * 3
    assert spice(captions, [["un café 猫"], ["a big dog"], ["a big dog"], ["a cat on a mat"]] * 3).per_image == [
        *[1.0, 1.0, 0.0, 1.0] * 3
    ]


@needs_jdk
def test_nothing_is_written_beside_the_jars_or_left_behind(parsed: Path, tmp_path, monkeypatch) -> None:
    package = reference_file("spice", "spice-1.0.jar").parent
    before = sorted((file, file.stat().st_mtime_ns) for file in package.rglob("*"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    spice(["a big dog"], [["a cat on a mat"]])
    assert sorted((file, file.stat().st_mtime_ns) for file in package.rglob("*")) == before
    assert list((tmp_path / "temporary").iterdir()) == []


@needs_jdk
def test_a_jar_that_fails_says_why_in_one_line(corenlp: Path) -> None:
    # The stand-in has no models: the real jar with real captions comes as far as loading the parser.
    with pytest.raises(Unavailable) as failed:
        spice(["a cat"], [["a dog"]])
    assert str(failed.value).startswith("SPICE failed: code 1: java.io.IOException: Unable to resolve")
    assert "englishPCFG.ser.gz" in str(failed.value)
    assert "\n" not in str(failed.value)


@needs_jdk
def test_the_memory_can_be_set(corenlp: Path, monkeypatch) -> None:
    monkeypatch.setenv("SPICE_MEMORY", "1M")
    with pytest.raises(Unavailable, match=r"SPICE failed: .*Too small"):
        spice(["a cat"], [["a dog"]])
    monkeypatch.setenv("SPICE_MEMORY", "much")
    with pytest.raises(Unavailable, match="SPICE_MEMORY=much: no amount of memory; give it like 8G"):
        check()


def test_without_corenlp_the_reason_says_what_to_put_where(tmp_path, monkeypatch) -> None:
    for action in (check, lambda: spice(["a"], [["b"]])):
        with pytest.raises(Unavailable, match=r"needs Stanford CoreNLP 3\.6\.0; set SPICE_CORENLP_DIR to a folder"):
            action()
    monkeypatch.setenv("SPICE_CORENLP_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(Unavailable, match=r"SPICE_CORENLP_DIR=.*nowhere: no such folder"):
        check()
    monkeypatch.setenv("SPICE_CORENLP_DIR", str(tmp_path))
    with pytest.raises(Unavailable, match=r"no stanford-corenlp-3\.6\.0\.jar, there or in stanford-corenlp-full-2015"):
        check()


def test_corenlp_is_found_as_its_archive_unpacks_and_each_jar_is_looked_at(corenlp: Path) -> None:
    archive = corenlp / "stanford-corenlp-full-2015-12-09"
    archive.mkdir()
    models = corenlp / "stanford-corenlp-3.6.0-models.jar"
    models.rename(archive / models.name)
    assert f"{archive / models.name}{os.pathsep}" in _class_path()
    (archive / models.name).unlink()
    with pytest.raises(Unavailable, match=r"no stanford-corenlp-3\.6\.0-models\.jar"):
        check()
    models.write_bytes(reference_file("tokenizer", "stanford-corenlp-3.4.1.jar").read_bytes()[:5000])
    with pytest.raises(Unavailable, match=r"models\.jar: cut short, or no jar"):
        check()


def test_without_java_the_reason_says_so(corenlp: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="no Java found; install"):
        check()


@pytest.fixture
def other_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a program in Java's place that answers as another Java would, and notes how it is called."""

    def install(version: str, modules: str) -> Path:
        home = tmp_path / f"java {version}"
        (home / "bin").mkdir(parents=True)
        program = home / "bin" / "java"
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, sys\n"
            "arguments = sys.argv[1:]\n"
            "if arguments == ['-version']:\n"
            f"    sys.exit(print('openjdk version \"{version}\"', file=sys.stderr))\n"
            "if arguments == ['--list-modules']:\n"
            f"    sys.exit(print({modules!r}.replace(' ', '\\n')))\n"
            f"open({str(home / 'called')!r}, 'w').write('\\n'.join(arguments))\n"
            "written = open(arguments[arguments.index('-out') + 1], 'w')\n"
            "asked = json.load(open(next(a for a in arguments if a.endswith('captions.json'))))\n"
            "scores = [{'image_id': a['image_id'], 'scores': {'All': {'f': 0.5 if a['test'] else None}}} "
            "for a in asked]\n"
            "json.dump(scores, written)\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("JAVA_HOME", str(home))
        find_java.cache_clear()
        return home / "called"

    return install


@pytest.mark.parametrize(
    ("version", "modules", "opens"),
    [("1.8.0_392", "", False), ("11.0.2", "java.base@11 jdk.scripting.nashorn@11", True)],
)
def test_a_java_with_javascript_runs_the_jars_own_program(
    corenlp, other_java, tmp_path, monkeypatch, version, modules, opens
) -> None:
    called = other_java(version, modules)
    monkeypatch.setenv("SPICE_CACHE_DIR", str(tmp_path / "new" / "kept"))
    assert spice(["a cat"], [["a dog"]]).per_image == [0.5]
    arguments = called.read_text().splitlines()
    at = arguments.index("edu.anu.spice.SpiceScorer")
    assert "-Xmx8G" in arguments[:at]
    assert any(a.startswith("--add-opens") for a in arguments[:at]) == opens
    assert arguments[arguments.index("-cache") + 1] == str(tmp_path / "new" / "kept")
    assert {"-subset", "-silent", "-out"} < set(arguments[at:])


def test_a_score_that_is_no_number_is_never_passed_on(corenlp, other_java) -> None:
    other_java("1.8.0_392", "")
    with pytest.raises(Unavailable, match="gave no score for image number 1"):
        spice(["a cat", ""], [["a dog"], ["a dog"]])


def test_a_runtime_that_can_neither_write_nor_compile_is_refused(corenlp, other_java) -> None:
    other_java("21.0.1", "java.base@21 java.scripting@21")
    assert java_version(java.find_java()) == 21
    with pytest.raises(Unavailable, match=r"needs a JDK, or a Java before 15 .* is a runtime of Java 21"):
        check()


def test_arguments_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="image number 1 has no reference"):
        spice(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        spice(["a", "b"], [["a"]])
