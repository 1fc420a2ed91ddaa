"""Lets `transformers`' Auto classes open our models: ``import models.auto`` is all that it takes.

Registers the config and the model of every architecture, those of other packages included, so that
``AutoModel.from_pretrained(folder)`` and ``AutoConfig.from_pretrained(folder)`` know the `model_type` in the folder's
config.json. Needs neither `stages` nor `pipelines`.
"""

from __future__ import annotations

import logging
from pkgutil import resolve_name

from transformers import AutoConfig, AutoModel

from models import registry
from models.common.errors import UserError

_LOG = logging.getLogger(__name__)


def register() -> None:
    """Register all architectures; may be called again once a package with another one is installed.

    A package that cannot be imported is left out with a warning: it must not stand in the way of the others' models.
    """
    for name in registry.architectures():
        try:
            model = resolve_name(registry.spec(name).model)
        except (UserError, ImportError) as error:
            _LOG.warning("architecture %r cannot be opened: %s", name, error)
            continue
        AutoConfig.register(model.config_class.model_type, model.config_class, exist_ok=True)
        AutoModel.register(model.config_class, model, exist_ok=True)


register()
