"""The tokens stage's configuration."""

from __future__ import annotations

from stages.base.contract import StageConfig


class TokensConfig(StageConfig):
    """The root key `tokens`. It has no settings: ids follow from shards and tokenizer alone."""
