"""From `conf/` and a command line to one validated config; every mistake is one line with the key's full path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from models.common.config import ModelConfig
from models.registry import conf_folders, config_class
from pipelines.config import PairmillConfig
from stages.base.contract import UserError
from stages.ingest.config import SourceConfig
from stages.ingest.plugins import source_class, source_config

CONF = Path(__file__).resolve().parents[1] / "conf"

#: Groups of which several may be chosen at once: `source=laion,cc12m` means the list.
LISTS = ("world", "source", "task", "benchmark")


def load(overrides: Sequence[str] = (), conf: Path = CONF) -> PairmillConfig:
    """Compose `conf/config.yaml` with Hydra overrides and validate it whole. Raises UserError."""
    values = _values(overrides, conf)
    wrong: list[str] = []
    sources: dict[str, SourceConfig] = {}
    for name, fields in (values.get("sources") or {}).items():
        try:
            sources[name] = source_config(name, fields)
        except ValidationError as error:
            schema = source_class(fields["kind"]).Config
            wrong += _lines(error, schema, ("sources", name))
    try:
        config = PairmillConfig.model_validate({**values, "sources": {} if wrong else sources})
    except ValidationError as error:
        wrong += _lines(error, PairmillConfig, model=_model_schema(values.get("model")))
    if wrong:
        raise UserError("\n".join(wrong))
    return config


def _values(overrides: Sequence[str], conf: Path) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_dir(str(conf), version_base=None):
        try:
            chosen = [_override(text, conf) for text in overrides]
            composed = compose("config", [*_search_path(chosen, conf), *_experiment(chosen, conf), *chosen])
            values = _plain(OmegaConf.to_container(composed, resolve=True))
            _empty(values, overrides)
            # What a benchmark or the selection refers to by name is loaded from conf/ like a choice of its own.
            held_out = {}
            for name in values.get("held_out") or []:
                _known(conf, "benchmark", name, "held_out")
                held_out[name] = _file(conf, "benchmark", name)
            values["held_out"] = held_out
            tasks = values.setdefault("tasks", {})
            for name, benchmark in (values.get("benchmarks") or {}).items():
                task = benchmark.get("task") if isinstance(benchmark, dict) else None
                if task and task not in tasks:
                    _known(conf, "task", task, f"benchmarks.{name}.task")
                    tasks[task] = _file(conf, "task", task)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_hydra_line(error, overrides, conf)) from None
    return values


def _empty(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Empty what `key={}` says is empty: Hydra merges the two mappings, which would change nothing."""
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        *path, last = key.split(".")
        inner: Any = values
        for name in path:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if value.replace(" ", "") == "{}" and isinstance(inner, dict) and isinstance(inner.get(last), dict):
            inner[last] = {}


def _plain(container: Any) -> dict[str, Any]:
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _file(conf: Path, group: str, name: str) -> dict[str, Any]:
    """A choice that nothing on the command line can change: its file alone, without Hydra's slower composition."""
    from omegaconf import OmegaConf

    return _plain(OmegaConf.to_container(OmegaConf.load(conf / group / f"{name}.yaml"), resolve=True))


def _search_path(chosen: Sequence[str], conf: Path) -> list[str]:
    """The override by which Hydra finds choices that other packages bring; none where all are in `conf/`."""
    groups = (text.partition("=") for text in chosen if text.startswith(("model=", "recipe=")))
    if all((conf / group / f"{name}.yaml").exists() for group, _, name in groups):
        return []
    folders = [str(folder.resolve()).replace("\\", "\\\\").replace("'", "\\'") for folder in conf_folders()]
    quoted = ",".join(f"'file://{folder}'" for folder in folders)  # a path may hold what Hydra's grammar does not take
    return [f"hydra.searchpath=[{quoted}]"]


def choices(conf: Path, group: str) -> list[str]:
    """Names of a config group's files; of models and recipes also those that other packages bring."""
    folders = [conf, *conf_folders()] if group in ("model", "recipe") else [conf]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _known(conf: Path, group: str, name: str, key: str) -> None:
    if not (conf / group / f"{name}.yaml").exists() and name not in (available := choices(conf, group)):
        raise UserError(f"{key}={name}: no conf/{group}/{name}.yaml; choose one of {', '.join(available)}")


def _override(text: str, conf: Path) -> str:
    """One word of the command line as Hydra takes it; a choice that does not exist is refused here."""
    match = re.fullmatch(r"(\+{0,2}|~)([\w@./]+)=(.*)", text, re.DOTALL)
    if not match:
        raise UserError(f"{text!r} is not an override: write key=value, e.g. train.lr=1e-3 or model=florence2_tiny")
    prefix, key, value = match.groups()
    if (conf / key).is_dir():
        names = [name.strip() for name in value.strip("[]").split(",") if name.strip()]
        for name in names:
            _known(conf, key, name, key)
        if key not in LISTS and len(names) != 1:
            raise UserError(f"{text}: {key} takes one choice of {', '.join(choices(conf, key))}")
        return f"{key}=[{','.join(names)}]" if key in LISTS else f"{key}={names[0]}"
    # Keys that only have a default in the schema are not in conf/, so let Hydra add them and the schema judge.
    return f"{prefix or '++'}{key}={value}"


def _experiment(chosen: Sequence[str], conf: Path) -> list[str]:
    """The choices that come with a model, from `conf/experiment/`; Hydra lets them be overridden like defaults."""
    models = [text.removeprefix("model=") for text in chosen if text.startswith("model=")]
    if models and (conf / "experiment" / f"{models[-1]}.yaml").exists():
        return [f"+experiment={models[-1]}"]
    return []


def _hydra_line(error: Exception, overrides: Sequence[str], conf: Path) -> str:
    first = str(error).strip().splitlines()[0]
    missing = re.search(r"Could not (?:find|load) '(\w+)/(\w+)'", str(error))
    if missing:
        group, name = missing.groups()
        return f"{group}={name}: no conf/{group}/{name}.yaml; choose one of {', '.join(choices(conf, group))}"
    return f"the configuration cannot be put together: {first} (overrides: {' '.join(overrides) or 'none'})"


def _model_schema(fields: Any) -> type[BaseModel]:
    """The schema of the chosen architecture, as far as there is one."""
    try:
        return config_class(fields) if isinstance(fields, Mapping) else ModelConfig
    except ValidationError:
        return ModelConfig


def _lines(
    error: ValidationError, root: type[BaseModel], prefix: tuple[str, ...] = (), model: type[BaseModel] = ModelConfig
) -> list[str]:
    lines = []
    for item in error.errors(include_url=False):
        schema, path = _walk(item["loc"], root, model)
        path = [*prefix, *path]
        key = ".".join(path)
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(path[-1], schema, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            parent = ".".join(path[:-1]) or "the top level"
            lines.append(f"{key}: unknown key; {hint}{parent} takes {', '.join(schema)}")
            continue
        message = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        given = item.get("input")
        shown = "" if item["type"] == "missing" or isinstance(given, dict | BaseModel) else f"={given!r}"
        message = f"{message[:1].lower()}{message[1:]}"
        lines.append(f"{key}{shown}: {message}" if path else message)  # a rule over several keys names them itself
    return lines


def _walk(loc: Sequence[int | str], root: type[BaseModel], model: type[BaseModel]) -> tuple[list[str], list[str]]:
    """Follow an error's location through the schema: field names of its parent, and the path as a user writes it."""
    path: list[str] = []
    annotation: Any = root
    fields: list[str] = list(root.model_fields)
    for part in loc:
        models = _models(annotation)
        tagged = [m for m in models if part in _tags(m)] if len(models) > 1 else []
        if tagged:  # the tag of a discriminated union is not a key
            annotation = tagged[0]
            continue
        path.append(str(part))
        known = [m for m in models if part in m.model_fields] or models
        if known:
            fields = list(known[0].model_fields)
            field = known[0].model_fields.get(str(part))
            annotation = field.annotation if field else None
            if annotation is ModelConfig:
                annotation = model
        else:
            annotation = get_args(annotation)[-1] if get_args(annotation) else None
    return fields, path


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (dict, list, tuple):
        return []
    if get_origin(annotation) is Union or get_args(annotation):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []


def _tags(model: type[BaseModel]) -> set[str]:
    return (
        {str(tag) for tag in get_args(model.model_fields["kind"].annotation)} if "kind" in model.model_fields else set()
    )
