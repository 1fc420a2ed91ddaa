"""A stage's config as MLflow params: private parts removed, nesting flattened, names and lengths within the limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Keys that are kept of a source marked `private: true`.
_PUBLIC_KEYS = ("kind", "private", "name")

#: Limits and alphabet of mlflow.utils.validation (MAX_ENTITY_KEY_LENGTH, MAX_PARAM_VAL_LENGTH).
_MAX_KEY = 250
_MAX_VALUE = 6000
_FORBIDDEN = re.compile(r"[^\w\-. :/]")


def is_private(config: Any) -> bool:
    """Whether a config, or anything in it, is marked `private: true`."""
    if isinstance(config, Mapping):
        return config.get("private") is True or any(is_private(value) for value in config.values())
    return isinstance(config, (list, tuple)) and any(is_private(value) for value in config)


def private_names(config: Any) -> set[str]:
    """The names of all private sources in a config: their keys, or their own `name`."""
    if isinstance(config, Mapping):
        named = {
            str(key) for key, value in config.items() if isinstance(value, Mapping) and value.get("private") is True
        }
        if config.get("private") is True and isinstance(config.get("name"), str):
            named.add(config["name"])
        return named.union(*(private_names(value) for value in config.values()))
    if isinstance(config, (list, tuple)):
        return set().union(*(private_names(value) for value in config))
    return set()


def redact(config: Any) -> Any:
    """The config with every mapping marked `private: true` reduced to its kind, its name and that mark."""
    if isinstance(config, Mapping):
        if config.get("private") is True:
            return {key: config[key] for key in _PUBLIC_KEYS if key in config}
        return {key: redact(value) for key, value in config.items()}
    return [redact(value) for value in config] if isinstance(config, (list, tuple)) else config


def redact_words(command: str, private: set[str]) -> str:
    """A command line without the values of overrides of a private source."""
    words = []
    for word in command.split(" "):
        key, given, _ = word.partition("=")
        words.append(f"{key}=..." if given and private & set(key.lstrip("+~").split(".")) else word)
    return " ".join(words)


def entity_key(name: str) -> str:
    """The name with characters that MLflow does not allow in a metric, param or tag key replaced by `_`."""
    # MLflow refuses names that are no normal paths ("a//b", "../a"): slashes are merged, leading dots get a prefix.
    clean = re.sub(r"/+", "/", _FORBIDDEN.sub("_", name)).strip("/")
    return (re.sub(r"(^|/)(\.+)(?=/|$)", r"\1_", clean) or "_")[:_MAX_KEY]


def flatten(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys and text values. A value beyond MLflow's limit continues under `key.part2`, `key.part3`, ..."""
    flat: dict[str, str] = {}
    for key, value in _leaves(config, ""):
        name = entity_key(key)
        for part, start in enumerate(range(0, max(len(value), 1), _MAX_VALUE), start=1):
            suffix = "" if part == 1 else f".part{part}"
            flat[name[: _MAX_KEY - len(suffix)] + suffix] = value[start : start + _MAX_VALUE]
    return flat


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
